package status

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// steps are how far a bot has come when a reason of its workload is told. One that is not here is of something before its pod, or of what no step of
// its own gets over: another thing has to end.
var steps = map[string]int{
	v1alpha1.ReasonQuotaExceeded: 1, v1alpha1.ReasonPodRefused: 1,
	v1alpha1.ReasonPodMissing:       2,
	v1alpha1.ReasonUnschedulable:    3,
	v1alpha1.ReasonVolumeNotMounted: 4, v1alpha1.ReasonPodSandboxFailed: 4,
	v1alpha1.ReasonCredentialsNotFetched: 5, v1alpha1.ReasonPodMismatch: 5,
	v1alpha1.ReasonPodNotReady: 6, v1alpha1.ReasonEvicted: 6, v1alpha1.ReasonNodeShutdown: 6,
}

const imageStep, endedStep = 5, 6

func stepOf(reason string) int {
	switch {
	case hasEnded[reason]:
		return endedStep
	case failing[reason] && steps[reason] == 0, IsPull(reason):
		return imageStep
	default:
		return steps[reason]
	}
}

// LiesBehind says whether what kept a bot, by the reason that was told last, is over, now that another reason is told: the bot has come further. What a
// program does of itself is never behind before it lasts.
func LiesBehind(was, now string) bool { return stepOf(was) < stepOf(now) }

// LastStep is when the pod of the present revision came its last step further on the way to be ready; zero where there is no such pod.
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
