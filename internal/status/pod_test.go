package status

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// podNow is the time of the table.
var podNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(podNow.Add(-d)) }

// tableSet is the set of the table: one pod, of revision "new".
func tableSet() *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b-bot", UID: "set"}, Status: appsv1.StatefulSetStatus{UpdateRevision: "new"}}
	set.Spec.MinReadySeconds = 5
	set.Spec.Template.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}}}
	return set
}

// tablePod is a pod on node n whose containers run and are ready.
func tablePod(edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b-bot-0", UID: "pod", Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: "new"}}}
	yes := true
	p.Spec.NodeName = "n"
	p.Spec.InitContainers = []corev1.Container{{Name: "unseal", Image: "lethe:1"}}
	p.Spec.Containers = []corev1.Container{{Name: "bot", Image: "registry.example/bot:1",
		Resources:      corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}},
		LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/live", Port: intstr.FromString("health")}}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("health")}}}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "unseal", Ready: true, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "bot", Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Hour)}}}}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func bot(p *corev1.Pod) *corev1.ContainerStatus   { return &p.Status.ContainerStatuses[0] }
func init0(p *corev1.Pod) *corev1.ContainerStatus { return &p.Status.InitContainerStatuses[0] }

func waitsFor(c func(*corev1.Pod) *corev1.ContainerStatus, reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		s := c(p)
		s.Ready, s.Started = false, nil
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
		if c(p) == init0(p) {
			waitsFor(bot, "PodInitializing", "")(p)
		}
	}
}

// end is how a program ended after it had run for a while.
func end(reason string, code int32, ran time.Duration, message string) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Message: message, FinishedAt: ago(20 * time.Second), StartedAt: ago(20*time.Second + ran)}
}

// The three faces of a program that ends again and again: it has just ended, it waits, and it runs again.
func endsIn(t *corev1.ContainerStateTerminated, face string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := bot(p)
		switch face {
		case "ended":
			c.Ready, c.State = false, corev1.ContainerState{Terminated: t}
		case "waits":
			waitsFor(bot, "CrashLoopBackOff", "back-off 5m0s restarting failed container")(p)
			c.LastTerminationState, c.RestartCount = corev1.ContainerState{Terminated: t}, 7
		default:
			c.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(3 * time.Second)}}
			c.LastTerminationState, c.RestartCount = corev1.ContainerState{Terminated: t}, 7
		}
	}
}

func podEvent(reason, message string, before time.Duration) corev1.Event {
	return corev1.Event{Reason: reason, Message: message, LastTimestamp: ago(before), InvolvedObject: corev1.ObjectReference{FieldPath: "spec.containers{bot}"}}
}

// neverBegan is a pod on its node none of whose containers was ever started.
func neverBegan(p *corev1.Pod) { waitsFor(init0, "PodInitializing", "")(p) }

