package kstatus

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestTheCheckerFinds: a check that lets everything pass would find every status right.
func TestTheCheckerFinds(t *testing.T) {
	is := func(kind string, value metav1.ConditionStatus, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: value, Reason: "Because", Message: message, ObservedGeneration: 2}
	}
	for name, tc := range map[string]struct {
		observed   int64
		conditions []metav1.Condition
		says       string // "" for nothing
	}{
		"ready":                        {2, []metav1.Condition{is("Ready", "True", "a")}, ""},
		"at work":                      {2, []metav1.Condition{is("Ready", "False", "a"), is("Reconciling", "True", "See condition Ready.")}, ""},
		"stalled":                      {2, []metav1.Condition{is("Ready", "False", "a"), is("Stalled", "True", "See condition Ready.")}, ""},
		"nobody has looked":            {-1, []metav1.Condition{is("Ready", "Unknown", "a"), is("Reconciling", "True", "See condition Ready.")}, ""},
		"no Ready":                     {2, []metav1.Condition{is("Stalled", "True", "a")}, "Ready condition must always be present"},
		"ready and stalled":            {2, []metav1.Condition{is("Ready", "True", "a"), is("Stalled", "True", "b")}, "Ready condition must be False when Stalled"},
		"stalled that is not":          {2, []metav1.Condition{is("Ready", "True", "a"), is("Stalled", "False", "b")}, "can be removed"},
		"not ready for no reason":      {2, []metav1.Condition{is("Ready", "False", "a")}, "neither Ready"},
		"a status about another spec":  {1, []metav1.Condition{is("Ready", "False", "a")}, ""},
		"the same words twice":         {2, []metav1.Condition{is("Ready", "True", "a"), is("Compliant", "True", "a")}, "both say: a"},
		"a name of what is not there":  {2, []metav1.Condition{is("Ready", "True", "See condition Compliant.")}, "not there to be seen"},
		"a condition of an older spec": {2, []metav1.Condition{is("Ready", "True", "a"), {Type: "Compliant", Status: "True", Reason: "B", ObservedGeneration: 1}}, "ObservedGeneration"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &v1alpha1.DataStore{}
			store.Generation, store.Status.ObservedGeneration, store.Status.Conditions = 2, tc.observed, tc.conditions
			problems := strings.Join(Problems(store), "\n")
			if (tc.says == "") != (problems == "") || !strings.Contains(problems, tc.says) {
				t.Errorf("found %q, want %q", problems, tc.says)
			}
		})
	}
}
