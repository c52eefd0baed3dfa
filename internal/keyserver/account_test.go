package keyserver

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// accountWorld is a store whose plan deletes, with a backlog of 1000 rows that is approved once sweeps have been.
type accountWorld struct {
	*sweepWorld
	jobs int
}

func newAccount(t *testing.T) *accountWorld {
	t.Helper()
	w := &accountWorld{sweepWorld: newSweep(t)}
	ninety := int32(90)
	policy := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Spec: v1alpha1.DataRetentionPolicySpec{
		StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"store": w.ns}}, Mode: v1alpha1.PolicyEnforce,
		Rules: []v1alpha1.RetentionRule{{Name: "conversations", DataClass: "Conversations", Basis: v1alpha1.BasisRecordAge, Action: v1alpha1.ActionDelete, RetainFor: &v1alpha1.Period{Days: &ninety}}}}}
	w.must(testEnv.Client.Create(t.Context(), policy))
	t.Cleanup(func() {
		if err := testEnv.Client.Delete(t.Context(), policy); err != nil {
			t.Log(err) // the context of the test has ended; names are its own
		}
	})
	w.edit(func(s *v1alpha1.DataStore) { s.Labels = map[string]string{"store": w.ns} })
	return w
}

// edit changes the store, and makes the sweep of its plan.
func (w *accountWorld) edit(change func(*v1alpha1.DataStore)) {
	w.Helper()
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.store), w.store))
	change(w.store)
	w.must(testEnv.Client.Update(w.Context(), w.store))
	w.hash = w.planHash()
}

func (w *accountWorld) approve(rows int64, at time.Time) {
	w.Helper()
	ninety := int32(90)
	w.edit(func(s *v1alpha1.DataStore) {
		s.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Address: addressOf(s), Tenancy: v1alpha1.TenancyDedicated,
			Windows: []v1alpha1.ApprovedWindow{{Dataset: "messages", PlaceDigest: plan.PlaceOf(&s.Spec.Datasets[0]).Digest(), RetainFor: &v1alpha1.Period{Days: &ninety},
				Backlog: &v1alpha1.ApprovedBacklog{Rows: rows, ApprovedAt: metav1.NewTime(at), Until: metav1.NewTime(at.Add(24 * time.Hour))}}}}
	})
}

// begin makes a Job of the present plan and its pod, which gets the lease, and what the account says.
func (w *accountWorld) begin() (*corev1.Pod, keyapi.Account) {
	w.Helper()
	w.jobs++
	job := resources.CatchUpJob(w.opts.Settings, w.store, w.tenant, w.hash, fmt.Sprintf("chat-catchup-%d", w.jobs)).DeepCopy()
	w.must(w.cluster.Create(w.Context(), job))
	pod := w.podOf(job)
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	var resp keyapi.LeaseResponse
	w.granted(w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash, PublicKey: key.Public().String()}, &resp))
	if resp.Account == nil {
		w.Fatal("the account was not told")
	}
	return pod, *resp.Account
}

func (w *accountWorld) ask(pod *corev1.Pod, req keyapi.LeaseRequest) *keyapi.Error {
	w.Helper()
	req.PlanHash = w.hash
	return w.call(keyapi.PathLease, w.podToken(pod), req, &keyapi.LeaseResponse{})
}

func (w *accountWorld) spend(pod *corev1.Pod, used int64) *keyapi.Error {
	w.Helper()
	return w.ask(pod, keyapi.LeaseRequest{Spend: []keyapi.Spend{{Dataset: "messages", Used: used}}})
}

// gone is the end of a pod whose last words nobody heard: its Job is deleted, and its lease runs out.
func (w *accountWorld) gone(pod *corev1.Pod) {
	w.Helper()
	w.must(w.cluster.Delete(w.Context(), pod))
	w.clock.SetTime(w.clock.Now().Add(leaseSeconds*time.Second + lostAfter))
}

func (w *accountWorld) lastLease() *coordinationv1.Lease {
	w.Helper()
	lease := &coordinationv1.Lease{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: "lethe-keys", Name: leaseName(string(w.store.UID))}, lease))
	return lease
}

func (w *accountWorld) wantLeft(a keyapi.Account, left int64, void string) {
	w.Helper()
	if len(a.Permits) != 1 || a.Permits[0].Left() != left || (a.Permits[0].Void == "") != (void == "") || !strings.Contains(a.Permits[0].Void, void) {
		w.Errorf("permits %+v, want %d left %s", a.Permits, left, void)
	}
}

