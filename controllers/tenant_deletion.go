package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

func hasFinalizer(object client.Object) bool {
	return controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerKeys)
}

// revokeKeys comes before anything slower: without its keys no pod of the tenant starts again.
func (r *TenantReconciler) revokeKeys(ctx context.Context, s *tenantScope) (time.Duration, error) {
	s.observed.Deleting = "Destroying the Tenant's keys."
	if err := revoke(ctx, r.Keys, refTo(resources.KindTenant, s.tenant)); err != nil {
		return 0, keyProblem(v1alpha1.ConditionKeysReady, err)
	}
	return 0, nil
}

// removeNamespaces deletes the namespaces that the manager made and leaves the others. One that holds bots or stores waits
// for a person to delete those: that must not happen by deleting something else.
func (r *TenantReconciler) removeNamespaces(ctx context.Context, s *tenantScope) (time.Duration, error) {
	s.observed.Deleting = "Removing the Tenant's namespaces."
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var used, going []string
	for i := range namespaces {
		namespace := &namespaces[i]
		inUse, err := r.isUsed(ctx, namespace.Name)
		switch {
		case err != nil:
			return 0, err
		case !namespace.DeletionTimestamp.IsZero() && wasCreatedFor(namespace, s.tenant):
			going = append(going, namespace.Name)
		case inUse || s.retains(namespace.Name):
			used = append(used, namespace.Name)
		case !wasCreatedFor(namespace, s.tenant):
			if err := r.leave(ctx, s.tenant, namespace.Name); err != nil {
				return 0, explain(v1alpha1.ConditionNamespacesReady, err)
			}
		default:
			going = append(going, namespace.Name)
			if err := r.Writer.Delete(ctx, namespace); err != nil {
				return 0, explain(v1alpha1.ConditionNamespacesReady, err)
			}
		}
	}
	if s.waiting = waitingFor(used, going); s.waiting != "" {
		s.observed.Deleting = s.waiting
	}
	return 0, nil
}

func waitingFor(used, going []string) string {
	var parts []string
	if len(used) > 0 {
		parts = append(parts, fmt.Sprintf("Waiting for BotDeployments, DataStores and retained volumes (unless spec.retainedVolumes is Release) to be deleted from %s.", strings.Join(used, ", ")))
	}
	if len(going) > 0 {
		parts = append(parts, fmt.Sprintf("Waiting for Kubernetes to remove %s.", strings.Join(going, ", ")))
	}
	return strings.Join(parts, " ")
}

// letGo drops the finalizer once nothing is waited for.
func (r *TenantReconciler) letGo(ctx context.Context, s *tenantScope) (time.Duration, error) {
	if s.waiting != "" {
		return 0, nil // the watches on namespaces, bots and stores wake us
	}
	if err := dropFinalizer(ctx, r.Writer.Client, s.tenant); err != nil {
		return 0, explain(v1alpha1.ConditionReady, err)
	}
	r.verified.forget(s.tenant.UID)
	s.gone = true
	return 0, nil
}
