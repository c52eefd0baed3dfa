package status

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestEndedBefore: why the pod before was ended as a whole is said by what remains of it, its events, while nothing
// is wrong with the present one and as long as that can be the reason.
func TestEndedBefore(t *testing.T) {
	of := func(uid, reason, message string, before time.Duration) corev1.Event {
		return corev1.Event{Reason: reason, Message: message, LastTimestamp: ago(before), Source: corev1.EventSource{Host: "gone"},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "b-bot-0", UID: types.UID(uid)}}
	}
	evicted := of("before", "Evicted", "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Mi\". ", 20*time.Second)
	made := func(before time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = ago(before) }
	}
	fresh := tablePod(made(10*time.Second), neverBegan)
	down := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}}}
	up := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	for name, tc := range map[string]struct {
		pod     *corev1.Pod
		events  []corev1.Event
		node    *corev1.Node
		has     bool
		since   time.Duration // unready
		current string
		reason  string
		says    string
	}{
		"evicted, no pod yet":               {pod: nil, events: []corev1.Event{evicted}, reason: v1alpha1.ReasonEvicted, says: `exceeds the limit "1Mi". Have the bot write less`},
		"evicted, the next starts":          {pod: fresh, events: []corev1.Event{evicted}, reason: v1alpha1.ReasonEvicted, says: "another one is made"},
		"and the next is ready, not lasted": {pod: tablePod(made(10 * time.Second)), events: []corev1.Event{evicted}, reason: v1alpha1.ReasonEvicted},
		"for others":                        {pod: fresh, events: []corev1.Event{of("before", "Evicted", "The node was low on resource: memory. ", 20*time.Second)}, reason: v1alpha1.ReasonEvicted, says: "keeps the bot from being the first"},
		"rejected":                          {pod: fresh, events: []corev1.Event{of("before", "OutOfmemory", "Node didn't have enough resource: memory", 20*time.Second)}, reason: v1alpha1.ReasonEvicted, says: "(OutOfmemory)"},
		"the node shuts down":               {pod: fresh, events: []corev1.Event{of("before", "NodeShutdown", "Pod was rejected as the node is shutting down.", 20*time.Second)}, reason: v1alpha1.ReasonNodeShutdown, says: "shutting down"},
		"the node has shut down":            {pod: fresh, events: []corev1.Event{of("before", "Killing", "Stopping container bot", 20*time.Second)}, node: down, has: true, reason: v1alpha1.ReasonNodeShutdown, says: "Node gone"},
		"the node is gone":                  {pod: fresh, events: []corev1.Event{of("before", "Killing", "Stopping container bot", 20*time.Second)}, has: true, reason: v1alpha1.ReasonNodeShutdown, says: "Node gone"},
		"the node is well":                  {pod: fresh, events: []corev1.Event{of("before", "Killing", "Stopping container bot", 20*time.Second)}, node: up, has: true, reason: v1alpha1.ReasonPodNotReady},
		"preempted":                         {pod: fresh, events: []corev1.Event{of("before", "Preempted", "Preempted by pod x on node n", 20*time.Second)}, reason: v1alpha1.ReasonEvicted, says: "Preempted by pod x"},
		"tainted, and not after all":        {pod: fresh, events: []corev1.Event{of("before", "TaintManagerEviction", "Cancelling deletion of Pod ns/b-bot-0", 20*time.Second)}, reason: v1alpha1.ReasonPodNotReady},
		"the last of several":               {pod: fresh, events: []corev1.Event{evicted, of("other", "Preempted", "Preempted by pod x", 15*time.Second)}, reason: v1alpha1.ReasonEvicted, says: "by pod x"},
		"its own event":                     {pod: fresh, events: []corev1.Event{of("pod", "Evicted", "x", 5*time.Second)}, reason: v1alpha1.ReasonPodNotReady},
		"long ago":                          {pod: fresh, events: []corev1.Event{of("before", "Evicted", "x", time.Hour)}, reason: v1alpha1.ReasonPodNotReady},
		"it became unready later":           {pod: tablePod(made(time.Minute)), events: []corev1.Event{of("before", "Evicted", "x", 61*time.Second)}, since: 5 * time.Second, reason: v1alpha1.ReasonPodNotReady},
		"it was changed":                    {pod: fresh, events: []corev1.Event{evicted}, current: "old", reason: v1alpha1.ReasonPodNotReady},
		"the first pod":                     {pod: tablePod(made(time.Hour), neverBegan), events: []corev1.Event{evicted}, reason: v1alpha1.ReasonPodNotReady},
		"the next has trouble of its own":   {pod: tablePod(made(10*time.Second), waitsFor(bot, "InvalidImageName", "")), events: []corev1.Event{evicted}, reason: v1alpha1.ReasonInvalidImageName},
	} {
		t.Run(name, func(t *testing.T) {
			o := PodObserved{Set: tableSet(), Pod: tc.pod, EventsBefore: tc.events, NodeBefore: tc.node, HasNodeBefore: tc.has, UnreadySince: podNow.Add(-15 * time.Second), Now: podNow}
			o.Set.CreationTimestamp, o.Set.Status.CurrentRevision = ago(time.Hour), "new"
			if tc.since > 0 {
				o.UnreadySince = podNow.Add(-tc.since)
			}
			if tc.current != "" {
				o.Set.Status.CurrentRevision = tc.current
			}
			w := Unready(o)
			if w.Reason != tc.reason || !strings.Contains(w.Message, tc.says) {
				t.Errorf("%+v, want %s with %q", w, tc.reason, tc.says)
			}
			if told := w.Reason == v1alpha1.ReasonEvicted || w.Reason == v1alpha1.ReasonNodeShutdown; told && !Looks(o).Before {
				t.Error("nobody would have looked")
			}
			if tc.has && NodeBefore(o) != "gone" {
				t.Errorf("node %q", NodeBefore(o))
			}
		})
	}
	// It lasts only when it has lasted for longer than a moment.
	for _, tc := range []struct {
		ready    time.Duration
		unsteady bool
	}{{6 * time.Second, true}, {59 * time.Second, true}, {61 * time.Second, false}} {
		o := PodObserved{Set: tableSet(), EventsBefore: []corev1.Event{of("before", "Evicted", "x", tc.ready+5*time.Second)}, UnreadySince: podNow.Add(-tc.ready - 4*time.Second), Now: podNow,
			Pod: tablePod(made(tc.ready+3*time.Second), func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(tc.ready)}}
			})}
		o.Set.CreationTimestamp, o.Set.Status.CurrentRevision = ago(time.Hour), "new"
		if _, _, got := Unsteady(o); got != tc.unsteady {
			t.Errorf("ready for %s: unsteady %v", tc.ready, got)
		}
	}
	// A pod that is being ended says for whose sake.
	end := ago(0)
	checkUnready(t, PodObserved{Pod: tablePod(func(p *corev1.Pod) {
		p.DeletionTimestamp = &end
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting"})
	})}, v1alpha1.ReasonPodTerminating, "(EvictionByEvictionAPI)", false)
}
