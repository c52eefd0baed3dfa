package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// resolved is one credential after it was looked at: the value to use, and what to say about it. Without a source there
// is no value: it was refused and nothing was ever stored.
type resolved struct {
	wanted  wantedCredential
	result  keyapi.CredentialResult
	source  string // names the value without giving it away
	version uint32
	value   func(context.Context) ([]byte, error) // called only when a new set is written
	// identity of the channel that the value speaks for; empty for other credentials.
	identity string
}

// resolveAll looks at every credential; a refused one keeps the value that is in use.
func (s *Server) resolveAll(ctx context.Context, sub *subject, tenant *keystore.TenantKeys, keys *keystore.ObjectKeys, wanted []wantedCredential) ([]resolved, error) {
	var out []resolved
	for _, w := range wanted {
		var r resolved
		var err error
		if w.ref != nil {
			r, err = s.resolveRef(ctx, sub, keys, w)
		} else {
			r = s.resolveSealed(sub, tenant, keys, w)
		}
		if err != nil {
			return nil, err
		}
		if r.source == "" {
			s.keepInUse(sub, keys, &r)
		}
		if r.source != "" && w.name == channelCredential(sub.bot) && !sub.suspended {
			if err := s.holdChannel(ctx, sub, keys, &r); err != nil {
				return nil, err
			}
		} else {
			r.identity = keys.Doc.Credentials[w.name].Identity
		}
		out = append(out, r)
	}
	return out, nil
}

// knowing returns the tenant's keys with every key that the credentials are sealed to, as far as there is one:
// another replica may have made a new one since these were remembered.
func (s *Server) knowing(ctx context.Context, tenant *keystore.TenantKeys, wanted []wantedCredential) (*keystore.TenantKeys, error) {
	for _, w := range wanted {
		if e, err := sealing.Parse(w.sealed); err == nil {
			if _, ok := tenant.Seal[e.KID]; !ok {
				return s.keys.KeysAnew(ctx, tenant)
			}
		}
	}
	return tenant, nil
}

