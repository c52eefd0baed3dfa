package keyserver

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// tenant makes a tenant's keys when it never had any, and returns the public ones. All keys go into one Secret, so that
// a crash leaves either all of them or none.
func (s *Server) tenant(ctx context.Context, _ caller, req *protocol.TenantRequest) (*protocol.TenantResponse, error) {
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
	keys, err := s.ensureTenantKeys(ctx, &tenant)
	if err != nil {
		return nil, err
	}
	if keys, err = s.recordTenant(ctx, keys, &tenant); err != nil {
		return nil, err
	}
	resp := s.tenantResponse(keys)
	return resp, s.publishKeys(ctx, &tenant, resp)
}

// tenantResponse is what may be known of a tenant's keys: the one to seal to first, then the retired ones.
func (s *Server) tenantResponse(keys *tenantKeys) *protocol.TenantResponse {
	resp := &protocol.TenantResponse{KEKGrade: s.KEKGrade, Generation: keys.generation, UIDRange: protocol.UIDRange(keys.doc.UIDRange)}
	for _, d := range keys.doc.Seal {
		resp.SealingKeys = append(resp.SealingKeys, protocol.SealingKey{KID: d.KID, Suite: d.Suite, Public: d.Public, Realm: keys.doc.Realm, State: d.State})
	}
	return resp
}

// ensureTenantKeys reads the keys live, not from memory: this call is how a person finds out that they are gone.
func (s *Server) ensureTenantKeys(ctx context.Context, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	if err := s.kekUsable(ctx); err != nil {
		return nil, err
	}
	name := client.ObjectKey{Namespace: s.KeysNamespace, Name: tenantSecretName(tenant.Name)}
	var secret corev1.Secret
	err := s.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		if err := s.mayMakeKeys(ctx, tenant); err != nil {
			return nil, err
		}
		fresh, old, err := s.firstDocument(ctx, tenant)
		if err != nil {
			return nil, err
		}
		if err = s.Client.Create(ctx, fresh); err == nil {
			if old != nil {
				// What waited is a live Tenant's again. Should this fail, Maintain does it.
				if err := s.deleteExactly(ctx, old.secret); err != nil {
					return nil, err
				}
			}
			return s.openTenantKeys(fresh, tenant)
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		// Another replica was first: its keys are the keys.
		if err := s.Client.Get(ctx, name, &secret); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return s.openTenantKeys(&secret, tenant)
}

// firstDocument makes a tenant's document: out of keys that wait since an earlier Tenant that was the same was deleted, or
// with new ones.
func (s *Server) firstDocument(ctx context.Context, tenant *v1alpha1.Tenant) (*corev1.Secret, *waiting, error) {
	old, err := s.waitingFor(ctx, tenant)
	if err != nil {
		return nil, nil, err
	}
	if old != nil {
		fresh, err := s.revive(ctx, tenant, old)
		return fresh, old, err
	}
	block, err := s.allocateUIDs(ctx)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := s.makeTenantKeys(tenant, block)
	return fresh, nil, err
}

// mayMakeKeys refuses to make keys where there were some before. That is known from the tenant's status, and from keys of
// objects that were wrapped under them.
func (s *Server) mayMakeKeys(ctx context.Context, tenant *v1alpha1.Tenant) error {
	if len(tenant.Status.SealingKeys) > 0 || tenant.Status.KeysGeneration > 0 {
		return s.keyMissing(tenant)
	}
	return s.eachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelTenant: tenant.Name}, func(secret *corev1.Secret) error {
		var doc objectDoc
		if _, err := readDocument(secret, formatObject, &doc); err == nil && doc.TenantUID == string(tenant.UID) {
			return s.keyMissing(tenant)
		}
		return nil
	})
}

func (s *Server) makeTenantKeys(tenant *v1alpha1.Tenant, block uidRangeDoc) (*corev1.Secret, error) {
	doc := tenantDoc{Realm: s.Realm, Tenant: tenant.Name, UID: string(tenant.UID), UIDRange: block, Binding: bindingOf(s.Realm, tenant)}
	ids := []string{doc.Realm, doc.Tenant, doc.UID}
	key, entry, err := s.newKeyUnder(s.kek(), sealing.PurposeTenant, ids...)
	if err != nil {
		return nil, err
	}
	entry.State, entry.Since = stateActive, s.now()
	doc.Keys = []keyDoc{entry}
	seal, err := s.newSealKey(sealing.Ring{key}, ids...)
	if err != nil {
		return nil, err
	}
	doc.Seal = []sealDoc{seal}
	return newDocument(s.KeysNamespace, tenantSecretName(tenant.Name), tenant.Name, formatTenant, 1, sealing.Ring{key}, doc)
}

// newKeyUnder makes a random key and wraps it.
func (s *Server) newKeyUnder(above sealing.Ring, purpose sealing.Purpose, ids ...string) (sealing.Key, keyDoc, error) {
	key, err := sealing.NewKey(s.Random)
	if err != nil {
		return sealing.Key{}, keyDoc{}, err
	}
	wrapped, err := above.Wrap(s.Random, key, purpose, ids...)
	return key, keyDoc{KID: key.KID(), Key: wrapped}, err
}

// newSealKey makes a key pair that values are sealed to, and wraps its private half under the tenant's key.
func (s *Server) newSealKey(above sealing.Ring, ids ...string) (sealDoc, error) {
	priv, err := sealing.GeneratePrivateKey(s.Random)
	if err != nil {
		return sealDoc{}, err
	}
	seed, err := priv.Bytes()
	if err != nil {
		return sealDoc{}, err
	}
	defer clear(seed)
	pub := priv.Public()
	wrapped, err := above.WrapBytes(s.Random, pub.KID(), seed, sealing.PurposeSeal, ids...)
	return sealDoc{KID: pub.KID(), Suite: sealing.Suite, Public: pub.String(), Key: wrapped, State: stateActive, Since: s.now()}, err
}

// now is the clock's time as documents hold it.
func (o *Options) now() time.Time { return o.Clock.Now().UTC().Truncate(time.Second) }
