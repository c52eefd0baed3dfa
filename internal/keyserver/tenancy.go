package keyserver

import (
	"context"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// tenantMemory is how long `credentials` may believe that a namespace is a tenant's. A stale answer gives nobody
// access: what that call writes is ciphertext under that tenant's key, bound to tenant and namespace, and unseal and
// lease, which give values away, read namespace and tenant live.
const tenantMemory = 10 * time.Second

// tenantOf returns the tenant that a namespace belongs to, read live.
func (s *Server) tenantOf(ctx context.Context, namespace string) (*v1alpha1.Tenant, error) {
	whose, err := tenancy.Read(ctx, s.Client, namespace)
	if err != nil {
		return nil, err
	}
	switch whose.Standing {
	case tenancy.Held:
		whose.Tenant.ManagedFields = nil // as long as all that is asked of it
		s.tenants.Put(namespace, whose.Tenant)
		return whose.Tenant, nil
	case tenancy.NamespaceEnding, tenancy.TenantEnding:
		return nil, refuse(v1alpha1.ReasonRevoked, "%s", whose.Why)
	default:
		return nil, later(v1alpha1.ReasonNoTenant, 5, "%s", whose.Why)
	}
}

// tenantOfRecently is the same, some seconds old at most. A refusal is never remembered.
func (s *Server) tenantOfRecently(ctx context.Context, namespace string) (*v1alpha1.Tenant, error) {
	if t, ok := s.tenants.Get(namespace); ok {
		return t, nil
	}
	return s.tenantOf(ctx, namespace)
}