func refused(w wantedCredential, reason, format string, args ...any) resolved {
	return resolved{wanted: w, result: keyapi.CredentialResult{Name: w.name, Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func stored(w wantedCredential, source string, version uint32, value []byte) resolved {
	return resolved{wanted: w, source: source, version: version,
		value:  func(context.Context) ([]byte, error) { return value, nil },
		result: keyapi.CredentialResult{Name: w.name, Reason: v1alpha1.ReasonStored, Version: version, Plaintext: w.ref != nil}}
}

// resolveSealed opens a sealed value. A value that is in use already is not opened again.
func (s *Server) resolveSealed(sub *subject, tenant *keystore.TenantKeys, keys *keystore.ObjectKeys, w wantedCredential) resolved {
	envelope, err := sealing.Parse(w.sealed)
	if err != nil {
		return refused(w, v1alpha1.ReasonMalformed, "not a sealed value: run `kubectl lethe seal` and paste its whole output, which begins with seal.v1 (the value is not repeated here)")
	}
	place := sealing.Place{Realm: tenant.Doc.Realm, Tenant: tenant.Doc.Tenant, Namespace: sub.namespace(), Kind: sub.kind,
		Name: sub.name(), Key: w.name, Destination: w.destination}
	if err := envelope.Check(place); err != nil {
		return refused(w, v1alpha1.ReasonWrongPlace, "%s", err)
	}
	sum := sha256.Sum256([]byte(w.sealed))
	source, version := hex.EncodeToString(sum[:]), envelope.Hint.Version
	before := keys.Doc.Credentials[w.name]
	if before.Source == source && before.Version == version && version >= before.Highest && before.Digest == source {
		r := stored(w, source, version, nil)
		r.value = func(ctx context.Context) ([]byte, error) {
			if v, err := s.valueInUse(ctx, sub, keys, w.name); err == nil {
				return v, nil
			}
			return openSealed(envelope, tenant, place)
		}
		return r
	}
	if i := slices.IndexFunc(tenant.Doc.Destroyed, func(d keystore.DestroyedDoc) bool { return d.KID == envelope.KID }); i >= 0 {
		return refused(w, v1alpha1.ReasonUnknownKey, "sealed to key %s, which was destroyed on %s: seal it again with the Tenant's present key",
			envelope.KID, tenant.Doc.Destroyed[i].At.Format(time.DateOnly))
	}
	if _, ok := tenant.Seal[envelope.KID]; !ok {
		return refused(w, v1alpha1.ReasonUnknownKey, "sealed to key %s, which Tenant %s does not have (it has %s): seal it again with the Tenant's present key",
			envelope.KID, tenant.Doc.Tenant, strings.Join(kids(tenant), ", "))
	}
	value, err := openSealed(envelope, tenant, place)
	if err != nil {
		return refused(w, v1alpha1.ReasonDoesNotOpen, "its place is right, yet it does not open: it was altered, or sealed for another realm than %s; seal it again", tenant.Doc.Realm)
	}
	if version < before.Highest {
		return refused(w, v1alpha1.ReasonRolledBack, "version %d is older than version %d, which was stored before", version, before.Highest)
	}
	if w.envName != "" && !keyapi.CanBeVariable(value) {
		return refused(w, v1alpha1.ReasonNoVariable, "%s", noVariable)
	}
	if version == before.Highest && source != before.Digest {
		return refused(w, v1alpha1.ReasonVersionReused, "version %d was used before, for another sealed value: %s", version, sealAgain(sub, w.name, before.Highest))
	}
	return stored(w, source, version, value)
}

// sealAgain is the command that a person runs.
func sealAgain(sub *subject, credential string, highest uint32) string {
	if sub.store != nil {
		return fmt.Sprintf("run `kubectl lethe seal --store %s/%s --version %d` and put its output into %s", sub.namespace(), sub.name(), highest+1, sub.store.Spec.CredentialField(credential))
	}
	return fmt.Sprintf("run `kubectl lethe seal --bot %s/%s --credential %s --version %d` and put its output into spec.credentials", sub.namespace(), sub.name(), credential, highest+1)
}

func openSealed(e sealing.Envelope, tenant *keystore.TenantKeys, place sealing.Place) ([]byte, error) {
	priv, ok := tenant.Seal[e.KID]
	if !ok {
		return nil, sealing.ErrUnknownKey
	}
	return e.Open(priv, place)
}

func kids(tenant *keystore.TenantKeys) []string {
	var out []string
	for kid := range tenant.Seal {
		out = append(out, kid)
	}
	sort.Strings(out)
	return out
}

// resolveRef reads a value out of a Secret of the object's namespace. Its source is keyed with a key of the object: the
// same value under another label or resourceVersion is the same set, and nobody can try values against it.
func (s *Server) resolveRef(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, w wantedCredential) (resolved, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: w.ref.Name}, &secret)
	if apierrors.IsNotFound(err) {
		return refused(w, v1alpha1.ReasonSecretMissing, "Secret %s does not exist in namespace %s", w.ref.Name, sub.namespace()), nil
	}
	if err != nil {
		return resolved{}, err
	}
	value, ok := secret.Data[w.ref.Key]
	switch {
	case !mayRefer(secret.Type):
		return refused(w, v1alpha1.ReasonForeignSecret, "Secret %s is of type %s, which holds no credential of a bot: name another one", w.ref.Name, secret.Type), nil
	// Before its keys are looked at: which there are is nobody's to find out by way of a bot either.
	case !resources.IsSharedWith(secret.Annotations[v1alpha1.AnnotationCredentialFor], sub.name()):
		return refused(w, v1alpha1.ReasonSecretNotShared, "Secret %s does not say that BotDeployment %s may have what is in it: whoever may write that Secret says so with "+
			"`kubectl annotate secret -n %s %s %s=%s`", w.ref.Name, sub.name(), sub.namespace(), w.ref.Name, v1alpha1.AnnotationCredentialFor, sub.name()), nil
	case !ok:
		return refused(w, v1alpha1.ReasonSecretMissing, "Secret %s has no key %s", w.ref.Name, w.ref.Key), nil
	case len(value) == 0 || len(value) > sealing.MaxPlaintext:
		return refused(w, v1alpha1.ReasonMalformed, "key %s of Secret %s has %d bytes: a credential has 1 to %d", w.ref.Key, w.ref.Name, len(value), sealing.MaxPlaintext), nil
	}
	if w.envName != "" && !keyapi.CanBeVariable(value) {
		return refused(w, v1alpha1.ReasonNoVariable, "%s", noVariable), nil
	}
	return stored(w, keys.Digest.MAC("secretKeyRef", w.name, string(value)), 0, value), nil
}

// mayRefer says whether a bot may name a Secret of this type. Who may write bots, and is given no right on Secrets or
// tokens, must not come by a token, or by all that a Helm release holds, through a bot; and our own hold ciphertext.
func mayRefer(t corev1.SecretType) bool {
	switch t {
	case corev1.SecretTypeServiceAccountToken, corev1.SecretTypeBootstrapToken, "helm.sh/release.v1":
		return false
	}
	return !strings.HasPrefix(string(t), "lethe.dev/")
}

// keepInUse lets a refused credential go on with the value that was stored before: a mistake, or a `git revert`, must
// not stop a bot that runs. A store's password goes on only to the server that it was sealed for.
func (s *Server) keepInUse(sub *subject, keys *keystore.ObjectKeys, r *resolved) {
	before := keys.Doc.Credentials[r.wanted.name]
	if before.Source == "" {
		if r.result.Reason == v1alpha1.ReasonRolledBack {
			r.result.Message += "; " + sealAgain(sub, r.wanted.name, before.Highest)
		}
		return
	}
	if before.Destination != r.wanted.destination.Digest() {
		r.result.Message += "; the value stored before was sealed for another server, so it is not used: seal the value for this one"
		return
	}
	r.source, r.version = before.Source, before.Version
	name := r.wanted.name
	r.value = func(ctx context.Context) ([]byte, error) { return s.valueInUse(ctx, sub, keys, name) }
	r.result.Version = before.Version
	r.result.Message += "; the value stored before goes on being used"
	if r.result.Reason == v1alpha1.ReasonRolledBack {
		r.result.Message += fmt.Sprintf(" (to go back on purpose, seal the old value again with a version of %d or more)", before.Highest+1)
	}
}

// errNotInUse: the value in use cannot be read back.
var errNotInUse = errors.New("the encrypted Secret that held the value is gone")

// valueInUse reads a stored value back: from the newest set that holds it. The newest of all may have been recorded and
// never written, after a crash; the one before it is deleted only when the newest is there.
func (s *Server) valueInUse(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, name string) ([]byte, error) {
	for _, set := range slices.Backward(keys.Doc.Sets) {
		var secret corev1.Secret
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: keys.Doc.SecretOf(set)}, &secret)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		item, _, err := decryptItem(keys, name, secret.Data[name])
		if err == nil && item.Source == keys.Doc.Credentials[name].Source {
			return item.Value, nil
		}
	}
	return nil, errNotInUse
}

