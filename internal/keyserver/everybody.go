package keyserver

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	// mostStale is how old the proof may be that all changes of Tenants were seen. A lease ends 30 seconds after the
	// proof.
	mostStale = 20 * time.Second
	// followFor is how long Tenants are followed after a sweep last asked.
	followFor = 5 * time.Minute
	// watchFor is how long one watch lasts. The API server says how far it has come two seconds before the end.
	watchFor = 10 * time.Second
	// markAfter is when, in a watch, a mark is set that the end of it proves: so soon before that the proof is new, and
	// soon enough for the call.
	markAfter = 7 * time.Second
	// watchAgain is how soon again after a failure.
	watchAgain = time.Second
	// tenantsPage is how many Tenants are read at a time.
	tenantsPage = 100
	// maxMarks bounds what is kept while no proof comes.
	maxMarks = 256
)

// everybody is what this process knows of all Tenants by a watch, while sweeps of Shared stores go on. A watch may be
// behind, or end unseen, so that what it knows is never believed by itself. The proof: a list that the API server
// makes consistent says by its resourceVersion how far the list of Tenants has come at that time, which is a mark;
// once the watch has come as far, by an event or by a bookmark, all that was written before the mark is known.
type everybody struct {
	client client.WithWatch // nil: nobody is followed
	clock  clock.PassiveClock
	wake   chan struct{}

	mu       sync.Mutex
	asked    time.Time // when a sweep last wanted to know
	isLoaded bool
	tenants  map[string]*v1alpha1.Tenant // by name
	list     []v1alpha1.Tenant           // the same, sorted; nil: to be made anew
	version  uint64                      // another one whenever a plan might be another one
	position uint64                      // the resourceVersion up to which all changes are known
	marks    []mark                      // in the order of time
	named    string                      // a Tenant that was read by a list of one
	proven   time.Time                   // all that was written before is known
}

// mark says that everything that was written to Tenants before a time has a resourceVersion of at most position.
type mark struct {
	at       time.Time
	position uint64
}

// seenTenants is what a list of all Tenants was.
type seenTenants struct {
	version uint64    // 0: it was read live
	since   time.Time // all that was written before is in it
}

func (s seenTenants) isFresh() bool { return s.version != 0 }

func newEverybody(c client.WithWatch, now clock.PassiveClock) *everybody {
	return &everybody{client: c, clock: now, wake: make(chan struct{}, 1)}
}

// all are all Tenants, which nobody changes, unless it is not proven that they are: then they are not handed out.
// They are followed from now on, in any case.
func (e *everybody) all() (seenTenants, []v1alpha1.Tenant) {
	if e.client == nil {
		return seenTenants{}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	e.asked = now
	select {
	case e.wake <- struct{}{}:
	default:
	}
	if !e.isLoaded || e.proven.IsZero() || now.Sub(e.proven) > mostStale || now.Before(e.proven) {
		return seenTenants{}, nil
	}
	if e.list == nil {
		e.list = make([]v1alpha1.Tenant, 0, len(e.tenants))
		for _, t := range e.tenants {
			e.list = append(e.list, *t)
		}
		// As the API server lists them: what is said of them comes in their order.
		slices.SortFunc(e.list, func(a, b v1alpha1.Tenant) int { return strings.Compare(a.Name, b.Name) })
	}
	return seenTenants{version: e.version, since: e.proven}, e.list
}

// one reads one Tenant live, by a list, and takes that list's resourceVersion for a mark.
func (e *everybody) one(ctx context.Context, r client.Reader, key client.ObjectKey, into *v1alpha1.Tenant) error {
	at := e.clock.Now()
	var list v1alpha1.TenantList
	if err := r.List(ctx, &list, client.MatchingFields{metav1.ObjectNameField: key.Name}); err != nil {
		return err
	}
	e.mark(at, list.ResourceVersion)
	e.mu.Lock()
	e.named = key.Name
	e.mu.Unlock()
	for i := range list.Items {
		if list.Items[i].Name == key.Name {
			list.Items[i].DeepCopyInto(into)
			return nil
		}
	}
	return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("tenants").GroupResource(), key.Name)
}

// mark notes how far the list of Tenants had come after a time. A resourceVersion that is no number proves nothing.
func (e *everybody) mark(at time.Time, resourceVersion string) {
	position, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil || position == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.marks) >= maxMarks {
		e.marks = slices.Delete(e.marks, 0, len(e.marks)/2)
	}
	e.marks = append(e.marks, mark{at, position})
	e.prove()
}

// prove finds the last mark that was reached. Called with the lock held.
func (e *everybody) prove() {
	if !e.isLoaded {
		return
	}
	e.marks = slices.DeleteFunc(e.marks, func(m mark) bool {
		if m.position > e.position {
			return false
		}
		if m.at.After(e.proven) {
			e.proven = m.at
		}
		return true
	})
}

// reach is called with the lock held, after all changes up to a resourceVersion were taken in.
func (e *everybody) reach(resourceVersion string) {
	if position, err := strconv.ParseUint(resourceVersion, 10, 64); err == nil && position > e.position {
		e.position = position
		e.prove()
	}
}

