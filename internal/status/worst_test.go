package status

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// What was overdue stays known with its time, also when the sweep that saw it has deleted it, and only under the same
// promise.
func TestTheWorstThatWasSeenIsKept(t *testing.T) {
	first := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	rule := func(window string) v1alpha1.RuleMeasurement {
		return v1alpha1.RuleMeasurement{Policy: "privacy", Rule: "conversations", Window: window}
	}
	known := v1alpha1.DatasetMeasurement{Name: "messages"}
	p := plan.Rule{Policy: "privacy", Rule: "conversations"}
	for n, step := range []struct {
		window string
		seen   int64
		want   int64
		since  int // step in which it was seen; -1: never
	}{
		{"P90D", 0, 0, -1}, {"P90D", 60, 60, 1}, {"P90D", 0, 60, 1}, {"P90D", 60, 60, 1}, {"P90D", 864000, 864000, 4}, {"P90D", 61, 864000, 4}, {"P30D", 0, 0, -1}, {"P30D", 5, 5, 7},
	} {
		m := rule(step.window)
		p.RetainFor = storeDays(90)
		if step.window == "P30D" {
			p.RetainFor = storeDays(30)
		}
		_, before := measurementOf([]v1alpha1.DatasetMeasurement{known}, "messages", p)
		keepWorst(&m, before, step.seen, first.Add(time.Duration(n)*time.Hour))
		if m.WorstOverdueSeconds != step.want {
			t.Errorf("step %d: %d seconds, want %d", n, m.WorstOverdueSeconds, step.want)
		}
		if step.since < 0 && m.WorstOverdueAt != nil || step.since >= 0 && (m.WorstOverdueAt == nil || !m.WorstOverdueAt.Time.Equal(first.Add(time.Duration(step.since)*time.Hour))) {
			t.Errorf("step %d: seen at %v, want step %d", n, m.WorstOverdueAt, step.since)
		}
		known.Rules = []v1alpha1.RuleMeasurement{m}
	}
}

// TestTheWorstOutlivesAReportThatSaysNothing: a sweep that was broken into may leave a rule out, and what was seen of
// it stays known as long as the plan has the rule with its window. That it was measured is not said thereby.
func TestTheWorstOutlivesAReportThatSaysNothing(t *testing.T) {
	o := makeObserved()
	line := func(dataset, rule string, overdue int64) report.Dataset {
		return report.Dataset{Name: dataset, Rows: 9, Rules: []report.Rule{{Policy: "privacy", Rule: rule, OldestOverdueSeconds: overdue}}}
	}
	sweep := func(p plan.Plan, hour int, measured ...report.Dataset) {
		o.Measured = Measure(o.Measured, Sweep{JobUID: "j", FinishedAt: storeNow.Add(time.Duration(hour) * time.Hour), Current: true,
			Report: report.Report{Outcome: report.Done, Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Datasets: measured}}, p, o.PlanDigest)
	}
	messages, contacts := line("messages", "conversations", 0), line("contacts", "contacts", 0)
	left := v1alpha1.RuleMeasurement{Policy: "privacy", Rule: "contacts", Window: "P90D", WorstOverdueSeconds: 600, WorstOverdueAt: at(storeNow),
		Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonLeftOut, Message: "the last report says nothing of this rule"}}
	known := func() *v1alpha1.RuleMeasurement {
		_, m := o.Measured.Measurement("contacts", "privacy", "contacts")
		return m
	}
	compliant := func(want string) {
		t.Helper()
		o.Now = o.Measured.MeasuredAt.Time
		if got := states(Store(o))["Compliant"]; got != want {
			t.Errorf("Compliant is %s, want %s", got, want)
		}
	}
	sweep(o.Result.Plan, 0, messages, line("contacts", "contacts", 600))
	sweep(o.Result.Plan, 1, messages)
	if diff := cmp.Diff(&left, known()); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	compliant("Unknown NotMeasured")
	sweep(o.Result.Plan, 2, messages)
	if diff := cmp.Diff(&left, known()); diff != "" {
		t.Errorf("left out again (-want +got):\n%s", diff)
	}
	compliant("Unknown NotMeasured")
	sweep(o.Result.Plan, 3, messages, contacts)
	if m := known(); m == nil || m.WorstOverdueSeconds != 600 || !m.WorstOverdueAt.Equal(at(storeNow)) || m.Reason != "" {
		t.Errorf("measured again: %+v", m)
	}
	compliant("True Compliant")
	without := o.Result.Plan
	without.Datasets = without.Datasets[1:]
	sweep(without, 4, messages)
	if m := known(); m != nil {
		t.Errorf("of a rule that is gone: %+v", m)
	}
}
