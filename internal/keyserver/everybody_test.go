package keyserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// lists counts how often all Tenants are listed.
type lists struct {
	client.Client
	all atomic.Int64
}

func (l *lists) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	if _, ok := into.(*v1alpha1.TenantList); ok && o.FieldSelector == nil {
		l.all.Add(1)
	}
	return l.Client.List(ctx, into, options...)
}

// watches stand in the way of watching Tenants.
type watches struct {
	client.WithWatch
	mu      sync.Mutex
	isMute  bool // watches that are opened tell nothing
	refused error
	open    watch.Interface
	opened  int // or refused, since the last set
}

func (w *watches) set(isMute bool, refused error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isMute, w.refused, w.opened = isMute, refused, 0
	if w.open != nil {
		w.open.Stop()
	}
}

func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened
}

func (w *watches) Watch(ctx context.Context, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	if w.refused != nil {
		return nil, w.refused
	}
	opened, err := w.WithWatch.Watch(ctx, list, options...)
	if err != nil {
		return nil, err
	}
	if w.isMute {
		opened = watch.Filter(opened, func(event watch.Event) (watch.Event, bool) { return event, false })
	}
	w.open = opened
	return opened, nil
}

// sharedSweep is a sweep of a Shared store, whose keyserver follows all Tenants.
type sharedSweep struct {
	*sweepWorld
	lists   *lists
	watches *watches
	idType  string
}

func newSharedSweep(t *testing.T) *sharedSweep {
	t.Helper()
	in := newWorld(t)
	s := &sharedSweep{lists: &lists{Client: in.writes.Client}}
	direct, err := client.NewWithWatch(testEnv.ServiceAccountConfig("lethe-system", "lethe-keyserver"), client.Options{Scheme: testEnv.Scheme})
	in.must(err)
	s.watches = &watches{WithWatch: direct}
	in.writes.Client, in.opts.Watch = s.lists, s.watches
	in.restart()
	in.tenant, in.ns = in.newTenant(v1alpha1.TenantPlatform)
	s.idType = "In" + strings.ReplaceAll(in.ns, "-", "")
	s.sweepWorld = sweepIn(in, t, func(spec *v1alpha1.DataStoreSpec) {
		spec.Tenancy, spec.TenantIDType, spec.Datasets[0].Table.TenantColumn = v1alpha1.TenancyShared, s.idType, "account_id"
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); in.server.WatchTenants(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}

// customer makes a Tenant that says how the store calls it.
func (s *sharedSweep) customer(name string, ids ...string) *v1alpha1.Tenant {
	s.Helper()
	c := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name + s.ns}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: name + s.ns}}}}
	for _, id := range ids {
		c.Spec.ExternalIDs = append(c.Spec.ExternalIDs, v1alpha1.ExternalID{Type: s.idType, Value: id})
	}
	s.must(testEnv.Client.Create(s.Context(), c))
	return c
}

// untilFollowed has the lease of a pod granted, on what is read for it, until that reads no list of all Tenants any
// more. The token is the one that it was granted by then.
func (s *sharedSweep) untilFollowed(pod *corev1.Pod) (token string, resp keyapi.LeaseResponse) {
	s.Helper()
	s.eventuallyWithin(30*time.Second, func() bool {
		before := s.lists.all.Load()
		token, resp = s.podToken(pod), keyapi.LeaseResponse{}
		s.granted(s.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: s.hash}, &resp))
		return s.lists.all.Load() == before
	})
	return token, resp
}

// A sweep of a Shared store that goes on has not all Tenants read, and ends all the same when one of them restrains it.
func TestARenewalDoesNotReadAllTenants(t *testing.T) {
	w := newSharedSweep(t)
	w.customer("one-", "a-1")
	token, first := w.untilFollowed(w.sweep("chat-sweep-1"))

	// A customer that comes stops nothing, and is known in the end.
	w.customer("two-", "a-2")
	w.eventuallyWithin(30*time.Second, func() bool {
		before := w.lists.all.Load()
		var resp keyapi.LeaseResponse
		w.granted(w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash, KnownFrom: 1}, &resp))
		return w.lists.all.Load() == before && resp.KnownDigest != first.KnownDigest && len(resp.Known) == 2
	})

	// Whose the rows are is disputed.
	w.customer("three-", "a-1")
	w.eventuallyWithin(leaseSeconds*time.Second, func() bool {
		before := w.lists.all.Load()
		e := w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash}, nil)
		return e != nil && e.Reason == v1alpha1.ReasonPlanChanged && w.lists.all.Load() == before
	})
}

// A watch sets a mark itself before the bookmark that proves it comes: what sweeps ask may rest on what was read
// before, and sets none.
func TestAWatchProvesItself(t *testing.T) {
	w := newSharedSweep(t)
	w.untilFollowed(w.sweep("chat-sweep-1"))
	later := w.clock.Now().Add(mostStale / 2)
	w.clock.SetTime(later)
	w.eventuallyWithin(4*watchFor, func() bool {
		w.server.everybody.mu.Lock()
		defer w.server.everybody.mu.Unlock()
		return !w.server.everybody.proven.Before(later)
	})
}

// What is not a Tenant is read live whenever it is read, also while Tenants are followed.
func TestARenewalReadsTheRestLive(t *testing.T) {
	w := newSharedSweep(t)
	pod := w.sweep("chat-sweep-1")
	w.untilFollowed(pod)
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Spec.Brake.MaxPercentOfTable--
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	w.store.Spec.Brake.MaxPercentOfTable++
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.untilFollowed(pod)

	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	w.tenant.Status.Namespaces = nil
	w.must(testEnv.Client.Status().Update(t.Context(), w.tenant))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
}

