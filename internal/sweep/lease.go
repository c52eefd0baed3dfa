package sweep

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/stores"
)

// Leaser gives permission to go on. keyclient.Client is one.
type Leaser interface {
	Lease(ctx context.Context, req keyapi.LeaseRequest, withSecret bool) (keyclient.Lease, error)
	Release(ctx context.Context, planHash string) error
}

const (
	// leaseMargin is what must be left of a lease at a commit beside what the engine says that it takes: a slow disk,
	// and then some.
	leaseMargin = time.Second
	// renewEvery is how often a lease is renewed, renewAgain how soon again when the keyserver did not answer.
	renewEvery = 10 * time.Second
	renewAgain = time.Second
	// firstLeaseWithin bounds waiting for the first lease, for example while another sweep of the store ends.
	firstLeaseWithin = time.Minute
)

// errLeaseLost says that there is no permission to commit any more.
var errLeaseLost = errors.New("the lease was lost")

// keeper keeps a lease alive in the background, and knows at any time how long it lasts.
type keeper struct {
	leaser Leaser
	hash   string
	clock  func() time.Time
	// margin is what must be left of the lease at a commit.
	margin time.Duration
	// account is what the keyserver remembered when the lease began.
	account keyapi.Account
	calls   sync.Mutex // one call at a time: two would be in each other's way at the keyserver

	mu          sync.Mutex
	until       time.Time
	lost        error
	knownDigest string
	news        chan struct{} // closed and replaced whenever until or lost changes

	stop context.CancelFunc
	done chan struct{}
}

