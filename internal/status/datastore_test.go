package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/kstatus"
)

var storeNow = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func storeDays(n int32) calendar.Window { return calendar.Or(&v1alpha1.Period{Days: &n}) }

// makeObserved is a store with two datasets under one rule each, measured half an hour ago and fine.
func makeObserved() StoreObserved {
	rule := func(name string) []plan.Rule {
		return []plan.Rule{{Policy: "privacy", Rule: name, Mode: v1alpha1.PolicyEnforce, RetainFor: storeDays(90)}}
	}
	measuredAt := metav1.NewTime(storeNow.Add(-30 * time.Minute))
	return StoreObserved{
		Now: storeNow, StaleAfter: 2 * time.Hour, PlanDigest: "digest",
		Credentials: yes("Stored", "stored"),
		Result: &plan.Result{Enforced: true, Governed: []string{"privacy"}, Generations: map[string]int64{"privacy": 3}, Plan: plan.Plan{
			Datasets: []plan.Dataset{
				{Name: "contacts", Rules: rule("contacts"), Delete: &plan.Deletion{RetainFor: storeDays(90)}},
				{Name: "messages", Rules: rule("conversations"), Delete: &plan.Deletion{RetainFor: storeDays(90)}},
			},
		}},
		Measured: v1alpha1.DataStoreStatus{
			MeasuredAt: &measuredAt, MeasuredPlanDigest: "digest",
			LastSweep: &v1alpha1.SweepStatus{JobUID: "j1", PlanDigest: "digest", Outcome: v1alpha1.SweepDone, FinishedAt: &measuredAt},
			Datasets: []v1alpha1.DatasetMeasurement{
				{Name: "messages", Rows: 10, Rules: []v1alpha1.RuleMeasurement{{Policy: "privacy", Rule: "conversations", Window: "P90D"}}},
				{Name: "contacts", Rows: 5, Rules: []v1alpha1.RuleMeasurement{{Policy: "privacy", Rule: "contacts", Window: "P90D"}}},
			},
		},
	}
}

// states writes conditions as "True Reason", by type.
func states(conditions []metav1.Condition) map[string]string {
	out := map[string]string{}
	for _, c := range conditions {
		out[c.Type] = string(c.Status) + " " + c.Reason
	}
	return out
}

// messagesOf conditions, a line each.
func messagesOf(conditions []metav1.Condition) string {
	var lines []string
	for _, c := range conditions {
		lines = append(lines, c.Message)
	}
	return strings.Join(lines, "\n")
}

