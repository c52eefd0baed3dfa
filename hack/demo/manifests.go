package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/test/stage"
)

// quickstart reads objects of examples/quickstart, strictly: what a user reads there is what runs here.
func quickstart[T any](d *demo, file string) ([]*T, error) {
	b, err := os.ReadFile(filepath.Join(d.Root, "examples", "quickstart", file))
	if err != nil {
		return nil, fmt.Errorf("read the example: %w", err)
	}
	var out []*T
	for doc := range strings.SplitSeq(string(b), "\n---\n") {
		o := new(T)
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			return nil, fmt.Errorf("read examples/quickstart/%s: %w", file, err)
		}
		out = append(out, o)
	}
	return out, nil
}

// write puts objects into a manifest of the demo's folder, where the user can read them, and returns its path.
func (d *demo) write(file string, objects ...client.Object) (string, error) {
	var docs []string
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			return "", fmt.Errorf("write %s: %w", file, err)
		}
		docs = append(docs, string(b))
	}
	path := d.Path("manifests", file)
	if err := os.WriteFile(path, []byte(strings.Join(docs, "---\n")), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", file, err)
	}
	return path, nil
}

// apply writes objects to a manifest and applies it as a user does: again, where Kubernetes is not ready for a new
// bot yet (docs/design/0033-finalizer-at-birth.md).
func (d *demo) apply(ctx context.Context, file string, objects ...client.Object) error {
	path, err := d.write(file, objects...)
	if err != nil {
		return err
	}
	return stage.Until(ctx, time.Minute, "apply "+file, func(ctx context.Context) (string, error) {
		_, err := d.Kubectl(ctx, "", "apply", "--server-side", "--field-manager", "demo", "--validate=strict", "-f", path)
		if err != nil && !strings.Contains(err.Error(), "(ServiceUnavailable)") {
			return "", stage.Stop(err)
		}
		return "", err
	})
}

// await waits until an object's condition is True and speaks of the present spec.
func (d *demo) await(ctx context.Context, o client.Object, condition string, most time.Duration) error {
	return stage.AwaitCondition(ctx, d.client, o, condition, metav1.ConditionTrue, "", most)
}
