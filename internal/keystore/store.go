package keystore

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/memo"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Options of a Store. All are needed but those that say otherwise.
type Options struct {
	// Client reads live: one without a cache.
	Client client.Client
	// KEK is the key-encryption key that wraps once people have asked for it, and KEKPrevious are those of before.
	KEK         sealing.Key
	KEKPrevious []sealing.Key
	// Realm is bound into everything: a DNS label chosen at installation.
	Realm string
	// KeysNamespace holds the keys.
	KeysNamespace string
	Clock         clock.PassiveClock
	Random        io.Reader
	Log           *slog.Logger
	// KEKChecked, when there is one, is told whether the key-encryption key opens its canary, whenever that was
	// looked at.
	KEKChecked func(usable bool)
}

// Store reads and writes the documents of the keys' namespace, for one process that holds the key-encryption key. It
// may be used by many at once. What it refuses is a *keyapi.Refusal; every other error is the API server's.
type Store struct {
	Options
	ring   *kekRing
	opened *memo.Memo[*TenantKeys] // by UID of the tenant

	uidsMu    sync.Mutex
	uidsFloor int64 // behind every user id that is known to have been given; 0 while that was not looked for

	channelMu sync.Mutex
	channel   sealing.Key // digests channels' identities; the zero Key before it was read

	reportMu  sync.Mutex
	reportKey *ledger.ReportKey // signs statements about reports; nil before it was read

	kekMu      sync.Mutex
	kekChecked time.Time
	kekErr     error
	kekMissing string // an earlier key that is still needed and not here
}

// New makes a store; it asks nothing of the cluster yet.
func New(o Options) (*Store, error) {
	ring, err := newKEKRing(o.KEK, o.KEKPrevious)
	if err != nil {
		return nil, err
	}
	return &Store{Options: o, ring: ring, opened: memo.New[*TenantKeys](o.Clock, KeyMemory)}, nil
}

// ForgetTenant has a tenant's keys read anew by the next who needs them.
func (s *Store) ForgetTenant(uid string) { s.opened.Forget(uid) }

// ForgetAll has every tenant's keys read anew.
func (s *Store) ForgetAll() { s.opened.Flush() }

// SweepMemory takes keys out of memory that nobody has asked for lately, and says of how many tenants it holds some.
func (s *Store) SweepMemory() int {
	s.opened.Sweep()
	return s.opened.Len()
}

// DeleteExactly deletes the Secret that was read, and none that was made under its name since.
func (s *Store) DeleteExactly(ctx context.Context, secret *corev1.Secret) error {
	err := s.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
	if apierrors.IsConflict(err) {
		return keyapi.Later(v1alpha1.ReasonInternal, 1, "Secret %s was made again meanwhile", secret.Name)
	}
	return client.IgnoreNotFound(err)
}

// Now is the clock's time as documents hold it.
func (s *Store) Now() time.Time { return s.Clock.Now().UTC().Truncate(time.Second) }

// KEKs are the key-encryption keys: the first one wraps, the others only open. Everything that is wrapped, opened or
// authenticated under one goes through here.
func (s *Store) KEKs() sealing.Ring {
	return s.ring.get()
}

// UpdateDocument writes a document anew: the next generation of what was read, and only over exactly that. It returns
// the Secret and its generation.
func (s *Store) UpdateDocument(ctx context.Context, was *corev1.Secret, format string, keys sealing.Ring, document any) (*corev1.Secret, int64, error) {
	e, err := readEnvelope(was, format)
	if err != nil {
		return nil, 0, err
	}
	b, err := encode(format, was.Name, e.Generation+1, keys, document)
	if err != nil {
		return nil, 0, err
	}
	secret := was.DeepCopy()
	secret.Data = map[string][]byte{DocumentKey: b}
	if err := s.Client.Update(ctx, secret); err != nil {
		return nil, 0, err
	}
	return secret, e.Generation + 1, nil
}

// EachTenant looks at every Tenant, a page at a time. One may come twice, when a list is begun again.
func (s *Store) EachTenant(ctx context.Context, look func(*v1alpha1.Tenant)) error {
	next, tries := "", 1
	for {
		var page v1alpha1.TenantList
		err := s.Client.List(ctx, &page, client.Limit(listPage), client.Continue(next))
		if apierrors.IsResourceExpired(err) && next != "" && tries < listTries {
			next, tries = "", tries+1
			continue
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			look(&page.Items[i])
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

// listPage is how many objects one answer of the API server holds. All of them are in memory at once, packed and
// unpacked: with 500 of a thousand tenants' documents that is more than everything else that the keyserver keeps.
const listPage = 100

// listTries is how often a list is begun again because its continue token has expired (etcd forgets after some
// minutes).
const listTries = 3

// EachKeySecret looks at every Secret of the keys' namespace once, a page at a time. It is an error when not all
// could be read: a caller that destroys collects first, and does nothing then.
func (s *Store) EachKeySecret(ctx context.Context, labels client.MatchingLabels, look func(*corev1.Secret) error) error {
	next, seen, tries := "", map[types.UID]bool{}, 1
	for {
		var page corev1.SecretList
		opts := []client.ListOption{client.InNamespace(s.KeysNamespace), client.Limit(listPage), client.Continue(next)}
		if len(labels) > 0 {
			opts = append(opts, labels)
		}
		err := s.Client.List(ctx, &page, opts...)
		if apierrors.IsResourceExpired(err) && next != "" && tries < listTries {
			next, tries = "", tries+1
			continue
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			secret := &page.Items[i]
			if seen[secret.UID] {
				continue // of the attempt before
			}
			seen[secret.UID] = true
			if err := look(secret); err != nil {
				return err
			}
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

// isRefusal says whether an error is an answer of ours.
func isRefusal(err error) bool {
	var r *keyapi.Refusal
	return errors.As(err, &r)
}
