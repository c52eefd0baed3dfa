package keyserver

import (
	"context"
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

// envelope is what lies in a Secret of the keys' namespace: a document, how often it was written, and a MAC over both, over
// the format and over the Secret's name. A tenant's document is authenticated under its own key, an object's under its
// data key, every other one under the KEK.
type envelope struct {
	Format     string          `json:"format"`
	Generation int64           `json:"generation"`
	Document   json.RawMessage `json:"document"`
	MAC        string          `json:"mac"`
}

// Why a document cannot be used.
var (
	errAltered    = errors.New("it was altered, or was not written by this installation's keyserver")
	errUnreadable = errors.New("it cannot be read")
)

// altered names the Secret whose document is not what the keyserver wrote.
func altered(secret *corev1.Secret, what string) error {
	return fmt.Errorf("secret %s/%s: %s: %w", secret.Namespace, secret.Name, what, errAltered)
}

// readEnvelope takes a Secret's envelope apart and believes nothing of it yet. What is not ours, or of a format that this
// version does not know, is an error that says so.
func readEnvelope(secret *corev1.Secret, format string) (envelope, error) {
	var e envelope
	if secret.Type != v1alpha1.SecretTypeWrappedKey {
		return e, fmt.Errorf("secret %s/%s is of type %s, not %s: %w", secret.Namespace, secret.Name, secret.Type, v1alpha1.SecretTypeWrappedKey, errUnreadable)
	}
	if err := json.Unmarshal(secret.Data[documentKey], &e); err != nil {
		return e, fmt.Errorf("secret %s/%s holds no readable %s: %w", secret.Namespace, secret.Name, documentKey, errUnreadable)
	}
	if e.Format != format {
		return e, fmt.Errorf("secret %s/%s is of %s, this version reads %q: %w%s", secret.Namespace, secret.Name, formatName(e.Format), format, errUnreadable, earlier(e.Format))
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

// readDocument decodes a document that is not authenticated. It is good for choosing what to open it with, for listing and
// for deleting; for nothing else.
func readDocument(secret *corev1.Secret, format string, into any) (envelope, error) {
	e, err := readEnvelope(secret, format)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(e.Document, into); err != nil {
		return e, fmt.Errorf("secret %s/%s holds no readable %s: %w", secret.Namespace, secret.Name, format, errUnreadable)
	}
	return e, nil
}

// formatOf is the format of a Secret's document, whatever it is; empty when it cannot be told.
func formatOf(secret *corev1.Secret) string {
	var head envelope
	if err := json.Unmarshal(secret.Data[documentKey], &head); err != nil {
		return ""
	}
	return head.Format
}

// check authenticates the envelope of a Secret.
func (e envelope) check(secret *corev1.Secret, keys sealing.Ring) error {
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
func openRing(above sealing.Ring, keys []keyDoc, purpose sealing.Purpose, ids ...string) (sealing.Ring, error) {
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
	return json.Marshal(envelope{Format: format, Generation: generation, Document: b, MAC: mac})
}

// newDocument makes a Secret of the keys' namespace. The first generation is 1.
func newDocument(namespace, name, tenant, format string, generation int64, keys sealing.Ring, document any) (*corev1.Secret, error) {
	b, err := encode(format, name, generation, keys, document)
	if err != nil {
		return nil, err
	}
	return keySecret(namespace, name, tenant, b), nil
}

func keySecret(namespace, name, tenant string, data []byte) *corev1.Secret {
	labels := map[string]string{
		labelVelero:                 "true",
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
		Data:       map[string][]byte{documentKey: data},
	}
}

// kek are the key-encryption keys: the first one wraps, the others only open. Everything that is wrapped, opened or
// authenticated under one goes through here.
func (o *Options) kek() sealing.Ring {
	if o.ring == nil {
		return append(sealing.Ring{o.KEK}, o.KEKPrevious...)
	}
	return o.ring.get()
}

// updateDocument writes a document anew: the next generation of what was read, and only over exactly that. It returns the
// Secret and its generation.
func (o *Options) updateDocument(ctx context.Context, was *corev1.Secret, format string, keys sealing.Ring, document any) (*corev1.Secret, int64, error) {
	e, err := readEnvelope(was, format)
	if err != nil {
		return nil, 0, err
	}
	b, err := encode(format, was.Name, e.Generation+1, keys, document)
	if err != nil {
		return nil, 0, err
	}
	secret := was.DeepCopy()
	secret.Data = map[string][]byte{documentKey: b}
	if err := o.Client.Update(ctx, secret); err != nil {
		return nil, 0, err
	}
	return secret, e.Generation + 1, nil
}

// openKEKDocument reads a document that is authenticated under the KEK itself. sealing.ErrUnknownKey when that is another one.
func openKEKDocument(secret *corev1.Secret, format string, kek sealing.Ring, into any) (int64, error) {
	e, err := readDocument(secret, format, into)
	if err != nil {
		return 0, err
	}
	if kid, err := sealing.MACKID(e.MAC); err == nil {
		if _, err := kek.Find(kid); err != nil {
			return 0, fmt.Errorf("secret %s/%s needs key-encryption key %s: %w", secret.Namespace, secret.Name, kid, err)
		}
	}
	return e.Generation, e.check(secret, kek)
}

// openTenantDocument reads, opens and authenticates a tenant's keys. sealing.ErrUnknownKey when they are under another KEK.
func openTenantDocument(secret *corev1.Secret, kek sealing.Ring) (*tenantKeys, error) {
	keys := &tenantKeys{secret: secret, seal: map[string]sealing.PrivateKey{}}
	e, err := readDocument(secret, formatTenant, &keys.doc)
	if err != nil {
		return nil, err
	}
	keys.generation = e.Generation
	keys.keys, err = openRing(kek, keys.doc.Keys, sealing.PurposeTenant, keys.ids()...)
	switch {
	case errors.Is(err, sealing.ErrUnknownKey):
		return nil, fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
	case err != nil:
		return nil, altered(secret, "the tenant's key does not open")
	}
	if err := e.check(secret, keys.keys); err != nil {
		return nil, err
	}
	for _, d := range keys.doc.Seal {
		priv, err := openSealKey(keys.keys, d, keys.ids()...)
		if err != nil {
			return nil, altered(secret, "sealing key "+d.KID+" does not open")
		}
		keys.seal[d.KID] = priv
	}
	return keys, nil
}

// openSealKey opens a private key and makes sure that it is the one that its name and its public key say.
func openSealKey(above sealing.Ring, d sealDoc, ids ...string) (sealing.PrivateKey, error) {
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

// openObjectDocument reads, opens and authenticates an object's data keys with its tenant's.
func openObjectDocument(secret *corev1.Secret, tenant *tenantKeys) (*objectKeys, error) {
	keys := &objectKeys{secret: secret}
	e, err := readDocument(secret, formatObject, &keys.doc)
	if err != nil {
		return nil, err
	}
	d := keys.doc
	if d.Realm != tenant.doc.Realm || d.Tenant != tenant.doc.Tenant || d.TenantUID != tenant.doc.UID || objectSecretName(d.UID) != secret.Name {
		return nil, altered(secret, "it names another tenant or object")
	}
	keys.generation = e.Generation
	if keys.keys, err = openRing(tenant.keys, d.Keys, sealing.PurposeData, tenant.ids(d.UID)...); err != nil {
		return nil, altered(secret, "the data key does not open")
	}
	digest, err := openRing(tenant.keys, []keyDoc{d.Digest}, sealing.PurposeDigest, tenant.ids(d.UID)...)
	if err != nil {
		return nil, altered(secret, "the key that names sets does not open")
	}
	keys.digest = digest.First()
	return keys, e.check(secret, keys.keys)
}
