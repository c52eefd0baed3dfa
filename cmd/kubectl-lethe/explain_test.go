package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

// TestExplainTellsACutFromNotMeasured: a rule that is in no status was not measured yet, or had no room, and one whose
// message had none says its reason alone.
func TestExplainTellsACutFromNotMeasured(t *testing.T) {
	rule := plan.Rule{Policy: "p", Rule: "r"}
	for name, tc := range map[string]struct {
		status v1alpha1.DataStoreStatus
		want   string
	}{
		"nothing was measured":       {v1alpha1.DataStoreStatus{}, "Not measured yet."},
		"the status had no room":     {v1alpha1.DataStoreStatus{Omitted: &v1alpha1.OmittedMeasurements{Rules: 1}}, "had no room for all measurements (LimitReached)"},
		"only texts had no room":     {v1alpha1.DataStoreStatus{Omitted: &v1alpha1.OmittedMeasurements{Texts: 1}}, "Not measured yet."},
		"the message had no room":    {measuredAs(v1alpha1.Problem{Reason: v1alpha1.ReasonLocked}), "Last measurement: Locked."},
		"it has a reason and a text": {measuredAs(v1alpha1.Problem{Reason: v1alpha1.ReasonLocked, Message: "somebody holds it"}), "Last measurement: Locked: somebody holds it"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			s := &compiledStore{store: &v1alpha1.DataStore{Status: tc.status}}
			s.explainRule(plan.Dataset{Name: "messages", Rules: []plan.Rule{rule}}, rule, func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) })
			if !strings.Contains(out.String(), tc.want) || strings.Contains(out.String(), "Last measurement: Locked: \n") {
				t.Errorf("want %q in\n%s", tc.want, out.String())
			}
		})
	}
}

func measuredAs(p v1alpha1.Problem) v1alpha1.DataStoreStatus {
	return v1alpha1.DataStoreStatus{Datasets: []v1alpha1.DatasetMeasurement{{Name: "messages", Rules: []v1alpha1.RuleMeasurement{{Policy: "p", Rule: "r", Problem: p}}}}}
}