// TestUnready is the truth table: what the API shows, and what the status says of it.
func TestUnready(t *testing.T) {
	zero := int32(0)
	stopping := tableSet()
	stopping.Spec.Replicas = &zero
	full := &corev1.ResourceQuota{Status: corev1.ResourceQuotaStatus{
		Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("3")}, Used: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1500m")}}}
	refused := func(why string) []corev1.Event {
		return []corev1.Event{podEvent("FailedCreate", "create Pod b-bot-0 in StatefulSet b-bot failed error: "+why, time.Second)}
	}
	node := func(ready corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
	}
	deleted := func(before time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Time); *p.DeletionTimestamp = ago(before) }
	}
	unscheduled := func(why string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status.InitContainerStatuses, p.Status.ContainerStatuses = "", nil, nil
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: why}}
		}
	}
	for name, tc := range map[string]struct {
		o      PodObserved
		reason string
		says   string
		calm   bool // on its way, and no trouble
	}{
		"is being stopped":               {o: PodObserved{Set: stopping}, reason: v1alpha1.ReasonStopping, calm: true},
		"was not made yet":               {o: PodObserved{}, reason: v1alpha1.ReasonPodMissing, says: "events of StatefulSet b-bot", calm: true},
		"quota, by the numbers":          {o: PodObserved{Quota: full}, reason: v1alpha1.ReasonQuotaExceeded, says: "limits.cpu is used up"},
		"quota, in its own words":        {o: PodObserved{Events: refused(`pods "b-bot-0" is forbidden: exceeded quota: lethe, requested: limits.memory=512Mi, used: limits.memory=1Gi, limited: limits.memory=1Gi`)}, reason: v1alpha1.ReasonQuotaExceeded, says: "exceeded quota: lethe, requested: limits.memory=512Mi, used: limits.memory=1Gi, limited: limits.memory=1Gi. Give up"},
		"quota of another client":        {o: PodObserved{Events: refused(`pods "b-bot-0" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3`)}, reason: v1alpha1.ReasonQuotaExceeded, says: "ResourceQuota team, which is not Lethe's, leaves no room for the pod"},
		"a LimitRange refuses it":        {o: PodObserved{Events: refused(`pods "b-bot-0" is forbidden: maximum memory usage per Container is 128Mi, but limit is 256Mi`)}, reason: v1alpha1.ReasonPodRefused, says: "is 128Mi, but limit is 256Mi. A LimitRange says so: see kubectl -n ns get limitrange -o yaml"},
		"it names no class":              {o: PodObserved{Events: refused(`pods "b-bot-0" is forbidden: no PriorityClass with name x was found`)}, reason: v1alpha1.ReasonPodRefused, says: "Have it made, or spec.placement of the Tenant changed."},
		"quota that was made up for":     {o: PodObserved{Events: append(refused("exceeded quota"), podEvent("SuccessfulCreate", "create Pod", 0))}, reason: v1alpha1.ReasonPodMissing, calm: true},
		"quota that nobody has counted":  {o: PodObserved{Events: refused("status unknown for quota: lethe")}, reason: v1alpha1.ReasonPodMissing, says: "still counting", calm: true},
		"a webhook refuses it":           {o: PodObserved{Events: refused("admission webhook \"validate.kyverno.svc\" denied the request: no registry")}, reason: v1alpha1.ReasonPodRefused, says: "denied the request: no registry. Do as it says, or have whoever runs that webhook or policy exempt the namespace"},
		"Pod Security refuses it":        {o: PodObserved{Events: refused("pods \"b-bot-0\" is forbidden: violates PodSecurity \"restricted:latest\"")}, reason: v1alpha1.ReasonPodRefused, says: "Have what changes pods in the namespace found"},
		"with a line break in it":        {o: PodObserved{Events: refused("a\nb\x1b[31mc")}, reason: v1alpha1.ReasonPodRefused, says: "kubectl -n ns describe statefulset b-bot"},
		"the one before ends":            {o: PodObserved{Pod: tablePod(deleted(0))}, reason: v1alpha1.ReasonPodTerminating, calm: true},
		"the one before is there":        {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) { p.Labels = nil })}, reason: v1alpha1.ReasonPodTerminating, calm: true},
		"the one before, its node lost":  {o: PodObserved{Pod: tablePod(deleted(time.Minute)), HasNode: true, Node: node(corev1.ConditionUnknown)}, reason: v1alpha1.ReasonNodeLost, says: "Node n does not answer"},
		"the one before, its node there": {o: PodObserved{Pod: tablePod(deleted(time.Minute)), HasNode: true, Node: node(corev1.ConditionTrue)}, reason: v1alpha1.ReasonPodTerminating, calm: true},
		"stopped, its node lost":         {o: PodObserved{Set: stopping, Pod: tablePod(deleted(time.Minute)), HasNode: true, Node: node(corev1.ConditionFalse)}, reason: v1alpha1.ReasonNodeLost, says: "Never delete the pod by force"},
		"node lost a moment ago":         {o: PodObserved{Pod: tablePod(), HasNode: true, Node: node(corev1.ConditionUnknown)}, reason: v1alpha1.ReasonNodeLost, says: "out-of-service"},
		"node lost, and it crashed":      {o: PodObserved{Pod: tablePod(endsIn(end("Error", 1, time.Second, ""), "waits")), HasNode: true, Node: node(corev1.ConditionUnknown)}, reason: v1alpha1.ReasonNodeLost, says: "Node n does not answer"},
		"node lost, and nothing started": {o: PodObserved{Pod: tablePod(neverBegan), HasNode: true, Node: node(corev1.ConditionUnknown)}, reason: v1alpha1.ReasonNodeLost, says: "Node n does not answer"},
		"node lost, and not ready":       {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) { bot(p).Ready = false }), HasNode: true, Node: node(corev1.ConditionFalse)}, reason: v1alpha1.ReasonNodeLost, says: "Node n does not answer"},
		"node removed":                   {o: PodObserved{Pod: tablePod(), HasNode: true}, reason: v1alpha1.ReasonNodeLost, says: "does not exist any more"},
		"evicted for its scratch": {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", `Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". `
		})}, reason: v1alpha1.ReasonEvicted, says: `"tmp" exceeds the limit "64Mi"`},
		"evicted for others": {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
		})}, reason: v1alpha1.ReasonEvicted, says: "low on resource: memory. "},
		"ended as a whole":         {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "NodeShutdown" })}, reason: v1alpha1.ReasonNodeShutdown, says: "shuts down"},
		"no node has room":         {o: PodObserved{Pod: tablePod(unscheduled("0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."))}, reason: v1alpha1.ReasonUnschedulable, says: "3 Insufficient memory. Add a node or free one, or lower requests of spec.resources."},
		"no node is meant":         {o: PodObserved{Pod: tablePod(unscheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."))}, reason: v1alpha1.ReasonUnschedulable, says: "node affinity/selector. Have spec.placement of the Tenant say nodes that there are."},
		"no node is left":          {o: PodObserved{Pod: tablePod(unscheduled("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."))}, reason: v1alpha1.ReasonUnschedulable, says: "anti-affinity rules. Add a node, or have spec.placement.affinity of the Tenant prefer what it requires."},
		"its volume is not bound":  {o: PodObserved{Pod: tablePod(unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."))}, reason: v1alpha1.ReasonUnschedulable, says: "kubectl describe pvc"},
		"nothing started yet":      {o: PodObserved{Pod: tablePod(neverBegan)}, reason: v1alpha1.ReasonPodNotReady, says: "Container unseal is being started", calm: true},
		"image is on its way":      {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("Pulling", "Pulling image", 0)}}, reason: v1alpha1.ReasonPodNotReady, calm: true},
		"volume does not mount":    {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedMount", `MountVolume.SetUp failed for volume "pv" : hostPath type check failed: /srv/x is not a directory`, 0)}}, reason: v1alpha1.ReasonVolumeNotMounted, says: "is not a directory"},
		"volume is full":           {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedMount", `MountVolume.SetUp failed for volume "pv" : mkdir: no space left on device`, 0)}}, reason: v1alpha1.ReasonVolumeNotMounted, says: "It is full"},
		"volume is held":           {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedAttachVolume", `Multi-Attach error for volume "pv" Volume is already used by 1 pod(s) in different namespaces`, 0)}}, reason: v1alpha1.ReasonVolumeNotMounted, says: "Another node still holds it"},
		"a ConfigMap is not there": {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedMount", `MountVolume.SetUp failed for volume "files" : configmap "x" not found`, 0)}}, reason: v1alpha1.ReasonVolumeNotMounted, says: `configmap "x" not found`},
		"volume mounted after all": {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedMount", "x", time.Minute), podEvent("Pulled", "y", 0)}}, reason: v1alpha1.ReasonPodNotReady, calm: true},
		"no network":               {o: PodObserved{Pod: tablePod(neverBegan), Events: []corev1.Event{podEvent("FailedCreatePodSandBox", "plugin type=\"bridge\" failed (add)", 0)}}, reason: v1alpha1.ReasonPodSandboxFailed, says: "whoever looks after node n sees why in the log of its network plugin"},
		"credentials are fetched":  {o: PodObserved{Pod: tablePod(neverBegan, func(p *corev1.Pod) { init0(p).State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}} })}, reason: v1alpha1.ReasonCredentialsNotFetched, calm: true},
		"credentials were not given, and nothing is said": {o: PodObserved{Pod: tablePod(neverBegan, func(p *corev1.Pod) {
			init0(p).State = corev1.ContainerState{Terminated: end("Error", 1, time.Second, "")}
		})}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "log of its container unseal"},
		"credentials were not given": {o: PodObserved{Pod: tablePod(neverBegan, func(p *corev1.Pod) {
			init0(p).State = corev1.ContainerState{Terminated: end("Error", 3, time.Second, "credential token holds a \x1b[31mquote:\nuse delivery File")}
		})}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "The pod has not got its credentials: credential token holds a [31mquote: use delivery File."},
		"and unseal waits for its next try": {o: PodObserved{Pod: tablePod(waitsFor(init0, "CrashLoopBackOff", "back-off 5m0s"), func(p *corev1.Pod) {
			init0(p).RestartCount, init0(p).LastTerminationState.Terminated = 3, end("Error", 1, time.Second, "the keyserver refused (Altered): x")
		})}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "The pod has not got its credentials: the keyserver refused (Altered): x."},
		"and unseal tries again": {o: PodObserved{Pod: tablePod(neverBegan, func(p *corev1.Pod) {
			init0(p).State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			init0(p).RestartCount, init0(p).LastTerminationState.Terminated = 3, end("Error", 1, time.Second, "the keyserver refused (Altered): x")
		})}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "The pod has not got its credentials: the keyserver refused (Altered): x."},
		"unseal says what has the shape of a token": {o: PodObserved{Pod: tablePod(neverBegan, func(p *corev1.Pod) {
			init0(p).State = corev1.ContainerState{Terminated: end("Error", 1, time.Second, "open 123456789:AAF0secret0secret0secret0secret0secr: no")}
		})}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "The pod has not got its credentials"},
		"and it is tried again":           {o: PodObserved{Pod: tablePod(waitsFor(init0, "CrashLoopBackOff", "back-off 5m0s"), func(p *corev1.Pod) { init0(p).RestartCount = 3 })}, reason: v1alpha1.ReasonCredentialsNotFetched, says: "log of its container unseal"},
		"unseal's image cannot be pulled": {o: PodObserved{Pod: tablePod(waitsFor(init0, "ImagePullBackOff", "Back-off pulling image: rpc error: code = NotFound desc = not found"))}, reason: v1alpha1.ReasonImageNotFound, says: "Container unseal: there is no image lethe:1"},

		"its config is not there": {o: PodObserved{Pod: tablePod(waitsFor(bot, "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"))}, reason: "CreateContainerConfigError", says: "image will run as root. Build the image for a numeric user other than 0."},
		"its key is not there":    {o: PodObserved{Pod: tablePod(waitsFor(bot, "CreateContainerConfigError", `couldn't find key k in ConfigMap ns/c`))}, reason: "CreateContainerConfigError", says: "Make what it names, or correct the entry of spec.env"},
		"its hook fails":          {o: PodObserved{Pod: tablePod(waitsFor(bot, "PreStartHookError", "hook x: exit status 1"))}, reason: "PreStartHookError", says: "See kubectl describe pod -n ns b-bot-0: a hook of the node's runtime failed"},
		"it cannot be run":        {o: PodObserved{Pod: tablePod(waitsFor(bot, "RunContainerError", "x"))}, reason: "RunContainerError", says: "Check the image, command and args."},
		"no such program":         {o: PodObserved{Pod: tablePod(endsIn(end("StartError", 128, 0, `exec: "bot": executable file not found in $PATH`), "waits"))}, reason: v1alpha1.ReasonContainerCannotStart, says: "executable file not found"},

		"killed by SIGKILL": {o: PodObserved{Pod: tablePod(endsIn(end("Error", 137, time.Second, ""), "waits"))}, reason: v1alpha1.ReasonCrashLoopBackOff, says: "SIGKILL"},
		"told to end":       {o: PodObserved{Pod: tablePod(endsIn(end("Error", 143, time.Second, ""), "waits"))}, reason: v1alpha1.ReasonCrashLoopBackOff, says: "SIGTERM"},
		"killed in a run before, not in this one": {o: PodObserved{Pod: tablePod(endsIn(end("Error", 1, time.Second, ""), "waits")), Events: []corev1.Event{podEvent("Killing", "Container bot failed liveness probe, will be restarted", time.Hour)}}, reason: v1alpha1.ReasonCrashLoopBackOff, says: "exit code 1"},
		"another container was killed":            {o: PodObserved{Pod: tablePod(endsIn(end("Error", 1, time.Second, ""), "waits")), Events: []corev1.Event{{Reason: "Killing", Message: "Container helper failed liveness probe", LastTimestamp: ago(0), InvolvedObject: corev1.ObjectReference{FieldPath: "spec.containers{helper}"}}}}, reason: v1alpha1.ReasonCrashLoopBackOff, says: "exit code 1"},

		"readiness fails":              {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) { bot(p).Ready = false })}, reason: v1alpha1.ReasonPodNotReady, says: "its readiness probe (HTTP /ready at port health) does not succeed"},
		"it is on its way to be ready": {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) { bot(p).Ready, bot(p).State.Running.StartedAt = false, ago(2*time.Second) })}, reason: v1alpha1.ReasonPodNotReady, says: "readiness probe", calm: true},
		"startup is not over": {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) {
			bot(p).Ready, bot(p).Started = false, nil
			p.Spec.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"secret"}}}}
		})}, reason: v1alpha1.ReasonPodNotReady, says: "startup probe (a command) has not succeeded yet", calm: true},
		"it has not lasted": {o: PodObserved{Pod: tablePod()}, reason: v1alpha1.ReasonPodNotReady, says: "has lasted for 5 seconds", calm: true},
		"a helper is worse": {o: PodObserved{Pod: tablePod(func(p *corev1.Pod) {
			bot(p).Ready = false
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "helper", State: corev1.ContainerState{Terminated: end("Error", 4, time.Second, "")}})
		})}, reason: v1alpha1.ReasonCrashLoopBackOff, says: "Container helper ended with exit code 4"},
	} {
		t.Run(name, func(t *testing.T) { checkUnready(t, tc.o, tc.reason, tc.says, !tc.calm) })
	}
	// What ends again and again is told in the same words in all three faces, so that the condition stands still and
	// one event is sent.
	killed := []corev1.Event{podEvent("Killing", "Container bot failed liveness probe, will be restarted", 21*time.Second)}
	started := []corev1.Event{podEvent("Killing", "Container bot failed startup probe, will be restarted", 21*time.Second)}
	for name, tc := range map[string]struct {
		t      *corev1.ContainerStateTerminated
		events []corev1.Event
		reason string
		says   string
	}{
		"exit 0":                   {t: end("Completed", 0, time.Second, ""), reason: v1alpha1.ReasonCompleted, says: "exit code 0"},
		"exit 1 after 3 s":         {t: end("Error", 1, 3*time.Second, ""), reason: v1alpha1.ReasonCrashLoopBackOff, says: "exit code 1, and is started again. See kubectl logs -n ns b-bot-0 -c bot --previous."},
		"exit 1 after 4 minutes":   {t: end("Error", 1, 4*time.Minute, ""), reason: v1alpha1.ReasonCrashLoopBackOff, says: "exit code 1"},
		"out of memory":            {t: end("OOMKilled", 137, time.Minute, ""), reason: v1alpha1.ReasonOOMKilled, says: "more memory than its limit (64Mi)"},
		"killed by liveness":       {t: end("Error", 137, time.Minute, ""), events: killed, reason: v1alpha1.ReasonLivenessProbeFailed, says: "liveness probe (HTTP /live at port health)"},
		"killed, and it caught it": {t: end("Completed", 0, time.Minute, ""), events: killed, reason: v1alpha1.ReasonLivenessProbeFailed, says: "liveness probe"},
		"killed by startup":        {t: end("Error", 143, time.Minute, ""), events: started, reason: v1alpha1.ReasonStartupProbeFailed, says: "startup probe"},
	} {
		message := ""
		for _, face := range []string{"ended", "waits", "runs"} {
			t.Run(name+", "+face, func(t *testing.T) {
				o := PodObserved{Pod: tablePod(endsIn(tc.t, face)), Events: tc.events}
				w := checkUnready(t, o, tc.reason, tc.says, true)
				if message == "" {
					message = w.Message
				}
				if w.Message != message {
					t.Errorf("%q, and before that %q", w.Message, message)
				}
				if o.Set = tableSet(); (Looks(o).EventsOf == "pod") == (tc.reason == v1alpha1.ReasonOOMKilled) {
					t.Errorf("%+v: the wrong events are looked at", Looks(o))
				}
			})
		}
		o := PodObserved{Set: tableSet(), Pod: tablePod(endsIn(tc.t, "runs")), Events: tc.events, Now: podNow}
		if w, left, ok := Unsteady(o); !ok || w.Message != message || left <= 0 {
			t.Errorf("%s: runs again, and is called steady: %+v %s", name, w, left)
		}
	}
}

