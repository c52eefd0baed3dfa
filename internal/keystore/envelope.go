package keystore

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Envelope is what lies in a Secret of the keys' namespace: a document, how often it was written, and a MAC over
// both, over the format and over the Secret's name. A tenant's document is authenticated under its own key, an
// object's under its data key, every other one under the KEK.
type Envelope struct {
	Format     string          `json:"format"`
	Generation int64           `json:"generation"`
	Document   json.RawMessage `json:"document"`
	MAC        string          `json:"mac"`
}

// Why a document cannot be used.
var (
	ErrAltered    = errors.New("it was altered, or was not written by this installation's keyserver")
	ErrUnreadable = errors.New("it cannot be read")
)

// altered names the Secret whose document is not what the keyserver wrote.
func altered(secret *corev1.Secret, what string) error {
	return fmt.Errorf("secret %s/%s: %s: %w", secret.Namespace, secret.Name, what, ErrAltered)
}

// readEnvelope takes a Secret's envelope apart and believes nothing of it yet. What is not ours, or of a format that
// this version does not know, is an error that says so.
func readEnvelope(secret *corev1.Secret, format string) (Envelope, error) {
	var e Envelope
	if secret.Type != v1alpha1.SecretTypeWrappedKey {
		return e, fmt.Errorf("secret %s/%s is of type %s, not %s: %w", secret.Namespace, secret.Name, secret.Type, v1alpha1.SecretTypeWrappedKey, ErrUnreadable)
	}
	if err := json.Unmarshal(secret.Data[DocumentKey], &e); err != nil {
		return e, fmt.Errorf("secret %s/%s holds no readable %s: %w", secret.Namespace, secret.Name, DocumentKey, ErrUnreadable)
	}
	if e.Format != format {
		return e, fmt.Errorf("secret %s/%s is of %s, this version reads %q: %w%s", secret.Namespace, secret.Name, formatName(e.Format), format, ErrUnreadable, earlier(e.Format))
	}
	return e, nil
}

// aFormat is what a format of ours can look like. Nothing else of a document that is not authenticated is repeated.
var aFormat = regexp.MustCompile(`^lethe\.dev/[a-z-]{1,20}/v[0-9]{1,3}$`)

func formatName(format string) string {
	if !aFormat.MatchString(format) {
		return "no format of Lethe's"
	}
	return fmt.Sprintf("format %q", format)
}

// earlier says what to do about the formats of versions before any release.
func earlier(format string) string {
	if !strings.HasPrefix(format, "lethe.dev/") || !strings.HasSuffix(format, "/v1") {
		return ""
	}
	return "; an unreleased version wrote it, without a MAC: nothing of it is taken over. Delete the Secrets of the keys' namespace, let the keyserver make new keys, and seal every credential again"
}

// ReadDocument decodes a document that is not authenticated. It is good for choosing what to open it with, for
// listing and for deleting; for nothing else.
func ReadDocument(secret *corev1.Secret, format string, into any) (Envelope, error) {
	e, err := readEnvelope(secret, format)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(e.Document, into); err != nil {
		return e, fmt.Errorf("secret %s/%s holds no readable %s: %w", secret.Namespace, secret.Name, format, ErrUnreadable)
	}
	return e, nil
}

// FormatOf is the format of a Secret's document, whatever it is; empty when it cannot be told.
func FormatOf(secret *corev1.Secret) string {
	var head Envelope
	if err := json.Unmarshal(secret.Data[DocumentKey], &head); err != nil {
		return ""
	}
	return head.Format
}

// Check authenticates the envelope of a Secret.
func (e Envelope) Check(secret *corev1.Secret, keys sealing.Ring) error {
	err := keys.CheckDocument(e.MAC, e.Format, secret.Name, e.Generation, e.Document)
	if err == nil && e.Generation < 1 {
		err = sealing.ErrDoesNotOpen
	}
	if err != nil {
		return altered(secret, "its MAC does not fit")
	}
	return nil
}

// openRing opens the keys of a document with the ones above them. The first that does not open makes it fail.
func openRing(above sealing.Ring, keys []KeyDoc, purpose sealing.Purpose, ids ...string) (sealing.Ring, error) {
	var out sealing.Ring
	for _, k := range keys {
		key, err := above.Unwrap(k.Key, purpose, ids...)
		if err != nil {
			return nil, err
		}
		if key.KID() != k.KID {
			return nil, sealing.ErrDoesNotOpen
		}
		out = append(out, key)
	}
	if len(out) == 0 {
		return nil, sealing.ErrDoesNotOpen
	}
	return out, nil
}

// encode makes an envelope.
func encode(format, secret string, generation int64, keys sealing.Ring, document any) ([]byte, error) {
	b, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", secret, err)
	}
	mac, err := keys.DocumentMAC(format, secret, generation, b)
	if err != nil {
		return nil, fmt.Errorf("authenticate %s: %w", secret, err)
	}
	return json.Marshal(Envelope{Format: format, Generation: generation, Document: b, MAC: mac})
}

