package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// IsSetDone says whether a StatefulSet of one pod, or none, is as its spec says. A pod counts once it has been ready
// for minReadySeconds.
func IsSetDone(set *appsv1.StatefulSet) bool {
	replicas := wanted(set)
	return set.Status.ObservedGeneration >= set.Generation && set.Status.Replicas == replicas &&
		set.Status.UpdatedReplicas == replicas && set.Status.AvailableReplicas == replicas
}

func wanted(set *appsv1.StatefulSet) int32 {
	if set.Spec.Replicas == nil {
		return 1
	}
	return *set.Spec.Replicas
}

// PodObserved is what was found about the pod of a set that is not done.
type PodObserved struct {
	Set *appsv1.StatefulSet
	// Pod is nil when there is none.
	Pod *corev1.Pod
	// Quota of the namespace, where it was read.
	Quota *corev1.ResourceQuota
	// Events about the set, where there is no pod, or about the pod. They are read where Looks says so.
	Events []corev1.Event
	// Node that the pod is on, where Looks says so; nil when it does not exist.
	Node *corev1.Node
	// HasNode says that the node was looked for.
	HasNode bool
	// EventsBefore are about all pods of the name, where Looks says so; NodeBefore is the node that NodeBefore names.
	EventsBefore  []corev1.Event
	NodeBefore    *corev1.Node
	HasNodeBefore bool
	// UnreadySince is when the status began to say that the bot is not ready.
	UnreadySince time.Time
	Now          time.Time
}

// Look is what has to be read beside the pod to say why it is not ready.
type Look struct {
	// EventsOf has the UID of the object whose events tell; empty for none.
	EventsOf string
	// Node by name; empty when it is of no interest.
	Node string
	// Before says that the events about the pods of the same name tell, the one before among them.
	Before bool
}

// Looks says what else has to be read: as little as can be.
func Looks(o PodObserved) Look {
	pod := o.Pod
	switch {
	case wanted(o.Set) == 0 && pod == nil:
		return Look{}
	case pod == nil:
		return Look{EventsOf: string(o.Set.UID), Before: hadOneBefore(o)}
	}
	look := Look{Before: hadOneBefore(o)}
	if needsNode(pod) {
		look.Node = pod.Spec.NodeName
	}
	if pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" {
		return look
	}
	if _, waits := neverStarted(pod); waits || wasKilled(pod) {
		look.EventsOf = string(pod.UID)
	}
	return look
}

// needsNode says whether what a pod says of itself may be old: its node tells, and Kubernetes marks only pods that
// were ready when a node stops to answer. One that is ready, or has ended, needs no node.
func needsNode(pod *corev1.Pod) bool {
	over := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	return !over && (pod.DeletionTimestamp != nil || !isTrue(pod, corev1.PodReady))
}