// nextStep is how what to do is said, beside what others say of the cause; or that nothing is to be done.
var nextStep = regexp.MustCompile(`(?i)(^|[.:;,] |, or |, and )(see|check|make|give up|raise|have|add|build|do as|change|correct|write|sign|load|remove|name|wait|never delete)\b` +
	`|kubectl |log of its container|keeps the bot from|another one (is|will be) made|makes another one|is full|it tries again|its readiness probe|does not trust|does not reach|does not speak|trouble of its own|Another node still`)

func checkUnready(t *testing.T, o PodObserved, reason, says string, isTrouble bool) Workload {
	t.Helper()
	if o.Set == nil {
		o.Set = tableSet()
	}
	o.Now = podNow
	got := Unready(o)
	if isTrouble && got.Reason != v1alpha1.ReasonCredentialsNotFetched && !nextStep.MatchString(got.Message) {
		t.Errorf("%q says what is wrong, and not what to do", got.Message)
	}
	if got.Reason != reason || got.Message == "" || !strings.Contains(got.Message, says) || got.Trouble != isTrouble {
		t.Errorf("%+v, want %s with %q, trouble %v", got, reason, says, isTrouble)
	}
	for _, never := range []string{"5m0s", "\n", "\x1b", "secret", "preemption"} {
		if strings.Contains(got.Message, never) && never != "secret" || never == "secret" && strings.Contains(strings.ReplaceAll(got.Message, "pull secret", ""), never) {
			t.Errorf("%q has %q in it", got.Message, never)
		}
	}
	return got
}