func TestStore(t *testing.T) {
	fine := map[string]string{
		"Ready": "True Ready", "CredentialsReady": "True Stored",
		"Reachable": "True Connected", "CoverageComplete": "True Complete", "Approved": "True Approved", "Compliant": "True Compliant",
	}
	tests := map[string]struct {
		change func(*StoreObserved)
		want   map[string]string // what differs from fine
		says   string            // in Ready's message
	}{
		"measured, covered, approved, nothing overdue": {change: func(*StoreObserved) {}},
		"no sweep has ended yet": {
			change: func(o *StoreObserved) { o.Measured = v1alpha1.DataStoreStatus{} },
			want: map[string]string{"Ready": "False NotMeasured", "Reconciling": "True NotMeasured", "Reachable": "Unknown NotMeasured",
				"CoverageComplete": "Unknown NotMeasured", "Compliant": "Unknown NotMeasured"},
		},
		"a lost report is unknown, not the old figures": {
			change: func(o *StoreObserved) {
				o.Measured.LastSweep.Outcome, o.Measured.LastSweep.Attempt, o.Measured.LastSweep.Message = v1alpha1.SweepLost, 1, "lost"
			},
			want: map[string]string{"Ready": "True ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"},
		},
		"an unreachable store is unknown and goes on being tried": {
			change: func(o *StoreObserved) { failed(o, v1alpha1.ReasonUnreachable) },
			want: map[string]string{"Ready": "False Unreachable", "Reconciling": "True Unreachable", "Reachable": "False Unreachable",
				"Compliant": "Unknown Unreachable"},
		},
		"a wrong password waits for a person": {
			change: func(o *StoreObserved) { failed(o, v1alpha1.ReasonWrongPassword) },
			want: map[string]string{"Ready": "False WrongPassword", "Stalled": "True WrongPassword", "Reachable": "False WrongPassword",
				"Compliant": "Unknown WrongPassword"},
			says: "mend it",
		},
		"a password that has changed since is tried before it is called wrong": {
			change: func(o *StoreObserved) {
				failed(o, v1alpha1.ReasonWrongPassword)
				o.Measured.LastSweep.PlanDigest = ""
			},
			want: map[string]string{"Ready": "False PlanChanged", "Reconciling": "True PlanChanged", "Reachable": "Unknown PlanChanged", "Compliant": "Unknown PlanChanged"},
		},
		"each sweep of a changed plan is lost: nobody has looked at what is written": {
			change: func(o *StoreObserved) {
				o.PlanDigest = "another"
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", PlanDigest: "another", Outcome: v1alpha1.SweepLost, Attempt: 9, Message: "lost"}
			},
			want: map[string]string{"Ready": "False ReportLost", "Reconciling": "True ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"},
		},
		"a first sweep that reached the store and measured nothing": {
			change: func(o *StoreObserved) {
				o.Measured = v1alpha1.DataStoreStatus{LastSweep: &v1alpha1.SweepStatus{JobUID: "j1", PlanDigest: "digest", Outcome: v1alpha1.SweepStopped,
					Reason: v1alpha1.ReasonTimeBudget, Attempt: 1, Message: "no time"}}
			},
			want: map[string]string{"Ready": "False TimeBudget", "Reconciling": "True TimeBudget", "CoverageComplete": "Unknown NotMeasured", "Compliant": "Unknown TimeBudget"},
		},
		"so does a sweep of a changed plan": {
			change: func(o *StoreObserved) {
				o.PlanDigest = "another"
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", PlanDigest: "another", Outcome: v1alpha1.SweepRefused, Reason: v1alpha1.ReasonClockSkew, Attempt: 2, Message: "set the clocks"}
			},
			want: map[string]string{"Ready": "False ClockSkew", "Reconciling": "True ClockSkew", "Compliant": "Unknown ClockSkew"},
			says: "set the clocks",
		},
		"a report that was lost after the plan was measured": {
			change: func(o *StoreObserved) {
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", PlanDigest: "digest", Outcome: v1alpha1.SweepLost, Attempt: 9, Message: "lost"}
			},
			want: map[string]string{"Ready": "True ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"},
		},
		"the last policy is gone, and nobody has looked since": {
			change: func(o *StoreObserved) {
				for i := range o.Result.Plan.Datasets {
					o.Result.Plan.Datasets[i].Rules, o.Result.Plan.Datasets[i].Delete = nil, nil
				}
				o.Result.Ungoverned, o.PlanDigest = []string{"contacts", "messages"}, "another"
			},
			want: map[string]string{"Ready": "False PlanChanged", "Reconciling": "True PlanChanged", "CoverageComplete": "False Ungoverned",
				"Compliant": "Unknown Ungoverned", "Approved": "True NothingToApprove"},
		},
		"what is late does not hide what had no room": {
			change: func(o *StoreObserved) {
				o.Measured.Datasets, o.Measured.Omitted = o.Measured.Datasets[:1], &v1alpha1.OmittedMeasurements{Rules: 1}
				o.Measured.Datasets[0].Rules[0].Overdue = 3
			},
			want: map[string]string{"Ready": "False LimitReached", "Stalled": "True LimitReached", "Compliant": "False Overdue"},
			says: "1 of 2 measurements are unknown",
		},
		"a measurement under another window is none": {
			change: func(o *StoreObserved) { o.Measured.Datasets[1].Rules[0].Window = "P30D" },
			want:   map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"},
			says:   "contacts (privacy/contacts)",
		},
		"a refused lease says nothing about the store": {
			change: func(o *StoreObserved) { failed(o, v1alpha1.ReasonLeaseRefused) },
			want: map[string]string{"Ready": "True LeaseRefused", "Reachable": "Unknown LeaseRefused",
				"Compliant": "Unknown LeaseRefused"},
		},
		"a changed plan makes the measurement unknown": {
			change: func(o *StoreObserved) { o.PlanDigest = "another" },
			want:   map[string]string{"Ready": "False PlanChanged", "Reconciling": "True PlanChanged", "Compliant": "Unknown PlanChanged"},
		},
		"a measurement is good until two intervals have passed": {
			change: func(o *StoreObserved) { o.Now = o.Measured.MeasuredAt.Add(o.StaleAfter - time.Second) },
		},
		"and then it is unknown": {
			change: func(o *StoreObserved) { o.Now = o.Measured.MeasuredAt.Add(o.StaleAfter) },
			want:   map[string]string{"Ready": "True Stale", "Compliant": "Unknown Stale"},
		},
		"overdue rows": {
			change: func(o *StoreObserved) { o.Measured.Datasets[0].Rules[0].Overdue = 3 },
			want:   map[string]string{"Ready": "True Overdue", "Compliant": "False Overdue"},
			says:   "messages (privacy/conversations): 3 row(s)",
		},
		"a rule without a measurement is unknown, also when all others are fine": {
			change: func(o *StoreObserved) { o.Measured.Datasets = o.Measured.Datasets[:1] },
			want:   map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"},
			says:   "contacts (privacy/contacts)",
		},
		"a dataset that could not be measured is unknown": {
			change: func(o *StoreObserved) {
				o.Measured.Datasets[1].Reason, o.Measured.Datasets[1].Message = "MissingColumn", "created_at"
			},
			want: map[string]string{"Ready": "False MissingColumn", "Stalled": "True MissingColumn", "Compliant": "Unknown NotMeasured"},
			says: "MissingColumn: created_at",
		},
		"a dataset that could not be deleted from is as it is written": {
			change: func(o *StoreObserved) {
				o.Measured.Datasets[1].Reason, o.Measured.Datasets[1].Message = "Guarded", "trigger keep refuses"
			},
			want: map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"},
			says: "Guarded: trigger keep refuses",
		},
		"a keyserver that is away": {
			change: func(o *StoreObserved) {
				o.Credentials, o.Retried = no("KeyserverUnavailable", "it is asked again"), true
			},
			want: map[string]string{"Ready": "False KeyserverUnavailable", "Reconciling": "True KeyserverUnavailable", "CredentialsReady": "False KeyserverUnavailable"},
			says: "it is asked again",
		},
		"rows without an age are not green": {
			change: func(o *StoreObserved) { o.Measured.Datasets[1].UnknownAge = 4 },
			want:   map[string]string{"Ready": "True UnknownAge", "Compliant": "Unknown UnknownAge"},
			says:   "contacts (privacy/contacts): 4 row(s)",
		},
		"rows of unknown tenants are counted, and no fault by themselves": {
			change: func(o *StoreObserved) { o.Measured.Datasets[1].UnknownTenant = 4 },
		},
		"but they are when a tenant with a shorter window cannot be told apart": {
			change: func(o *StoreObserved) {
				o.Measured.Datasets[1].UnknownTenant, o.Result.Unidentified = 4, []string{"acme"}
			},
			want: map[string]string{"Ready": "True UnknownTenant", "Compliant": "Unknown UnknownTenant"},
			says: "acme",
		},
		"a dataset that no rule governs": {
			change: func(o *StoreObserved) { o.Result.Ungoverned = []string{"files"} },
			want:   map[string]string{"Ready": "True Ungoverned", "CoverageComplete": "False Ungoverned", "Compliant": "Unknown Ungoverned"},
			says:   "files",
		},
		"a store that no policy governs": {
			change: func(o *StoreObserved) {
				for i := range o.Result.Plan.Datasets {
					o.Result.Plan.Datasets[i].Rules, o.Result.Plan.Datasets[i].Delete = nil, nil
				}
				o.Result.Ungoverned = []string{"contacts", "messages"}
			},
			want: map[string]string{"Ready": "True Ungoverned", "CoverageComplete": "False Ungoverned",
				"Compliant": "Unknown Ungoverned", "Approved": "True NothingToApprove"},
		},
		"a table that is neither dataset nor exempt": {
			change: func(o *StoreObserved) { o.Measured.Uncovered = []string{"public.drafts"} },
			want:   map[string]string{"Ready": "True UncoveredTable", "CoverageComplete": "False UncoveredTable", "Compliant": "Unknown UncoveredTable"},
			says:   "public.drafts",
		},
		"a deletion that waits for approval": {
			change: func(o *StoreObserved) {
				o.Result.Waiting, o.Result.AwaitingApproval = true, []v1alpha1.AwaitedApproval{{Dataset: "messages", Message: "rows older than P30D (approved: P90D)"}}
			},
			want: map[string]string{"Ready": "True AwaitingApproval", "Approved": "False AwaitingApproval"},
			says: "kubectl lethe approve",
		},
		"in Audit, approval does not hold a store back": {
			change: func(o *StoreObserved) {
				o.Result.Enforced, o.Result.AwaitingApproval = false, []v1alpha1.AwaitedApproval{{Dataset: "messages", Message: "rows older than P30D (approved: nothing)"}}
			},
			want: map[string]string{"Ready": "True Audit", "Approved": "False AwaitingApproval"},
		},
		"another database than the one that was approved": {
			change: func(o *StoreObserved) {
				o.Measured.LastSweep.Outcome, o.Measured.LastSweep.Reason, o.Measured.LastSweep.Message = v1alpha1.SweepRefused, v1alpha1.ReasonIdentityChanged, "approve again"
			},
			want: map[string]string{"Ready": "False IdentityChanged", "Stalled": "True IdentityChanged", "Approved": "False IdentityChanged", "Compliant": "Unknown IdentityChanged"},
			says: "approve again",
		},
		"a rule that cannot be kept": {
			change: func(o *StoreObserved) { o.Result.Problems = []plan.Problem{{Message: "the window is under the floor"}} },
			want:   map[string]string{"Ready": "False PlanProblem", "Stalled": "True PlanProblem"},
			says:   "the window is under the floor",
		},
		"a password that does not open": {
			change: func(o *StoreObserved) { o.Credentials = no("DoesNotOpen", "seal it again") },
			want:   map[string]string{"Ready": "False DoesNotOpen", "Stalled": "True DoesNotOpen", "CredentialsReady": "False DoesNotOpen"},
			says:   "seal it again",
		},
		"what waits for a person is said, also when something else comes first": {
			change: func(o *StoreObserved) {
				failed(o, v1alpha1.ReasonUnreachable)
				o.Result.Problems = []plan.Problem{{Message: "the window is under the floor"}}
			},
			want: map[string]string{"Ready": "False Unreachable", "Stalled": "True PlanProblem", "Reachable": "False Unreachable",
				"Compliant": "Unknown Unreachable"},
			says: "the window is under the floor",
		},
		"a store without a plan": {
			change: func(o *StoreObserved) {
				o.Refusal, o.Result = &Problem{Reason: "NoTenant", Message: "put it into a Tenant", Stalled: true}, nil
			},
			want: map[string]string{"Ready": "False NoTenant", "Stalled": "True NoTenant", "Reachable": "Unknown NotPlanned",
				"CoverageComplete": "Unknown NotPlanned", "Approved": "Unknown NotPlanned", "Compliant": "Unknown NotPlanned"},
			says: "put it into a Tenant",
		},
		"a child that belongs to somebody else": {
			change: func(o *StoreObserved) { o.Problem = &Problem{Reason: "NameTaken", Message: "rename it", Stalled: true} },
			want:   map[string]string{"Ready": "False NameTaken", "Stalled": "True NameTaken"},
			says:   "rename it",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := makeObserved()
			tc.change(&o)
			got := Store(o)
			want := map[string]string{}
			for k, v := range fine {
				want[k] = v
			}
			for k, v := range tc.want {
				want[k] = v
			}
			if diff := cmp.Diff(want, states(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			s := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Name: "s", Generation: 1}, Status: v1alpha1.DataStoreStatus{ObservedGeneration: 1}}
			Apply(&s.Status.Conditions, slices.Clone(got), 1, metav1.Now())
			kstatus.Check(t, s)
			if said := messagesOf(s.Status.Conditions); strings.Count(said, tc.says) != 1 && tc.says != "" {
				t.Errorf("the conditions say\n%s\nwant %q in it once", said, tc.says)
			}
			if diff := cmp.Diff(got, Store(o)); diff != "" {
				t.Errorf("the same observation gives other conditions:\n%s", diff)
			}
		})
	}
}

// failed makes the last sweep one that measured nothing.
func failed(o *StoreObserved, reason string) {
	o.Measured.LastSweep.Outcome, o.Measured.LastSweep.Reason, o.Measured.LastSweep.Attempt = v1alpha1.SweepRefused, reason, 1
	o.Measured.LastSweep.Message = "mend it"
}
