package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// BotServiceAccount is who a bot's pod is to the keyserver. It has no rights and its token is not mounted.
func BotServiceAccount(bot *v1alpha1.BotDeployment) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta:                   botMeta(bot),
		AutomountServiceAccountToken: ptr(false),
	}
}

// BotNetworkPolicy says what a bot reaches beyond what its Tenant opens to all: Telegram, unless the channel brings
// its own address, and spec.egress, under the Tenant's ceiling and without any private address; and DNS, when it
// reaches anything at all. Nothing reaches the bot.
func BotNetworkPolicy(s Settings, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) *networkingv1.NetworkPolicy {
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: botMeta(bot),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: botSelector(bot)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Egress:      botEgress(s, bot, tenant),
		},
	}
	if HasDNS(s, bot, tenant) {
		policy.Spec.Egress = append(policy.Spec.Egress, dnsEgress(s))
	}
	return policy
}

// MinReadySeconds is how long a new pod has to be ready before it counts as ready: a program that ends a moment after
// its start never was.
const MinReadySeconds = 5

// BotStatefulSet runs the bot: one pod object at a time, since a StatefulSet makes a new pod under the old one's name
// only after the old one is gone. A bot or a tenant that is suspended has no pod.
//
// Two settings keep a revision that never becomes ready from blocking the one that repairs it: parallel pod
// management, and for servers that count unavailable pods before they replace one (1.35 and newer, feature
// MaxUnavailableStatefulSet) room for the broken pod beside the one to be replaced.
func BotStatefulSet(s Settings, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant, credentialsSecret string) *appsv1.StatefulSet {
	replicas := int32(1)
	if IsSuspended(bot, tenant) {
		replicas = 0
	}
	set := &appsv1.StatefulSet{
		ObjectMeta: botMeta(bot),
		Spec: appsv1.StatefulSetSpec{
			Replicas:             ptr(replicas),
			Selector:             &metav1.LabelSelector{MatchLabels: botSelector(bot)},
			Template:             BotPodTemplate(s, bot, tenant, credentialsSecret),
			MinReadySeconds:      MinReadySeconds,
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			RevisionHistoryLimit: ptr(int32(2)),
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				Type:          appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr(intstr.FromInt32(2))},
			},
		},
	}
	return set
}

// IsSuspended says whether a bot must have no pod, because of itself or of its tenant. That of a Tenant that is being
// deleted must not either.
func IsSuspended(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) bool {
	return bot.Spec.OperatingMode == v1alpha1.ModeSuspended || tenant.Spec.State == v1alpha1.TenantSuspended ||
		tenant.DeletionTimestamp != nil
}

func botMeta(bot *v1alpha1.BotDeployment) metav1.ObjectMeta {
	return meta(bot.Namespace, BotName(bot.Name), BotLabels(bot.Name), OwnerReference(bot, KindBotDeployment))
}

// botSelector selects the bot's pod. A StatefulSet's selector can never be changed, so it holds no more than it must.
func botSelector(bot *v1alpha1.BotDeployment) map[string]string {
	return map[string]string{
		v1alpha1.LabelComponent: ComponentBot,
		v1alpha1.LabelBot:       LabelValue(bot.Name),
	}
}
