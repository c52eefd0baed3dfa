package keyserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// countedCalls counts what the API server is asked.
type countedCalls struct {
	client.Client
	mu   sync.Mutex
	list []string
}

func (c *countedCalls) note(verb string, what any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf("%s %T", verb, what))
}

// take is what was asked since it was taken the last time.
func (c *countedCalls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

func (c *countedCalls) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	c.note("get", into)
	return c.Client.Get(ctx, key, into, options...)
}

func (c *countedCalls) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	c.note("list", into)
	return c.Client.List(ctx, into, options...)
}

func (c *countedCalls) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	c.note("create", o)
	return c.Client.Create(ctx, o, options...)
}

func (c *countedCalls) Update(ctx context.Context, o client.Object, options ...client.UpdateOption) error {
	c.note("update", o)
	return c.Client.Update(ctx, o, options...)
}

// standingSweep is a sweep of a Dedicated store that goes on, whose keyserver's calls are counted.
type standingSweep struct {
	*sweepWorld
	calls *countedCalls
	pod   *corev1.Pod
	token string
	began time.Time
}

func newStandingSweep(t *testing.T) *standingSweep {
	t.Helper()
	in := newWorld(t)
	s := &standingSweep{calls: &countedCalls{Client: in.writes.Client}}
	in.writes.Client = s.calls
	s.sweepWorld = sweepIn(in, t)
	s.store.Labels = map[string]string{"of": s.ns}
	s.must(testEnv.Client.Update(t.Context(), s.store))
	s.pod = s.sweep("chat-sweep-1")
	s.token = s.podToken(s.pod)
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	s.must(err)
	s.granted(s.call(keyapi.PathLease, s.token, keyapi.LeaseRequest{PlanHash: s.hash, PublicKey: key.Public().String()}, nil))
	s.began = s.clock.Now()
	s.calls.take()
	return s
}

// ask asks for the lease some time after it began, and says what the API server was asked for that.
func (s *standingSweep) ask(after time.Duration, req keyapi.LeaseRequest) (keyapi.LeaseResponse, []string, *keyapi.Error) {
	s.Helper()
	s.clock.SetTime(s.began.Add(after))
	var resp keyapi.LeaseResponse
	if req.PlanHash == "" {
		req.PlanHash = s.hash
	}
	s.calls.take()
	refused := s.call(keyapi.PathLease, s.token, req, &resp)
	return resp, s.calls.take(), refused
}

const leaseWritten = "update *v1.Lease"

