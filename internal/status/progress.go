package status

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// LiesBehind says whether what kept a bot, by the reason that was told last, is over, now that another reason is
// told: the bot has come further. What a program does of itself is never behind before it lasts.
func LiesBehind(was, now string) bool {
	return v1alpha1.FactsOf(was).Pod.Step < v1alpha1.FactsOf(now).Pod.Step
}

// LastStep is when the pod of the present revision came its last step further on the way to be ready; zero where
// there is no such pod.
func LastStep(o PodObserved) time.Time {
	pod := o.Pod
	if pod == nil || pod.Labels[appsv1.ControllerRevisionHashLabelKey] != o.Set.Status.UpdateRevision {
		return time.Time{}
	}
	last := pod.CreationTimestamp.Time
	at := func(t time.Time) {
		if t.After(last) {
			last = t
		}
	}
	for _, c := range pod.Status.Conditions {
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized:
			if c.Status == corev1.ConditionTrue {
				at(c.LastTransitionTime.Time)
			}
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.RestartCount == 0 && c.State.Running != nil && c.LastTerminationState.Terminated == nil {
			at(c.State.Running.StartedAt.Time)
		}
	}
	return last
}
