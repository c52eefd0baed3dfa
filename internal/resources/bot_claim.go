package resources

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Values of spec.storage.reclaimPolicy.
const (
	ReclaimRetain = "Retain"
	ReclaimDelete = "Delete"
)

// BotClaimName names the PersistentVolumeClaim of a bot with storage.
func BotClaimName(bot *v1alpha1.BotDeployment) string {
	if claim := bot.Spec.Storage.Claim; claim != nil {
		return claim.Existing
	}
	return childName(bot.Name, "-data", objectNameLimit)
}

// BotClaim is the volume of a bot with storage. It has no owner: what Kubernetes collects, or a StatefulSet removes,
// must never be data. Whose it is stands in its record.
func BotClaim(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: bot.Namespace, Name: BotClaimName(bot),
			Labels:      ClaimLabels(bot, tenant),
			Annotations: ClaimRecord(bot, tenant),
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: bot.Spec.Storage.StorageClassName,
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: bot.Spec.Storage.Size},
			},
		},
	}
}

// ClaimLabels are by which a volume is found: `kubectl get pvc -A -l lethe.dev/tenant=acme`.
func ClaimLabels(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) map[string]string {
	labels := BotLabels(bot.Name)
	labels[v1alpha1.LabelTenant] = LabelValue(tenant.Name)
	return labels
}

// ClaimRecord says whose a volume is, and what becomes of it. Of one that was taken over it says the former only: who
// writes bots does not decide that data which was there before them goes.
func ClaimRecord(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) map[string]string {
	record := map[string]string{
		v1alpha1.AnnotationTenantUID: string(tenant.UID),
		v1alpha1.AnnotationBotUID:    string(bot.UID),
		v1alpha1.AnnotationBot:       bot.Name,
	}
	if bot.Spec.Storage.Claim == nil {
		record[v1alpha1.AnnotationReclaimPolicy] = ReclaimPolicyOf(bot)
	}
	return record
}

// ReclaimPolicyOf a bot with a volume of its own. What is not said is kept.
func ReclaimPolicyOf(bot *v1alpha1.BotDeployment) string {
	if bot.Spec.Storage.ReclaimPolicy == ReclaimDelete {
		return ReclaimDelete
	}
	return v1alpha1.DefaultReclaimPolicy
}

// IsClaimOf says whether a volume is on record as the bot's.
func IsClaimOf(claim *corev1.PersistentVolumeClaim, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) bool {
	record := claim.Annotations
	return bot.UID != "" && tenant.UID != "" &&
		record[v1alpha1.AnnotationBotUID] == string(bot.UID) && record[v1alpha1.AnnotationTenantUID] == string(tenant.UID)
}

// dataVolume mounts the bot's own claim, by name.
func dataVolume(bot *v1alpha1.BotDeployment) corev1.Volume {
	return corev1.Volume{Name: volumeData, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: BotClaimName(bot)},
	}}
}
