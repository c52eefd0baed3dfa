package datastore

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/resources"
)

func TestDecideCatchUp(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *metav1.Time {
		at := metav1.NewTime(now.Add(-d))
		return &at
	}
	// swept is a store that was measured ten minutes ago, by the plan in force.
	swept := func(change func(*v1alpha1.DataStoreStatus)) v1alpha1.DataStoreStatus {
		s := v1alpha1.DataStoreStatus{
			MeasuredAt: ago(10 * time.Minute), MeasuredPlanDigest: "plan",
			LastSweep: &v1alpha1.SweepStatus{JobUID: "j", PlanDigest: "plan", Outcome: v1alpha1.SweepDone, FinishedAt: ago(10 * time.Minute)},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	attempt := func(n int32) v1alpha1.DataStoreStatus {
		return swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Attempt, s.LastSweep.FinishedAt = v1alpha1.SweepLost, n, ago(0)
		})
	}
	// overdue is one row, of which so many may go.
	overdue := func(eligible int64) func(*v1alpha1.DataStoreStatus) {
		return func(s *v1alpha1.DataStoreStatus) {
			s.Overdue, s.Datasets = 1, []v1alpha1.DatasetMeasurement{{Name: "messages", Rules: []v1alpha1.RuleMeasurement{{Overdue: 1, Eligible: eligible}}}}
		}
	}
	tests := map[string]struct {
		status  v1alpha1.DataStoreStatus
		deletes bool
		tenants string        // that are known now, to a Shared store
		want    time.Duration // 0: now
	}{
		"other tenants are known, ten minutes after the sweep: now": {status: swept(func(s *v1alpha1.DataStoreStatus) { s.MeasuredTenants = "a" }), tenants: "b"},
		"other tenants are known, a minute after it: one sweep in five": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.MeasuredTenants, s.LastSweep.FinishedAt = "a", ago(time.Minute)
		}), tenants: "b", want: 4 * time.Minute},
		"the same tenants are known: when two sweeps have been missed": {status: swept(func(s *v1alpha1.DataStoreStatus) { s.MeasuredTenants = "a" }), tenants: "a", want: 110 * time.Minute},
		"a Dedicated store has none":                                   {status: swept(nil), want: 110 * time.Minute},
		"measured by a build that did not say by whom: as it was":      {status: swept(nil), tenants: "a", want: 110 * time.Minute},
		"nobody said who is known, a minute ago: one sweep in five": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Reason, s.LastSweep.FinishedAt = v1alpha1.SweepRefused, v1alpha1.ReasonTenantsUnknown, ago(time.Minute)
		}), tenants: "b", want: 4 * time.Minute},
		"more are known than a sweep takes: as ever": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Reason = v1alpha1.SweepRefused, v1alpha1.ReasonTooManyTenants
		}), tenants: "b", want: 110 * time.Minute},
		"never swept: now":                                        {status: v1alpha1.DataStoreStatus{}},
		"measured: when two sweeps have been missed":              {status: swept(nil), want: 110 * time.Minute},
		"another plan: now":                                       {status: swept(func(s *v1alpha1.DataStoreStatus) { s.LastSweep.PlanDigest = "old" })},
		"measured by a build that did not say by which plan: now": {status: swept(func(s *v1alpha1.DataStoreStatus) { s.MeasuredPlanDigest = "" })},
		"stale: now":                                     {status: swept(func(s *v1alpha1.DataStoreStatus) { s.MeasuredAt = ago(2 * time.Hour) })},
		"nothing measured, once: after a minute":         {status: attempt(1), want: time.Minute},
		"twice: after four":                              {status: attempt(2), want: 4 * time.Minute},
		"three times: after sixteen":                     {status: attempt(3), want: 16 * time.Minute},
		"four times: after an hour":                      {status: attempt(4), want: time.Hour},
		"very often: after an hour":                      {status: attempt(1 << 30), want: time.Hour},
		"a changed plan does not wait for a failing one": {status: swept(func(s *v1alpha1.DataStoreStatus) { s.LastSweep.Attempt, s.LastSweep.PlanDigest = 4, "old" })},
		"its time was up: go on at once": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Reason, s.LastSweep.Deleted = v1alpha1.SweepStopped, v1alpha1.ReasonTimeBudget, 1
		})},
		"its time was up and nothing went: a quarter of an hour after it": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Reason = v1alpha1.SweepStopped, v1alpha1.ReasonTimeBudget
		}), deletes: true, want: 5 * time.Minute},
		"stopped for another reason: after a minute, is now": {status: swept(func(s *v1alpha1.DataStoreStatus) {
			s.LastSweep.Outcome, s.LastSweep.Reason = v1alpha1.SweepStopped, v1alpha1.ReasonTerminated
		})},
		"overdue rows that may be deleted: a quarter of an hour after the last sweep": {
			status: swept(overdue(1)), deletes: true, want: 5 * time.Minute},
		"overdue rows that others keep: another sweep would not help": {status: swept(overdue(0)), deletes: true, want: 110 * time.Minute},
		"overdue rows in Audit: another sweep would not help": {
			status: swept(overdue(1)), want: 110 * time.Minute},
		"overdue rows that a sweep refused to delete: neither": {
			status: swept(func(s *v1alpha1.DataStoreStatus) { overdue(1)(s); s.LastSweep.Outcome = v1alpha1.SweepRefused }), deletes: true, want: 110 * time.Minute},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			wait, due := decideCatchUp(now, tc.status, "plan", tc.tenants, tc.deletes)
			if due != (tc.want == 0) || wait != tc.want {
				t.Errorf("wait %s, due %v; want %s", wait, due, tc.want)
			}
			if due {
				return
			}
			// Both answers are of one reading of the clock: when the wait is over, it is due.
			if again, dueThen := decideCatchUp(now.Add(wait), tc.status, "plan", tc.tenants, tc.deletes); !dueThen {
				t.Errorf("after %s still to wait: %s", wait, again)
			}
		})
	}
}

