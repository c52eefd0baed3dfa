package status

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

const (
	// replacedAfter is how much younger than its set a pod is that was not the first.
	replacedAfter = 5 * time.Second
	// endsWithin is how long before the present pod was made the one before may have been told to end, beside its own
	// time to end.
	endsWithin = 2 * time.Minute
	// toldWithin is how long the manager may take to see that a bot is not ready.
	toldWithin = 15 * time.Second
)

// endings are the reasons of events that tell why a pod was ended as a whole: by the kubelet, which also rejects one
// that it does not take, by the scheduler, and by who empties a node. A StatefulSet's controller deletes such a pod
// at once, and with it what it said.
var endings = []string{
	v1alpha1.ReasonEvicted, v1alpha1.ReasonNodeShutdown, "Preempted", "Preempting", "TaintManagerEviction", "NodeAffinity", "UnexpectedAdmissionError", "TopologyAffinityError",
	"NodeName", "NodePorts", "PodOSNotSupported", "AppArmor",
}

func isEnding(e *corev1.Event) bool {
	return (slices.Contains(endings, e.Reason) || strings.HasPrefix(e.Reason, "OutOf")) && !strings.HasPrefix(e.Message, "Cancelling")
}

// hadOneBefore says whether a bot may wait because the pod before the present one was ended as a whole.
func hadOneBefore(o PodObserved) bool {
	switch {
	case wanted(o.Set) == 0 || o.Set.Status.CurrentRevision != o.Set.Status.UpdateRevision:
		return false // it was ended for another one's sake
	case o.Pod == nil:
		return o.Now.Sub(o.Set.CreationTimestamp.Time) > replacedAfter
	default:
		made := o.Pod.CreationTimestamp.Time
		return o.Pod.DeletionTimestamp == nil && made.Sub(o.Set.CreationTimestamp.Time) > replacedAfter && !o.UnreadySince.After(made.Add(toldWithin))
	}
}

// ofBefore are the events about the pod before, as long as they can be the reason for what is now.
func ofBefore(o PodObserved) []corev1.Event {
	if !hadOneBefore(o) {
		return nil
	}
	made := o.Now
	if o.Pod != nil {
		made = o.Pod.CreationTimestamp.Time
	}
	within := endsWithin
	if grace := o.Set.Spec.Template.Spec.TerminationGracePeriodSeconds; grace != nil {
		within += time.Duration(*grace) * time.Second
	}
	return slices.DeleteFunc(slices.Clone(o.EventsBefore), func(e corev1.Event) bool {
		return e.InvolvedObject.Kind != "Pod" || o.Pod != nil && e.InvolvedObject.UID == o.Pod.UID || eventTime(&e).Before(made.Add(-within))
	})
}

// NodeBefore is the node that has told the pod before to end, or empty.
func NodeBefore(o PodObserved) string {
	if last := newest(ofBefore(o), "Killing"); last != nil {
		return last.Source.Host
	}
	return ""
}

// endedBefore says why the pod before the present one was ended as a whole; not ok where nobody tells, or there was
// none.
func endedBefore(o PodObserved) (Workload, bool) {
	all := ofBefore(o)
	var last *corev1.Event
	for i := range all {
		if e := &all[i]; isEnding(e) && (last == nil || !eventTime(e).Before(eventTime(last))) {
			last = e
		}
	}
	if last != nil {
		return endedBecause(last.Reason, last.Message), true
	}
	name := NodeBefore(o)
	if name == "" || !o.HasNodeBefore || !isDown(o.NodeBefore) {
		return Workload{}, false
	}
	return trouble(v1alpha1.ReasonNodeShutdown, "Node %s, on which the pod ran, has ended it and is shut down; another one is made.", name), true
}

// endedBecause says why a pod was ended as a whole, and what to do where that is the bot's. Another one is made in
// its place.
func endedBecause(reason, message string) Workload {
	why := orNothing(foreign.Line(message, messageLimit/2))
	switch {
	case reason == v1alpha1.ReasonNodeShutdown, reason == "Terminated" && strings.Contains(message, "node shutdown"):
		return trouble(v1alpha1.ReasonNodeShutdown, "The node shuts down and has ended the pod, and another one is made: %s", why)
	case reason != v1alpha1.ReasonEvicted:
		return trouble(v1alpha1.ReasonEvicted, "The pod was ended (%s), and another one is made: %s Where that happens again, see kubectl get events in the bot's namespace, and who empties or fills the node.", foreign.Name(reason), why)
	case strings.Contains(message, "node was low on resource"), strings.Contains(message, "node had condition"):
		return trouble(v1alpha1.ReasonEvicted, "The node ended the pod, and another one is made: %s The node itself was short of it: a request (spec.resources.requests) keeps the bot from being the first.", why)
	default:
		return trouble(v1alpha1.ReasonEvicted, "The node ended the pod, and another one is made: %s Have the bot write less, or give it more.", why)
	}
}

func isDown(node *corev1.Node) bool {
	if node == nil {
		return true
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status != corev1.ConditionTrue
		}
	}
	return true
}
