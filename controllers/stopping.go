package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

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
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// Stopping takes pods away and nothing else: a StatefulSet whose bot exists is scaled to nothing, since its deletion could
// take a volume along, and one whose bot is on its way out is deleted. What is stopped by mistake starts again.
//
// +kubebuilder:rbac:groups=apps,roleName=lethe-manager-tenant,resources=statefulsets,verbs=delete
// +kubebuilder:rbac:groups=batch,roleName=lethe-manager-tenant,resources=cronjobs;jobs,verbs=delete

// scaleToNothing lets a StatefulSet keep everything but its pods. It is read live first: the cache holds but a part of it.
func scaleToNothing(ctx context.Context, w kube.Writer, set *appsv1.StatefulSet) error {
	if !runsPods(set) {
		return nil
	}
	stopped, none := &appsv1.StatefulSet{}, int32(0)
	err := w.Live.Get(ctx, client.ObjectKeyFromObject(set), stopped)
	if apierrors.IsNotFound(err) || err == nil && (stopped.UID != set.UID || !runsPods(stopped)) {
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

func runsPods(set *appsv1.StatefulSet) bool {
	return set.DeletionTimestamp == nil && (set.Spec.Replicas == nil || *set.Spec.Replicas > 0)
}

// setOfBot returns a bot's StatefulSet, or nil. One that lost its owner reference is still the bot's.
func setOfBot(ctx context.Context, c client.Reader, bot *v1alpha1.BotDeployment) (*appsv1.StatefulSet, error) {
	set := &appsv1.StatefulSet{}
	err := c.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}, set)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the bot's StatefulSet: %w", err)
	}
	if err != nil || !kube.IsOf(set, bot.UID) {
		return nil, nil //nolint:nilerr // there is none, which is no error
	}
	return set, nil
}

// isNobodys asks past the cache whether a namespace is no tenant's, or is being deleted, or its Tenant is: nothing of ours may
// run in it then. A Tenant that has yet to set the namespace up does not count: after a restore each does.
func isNobodys(ctx context.Context, live client.Reader, namespace string) (bool, error) {
	whose, err := tenancy.Read(ctx, live, namespace)
	if err != nil {
		return false, err
	}
	return whose.Standing != tenancy.Held && whose.Standing != tenancy.NotWalledIn, nil
}

// stopSweeps ends what sweeps a store: its CronJob, and the Jobs that have not ended. A Job of the store without a
// controller is its own too: its CronJob was deleted, and it was left.
func stopSweeps(ctx context.Context, w kube.Writer, store *v1alpha1.DataStore) error {
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
		if _, ended := finishedAt(job); ended || !ours || job.DeletionTimestamp != nil {
			continue
		}
		if err := w.Delete(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// stopNamespace takes every pod of ours out of a namespace whose Tenant is being deleted, before anything slower is done.
func stopNamespace(ctx context.Context, w kube.Writer, namespace string) error {
	sets := &appsv1.StatefulSetList{}
	if err := w.Client.List(ctx, sets, client.InNamespace(namespace), client.MatchingLabels(resources.Labels(resources.ComponentBot))); err != nil {
		return fmt.Errorf("list StatefulSets: %w", err)
	}
	for i := range sets.Items {
		if err := withoutRights(scaleToNothing(ctx, w, &sets.Items[i])); err != nil {
			return err
		}
	}
	stores := &v1alpha1.DataStoreList{}
	if err := w.Client.List(ctx, stores, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("list DataStores: %w", err)
	}
	for i := range stores.Items {
		if err := withoutRights(stopSweeps(ctx, w, &stores.Items[i])); err != nil {
			return err
		}
	}
	return nil
}

// withoutRights passes over a refusal: where our RoleBinding is gone already, the namespace is on its way out, or the orphan
// sweep says so.
func withoutRights(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// foreignFinalizers of an object that is being deleted, but for those by which Kubernetes deletes.
func foreignFinalizers(object client.Object) []string {
	if object.GetDeletionTimestamp() == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(object.GetFinalizers()), func(f string) bool {
		return f == v1alpha1.FinalizerKeys || f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
}

// isHeld says that nothing of an object is left to do for us: its keys are destroyed, and somebody else's finalizer keeps it.
func isHeld(object client.Object) bool {
	return object.GetDeletionTimestamp() != nil && !hasFinalizer(object)
}

// heldMessage says who holds an object that we have let go.
func heldMessage(finalizers []string) string {
	return fmt.Sprintf("Nothing of it runs, and its keys are destroyed. It is held by %s, which %s not Lethe's: whoever put %s there takes %s off.",
		finalizersText(finalizers), pick(finalizers, "is", "are"), pick(finalizers, "it", "them"), pick(finalizers, "it", "them"))
}

func finalizersText(finalizers []string) string {
	return pick(finalizers, "the finalizer ", "the finalizers ") + strings.Join(finalizers, ", ")
}

func pick(list []string, one, many string) string {
	if len(list) == 1 {
		return one
	}
	return many
}

// labelMoved lets a namespace through when it begins or ends to be a tenant's: the cache holds those with the label only.
func labelMoved(old, now *corev1.Namespace) bool {
	return old.Labels[v1alpha1.LabelTenant] != now.Labels[v1alpha1.LabelTenant]
}
