package keystore

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// ObjectKeys are an object's data keys, opened, and the document they came from.
type ObjectKeys struct {
	Secret     *corev1.Secret // nil while it was never stored
	Generation int64          // of the document
	Doc        ObjectDoc
	Keys       sealing.Ring // the first encrypts
	Digest     sealing.Key  // names sets and tells values apart
	Tenant     *TenantKeys  // whose keys these are under; only while they are rotated
}

// Owner is what everything under the object's data key is bound to.
func (k *ObjectKeys) Owner() sealing.Owner {
	return sealing.Owner{Realm: k.Doc.Realm, Tenant: k.Doc.Tenant, Namespace: k.Doc.Namespace, Kind: k.Doc.Kind, UID: k.Doc.UID}
}

// LoadObjectKeys reads and opens an object's data key; nil when there is none. seen is the generation of it that the
// live object's status names: an earlier one is refused.
func (s *Store) LoadObjectKeys(ctx context.Context, ref keyapi.ObjectRef, seen int64, tenant *TenantKeys) (*ObjectKeys, error) {
	secret := &corev1.Secret{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: ObjectSecretName(ref.UID)}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d ObjectDoc
	if _, err := ReadDocument(secret, FormatObject, &d); err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if d.UID != ref.UID || d.Kind != ref.Kind || d.Namespace != ref.Namespace || d.Name != ref.Name ||
		d.Tenant != tenant.Doc.Tenant || d.TenantUID != tenant.Doc.UID || d.Realm != tenant.Doc.Realm {
		return nil, keyapi.Refuse(v1alpha1.ReasonKeyMissing,
			"Secret %s/%s holds the key of %s %s/%s of Tenant %s, not of this object: the namespace has changed hands; delete the object and make it again",
			secret.Namespace, secret.Name, d.Kind, d.Namespace, d.Name, d.Tenant)
	}
	if !tenant.Wraps(d) {
		// Another replica has rotated the tenant's key since this one read it.
		fresh, err := s.KeysAnew(ctx, tenant)
		if err != nil {
			return nil, err
		}
		tenant = fresh
	}
	keys, err := OpenObjectDocument(secret, tenant)
	if err != nil {
		return nil, s.refuseDocument(err, "")
	}
	if keys.Generation < seen {
		return nil, RolledBack(secret, keys.Generation, seen)
	}
	return keys, nil
}

// NewObjectKeys makes a data key, in memory only.
func (s *Store) NewObjectKeys(ref keyapi.ObjectRef, tenant *TenantKeys) (*ObjectKeys, error) {
	key, entry, err := s.NewKeyUnder(tenant.Keys, sealing.PurposeData, tenant.IDs(ref.UID)...)
	if err != nil {
		return nil, err
	}
	digest, naming, err := s.NewKeyUnder(tenant.Keys, sealing.PurposeDigest, tenant.IDs(ref.UID)...)
	if err != nil {
		return nil, err
	}
	entry.Since = s.Now()
	return &ObjectKeys{Keys: sealing.Ring{key}, Digest: digest, Doc: ObjectDoc{Realm: tenant.Doc.Realm, Tenant: tenant.Doc.Tenant, TenantUID: tenant.Doc.UID,
		Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, UID: ref.UID, Keys: []KeyDoc{entry}, Digest: naming}}, nil
}

// AppendNew is a list with a name at its end, where it is not in it.
func AppendNew(list []string, name string) []string {
	if slices.Contains(list, name) {
		return list
	}
	return append(slices.Clone(list), name)
}

// SecretOf is the name of the Secret that a set lies in: its own, unless it was encrypted anew since.
func (d ObjectDoc) SecretOf(set string) string {
	if name, ok := d.Secrets[set]; ok {
		return name
	}
	return set
}

// SecretNames are all Secrets that may hold anything of the object: where its sets lie, and what a rotation has begun
// or left.
func (d ObjectDoc) SecretNames() []string {
	out := slices.Clone(d.Moving)
	for _, set := range d.Sets {
		out = AppendNew(out, d.SecretOf(set))
	}
	return out
}

// OpenObject opens an object's document with that of its tenant, which need not be a live one's.
func (s *Store) OpenObject(secret, holder *corev1.Secret) (*ObjectKeys, error) {
	tenant, err := OpenTenantDocument(holder, s.KEKs())
	if err != nil {
		return nil, err
	}
	return OpenObjectDocument(secret, tenant)
}

// StoredObject is an object's document, not authenticated.
type StoredObject struct {
	Secret corev1.Secret
	Doc    ObjectDoc
}

// ObjectsOf lists the documents of a tenant's objects.
func (s *Store) ObjectsOf(ctx context.Context, tenant keyapi.ObjectRef) ([]StoredObject, error) {
	var out []StoredObject
	err := s.EachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelTenant: tenant.Name}, func(secret *corev1.Secret) error {
		var doc ObjectDoc
		if _, err := ReadDocument(secret, FormatObject, &doc); err == nil && doc.TenantUID == tenant.UID {
			out = append(out, StoredObject{*secret, doc})
		}
		return nil
	})
	return out, err
}
