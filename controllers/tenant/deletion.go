package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// stopPods comes first: whatever the rest of a deletion waits for, nothing runs meanwhile. It looks into every
// namespace that is, or was last known to be, the tenant's.
func (r *Reconciler) stopPods(ctx context.Context, s *scope) (time.Duration, error) {
	s.observed.Deleting = "Stopping the Tenant's pods."
	namespaces, err := r.placesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var failed error
	for _, namespace := range namespaces {
		// One namespace in which that fails keeps none of the others running.
		failed = errors.Join(failed, stopNamespace(ctx, r.Writer, namespace))
	}
	return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, failed)
}

// placesOf names the namespaces with the tenant's label and those of its status.
func (r *Reconciler) placesOf(ctx context.Context, tenant *v1alpha1.Tenant) ([]string, error) {
	namespaces, err := r.namespacesOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range namespaces {
		names = append(names, namespaces[i].Name)
	}
	for _, known := range tenant.Status.Namespaces {
		names = append(names, known.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// lookForUse comes before keys are destroyed, and asks the API server itself: a bot or a store may have come while
// nobody watched, and admission could not know of it. What comes after the deletion began never gets keys.
func (r *Reconciler) lookForUse(ctx context.Context, s *scope) (time.Duration, error) {
	namespaces, err := r.placesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var used []string
	for _, namespace := range namespaces {
		inUse, held, err := reconcile.LookInto(ctx, r.Writer.Live, namespace)
		if err != nil {
			return 0, err
		}
		if inUse {
			used = append(used, namespace)
		}
		s.held = append(s.held, held...)
	}
	if s.observed.InUse = len(used) > 0; s.observed.InUse {
		s.waiting = fmt.Sprintf("Waiting for BotDeployments and DataStores to be deleted from %s. Nothing of them runs or gets credentials, "+
			"and no key is destroyed before.", strings.Join(used, ", "))
		s.observed.Deleting = s.waiting
	}
	return 0, nil
}

// revokeKeys comes before anything slower: without its keys no pod of the tenant starts again.
func (r *Reconciler) revokeKeys(ctx context.Context, s *scope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil
	}
	s.observed.Deleting = "Destroying the Tenant's keys."
	if err := reconcile.Revoke(ctx, r.Keys, reconcile.RefTo(resources.KindTenant, s.tenant)); err != nil {
		return 0, reconcile.KeyProblem(v1alpha1.ConditionKeysReady, err)
	}
	return 0, nil
}

// removeNamespaces deletes the namespaces that the manager made and leaves the others. An object in one that only
// somebody else's finalizer keeps is not waited for: the namespace goes when that does.
func (r *Reconciler) removeNamespaces(ctx context.Context, s *scope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil // the watches on bots and stores wake us
	}
	s.observed.Deleting = "Removing the Tenant's namespaces."
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var going, retained []string
	var wait time.Duration
	for i := range namespaces {
		namespace := &namespaces[i]
		if namespace.DeletionTimestamp.IsZero() && s.retains(namespace.Name) {
			retained = append(retained, namespace.Name)
			continue
		}
		if !wasCreatedFor(namespace, s.tenant) {
			if err := r.leave(ctx, s.tenant, namespace.Name); err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, err)
			}
			continue
		}
		if namespace.DeletionTimestamp.IsZero() {
			going = append(going, namespace.Name)
			if err := r.Writer.Delete(ctx, namespace); err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, err)
			}
			continue
		}
		onlyHeld, err := r.isOnlyHeld(ctx, s, namespace)
		if err != nil {
			return 0, err
		}
		if !onlyHeld {
			going = append(going, namespace.Name+remaining(namespace))
			wait = reconcile.TerminatingWait
		}
	}
	if s.waiting = waitingFor(retained, going); s.waiting != "" {
		s.observed.Deleting = s.waiting
	}
	return wait, nil
}