// storedItem is the plaintext of one value of an encrypted Secret.
type storedItem struct {
	keyapi.SecretItem
	Source string `json:"source"`
}

// encryptItem makes one value of an encrypted Secret.
func (s *Server) encryptItem(keys *keystore.ObjectKeys, item storedItem, version uint32) ([]byte, error) {
	b, err := json.Marshal(item)
	if err != nil {
		return nil, errors.New("encode a credential")
	}
	defer clear(b)
	text, err := keys.Keys.First().EncryptValue(s.Random, keys.Owner(), item.Name, version, b)
	return []byte(text), err
}

// decryptItem opens one value and returns its version too, which is authenticated with it.
func decryptItem(keys *keystore.ObjectKeys, name string, text []byte) (storedItem, uint32, error) {
	var item storedItem
	key, err := keys.Keys.Encrypted(string(text))
	if err != nil {
		return item, 0, err
	}
	b, version, err := key.DecryptVersioned(keys.Owner(), name, string(text))
	if err != nil {
		return item, 0, err
	}
	defer clear(b)
	if err := json.Unmarshal(b, &item); err != nil || item.Name != name {
		return storedItem{}, 0, sealing.ErrDoesNotOpen
	}
	return item, version, nil
}

// noVariable is said of a value that delivery Env cannot deliver.
const noVariable = "its value holds a single quote, a line break or the character NUL, or is longer than 32768 bytes, and cannot be an environment variable: " +
	"use delivery File, and give the program the file's path"

// maxCredentials is what the values of one object may come to, in bytes. An answer with all of them fits the door
// (maxAnswer), and so does their Secret.
const maxCredentials = 128 << 10

// undeliverable refuses what a new set cannot deliver: a value that was stored for another delivery, or too much
// together. It says whether there was any.
func undeliverable(ctx context.Context, all []resolved) bool {
	found, sum := false, 0
	for i := range all {
		r := &all[i]
		value, err := r.value(ctx)
		if err != nil {
			continue // whoever builds the set says so
		}
		r.value = func(context.Context) ([]byte, error) { return value, nil }
		switch sum += len(value); {
		case r.wanted.envName != "" && !keyapi.CanBeVariable(value):
			r.result.Reason, r.result.Message = v1alpha1.ReasonNoVariable, noVariable
		case sum > maxCredentials:
			r.result.Reason = v1alpha1.ReasonTooLarge
			r.result.Message = fmt.Sprintf("the credentials up to this one come to %d bytes, and those of one object have at most %d together", sum, maxCredentials)
		default:
			continue
		}
		found = true
	}
	return found
}
