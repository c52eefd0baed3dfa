package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// ErrNothing says that a snapshot holds no encrypted credential at all, so that nothing is shown by not opening one.
var ErrNothing = errors.New("there is no encrypted credential among the Secrets")

// Opened is what a key-encryption key opens.
type Opened struct {
	// Credentials by "namespace/Kind/name/credential".
	Credentials map[string][]byte
	// PrivateKeys by "tenant/key id": what values are sealed to.
	PrivateKeys map[string][]byte
}

// The documents of the keys' namespace, as docs/design/formats.md has them, as far as opening needs them.
type document struct {
	Realm     string `json:"realm"`
	Tenant    string `json:"tenant"`
	TenantUID string `json:"tenantUID"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Keys      []struct {
		Key string `json:"key"`
	} `json:"keys"`
	Current string `json:"current"`
	Seal    []struct {
		KID string `json:"kid"`
		Key string `json:"key"`
	} `json:"seal"`
}

// Open opens every credential that is in use, and every private key. It stops at the first that does not open. kek is
// the file's text: 32 bytes in base64.
func Open(secrets []corev1.Secret, kek []byte) (Opened, error) {
	opened := Opened{Credentials: map[string][]byte{}, PrivateKeys: map[string][]byte{}}
	root, err := sealing.ParseKEK(kek)
	if err != nil {
		return opened, fmt.Errorf("read the key-encryption key: %w", err)
	}
	encrypted := map[string]corev1.Secret{}
	var objects []document
	tenants := map[string]document{}
	for _, s := range secrets {
		switch s.Type {
		case v1alpha1.SecretTypeEncrypted:
			encrypted[s.Namespace+"/"+s.Name] = s
		case v1alpha1.SecretTypeWrappedKey:
			var e struct {
				Format   string   `json:"format"`
				Document document `json:"document"`
			}
			if err := json.Unmarshal(s.Data["keys.json"], &e); err != nil {
				return opened, fmt.Errorf("secret %s/%s holds no document of keys", s.Namespace, s.Name)
			}
			switch e.Format {
			case "lethe.dev/tenant-keys/v2":
				tenants[e.Document.UID] = e.Document
			case "lethe.dev/object-keys/v2":
				objects = append(objects, e.Document)
			}
		}
	}
	keys := map[string]sealing.Ring{}
	for uid, d := range tenants {
		key, err := d.open(sealing.Ring{root}, sealing.PurposeTenant, d.Realm, d.Tenant, d.UID)
		if err != nil {
			return opened, fmt.Errorf("key of tenant %s: %w", d.Tenant, err)
		}
		keys[uid] = key
		for _, k := range d.Seal {
			_, private, err := key.UnwrapBytes(k.Key, sealing.PurposeSeal, d.Realm, d.Tenant, d.UID)
			if err != nil {
				return opened, fmt.Errorf("sealing key of tenant %s: %w", d.Tenant, err)
			}
			opened.PrivateKeys[d.Tenant+"/"+k.KID] = private
		}
	}
	for _, d := range objects {
		if err := opened.object(d, keys, encrypted); err != nil {
			return opened, err
		}
	}
	if len(opened.Credentials) == 0 {
		return opened, ErrNothing
	}
	return opened, nil
}

// open opens the symmetric keys of a document.
func (d document) open(above sealing.Ring, purpose sealing.Purpose, ids ...string) (sealing.Ring, error) {
	var out sealing.Ring
	for _, k := range d.Keys {
		key, err := above.Unwrap(k.Key, purpose, ids...)
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

// object opens the credentials of one bot or store.
func (o *Opened) object(d document, tenants map[string]sealing.Ring, encrypted map[string]corev1.Secret) error {
	what := d.Namespace + "/" + d.Kind + "/" + d.Name
	tenant, ok := tenants[d.TenantUID]
	if !ok {
		return fmt.Errorf("%s: the keys of its tenant %s are not there", what, d.Tenant)
	}
	keys, err := d.open(tenant, sealing.PurposeData, d.Realm, d.Tenant, d.TenantUID, d.UID)
	if err != nil {
		return fmt.Errorf("data key of %s: %w", what, err)
	}
	set, ok := encrypted[d.Namespace+"/"+d.Current]
	if !ok {
		return nil // none has been stored yet
	}
	owner := sealing.Owner{Realm: d.Realm, Tenant: d.Tenant, Namespace: d.Namespace, Kind: d.Kind, UID: d.UID}
	for name, text := range set.Data {
		key, err := keys.Encrypted(string(text))
		if err != nil {
			return fmt.Errorf("credential %s of %s: %w", name, what, err)
		}
		plain, err := key.DecryptValue(owner, name, string(text))
		if err != nil {
			return fmt.Errorf("credential %s of %s: %w", name, what, err)
		}
		var item struct {
			Value []byte `json:"value"`
		}
		if err := json.Unmarshal(plain, &item); err != nil {
			return fmt.Errorf("credential %s of %s holds no readable value", name, what)
		}
		o.Credentials[what+"/"+name] = item.Value
	}
	return nil
}
