package status

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/report"
)

func TestMeasure(t *testing.T) {
	const hash = "0123"
	whole := report.Report{
		Plan: hash, Outcome: report.Done, Mode: "Enforce", Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Uncovered: []string{"public.drafts"}, UncoveredCount: 1,
		Datasets: []report.Dataset{
			{Name: "messages", Rows: 10, Rules: []report.Rule{{Policy: "privacy", Rule: "conversations", Overdue: 3, OldestOverdueSeconds: 60, Deleted: 7}, {Policy: "made", Rule: "up", Overdue: 9}}},
			{Name: "contacts", Rows: 5, Problem: v1alpha1.Problem{Reason: "MissingColumn", Message: "no column created_at"}, Rules: []report.Rule{{Policy: "privacy", Rule: "contacts"}}},
			{Name: "made-up", Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUngoverned}},
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
		return Sweep{JobUID: "j2", Sequence: 5, FinishedAt: ended, Report: r, Err: err, Current: true}
	}
	before := makeObserved().Measured
	tests := map[string]struct {
		sweep Sweep
		want  func(*v1alpha1.DataStoreStatus) // what differs from before
	}{
		"a report is taken over, worst first, and datasets and rules that the plan has not are left out": {
			sweep: sweep(encode(nil)),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepDone, FinishedAt: at(ended), Deleted: 7}
				s.MeasuredAt, s.MeasuredPlanDigest, s.Plan.Identity = at(ended), "digest", v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}
				s.Uncovered, s.UncoveredCount, s.Overdue, s.OldestOverdueSeconds = []string{"public.drafts"}, 1, 3, 60
				s.Datasets = []v1alpha1.DatasetMeasurement{
					{Name: "contacts", Rows: 5, Problem: v1alpha1.Problem{Reason: "MissingColumn", Message: "no column created_at"},
						Rules: []v1alpha1.RuleMeasurement{{Policy: "privacy", Rule: "contacts", Window: "P90D"}}},
					{Name: "messages", Rows: 10, Rules: []v1alpha1.RuleMeasurement{{Policy: "privacy", Rule: "conversations", Window: "P90D", Overdue: 3, OldestOverdueSeconds: 60, Deleted: 7,
						WorstOverdueSeconds: 60, WorstOverdueAt: at(ended)}}},
				}
			},
		},
		"no message: lost, and the old figures keep their time": {
			sweep: sweep(""),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepLost, Reason: "ReportLost", FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: 0 bytes that are not a whole document; the sweep is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a cut message: lost": {
			sweep: sweep(encode(nil)[:100]),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepLost, Reason: "ReportLost", FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: 100 bytes that are not a whole document; the sweep is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a report about another plan than the Job's: lost": {
			sweep: sweep(encode(func(r *report.Report) { r.Plan = "4567" })),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepLost, Reason: "ReportLost", FinishedAt: at(ended), Attempt: 1,
					Message: "the sweep left no readable report: it is about another plan; the sweep is repeated, and if that goes on look at the Jobs of the store and their pods"}
			},
		},
		"a store that was not reached: nothing is measured": {
			sweep: sweep(encode(func(r *report.Report) {
				*r = report.Report{Plan: hash, Outcome: report.Refused, Reason: v1alpha1.ReasonWrongPassword, Message: "seal the right one", Mode: "Audit"}
			})),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepRefused, Reason: "WrongPassword",
					Message: "seal the right one", FinishedAt: at(ended), Attempt: 1}
			},
		},
		"a sweep that failed measured nothing, but what it deleted is told": {
			sweep: sweep(encode(func(r *report.Report) { r.Outcome, r.Reason = report.Failed, v1alpha1.ReasonStoreError })),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 5, PlanDigest: "digest", Outcome: v1alpha1.SweepFailed, Reason: "StoreError",
					FinishedAt: at(ended), Attempt: 1, Deleted: 7}
				s.Plan.Identity = v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}
			},
		},
		"a Job of an older plan says nothing about the present one": {
			sweep: func() Sweep {
				s := sweep(encode(nil))
				s.Current = false
				return s
			}(),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep.JobUID, s.LastSweep.Sequence, s.LastSweep.FinishedAt = "j2", 5, at(ended)
			},
		},
		"a report that was taken long before its Job ended is of that time": {
			sweep: func() Sweep {
				s := sweep(encode(nil))
				s.ReportedAt, s.FinishedAt = ended, ended.Add(50*time.Minute)
				return s
			}(),
			want: func(s *v1alpha1.DataStoreStatus) {
				*s = Measure(before, sweep(encode(nil)), makeObserved().Result.Plan, "digest")
				s.LastSweep.FinishedAt = at(ended.Add(50 * time.Minute))
			},
		},
		"a forged report is told of a Job of an older plan, too": {
			sweep: Sweep{JobUID: "j2", Sequence: 4, FinishedAt: ended, Reason: v1alpha1.ReasonReportForged, Err: errors.New("it was changed")},
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep = &v1alpha1.SweepStatus{JobUID: "j2", Sequence: 4, Outcome: v1alpha1.SweepLost, Reason: v1alpha1.ReasonReportForged,
					Message: "it was changed" + messageRepeated, FinishedAt: at(ended), Attempt: 1}
			},
		},
		"of two sweeps at once one is turned away, and that is no failure": {
			sweep: func() Sweep {
				s := sweep(encode(func(r *report.Report) {
					*r = report.Report{Plan: hash, Outcome: report.Refused, Reason: v1alpha1.ReasonStoreBusy, Mode: "Audit"}
				}))
				s.Overlapped = true
				return s
			}(),
			want: func(s *v1alpha1.DataStoreStatus) {
				s.LastSweep.JobUID, s.LastSweep.Sequence, s.LastSweep.FinishedAt = "j2", 5, at(ended)
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			want := *before.DeepCopy()
			tc.want(&want)
			given := *before.DeepCopy()
			got := Measure(given, tc.sweep, makeObserved().Result.Plan, "digest")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, given); diff != "" {
				t.Errorf("the status that was given has changed:\n%s", diff)
			}
		})
	}
	t.Run("attempts are counted, and a measurement ends the count", func(t *testing.T) {
		s := Measure(before, sweep(""), makeObserved().Result.Plan, "digest")
		s = Measure(s, sweep(""), makeObserved().Result.Plan, "digest")
		if s.LastSweep.Attempt != 2 {
			t.Errorf("attempt %d, want 2", s.LastSweep.Attempt)
		}
		if s = Measure(s, sweep(encode(nil)), makeObserved().Result.Plan, "digest"); s.LastSweep.Attempt != 0 {
			t.Errorf("attempt %d after a measurement, want 0", s.LastSweep.Attempt)
		}
	})
	t.Run("the number of the last report never falls, and a report that does not count says why", func(t *testing.T) {
		s := Measure(before, sweep(encode(nil)), makeObserved().Result.Plan, "digest")
		s = Measure(s, Sweep{JobUID: "j3", FinishedAt: ended, Current: true, Reason: v1alpha1.ReasonReportReplayed, Err: errors.New("an earlier one")}, makeObserved().Result.Plan, "digest")
		if l := s.LastSweep; l.Sequence != 5 || l.Outcome != v1alpha1.SweepLost || l.Reason != v1alpha1.ReasonReportReplayed || !s.MeasuredAt.Equal(at(ended)) {
			t.Errorf("%+v, measured at %s", l, s.MeasuredAt)
		}
	})
}
