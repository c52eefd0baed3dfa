package keyserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// kekMemory is how long a check of the key-encryption key counts.
const kekMemory = 30 * time.Second

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

// kekUsable refuses every use of the keys while the KEK is not the one they were wrapped with. A wrong KEK must not make
// keys: half of the tenants would then be under another one.
func (s *Server) kekUsable(ctx context.Context) error {
	s.kekMu.Lock()
	fresh := !s.kekChecked.IsZero() && s.Clock.Since(s.kekChecked) < kekMemory
	err := s.kekErr
	s.kekMu.Unlock()
	if fresh {
		return err
	}
	return s.checkKEK(ctx)
}

// checkKEK opens the canary, and remembers the outcome.
func (s *Server) checkKEK(ctx context.Context) error {
	err := s.openCanary(ctx)
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	if r := (*refusal)(nil); err != nil && !errors.As(err, &r) {
		// Not being able to ask proves nothing about the KEK: what was known stays known.
		return fmt.Errorf("check the key-encryption key: %w", err)
	}
	s.kekErr, s.kekChecked = err, s.Clock.Now()
	usable := 0.0
	if err == nil {
		usable = 1
	}
	s.Metrics.kekUsable.Set(usable)
	return err
}

func (s *Server) openCanary(ctx context.Context) error {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: s.KeysNamespace, Name: canaryName}
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
	var doc canaryDoc
	if _, err := readDocument(&secret, formatCanary, &doc); err != nil {
		return later(v1alpha1.ReasonKEKUnavailable, 30, "%s", err)
	}
	if doc.Realm != s.Realm {
		return later(v1alpha1.ReasonKEKUnavailable, 30, "the keys in %s are of realm %q, this keyserver runs with --realm %q", s.KeysNamespace, doc.Realm, s.Realm)
	}
	_, text, err := s.kek().UnwrapBytes(doc.present().Canary, sealing.PurposeCanary, doc.Realm)
	if err != nil || string(text) != canaryText {
		return s.wrongKEK(doc.present().Canary)
	}
	if _, err := openKEKDocument(&secret, formatCanary, s.kek(), &doc); err != nil {
		return later(v1alpha1.ReasonKEKUnavailable, 30, "%s: delete that Secret, and it is made again", err)
	}
	s.noteMissingKEK(doc)
	return s.ring.lead(doc.present().KID)
}

// noteMissingKEK remembers that documents may be under an earlier key-encryption key that this process does not hold. What is
// under the others is still answered for, but the process says that it is not ready.
func (s *Server) noteMissingKEK(doc canaryDoc) {
	missing := ""
	for _, k := range doc.KEKs {
		if _, err := s.kek().Find(k.KID); err != nil && k.State == stateRetired && k.Rewrapped.IsZero() {
			missing = k.KID
		}
	}
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	s.kekMissing = missing
}

// holdsEveryKEK refuses to be called ready while keys may lie under an earlier key-encryption key that is not here.
func (s *Server) holdsEveryKEK() error {
	s.kekMu.Lock()
	defer s.kekMu.Unlock()
	if s.kekMissing == "" {
		return nil
	}
	return later(v1alpha1.ReasonKEKUnavailable, 30,
		"keys are still under key-encryption key %s: start the keyserver with its file as --kek-file-previous (kek.previous), until `kubectl lethe keys status` says that nothing is under it", s.kekMissing)
}

func (s *Server) wrongKEK(wrapped string) error {
	want, err := sealing.WrappingKID(wrapped)
	if err != nil {
		want = "unknown"
	}
	return later(v1alpha1.ReasonKEKUnavailable, 30,
		"the key-encryption key %s is not the one that the keys in %s were wrapped with (%s): start the keyserver with that one; no key is made with this one",
		strings.Join(s.kek().KIDs(), ", "), s.KeysNamespace, want)
}

// makeCanary makes the canary in a namespace that holds no keys yet. Where there are keys, the canary was lost, and the
// KEK must first prove itself on each of them.
func (s *Server) makeCanary(ctx context.Context) error {
	err := s.eachKeySecret(ctx, nil, func(secret *corev1.Secret) error {
		if !strings.HasPrefix(secret.Name, tenantPrefix) {
			return nil
		}
		var doc tenantDoc
		if _, err := readDocument(secret, formatTenant, &doc); err != nil {
			return later(v1alpha1.ReasonKEKUnavailable, 30, "%s", err)
		}
		for _, k := range doc.Keys {
			if _, err := s.kek().Unwrap(k.Key, sealing.PurposeTenant, s.Realm, doc.Tenant, doc.UID); err != nil {
				return s.wrongKEK(k.Key)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	present, err := s.newKEKDoc(s.kek().First(), s.now())
	if err != nil {
		return err
	}
	secret, err := newDocument(s.KeysNamespace, canaryName, "", formatCanary, 1, s.kek(), canaryDoc{Realm: s.Realm, KEKs: []kekDoc{present}})
	if err != nil {
		return err
	}
	// Create-only: of two replicas the second finds the first one's canary, and has to open it.
	if err := s.Client.Create(ctx, secret); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}