// TestPulls: each sort of failure to get an image has its own words and its own next step, in Kubernetes' first word
// for it and in its back-off's; and only where the registry asked who it is do pull secrets matter.
func TestPulls(t *testing.T) {
	const rpc = "failed to pull and unpack image \"registry.example/bot:1\": failed to resolve reference \"registry.example/bot:1\": "
	for why, tc := range map[string]struct {
		reason, says string
		secrets      bool
	}{
		"registry.example/bot:1: not found": {reason: v1alpha1.ReasonImageNotFound, says: "there is no image registry.example/bot:1. Check its name and tag"},
		"unexpected status from GET request to https://registry.example/v2/bot/manifests/1: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown":                             {reason: v1alpha1.ReasonImageNotFound, says: "Check its name and tag"},
		"no match for platform in manifest sha256:401401: not found":                                                                                                       {reason: v1alpha1.ReasonImageNotFound, says: "none for this node's platform"},
		"unexpected status from HEAD request to https://registry.example/v2/bot/manifests/1: 401 Unauthorized":                                                             {reason: v1alpha1.ReasonImagePullUnauthorized, says: "pull secret", secrets: true},
		"unexpected status from HEAD request to https://registry.example/v2/bot/manifests/1: 403 Forbidden":                                                                {reason: v1alpha1.ReasonImagePullUnauthorized, says: "pull secret", secrets: true},
		"pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed":                             {reason: v1alpha1.ReasonImagePullUnauthorized, says: "pull secret", secrets: true},
		`failed to do request: Head "https://registry.example/v2/": dial tcp: lookup registry.example on 10.0.0.10:53: no such host`:                                       {reason: v1alpha1.ReasonRegistryUnavailable, says: "The node knows no address of its registry"},
		`failed to do request: Head "https://registry.example/v2/": dial tcp 192.0.2.1:443: connect: connection refused`:                                                   {reason: v1alpha1.ReasonRegistryUnavailable, says: "does not reach its registry"},
		`failed to do request: Head "https://registry.example/v2/": dial tcp 192.0.2.1:443: i/o timeout`:                                                                   {reason: v1alpha1.ReasonRegistryUnavailable, says: "does not reach its registry"},
		`failed to do request: Head "https://registry.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`:                      {reason: v1alpha1.ReasonRegistryUnavailable, says: "does not trust its registry's certificate"},
		`failed to do request: Head "https://registry.example/v2/": http: server gave HTTP response to HTTPS client`:                                                       {reason: v1alpha1.ReasonRegistryUnavailable, says: "does not speak TLS"},
		"unexpected status from HEAD request to https://registry.example/v2/bot/manifests/1: 503 Service Unavailable":                                                      {reason: v1alpha1.ReasonRegistryUnavailable, says: "Its registry has trouble of its own"},
		"unexpected status from GET request to https://registry.example/v2/bot/manifests/1: 429 Too Many Requests: toomanyrequests: You have reached your pull rate limit": {reason: v1alpha1.ReasonImagePullBackOff, says: "pulled too often", secrets: true},
		`write /var/lib/containerd/io.containerd.content.v1.content/ingest/x/data: no space left on device`:                                                                {reason: v1alpha1.ReasonImagePullBackOff, says: "disk of the node is full"},
		`failed to extract layer sha256:404401: mismatched image rootfs and manifest layers`:                                                                               {reason: v1alpha1.ReasonImagePullBackOff, says: "mismatched image rootfs"},
	} {
		for face, message := range map[string]string{
			"ErrImagePull":     "rpc error: code = Unknown desc = " + rpc + why,
			"ImagePullBackOff": `Back-off pulling image "registry.example/bot:1": ErrImagePull: rpc error: code = Unknown desc = ` + rpc + why,
		} {
			t.Run(why+", "+face, func(t *testing.T) {
				w := checkUnready(t, PodObserved{Pod: tablePod(waitsFor(bot, face, message))}, tc.reason, tc.says, true)
				if !IsPull(w.Reason) || !IsFailing(w.Reason) || w.AsksWho != tc.secrets {
					t.Errorf("%+v, is it a pull: %v", w, IsPull(w.Reason))
				}
			})
		}
	}
	for name, tc := range map[string]struct{ reason, message, want, says string }{
		"nothing is said":         {"ImagePullBackOff", "Back-off pulling image", v1alpha1.ReasonImagePullBackOff, "See kubectl describe pod -n ns b-bot-0."},
		"the registry is down":    {"RegistryUnavailable", "", v1alpha1.ReasonRegistryUnavailable, "does not reach its registry"},
		"signature":               {"SignatureValidationFailed", "image signature is wrong", v1alpha1.ReasonSignatureInvalid, "sign it"},
		"it cannot be looked at":  {"ImageInspectError", "x", v1alpha1.ReasonImagePullBackOff, "The node cannot read it"},
		"it is no name":           {"InvalidImageName", "couldn't parse image name", v1alpha1.ReasonInvalidImageName, "Write registry/repository:tag"},
		"the runtime says so":     {"ErrImagePull", "rpc error: code = Unknown desc = invalid reference format", v1alpha1.ReasonInvalidImageName, "Write registry/repository:tag"},
		"it is never pulled":      {"ErrImageNeverPull", "Container image is not present with pull policy of Never", v1alpha1.ReasonImageNeverPull, "Load it there, or let it be pulled"},
		"a secret that is a word": {"ImagePullBackOff", "ErrImagePull: rpc error: password=hunter2hunter2 \x1b[31m", v1alpha1.ReasonImagePullBackOff, "cannot be pulled"},
	} {
		t.Run(name, func(t *testing.T) {
			w := checkUnready(t, PodObserved{Pod: tablePod(waitsFor(bot, tc.reason, tc.message))}, tc.want, tc.says, true)
			if !IsPull(w.Reason) || w.AsksWho || strings.Contains(w.Message, "hunter2") {
				t.Errorf("%+v", w)
			}
		})
	}
}

