package reconcile

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Stopping takes pods away and nothing else: a StatefulSet whose bot exists is scaled to nothing, since its deletion
// could take a volume along, and one whose bot is on its way out is deleted. What is stopped by mistake starts again.
//
// +kubebuilder:rbac:groups=apps,roleName=lethe-manager-tenant,resources=statefulsets,verbs=delete
// +kubebuilder:rbac:groups=batch,roleName=lethe-manager-tenant,resources=cronjobs;jobs,verbs=delete

// ScaleToNothing lets a StatefulSet keep everything but its pods. It is read live first: the cache holds but a part
// of it.
func ScaleToNothing(ctx context.Context, w kube.Writer, set *appsv1.StatefulSet) error {
	if !RunsPods(set) {
		return nil
	}
	stopped, none := &appsv1.StatefulSet{}, int32(0)
	err := w.Live.Get(ctx, client.ObjectKeyFromObject(set), stopped)
	if apierrors.IsNotFound(err) || err == nil && (stopped.UID != set.UID || !RunsPods(stopped)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read StatefulSet %s: %w", set.Name, err)
	}
	stopped.Spec.Replicas = &none
	if err := w.Client.Update(ctx, stopped, kube.FieldOwner); err != nil {
		return fmt.Errorf("scale StatefulSet %s to nothing: %w", set.Name, err)
	}
	log.FromContext(ctx).Info("Stopped StatefulSet", "object", client.ObjectKeyFromObject(set))
	return nil
}

// RunsPods says whether a StatefulSet asks for a pod.
func RunsPods(set *appsv1.StatefulSet) bool {
	return set.DeletionTimestamp == nil && (set.Spec.Replicas == nil || *set.Spec.Replicas > 0)
}

// StopSweeps ends what sweeps a store: its CronJob, and the Jobs that have not ended. A Job of the store without a
// controller is its own too: its CronJob was deleted, and it was left.
func StopSweeps(ctx context.Context, w kube.Writer, store *v1alpha1.DataStore) error {
	cron := &batchv1.CronJob{}
	err := w.Client.Get(ctx, client.ObjectKey{Namespace: store.Namespace, Name: resources.SweepName(store.Name)}, cron)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read the CronJob: %w", err)
	}
	owners := map[types.UID]bool{store.UID: true}
	if err == nil && kube.IsOf(cron, store.UID) {
		owners[cron.UID] = true
		if cron.DeletionTimestamp == nil {
			if err := w.Delete(ctx, cron); err != nil {
				return err
			}
		}
	}
	jobs := &batchv1.JobList{}
	if err := w.Client.List(ctx, jobs, client.InNamespace(store.Namespace),
		client.MatchingLabels(resources.StoreLabels(store.Name, resources.ComponentSweeper))); err != nil {
		return fmt.Errorf("list Jobs: %w", err)
	}
	for i := range jobs.Items {
		job := &jobs.Items[i]
		controller := metav1.GetControllerOf(job)
		ours := kube.IsOf(job, store.UID) || controller != nil && owners[controller.UID]
		if _, ended := FinishedAt(job); ended || !ours || job.DeletionTimestamp != nil {
			continue
		}
		if err := w.Delete(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// WithoutRights passes over a refusal: where our RoleBinding is gone already, the namespace is on its way out, or the
// orphan sweep says so.
func WithoutRights(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// FinishedAt is when a Job ended; not ok while it has not.
func FinishedAt(job *batchv1.Job) (time.Time, bool) {
	for _, c := range job.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}
