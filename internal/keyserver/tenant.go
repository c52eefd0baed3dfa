package keyserver

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
)

// tenant makes a tenant's keys when it never had any, and returns the public ones. All keys go into one Secret, so that
// a crash leaves either all of them or none.
func (s *Server) tenant(ctx context.Context, _ caller, req *keyapi.TenantRequest) (*keyapi.TenantResponse, error) {
	if req.Tenant.Kind != "Tenant" || req.Tenant.Name == "" || req.Tenant.UID == "" {
		return nil, refuse(v1alpha1.ReasonBadRequest, "kind Tenant, name and UID are needed")
	}
	var tenant v1alpha1.Tenant
	err := s.Client.Get(ctx, client.ObjectKey{Name: req.Tenant.Name}, &tenant)
	if kube.IsMissing(err, req.Tenant.Name) || (err == nil && string(tenant.UID) != req.Tenant.UID) {
		return nil, refuse(v1alpha1.ReasonNotFound, "Tenant %s with that UID does not exist", req.Tenant.Name)
	}
	if err != nil {
		return nil, err
	}
	if !tenant.DeletionTimestamp.IsZero() {
		return nil, refuse(v1alpha1.ReasonRevoked, "Tenant %s is being deleted", tenant.Name)
	}
	keys, err := s.keys.EnsureTenantKeys(ctx, &tenant)
	if err != nil {
		return nil, err
	}
	if keys, err = s.keys.RecordTenant(ctx, keys, &tenant); err != nil {
		return nil, err
	}
	resp := s.tenantResponse(keys)
	return resp, s.publishKeys(ctx, &tenant, resp)
}

// tenantResponse is what may be known of a tenant's keys: the one to seal to first, then the retired ones.
func (s *Server) tenantResponse(keys *keystore.TenantKeys) *keyapi.TenantResponse {
	resp := &keyapi.TenantResponse{KEKGrade: s.KEKGrade, Generation: keys.Generation, UIDRange: keyapi.UIDRange(keys.Doc.UIDRange)}
	for _, d := range keys.Doc.Seal {
		resp.SealingKeys = append(resp.SealingKeys, keyapi.SealingKey{KID: d.KID, Suite: d.Suite, Public: d.Public, Realm: keys.Doc.Realm, State: d.State})
	}
	return resp
}
