package resources

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/test/specs"
)

// everyAffinity uses every field.
func everyAffinity() *v1alpha1.TenantAffinity {
	return &v1alpha1.TenantAffinity{
		NodeAffinity: &v1alpha1.NodeAffinity{
			Required: &v1alpha1.NodeTerms{NodeSelectorTerms: []v1alpha1.NodeTerm{
				{MatchExpressions: []v1alpha1.NodeRequirement{{Key: "topology.kubernetes.io/region", Operator: corev1.NodeSelectorOpIn, Values: []string{"eu", "eu-2"}}}},
				{MatchExpressions: []v1alpha1.NodeRequirement{{Key: "example.com/cores", Operator: corev1.NodeSelectorOpGt, Values: []string{"8"}}}},
			}},
			Preferred: []v1alpha1.PreferredNodes{{Weight: 20, Preference: v1alpha1.NodeTerm{MatchExpressions: []v1alpha1.NodeRequirement{{Key: "example.com/spot", Operator: corev1.NodeSelectorOpDoesNotExist}}}}},
		},
		PodAffinity: &v1alpha1.PodAffinity{
			Required:  []v1alpha1.PodTerm{{TopologyKey: "topology.kubernetes.io/region"}},
			Preferred: []v1alpha1.PreferredPodTerm{{Weight: 5, PodAffinityTerm: v1alpha1.PodTerm{TopologyKey: "topology.kubernetes.io/zone", LabelSelector: selects("app", metav1.LabelSelectorOpIn, "cache")}}},
		},
		PodAntiAffinity: &v1alpha1.PodAffinity{
			Required:  []v1alpha1.PodTerm{{TopologyKey: "kubernetes.io/hostname", LabelSelector: selects("lethe.dev/tenant", metav1.LabelSelectorOpExists)}},
			Preferred: []v1alpha1.PreferredPodTerm{{Weight: 100, PodAffinityTerm: v1alpha1.PodTerm{TopologyKey: "topology.kubernetes.io/zone"}}},
		},
	}
}

func selects(key string, operator metav1.LabelSelectorOperator, values ...string) *v1alpha1.PodSelector {
	return &v1alpha1.PodSelector{MatchExpressions: []v1alpha1.PodRequirement{{Key: key, Operator: operator, Values: values}}}
}

