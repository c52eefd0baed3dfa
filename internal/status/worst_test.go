package status

import (
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// What was overdue stays known with its time, also when the sweep that saw it has deleted it, and only under the same promise.
func TestTheWorstThatWasSeenIsKept(t *testing.T) {
	first := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	rule := func(window string) v1alpha1.RuleMeasurement {
		return v1alpha1.RuleMeasurement{Dataset: "messages", Policy: "privacy", Rule: "conversations", Window: window}
	}
	var known []v1alpha1.RuleMeasurement
	for n, step := range []struct {
		window string
		seen   int64
		want   int64
		since  int // step in which it was seen; -1: never
	}{
		{"P90D", 0, 0, -1}, {"P90D", 60, 60, 1}, {"P90D", 0, 60, 1}, {"P90D", 60, 60, 1}, {"P90D", 864000, 864000, 4}, {"P90D", 61, 864000, 4}, {"P30D", 0, 0, -1}, {"P30D", 5, 5, 7},
	} {
		m := rule(step.window)
		keepWorst(&m, known, step.seen, first.Add(time.Duration(n)*time.Hour))
		if m.WorstOverdueSeconds != step.want {
			t.Errorf("step %d: %d seconds, want %d", n, m.WorstOverdueSeconds, step.want)
		}
		if step.since < 0 && m.WorstOverdueAt != nil || step.since >= 0 && (m.WorstOverdueAt == nil || !m.WorstOverdueAt.Time.Equal(first.Add(time.Duration(step.since)*time.Hour))) {
			t.Errorf("step %d: seen at %v, want step %d", n, m.WorstOverdueAt, step.since)
		}
		known = []v1alpha1.RuleMeasurement{m}
	}
}
