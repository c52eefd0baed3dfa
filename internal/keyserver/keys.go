package keyserver

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// keyMemory is how long a tenant's opened keys stay in memory. Revoking does not wait for it: a Tenant that is going away
// is refused because it is read live, and the object's own key is read live for every unseal.
const keyMemory = 60 * time.Second

// tenantKeys are a tenant's keys, opened.
type tenantKeys struct {
	secret     *corev1.Secret
	generation int64 // of the document
	doc        tenantDoc
	keys       sealing.Ring                  // the tenant's own
	seal       map[string]sealing.PrivateKey // by kid
}

// ids are what everything under a tenant's key is bound to.
func (k *tenantKeys) ids(more ...string) []string {
	return append([]string{k.doc.Realm, k.doc.Tenant, k.doc.UID}, more...)
}

// keysOf returns the keys of a tenant that has some. A tenant without is KeyMissing when its status says that it once
// had, else NotReady: only the call `tenant` makes keys.
func (s *Server) keysOf(ctx context.Context, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	// What is remembered may be older than what the Tenant says that there is: another replica has written since.
	if keys, ok := s.keys.get(string(tenant.UID)); ok && keys.generation >= tenant.Status.KeysGeneration {
		return keys, nil
	}
	if err := s.kekUsable(ctx); err != nil {
		return nil, err
	}
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: tenantSecretName(tenant.Name)}, &secret)
	if apierrors.IsNotFound(err) {
		if len(tenant.Status.SealingKeys) > 0 {
			return nil, s.keyMissing(tenant)
		}
		return nil, later(v1alpha1.ReasonNotReady, 2, "Tenant %s has no keys yet", tenant.Name)
	}
	if err != nil {
		return nil, err
	}
	keys, err := s.openTenantKeys(&secret, tenant)
	if err != nil {
		return nil, err
	}
	s.keys.put(string(tenant.UID), keys)
	return keys, nil
}

// keysAnew reads a tenant's keys that were remembered once more: what another replica has made since is in them.
func (s *Server) keysAnew(ctx context.Context, was *tenantKeys) (*tenantKeys, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: tenantSecretName(was.doc.Tenant)}, &secret)
	if apierrors.IsNotFound(err) {
		return was, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := openTenantDocument(&secret, s.kek())
	if err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if keys.doc.UID != was.doc.UID || keys.doc.Realm != was.doc.Realm || keys.generation < was.generation {
		return was, nil
	}
	s.keys.put(keys.doc.UID, keys)
	return keys, nil
}

// wraps says whether an object's keys are under the tenant's.
func (k *tenantKeys) wraps(d objectDoc) bool {
	for _, entry := range append(slices.Clone(d.Keys), d.Digest) {
		if parent, err := sealing.WrappingKID(entry.Key); err == nil {
			if _, err := k.keys.Find(parent); err != nil {
				return false
			}
		}
	}
	return true
}

func (s *Server) keyMissing(tenant *v1alpha1.Tenant) error {
	return refuse(v1alpha1.ReasonKeyMissing,
		"the keys of Tenant %s are gone: Secret %s/%s does not hold what its status names; restore them with `kubectl lethe keys restore` (new ones are never made in their place: nothing that was sealed would open)",
		tenant.Name, s.KeysNamespace, tenantSecretName(tenant.Name))
}

// openTenantKeys opens the keys in a Secret and makes sure that they are this tenant's and that none is missing.
func (s *Server) openTenantKeys(secret *corev1.Secret, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	var doc tenantDoc
	if _, err := readDocument(secret, formatTenant, &doc); err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if doc.Tenant != tenant.Name || doc.UID != string(tenant.UID) || doc.Realm != s.Realm {
		return nil, refuse(v1alpha1.ReasonKeyMissing,
			"Secret %s/%s holds the keys of an earlier Tenant %s (UID %s, realm %s; this one is %s, %s): to take them over run `kubectl lethe keys restore --adopt` with a backup; to begin anew delete that Secret, and all that was sealed to it stays closed",
			secret.Namespace, secret.Name, doc.Tenant, doc.UID, doc.Realm, tenant.UID, s.Realm)
	}
	keys, err := openTenantDocument(secret, s.kek())
	if err != nil {
		wrapped := ""
		if len(doc.Keys) > 0 {
			wrapped = doc.Keys[0].Key
		}
		return nil, s.refuseDocument(err, wrapped)
	}
	if keys.generation < tenant.Status.KeysGeneration {
		return nil, rolledBack(secret, keys.generation, tenant.Status.KeysGeneration)
	}
	for _, known := range tenant.Status.SealingKeys {
		destroyed := slices.ContainsFunc(keys.doc.Destroyed, func(d destroyedDoc) bool { return d.KID == known.KID })
		if _, ok := keys.seal[known.KID]; !ok && !destroyed {
			return nil, s.keyMissing(tenant)
		}
	}
	if len(keys.seal) == 0 {
		return nil, s.keyMissing(tenant)
	}
	return keys, nil
}

// refuseDocument is the answer to a caller whose document of keys cannot be used. wrapped is a key of it, to name the KEK that
// it needs.
func (s *Server) refuseDocument(err error, wrapped string) error {
	switch {
	case errors.Is(err, sealing.ErrUnknownKey):
		return s.wrongKEK(wrapped)
	case errors.Is(err, errAltered):
		return refuse(v1alpha1.ReasonKeysAltered, "%s: restore the backup with `kubectl lethe keys restore`, and find out who may write there", err)
	case errors.Is(err, errUnreadable):
		return refuse(v1alpha1.ReasonKeyMissing, "%s", err)
	}
	return err
}

// rolledBack refuses a document that is older than what the live object says was there: somebody put an earlier copy in its
// place, and with it older versions of credentials.
func rolledBack(secret *corev1.Secret, found, known int64) error {
	return refuse(v1alpha1.ReasonKeysRolledBack,
		"Secret %s/%s was written %d times, and %d times were seen before: an earlier copy was put in its place; if that is a restore, do it with `kubectl lethe keys restore --kek-file`, which makes it the newest",
		secret.Namespace, secret.Name, found, known)
}