func waitingFor(retained, going []string) string {
	var parts []string
	if len(retained) > 0 {
		parts = append(parts, fmt.Sprintf("Waiting for retained volumes (unless spec.retainedVolumes is Release) to be deleted from %s.", strings.Join(retained, ", ")))
	}
	if len(going) > 0 {
		parts = append(parts, fmt.Sprintf("Waiting for Kubernetes to remove %s.", strings.Join(going, ", ")))
	}
	return strings.Join(parts, " ")
}

// isOnlyHeld says that a namespace on its way out stays because of bots or stores that somebody else's finalizer
// keeps, and that nothing of ours runs in it. Kubernetes removes our RoleBinding with the rest, and with it the right
// to look for pods: it is asked what remains then.
func (r *Reconciler) isOnlyHeld(ctx context.Context, s *scope, namespace *corev1.Namespace) (bool, error) {
	if !slices.ContainsFunc(s.held, func(held string) bool { return strings.Contains(held, " "+namespace.Name+"/") }) {
		return false, nil
	}
	running, err := r.Orphans.Running(ctx, namespace.Name)
	if apierrors.IsForbidden(err) {
		return hasNoPods(namespace), nil
	}
	return err == nil && len(running) == 0, err
}

// hasNoPods says that Kubernetes has looked at all that is in a namespace on its way out, and that no pod is among what
// remains. It is false when Kubernetes has not said so (yet). The texts are those of its namespace controller
// (pkg/controller/namespace/deletion/status_condition_utils.go).
func hasNoPods(namespace *corev1.Namespace) bool {
	said := false
	for _, c := range namespace.Status.Conditions {
		switch c.Type {
		case corev1.NamespaceDeletionDiscoveryFailure, corev1.NamespaceDeletionGVParsingFailure, corev1.NamespaceDeletionContentFailure:
			if c.Status != corev1.ConditionFalse {
				return false
			}
		case corev1.NamespaceContentRemaining:
			if c.Status == corev1.ConditionUnknown || strings.Contains(c.Message, " pods. has ") {
				return false
			}
			said = true
		}
	}
	return said
}

// remaining is what Kubernetes says about finalizers in a namespace that does not go.
func remaining(namespace *corev1.Namespace) string {
	for _, c := range namespace.Status.Conditions {
		if c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue {
			return " (finalizers hold it up: kubectl describe namespace " + namespace.Name + ")"
		}
	}
	return ""
}

// removeFinalizer drops the finalizer once nothing is waited for, and says what is left behind.
func (r *Reconciler) removeFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil // the watches on namespaces, bots and stores wake us
	}
	if len(s.held) > 0 {
		r.Recorder.Eventf(s.tenant, nil, corev1.EventTypeWarning, v1alpha1.ReasonHeld, "Delete",
			"The Tenant is gone and its keys are destroyed. Left behind, without anything that runs: %s.", reconcile.CutList(s.held))
	}
	if err := reconcile.RemoveFinalizer(ctx, r.Writer.Client, s.tenant); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	s.gone = true
	return 0, nil
}

// stopNamespace takes every pod of ours out of a namespace whose Tenant is being deleted, before anything slower is
// done.
func stopNamespace(ctx context.Context, w kube.Writer, namespace string) error {
	sets := &appsv1.StatefulSetList{}
	if err := w.Client.List(ctx, sets, client.InNamespace(namespace), client.MatchingLabels(resources.Labels(resources.ComponentBot))); err != nil {
		return fmt.Errorf("list StatefulSets: %w", err)
	}
	for i := range sets.Items {
		if err := reconcile.WithoutRights(reconcile.ScaleToNothing(ctx, w, &sets.Items[i])); err != nil {
			return err
		}
	}
	stores := &v1alpha1.DataStoreList{}
	if err := w.Client.List(ctx, stores, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("list DataStores: %w", err)
	}
	for i := range stores.Items {
		if err := reconcile.WithoutRights(reconcile.StopSweeps(ctx, w, &stores.Items[i])); err != nil {
			return err
		}
	}
	return nil
}
