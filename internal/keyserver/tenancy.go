package keyserver

import (
	"context"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/compile"
	"github.com/lethe-dev/lethe/internal/protocol"
)

// tenantMemory is how long `credentials` may believe that a namespace is a tenant's. A stale answer gives nobody access: what that
// call writes is ciphertext under that tenant's key, bound to tenant and namespace, and unseal and lease, which give
// values away, read namespace and tenant live.
const tenantMemory = 10 * time.Second

// tenantOf returns the tenant that a namespace belongs to, read live.
func (s *Server) tenantOf(ctx context.Context, namespace string) (*v1alpha1.Tenant, error) {
	tenant, err := compile.TenantOf(ctx, s.Client, namespace)
	if r, ok := compile.IsRefusal(err); ok {
		if r.Reason == compile.ReasonDeleting {
			return nil, refuse(protocol.ReasonRevoked, "%s", r.Message)
		}
		return nil, later(protocol.ReasonNoTenant, 5, "%s", r.Message)
	}
	if err != nil {
		return nil, err
	}
	if !tenant.DeletionTimestamp.IsZero() {
		return nil, refuse(protocol.ReasonRevoked, "Tenant %s is being deleted", tenant.Name)
	}
	s.tenants.put(namespace, tenant)
	return tenant, nil
}

// tenantOfRecently is the same, some seconds old at most. A refusal is never remembered.
func (s *Server) tenantOfRecently(ctx context.Context, namespace string) (*v1alpha1.Tenant, error) {
	if t, ok := s.tenants.get(namespace); ok {
		return t, nil
	}
	return s.tenantOf(ctx, namespace)
}
