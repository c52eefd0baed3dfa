package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// KEKMemory is how long a check of the key-encryption key counts.
const KEKMemory = 30 * time.Second

// canaryText is what the canary holds.
const canaryText = "lethe kek canary"

// LoadKEK reads the key-encryption key from a file: 32 random bytes in base64. The error says what to do.
func LoadKEK(path string) (sealing.Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return sealing.Key{}, fmt.Errorf("read the key-encryption key: %w; give its file with --kek-file, on a volume that was filled (`kubectl lethe keys generate-kek` makes one; keep a copy outside the cluster)", err)
	}
	defer clear(b)
	key, err := sealing.ParseKEK(b)
	if err != nil {
		return sealing.Key{}, fmt.Errorf("key-encryption key in %s: %w", path, err)
	}
	return key, nil
}

// KEKUsable refuses every use of the keys while the KEK is not the one they were wrapped with. A wrong KEK must not
// make keys: half of the tenants would then be under another one.
func (s *Store) KEKUsable(ctx context.Context) error {
	s.kekMu.Lock()
	fresh := !s.kekChecked.IsZero() && s.Clock.Since(s.kekChecked) < KEKMemory
	err := s.kekErr
	s.kekMu.Unlock()
	if fresh {
		return err
	}
	return s.CheckKEK(ctx)
}

// CheckKEK opens the canary, and remembers the outcome.
func (s *Store) CheckKEK(ctx context.Context) error {
	err := s.openCanary(ctx)
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	if r := (*keyapi.Refusal)(nil); err != nil && !errors.As(err, &r) {
		// Not being able to ask proves nothing about the KEK: what was known stays known.
		return fmt.Errorf("check the key-encryption key: %w", err)
	}
	s.kekErr, s.kekChecked = err, s.Clock.Now()
	if s.KEKChecked != nil {
		s.KEKChecked(err == nil)
	}
	return err
}

func (s *Store) openCanary(ctx context.Context) error {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: s.KeysNamespace, Name: CanaryName}
	err := s.Client.Get(ctx, key, &secret)
	if apierrors.IsNotFound(err) {
		if err := s.makeCanary(ctx); err != nil {
			return err
		}
		err = s.Client.Get(ctx, key, &secret)
	}
	if err != nil {
		return err
	}
	var doc CanaryDoc
	if _, err := ReadDocument(&secret, FormatCanary, &doc); err != nil {
		return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30, "%s", err)
	}
	if doc.Realm != s.Realm {
		return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30, "the keys in %s are of realm %q, this keyserver runs with --realm %q", s.KeysNamespace, doc.Realm, s.Realm)
	}
	_, text, err := s.KEKs().UnwrapBytes(doc.present().Canary, sealing.PurposeCanary, doc.Realm)
	if err != nil || string(text) != canaryText {
		return s.wrongKEK(doc.present().Canary)
	}
	if _, err := OpenKEKDocument(&secret, FormatCanary, s.KEKs(), &doc); err != nil {
		return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30, "%s: delete that Secret, and it is made again", err)
	}
	s.noteMissingKEK(doc)
	return s.ring.lead(doc.present().KID)
}

// noteMissingKEK remembers that documents may be under an earlier key-encryption key that this process does not hold.
// What is under the others is still answered for, but the process says that it is not ready.
func (s *Store) noteMissingKEK(doc CanaryDoc) {
	missing := ""
	for _, k := range doc.KEKs {
		if _, err := s.KEKs().Find(k.KID); err != nil && k.State == StateRetired && k.Rewrapped.IsZero() {
			missing = k.KID
		}
	}
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	s.kekMissing = missing
}

// HoldsEveryKEK refuses to be called ready while keys may lie under an earlier key-encryption key that is not here.
func (s *Store) HoldsEveryKEK() error {
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	if s.kekMissing == "" {
		return nil
	}
	return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30,
		"keys are still under key-encryption key %s: start the keyserver with its file as --kek-file-previous (kek.previous), until `kubectl lethe keys status` says that nothing is under it", s.kekMissing)
}

func (s *Store) wrongKEK(wrapped string) error {
	want, err := sealing.WrappingKID(wrapped)
	if err != nil {
		want = "unknown"
	}
	return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30,
		"the key-encryption key %s is not the one that the keys in %s were wrapped with (%s): start the keyserver with that one; no key is made with this one",
		strings.Join(s.KEKs().KIDs(), ", "), s.KeysNamespace, want)
}

