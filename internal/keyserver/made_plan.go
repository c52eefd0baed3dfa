package keyserver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
)

// planMemory is how long a compiled plan is remembered at most, although nothing that it was made of has changed.
const planMemory = 5 * time.Minute

// madePlan is the plan of a store, compiled from live objects, and what was worked out from it. Nothing in it is
// changed but hashes.
type madePlan struct {
	plan        plan.Plan
	tenant      *v1alpha1.Tenant
	known       []string
	knownDigest string
	// since is the time up to which everything that was written to Tenants is in it; zero: they were read live.
	since time.Time
	// tenants is what everybody calls all Tenants that it was made of; 0: they were read live, or are no part of it.
	tenants uint64
	// of names what it was made of: objects by resourceVersion, and all Tenants by what everybody calls them.
	of [sha256.Size]byte

	hashes *planHashes
}

// planHashes of one plan, by the time until which it is valid.
type planHashes struct {
	mu   sync.Mutex
	list map[time.Time]string
}

// at is the plan as it is compiled at a time: of all that goes into a plan only its end comes from the clock.
func (m *madePlan) at(now time.Time) plan.Plan {
	p := m.plan
	p.ValidUntil = plan.ValidUntil(p.Store.UID, now)
	return p
}

// as is up to when everything is known, for a call that began to read at a time.
func (m *madePlan) as(now time.Time) time.Time {
	if m.since.IsZero() || now.Before(m.since) {
		return now
	}
	return m.since
}

// accepts is plan.Accepts.
func (m *madePlan) accepts(hash string, now time.Time) (bool, error) {
	m.hashes.mu.Lock()
	defer m.hashes.mu.Unlock()
	for _, until := range plan.Candidates(m.plan.Store.UID, now) {
		got, known := m.hashes.list[until]
		if !known {
			p := m.plan
			p.ValidUntil = until
			var err error
			if got, err = plan.Hash(p); err != nil {
				return false, err
			}
			m.hashes.list[until] = got
		}
		if got == hash {
			return true, nil
		}
	}
	return false, nil
}

// planOf compiles the plan of a store. All that it is made of is read live, but for a sweep that goes on by a Shared
// store: then the Tenants are those that this process follows, where it is proven that it has seen all that was
// written until shortly before now. Where nothing has changed since the plan was compiled the last time, it is the
// one of that time.
func (s *Server) planOf(ctx context.Context, store *v1alpha1.DataStore, goesOn bool, now time.Time) (*madePlan, error) {
	r := &planReader{Reader: s.Client, everybody: s.everybody, follow: goesOn && store.Spec.Tenancy == v1alpha1.TenancyShared}
	in, err := planner.Read(ctx, r, store, now)
	if err != nil {
		return nil, err
	}
	of := madeOf(&in, r.seen)
	isRemembered := store.Spec.Tenancy != v1alpha1.TenancyShared || r.seen.isFresh()
	if isRemembered {
		if made, ok := s.plans.Get(string(store.UID)); ok && made.of == of {
			again := *made
			again.since = r.seen.since
			return &again, nil
		}
	}
	res := plan.Compile(in)
	made := &madePlan{plan: res.Plan, tenant: in.StoreTenant, known: res.Known, knownDigest: plan.DigestOf(res.Known), since: r.seen.since, tenants: r.seen.version, of: of,
		hashes: &planHashes{list: map[time.Time]string{}}}
	if isRemembered {
		s.plans.Put(string(store.UID), made)
	}
	return made, nil
}

// madeOf names what a plan is made of. A change of a status changes it too: more is compiled anew than need be, and
// never less.
func madeOf(in *plan.Input, tenants seenTenants) (of [sha256.Size]byte) {
	h := sha256.New()
	object := func(o client.Object) { fmt.Fprintf(h, "%s %s\n", o.GetUID(), o.GetResourceVersion()) }
	object(in.Store)
	object(in.StoreTenant)
	for i := range in.Policies {
		object(&in.Policies[i])
	}
	fmt.Fprintf(h, "tenants %d", tenants.version)
	h.Sum(of[:0])
	return of
}

// planReader reads live what a plan is made of. Where it follows, the list of all Tenants is the one that everybody
// knows, if that is proven to be fresh.
type planReader struct {
	client.Reader
	everybody *everybody
	follow    bool
	seen      seenTenants // what the list of Tenants was; the zero value: it was read live
}

// Get reads live. The Tenant comes by a list of one, which also says how far the list of all Tenants has come: a mark
// for those who follow it.
func (r *planReader) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if tenant, ok := into.(*v1alpha1.Tenant); ok && r.follow {
		return r.everybody.one(ctx, r.Reader, key, tenant)
	}
	return r.Reader.Get(ctx, key, into, options...)
}

func (r *planReader) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if tenants, ok := into.(*v1alpha1.TenantList); ok && r.follow {
		if r.seen, tenants.Items = r.everybody.all(); r.seen.isFresh() {
			return nil
		}
	}
	return r.Reader.List(ctx, into, options...)
}
