// Package status computes conditions out of what was observed. It knows no client and no clock: the same observation gives
// the same conditions, so that nothing is written when nothing has changed.
package status

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// Reasons that every kind uses. A problem brings its own.
const (
	ReasonReady       = "Ready"
	ReasonProgressing = "Progressing"
	ReasonNotStalled  = "NotStalled"
	ReasonSettled     = "Settled"
	ReasonWaiting     = "Waiting"
	ReasonDeleting    = "Deleting"
)

// messageLimit bounds what an API server's error may put into a condition.
const messageLimit = 1024

// Problem is what keeps an object from being as its spec asks.
type Problem struct {
	// Condition that it belongs to.
	Condition string
	// Reason in CamelCase.
	Reason string
	// Message in words, the same as long as the problem is the same: what is wrong, and what to do about it.
	Message string
	// Stalled says that nothing goes on until a person changes something.
	Stalled bool
}

// condition makes one, with a message that fits.
func condition(kind string, value metav1.ConditionStatus, reason, message string) metav1.Condition {
	// The last door: whatever a message was made of, it is one line that a terminal and a reader take for what it is.
	return metav1.Condition{Type: kind, Status: value, Reason: reason, Message: foreign.Line(message, messageLimit)}
}

// Summary is Ready, Reconciling and Stalled in kstatus' sense, out of the first problem of an object that has one.
// progressing says that the controller still works towards the spec.
func Summary(problem *Problem, progressing bool, readyMessage string) []metav1.Condition {
	switch {
	case problem == nil && !progressing:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionTrue, ReasonReady, readyMessage),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionFalse, ReasonSettled, "Everything is as the spec asks."),
			condition(v1alpha1.ConditionStalled, metav1.ConditionFalse, ReasonNotStalled, ""),
		}
	case problem == nil:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, ReasonProgressing, readyMessage),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, ReasonProgressing, readyMessage),
			condition(v1alpha1.ConditionStalled, metav1.ConditionFalse, ReasonNotStalled, ""),
		}
	case problem.Stalled:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, problem.Reason, problem.Message),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionFalse, ReasonSettled, "Waiting for a person."),
			condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, problem.Reason, problem.Message),
		}
	default:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, problem.Reason, problem.Message),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, problem.Reason, problem.Message),
			condition(v1alpha1.ConditionStalled, metav1.ConditionFalse, ReasonNotStalled, ""),
		}
	}
}

// Step is the condition of one part of the work. It takes the problem that belongs to it; without one it is True when done,
// and Unknown otherwise.
func Step(kind string, problem *Problem, done bool, reason, message string) metav1.Condition {
	switch {
	case problem != nil && problem.Condition == kind:
		return condition(kind, metav1.ConditionFalse, problem.Reason, problem.Message)
	case done:
		return condition(kind, metav1.ConditionTrue, reason, message)
	default:
		return condition(kind, metav1.ConditionUnknown, ReasonWaiting, "An earlier step comes first.")
	}
}

// Apply puts conditions in place, each of a generation. A condition's time changes only when its status does.
func Apply(conditions *[]metav1.Condition, computed []metav1.Condition, generation int64, now metav1.Time) {
	for _, c := range computed {
		c.ObservedGeneration = generation
		c.LastTransitionTime = now
		meta.SetStatusCondition(conditions, c)
	}
}
