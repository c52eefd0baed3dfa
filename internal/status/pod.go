package status

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Reasons why the pod of a bot is not ready, beside those that Kubernetes gives to a waiting container.
const (
	ReasonCredentialsNotFetched = "CredentialsNotFetched"
	ReasonCrashLoopBackOff      = "CrashLoopBackOff"
	ReasonImagePullBackOff      = "ImagePullBackOff"
	ReasonUnschedulable         = "Unschedulable"
	ReasonQuotaExceeded         = "QuotaExceeded"
	ReasonPodMissing            = "PodMissing"
	ReasonPodNotReady           = "PodNotReady"
	ReasonOldPodEnding          = "OldPodEnding"
	ReasonStopping              = "Stopping"
)

// IsSetDone says whether a StatefulSet of one pod, or none, is as its spec says.
func IsSetDone(set *appsv1.StatefulSet) bool {
	replicas := int32(1)
	if set.Spec.Replicas != nil {
		replicas = *set.Spec.Replicas
	}
	return set.Status.ObservedGeneration >= set.Generation && set.Status.Replicas == replicas &&
		set.Status.UpdatedReplicas == replicas && set.Status.ReadyReplicas == replicas
}

// Unready says why the pod of a set that is not done is not ready. pod is nil when there is none. Messages hold nothing
// that changes by itself: no times, no counts of restarts.
func Unready(set *appsv1.StatefulSet, pod *corev1.Pod, quota *corev1.ResourceQuota) Workload {
	w := func(reason, format string, args ...any) Workload {
		return Workload{Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case set.Spec.Replicas != nil && *set.Spec.Replicas == 0:
		return w(ReasonStopping, "Waiting for the pod to end.")
	case pod == nil:
		if used := usedUp(set, quota); used != "" {
			return w(ReasonQuotaExceeded, "The Tenant's quota leaves no room for the pod: %s is used up.", used)
		}
		return w(ReasonPodMissing, "The pod was not made yet: see the events of StatefulSet %s.", set.Name)
	case pod.DeletionTimestamp != nil:
		return w(ReasonOldPodEnding, "Waiting for the pod before to end.")
	case set.Status.UpdateRevision != "" && pod.Labels[appsv1.ControllerRevisionHashLabelKey] != set.Status.UpdateRevision:
		return w(ReasonOldPodEnding, "Waiting for the pod before to be replaced.")
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return w(ReasonUnschedulable, "No node takes the pod: see kubectl describe pod %s.", pod.Name)
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 {
			continue
		}
		if reason, message := waiting(c); reason == ReasonImagePullBackOff {
			return w(reason, "%s", message)
		}
		return w(ReasonCredentialsNotFetched, "The pod has not got its credentials yet: see the log of its container %s.", c.Name)
	}
	for _, c := range pod.Status.ContainerStatuses {
		if reason, message := waiting(c); reason != "" {
			return w(reason, "%s", message)
		}
	}
	return w(ReasonPodNotReady, "The pod runs and is not ready: see kubectl describe pod %s.", pod.Name)
}

// waiting says why a container does not run, in words that stay the same while Kubernetes' own go back and forth.
func waiting(c corev1.ContainerStatus) (reason, message string) {
	if c.State.Running != nil {
		return "", ""
	}
	if c.State.Waiting == nil {
		return ReasonCrashLoopBackOff, fmt.Sprintf("Container %s ended and is started again: see its log.", c.Name)
	}
	switch c.State.Waiting.Reason {
	case "ErrImagePull", ReasonImagePullBackOff:
		return ReasonImagePullBackOff, fmt.Sprintf("The image %s cannot be pulled.", c.Image)
	case "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return c.State.Waiting.Reason, fmt.Sprintf("Container %s (%s) cannot be started: see the pod's events.", c.Name, c.Image)
	case ReasonCrashLoopBackOff:
		return ReasonCrashLoopBackOff, fmt.Sprintf("Container %s ended and is started again: see its log.", c.Name)
	default:
		return ReasonPodNotReady, fmt.Sprintf("Container %s is being started.", c.Name)
	}
}

// usedUp names what a quota has too little of for one more pod of a set, or is empty.
func usedUp(set *appsv1.StatefulSet, quota *corev1.ResourceQuota) string {
	if quota == nil {
		return ""
	}
	one := corev1.ResourceList{}
	one[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for _, c := range set.Spec.Template.Spec.Containers {
		if cpu, ok := c.Resources.Limits[corev1.ResourceCPU]; ok {
			one[corev1.ResourceLimitsCPU] = cpu
		}
		if memory, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
			one[corev1.ResourceLimitsMemory] = memory
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourcePods, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		hard, ok := quota.Status.Hard[name]
		if !ok {
			continue
		}
		used := quota.Status.Used[name].DeepCopy()
		used.Add(one[name])
		if used.Cmp(hard) > 0 {
			return string(name)
		}
	}
	return ""
}
