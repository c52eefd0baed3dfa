package resources

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

const (
	// SweepInterval is how often a store is swept and measured. A measurement older than two of them counts as unknown.
	SweepInterval = calendar.SweepInterval

	// SweepTimeBudget is when a sweep stops by itself. The Job's own deadline is later: that one deletes the pod and
	// its report.
	SweepTimeBudget   = 45 * time.Minute
	sweepDeadline     = 55 * time.Minute
	sweepJobsKeptFor  = time.Hour
	sweepStartsWithin = 30 * time.Minute

	// ContainerSweeper is the one container of a sweep's pod, whose termination message is the report.
	ContainerSweeper = "sweeper"

	// PlanKey is the key of a plan's ConfigMap.
	PlanKey = "plan.json"

	planHashFlag     = "--plan-hash="
	sweepPlanDir     = "/etc/lethe/plan"
	sweepCADir       = "/etc/lethe/ca"
	sweepTokenDir    = "/var/run/secrets/lethe"
	sweepTerminateAt = "/dev/termination-log"
	sweepTokenFor    = 10 * time.Minute
)

// SweepPodTemplate is the pod of one sweep of a store by the plan of that hash. The manager puts it into the CronJob
// and into catch-up Jobs; the keyserver gives a lease and a credential only to a pod that looks like it.
func SweepPodTemplate(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string) corev1.PodTemplateSpec {
	labels := StoreLabels(store.Name, ComponentSweeper)
	labels[v1alpha1.LabelTenant] = LabelValue(tenant.Name)
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: ownedBy(store.UID)},
		Spec: corev1.PodSpec{
			ServiceAccountName:            SweeperName(store.Name),
			AutomountServiceAccountToken:  ptr(false),
			EnableServiceLinks:            ptr(false),
			RestartPolicy:                 corev1.RestartPolicyNever,
			PriorityClassName:             PriorityClassSweeper,
			TerminationGracePeriodSeconds: ptr(int64(30)),
			ImagePullSecrets:              pullSecrets(s, tenant, nil),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(UIDSweeper)), RunAsGroup: ptr(int64(UIDSweeper)),
				FSGroup:        ptr(int64(UIDSweeper)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:            ContainerSweeper,
				Image:           s.Image,
				ImagePullPolicy: pullPolicy(s.ImagePullPolicy, s.Image),
				Command:         []string{"/sweeper"},
				Args: []string{
					urlArg + s.KeyserverURL,
					"--ca-file=" + sweepCADir + "/" + CABundleKey,
					"--token-file=" + sweepTokenDir + "/token",
					"--plan=" + sweepPlanDir + "/" + PlanKey,
					planHashFlag + planHash,
					"--termination-log=" + sweepTerminateAt,
					"--time-budget=" + SweepTimeBudget.String(),
				},
				TerminationMessagePath:   sweepTerminateAt,
				TerminationMessagePolicy: corev1.TerminationMessageReadFile,
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
						// What is 0 no quota counts, nor refuses: bots that have reserved all that there is keep no
						// sweep from running.
						corev1.ResourceEphemeralStorage: resource.MustParse("0"),
					},
					Limits: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("256Mi"),
						corev1.ResourceEphemeralStorage: resource.MustParse("64Mi"),
					},
				},
				SecurityContext: restricted(),
				VolumeMounts: []corev1.VolumeMount{
					{Name: "plan", MountPath: sweepPlanDir, ReadOnly: true},
					{Name: "ca", MountPath: sweepCADir, ReadOnly: true},
					{Name: "token", MountPath: sweepTokenDir, ReadOnly: true},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: "plan", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: PlanName(store.Name, planHash)}, DefaultMode: ptr(int32(0o444)),
				}}},
				{Name: "ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: CABundleName}, DefaultMode: ptr(int32(0o444)),
				}}},
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
					DefaultMode: ptr(int32(0o444)),
					Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
						Audience: v1alpha1.AudienceKeyserver, ExpirationSeconds: ptr(int64(sweepTokenFor.Seconds())), Path: "token",
					}}},
				}}},
			},
		},
	}
	place(&template.Spec, tenant)
	return template
}

// PlanHashOf is the hash of the plan that a sweep's pod was made to run; empty when it names none.
func PlanHashOf(pod corev1.PodSpec) string {
	for _, c := range pod.Containers {
		for _, arg := range c.Args {
			if hash, ok := strings.CutPrefix(arg, planHashFlag); ok && c.Name == ContainerSweeper {
				return hash
			}
		}
	}
	return ""
}
