package status

import corev1 "k8s.io/api/core/v1"

// IsPull says whether a reason is that an image cannot be pulled, whatever the registry said.
func IsPull(reason string) bool {
	return reason == ReasonImagePullBackOff || reason == ReasonImagePullUnauthorized || reason == ReasonImageNotFound
}

// Unpulled is what a pod says whose image cannot be pulled; not ok for any other pod.
func Unpulled(pod *corev1.Pod) (Workload, bool) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if w, ok := ofWaiting(pod, &list[i]); ok && IsPull(w.Reason) {
				return w, true
			}
		}
	}
	return Workload{}, false
}
