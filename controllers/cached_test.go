package controllers_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestEveryCachedKindIsWalled: a kind that the manager caches by its label, and whose label anybody may give, is
// memory that anybody may take. The admission policy names the same kinds.
func TestEveryCachedKindIsWalled(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(operator.TestEnv.Root, "config/admission/managed-by.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(content), "\n---")
	policy := &admissionv1.ValidatingAdmissionPolicy{}
	if err := yaml.Unmarshal([]byte(first), policy); err != nil {
		t.Fatal(err)
	}
	var walled, cached []string
	for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
		for _, resource := range rule.Resources {
			if !strings.Contains(resource, "/") {
				walled = append(walled, rule.APIGroups[0]+"/"+resource)
			}
		}
	}
	for object, by := range controllers.CachedObjects() {
		if by.Label == nil || !by.Label.Matches(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe}) {
			continue // namespaces, by a label that lethe-namespace-label protects
		}
		gvk, err := apiutil.GVKForObject(object, operator.TestEnv.Scheme)
		if err != nil {
			t.Fatal(err)
		}
		mapping, err := operator.TestEnv.Client.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			t.Fatal(err)
		}
		cached = append(cached, mapping.Resource.Group+"/"+mapping.Resource.Resource)
	}
	slices.Sort(walled)
	slices.Sort(cached)
	if len(cached) < 8 || !slices.Equal(walled, cached) {
		t.Errorf("the manager caches %v, and lethe-managed-by walls %v", cached, walled)
	}
}
