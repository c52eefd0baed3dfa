package resources

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// nodeAffinity is what a Tenant says of the nodes of all its pods.
func nodeAffinity(affinity *v1alpha1.TenantAffinity) *corev1.NodeAffinity {
	if affinity == nil || affinity.NodeAffinity == nil {
		return nil
	}
	nodes := &corev1.NodeAffinity{}
	if required := affinity.NodeAffinity.Required; required != nil {
		nodes.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{}
		for _, term := range required.NodeSelectorTerms {
			terms := &nodes.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
			*terms = append(*terms, nodeTerm(term))
		}
	}
	for _, p := range affinity.NodeAffinity.Preferred {
		nodes.PreferredDuringSchedulingIgnoredDuringExecution = append(nodes.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: p.Weight, Preference: nodeTerm(p.Preference)})
	}
	return nodes
}

func nodeTerm(term v1alpha1.NodeTerm) corev1.NodeSelectorTerm {
	var result corev1.NodeSelectorTerm
	for _, r := range term.MatchExpressions {
		result.MatchExpressions = append(result.MatchExpressions, corev1.NodeSelectorRequirement{Key: r.Key, Operator: r.Operator, Values: r.Values})
	}
	return result
}

// nearPods says which pods a bot runs near, or far from.
func nearPods(pod *corev1.PodSpec, tenant *v1alpha1.Tenant) {
	affinity := tenant.Spec.Placement.Affinity
	if affinity == nil || (affinity.PodAffinity == nil && affinity.PodAntiAffinity == nil) {
		return
	}
	if pod.Affinity == nil {
		pod.Affinity = &corev1.Affinity{}
	}
	if near := affinity.PodAffinity; near != nil {
		pod.Affinity.PodAffinity = &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  podTerms(near.Required, tenant),
			PreferredDuringSchedulingIgnoredDuringExecution: preferredPodTerms(near.Preferred, tenant),
		}
	}
	if far := affinity.PodAntiAffinity; far != nil {
		pod.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  podTerms(far.Required, tenant),
			PreferredDuringSchedulingIgnoredDuringExecution: preferredPodTerms(far.Preferred, tenant),
		}
	}
}

func podTerms(wanted []v1alpha1.PodTerm, tenant *v1alpha1.Tenant) []corev1.PodAffinityTerm {
	var terms []corev1.PodAffinityTerm
	for _, w := range wanted {
		terms = append(terms, podTerm(w, tenant))
	}
	return terms
}

func preferredPodTerms(wanted []v1alpha1.PreferredPodTerm, tenant *v1alpha1.Tenant) []corev1.WeightedPodAffinityTerm {
	var terms []corev1.WeightedPodAffinityTerm
	for _, w := range wanted {
		terms = append(terms, corev1.WeightedPodAffinityTerm{Weight: w.Weight, PodAffinityTerm: podTerm(w.PodAffinityTerm, tenant)})
	}
	return terms
}

// podTerm names no namespace, which is the pod's own alone: the scheduler applies a required podAntiAffinity to the
// pods that it selects as well, and those must not be another tenant's. Nor are they sweeps: where bots run, what is
// due would not be deleted.
func podTerm(wanted v1alpha1.PodTerm, tenant *v1alpha1.Tenant) corev1.PodAffinityTerm {
	term := corev1.PodAffinityTerm{TopologyKey: wanted.TopologyKey, LabelSelector: &metav1.LabelSelector{}}
	if wanted.LabelSelector == nil {
		term.LabelSelector.MatchLabels = botsOf(tenant)
		return term
	}
	for _, r := range wanted.LabelSelector.MatchExpressions {
		term.LabelSelector.MatchExpressions = append(term.LabelSelector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: r.Key, Operator: r.Operator, Values: r.Values})
	}
	term.LabelSelector.MatchExpressions = append(term.LabelSelector.MatchExpressions,
		metav1.LabelSelectorRequirement{Key: v1alpha1.LabelComponent, Operator: metav1.LabelSelectorOpNotIn, Values: []string{ComponentSweeper}})
	return term
}
