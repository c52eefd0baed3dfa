package keyserver

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// What lies in the keys' namespace: Secrets of type lethe.dev/wrapped-key with one JSON document each, under documentKey.
// Frozen in docs/design/formats.md.
const (
	documentKey = "keys.json"

	formatTenant = "lethe.dev/tenant-keys/v1"
	formatObject = "lethe.dev/object-keys/v1"
	formatCA     = "lethe.dev/ca-keys/v1"
	formatCanary = "lethe.dev/kek-canary/v1"

	canaryName = "kek-canary"
	caName     = "keyserver-ca"

	labelVelero    = "velero.io/exclude-from-backup"
	componentKeys  = "keys"
	componentLease = "lease"
)

// Grades of a key-encryption key.
const (
	GradeProduction = "Production" // a file on a volume of its own
	GradeEvaluation = "Evaluation" // a Secret of the same etcd: a snapshot of etcd opens everything
)

func tenantSecretName(tenant string) string { return "tenant-" + tenant }

func objectSecretName(uid string) string { return "object-" + uid }

// tenantDoc holds a tenant's keys.
type tenantDoc struct {
	Format string `json:"format"`
	Realm  string `json:"realm"`
	Tenant string `json:"tenant"`
	UID    string `json:"uid"`
	// Key is the tenant's key under the KEK.
	Key string `json:"key"`
	// Seal are the keys that values are sealed to, under Key; the first is the one to use.
	Seal []sealDoc `json:"seal"`
}

type sealDoc struct {
	KID    string `json:"kid"`
	Suite  string `json:"suite"`
	Public string `json:"public"`
	Key    string `json:"key"`
}

// objectDoc holds the data key of a BotDeployment or a DataStore, and what it has been used for.
type objectDoc struct {
	Format    string `json:"format"`
	Realm     string `json:"realm"`
	Tenant    string `json:"tenant"`
	TenantUID string `json:"tenantUID"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Key is the data key under the tenant's key.
	Key string `json:"key"`
	// Credentials by name, also of those that the spec no longer has: their highest versions stay known.
	Credentials map[string]credentialDoc `json:"credentials,omitempty"`
	// Sets are the encrypted Secrets that were written and not yet deleted, the newest last. A name is put here before
	// its Secret is made, so that none is ever left over.
	Sets []string `json:"sets,omitempty"`
	// Current is the one of them that is in use.
	Current string `json:"current,omitempty"`
}

type credentialDoc struct {
	Highest uint32 `json:"highest,omitempty"` // version ever stored; nothing lower is stored again
	Version uint32 `json:"version,omitempty"` // of the value in use; 0 out of a secretKeyRef
	Source  string `json:"source,omitempty"`  // names the value in use without giving it away
	// Destination is the digest of the server that the value in use was sealed for; empty for a bot's.
	Destination string `json:"destination,omitempty"`
}

// caDoc holds the keyserver's certificate authorities.
type caDoc struct {
	Format   string   `json:"format"`
	Realm    string   `json:"realm"`
	Present  caEntry  `json:"present"`            // signs
	Next     *caEntry `json:"next,omitempty"`     // will sign, once it has been in the bundle long enough
	Previous *caEntry `json:"previous,omitempty"` // signed certificates that may still be in use; its key is gone
}

type caEntry struct {
	Certificate string `json:"certificate"` // PEM
	Key         string `json:"key,omitempty"`
	// Until is when the last leaf signed by a previous authority ends.
	Until *time.Time `json:"until,omitempty"`
}

// canaryDoc tells a wrong KEK before it does harm.
type canaryDoc struct {
	Format string `json:"format"`
	Realm  string `json:"realm"`
	Canary string `json:"canary"`
}

// newKeySecret makes a Secret of the keys' namespace.
func newKeySecret(namespace, name, tenant string, document any) (*corev1.Secret, error) {
	b, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	labels := map[string]string{
		labelVelero:                 "true",
		v1alpha1.LabelManagedBy:     v1alpha1.ManagedByLethe,
		v1alpha1.LabelComponent:     componentKeys,
		"app.kubernetes.io/part-of": "lethe",
	}
	if tenant != "" {
		labels[v1alpha1.LabelTenant] = tenant
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Type:       v1alpha1.SecretTypeWrappedKey,
		Data:       map[string][]byte{documentKey: b},
	}, nil
}

// readDocument reads the document of a Secret of the keys' namespace. What is not ours, or of a format that this version
// does not know, is an error that says so.
func readDocument(secret *corev1.Secret, format string, into any) error {
	if secret.Type != v1alpha1.SecretTypeWrappedKey {
		return fmt.Errorf("secret %s/%s is of type %s, not %s: somebody else's", secret.Namespace, secret.Name, secret.Type, v1alpha1.SecretTypeWrappedKey)
	}
	var head struct {
		Format string `json:"format"`
	}
	b := secret.Data[documentKey]
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("secret %s/%s holds no readable %s", secret.Namespace, secret.Name, documentKey)
	}
	if head.Format != format {
		return fmt.Errorf("secret %s/%s is of format %q, this keyserver reads %q", secret.Namespace, secret.Name, head.Format, format)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("secret %s/%s holds no readable %s", secret.Namespace, secret.Name, format)
	}
	return nil
}
