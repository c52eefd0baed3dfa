package status

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// HasEnded says whether a reason tells of a container whose program has ended.
func HasEnded(reason string) bool { return v1alpha1.FactsOf(reason).Pod.Ended }

// IsFailing says whether a reason tells of a bot that fails, and is not only on its way.
func IsFailing(reason string) bool { return v1alpha1.FactsOf(reason).Pod.Fails }

// Unix' numbers: 128 and the signal.
const (
	exitSIGKILL = 137
	exitSIGTERM = 143
)

const (
	// steadyLeast and steadyMost bound how long a program that has ended has to run again before it counts as ready.
	steadyLeast, steadyMost = time.Minute, 10 * time.Minute
)

// ofWaiting says why a container is not started, in words that stay the same while Kubernetes' own go back and forth;
// not ok when it is not that.
func ofWaiting(pod *corev1.Pod, c *corev1.ContainerStatus) (Workload, bool) {
	if c.State.Waiting == nil {
		return Workload{}, false
	}
	image := c.Image
	if spec := containerOf(pod, c.Name); spec != nil {
		image = spec.Image // as it was asked for
	}
	switch reason := c.State.Waiting.Reason; reason {
	case "ErrImagePull", v1alpha1.ReasonImagePullBackOff, "ImageInspectError", v1alpha1.ReasonRegistryUnavailable, v1alpha1.ReasonSignatureInvalid, v1alpha1.ReasonInvalidImageName, v1alpha1.ReasonImageNeverPull:
		return ofImage(pod, c.Name, image, reason, c.State.Waiting.Message), true
	case v1alpha1.ReasonCreateContainerConfigError, v1alpha1.ReasonCreateContainerError, v1alpha1.ReasonRunContainerError,
		v1alpha1.ReasonPreCreateHookError, v1alpha1.ReasonPreStartHookError, v1alpha1.ReasonPostStartHookError:
		return trouble(reason, "Container %s (%s) cannot be started: %s %s", c.Name, image, orNothing(foreign.Line(c.State.Waiting.Message, messageLimit/2)),
			toStart(pod, reason, c.State.Waiting.Message)), true
	default:
		return Workload{}, false
	}
}

// lastEnd is the end of a container's program: the one that is shown now, or the one before the present run.
func lastEnd(c *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	return c.LastTerminationState.Terminated
}

// isSteady says whether a program that has ended before runs again for good, as far as one can tell: for twice as
// long as it did before, a minute at least. One that had run for ten minutes is not held up: that was one crash, and
// no loop.
func isSteady(c *corev1.ContainerStatus, now time.Time) bool {
	return steadyIn(c, now) <= 0
}

func steadyIn(c *corev1.ContainerStatus, now time.Time) time.Duration {
	t := c.LastTerminationState.Terminated
	if c.State.Running == nil || t == nil && c.RestartCount == 0 {
		return 0
	}
	var ran time.Duration // nobody knows for how long where the node has forgotten it
	if t != nil && !t.StartedAt.IsZero() {
		ran = t.FinishedAt.Sub(t.StartedAt.Time)
	}
	if ran >= steadyMost {
		return 0
	}
	return min(max(2*ran, steadyLeast), steadyMost) - now.Sub(c.State.Running.StartedAt.Time)
}

// Unsteady says whether a pod that is ready has a program that ended a short while ago, and for how long that stays
// so. A crash loop is ready again and again, and a bot in one never is. What the pod itself says goes before what was
// counted of it: that is older, and knows nothing of programs.
func Unsteady(o PodObserved) (Workload, time.Duration, bool) {
	if o.Pod == nil {
		return Workload{}, 0, false
	}
	for i := range o.Pod.Status.ContainerStatuses {
		c := &o.Pod.Status.ContainerStatuses[i]
		if t := lastEnd(c); t != nil && c.State.Running == nil {
			return afterEnd(o, c, t), steadyLeast, true
		}
	}
	// What a node ended for what it did lasts too, or it does it again.
	if before, ok := endedBefore(o); ok && before.Reason == v1alpha1.ReasonEvicted {
		if c := podCondition(o.Pod, corev1.PodReady); c != nil && o.Now.Sub(c.LastTransitionTime.Time) < steadyLeast {
			return before, steadyLeast - o.Now.Sub(c.LastTransitionTime.Time), true
		}
	}
	for i := range o.Pod.Status.ContainerStatuses {
		c := &o.Pod.Status.ContainerStatuses[i]
		if left := steadyIn(c, o.Now); left > 0 {
			return afterEnd(o, c, lastEnd(c)), left, true
		}
	}
	return Workload{}, 0, false
}

// wasKilled says whether a container's program was ended by a signal that the kubelet sends, so that events tell why.
func wasKilled(pod *corev1.Pod) bool {
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		spec := containerOf(pod, c.Name)
		if t := lastEnd(c); t != nil && t.Reason != v1alpha1.ReasonOOMKilled && spec != nil && (spec.LivenessProbe != nil || spec.StartupProbe != nil) {
			return true // a program may also catch the signal, and end as it likes
		}
	}
	return false
}

