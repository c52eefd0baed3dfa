package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/kstatus"
)

var storeNow = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func storeDays(n int32) v1alpha1.Period { return v1alpha1.Period{Days: &n} }

// makeObserved is a store with two datasets under one rule each, measured half an hour ago and fine.
func makeObserved() StoreObserved {
	rule := func(name string) []plan.Rule {
		return []plan.Rule{{Policy: "privacy", Rule: name, Mode: v1alpha1.PolicyEnforce, RetainFor: storeDays(90)}}
	}
	measuredAt := metav1.NewTime(storeNow.Add(-30 * time.Minute))
	return StoreObserved{
		Now: storeNow, StaleAfter: 2 * time.Hour, Content: "content",
		Credentials: yes("Stored", "stored"),
		Result: &plan.Result{Enforced: true, Governed: []string{"privacy"}, Generations: map[string]int64{"privacy": 3}, Plan: plan.Plan{
			Datasets: []plan.Dataset{
				{Name: "contacts", Rules: rule("contacts"), Delete: &plan.Deletion{RetainFor: storeDays(90)}},
				{Name: "messages", Rules: rule("conversations"), Delete: &plan.Deletion{RetainFor: storeDays(90)}},
			},
		}},
		Measured: v1alpha1.DataStoreStatus{
			MeasuredAt: &measuredAt, MeasuredContent: "content",
			LastSweep: &v1alpha1.SweepStatus{JobUID: "j1", Content: "content", Outcome: v1alpha1.SweepDone, FinishedAt: &measuredAt},
			Rules: []v1alpha1.RuleMeasurement{
				{Dataset: "messages", Policy: "privacy", Rule: "conversations", Window: "P90D", Rows: 10},
				{Dataset: "contacts", Policy: "privacy", Rule: "contacts", Window: "P90D", Rows: 5},
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
			change: func(o *StoreObserved) { failed(o, report.ReasonUnreachable) },
			want: map[string]string{"Ready": "False Unreachable", "Reconciling": "True Unreachable", "Reachable": "False Unreachable",
				"Compliant": "Unknown Unreachable"},
		},
		"a wrong password waits for a person": {
			change: func(o *StoreObserved) { failed(o, report.ReasonWrongPassword) },
			want: map[string]string{"Ready": "False WrongPassword", "Stalled": "True WrongPassword", "Reachable": "False WrongPassword",
				"Compliant": "Unknown WrongPassword"},
			says: "mend it",
		},
		"a password that has changed since is tried before it is called wrong": {
			change: func(o *StoreObserved) {
				failed(o, report.ReasonWrongPassword)
				o.Measured.LastSweep.Content = ""
			},
			want: map[string]string{"Ready": "False PlanChanged", "Reconciling": "True PlanChanged", "Reachable": "Unknown PlanChanged", "Compliant": "Unknown PlanChanged"},
		},
		"each sweep of a changed plan is lost: nobody has looked at what is written": {
			change: func(o *StoreObserved) {
				o.Content = "another"
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", Content: "another", Outcome: v1alpha1.SweepLost, Attempt: 9, Message: "lost"}
			},
			want: map[string]string{"Ready": "False ReportLost", "Reconciling": "True ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"},
		},
		"a first sweep that reached the store and measured nothing": {
			change: func(o *StoreObserved) {
				o.Measured = v1alpha1.DataStoreStatus{LastSweep: &v1alpha1.SweepStatus{JobUID: "j1", Content: "content", Outcome: v1alpha1.SweepStopped,
					Reason: report.ReasonTimeBudget, Attempt: 1, Message: "no time"}}
			},
			want: map[string]string{"Ready": "False TimeBudget", "Reconciling": "True TimeBudget", "CoverageComplete": "Unknown NotMeasured", "Compliant": "Unknown TimeBudget"},
		},
		"so does a sweep of a changed plan": {
			change: func(o *StoreObserved) {
				o.Content = "another"
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", Content: "another", Outcome: v1alpha1.SweepRefused, Reason: report.ReasonClockSkew, Attempt: 2, Message: "set the clocks"}
			},
			want: map[string]string{"Ready": "False ClockSkew", "Reconciling": "True ClockSkew", "Compliant": "Unknown ClockSkew"},
			says: "set the clocks",
		},
		"a report that was lost after the plan was measured": {
			change: func(o *StoreObserved) {
				*o.Measured.LastSweep = v1alpha1.SweepStatus{JobUID: "j9", Content: "content", Outcome: v1alpha1.SweepLost, Attempt: 9, Message: "lost"}
			},
			want: map[string]string{"Ready": "True ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"},
		},
		"the last policy is gone, and nobody has looked since": {
			change: func(o *StoreObserved) {
				for i := range o.Result.Plan.Datasets {
					o.Result.Plan.Datasets[i].Rules, o.Result.Plan.Datasets[i].Delete = nil, nil
				}
				o.Result.Ungoverned, o.Content = []string{"contacts", "messages"}, "another"
			},
			want: map[string]string{"Ready": "False PlanChanged", "Reconciling": "True PlanChanged", "CoverageComplete": "False Ungoverned",
				"Compliant": "Unknown Ungoverned", "Approved": "True NothingToApprove"},
		},
		"what is late does not hide what had no room": {
			change: func(o *StoreObserved) {
				o.Measured.Rules, o.Measured.LastSweep.LeftOut = o.Measured.Rules[:1], 1
				o.Measured.Rules[0].Overdue = 3
			},
			want: map[string]string{"Ready": "False LimitReached", "Stalled": "True LimitReached", "Compliant": "False Overdue"},
			says: "1 of 2 measurements are unknown",
		},
		"a measurement under another window is none": {
			change: func(o *StoreObserved) { o.Measured.Rules[1].Window = "P30D" },
			want:   map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"},
			says:   "contacts (privacy/contacts)",
		},
		"a refused lease says nothing about the store": {
			change: func(o *StoreObserved) { failed(o, report.ReasonLeaseRefused) },
			want: map[string]string{"Ready": "True LeaseRefused", "Reachable": "Unknown LeaseRefused",
				"Compliant": "Unknown LeaseRefused"},
		},
		"a changed plan makes the measurement unknown": {
			change: func(o *StoreObserved) { o.Content = "another" },
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
			change: func(o *StoreObserved) { o.Measured.Rules[0].Overdue = 3 },
			want:   map[string]string{"Ready": "True Overdue", "Compliant": "False Overdue"},
			says:   "messages (privacy/conversations): 3 row(s)",
		},
		"a rule without a measurement is unknown, also when all others are fine": {
			change: func(o *StoreObserved) { o.Measured.Rules = o.Measured.Rules[:1] },
			want:   map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"},
			says:   "contacts (privacy/contacts)",
		},
		"a dataset that could not be measured is unknown": {
			change: func(o *StoreObserved) {
				o.Measured.Rules[1].Reason, o.Measured.Rules[1].Message = "MissingColumn", "created_at"
			},
			want: map[string]string{"Ready": "False MissingColumn", "Stalled": "True MissingColumn", "Compliant": "Unknown NotMeasured"},
			says: "MissingColumn: created_at",
		},
		"a dataset that could not be deleted from is as it is written": {
			change: func(o *StoreObserved) {
				o.Measured.Rules[1].Reason, o.Measured.Rules[1].Message = "Guarded", "trigger keep refuses"
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
			change: func(o *StoreObserved) { o.Measured.Rules[1].UnknownAge = 4 },
			want:   map[string]string{"Ready": "True UnknownAge", "Compliant": "Unknown UnknownAge"},
			says:   "contacts (privacy/contacts): 4 row(s)",
		},
		"rows of unknown tenants are counted, and no fault by themselves": {
			change: func(o *StoreObserved) { o.Measured.Rules[1].UnknownTenant = 4 },
		},
		"but they are when a tenant with a shorter window cannot be told apart": {
			change: func(o *StoreObserved) {
				o.Measured.Rules[1].UnknownTenant, o.Result.Unidentified = 4, []string{"acme"}
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
				o.Result.Waiting, o.Result.AwaitingApproval = true, []string{"messages: rows older than P30D (approved: P90D)"}
			},
			want: map[string]string{"Ready": "True AwaitingApproval", "Approved": "False AwaitingApproval"},
			says: "kubectl lethe approve",
		},
		"in Audit, approval does not hold a store back": {
			change: func(o *StoreObserved) {
				o.Result.Enforced, o.Result.AwaitingApproval = false, []string{"messages: rows older than P30D (approved: nothing)"}
			},
			want: map[string]string{"Ready": "True Audit", "Approved": "False AwaitingApproval"},
		},
		"another database than the one that was approved": {
			change: func(o *StoreObserved) {
				o.Measured.LastSweep.Outcome, o.Measured.LastSweep.Reason, o.Measured.LastSweep.Message = v1alpha1.SweepRefused, report.ReasonIdentityChanged, "approve again"
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
				failed(o, report.ReasonUnreachable)
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

func TestMeasure(t *testing.T) {
	const hash = "0123"
	whole := report.Report{
		Plan: hash, Outcome: report.Done, Mode: "Enforce", SystemIdentifier: "7300", Uncovered: []string{"public.drafts"}, UncoveredCount: 1,
		Lines: []report.Line{
			{Dataset: "messages", Policy: "privacy", Rule: "conversations", Rows: 10, Overdue: 3, OldestOverdueSeconds: 60, Deleted: 7},
			{Dataset: "contacts", Policy: "privacy", Rule: "contacts", Rows: 5, Reason: "MissingColumn", Message: "no column created_at"},
			{Dataset: "files", Reason: report.LineUngoverned},
		},
	}
	encode := func(change func(*report.Report)) string {
		r := whole
		if change != nil {
			change(&r)
		}
		b, err := report.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ended := storeNow
	sweep := func(message string) Sweep {
		r, err := report.Read(message, hash)
		return Sweep{JobUID: "j2", FinishedAt: ended, Report: r, Err: err, Current: true}
	}
	before := makeObserved().Measured
	tests := map[string]struct {
		sweep Sweep
		want  func(*v1alpha1.DataStoreStatus) // what differs from before
	}{
		"a report is taken over, worst first, and unknown rules are left out": {
			sweep: sweep(encode(nil)),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepDone, FinishedAt: at(ended), Deleted: 7}
				s.MeasuredAt, s.MeasuredContent, s.Plan.SystemIdentifier = at(ended), "content", "7300"
				s.Uncovered, s.UncoveredCount, s.Overdue, s.OldestOverdueSeconds = []string{"public.drafts"}, 1, 3, 60
				s.Rules = []v1alpha1.RuleMeasurement{
					{Dataset: "contacts", Policy: "privacy", Rule: "contacts", Window: "P90D", Rows: 5, Reason: "MissingColumn", Message: "no column created_at"},
					{Dataset: "messages", Policy: "privacy", Rule: "conversations", Window: "P90D", Rows: 10, Overdue: 3, OldestOverdueSeconds: 60, Deleted: 7,
						WorstOverdueSeconds: 60, WorstOverdueAt: at(ended)},
				}
			},
		},
		"no message: lost, and the old figures keep their time": {
			sweep: sweep(""),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepLost, FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: 0 bytes that are not a whole document; it is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a cut message: lost": {
			sweep: sweep(encode(nil)[:100]),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepLost, FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: 100 bytes that are not a whole document; it is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a report about another plan than the Job's: lost": {
			sweep: sweep(encode(func(r *report.Report) { r.Plan = "4567" })),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepLost, FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: it is about another plan; it is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a store that was not reached: nothing is measured": {
			sweep: sweep(encode(func(r *report.Report) {
				*r = report.Report{Plan: hash, Outcome: report.Refused, Reason: report.ReasonWrongPassword, Message: "seal the right one", Mode: "Audit"}
			})),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepRefused, Reason: "WrongPassword",
					Message: "seal the right one", FinishedAt: at(ended), Attempt: 1}
			},
		},
		"a sweep that failed measured nothing, but what it deleted is told": {
			sweep: sweep(encode(func(r *report.Report) { r.Outcome, r.Reason = report.Failed, report.ReasonStoreError })),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Content: "content", Outcome: v1alpha1.SweepFailed, Reason: "StoreError",
					FinishedAt: at(ended), Attempt: 1, Deleted: 7}
				s.Plan.SystemIdentifier = "7300"
			},
		},
		"a Job of an older plan says nothing about the present one": {
			sweep: func() Sweep {
				s := sweep(encode(nil))
				s.Current = false
				return s
			}(),
			want: func(s *v1alpha1.DataStoreStatus) { s.LastSweep.JobUID, s.LastSweep.FinishedAt = "j2", at(ended) },
		},
		"of two sweeps at once one is turned away, and that is no failure": {
			sweep: func() Sweep {
				s := sweep(encode(func(r *report.Report) {
					*r = report.Report{Plan: hash, Outcome: report.Refused, Reason: report.ReasonStoreBusy, Mode: "Audit"}
				}))
				s.Overlapped = true
				return s
			}(),
			want: func(s *v1alpha1.DataStoreStatus) { s.LastSweep.JobUID, s.LastSweep.FinishedAt = "j2", at(ended) },
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			want := *before.DeepCopy()
			tc.want(&want)
			given := *before.DeepCopy()
			got := Measure(given, tc.sweep, makeObserved().Result.Plan, "content")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, given); diff != "" {
				t.Errorf("the status that was given has changed:\n%s", diff)
			}
		})
	}
	t.Run("attempts are counted, and a measurement ends the count", func(t *testing.T) {
		s := Measure(before, sweep(""), makeObserved().Result.Plan, "content")
		s = Measure(s, sweep(""), makeObserved().Result.Plan, "content")
		if s.LastSweep.Attempt != 2 {
			t.Errorf("attempt %d, want 2", s.LastSweep.Attempt)
		}
		if s = Measure(s, sweep(encode(nil)), makeObserved().Result.Plan, "content"); s.LastSweep.Attempt != 0 {
			t.Errorf("attempt %d after a measurement, want 0", s.LastSweep.Attempt)
		}
	})
}