// makeCanary makes the canary in a namespace that holds no keys yet. Where there are keys, the canary was lost, and the
// KEK must first prove itself on each of them.
func (s *Store) makeCanary(ctx context.Context) error {
	err := s.EachKeySecret(ctx, nil, func(secret *corev1.Secret) error {
		if !strings.HasPrefix(secret.Name, tenantPrefix) {
			return nil
		}
		var doc TenantDoc
		if _, err := ReadDocument(secret, FormatTenant, &doc); err != nil {
			return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30, "%s", err)
		}
		for _, k := range doc.Keys {
			if _, err := s.KEKs().Unwrap(k.Key, sealing.PurposeTenant, s.Realm, doc.Tenant, doc.UID); err != nil {
				return s.wrongKEK(k.Key)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	present, err := s.newKEKDoc(s.KEKs().First(), s.Now())
	if err != nil {
		return err
	}
	secret, err := NewDocument(s.KeysNamespace, CanaryName, "", FormatCanary, 1, s.KEKs(), CanaryDoc{Realm: s.Realm, KEKs: []KEKDoc{present}})
	if err != nil {
		return err
	}
	// Create-only: of two replicas the second finds the first one's canary, and has to open it.
	if err := s.Client.Create(ctx, secret); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// kekRing holds the key-encryption keys of a process, the one that wraps in front. Which one that is stands in the
// canary's document and not in the flags: so all replicas wrap with the same one while new ones take the place of old
// ones.
type kekRing struct {
	mu   sync.Mutex
	ring sealing.Ring
}

func newKEKRing(kek sealing.Key, previous []sealing.Key) (*kekRing, error) {
	ring := append(sealing.Ring{kek}, previous...)
	for i, k := range ring {
		if k.KID() == "" {
			return nil, fmt.Errorf("keyserver: a key-encryption key is empty")
		}
		if slices.Contains(ring[:i].KIDs(), k.KID()) {
			return nil, fmt.Errorf("keyserver: key-encryption key %s is given twice", k.KID())
		}
	}
	return &kekRing{ring: ring}, nil
}

func (r *kekRing) get() sealing.Ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring
}

// lead has a key wrap from now on.
func (r *kekRing) lead(kid string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring, err := r.ring.Leading(kid)
	if err != nil {
		return err
	}
	r.ring = ring
	return nil
}

// ReadCanary reads the canary's document, authenticated, with its Secret.
func (s *Store) ReadCanary(ctx context.Context) (*corev1.Secret, CanaryDoc, error) {
	secret := &corev1.Secret{}
	var doc CanaryDoc
	if err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: CanaryName}, secret); err != nil {
		return nil, doc, err
	}
	_, err := OpenKEKDocument(secret, FormatCanary, s.KEKs(), &doc)
	return secret, doc, err
}

// newKEKDoc is the entry of a key-encryption key that wraps from now on.
func (s *Store) newKEKDoc(kek sealing.Key, since time.Time) (KEKDoc, error) {
	wrapped, err := sealing.Ring{kek}.WrapBytes(s.Random, "canary", []byte(canaryText), sealing.PurposeCanary, s.Realm)
	return KEKDoc{KID: kek.KID(), Canary: wrapped, State: StateActive, Since: since}, err
}

// TurnKEK has the configured key wrap, when somebody asked for it after the present one began to. All replicas must
// hold both by then: `kubectl lethe keys rotate kek` looks whether they do, and one that does not refuses to work
// until it does.
func (s *Store) TurnKEK(ctx context.Context, asked time.Time) error {
	if asked.IsZero() || s.KEKs().First().KID() == s.KEK.KID() {
		return nil
	}
	secret, doc, err := s.ReadCanary(ctx)
	if err != nil {
		return err
	}
	if doc.KEKs[0].KID == s.KEK.KID() || !doc.KEKs[0].Since.Before(asked) {
		return nil
	}
	if i := slices.IndexFunc(doc.KEKs, func(k KEKDoc) bool { return k.KID == s.KEK.KID() }); i >= 0 {
		if doc.KEKs[i].State == StateDestroyed {
			return keyapi.Refuse(v1alpha1.ReasonKEKUnavailable, "somebody said that key-encryption key %s was destroyed, and here it is: make a new one", s.KEK.KID())
		}
		doc.KEKs = slices.Delete(slices.Clone(doc.KEKs), i, i+1)
	}
	since := s.Now()
	if asked.After(since) {
		since = asked.UTC().Truncate(time.Second).Add(time.Second)
	}
	entry, err := s.newKEKDoc(s.KEK, since)
	if err != nil {
		return err
	}
	before := slices.Clone(doc.KEKs)
	before[0].State, before[0].Since, before[0].Rewrapped = StateRetired, s.Now(), time.Time{}
	doc.KEKs = append([]KEKDoc{entry}, before...)
	ring, err := s.KEKs().Leading(s.KEK.KID())
	if err != nil {
		return err
	}
	if _, _, err := s.UpdateDocument(ctx, secret, FormatCanary, ring, doc); err != nil {
		if apierrors.IsConflict(err) {
			return keyapi.Later(v1alpha1.ReasonInternal, 1, "another replica turned at the same time")
		}
		return err
	}
	s.Log.Info("Another key-encryption key wraps from now on", "kek", entry.KID, "before", before[0].KID)
	return s.ring.lead(entry.KID)
}