func TestCatchUpName(t *testing.T) {
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Name: "chat", UID: "u"}}
	name := catchUpName(store, "plan", &v1alpha1.SweepStatus{JobUID: "j"})
	if again := catchUpName(store, "plan", &v1alpha1.SweepStatus{JobUID: "j", Attempt: 3}); again != name {
		t.Errorf("asked twice after the same sweep: %s and %s", name, again)
	}
	if other := catchUpName(store, "plan", &v1alpha1.SweepStatus{JobUID: "k"}); other == name {
		t.Error("after another sweep the name is the same")
	}
	if other := catchUpName(store, "changed", &v1alpha1.SweepStatus{JobUID: "j"}); other == name {
		t.Error("for another plan the name is the same")
	}
}

// Times of Jobs are whole seconds: two that ended in the same one must not take turns in being the last.
func TestUnreadReadsEachJobOnce(t *testing.T) {
	ended := metav1.NewTime(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC))
	job := func(uid string, began int) batchv1.Job {
		return batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: uid, CreationTimestamp: metav1.NewTime(ended.Add(-time.Duration(began) * time.Minute))},
			Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: ended}}},
		}
	}
	jobs := []batchv1.Job{job("a", 3), job("b", 2), job("c", 1), job("d", 1)}
	var last *v1alpha1.SweepStatus
	for _, want := range [][]string{{"a", "b", "c", "d"}, nil, nil} {
		var got []string
		since, same := unread(jobs, last)
		for _, j := range same {
			if isNewest(ledger.Statement{Job: "d", Sequence: 4}, last, &j) {
				since = append(since, j)
			}
		}
		for _, j := range since {
			got = append(got, string(j.UID))
			last = &v1alpha1.SweepStatus{JobUID: string(j.UID), FinishedAt: &ended, Sequence: 4}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
	}
	// The last one read may be gone by now.
	if since, same := unread(jobs[:1], &v1alpha1.SweepStatus{JobUID: "gone", FinishedAt: &ended}); len(since) != 1 || len(same) != 0 {
		t.Errorf("%d Jobs are unread and %d in doubt, want 1 and none", len(since), len(same))
	}
}

