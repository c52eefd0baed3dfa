package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

func hasFinalizer(object client.Object) bool {
	return controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerKeys)
}

// stopPods comes first: whatever the rest of a deletion waits for, nothing runs meanwhile. It looks into every namespace
// that is, or was last known to be, the tenant's.
func (r *TenantReconciler) stopPods(ctx context.Context, s *tenantScope) (time.Duration, error) {
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
	return 0, explain(v1alpha1.ConditionReady, failed)
}

// placesOf names the namespaces with the tenant's label and those of its status.
func (r *TenantReconciler) placesOf(ctx context.Context, tenant *v1alpha1.Tenant) ([]string, error) {
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

// lookForUse comes before keys are destroyed, and asks the API server itself: a bot or a store may have come while nobody
// watched, and admission could not know of it. What comes after the deletion began never gets keys.
func (r *TenantReconciler) lookForUse(ctx context.Context, s *tenantScope) (time.Duration, error) {
	namespaces, err := r.placesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var used []string
	for _, namespace := range namespaces {
		inUse, held, err := lookInto(ctx, r.Writer.Live, namespace)
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
func (r *TenantReconciler) revokeKeys(ctx context.Context, s *tenantScope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil
	}
	s.observed.Deleting = "Destroying the Tenant's keys."
	if err := revoke(ctx, r.Keys, refTo(resources.KindTenant, s.tenant)); err != nil {
		return 0, keyProblem(v1alpha1.ConditionKeysReady, err)
	}
	return 0, nil
}

// removeNamespaces deletes the namespaces that the manager made and leaves the others. An object in one that only somebody
// else's finalizer keeps is not waited for: the namespace goes when that does.
func (r *TenantReconciler) removeNamespaces(ctx context.Context, s *tenantScope) (time.Duration, error) {
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
				return 0, explain(v1alpha1.ConditionNamespacesReady, err)
			}
			continue
		}
		if namespace.DeletionTimestamp.IsZero() {
			going = append(going, namespace.Name)
			if err := r.Writer.Delete(ctx, namespace); err != nil {
				return 0, explain(v1alpha1.ConditionNamespacesReady, err)
			}
			continue
		}
		onlyHeld, err := r.isOnlyHeld(ctx, s, namespace)
		if err != nil {
			return 0, err
		}
		if !onlyHeld {
			going = append(going, namespace.Name+remaining(namespace))
			wait = terminatingWait
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

// isOnlyHeld says that a namespace on its way out stays because of bots or stores that somebody else's finalizer keeps, and
// that nothing of ours runs in it. Kubernetes removes our RoleBinding with the rest, and with it the right to look for pods:
// it is asked what remains then.
func (r *TenantReconciler) isOnlyHeld(ctx context.Context, s *tenantScope, namespace *corev1.Namespace) (bool, error) {
	if !slices.ContainsFunc(s.held, func(held string) bool { return strings.Contains(held, " "+namespace.Name+"/") }) {
		return false, nil
	}
	running, err := r.Orphans.running(ctx, namespace.Name)
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

// letGo drops the finalizer once nothing is waited for, and says what is left behind.
func (r *TenantReconciler) letGo(ctx context.Context, s *tenantScope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil // the watches on namespaces, bots and stores wake us
	}
	if len(s.held) > 0 {
		r.Recorder.Eventf(s.tenant, nil, corev1.EventTypeWarning, v1alpha1.ReasonHeld, "Delete",
			"The Tenant is gone and its keys are destroyed. Left behind, without anything that runs: %s.", cutList(s.held))
	}
	if err := dropFinalizer(ctx, r.Writer.Client, s.tenant); err != nil {
		return 0, explain(v1alpha1.ConditionReady, err)
	}
	s.gone = true
	return 0, nil
}

// lookInto says whether bots or stores that count are in a namespace, and names those that only somebody else's finalizer
// keeps. It is handed the API server to be sure, and the cache to be quick.
func lookInto(ctx context.Context, from client.Reader, namespace string) (used bool, held []string, err error) {
	bots, stores := &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}
	for _, list := range []client.ObjectList{bots, stores} {
		if err := from.List(ctx, list, client.InNamespace(namespace), unlocked); err != nil {
			return false, nil, fmt.Errorf("look into namespace %s: %w", namespace, err)
		}
	}
	see := func(kind string, object client.Object) {
		if !isHeld(object) {
			used = true
		} else if others := foreignFinalizers(object); len(others) > 0 {
			held = append(held, fmt.Sprintf("%s %s/%s by %s", kind, namespace, object.GetName(), finalizersText(others)))
		}
	}
	for i := range bots.Items {
		see(resources.KindBotDeployment, &bots.Items[i])
	}
	for i := range stores.Items {
		see(resources.KindDataStore, &stores.Items[i])
	}
	return used, held, nil
}

// cutList joins a list for a message, the first few of it.
func cutList(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], "; "), len(list)-most)
	}
	return strings.Join(list, "; ")
}