// TestABacklogIsDebitedWithTheLease: whatever becomes of the pod, its Job, its report or the keyserver, what was
// debited stays so.
func TestABacklogIsDebitedWithTheLease(t *testing.T) {
	w := newAccount(t)
	first, account := w.begin()
	if account.Lost || len(account.Permits) > 0 || account.Point != nil {
		t.Errorf("a new store has a past: %+v", account)
	}
	w.gone(first)
	at := w.clock.Now()
	w.approve(1000, at)
	pod, account := w.begin()
	w.wantLeft(account, 1000, "")
	w.granted(w.spend(pod, 400))
	w.granted(w.spend(pod, 400)) // its answer was lost
	w.gone(pod)
	pod, account = w.begin()
	w.wantLeft(account, 600, "")
	// The keyserver dies before its write, and after it.
	for name, tc := range map[string]struct {
		after bool
		used  int64
	}{"before": {false, 500}, "after": {true, 500}} {
		w.writes.reset(1, tc.after)
		if e := w.spend(pod, tc.used); e == nil {
			t.Errorf("%s: a lease was given without its write", name)
		}
		w.writes.reset(0, false)
		w.granted(w.spend(pod, tc.used))
	}
	w.gone(pod)
	pod, account = w.begin()
	w.wantLeft(account, 500, "")
	// More than was approved is refused, and nothing of it debited.
	w.wantRefusal(w.spend(pod, 1001), v1alpha1.ReasonBacklogSpent)
	w.granted(w.spend(pod, 1000))
	w.granted(w.call(keyapi.PathRelease, w.podToken(pod), keyapi.ReleaseRequest{PlanHash: w.hash}, nil))
	pod, account = w.begin()
	w.wantLeft(account, 0, "")
	w.gone(pod)
	// The same approval, taken away and put back (by Git), is the same.
	w.edit(func(s *v1alpha1.DataStore) { s.Spec.ApprovedPlan = nil })
	pod, _ = w.begin()
	w.gone(pod)
	w.approve(1000, at)
	pod, account = w.begin()
	w.wantLeft(account, 0, "")
	w.gone(pod)
	w.approve(200, w.clock.Now())
	pod, account = w.begin()
	w.wantLeft(account, 200, "")
	w.granted(w.spend(pod, 1))
	w.gone(pod)
	w.approve(1000, at)
	pod, account = w.begin()
	w.wantLeft(account, 0, "older than another")
	w.wantRefusal(w.spend(pod, 1000), v1alpha1.ReasonBacklogSpent)
	// A pod without the lease debits nothing.
	other := w.sweep("chat-sweep-other")
	if e := w.spend(other, 5); e == nil {
		t.Error("a pod without the lease has debited")
	}
	// Backups leave the account out: an earlier copy would give back what was used.
	if got := w.lastLease().Labels[keystore.LabelVelero]; got != "true" {
		t.Errorf("label %s is %q", keystore.LabelVelero, got)
	}
}

// TestALostAccountRenewsNothing: with the Lease, or what stands in it, gone, what was approved before counts as used.
func TestALostAccountRenewsNothing(t *testing.T) {
	for name, lose := range map[string]func(*accountWorld){
		"the Lease is deleted": func(w *accountWorld) { w.must(testEnv.Client.Delete(w.Context(), w.lastLease())) },
		"the account is taken away": func(w *accountWorld) {
			l := w.lastLease()
			delete(l.Annotations, annotationAccount)
			w.must(testEnv.Client.Update(w.Context(), l))
		},
		"the account is damaged": func(w *accountWorld) {
			l := w.lastLease()
			l.Annotations[annotationAccount] = l.Annotations[annotationAccount][:20]
			w.must(testEnv.Client.Update(w.Context(), l))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newAccount(t)
			pod, _ := w.begin()
			w.gone(pod)
			w.approve(1000, w.clock.Now())
			pod, _ = w.begin()
			w.granted(w.ask(pod, keyapi.LeaseRequest{Seen: &keyapi.Point{Of: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, StorePoint: v1alpha1.StorePoint{Kind: "Counted", Value: "700"}, Witnesses: []string{"690"}}}))
			w.gone(pod)
			// What the manager wrote down of the last report.
			now := metav1.NewTime(w.clock.Now())
			w.store.Status.MeasuredAt = &now
			w.store.Status.Plan.Identity = v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}
			w.store.Status.Point = &v1alpha1.StorePoint{Kind: "Counted", Value: "700"}
			w.must(testEnv.Client.Status().Update(t.Context(), w.store))
			w.clock.SetTime(w.clock.Now().Add(time.Minute))
			lose(w)
			pod, account := w.begin()
			w.wantLeft(account, 0, "older than the account")
			w.wantRefusal(w.spend(pod, 1), v1alpha1.ReasonBacklogSpent)
			if !account.Lost || account.Point == nil || account.Point.Of != w.store.Status.Plan.Identity || account.Point.StorePoint != *w.store.Status.Point {
				t.Errorf("%+v", account)
			}
			w.gone(pod)
			w.approve(10, w.clock.Now())
			_, account = w.begin()
			w.wantLeft(account, 10, "")
			if account.Lost {
				t.Error("it is lost again")
			}
		})
	}
}

