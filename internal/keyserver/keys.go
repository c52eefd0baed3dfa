package keyserver

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// keyMemory is how long a tenant's opened keys stay in memory. Revoking does not wait for it: a Tenant that is going away
// is refused because it is read live, and the object's own key is read live for every unseal.
const keyMemory = 60 * time.Second

// tenantKeys are a tenant's keys, opened.
type tenantKeys struct {
	doc  tenantDoc
	key  sealing.Key
	seal map[string]sealing.PrivateKey // by kid
}

// ids are what everything under a tenant's key is bound to.
func (k *tenantKeys) ids(more ...string) []string {
	return append([]string{k.doc.Realm, k.doc.Tenant, k.doc.UID}, more...)
}

// keysOf returns the keys of a tenant that has some. A tenant without is KeyMissing when its status says that it once
// had, else NotReady: only the call `tenant` makes keys.
func (s *Server) keysOf(ctx context.Context, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	if keys, ok := s.keys.get(string(tenant.UID)); ok {
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
		return nil, later(protocol.ReasonNotReady, 2, "Tenant %s has no keys yet", tenant.Name)
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

func (s *Server) keyMissing(tenant *v1alpha1.Tenant) error {
	return refuse(protocol.ReasonKeyMissing,
		"the keys of Tenant %s are gone: Secret %s/%s does not hold what its status names; restore them with `kubectl lethe keys restore` (new ones are never made in their place: nothing that was sealed would open)",
		tenant.Name, s.KeysNamespace, tenantSecretName(tenant.Name))
}

// openTenantKeys opens the keys in a Secret and makes sure that they are this tenant's and that none is missing.
func (s *Server) openTenantKeys(secret *corev1.Secret, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	var doc tenantDoc
	if err := readDocument(secret, formatTenant, &doc); err != nil {
		return nil, refuse(protocol.ReasonKeyMissing, "%s", err)
	}
	if doc.Tenant != tenant.Name || doc.UID != string(tenant.UID) || doc.Realm != s.Realm {
		return nil, refuse(protocol.ReasonKeyMissing,
			"Secret %s/%s holds the keys of an earlier Tenant %s (UID %s, realm %s; this one is %s, %s): to take them over run `kubectl lethe keys restore --adopt` with a backup; to begin anew delete that Secret, and all that was sealed to it stays closed",
			secret.Namespace, secret.Name, doc.Tenant, doc.UID, doc.Realm, tenant.UID, s.Realm)
	}
	keys := &tenantKeys{doc: doc, seal: map[string]sealing.PrivateKey{}}
	var err error
	if keys.key, err = s.KEK.Unwrap(doc.Key, sealing.PurposeTenant, keys.ids()...); err != nil {
		return nil, s.wrongKEK(doc.Key)
	}
	for _, d := range doc.Seal {
		_, seed, err := keys.key.UnwrapBytes(d.Key, sealing.PurposeSeal, keys.ids()...)
		if err != nil {
			return nil, refuse(protocol.ReasonKeyMissing, "sealing key %s in Secret %s/%s does not open: restore the backup", d.KID, secret.Namespace, secret.Name)
		}
		priv, err := sealing.ParsePrivateKey(seed)
		clear(seed)
		if err != nil || priv.Public().KID() != d.KID {
			return nil, refuse(protocol.ReasonKeyMissing, "sealing key %s in Secret %s/%s is another key: restore the backup", d.KID, secret.Namespace, secret.Name)
		}
		keys.seal[d.KID] = priv
	}
	for _, known := range tenant.Status.SealingKeys {
		if _, ok := keys.seal[known.KID]; !ok {
			return nil, s.keyMissing(tenant)
		}
	}
	if len(keys.seal) == 0 {
		return nil, s.keyMissing(tenant)
	}
	return keys, nil
}