// NewDocument makes a Secret of the keys' namespace. The first generation is 1.
func NewDocument(namespace, name, tenant, format string, generation int64, keys sealing.Ring, document any) (*corev1.Secret, error) {
	b, err := encode(format, name, generation, keys, document)
	if err != nil {
		return nil, err
	}
	return KeySecret(namespace, name, tenant, b), nil
}

// KeySecret is a Secret of the keys' namespace that holds an encoded document.
func KeySecret(namespace, name, tenant string, data []byte) *corev1.Secret {
	labels := map[string]string{
		LabelVelero:                 "true",
		v1alpha1.LabelManagedBy:     v1alpha1.ManagedByLethe,
		v1alpha1.LabelComponent:     componentKeys,
		"app.kubernetes.io/part-of": "lethe",
	}
	if strings.HasPrefix(name, pendingPrefix) {
		labels[v1alpha1.LabelComponent] = componentPending
	}
	if tenant != "" {
		labels[v1alpha1.LabelTenant] = tenant
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Type:       v1alpha1.SecretTypeWrappedKey,
		Data:       map[string][]byte{DocumentKey: data},
	}
}

// OpenKEKDocument reads a document that is authenticated under the KEK itself. sealing.ErrUnknownKey when that is
// another one.
func OpenKEKDocument(secret *corev1.Secret, format string, kek sealing.Ring, into any) (int64, error) {
	e, err := ReadDocument(secret, format, into)
	if err != nil {
		return 0, err
	}
	if kid, err := sealing.MACKID(e.MAC); err == nil {
		if _, err := kek.Find(kid); err != nil {
			return 0, fmt.Errorf("secret %s/%s needs key-encryption key %s: %w", secret.Namespace, secret.Name, kid, err)
		}
	}
	return e.Generation, e.Check(secret, kek)
}

// OpenTenantDocument reads, opens and authenticates a tenant's keys. sealing.ErrUnknownKey when they are under
// another KEK.
func OpenTenantDocument(secret *corev1.Secret, kek sealing.Ring) (*TenantKeys, error) {
	keys := &TenantKeys{Secret: secret, Seal: map[string]sealing.PrivateKey{}}
	e, err := ReadDocument(secret, FormatTenant, &keys.Doc)
	if err != nil {
		return nil, err
	}
	keys.Generation = e.Generation
	keys.Keys, err = openRing(kek, keys.Doc.Keys, sealing.PurposeTenant, keys.IDs()...)
	switch {
	case errors.Is(err, sealing.ErrUnknownKey):
		return nil, fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
	case err != nil:
		return nil, altered(secret, "the tenant's key does not open")
	}
	if err := e.Check(secret, keys.Keys); err != nil {
		return nil, err
	}
	for _, d := range keys.Doc.Seal {
		priv, err := openSealKey(keys.Keys, d, keys.IDs()...)
		if err != nil {
			return nil, altered(secret, "sealing key "+d.KID+" does not open")
		}
		keys.Seal[d.KID] = priv
	}
	return keys, nil
}

// openSealKey opens a private key and makes sure that it is the one that its name and its public key say.
func openSealKey(above sealing.Ring, d SealDoc, ids ...string) (sealing.PrivateKey, error) {
	kid, seed, err := above.UnwrapBytes(d.Key, sealing.PurposeSeal, ids...)
	if err != nil {
		return sealing.PrivateKey{}, err
	}
	defer clear(seed)
	priv, err := sealing.ParsePrivateKey(seed)
	if err != nil {
		return sealing.PrivateKey{}, err
	}
	if kid != d.KID || priv.Public().KID() != d.KID || priv.Public().String() != d.Public || d.Suite != sealing.Suite {
		return sealing.PrivateKey{}, sealing.ErrDoesNotOpen
	}
	return priv, nil
}

// OpenObjectDocument reads, opens and authenticates an object's data keys with its tenant's.
func OpenObjectDocument(secret *corev1.Secret, tenant *TenantKeys) (*ObjectKeys, error) {
	keys := &ObjectKeys{Secret: secret}
	e, err := ReadDocument(secret, FormatObject, &keys.Doc)
	if err != nil {
		return nil, err
	}
	d := keys.Doc
	if d.Realm != tenant.Doc.Realm || d.Tenant != tenant.Doc.Tenant || d.TenantUID != tenant.Doc.UID || ObjectSecretName(d.UID) != secret.Name {
		return nil, altered(secret, "it names another tenant or object")
	}
	keys.Generation = e.Generation
	if keys.Keys, err = openRing(tenant.Keys, d.Keys, sealing.PurposeData, tenant.IDs(d.UID)...); err != nil {
		return nil, altered(secret, "the data key does not open")
	}
	digest, err := openRing(tenant.Keys, []KeyDoc{d.Digest}, sealing.PurposeDigest, tenant.IDs(d.UID)...)
	if err != nil {
		return nil, altered(secret, "the key that names sets does not open")
	}
	keys.Digest = digest.First()
	return keys, e.Check(secret, keys.Keys)
}