// A watch that has fallen silent is believed for some seconds only, for which the lease is the shorter.
func TestAStaleWatchIsNotTrusted(t *testing.T) {
	for name, stale := range map[string]func(*sharedSweep){
		"it tells nothing": func(w *sharedSweep) { w.watches.set(true, nil) },
		"it is refused":    func(w *sharedSweep) { w.watches.set(false, errors.New("no watch today")) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSharedSweep(t)
			w.customer("one-", "a-1")
			token, _ := w.untilFollowed(w.sweep("chat-sweep-1"))
			stale(w)
			began := w.clock.Now()
			w.eventually(func() bool { return w.watches.count() > 0 })
			w.customer("two-", "a-1")
			w.clock.SetTime(began.Add(mostStale / 2))
			var resp keyapi.LeaseResponse
			if e := w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash}, &resp); e == nil && resp.Expires.After(began.Add(leaseSeconds*time.Second)) {
				t.Errorf("what was written at %s is not known, and the lease goes until %s", began, resp.Expires)
			}
			w.clock.SetTime(w.clock.Now().Add(mostStale + time.Second))
			before := w.lists.all.Load()
			w.wantRefusal(w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash}, nil), v1alpha1.ReasonPlanChanged)
			if w.lists.all.Load() == before {
				t.Error("it was refused by what was not read")
			}
		})
	}
}

// What is believed of a watch, without an API server.
func TestWhatProvesThatTenantsAreKnown(t *testing.T) {
	begin := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	now := clocktesting.NewFakePassiveClock(begin)
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	tenant := func(name, version string, ids ...string) *v1alpha1.Tenant {
		out := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}}
		for _, id := range ids {
			out.Spec.ExternalIDs = append(out.Spec.ExternalIDs, v1alpha1.ExternalID{Type: "AccountID", Value: id})
		}
		return out
	}
	e := newEverybody(&watches{}, now)
	e.isLoaded, e.tenants, e.version, e.position = true, map[string]*v1alpha1.Tenant{}, 1, 100
	for i, step := range []struct {
		what  string
		do    func()
		since time.Time // zero: nothing is proven
		names string
	}{
		{"nothing says how far the list had come", func() {}, time.Time{}, ""},
		{"a mark that the watch has not reached", func() { now.SetTime(at(1)); e.mark(at(1), "105") }, time.Time{}, ""},
		{"an event before it", func() { e.take(watch.Added, tenant("b", "104", "1")) }, time.Time{}, ""},
		{"a bookmark at it", func() { e.take(watch.Bookmark, tenant("", "105")) }, at(1), "b"},
		{"a later mark", func() { now.SetTime(at(3)); e.mark(at(2), "110"); e.mark(at(3), "112") }, at(1), "b"},
		{"an event between two marks", func() { e.take(watch.Added, tenant("a", "111")) }, at(2), "ab"},
		{"a bookmark of before proves nothing new", func() { e.take(watch.Bookmark, tenant("", "90")) }, at(2), "ab"},
		{"a version that is no number", func() { e.mark(at(3), "abc"); e.take(watch.Bookmark, tenant("", "zzz")) }, at(2), "ab"},
		{"the last mark is reached", func() { e.take(watch.Deleted, tenant("b", "112")) }, at(3), "a"},
		{"the proof is old", func() { now.SetTime(at(3).Add(mostStale + 1)) }, time.Time{}, ""},
		{"a clock that went back", func() { now.SetTime(at(2)) }, time.Time{}, ""},
		{"all is forgotten", func() { now.SetTime(at(3)); e.forget() }, time.Time{}, ""},
	} {
		step.do()
		seen, list := e.all()
		names := ""
		for i := range list {
			names += list[i].Name
		}
		if seen.isFresh() == step.since.IsZero() || !seen.since.Equal(step.since) || names != step.names {
			t.Errorf("step %d, %s: %+v, %q", i, step.what, seen, names)
		}
	}
}

// Only what a plan is made of makes another plan of everybody: a status does not.
func TestAStatusMakesNoOtherPlan(t *testing.T) {
	e := newEverybody(&watches{}, clocktesting.NewFakePassiveClock(time.Now()))
	e.tenants = map[string]*v1alpha1.Tenant{}
	versions := map[uint64]bool{}
	for i, change := range []struct {
		do  func(*v1alpha1.Tenant)
		new bool
	}{
		{func(*v1alpha1.Tenant) {}, true},
		{func(t *v1alpha1.Tenant) { t.Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: "n"}} }, false},
		{func(t *v1alpha1.Tenant) { t.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}} }, false},
		{func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "A", Value: "1"}} }, true},
		{func(t *v1alpha1.Tenant) { t.UID = "another" }, true},
		{func(t *v1alpha1.Tenant) { now := metav1.Now(); t.DeletionTimestamp = &now }, true},
	} {
		object := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t", ResourceVersion: fmt.Sprint(10 + i)}}
		if known := e.tenants["t"]; known != nil {
			object = known.DeepCopy()
			object.ResourceVersion = fmt.Sprint(10 + i)
		}
		change.do(object)
		e.take(watch.Modified, object)
		if versions[e.version] == change.new {
			t.Errorf("change %d: version %d, of %v", i, e.version, versions)
		}
		versions[e.version] = true
	}
}