// acquire gets the first lease and with it the store's credentials.
func acquire(ctx context.Context, leaser Leaser, hash string, clock func() time.Time, margin time.Duration) (*keeper, stores.Credentials, error) {
	k := &keeper{leaser: leaser, hash: hash, clock: clock, margin: margin, news: make(chan struct{}), done: make(chan struct{})}
	give := clock().Add(firstLeaseWithin)
	for {
		before := clock()
		lease, err := leaser.Lease(ctx, keyapi.LeaseRequest{PlanHash: hash}, true)
		if err == nil {
			with := stores.Credentials{}
			for _, item := range lease.Items {
				if _, twice := with[item.Name]; twice {
					_ = leaser.Release(ctx, hash) // the next sweep need not wait until it is over
					return nil, nil, errors.New("the lease came with two credentials of one name")
				}
				with[item.Name] = item.Value
			}
			k.until, k.account = before.Add(lease.For), lease.Account
			return k, with, nil
		}
		wait := keyclient.RetryAfter(err, renewAgain)
		if !keyclient.IsRetryable(err) || clock().Add(wait).After(give) {
			return nil, nil, err
		}
		if !pause(ctx, wait) {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// keep renews the lease until the context ends. A refusal ends the lease at once and calls lost; silence ends it when
// it runs out.
func (k *keeper) keep(ctx context.Context, lost func(error)) {
	ctx, k.stop = context.WithCancel(ctx)
	go func() {
		defer close(k.done)
		wait := Renewal(k.expires().Sub(k.clock()))
		for pause(ctx, wait) {
			lease, err := k.ask(ctx, keyapi.LeaseRequest{})
			switch {
			case err == nil:
				wait = Renewal(lease.For)
			case ctx.Err() != nil:
				return
			case !keyclient.IsRetryable(err), !k.clock().Before(k.expires()):
				err = fmt.Errorf("%w: %w", errLeaseLost, err)
				k.set(k.expires(), err)
				lost(err)
				return
			default:
				wait = renewAgain
			}
		}
	}()
}

// ask asks for the lease once more.
func (k *keeper) ask(ctx context.Context, req keyapi.LeaseRequest) (keyclient.Lease, error) {
	k.calls.Lock()
	defer k.calls.Unlock()
	before := k.clock()
	call, cancel := context.WithTimeout(ctx, k.expires().Sub(before))
	defer cancel()
	req.PlanHash = k.hash
	lease, err := k.leaser.Lease(call, req, false)
	if err != nil {
		return keyclient.Lease{}, err
	}
	k.mu.Lock()
	k.knownDigest = lease.KnownDigest
	k.mu.Unlock()
	until := before.Add(lease.For)
	if held := k.expires(); held.After(until) {
		until = held // each lease is good by what was proven for it
	}
	k.set(until, nil)
	return lease, nil
}

// digest of who is known, as the keyserver last said.
func (k *keeper) digest() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.knownDigest
}

const (
	// knownTries is how often a list of known tenants that changes while it is read is begun anew.
	knownTries = 3
	// maxKnown is how many identifiers are taken from a keyserver: some 32 MiB, and several times that while the
	// store compares them, of a pod's 256.
	maxKnown = 250_000
	// askAgain is after how long a keyserver is asked once more that did not say who is known.
	askAgain = 30 * time.Second
)

// errKnown says that who is known could not be found out, although the lease goes on.
var errKnown = errors.New("the keyserver did not say who is known")

// errTooManyKnown is an errKnown that asking again does not mend.
var errTooManyKnown = fmt.Errorf("%w: the Tenants have more than %d externalIDs of the store's tenantIDType, which is what a sweep takes; part the store in several, or give fewer Tenants identifiers of that type",
	errKnown, maxKnown)

// known reads all identifiers of known tenants, page by page, and the digest that names them.
func (k *keeper) known(ctx context.Context) ([]string, string, error) {
	for range knownTries {
		ids, digest, err := k.readKnown(ctx)
		if err != nil || digest != "" {
			return ids, digest, err
		}
	}
	return nil, "", fmt.Errorf("%w: the list changed each of %d times that it was read, or is not what its digest names", errKnown, knownTries)
}

// readKnown reads the list once. No digest: it changed meanwhile.
func (k *keeper) readKnown(ctx context.Context) (ids []string, digest string, err error) {
	for {
		lease, err := k.insist(ctx, keyapi.LeaseRequest{KnownFrom: len(ids) + 1})
		switch {
		case err != nil:
			return nil, "", err
		case lease.KnownDigest == "":
			return nil, "", fmt.Errorf("%w: it takes the store for a Dedicated one", errKnown)
		case digest != "" && digest != lease.KnownDigest:
			return nil, "", nil
		case len(ids)+len(lease.Known) > maxKnown:
			return nil, "", errTooManyKnown
		}
		digest, ids = lease.KnownDigest, append(ids, lease.Known...)
		if len(lease.Known) > 0 {
			continue
		}
		if plan.DigestOf(ids) != digest {
			return nil, "", nil
		}
		return ids, digest, nil
	}
}

// tell has the keyserver debit or remember something, and returns when it has: until the lease is lost it is asked
// again.
func (k *keeper) tell(ctx context.Context, req keyapi.LeaseRequest) error {
	_, err := k.insist(ctx, req)
	return err
}

// insist asks for the lease until there is an answer, or it is lost.
func (k *keeper) insist(ctx context.Context, req keyapi.LeaseRequest) (keyclient.Lease, error) {
	for {
		lease, err := k.ask(ctx, req)
		switch {
		case err == nil:
			return lease, nil
		case keyclient.ReasonOf(err) == v1alpha1.ReasonBacklogSpent:
			return lease, err
		case !keyclient.IsRetryable(err), !k.clock().Before(k.expires()):
			return lease, fmt.Errorf("%w: %w", errLeaseLost, err)
		}
		if !pause(ctx, renewAgain) {
			return lease, context.Cause(ctx)
		}
	}
}

// Renewal is when to renew a lease that lasts so long: a third in, and at least every ten seconds.
func Renewal(length time.Duration) time.Duration { return min(renewEvery, max(renewAgain, length/3)) }

func (k *keeper) set(until time.Time, lost error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.lost = until, lost
	close(k.news)
	k.news = make(chan struct{})
}

func (k *keeper) expires() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.until
}

// valid says whether a commit that begins now is covered.
func (k *keeper) valid() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.lost != nil:
		return k.lost
	case k.until.Sub(k.clock()) < k.margin:
		return fmt.Errorf("%w: less than %s of it is left and it was not renewed", errLeaseLost, k.margin)
	}
	return nil
}

// await waits until a commit is covered: a renewal may be under way.
func (k *keeper) await(ctx context.Context) error {
	for {
		k.mu.Lock()
		news, until, lost := k.news, k.until, k.lost
		k.mu.Unlock()
		if lost != nil {
			return lost
		}
		left := until.Sub(k.clock())
		if left >= k.margin {
			return nil
		}
		timer := time.NewTimer(max(left, 0) + time.Second)
		select {
		case <-news:
			timer.Stop()
		case <-timer.C:
			return k.valid()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// release ends the lease, so that the next sweep need not wait for it to run out.
func (k *keeper) release(ctx context.Context) {
	if k.stop != nil {
		k.stop()
		<-k.done
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// It runs out by itself when this does not arrive.
	_ = k.leaser.Release(ctx, k.hash)
}

// pause waits, and says whether the context is still alive then.
func pause(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