// TestAffinity: nodes are meant for all pods of a Tenant, other pods for bots alone.
func TestAffinity(t *testing.T) {
	nodes := &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "topology.kubernetes.io/region", Operator: corev1.NodeSelectorOpIn, Values: []string{"eu", "eu-2"}}}},
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "example.com/cores", Operator: corev1.NodeSelectorOpGt, Values: []string{"8"}}}},
		}},
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 20, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "example.com/spot", Operator: corev1.NodeSelectorOpDoesNotExist}}}}},
	}
	bots := &metav1.LabelSelector{MatchLabels: map[string]string{v1alpha1.LabelComponent: ComponentBot, v1alpha1.LabelTenant: "acme"}}
	butSweeps := func(r metav1.LabelSelectorRequirement) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r, {Key: v1alpha1.LabelComponent, Operator: metav1.LabelSelectorOpNotIn, Values: []string{ComponentSweeper}}}}
	}
	want := &corev1.Affinity{
		NodeAffinity: nodes,
		PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "topology.kubernetes.io/region", LabelSelector: bots}},
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 5, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "topology.kubernetes.io/zone",
				LabelSelector: butSweeps(metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"cache"}})}}},
		},
		PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "kubernetes.io/hostname",
				LabelSelector: butSweeps(metav1.LabelSelectorRequirement{Key: "lethe.dev/tenant", Operator: metav1.LabelSelectorOpExists})}},
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "topology.kubernetes.io/zone", LabelSelector: bots}}},
		},
	}
	if diff := cmp.Diff(want, BotPodTemplate(testSettings(), richBot(), placedTenant(), "set").Spec.Affinity); diff != "" {
		t.Errorf("bot (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&corev1.Affinity{NodeAffinity: nodes}, SweepPodTemplate(testSettings(), makeSweepStore("db.example"), placedTenant(), sweepHash).Spec.Affinity); diff != "" {
		t.Errorf("sweep (-want +got):\n%s", diff)
	}
	// Each alone, without the others beside it.
	for name, affinity := range map[string]*v1alpha1.TenantAffinity{"nodes": {NodeAffinity: everyAffinity().NodeAffinity}, "near": {PodAffinity: everyAffinity().PodAffinity},
		"far": {PodAntiAffinity: everyAffinity().PodAntiAffinity}, "nothing": nil, "an empty one, which the API server refuses": {}} {
		tenant := richTenant()
		tenant.Spec.Placement = &v1alpha1.TenantPlacement{Affinity: affinity}
		got := BotPodTemplate(testSettings(), richBot(), tenant, "set").Spec.Affinity
		if got == nil {
			got = &corev1.Affinity{}
		}
		if (got.NodeAffinity != nil) != (name == "nodes") || (got.PodAffinity != nil) != (name == "near") || (got.PodAntiAffinity != nil) != (name == "far") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// podTermsOf are all terms about other pods.
func podTermsOf(affinity *corev1.Affinity) []corev1.PodAffinityTerm {
	var terms []corev1.PodAffinityTerm
	var preferred []corev1.WeightedPodAffinityTerm
	if affinity != nil && affinity.PodAffinity != nil {
		terms = append(terms, affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		preferred = append(preferred, affinity.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if affinity != nil && affinity.PodAntiAffinity != nil {
		terms = append(terms, affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution...)
		preferred = append(preferred, affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for _, p := range preferred {
		terms = append(terms, p.PodAffinityTerm)
	}
	return terms
}

// TestAffinityStaysAtHome: whatever a Tenant says, no term is about another namespace, where it would learn of other
// tenants' pods and, being required, keep them off whole nodes; and none is about sweeps, which it would keep from
// deleting what is due.
func TestAffinityStaysAtHome(t *testing.T) {
	sweep := labels.Set(SweepPodTemplate(testSettings(), makeSweepStore("db.example"), placedTenant(), sweepHash).Labels)
	own := labels.Set(BotPodTemplate(testSettings(), richBot(), placedTenant(), "set").Labels)
	tried, meant := 0, 0
	for seed := range uint64(2000) {
		tenant := richTenant()
		tenant.Spec.Placement = specs.RandomPlacement(seed)
		pod := BotPodTemplate(testSettings(), richBot(), tenant, "set").Spec
		for _, term := range podTermsOf(pod.Affinity) {
			tried++
			if term.Namespaces != nil || term.NamespaceSelector != nil {
				t.Fatalf("%d: other namespaces: %+v", seed, term)
			}
			selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
			if err != nil {
				t.Fatalf("%d: %v", seed, err)
			}
			if selector.Matches(sweep) {
				t.Fatalf("%d: sweeps are meant by %s", seed, selector)
			}
			if selector.Matches(own) {
				meant++
			}
		}
		if terms := podTermsOf(SweepPodTemplate(testSettings(), makeSweepStore("db.example"), tenant, sweepHash).Spec.Affinity); len(terms) > 0 {
			t.Fatalf("%d: a sweep is placed by other pods: %+v", seed, terms)
		}
	}
	if tried < 1000 || meant < 100 {
		t.Errorf("%d terms only, of which %d mean a bot", tried, meant)
	}
}

// TestAdmissionAddsAffinity: where the Tenant says nothing of nodes, a platform may, beside what it says of pods;
// what it says stays.
func TestAdmissionAddsAffinity(t *testing.T) {
	tenant := placedTenant()
	tenant.Spec.Placement.Affinity = &v1alpha1.TenantAffinity{PodAntiAffinity: everyAffinity().PodAntiAffinity}
	want := BotPodTemplate(testSettings(), richBot(), tenant, "set")
	for field, change := range map[string]func(*corev1.Affinity){
		"": func(a *corev1.Affinity) { a.NodeAffinity = nodeAffinity(everyAffinity()) },
		"spec.affinity.podAntiAffinity": func(a *corev1.Affinity) {
			a.NodeAffinity, a.PodAntiAffinity = nodeAffinity(everyAffinity()), &corev1.PodAntiAffinity{}
		},
	} {
		pod := &corev1.Pod{ObjectMeta: *want.ObjectMeta.DeepCopy(), Spec: *want.Spec.DeepCopy()}
		change(pod.Spec.Affinity)
		template := corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
		for what, err := range map[string]error{"pod": podspec.Match(want, pod, nil), "template": podspec.MatchTemplate(want, template, nil)} {
			if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(strings.TrimPrefix(err.Error(), "template."), field) {
				t.Errorf("%s, %q: %v", what, field, err)
			}
		}
	}
}