// TestPromises: what a store says of each policy follows from that policy's own rules alone, and from all of them.
func TestPromises(t *testing.T) {
	// Beside privacy, which governs both datasets, another policy governs messages.
	two := func() StoreObserved {
		o := makeObserved()
		other := plan.Rule{Policy: "other", Rule: "r", Mode: v1alpha1.PolicyAudit, RetainFor: storeDays(30)}
		o.Result.Plan.Datasets[1].Rules = append([]plan.Rule{other}, o.Result.Plan.Datasets[1].Rules...)
		o.Result.Governed, o.Result.Generations = []string{"empty", "other", "privacy"}, map[string]int64{"empty": 9, "other": 1, "privacy": 3}
		o.Measured.Rules = append(o.Measured.Rules, v1alpha1.RuleMeasurement{Dataset: "messages", Policy: "other", Rule: "r", Window: "P30D"})
		return o
	}
	const messages, contacts, other = 0, 1, 2 // in status.rules
	tests := map[string]struct {
		change         func(*StoreObserved)
		other, privacy v1alpha1.PromiseState
	}{
		"kept":             {func(*StoreObserved) {}, "Kept", "Kept"},
		"late":             {func(o *StoreObserved) { o.Measured.Rules[messages].Overdue = 1 }, "Kept", "Overdue"},
		"the other's late": {func(o *StoreObserved) { o.Measured.Rules[other].Overdue = 1 }, "Overdue", "Kept"},
		"late by the other, and a measurement of this one had no room": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue, o.Measured.LastSweep.LeftOut = 1, 1
			o.Measured.Rules = slices.Delete(o.Measured.Rules, contacts, contacts+1)
		}, "Overdue", "Unproven"},
		"late by the other, and a measurement of this one is missing": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue = 1
			o.Measured.Rules = slices.Delete(o.Measured.Rules, contacts, contacts+1)
		}, "Overdue", "Unproven"},
		"late by the other, and of this one only the worst is known": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue, o.Measured.LastSweep.LeftOut = 1, 1
			o.Measured.Rules[contacts].Reason = ReasonLeftOut
		}, "Overdue", "Unproven"},
		"late by the other, and rows that may be of a tenant with a shorter window": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue, o.Measured.Rules[contacts].UnknownTenant, o.Result.Unidentified = 1, 4, []string{"acme"}
		}, "Overdue", "Unproven"},
		"late by the other, and rows without an age": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue, o.Measured.Rules[contacts].UnknownAge = 1, 1
		}, "Overdue", "Unproven"},
		"late by the other, and late rows of no known tenant": {func(o *StoreObserved) {
			o.Measured.Rules[other].Overdue, o.Measured.Rules[contacts].UnknownTenantLate = 1, 1
		}, "Overdue", "Unproven"},
		"measured under another window": {func(o *StoreObserved) { o.Measured.Rules[contacts].Window = "P30D" }, "Kept", "Unproven"},
		"a trigger of the other's dataset": {func(o *StoreObserved) {
			o.Measured.Rules[contacts].Reason = report.LineGuarded
		}, "Kept", "Unproven"},
		"the plan has changed": {func(o *StoreObserved) { o.Content = "another" }, "Unproven", "Unproven"},
		"late, and the plan has changed": {func(o *StoreObserved) {
			o.Content, o.Measured.Rules[messages].Overdue = "another", 1
		}, "Unproven", "Unproven"},
		"the measurement is old":           {func(o *StoreObserved) { o.Now = o.Measured.MeasuredAt.Add(o.StaleAfter) }, "Unproven", "Unproven"},
		"the report is lost":               {func(o *StoreObserved) { o.Measured.LastSweep.Outcome = v1alpha1.SweepLost }, "Unproven", "Unproven"},
		"never measured":                   {func(o *StoreObserved) { o.Measured = v1alpha1.DataStoreStatus{} }, "Unproven", "Unproven"},
		"another database":                 {func(o *StoreObserved) { o.Measured.LastSweep.Reason = report.ReasonIdentityChanged }, "Unproven", "Unproven"},
		"a dataset that no rule governs":   {func(o *StoreObserved) { o.Result.Ungoverned = []string{"files"} }, "Kept", "Kept"},
		"a table that is not on the map":   {func(o *StoreObserved) { o.Measured.Uncovered = []string{"public.drafts"} }, "Kept", "Kept"},
		"a password that opens no longer":  {func(o *StoreObserved) { o.Credentials = no("DoesNotOpen", "seal it again") }, "Kept", "Kept"},
		"something of ours cannot be made": {func(o *StoreObserved) { o.Problem = &Problem{Reason: "NameTaken", Stalled: true} }, "Kept", "Kept"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := two()
			tc.change(&o)
			want := []v1alpha1.StorePromise{{Policy: "other", Generation: 1, State: tc.other}, {Policy: "privacy", Generation: 3, State: tc.privacy}}
			if diff := cmp.Diff(want, Promises(o)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// A store that is compliant keeps each of its policies.
			if strings.HasPrefix(states(Store(o))["Compliant"], "True") && (tc.other != "Kept" || tc.privacy != "Kept") {
				t.Error("the store is compliant")
			}
		})
	}
	t.Run("no plan", func(t *testing.T) {
		o := two()
		o.Refusal, o.Result = &Problem{Reason: "NoTenant", Stalled: true}, nil
		if got := Promises(o); got != nil {
			t.Errorf("promises %v", got)
		}
	})
}

