package keystore

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// KeyMemory is how long a tenant's opened keys stay in memory. Revoking does not wait for it: a Tenant that is going
// away is refused because it is read live, and the object's own key is read live for every unseal.
const KeyMemory = 60 * time.Second

// TenantKeys are a tenant's keys, opened.
type TenantKeys struct {
	Secret     *corev1.Secret
	Generation int64 // of the document
	Doc        TenantDoc
	Keys       sealing.Ring                  // the tenant's own
	Seal       map[string]sealing.PrivateKey // by kid
}

// IDs are what everything under a tenant's key is bound to.
func (k *TenantKeys) IDs(more ...string) []string {
	return append([]string{k.Doc.Realm, k.Doc.Tenant, k.Doc.UID}, more...)
}

// KeysOf returns the keys of a tenant that has some. A tenant without is KeyMissing when its status says that it once
// had, else NotReady: only the call `tenant` makes keys.
func (s *Store) KeysOf(ctx context.Context, tenant *v1alpha1.Tenant) (*TenantKeys, error) {
	// What is remembered may be older than what the Tenant says that there is: another replica has written since.
	if keys, ok := s.opened.Get(string(tenant.UID)); ok && keys.Generation >= tenant.Status.KeysGeneration {
		return keys, nil
	}
	if err := s.KEKUsable(ctx); err != nil {
		return nil, err
	}
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: TenantSecretName(tenant.Name)}, &secret)
	if apierrors.IsNotFound(err) {
		if len(tenant.Status.SealingKeys) > 0 {
			return nil, s.KeyMissing(tenant)
		}
		return nil, keyapi.Later(v1alpha1.ReasonNotReady, 2, "Tenant %s has no keys yet", tenant.Name)
	}
	if err != nil {
		return nil, err
	}
	keys, err := s.openTenantKeys(&secret, tenant)
	if err != nil {
		return nil, err
	}
	s.opened.Put(string(tenant.UID), keys)
	return keys, nil
}

// KeysAnew reads a tenant's keys that were remembered once more: what another replica has made since is in them.
func (s *Store) KeysAnew(ctx context.Context, was *TenantKeys) (*TenantKeys, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: TenantSecretName(was.Doc.Tenant)}, &secret)
	if apierrors.IsNotFound(err) {
		return was, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := OpenTenantDocument(&secret, s.KEKs())
	if err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if keys.Doc.UID != was.Doc.UID || keys.Doc.Realm != was.Doc.Realm || keys.Generation < was.Generation {
		return was, nil
	}
	s.opened.Put(keys.Doc.UID, keys)
	return keys, nil
}

// Wraps says whether an object's keys are under the tenant's.
func (k *TenantKeys) Wraps(d ObjectDoc) bool {
	for _, entry := range append(slices.Clone(d.Keys), d.Digest) {
		if parent, err := sealing.WrappingKID(entry.Key); err == nil {
			if _, err := k.Keys.Find(parent); err != nil {
				return false
			}
		}
	}
	return true
}

// KeyMissing is the refusal where a tenant's keys are not what its status names.
func (s *Store) KeyMissing(tenant *v1alpha1.Tenant) error {
	return keyapi.Refuse(v1alpha1.ReasonKeyMissing,
		"the keys of Tenant %s are gone: Secret %s/%s does not hold what its status names; restore them with `kubectl lethe keys restore` (new ones are never made in their place: nothing that was sealed would open)",
		tenant.Name, s.KeysNamespace, TenantSecretName(tenant.Name))
}

// openTenantKeys opens the keys in a Secret and makes sure that they are this tenant's and that none is missing.
func (s *Store) openTenantKeys(secret *corev1.Secret, tenant *v1alpha1.Tenant) (*TenantKeys, error) {
	var doc TenantDoc
	if _, err := ReadDocument(secret, FormatTenant, &doc); err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if doc.Tenant != tenant.Name || doc.UID != string(tenant.UID) || doc.Realm != s.Realm {
		return nil, keyapi.Refuse(v1alpha1.ReasonKeyMissing,
			"Secret %s/%s holds the keys of an earlier Tenant %s (UID %s, realm %s; this one is %s, %s): to take them over run `kubectl lethe keys restore --adopt` with a backup; to begin anew delete that Secret, and all that was sealed to it stays closed",
			secret.Namespace, secret.Name, doc.Tenant, doc.UID, doc.Realm, tenant.UID, s.Realm)
	}
	keys, err := OpenTenantDocument(secret, s.KEKs())
	if err != nil {
		wrapped := ""
		if len(doc.Keys) > 0 {
			wrapped = doc.Keys[0].Key
		}
		return nil, s.refuseDocument(err, wrapped)
	}
	if keys.Generation < tenant.Status.KeysGeneration {
		return nil, RolledBack(secret, keys.Generation, tenant.Status.KeysGeneration)
	}
	for _, known := range tenant.Status.SealingKeys {
		destroyed := slices.ContainsFunc(keys.Doc.Destroyed, func(d DestroyedDoc) bool { return d.KID == known.KID })
		if _, ok := keys.Seal[known.KID]; !ok && !destroyed {
			return nil, s.KeyMissing(tenant)
		}
	}
	if len(keys.Seal) == 0 {
		return nil, s.KeyMissing(tenant)
	}
	return keys, nil
}

// refuseDocument is the answer to a caller whose document of keys cannot be used. wrapped is a key of it, to name the
// KEK that it needs.
func (s *Store) refuseDocument(err error, wrapped string) error {
	switch {
	case errors.Is(err, sealing.ErrUnknownKey):
		return s.wrongKEK(wrapped)
	case errors.Is(err, ErrAltered):
		return keyapi.Refuse(v1alpha1.ReasonKeysAltered, "%s: restore the backup with `kubectl lethe keys restore`, and find out who may write there", err)
	case errors.Is(err, ErrUnreadable):
		return keyapi.Refuse(v1alpha1.ReasonKeyMissing, "%s", err)
	}
	return err
}

// RolledBack refuses a document that is older than what the live object says was there: somebody put an earlier copy
// in its place, and with it older versions of credentials.
func RolledBack(secret *corev1.Secret, found, known int64) error {
	return keyapi.Refuse(v1alpha1.ReasonKeysRolledBack,
		"Secret %s/%s was written %d times, and %d times were seen before: an earlier copy was put in its place; if that is a restore, do it with `kubectl lethe keys restore --kek-file`, which makes it the newest",
		secret.Namespace, secret.Name, found, known)
}