// TestGoneBackInTimeIsKept until a person approves the database as it is, also where the account is lost meanwhile.
func TestGoneBackInTimeIsKept(t *testing.T) {
	w := newAccount(t)
	at := func(position uint64) *keyapi.Point {
		return &keyapi.Point{Of: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, StorePoint: v1alpha1.StorePoint{Kind: "Counted", Value: strconv.FormatUint(position, 10)}}
	}
	pod, _ := w.begin()
	w.granted(w.ask(pod, keyapi.LeaseRequest{Seen: at(100)}))
	// What is to be kept lies in an annotation beside the lease: it is bounded, and of its form.
	for name, change := range map[string]func(*keyapi.Point){
		"of no store":            func(p *keyapi.Point) { p.Of = v1alpha1.StoreIdentity{} },
		"of no kind":             func(p *keyapi.Point) { p.Kind = "" },
		"a value of two lines":   func(p *keyapi.Point) { p.Value = "1\n2" },
		"a long value":           func(p *keyapi.Point) { p.Value = strings.Repeat("1", 257) },
		"too many witnesses":     func(p *keyapi.Point) { p.Witnesses = slices.Repeat([]string{"1"}, 17) },
		"a witness that is long": func(p *keyapi.Point) { p.Witnesses = []string{strings.Repeat("1", 65)} },
	} {
		seen := at(100)
		change(seen)
		if refusal := w.ask(pod, keyapi.LeaseRequest{Seen: seen}); refusal == nil || refusal.Reason != v1alpha1.ReasonBadRequest {
			t.Errorf("%s: %+v", name, refusal)
		}
	}
	// In a store that nobody has approved nothing is deleted, and so nothing is kept: whoever approves looks at what
	// is there.
	w.granted(w.ask(pod, keyapi.LeaseRequest{Seen: at(50), Restored: "its position is 50"}))
	w.gone(pod)
	pod, account := w.begin()
	if account.Restored != "" || account.Point.Value != "50" {
		t.Fatalf("without an approval: %+v", account)
	}
	w.gone(pod)
	w.approve(10, w.clock.Now())
	pod, _ = w.begin()
	w.granted(w.ask(pod, keyapi.LeaseRequest{Seen: at(40), Restored: "its position is 40"}))
	w.gone(pod)
	pod, account = w.begin()
	if account.Restored != "its position is 40" || account.Point.Value != "50" {
		t.Fatalf("%+v", account)
	}
	w.gone(pod)
	finished := metav1.NewTime(w.clock.Now())
	w.store.Status.MeasuredAt = &finished
	w.store.Status.LastSweep = &v1alpha1.SweepStatus{JobUID: "j", Outcome: v1alpha1.SweepRefused, Reason: v1alpha1.ReasonRestoredFrom, Message: "its position is 40", FinishedAt: &finished}
	w.must(testEnv.Client.Status().Update(t.Context(), w.store))
	w.must(testEnv.Client.Delete(t.Context(), w.lastLease()))
	pod, account = w.begin()
	if account.Restored != "its position is 40" || !account.Lost {
		t.Fatalf("with the account lost: %+v", account)
	}
	w.gone(pod)
	w.edit(func(s *v1alpha1.DataStore) {
		s.Spec.ApprovedPlan.Seen = &v1alpha1.ApprovedPoint{Point: v1alpha1.StorePoint{Kind: "Counted", Value: "40"}, ApprovedAt: metav1.NewTime(w.clock.Now())}
	})
	_, account = w.begin()
	if account.Restored != "" || account.Point.Value != "40" {
		t.Errorf("approved: %+v", account)
	}
}

// addressOf a store as approvals have it.
func addressOf(s *v1alpha1.DataStore) string {
	t, _ := plan.TargetOf(&s.Spec)
	return t.Address()
}
