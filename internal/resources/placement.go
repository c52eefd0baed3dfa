package resources

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// place puts a pod where its Tenant says: on nodes, past taints, under a runtime.
func place(pod *corev1.PodSpec, tenant *v1alpha1.Tenant) {
	placement := tenant.Spec.Placement
	if placement == nil {
		return
	}
	pod.NodeSelector = placement.NodeSelector
	pod.Tolerations = tolerations(placement.Tolerations)
	if placement.RuntimeClassName != "" {
		pod.RuntimeClassName = ptr(placement.RuntimeClassName)
	}
	if nodes := nodeAffinity(placement.Affinity); nodes != nil {
		pod.Affinity = &corev1.Affinity{NodeAffinity: nodes}
	}
}

// placeBot adds what only bots get. A sweep keeps the priority that takes it out of the quota, and is alone.
func placeBot(pod *corev1.PodSpec, tenant *v1alpha1.Tenant) {
	place(pod, tenant)
	placement := tenant.Spec.Placement
	if placement == nil {
		return
	}
	pod.PriorityClassName = placement.PriorityClassName
	for _, spread := range placement.TopologySpread {
		constraint := corev1.TopologySpreadConstraint{
			MaxSkew:           max(1, spread.MaxSkew),
			TopologyKey:       spread.TopologyKey,
			WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector:     &metav1.LabelSelector{MatchLabels: botsOf(tenant)},
		}
		if spread.WhenUnsatisfiable != "" {
			constraint.WhenUnsatisfiable = spread.WhenUnsatisfiable
		}
		pod.TopologySpreadConstraints = append(pod.TopologySpreadConstraints, constraint)
	}
	nearPods(pod, tenant)
}

// botsOf are the labels of a tenant's bots.
func botsOf(tenant *v1alpha1.Tenant) map[string]string {
	return map[string]string{v1alpha1.LabelComponent: ComponentBot, v1alpha1.LabelTenant: LabelValue(tenant.Name)}
}

// tolerations never hold one without a key, which would tolerate every taint, those of control planes included: the
// API server refuses it, but not in an object that is older than its rule.
func tolerations(wanted []v1alpha1.Toleration) []corev1.Toleration {
	var result []corev1.Toleration
	for _, t := range wanted {
		if t.Key == "" {
			continue
		}
		operator := t.Operator
		if operator == "" {
			operator = corev1.TolerationOpEqual
		}
		result = append(result, corev1.Toleration{Key: t.Key, Operator: operator, Value: t.Value, Effect: t.Effect, TolerationSeconds: t.TolerationSeconds})
	}
	return result
}

// PullSecrets are the names of the Secrets that a pod's images may be pulled with: the bot's own, its Tenant's, and
// those of the installation, which Lethe's own image may need. bot is nil for a sweep.
func PullSecrets(s Settings, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if bot != nil {
		for _, secret := range bot.Spec.ImagePullSecrets {
			add(secret.Name)
		}
	}
	for _, secret := range tenant.Spec.ImagePullSecrets {
		add(secret.Name)
	}
	for _, name := range s.ImagePullSecrets {
		add(name)
	}
	return names
}

func pullSecrets(s Settings, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) []corev1.LocalObjectReference {
	var references []corev1.LocalObjectReference
	for _, name := range PullSecrets(s, tenant, bot) {
		references = append(references, corev1.LocalObjectReference{Name: name})
	}
	return references
}