func isTrue(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	c := podCondition(pod, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// startsWithin is how long a program may take until it is ready before that is worth a word.
const startsWithin = 5 * time.Second

// on and trouble make a Workload: of what is on its way, and of what will not come right by waiting alone.
func on(reason, format string, args ...any) Workload {
	return Workload{Problem: v1alpha1.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func trouble(reason, format string, args ...any) Workload {
	return Workload{Problem: v1alpha1.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}, Trouble: true}
}

// Unready says why the pod of a set that is not done is not ready. Messages hold nothing that changes by itself: no
// times, no counts of restarts. Why the pod before was ended remains said while nothing is wrong with the present one.
func Unready(o PodObserved) Workload {
	w := unready(o)
	if before, ok := endedBefore(o); ok && !w.Trouble {
		return before
	}
	return w
}

func unready(o PodObserved) Workload {
	pod := o.Pod
	switch {
	case pod != nil && o.HasNode && isDown(o.Node):
		return nodeLost(o)
	case wanted(o.Set) == 0:
		return on(v1alpha1.ReasonStopping, "Waiting for the pod to end.")
	case pod == nil:
		return missing(o)
	case pod.DeletionTimestamp != nil:
		if c := podCondition(pod, corev1.DisruptionTarget); c != nil && c.Status == corev1.ConditionTrue {
			return on(v1alpha1.ReasonPodTerminating, "The pod is being ended (%s), and another one is made: %s", foreign.Word(c.Reason), orNothing(foreign.Line(c.Message, messageLimit/2)))
		}
		return on(v1alpha1.ReasonPodTerminating, "Waiting for the pod before to end.")
	case o.Set.Status.UpdateRevision != "" && pod.Labels[appsv1.ControllerRevisionHashLabelKey] != o.Set.Status.UpdateRevision:
		return on(v1alpha1.ReasonPodTerminating, "Waiting for the pod before to be replaced.")
	case pod.Status.Phase == corev1.PodFailed:
		return endedBecause(pod.Status.Reason, pod.Status.Message)
	}
	if c := podCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return unschedulable(pod, c)
	}
	if name, waits := neverStarted(pod); waits {
		if w, ok := notStarted(o, name); ok {
			return w
		}
	}
	for i := range pod.Status.InitContainerStatuses {
		if w, ok := ofInit(o, &pod.Status.InitContainerStatuses[i]); ok {
			return w
		}
	}
	var worst *Workload
	for i := range pod.Status.ContainerStatuses {
		if w, ok := ofContainer(o, &pod.Status.ContainerStatuses[i]); ok && (worst == nil || badness(w) > badness(*worst)) {
			worst = &w
		}
	}
	if worst != nil {
		return *worst
	}
	return on(v1alpha1.ReasonPodNotReady, "The pod is ready, and counts as ready once that has lasted for %d seconds.", o.Set.Spec.MinReadySeconds)
}

// badness orders what is wrong with containers.
func badness(w Workload) int {
	switch {
	case IsFailing(w.Reason):
		return 2
	case w.Trouble:
		return 1
	default:
		return 0
	}
}

// missing says why there is no pod, in Kubernetes' own words where it has any.
func missing(o PodObserved) Workload {
	last := newest(o.Events, "FailedCreate", "SuccessfulCreate")
	if last == nil || last.Reason != "FailedCreate" {
		if used := usedUp(o.Set, o.Quota); used != "" {
			return trouble(v1alpha1.ReasonQuotaExceeded, "The Tenant's quota leaves no room for the pod: %s is used up. Give up something else, or have the Tenant's spec.quota raised.", used)
		}
		return on(v1alpha1.ReasonPodMissing, "The pod was not made yet: see the events of StatefulSet %s.", o.Set.Name)
	}
	// create Pod x-bot-0 in StatefulSet x-bot failed error: pods "x-bot-0" is forbidden: exceeded quota: lethe,
	// requested: ...
	_, why, found := strings.Cut(last.Message, " failed error: ")
	if !found {
		why = last.Message
	}
	switch {
	case strings.Contains(last.Message, "exceeded quota"):
		return trouble(v1alpha1.ReasonQuotaExceeded, "%s", NoRoom(" for the pod", why))
	case strings.Contains(last.Message, "status unknown for quota"):
		return on(v1alpha1.ReasonPodMissing, "Kubernetes is still counting what the namespace holds.")
	default:
		return trouble(v1alpha1.ReasonPodRefused, "The pod is refused: %s %s", orNothing(foreign.Line(why, messageLimit/2)), afterRefusal(o.Set.Namespace, o.Set.Name, why))
	}
}

func orNothing(text string) string {
	if text == "" {
		return "nothing more is told."
	}
	return strings.TrimSuffix(text, ".") + "."
}

// unschedulable is the scheduler's own answer, without what it says of preemption.
func unschedulable(pod *corev1.Pod, c *corev1.PodCondition) Workload {
	why, _, _ := strings.Cut(c.Message, " preemption: ")
	why = foreign.Line(why, messageLimit/2)
	if strings.Contains(c.Message, "PersistentVolumeClaim") || strings.Contains(c.Message, "persistentvolumeclaim") {
		return trouble(v1alpha1.ReasonUnschedulable, "No node takes the pod %s, since its volume is not there: %s See kubectl describe pvc.", pod.Name, orNothing(why))
	}
	return trouble(v1alpha1.ReasonUnschedulable, "No node takes the pod %s: %s %s", pod.Name, orNothing(why), roomSomewhere(c.Message))
}

func nodeLost(o PodObserved) Workload {
	node := o.Pod.Spec.NodeName
	if o.Node == nil {
		return trouble(v1alpha1.ReasonNodeLost, "Node %s, on which the pod ran, does not exist any more; Kubernetes removes the pod, and makes another one.", node)
	}
	return trouble(v1alpha1.ReasonNodeLost, "Node %s does not answer, so nobody knows whether the pod still runs there, and no second one is started beside it. It goes on by itself when the node is back. "+
		"If the machine is off for good, say so: kubectl delete node %s, or kubectl taint node %s node.kubernetes.io/out-of-service=nodeshutdown:NoExecute. "+
		"Never delete the pod by force while it may run: two would use one token.", node, node, node)
}

// neverStarted says whether no container of a pod has ever been started, and names the first.
func neverStarted(pod *corev1.Pod) (string, bool) {
	if pod.Spec.NodeName == "" {
		return "", false
	}
	name := ""
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil || c.RestartCount > 0 {
			return "", false
		}
		if name == "" {
			name = c.Name
		}
		if c.State.Waiting != nil && !isStarting(c.State.Waiting.Reason) {
			return "", false // it says itself why
		}
	}
	return name, true
}

// isStarting says of the reason of a waiting container that it is none.
func isStarting(reason string) bool {
	return reason == "" || reason == "ContainerCreating" || reason == "PodInitializing"
}

// notStarted says what a pod waits for on its node before its first container.
func notStarted(o PodObserved, container string) (Workload, bool) {
	last := newest(o.Events, "FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "Started", "Created", "Pulled", "Pulling")
	if last == nil {
		return Workload{}, false
	}
	why := foreign.Line(last.Message, messageLimit/2)
	switch last.Reason {
	case "FailedMount", "FailedAttachVolume", "FailedMapVolume":
		hint := "See kubectl describe pvc, and the storage driver's log."
		switch {
		case strings.Contains(last.Message, "no space left on device"):
			hint = "It is full: make room in it, or have it enlarged."
		case strings.Contains(last.Message, "Multi-Attach"):
			hint = "Another node still holds it: see which pod uses it, and whether that node answers."
		case strings.Contains(last.Message, "configmap"), strings.Contains(last.Message, "secret"):
			hint = "Make what it names, or correct what refers to it."
		}
		return trouble(v1alpha1.ReasonVolumeNotMounted, "A volume of the pod is not mounted, so that container %s cannot start: %s %s", container, orNothing(why), hint), true
	case "FailedCreatePodSandBox":
		return trouble(v1alpha1.ReasonPodSandboxFailed, "The node cannot make the pod, so that container %s cannot start: %s "+
			"It tries again by itself; where that does not help, whoever looks after node %s sees why in the log of its network plugin and container runtime.", container, orNothing(why), o.Pod.Spec.NodeName), true
	default:
		return Workload{}, false
	}
}

// ofInit says what an init container waits for; not ok when it is through.
func ofInit(o PodObserved, c *corev1.ContainerStatus) (Workload, bool) {
	if c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 || c.Started != nil && *c.Started && c.State.Running != nil && c.Ready {
		return Workload{}, false
	}
	if w, ok := ofWaiting(o.Pod, c); ok {
		return w, true
	}
	failed := c.RestartCount > 0 || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
	w := on(v1alpha1.ReasonCredentialsNotFetched, "The pod has not got its credentials yet: see the log of its container %s.", c.Name)
	// Lethe's own program says in its last words which credential it is about, and never what is in it.
	if t := lastEnd(c); t != nil {
		if why := foreign.Line(t.Message, messageLimit/2); why != "" {
			w = on(v1alpha1.ReasonCredentialsNotFetched, "The pod has not got its credentials: %s", orNothing(why))
		}
	}
	if c.State.Waiting != nil && !failed {
		w = on(v1alpha1.ReasonPodNotReady, "Container %s is being started.", c.Name)
	}
	w.Trouble = failed
	return w, true
}

// ofContainer says what is wrong with a container; not ok when it runs and is ready.
func ofContainer(o PodObserved, c *corev1.ContainerStatus) (Workload, bool) {
	if w, ok := ofWaiting(o.Pod, c); ok {
		return w, true
	}
	if t := lastEnd(c); t != nil && c.State.Running == nil || !isSteady(c, o.Now) {
		return afterEnd(o, c, t), true
	}
	if c.State.Running == nil {
		return on(v1alpha1.ReasonPodNotReady, "Container %s is being started.", c.Name), true
	}
	if c.Ready {
		return Workload{}, false
	}
	spec := containerOf(o.Pod, c.Name)
	switch {
	case spec != nil && spec.StartupProbe != nil && (c.Started == nil || !*c.Started):
		return on(v1alpha1.ReasonPodNotReady, "Container %s runs, and its startup probe (%s) has not succeeded yet.", c.Name, probeText(spec.StartupProbe)), true
	case spec != nil && spec.ReadinessProbe != nil:
		w := on(v1alpha1.ReasonPodNotReady, "Container %s runs, and its readiness probe (%s) does not succeed.", c.Name, probeText(spec.ReadinessProbe))
		w.Trouble = o.Now.Sub(c.State.Running.StartedAt.Time) >= startsWithin
		return w, true
	default:
		return on(v1alpha1.ReasonPodNotReady, "Container %s runs and is not ready yet.", c.Name), true
	}
}

// usedUp names what a quota has too little of for one more pod of a set, or is empty.
func usedUp(set *appsv1.StatefulSet, quota *corev1.ResourceQuota) string {
	if quota == nil {
		return ""
	}
	one := podUse(set)
	for _, name := range []corev1.ResourceName{corev1.ResourcePods, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsEphemeralStorage, corev1.ResourceRequestsEphemeralStorage} {
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

// newest is the last of the events of some reasons, or nil.
func newest(all []corev1.Event, reasons ...string) *corev1.Event {
	var last *corev1.Event
	for i := range all {
		if e := &all[i]; slices.Contains(reasons, e.Reason) && (last == nil || !eventTime(e).Before(eventTime(last))) {
			last = e
		}
	}
	return last
}

func eventTime(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	default:
		return e.CreationTimestamp.Time
	}
}
