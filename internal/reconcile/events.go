package reconcile

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/status"
)

// FitRecorder is the one way to an Event: its note is a line that a terminal takes for what it is, and as long as the
// API server takes.
type FitRecorder struct{ events.EventRecorder }

// Eventf implements events.EventRecorder.
func (r FitRecorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, kind, reason, action, "%s", foreign.Line(fmt.Sprintf(note, args...), foreign.MaxText))
}

// EmitEvents sends an event for each condition that went wrong or came right, once, after the status says so. A
// condition that is right from the start is no news.
func EmitEvents(recorder events.EventRecorder, object client.Object, before, after []metav1.Condition) {
	told := map[string]bool{}
	for _, was := range before {
		told[was.Reason] = told[was.Reason] || isBad(was) // one reason may speak through several conditions, one after the other
	}
	for _, now := range after {
		was := meta.FindStatusCondition(before, now.Type)
		if was != nil && was.Status == now.Status && was.Reason == now.Reason {
			continue
		}
		kind := corev1.EventTypeNormal
		switch {
		case isBad(now):
			kind = corev1.EventTypeWarning
		case now.Type != v1alpha1.ConditionReady || now.Status != metav1.ConditionTrue || was == nil || was.Status == metav1.ConditionUnknown:
			continue
		}
		if !told[now.Reason] {
			told[now.Reason] = true
			note := fmt.Sprintf("condition %s is %s, and says more", now.Type, now.Status)
			if about := status.See(after, now.Type); about != nil && about.Type != now.Type {
				note = fmt.Sprintf("condition %s is %s, and condition %s says more", now.Type, now.Status, about.Type)
			}
			recorder.Eventf(object, nil, kind, now.Reason, "Reconcile", "%s", note)
		}
	}
}

// expected are reasons for something not to be ready that nobody need look at.
var expected = map[string]bool{v1alpha1.ReasonProgressing: true, v1alpha1.ReasonSuspended: true, v1alpha1.ReasonStopping: true, v1alpha1.ReasonPodTerminating: true}

// isBad says whether a condition tells of something that a person should look at.
func isBad(c metav1.Condition) bool {
	switch c.Type {
	case v1alpha1.ConditionStalled, v1alpha1.ConditionChangesPaused:
		return c.Status == metav1.ConditionTrue
	case v1alpha1.ConditionReconciling, v1alpha1.ConditionReady, v1alpha1.ConditionInUse:
		return false
	default:
		return (c.Status == metav1.ConditionFalse && !expected[c.Reason]) || c.Reason == v1alpha1.ReasonRolledBack || c.Reason == v1alpha1.ReasonPlaintextInSpec || c.Reason == v1alpha1.ReasonPodSecurityOverruled
	}
}

// CutList joins a list for a message, the first few of it.
func CutList(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], "; "), len(list)-most)
	}
	return strings.Join(list, "; ")
}