var aPoint = keyapi.LeaseRequest{Seen: &keyapi.Point{Of: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7"}, StorePoint: v1alpha1.StorePoint{Kind: "Counted", Value: "9"}}}

// TestWhatASweepAsksSoonRestsOnWhatWasRead: within 15 seconds a renewal asks nobody, what it tells is one write, and
// neither makes the lease longer; after that all is read, but for the Lease, which this process wrote last.
func TestWhatASweepAsksSoonRestsOnWhatWasRead(t *testing.T) {
	w := newStandingSweep(t)
	end := w.began.Add(leaseSeconds * time.Second)
	for _, step := range []struct {
		after time.Duration
		req   keyapi.LeaseRequest
		calls []string
	}{
		{10 * time.Second, keyapi.LeaseRequest{}, nil},
		{10 * time.Second, keyapi.LeaseRequest{KnownFrom: 1}, nil},
		{11 * time.Second, aPoint, []string{leaseWritten}},
		{restFor, aPoint, []string{leaseWritten}},
	} {
		resp, calls, e := w.ask(step.after, step.req)
		w.granted(e)
		if !slices.Equal(calls, step.calls) {
			t.Errorf("after %s %+v asks %q", step.after, step.req, calls)
		}
		if !resp.Expires.Equal(end) || resp.Seconds != int((leaseSeconds*time.Second-step.after)/time.Second) {
			t.Errorf("after %s the lease goes until %s, for %d seconds; it was granted until %s", step.after, resp.Expires, resp.Seconds, end)
		}
	}
	after := restFor + time.Second
	resp, calls, e := w.ask(after, keyapi.LeaseRequest{})
	w.granted(e)
	if !resp.Expires.Equal(w.clock.Now().Add(leaseSeconds * time.Second)) {
		t.Errorf("all was read, and the lease goes until %s", resp.Expires)
	}
	want := []string{"create *v1.TokenReview", "get *unstructured.Unstructured", "get *unstructured.Unstructured", "get *v1.CronJob", "get *v1alpha1.DataStore",
		"get *v1.Namespace", "get *v1alpha1.Tenant", "list *v1alpha1.DataRetentionPolicyList", leaseWritten}
	if !slices.Equal(calls, want) {
		t.Errorf("it asked %q", calls)
	}
	if _, calls, e = w.ask(after+10*time.Second, keyapi.LeaseRequest{}); e != nil || len(calls) > 0 {
		t.Errorf("ten seconds later it asks %q: %+v", calls, e)
	}
}

// TestEveryChangeEndsALease: whatever a lease rests on, its change ends the sweep within 30 seconds: no lease goes on
// for longer, and the next time that all is read there is none.
func TestEveryChangeEndsALease(t *testing.T) {
	yes := true
	for name, change := range map[string]func(*standingSweep){
		"the pod goes": func(w *standingSweep) { w.must(w.cluster.Delete(w.Context(), w.pod)) },
		"the pod is on its way out": func(w *standingSweep) {
			w.pod.Finalizers = []string{"lethe.example/stays"}
			w.must(w.cluster.Update(w.Context(), w.pod))
			w.must(w.cluster.Delete(w.Context(), w.pod))
			w.Cleanup(func() {
				w.pod.Finalizers = nil
				patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
				if err := w.cluster.Patch(context.WithoutCancel(w.Context()), w.pod, patch); err != nil {
					w.Error(err)
				}
			})
		},
		"the pod gets another image": func(w *standingSweep) {
			w.pod.Spec.Containers[0].Image = "evil.example/evil:1"
			w.must(w.cluster.Update(w.Context(), w.pod))
		},
		"its Job is suspended": func(w *standingSweep) {
			job := &batchv1.Job{}
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.ns, Name: "chat-sweep-1"}, job))
			job.Spec.Suspend = &yes
			w.must(w.cluster.Update(w.Context(), job))
		},
		"its CronJob is suspended": func(w *standingSweep) {
			w.cron.Spec.Suspend = &yes
			w.must(w.cluster.Update(w.Context(), w.cron))
		},
		"the store is edited": func(w *standingSweep) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.store), w.store))
			w.store.Spec.Brake.MaxPercentOfTable--
			w.must(testEnv.Client.Update(w.Context(), w.store))
		},
		"the token is good no more": func(w *standingSweep) {
			w.writes.reviewed = func(review *authenticationv1.TokenReview) { review.Status = authenticationv1.TokenReviewStatus{} }
		},
		"the store is deleted": func(w *standingSweep) { w.must(testEnv.Client.Delete(w.Context(), w.store)) },
		"a policy governs the store": func(w *standingSweep) {
			days := int32(90)
			dataset := w.store.Spec.Datasets[0]
			policy := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "only-" + w.ns}, Spec: v1alpha1.DataRetentionPolicySpec{
				StoreSelector: metav1.LabelSelector{MatchLabels: w.store.Labels},
				Rules:         []v1alpha1.RetentionRule{{Name: "all", DataClass: dataset.DataClass, RetainFor: &v1alpha1.Period{Days: &days}}}}}
			w.must(testEnv.Client.Create(w.Context(), policy))
			w.Cleanup(func() { _ = testEnv.Client.Delete(context.WithoutCancel(w.Context()), policy) })
		},
		"the Tenant has isolated nothing": func(w *standingSweep) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
			w.tenant.Status.Namespaces = nil
			w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
		},
		"the namespace is another's": func(w *standingSweep) {
			ns := &corev1.Namespace{}
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Name: w.ns}, ns))
			ns.Labels[v1alpha1.LabelTenant] = "nobody"
			w.must(testEnv.Client.Update(w.Context(), ns))
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			w := newStandingSweep(t)
			change(w)
			for _, after := range []time.Duration{time.Second, restFor} {
				if resp, _, e := w.ask(after, keyapi.LeaseRequest{}); e == nil && resp.Expires.After(w.began.Add(leaseSeconds*time.Second)) {
					t.Errorf("it had changed at %s, and the lease goes until %s", w.began, resp.Expires)
				}
			}
			if _, _, e := w.ask(restFor+time.Second, keyapi.LeaseRequest{}); e == nil || e.RetryAfter > 0 {
				t.Errorf("after all was read again: %+v", e)
			}
			// What was refused is granted by nothing of before.
			if _, calls, e := w.ask(restFor, keyapi.LeaseRequest{}); e == nil || len(calls) == 0 {
				t.Errorf("refused, and granted then: asked %q, %+v", calls, e)
			}
		})
	}
}

// skewed is a time whose wall clock was moved, and whose monotonic reading was not, as time.Time has both:
// src/time/time.go.
func skewed(t time.Time, wall time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(int64(wall/time.Second)) << 30
	return t
}

