package controllers_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestWhatIsSharedIsNotWrittenAgain: a cache shows the objects of its first list twice, when others may be reading what
// they have in common.
func TestWhatIsSharedIsNotWrittenAgain(t *testing.T) {
	transform := controllers.Transform(nil)
	set := func(name string) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.StatefulSetSpec{Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "bot", Args: []string{"run"}}}}}}}
	}
	read, again := set("a"), set("b")
	for _, object := range []*appsv1.StatefulSet{read, again} {
		if _, err := transform(object); err != nil {
			t.Fatal(err)
		}
	}
	container := &read.Spec.Template.Spec.Containers[0]
	if container != &again.Spec.Template.Spec.Containers[0] {
		t.Fatal("containers that are the same are there twice")
	}
	written := strings.Repeat("x", 100) // whoever strips it writes something else
	container.Args[0] = written
	if _, err := transform(again); err != nil {
		t.Fatal(err)
	}
	if container.Args[0] != written {
		t.Error("what another object shares was written")
	}
}

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