// TestSteady: a program that has ended counts as ready once it has run for twice as long as before; one crash after a
// long time holds nobody up.
func TestSteady(t *testing.T) {
	for _, tc := range []struct {
		ran, runs time.Duration
		steady    bool
	}{
		{3 * time.Second, 4 * time.Second, false},
		{3 * time.Second, 59 * time.Second, false},
		{3 * time.Second, 61 * time.Second, true},
		{90 * time.Second, 2 * time.Minute, false},
		{90 * time.Second, 3*time.Minute + time.Second, true},
		{8 * time.Minute, 9 * time.Minute, false},
		{8 * time.Minute, 10 * time.Minute, true},
		{10 * time.Minute, time.Second, true},
		{72 * time.Hour, time.Second, true},
	} {
		pod := tablePod(func(p *corev1.Pod) {
			bot(p).State.Running.StartedAt = ago(tc.runs)
			bot(p).LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: ago(tc.runs + time.Minute + tc.ran), FinishedAt: ago(tc.runs + time.Minute)}
		})
		if _, _, unsteady := Unsteady(PodObserved{Set: tableSet(), Pod: pod, Now: podNow}); unsteady == tc.steady {
			t.Errorf("ran for %s, runs again for %s: steady is %v", tc.ran, tc.runs, !unsteady)
		}
	}
	// What its node has forgotten, or tells no times of, is no long run; what has ended since the pod was counted as
	// ready is not ready.
	for name, edit := range map[string]func(*corev1.Pod){
		"restarted, and nothing known": func(p *corev1.Pod) { bot(p).RestartCount, bot(p).State.Running.StartedAt = 1, ago(6*time.Second) },
		"no times": func(p *corev1.Pod) {
			bot(p).RestartCount, bot(p).State.Running.StartedAt = 1, ago(6*time.Second)
			bot(p).LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137}
		},
		"ended just now": endsIn(end("Error", 1, 3*time.Second, ""), "ended"),
		"waits":          endsIn(end("Error", 1, 3*time.Second, ""), "waits"),
	} {
		if w, left, unsteady := Unsteady(PodObserved{Set: tableSet(), Pod: tablePod(edit), Now: podNow}); !unsteady || left <= 0 || !HasEnded(w.Reason) {
			t.Errorf("%s: steady, %+v", name, w)
		}
	}
	if _, _, unsteady := Unsteady(PodObserved{Set: tableSet(), Now: podNow}); unsteady {
		t.Error("no pod, and unsteady")
	}
}

