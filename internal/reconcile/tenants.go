package reconcile

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// TenantOfNamespace is whose a namespace is, as far as the cache knows.
func TenantOfNamespace(ctx context.Context, cache client.Reader, namespace string) string {
	object := &corev1.Namespace{}
	if err := cache.Get(ctx, client.ObjectKey{Name: namespace}, object, client.UnsafeDisableDeepCopy); err != nil {
		return "" // the cache holds tenants' namespaces only
	}
	return object.Labels[v1alpha1.LabelTenant]
}

// IsNobodys asks past the cache whether a namespace is no tenant's, or is being deleted, or its Tenant is: nothing of
// ours may run in it then. A Tenant that has yet to set the namespace up does not count: after a restore each does.
func IsNobodys(ctx context.Context, live client.Reader, namespace string) (bool, error) {
	whose, err := tenancy.Read(ctx, live, namespace)
	if err != nil {
		return false, err
	}
	return whose.Standing != tenancy.Held && whose.Standing != tenancy.NotIsolated, nil
}