// TestAClockThatIsMoved: whichever way a clock is moved after all was read, nothing rests on that any more, and no
// lease that is answered is longer than what is left of thirty seconds.
func TestAClockThatIsMoved(t *testing.T) {
	began := time.Now()
	store, made := &v1alpha1.DataStore{}, &madePlan{}
	for name, tc := range map[string]struct {
		now     time.Time
		isFresh bool
		seconds int
	}{
		"not moved":            {began.Add(10 * time.Second), true, 20},
		"an hour back":         {skewed(began.Add(10*time.Second), -time.Hour), false, 20},
		"an hour ahead":        {skewed(began.Add(10*time.Second), time.Hour), false, 0},
		"a machine that stood": {skewed(began.Add(time.Second), 20*time.Second), false, 9},
		"too late":             {began.Add(16 * time.Second), false, 14},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			if got := (&standing{at: began}).isFresh(tc.now); got != tc.isFresh {
				t.Errorf("fresh: %t", got)
			}
			resp := leaseFor(store, made, &keyapi.LeaseRequest{}, began, tc.now)
			if resp.Seconds != tc.seconds || resp.Expires.Sub(tc.now.Round(0)) > keyapi.LeaseSeconds*time.Second {
				t.Errorf("%d seconds, until %s, at %s", resp.Seconds, resp.Expires, tc.now)
			}
		})
	}
}

// TestNothingElseRestsOnIt: another plan, another token, a password, and a clock that went back have all read; and so
// has what is to be written on a Lease that is another one by now.
func TestNothingElseRestsOnIt(t *testing.T) {
	w := newStandingSweep(t)
	another := strings.Repeat("0", len(plan.HashBytes(nil)))
	if _, calls, e := w.ask(time.Second, keyapi.LeaseRequest{PlanHash: another}); e == nil || len(calls) < 8 {
		t.Errorf("another plan: asked %q, %+v", calls, e)
	}
	whole := func(what string, ask func() ([]string, *keyapi.Error)) {
		t.Helper()
		_, _, e := w.ask(0, keyapi.LeaseRequest{}) // it stands again, if it does not
		w.granted(e)
		calls, e := ask()
		w.granted(e)
		if !slices.Contains(calls, "create *v1.TokenReview") || !slices.Contains(calls, "get *v1alpha1.DataStore") {
			t.Errorf("%s: asked only %q", what, calls)
		}
	}
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	whole("a password", func() ([]string, *keyapi.Error) {
		_, calls, e := w.ask(time.Second, keyapi.LeaseRequest{PublicKey: key.Public().String()})
		return calls, e
	})
	whole("a clock that went back", func() ([]string, *keyapi.Error) {
		_, calls, e := w.ask(-time.Second, keyapi.LeaseRequest{})
		return calls, e
	})
	whole("news that the database went back", func() ([]string, *keyapi.Error) {
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
		_, calls, e := w.ask(time.Second, keyapi.LeaseRequest{Seen: aPoint.Seen, Restored: "from position 9 to 7"})
		return calls, e
	})
	whole("another token", func() ([]string, *keyapi.Error) {
		first := w.token
		defer func() { w.token = first }()
		w.token = w.podToken(w.pod)
		_, calls, e := w.ask(time.Second, keyapi.LeaseRequest{})
		return calls, e
	})
	whole("a Lease that was given back by another replica", func() ([]string, *keyapi.Error) {
		lease := (&accountWorld{sweepWorld: w.sweepWorld}).lastLease()
		lease.Spec.HolderIdentity = nil
		w.must(testEnv.Client.Update(t.Context(), lease))
		_, calls, e := w.ask(time.Second, aPoint)
		return calls, e
	})
	whole("a Lease that is gone", func() ([]string, *keyapi.Error) {
		w.must(testEnv.Client.Delete(t.Context(), (&accountWorld{sweepWorld: w.sweepWorld}).lastLease()))
		_, calls, e := w.ask(time.Second, aPoint)
		return calls, e
	})
	whole("a lease that was given back", func() ([]string, *keyapi.Error) {
		w.granted(w.call(keyapi.PathRelease, w.token, keyapi.ReleaseRequest{PlanHash: w.hash}, nil))
		_, calls, e := w.ask(time.Second, keyapi.LeaseRequest{})
		return calls, e
	})
	// Another sweep holds it: what this one would enter in the account is refused.
	lease := (&accountWorld{sweepWorld: w.sweepWorld}).lastLease()
	other := "another"
	lease.Spec.HolderIdentity = &other
	w.must(testEnv.Client.Update(t.Context(), lease))
	_, _, e := w.ask(time.Second, aPoint)
	w.wantRefusal(e, v1alpha1.ReasonInUse)
}
