// Package status computes conditions out of what was observed. It knows no client and no clock: the same observation
// gives the same conditions, so that nothing is written when nothing has changed.
package status

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
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

// Summary is Ready, with Reconciling or Stalled where the object is not Current, in kstatus' sense: they say whether
// the object is in force as it is written, out of the first problem of one that has any. progressing says that the
// controller still works towards the spec. Reconciling and Stalled are there only while they are True, as kstatus and
// Flux' checker want it.
func Summary(problem *Problem, progressing bool, reason, message string) []metav1.Condition {
	switch {
	case problem == nil && !progressing:
		return []metav1.Condition{condition(v1alpha1.ConditionReady, metav1.ConditionTrue, reason, message)}
	case problem == nil:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, message),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonProgressing, message),
		}
	case problem.Stalled:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, problem.Reason, problem.Message),
			condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, problem.Reason, problem.Message),
		}
	default:
		return []metav1.Condition{
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, problem.Reason, problem.Message),
			condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, problem.Reason, problem.Message),
		}
	}
}

// see names the condition that says something, instead of saying it once more.
func see(kind string) string { return seePrefix + kind + "." }

const seePrefix = "See condition "

// See is the condition whose message tells what one of a kind is about: that one, or the one that it names.
func See(conditions []metav1.Condition, kind string) *metav1.Condition {
	for range conditions {
		c := meta.FindStatusCondition(conditions, kind)
		if c == nil {
			return nil
		}
		named, ok := strings.CutPrefix(c.Message, seePrefix)
		if !ok || meta.FindStatusCondition(conditions, strings.TrimSuffix(named, ".")) == nil {
			return c
		}
		kind = strings.TrimSuffix(named, ".")
	}
	return nil
}

// once leaves a message in one condition: that of the step that it is about, or else in Ready. The others name that
// one.
func once(conditions []metav1.Condition) []metav1.Condition {
	rank := func(c metav1.Condition) int {
		switch c.Type {
		case v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled:
			return 2
		case v1alpha1.ConditionReady:
			return 1
		default:
			return 0
		}
	}
	order := make([]int, len(conditions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(conditions[a]) - rank(conditions[b]) })
	said := map[string]string{}
	for _, i := range order {
		c := &conditions[i]
		if by, ok := said[c.Message]; ok && c.Message != "" && c.Reason != v1alpha1.ReasonWaiting && !strings.HasPrefix(c.Message, seePrefix) {
			c.Message = see(by)
			continue
		}
		said[c.Message] = c.Type
	}
	// A step that waits for an earlier one names what that waits for.
	if told := See(conditions, v1alpha1.ConditionReady); told != nil && told.Reason != v1alpha1.ReasonWaiting {
		for i := range conditions {
			if conditions[i].Reason == v1alpha1.ReasonWaiting {
				conditions[i].Message = see(told.Type)
			}
		}
	}
	return conditions
}

// Step is the condition of one part of the work. It takes the problem that belongs to it; without one it is True when
// done, and Unknown otherwise.
func Step(kind string, problem *Problem, done bool, reason, message string) metav1.Condition {
	switch {
	case problem != nil && problem.Condition == kind:
		return condition(kind, metav1.ConditionFalse, problem.Reason, problem.Message)
	case done:
		return condition(kind, metav1.ConditionTrue, reason, message)
	default:
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonWaiting, "An earlier step comes first.")
	}
}

// Apply puts conditions in place, each of a generation. A condition's time changes only when its status does. What no
// longer reconciles, or is no longer stalled, has no condition that says so.
func Apply(conditions *[]metav1.Condition, computed []metav1.Condition, generation int64, now metav1.Time) {
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		if meta.FindStatusCondition(computed, kind) == nil {
			meta.RemoveStatusCondition(conditions, kind)
		}
	}
	for _, c := range once(computed) {
		c.ObservedGeneration = generation
		c.LastTransitionTime = now
		meta.SetStatusCondition(conditions, c)
	}
}