func TestPolicy(t *testing.T) {
	promise := func(policy string, generation int64, state v1alpha1.PromiseState) v1alpha1.StorePromise {
		return v1alpha1.StorePromise{Policy: policy, Generation: generation, State: state}
	}
	store := func(name string, state v1alpha1.PromiseState, overdue, oldest int64, more ...v1alpha1.StorePromise) *v1alpha1.DataStore {
		return &v1alpha1.DataStore{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Generation: 4},
			Spec:       v1alpha1.DataStoreSpec{Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations"}}},
			Status: v1alpha1.DataStoreStatus{
				ObservedGeneration: 4, Promises: append([]v1alpha1.StorePromise{promise("p", 2, state)}, more...),
				Rules: []v1alpha1.RuleMeasurement{{Dataset: "messages", Policy: "other", Rule: "r", Overdue: 900, OldestOverdueSeconds: 9000},
					{Dataset: "messages", Policy: "p", Rule: "r", Overdue: overdue, OldestOverdueSeconds: oldest}},
			},
		}
	}
	kept := func(name string) *v1alpha1.DataStore { return store(name, "Kept", 0, 0) }
	changed := func(s *v1alpha1.DataStore, change func(*v1alpha1.DataStore)) *v1alpha1.DataStore {
		change(s)
		return s
	}
	unproven := map[string]string{"Compliant": "Unknown Unproven", "Ready": "True Unproven"}
	tests := map[string]struct {
		rules    []v1alpha1.RetentionRule // besides that of Conversations
		stores   []*v1alpha1.DataStore
		problems []plan.Problem
		want     v1alpha1.DataRetentionPolicyStatus
		rows     string // status.overdueRows
		states   map[string]string
		says     string // in Compliant's message
	}{
		"no store is not green": {
			rows:   "unknown",
			states: map[string]string{"Compliant": "Unknown NoStore", "Ready": "True NoStore"},
			says:   "label a DataStore",
		},
		"kept everywhere": {
			rows:   "0",
			stores: []*v1alpha1.DataStore{kept("a"), kept("b")},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"the worst store is the one that is overdue longest": {
			rows:   "11",
			stores: []*v1alpha1.DataStore{kept("a"), store("b", "Overdue", 9, 60), store("c", "Overdue", 2, 3600), store("d", "Unproven", 0, 0)},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 4, Compliant: 1, Overdue: 11, OldestOverdueSeconds: 3600, WorstStore: "ns/c"},
			states: map[string]string{"Compliant": "False Overdue", "Ready": "True Overdue"},
			says:   "not shown by a measurement of: ns/d",
		},
		"a store that has not shown it is not green": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), store("b", "Unproven", 0, 0)},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 1, WorstStore: "ns/b"},
			states: unproven, says: "ns/b",
		},
		"another policy's overdue rows are not this one's": {
			rows:   "0",
			stores: []*v1alpha1.DataStore{store("a", "Kept", 0, 0, promise("other", 2, "Overdue"))},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, Compliant: 1},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"a store without data of its classes proves nothing": {
			rows: "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), changed(kept("b"), func(s *v1alpha1.DataStore) {
				s.Status.Promises = []v1alpha1.StorePromise{promise("other", 2, "Kept")}
			})},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 1, WorstStore: "ns/b"},
			states: unproven,
		},
		"nor does what was measured under another spec of the policy": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{changed(kept("a"), func(s *v1alpha1.DataStore) { s.Status.Promises[0].Generation = 1 })},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, WorstStore: "ns/a"},
			states: unproven,
		},
		"nor under another spec of the store": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{changed(kept("a"), func(s *v1alpha1.DataStore) { s.Generation++ })},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, WorstStore: "ns/a"},
			states: unproven,
		},
		"a rule whose class no dataset has": {
			rules:  []v1alpha1.RetentionRule{{Name: "payments", DataClass: "Paymnets"}},
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), kept("b")},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: unproven, says: "spec.rules[payments] (Paymnets); correct dataClass",
		},
		"a rule whose class one of its stores has": {
			rules: []v1alpha1.RetentionRule{{Name: "payments", DataClass: "Payments"}},
			rows:  "0",
			stores: []*v1alpha1.DataStore{kept("a"), changed(kept("b"), func(s *v1alpha1.DataStore) {
				s.Spec.Datasets = append(s.Spec.Datasets, v1alpha1.Dataset{Name: "payments", DataClass: "Payments"})
			})},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"a refused rule waits for a person": {
			rows:     "0",
			stores:   []*v1alpha1.DataStore{kept("a")},
			problems: []plan.Problem{{Message: "longer"}},
			want:     v1alpha1.DataRetentionPolicyStatus{Matched: 1, Compliant: 1},
			states:   map[string]string{"Compliant": "True Compliant", "Ready": "False RuleRefused", "Stalled": "True RuleRefused"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 2}, Spec: v1alpha1.DataRetentionPolicySpec{
				Rules: append([]v1alpha1.RetentionRule{{Name: "r", DataClass: "Conversations"}}, tc.rules...)}}
			got, conditions := Policy(PolicyObserved{Policy: p, Stores: tc.stores, Problems: tc.problems})
			tc.want.OverdueRows = tc.rows
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("sums (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.states, states(conditions)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			p.Status, p.Status.ObservedGeneration = got, 2
			Apply(&p.Status.Conditions, conditions, 2, metav1.Now())
			if said := messagesOf(p.Status.Conditions); !strings.Contains(said, tc.says) {
				t.Errorf("it says %q, want %q in it", said, tc.says)
			}
			kstatus.Check(t, p)
		})
	}
}
