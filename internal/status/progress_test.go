package status

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestLiesBehind: a bot comes further from one obstacle to the next, and never by a program that ends again and again.
func TestLiesBehind(t *testing.T) {
	way := [][]string{
		{"FileMissing", v1alpha1.ReasonSuspended, v1alpha1.ReasonWaiting, v1alpha1.ReasonNodeLost, v1alpha1.ReasonPodTerminating, "NameTaken", "VolumeMissing"},
		{v1alpha1.ReasonQuotaExceeded, v1alpha1.ReasonPodRefused},
		{v1alpha1.ReasonPodMissing},
		{v1alpha1.ReasonUnschedulable},
		{v1alpha1.ReasonVolumeNotMounted, v1alpha1.ReasonPodSandboxFailed},
		{v1alpha1.ReasonCredentialsNotFetched, v1alpha1.ReasonPodMismatch, v1alpha1.ReasonImageNotFound, v1alpha1.ReasonRegistryUnavailable, v1alpha1.ReasonInvalidImageName, "CreateContainerConfigError"},
		{v1alpha1.ReasonPodNotReady, v1alpha1.ReasonCrashLoopBackOff, v1alpha1.ReasonOOMKilled, v1alpha1.ReasonContainerCannotStart, v1alpha1.ReasonLivenessProbeFailed, v1alpha1.ReasonEvicted},
	}
	for i, earlier := range way {
		for j, later := range way {
			for _, was := range earlier {
				for _, now := range later {
					if got := LiesBehind(was, now); got != (i < j) {
						t.Errorf("%s, then %s: %v", was, now, got)
					}
				}
			}
		}
	}
}

// TestLastStep: what the pod itself says of its way, and nothing of what it does again.
func TestLastStep(t *testing.T) {
	condition := func(kind corev1.PodConditionType, value corev1.ConditionStatus, before time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: value, LastTransitionTime: ago(before)})
		}
	}
	made := func(p *corev1.Pod) {
		p.CreationTimestamp = ago(time.Hour)
		bot(p).State.Running.StartedAt = ago(2 * time.Hour)
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want time.Duration // before now; 0: never
	}{
		"no pod":                   {nil, 0},
		"of an earlier revision":   {tablePod(made, func(p *corev1.Pod) { p.Labels = nil }), 0},
		"made":                     {tablePod(made), time.Hour},
		"not scheduled since":      {tablePod(made, condition(corev1.PodScheduled, corev1.ConditionFalse, time.Minute)), time.Hour},
		"scheduled after an hour":  {tablePod(made, condition(corev1.PodScheduled, corev1.ConditionTrue, time.Minute)), time.Minute},
		"its volume came late":     {tablePod(made, condition(corev1.PodReadyToStartContainers, corev1.ConditionTrue, time.Minute)), time.Minute},
		"its credentials came":     {tablePod(made, condition(corev1.PodInitialized, corev1.ConditionTrue, time.Minute)), time.Minute},
		"its image came":           {tablePod(made, func(p *corev1.Pod) { bot(p).State.Running.StartedAt = ago(time.Minute) }), time.Minute},
		"its program ended before": {tablePod(made, func(p *corev1.Pod) { bot(p).State.Running.StartedAt, bot(p).RestartCount = ago(time.Minute), 3 }), time.Hour},
		"it is not ready since":    {tablePod(made, condition(corev1.PodReady, corev1.ConditionTrue, time.Minute)), time.Hour},
	} {
		got := LastStep(PodObserved{Set: tableSet(), Pod: tc.pod, Now: podNow})
		if want := podNow.Add(-tc.want); got.IsZero() != (tc.want == 0) || !got.IsZero() && !got.Equal(want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
