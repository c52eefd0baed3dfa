package samples

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	flux "github.com/lethe-dev/lethe/test/kstatus"
)

// manifests are all files that users copy.
func manifests(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, folder := range []string{"config/samples", "examples/quickstart", "examples/programs"} {
		files, err := filepath.Glob(filepath.Join(cluster.Root, folder, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			if filepath.Base(file) != "kustomization.yaml" {
				all = append(all, file)
			}
		}
	}
	return all
}

// remove takes an object away at the end of a test.
func remove(t *testing.T, o client.Object) {
	t.Helper()
	t.Cleanup(func() {
		if err := cluster.Client.Delete(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
}

// TestNobodyTakesANewObjectForReady: no manager has ever run here. kstatus, and so Flux, waits for every object from
// its first moment, as the answer to its creation and as it is read again.
func TestNobodyTakesANewObjectForReady(t *testing.T) {
	kinds := map[string]int{}
	for _, file := range manifests(t) {
		for _, o := range documents(t, file) {
			if err := send(t, o.DeepCopy()); err != nil { // makes the namespace
				t.Fatal(err)
			}
			if err := cluster.Client.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			remove(t, o)
			read := &unstructured.Unstructured{}
			read.SetGroupVersionKind(o.GroupVersionKind())
			if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(o), read); err != nil {
				t.Fatal(err)
			}
			for when, seen := range map[string]*unstructured.Unstructured{"created": o, "read": read} {
				if state, err := flux.Of(seen); err != nil || state != kstatus.InProgressStatus {
					t.Errorf("%s %s, %s: %s, %v", o.GetKind(), o.GetName(), when, state, err)
				}
				flux.Check(t, seen)
			}
			kinds[o.GetKind()]++
		}
	}
	for _, kind := range flux.Kinds {
		if kinds[kind] == 0 {
			t.Errorf("no %s was tried", kind)
		}
	}
}

// TestApplyTwiceIsUnchanged: kubectl itself has nothing to do the second time, and the three-way comparison of what
// is in Git, what was applied and what is there, which is Argo CD's, finds nothing.
func TestApplyTwiceIsUnchanged(t *testing.T) {
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, cluster.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), filepath.Join(cluster.Assets, "kubectl"), append([]string{"--kubeconfig", config}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for _, file := range manifests(t) {
		for _, o := range documents(t, file) {
			if err := send(t, o.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			remove(t, o)
		}
		kubectl("apply", "-f", file)
		for line := range strings.Lines(kubectl("apply", "-f", file)) {
			if !strings.HasSuffix(strings.TrimSpace(line), " unchanged") {
				t.Errorf("%s: the second time: %s", filepath.Base(file), line)
			}
		}
		for _, o := range documents(t, file) {
			live := &unstructured.Unstructured{}
			live.SetGroupVersionKind(o.GroupVersionKind())
			if err := cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(o), live); err != nil {
				t.Fatal(err)
			}
			wanted, err := json.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			present, err := json.Marshal(live.Object)
			if err != nil {
				t.Fatal(err)
			}
			patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(wanted, wanted, present)
			if err != nil || string(patch) != "{}" {
				t.Errorf("%s %s differs from Git for ever: %s, %v", o.GetKind(), o.GetName(), patch, err)
			}
		}
	}
}

// TestNoDefaultsInsideLists: a client that compares lists as a whole takes what the API server has put into an
// element for a change.
func TestNoDefaultsInsideLists(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(cluster.Root, "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) != len(flux.Kinds) {
		t.Fatal(files, err)
	}
	lists := 0
	var visit func(path string, schema *apiextensionsv1.JSONSchemaProps, inList bool)
	visit = func(path string, schema *apiextensionsv1.JSONSchemaProps, inList bool) {
		if inList && schema.Default != nil {
			t.Errorf("%s has a default: %s", path, schema.Default.Raw)
		}
		for name := range schema.Properties {
			property := schema.Properties[name]
			visit(path+"."+name, &property, inList)
		}
		if schema.Items != nil && schema.Items.Schema != nil {
			lists++
			visit(path+"[]", schema.Items.Schema, true)
		}
		if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
			visit(path+"{}", schema.AdditionalProperties.Schema, inList)
		}
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		visit(crd.Spec.Names.Kind+".spec", &spec, false)
	}
	if lists < 25 {
		t.Errorf("%d lists only", lists)
	}
}