// WatchTenants follows all Tenants while sweeps of Shared stores go on, until the context ends.
func (s *Server) WatchTenants(ctx context.Context) {
	e := s.everybody
	if e.client == nil {
		return
	}
	for ctx.Err() == nil {
		if !e.isWanted() {
			e.forget()
			select {
			case <-ctx.Done():
			case <-e.wake:
			}
			continue
		}
		begun := e.clock.Now()
		err := e.follow(ctx, s.Log)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("Tenants are not followed: leases of Shared stores read all of them", "cause", err)
		}
		if err != nil || e.clock.Since(begun) < watchAgain { // a watch that ends at once is none to be begun at once
			again := time.NewTimer(watchAgain)
			select {
			case <-ctx.Done():
			case <-again.C:
			}
			again.Stop()
		}
	}
}

func (e *everybody) isWanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.asked.IsZero() && e.clock.Since(e.asked) < followFor
}

// forget lets go of all that is known. The version stays: it names nothing twice.
func (e *everybody) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isLoaded, e.tenants, e.list, e.marks, e.proven, e.position = false, nil, nil, nil, time.Time{}, 0
}

// follow reads all Tenants if they are not known, and watches them for some seconds.
func (e *everybody) follow(ctx context.Context, log *slog.Logger) error {
	e.mu.Lock()
	isLoaded, from := e.isLoaded, e.position
	e.mu.Unlock()
	if !isLoaded {
		var err error
		if from, err = e.load(ctx); err != nil {
			return err
		}
	}
	// Longer than the API server is asked for: a connection may be dead.
	ctx, cancel := context.WithTimeout(ctx, watchFor+watchFor/2)
	defer cancel()
	seconds := int64(watchFor / time.Second)
	w, err := e.client.Watch(ctx, &v1alpha1.TenantList{}, &client.ListOptions{Raw: &metav1.ListOptions{
		ResourceVersion: strconv.FormatUint(from, 10), AllowWatchBookmarks: true, TimeoutSeconds: &seconds}})
	if err != nil {
		return e.failed(err)
	}
	defer w.Stop()
	markNow := time.NewTimer(markAfter)
	defer markNow.Stop()
	for {
		var event watch.Event
		select {
		case <-markNow.C:
			e.markAgain(ctx)
			continue
		case next, isOpen := <-w.ResultChan():
			if !isOpen {
				return nil
			}
			event = next
		}
		if event.Type == watch.Error {
			return e.failed(apierrors.FromObject(event.Object))
		}
		tenant, ok := event.Object.(*v1alpha1.Tenant)
		if !ok {
			log.Warn("A watch of Tenants tells of something else")
			e.forget()
			return nil
		}
		e.take(event.Type, tenant)
	}
}

// markAgain sets a mark although no sweep has asked: what sweeps ask soon may rest on what was read before. Where it
// fails there is no new proof, and nothing else.
func (e *everybody) markAgain(ctx context.Context) {
	e.mu.Lock()
	key := client.ObjectKey{Name: e.named}
	e.mu.Unlock()
	if key.Name != "" {
		_ = e.one(ctx, e.client, key, &v1alpha1.Tenant{})
	}
}

// failed begins anew where the API server no longer knows what came after the last change that was seen. After any
// other failure the watch goes on from there.
func (e *everybody) failed(err error) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		e.forget()
	}
	return err
}

// load reads all Tenants, as they were at one time.
func (e *everybody) load(ctx context.Context) (from uint64, err error) {
	at := e.clock.Now()
	tenants, next, version := map[string]*v1alpha1.Tenant{}, "", ""
	for {
		var page v1alpha1.TenantList
		if err := e.client.List(ctx, &page, client.Limit(tenantsPage), client.Continue(next)); err != nil {
			return 0, err
		}
		if version == "" {
			version = page.ResourceVersion
		} else if page.ResourceVersion != version {
			return 0, apierrors.NewResourceExpired("the pages of the list are of several times")
		}
		for i := range page.Items {
			tenants[page.Items[i].Name] = forPlans(&page.Items[i])
		}
		if next = page.Continue; next == "" {
			break
		}
	}
	if from, err = strconv.ParseUint(version, 10, 64); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isLoaded, e.tenants, e.list, e.position = true, tenants, nil, from
	e.version++
	e.marks = append(e.marks, mark{at, from})
	e.prove()
	return from, nil
}

// take takes in what a watch tells.
func (e *everybody) take(kind watch.EventType, tenant *v1alpha1.Tenant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch known := e.tenants[tenant.Name]; kind {
	case watch.Deleted:
		delete(e.tenants, tenant.Name)
		e.version++
		e.list = nil
	case watch.Added, watch.Modified:
		if now := forPlans(tenant); known == nil || !equality.Semantic.DeepEqual(known, now) {
			e.tenants[tenant.Name] = now
			e.version++
			e.list = nil
		}
	}
	e.reach(tenant.ResourceVersion)
}

// forPlans is a Tenant without what no plan is made of: its status, and metadata that changes with it.
func forPlans(t *v1alpha1.Tenant) *v1alpha1.Tenant {
	return &v1alpha1.Tenant{Spec: t.Spec, ObjectMeta: metav1.ObjectMeta{Name: t.Name, UID: t.UID, Labels: t.Labels, Generation: t.Generation,
		CreationTimestamp: t.CreationTimestamp, DeletionTimestamp: t.DeletionTimestamp}}
}