// Of two Jobs that ended in one second the one whose report came after the one that was read is unread, whatever the
// names and the times at which they began; and then the other one is not again.
func TestOfOneSecondTheNewestReportIsUnread(t *testing.T) {
	ended := metav1.NewTime(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC))
	job := func(uid string) batchv1.Job {
		return batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: uid, CreationTimestamp: ended},
			Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: ended}}},
		}
	}
	jobs := []batchv1.Job{job("a"), job("b")}
	for name, tc := range map[string]struct {
		last v1alpha1.SweepStatus
		kept ledger.Statement
		want []string
	}{
		"a report of the one with the later name":          {v1alpha1.SweepStatus{JobUID: "a", Sequence: 1}, ledger.Statement{Job: "b", Sequence: 2}, []string{"b"}},
		"a report of the one with the earlier name":        {v1alpha1.SweepStatus{JobUID: "b", Sequence: 1}, ledger.Statement{Job: "a", Sequence: 2}, []string{"a"}},
		"that one was read":                                {v1alpha1.SweepStatus{JobUID: "a", Sequence: 2}, ledger.Statement{Job: "a", Sequence: 2}, nil},
		"an earlier report of the other, put in its place": {v1alpha1.SweepStatus{JobUID: "a", Sequence: 2}, ledger.Statement{Job: "b", Sequence: 1}, nil},
		"no report that counts":                            {v1alpha1.SweepStatus{JobUID: "a", Sequence: 1}, ledger.Statement{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tc.last.FinishedAt = &ended
			since, same := unread(jobs, &tc.last)
			if len(since) != 0 || len(same) != 1 {
				t.Fatalf("%d since and %d in the same second, want none and 1", len(since), len(same))
			}
			var got []string
			for _, j := range same {
				if isNewest(tc.kept, &tc.last, &j) {
					got = append(got, string(j.UID))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("unread (-want +got):\n%s", diff)
			}
		})
	}
}

// A report supersedes those of Jobs before it while its own Job runs; one that is suspended does not run.
func TestASuspendedJobSupersedesNothing(t *testing.T) {
	yes := true
	runs := batchv1.Job{ObjectMeta: metav1.ObjectMeta{UID: "b"}}
	stands := batchv1.Job{ObjectMeta: metav1.ObjectMeta{UID: "b"}, Spec: batchv1.JobSpec{Suspend: &yes}}
	if !isSuperseded("b", nil, []batchv1.Job{runs}) || isSuperseded("b", nil, []batchv1.Job{stands}) || isSuperseded("b", nil, nil) {
		t.Error("superseded by what does not run, or not by what does")
	}
}

func TestVerdictOnASet(t *testing.T) {
	spec := &v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{}}
	back := keyapi.CredentialResult{Name: "password", Reason: v1alpha1.ReasonRolledBack, Message: "sealed earlier"}
	bad := keyapi.CredentialResult{Name: "token", Reason: v1alpha1.ReasonDoesNotOpen, Message: "seal it again"}
	good := keyapi.CredentialResult{Name: "pin", Reason: v1alpha1.ReasonStored}
	for _, items := range [][]keyapi.CredentialResult{{back, bad, good}, {bad, back, good}, {good, back, bad}} {
		if got := verdictOn(spec, keyapi.CredentialsResponse{Secret: "s", Items: items}); got.Status != metav1.ConditionFalse || got.Reason != v1alpha1.ReasonDoesNotOpen {
			t.Errorf("%v: %+v", items, got)
		}
	}
	if got := verdictOn(spec, keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{good, back}}); got.Status != metav1.ConditionTrue || got.Reason != v1alpha1.ReasonRolledBack {
		t.Errorf("one was rolled back: %+v", got)
	}
}

func TestLastWordIsTheLaterPods(t *testing.T) {
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "j"}}
	yes, began := true, time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	pod := func(owner types.UID, after time.Duration, message string) corev1.Pod {
		end := &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(began.Add(after)), Message: message}
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: types.UID(after.String()), OwnerReferences: []metav1.OwnerReference{{UID: owner, Controller: &yes}}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerSweeper, State: corev1.ContainerState{Terminated: end}}}},
		}
	}
	if uid, got := terminationMessageOf([]corev1.Pod{pod("j", 2*time.Minute, "later"), pod("j", time.Minute, "earlier"), pod("other", time.Hour, "a stranger's")}, job); got != "later" || uid != "2m0s" {
		t.Errorf("got %q of %s", got, uid)
	}
	if uid, got := terminationMessageOf([]corev1.Pod{pod("j", 2*time.Minute, ""), pod("j", time.Minute, "earlier")}, job); got != "" || uid != "2m0s" {
		t.Errorf("got %q of %s, want nothing: the later one left no report", got, uid)
	}
}
