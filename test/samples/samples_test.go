// Package samples holds the manifests that users copy against the real API server.
package samples

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/env"
)

var cluster *env.Env

func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { cluster = e })) }

// documents of a file, as the user would send them.
func documents(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for text := range strings.SplitSeq("\n"+string(content), "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(text), &o.Object); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// send dry-runs the creation of an object with the server's strict decoding, in its namespace.
func send(t *testing.T, o *unstructured.Unstructured) error {
	t.Helper()
	if ns := o.GetNamespace(); ns != "" {
		err := cluster.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		if client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
	return cluster.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict"))
}

// typed decodes strictly into the kind's own type, which knows fields that a schema with preserved ones would let pass.
func typed(o *unstructured.Unstructured) (client.Object, error) {
	object, err := cluster.Scheme.New(o.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	b, err := yaml.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(b, object); err != nil {
		return nil, err
	}
	return object.(client.Object), nil
}

func TestTheServerTakesEverySample(t *testing.T) {
	kinds := map[string]int{}
	for _, folder := range []string{"config/samples", "examples/quickstart", "examples/programs"} {
		files, err := filepath.Glob(filepath.Join(cluster.Root, folder, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			if filepath.Base(file) == "kustomization.yaml" {
				continue
			}
			for _, o := range documents(t, file) {
				name := fmt.Sprintf("%s/%s/%s", folder, filepath.Base(file), o.GetName())
				object, err := typed(o)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if err := send(t, o); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				kind := folder + " " + o.GetKind()
				switch object := object.(type) {
				case *v1alpha1.Tenant:
					kind += " " + string(object.Spec.Class)
				case *v1alpha1.DataStore:
					kind += " " + string(object.Spec.Tenancy)
				}
				kinds[kind]++
			}
		}
	}
	want := map[string]int{
		"config/samples Tenant Customer": 1, "config/samples Tenant Platform": 1, "config/samples BotDeployment": 3,
		"config/samples DataStore Dedicated": 1, "config/samples DataStore Shared": 1, "config/samples DataRetentionPolicy": 1,
		"examples/quickstart Tenant Platform": 1, "examples/quickstart Tenant ": 2, "examples/quickstart BotDeployment": 1,
		"examples/quickstart DataStore Shared": 1, "examples/quickstart DataRetentionPolicy": 1,
		"examples/programs BotDeployment": 2,
	}
	for kind, n := range want {
		if kinds[kind] != n {
			t.Errorf("%d of %s, want %d", kinds[kind], kind, n)
		}
	}
}

func TestTheSamplesKustomizationNamesEveryFile(t *testing.T) {
	folder := filepath.Join(cluster.Root, "config", "samples")
	b, err := os.ReadFile(filepath.Join(folder, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		Resources []string `json:"resources"`
	}
	if err := yaml.UnmarshalStrict(b, &k); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"kustomization.yaml": true}
	for _, r := range k.Resources {
		listed[r] = true
		if _, err := os.Stat(filepath.Join(folder, r)); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !listed[e.Name()] {
			t.Errorf("%s is not listed", e.Name())
		}
	}
}

// TestStrictIsStrict: a check that lets everything pass would find every sample right.
func TestStrictIsStrict(t *testing.T) {
	for name, change := range map[string]func(o *unstructured.Unstructured) error{
		"a misspelt field": func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedField(o.Object, "Suspended", "spec", "operatingmode")
		},
		"a plaintext token": func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedSlice(o.Object, []any{map[string]any{"name": "telegram-token", "sealed": "4242:AAPlaintext"}}, "spec", "credentials")
		},
	} {
		o := documents(t, filepath.Join(cluster.Root, "examples", "quickstart", "bot.yaml"))[0]
		if err := change(o); err != nil {
			t.Fatal(err)
		}
		err := send(t, o)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if strings.Contains(err.Error(), "AAPlaintext") {
			t.Errorf("%s: the error repeats the value: %v", name, err)
		}
	}
}