// afterEnd says why a container's program has ended. The words are the same while it waits, and while it runs again
// and has not lasted yet.
func afterEnd(o PodObserved, c *corev1.ContainerStatus, t *corev1.ContainerStateTerminated) Workload {
	spec := containerOf(o.Pod, c.Name)
	log := fmt.Sprintf("See kubectl logs -n %s %s -c %s --previous.", o.Pod.Namespace, o.Pod.Name, c.Name)
	if t == nil {
		return trouble(v1alpha1.ReasonCrashLoopBackOff, "Container %s ended, its node does not know how, and was started again. %s", c.Name, log)
	}
	killed := newest(killings(o.Events, c.Name, t), "Killing")
	switch {
	case t.Reason == v1alpha1.ReasonOOMKilled:
		limit := "of the node"
		if spec != nil {
			if q, ok := spec.Resources.Limits[corev1.ResourceMemory]; ok {
				limit = q.String()
			}
		}
		return trouble(v1alpha1.ReasonOOMKilled, "Container %s used more memory than its limit (%s) and was killed; it is started again. Raise limits.memory of its resources, or have it use less.", c.Name, limit)
	case killed != nil && strings.Contains(killed.Message, "startup probe"):
		return trouble(v1alpha1.ReasonStartupProbeFailed, "Container %s was killed because its startup probe (%s) did not succeed in time; it is started again. %s", c.Name, probeOf(spec, "startup"), log)
	case killed != nil:
		return trouble(v1alpha1.ReasonLivenessProbeFailed, "Container %s was killed because its liveness probe (%s) failed; it is started again. %s", c.Name, probeOf(spec, "liveness"), log)
	case t.Reason == "StartError", t.Reason == "ContainerCannotRun":
		return trouble(v1alpha1.ReasonContainerCannotStart, "Container %s cannot run its program: %s Check the image, command and args.", c.Name, orNothing(foreign.Line(t.Message, messageLimit/2)))
	case t.ExitCode == 0:
		return trouble(v1alpha1.ReasonCompleted, "Container %s ended by itself without an error (exit code 0), and is started again: a bot is a program that goes on. %s", c.Name, log)
	case t.ExitCode == exitSIGKILL:
		return trouble(v1alpha1.ReasonCrashLoopBackOff, "Container %s was killed (exit code 137, SIGKILL), and is started again. %s", c.Name, log)
	case t.ExitCode == exitSIGTERM:
		return trouble(v1alpha1.ReasonCrashLoopBackOff, "Container %s was told to end (exit code 143, SIGTERM), and is started again. %s", c.Name, log)
	default:
		return trouble(v1alpha1.ReasonCrashLoopBackOff, "Container %s ended with exit code %d, and is started again. %s", c.Name, t.ExitCode, log)
	}
}

// killings are the events that tell of a kubelet's ending a container's program in its last run because of a probe.
func killings(all []corev1.Event, container string, t *corev1.ContainerStateTerminated) []corev1.Event {
	var found []corev1.Event
	for i := range all {
		e := &all[i]
		if e.Reason != "Killing" || !strings.HasSuffix(e.InvolvedObject.FieldPath, "{"+container+"}") || !strings.Contains(e.Message, " probe") {
			continue
		}
		// The program of a probe that failed is ended right then: an event of an earlier run says nothing of this one.
		if at := eventTime(e); !at.Before(t.StartedAt.Time) || t.StartedAt.IsZero() {
			found = append(found, *e)
		}
	}
	return found
}

func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func probeOf(c *corev1.Container, kind string) string {
	switch {
	case c == nil:
		return kind
	case kind == "startup":
		return probeText(c.StartupProbe)
	default:
		return probeText(c.LivenessProbe)
	}
}

// probeText names a probe as its spec does. What a probe answered is the program's own text, and stays out.
func probeText(p *corev1.Probe) string {
	switch {
	case p == nil:
		return "none"
	case p.HTTPGet != nil:
		return fmt.Sprintf("HTTP %s at port %s", p.HTTPGet.Path, p.HTTPGet.Port.String())
	case p.TCPSocket != nil:
		return "TCP port " + p.TCPSocket.Port.String()
	case p.Exec != nil:
		return "a command"
	case p.GRPC != nil:
		return fmt.Sprintf("gRPC at port %d", p.GRPC.Port)
	default:
		return "unknown"
	}
}

// podUse is what one pod of a set counts in a quota.
func podUse(set *appsv1.StatefulSet) corev1.ResourceList {
	use := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(1, resource.DecimalSI)}
	add := func(name corev1.ResourceName, q resource.Quantity) {
		sum := use[name].DeepCopy()
		sum.Add(q)
		use[name] = sum
	}
	for _, c := range set.Spec.Template.Spec.Containers {
		for name, q := range c.Resources.Limits {
			add("limits."+name, q)
		}
		for name, q := range c.Resources.Requests {
			add("requests."+name, q)
		}
	}
	return use
}
