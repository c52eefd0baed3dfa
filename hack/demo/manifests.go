package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/hack/demo/stage"
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

// apply writes objects to a manifest and applies it as a user does.
func (d *demo) apply(ctx context.Context, file string, objects ...client.Object) error {
	path, err := d.write(file, objects...)
	if err != nil {
		return err
	}
	_, err = d.Kubectl(ctx, "", "apply", "--server-side", "--field-manager", "demo", "--validate=strict", "-f", path)
	return err
}

// conditionsOf any of our kinds.
func conditionsOf(o client.Object) []metav1.Condition {
	switch o := o.(type) {
	case *v1alpha1.Tenant:
		return o.Status.Conditions
	case *v1alpha1.BotDeployment:
		return o.Status.Conditions
	case *v1alpha1.DataStore:
		return o.Status.Conditions
	case *v1alpha1.DataRetentionPolicy:
		return o.Status.Conditions
	default:
		return nil
	}
}

// await waits until an object's condition is True and speaks of the present spec.
func (d *demo) await(ctx context.Context, o client.Object, condition string, most time.Duration) error {
	what := fmt.Sprintf("wait for %s of %s", condition, o.GetName())
	return stage.Until(ctx, most, what, func(ctx context.Context) (string, error) {
		if err := d.client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return "", err
		}
		c := meta.FindStatusCondition(conditionsOf(o), condition)
		switch {
		case c == nil:
			return "it has not been set", nil
		case c.Status != metav1.ConditionTrue || c.ObservedGeneration != o.GetGeneration():
			return fmt.Sprintf("%s is %s: %s: %s", condition, c.Status, c.Reason, c.Message), nil
		}
		return "", nil
	})
}