// TestLooks: as little as can be is read beside the pod.
func TestLooks(t *testing.T) {
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want Look
	}{
		"no pod":               {nil, Look{EventsOf: "set"}},
		"a program that runs":  {tablePod(func(p *corev1.Pod) { bot(p).Ready = false }), Look{Node: "n"}},
		"in a crash loop":      {tablePod(endsIn(end("Error", 1, time.Second, ""), "waits")), Look{Node: "n", EventsOf: "pod"}},
		"all ready, pod not":   {tablePod(), Look{Node: "n"}},
		"all ready, pod too":   {tablePod(func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionTrue }), Look{}},
		"ends, in time":        {tablePod(func(p *corev1.Pod) { at := ago(0); p.DeletionTimestamp = &at; bot(p).Ready = false }), Look{Node: "n"}},
		"ends, and is late":    {tablePod(func(p *corev1.Pod) { at := ago(time.Minute); p.DeletionTimestamp = &at; bot(p).Ready = false }), Look{Node: "n"}},
		"nothing started yet":  {tablePod(neverBegan), Look{Node: "n", EventsOf: "pod"}},
		"has failed":           {tablePod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), Look{}},
		"it says itself why":   {tablePod(waitsFor(bot, "ErrImagePull", "x"), func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }), Look{Node: "n"}},
		"not scheduled":        {tablePod(neverBegan, func(p *corev1.Pod) { p.Spec.NodeName = "" }), Look{}},
		"out of memory":        {tablePod(endsIn(end("OOMKilled", 137, time.Second, ""), "waits")), Look{Node: "n"}},
		"ended without probes": {tablePod(endsIn(end("Error", 1, time.Second, ""), "waits"), func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = nil }), Look{Node: "n"}},
	} {
		if got := Looks(PodObserved{Set: tableSet(), Pod: tc.pod, Now: podNow}); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestReasonsAreOneThing: every reason is a word that the API takes, has one name in all packages, and what a kubelet
// says of a container that it cannot start, or whose program has ended, is among what fails, and nothing else is.
func TestReasonsAreOneThing(t *testing.T) {
	names, words := map[string]string{}, regexp.MustCompile(`^[A-Z][A-Za-z]{2,62}$`)
	for _, folder := range []string{"../status", "../keyapi", "../planner", "../report", "../../controllers", "../../api/v1alpha1"} {
		files, err := filepath.Glob(filepath.Join(filepath.FromSlash(folder), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(folder, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile(`(?m)^(?:const |\t)(Reason[A-Za-z]+)\s*=\s*"([^"]*)"`).FindAllStringSubmatch(string(content), -1) {
				if !words.MatchString(match[2]) {
					t.Errorf("%s: %q is no reason of a condition", match[1], match[2])
				}
				if other, ok := names[match[2]]; ok && other != match[1] {
					t.Errorf("%s is %s and %s", match[2], other, match[1])
				}
				names[match[2]] = match[1]
			}
		}
	}
	if len(names) < 130 {
		t.Errorf("%d reasons only", len(names))
	}
	// By what is done with each face of a pod, and not by the list itself.
	var fails []string
	for _, waiting := range []string{"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
		"CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError"} {
		for _, message := range []string{"", "401 unauthorized", "manifest unknown", "dial tcp 10.0.0.1:443: i/o timeout", "rpc error: something else"} {
			fails = append(fails, Unready(PodObserved{Set: tableSet(), Pod: tablePod(waitsFor(bot, waiting, message))}).Reason)
		}
	}
	ends := []*corev1.ContainerStateTerminated{end("Error", 1, time.Second, ""), end("Error", 137, time.Second, ""), end("Error", 143, time.Second, ""), end("Completed", 0, time.Second, ""),
		end("OOMKilled", 137, time.Second, ""), end("StartError", 128, 0, ""), end("ContainerCannotRun", 127, 0, "")}
	for _, ended := range ends {
		for _, face := range []string{"ended", "waits", "runs"} {
			reason := Unready(PodObserved{Set: tableSet(), Pod: tablePod(endsIn(ended, face)), Now: podNow}).Reason
			if fails = append(fails, reason); !HasEnded(reason) {
				t.Errorf("%s, %s: %s is not the reason of a program that has ended", ended.Reason, face, reason)
			}
		}
	}
	fails = append(fails, v1alpha1.ReasonLivenessProbeFailed, v1alpha1.ReasonStartupProbeFailed, v1alpha1.ReasonPodRefused, v1alpha1.ReasonPodMismatch)
	for _, reason := range fails {
		if !IsFailing(reason) {
			t.Errorf("%s does not fail", reason)
		}
	}
	for _, reason := range v1alpha1.Reasons() {
		if IsFailing(reason) && !slices.Contains(fails, reason) {
			t.Errorf("%s counts as failing, and no pod has it", reason)
		}
	}
	for reason := range names {
		if IsFailing(reason) != slices.Contains(fails, reason) {
			t.Errorf("%s fails: %v", reason, IsFailing(reason))
		}
	}
	for _, u := range []Update{UpToDate, UpdateWaits, UpdateStopped, UpdateStoppedInTenant, UpdateHeld} {
		c := workload(BotObserved{Workload: &Workload{Done: true, Update: u}})
		if c.Status != metav1.ConditionTrue || c.Reason == "" {
			t.Errorf("%s: %+v", u, c)
		}
		for _, stopped := range []Update{UpdateStopped, UpdateStoppedInTenant} {
			if SaysStopped([]metav1.Condition{c}, stopped) != (u == stopped) {
				t.Errorf("%s: is taken for %s, or not", u, stopped)
			}
		}
	}
}
