package resources

import (
	"crypto/sha256"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// SweeperServiceAccount is the identity of a store's sweeps: it gets no token for the API server.
func SweeperServiceAccount(store *v1alpha1.DataStore) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta: meta(store.Namespace, SweeperName(store.Name), StoreLabels(store.Name, ComponentSweeper),
			OwnerReference(store, KindDataStore)),
		AutomountServiceAccountToken: ptr(false),
	}
}

// PlanConfigMap holds a plan's canonical bytes. It is immutable and named by their hash.
func PlanConfigMap(store *v1alpha1.DataStore, planHash string, canonical []byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: meta(store.Namespace, PlanName(store.Name, planHash), StoreLabels(store.Name, ComponentPlan),
			OwnerReference(store, KindDataStore)),
		Immutable: ptr(true),
		Data:      map[string]string{PlanKey: string(canonical)},
	}
}

// SweepCronJob sweeps a store every hour, at a minute of its own.
func SweepCronJob(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string) *batchv1.CronJob {
	template := batchv1.JobTemplateSpec{Spec: sweepJobSpec(s, store, tenant, planHash)}
	template.Labels, template.Annotations = StoreLabels(store.Name, ComponentSweeper), ownedBy(store.UID)
	return &batchv1.CronJob{
		ObjectMeta: meta(store.Namespace, SweepName(store.Name), StoreLabels(store.Name, ComponentSweeper),
			OwnerReference(store, KindDataStore)),
		Spec: batchv1.CronJobSpec{
			Schedule:                   fmt.Sprintf("%d * * * *", SweepMinute(store)),
			TimeZone:                   ptr("Etc/UTC"),
			ConcurrencyPolicy:          batchv1.ForbidConcurrent,
			StartingDeadlineSeconds:    ptr(int64(sweepStartsWithin.Seconds())),
			Suspend:                    ptr(false),
			SuccessfulJobsHistoryLimit: ptr(int32(1)),
			FailedJobsHistoryLimit:     ptr(int32(1)),
			JobTemplate:                template,
		},
	}
}

// CatchUpJob is one sweep out of turn. Its name is made of what it is for, so that asking twice makes one Job.
func CatchUpJob(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash, name string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: meta(store.Namespace, name, StoreLabels(store.Name, ComponentSweeper), OwnerReference(store, KindDataStore)),
		Spec:       sweepJobSpec(s, store, tenant, planHash),
	}
}

func sweepJobSpec(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string) batchv1.JobSpec {
	return batchv1.JobSpec{
		Parallelism:             ptr(int32(1)),
		Completions:             ptr(int32(1)),
		BackoffLimit:            ptr(int32(0)),
		Suspend:                 ptr(false),
		ActiveDeadlineSeconds:   ptr(int64(sweepDeadline.Seconds())),
		TTLSecondsAfterFinished: ptr(int32(sweepJobsKeptFor.Seconds())),
		Template:                SweepPodTemplate(s, store, tenant, planHash),
	}
}

// SweepMinute is the minute of the hour at which a store is swept: spread over the stores by their UIDs, so that they
// do not all start at once.
func SweepMinute(store *v1alpha1.DataStore) int {
	sum := sha256.Sum256([]byte(store.UID))
	return (int(sum[0])<<8 | int(sum[1])) % 60
}
