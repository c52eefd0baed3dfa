package keystore

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// EnsureTenantKeys reads the keys live, not from memory: this call is how a person finds out that they are gone.
func (s *Store) EnsureTenantKeys(ctx context.Context, tenant *v1alpha1.Tenant) (*TenantKeys, error) {
	if err := s.KEKUsable(ctx); err != nil {
		return nil, err
	}
	name := client.ObjectKey{Namespace: s.KeysNamespace, Name: TenantSecretName(tenant.Name)}
	var secret corev1.Secret
	err := s.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		if err := s.MayMakeKeys(ctx, tenant); err != nil {
			return nil, err
		}
		fresh, old, err := s.firstDocument(ctx, tenant)
		if err != nil {
			return nil, err
		}
		if err = s.Client.Create(ctx, fresh); err == nil {
			if old != nil {
				// What waited is a live Tenant's again. Should this fail, Maintain does it.
				if err := s.DeleteExactly(ctx, old.secret); err != nil {
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

// firstDocument makes a tenant's document: out of keys that wait since an earlier Tenant that was the same was
// deleted, or with new ones.
func (s *Store) firstDocument(ctx context.Context, tenant *v1alpha1.Tenant) (*corev1.Secret, *Waiting, error) {
	old, err := s.waitingFor(ctx, tenant)
	if err != nil {
		return nil, nil, err
	}
	if old != nil {
		fresh, err := s.revive(ctx, tenant, old)
		return fresh, old, err
	}
	block, err := s.AllocateUIDs(ctx)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := s.makeTenantKeys(tenant, block)
	return fresh, nil, err
}

// MayMakeKeys refuses to make keys where there were some before. That is known from the tenant's status, and from
// keys of objects that were wrapped under them.
func (s *Store) MayMakeKeys(ctx context.Context, tenant *v1alpha1.Tenant) error {
	if len(tenant.Status.SealingKeys) > 0 || tenant.Status.KeysGeneration > 0 {
		return s.KeyMissing(tenant)
	}
	return s.EachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelTenant: tenant.Name}, func(secret *corev1.Secret) error {
		var doc ObjectDoc
		if _, err := ReadDocument(secret, FormatObject, &doc); err == nil && doc.TenantUID == string(tenant.UID) {
			return s.KeyMissing(tenant)
		}
		return nil
	})
}

func (s *Store) makeTenantKeys(tenant *v1alpha1.Tenant, block UIDRangeDoc) (*corev1.Secret, error) {
	doc := TenantDoc{Realm: s.Realm, Tenant: tenant.Name, UID: string(tenant.UID), UIDRange: block, Binding: bindingOf(s.Realm, tenant)}
	ids := []string{doc.Realm, doc.Tenant, doc.UID}
	key, entry, err := s.NewKeyUnder(s.KEKs(), sealing.PurposeTenant, ids...)
	if err != nil {
		return nil, err
	}
	entry.State, entry.Since = StateActive, s.Now()
	doc.Keys = []KeyDoc{entry}
	seal, err := s.NewSealKey(sealing.Ring{key}, ids...)
	if err != nil {
		return nil, err
	}
	doc.Seal = []SealDoc{seal}
	return NewDocument(s.KeysNamespace, TenantSecretName(tenant.Name), tenant.Name, FormatTenant, 1, sealing.Ring{key}, doc)
}

// NewKeyUnder makes a random key and wraps it.
func (s *Store) NewKeyUnder(above sealing.Ring, purpose sealing.Purpose, ids ...string) (sealing.Key, KeyDoc, error) {
	key, err := sealing.NewKey(s.Random)
	if err != nil {
		return sealing.Key{}, KeyDoc{}, err
	}
	wrapped, err := above.Wrap(s.Random, key, purpose, ids...)
	return key, KeyDoc{KID: key.KID(), Key: wrapped}, err
}

// NewSealKey makes a key pair that values are sealed to, and wraps its private half under the tenant's key.
func (s *Store) NewSealKey(above sealing.Ring, ids ...string) (SealDoc, error) {
	priv, err := sealing.GeneratePrivateKey(s.Random)
	if err != nil {
		return SealDoc{}, err
	}
	seed, err := priv.Bytes()
	if err != nil {
		return SealDoc{}, err
	}
	defer clear(seed)
	pub := priv.Public()
	wrapped, err := above.WrapBytes(s.Random, pub.KID(), seed, sealing.PurposeSeal, ids...)
	return SealDoc{KID: pub.KID(), Suite: sealing.Suite, Public: pub.String(), Key: wrapped, State: StateActive, Since: s.Now()}, err
}
