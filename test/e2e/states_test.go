package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// soonEnough is how long a status may take to say what the API shows. A second is what looking costs here.
const soonEnough = 15*time.Second + time.Second

// state is a bot in a situation that is really so.
type state struct {
	name   string
	bot    func(*v1alpha1.BotDeployment)
	reason string
	says   string
	// shows says of the pod (nil where there is none) and of the events about it, or about its StatefulSet, that the
	// API shows it.
	shows func(*corev1.Pod, []corev1.Event) bool
	// never ready, at no moment.
	never bool

	shown, told time.Time
	// ends says that the program ends by itself, ended is when it did first, by what the kubelet said later.
	ends  bool
	ended time.Time
	// ready is when it was called ready before the API showed anything.
	ready time.Time
}

// statesTellWhy: what the API shows of a bot's pod stands in the bot's status within 15 seconds, in words that say
// why. All situations are there at the same time, on a real node.
func statesTellWhy(t *testing.T, w *world) {
	const program = "states"
	w.mismatch(t, "e2e-states", "mismatch-bot-0")
	image := w.image(t, program, "./test/e2e/program")
	tenant := w.tenant(t, "e2e-states", nil)
	w.create(t, lostVolume(w, tenant)...)
	all := states()
	bots := map[string]*v1alpha1.BotDeployment{}
	for _, s := range append(all, &state{name: "fine"}, &state{name: "blip"}) {
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: s.name}, Spec: v1alpha1.BotDeploymentSpec{
			Image: image, ImagePullPolicy: corev1.PullNever, Args: []string{"serve"},
			Ports: []v1alpha1.ContainerPort{{Name: "health", ContainerPort: 8080}},
			Resources: &v1alpha1.BotResources{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("8Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			},
			Probes:  &v1alpha1.Probes{Readiness: &v1alpha1.Probe{Path: "/ready", Port: "health", PeriodSeconds: 1, FailureThreshold: 1}},
			Rollout: v1alpha1.BotRollout{TerminationGracePeriodSeconds: 1, ProgressDeadlineSeconds: 20},
		}}
		if s.bot != nil {
			s.bot(bot)
		}
		if s.name == "mismatch" {
			bot.Spec.Credentials = []v1alpha1.Credential{{Name: "token", Sealed: w.seal(t, tenant, tenant.Name, s.name, "token", 1, "of no use")}}
		}
		bots[s.name] = bot
		w.create(t, bot)
	}
	until(t, 4*time.Minute, "see every state told", func(ctx context.Context) (string, error) {
		var missing []string
		for _, s := range all {
			if err := w.look(ctx, s, bots[s.name]); err != nil {
				return "", err
			}
			if s.told.IsZero() || s.shown.IsZero() {
				c := meta.FindStatusCondition(bots[s.name].Status.Conditions, v1alpha1.ConditionWorkloadReady)
				missing = append(missing, fmt.Sprintf("%s (shown %v, told %v: %+v)", s.name, !s.shown.IsZero(), !s.told.IsZero(), c))
			}
			if c := meta.FindStatusCondition(bots[s.name].Status.Conditions, v1alpha1.ConditionReady); s.never && c != nil && c.Status == metav1.ConditionTrue {
				if s.ready = c.LastTransitionTime.Time; !s.ends || !s.shown.IsZero() && s.ready.After(s.shown) {
					t.Errorf("%s is called ready at %s, and the API showed at %s that it is not", s.name, s.ready, s.shown)
				}
			}
		}
		return strings.Join(missing, "\n"), nil
	})
	for _, s := range all {
		late := s.told.Sub(s.shown)
		t.Logf("%-14s %-24s after %5.1fs", s.name, s.reason, late.Seconds())
		if late > soonEnough {
			t.Errorf("%s was told %s after the API showed it", s.name, late)
		}
		// A kubelet on a busy machine may say of a program that it runs when it has ended: only then, and only until
		// it says so, is it called ready.
		if !s.ready.IsZero() && (s.ended.IsZero() || !s.ended.Before(s.ready)) {
			t.Errorf("%s was called ready at %s, and ended at %s", s.name, s.ready, s.ended)
		}
	}
	w.blip(t, bots["blip"])
	// All this time a crash loop has gone round: it was told once.
	w.toldOnce(t, bots["exit-1"], "CrashLoopBackOff")
	w.toldOnce(t, bots["exit-0"], "Completed")
	w.nodeLost(t, bots["fine"])
	if err := w.client.DeleteAllOf(t.Context(), &v1alpha1.BotDeployment{}, client.InNamespace(tenant.Name)); err != nil {
		t.Fatal(err)
	}
	for _, bot := range bots {
		w.gone(t, bot, time.Minute)
	}
	// A volume that a bot took over is kept, and a Tenant that keeps one stays.
	for _, kept := range []client.Object{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "lost"}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "e2e-lost"}}} {
		if err := w.client.Delete(t.Context(), kept); err != nil {
			t.Error(err)
		}
	}
}

func states() []*state {
	ended := func(code int32, reason string) func(*corev1.Pod, []corev1.Event) bool {
		return func(p *corev1.Pod, _ []corev1.Event) bool {
			for _, c := range statusesOf(p) {
				for _, end := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
					if end != nil && (end.ExitCode == code || code < 0) && (reason == "" || end.Reason == reason) {
						return true
					}
				}
			}
			return false
		}
	}
	waits := func(reasons ...string) func(*corev1.Pod, []corev1.Event) bool {
		return func(p *corev1.Pod, _ []corev1.Event) bool {
			for _, c := range statusesOf(p) {
				if c.State.Waiting != nil && slices.Contains(reasons, c.State.Waiting.Reason) {
					return true
				}
			}
			return false
		}
	}
	event := func(reason, text string) func(*corev1.Pod, []corev1.Event) bool {
		return func(_ *corev1.Pod, events []corev1.Event) bool {
			return slices.ContainsFunc(events, func(e corev1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, text) })
		}
	}
	unscheduled := func(p *corev1.Pod, _ []corev1.Event) bool {
		return p != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
		})
	}
	args := func(args ...string) func(*v1alpha1.BotDeployment) {
		return func(b *v1alpha1.BotDeployment) { b.Spec.Args, b.Spec.Probes = args, nil }
	}
	needs := func(name corev1.ResourceName, limit string) func(*v1alpha1.BotDeployment) {
		return func(b *v1alpha1.BotDeployment) {
			b.Spec.Resources.Limits[name], b.Spec.Resources.Requests[name] = resource.MustParse(limit), resource.MustParse(limit)
		}
	}
	return []*state{
		// The StatefulSet's controller deletes such a pod at once: what it said is over before anybody reads it.
		{name: "evicted", bot: func(b *v1alpha1.BotDeployment) {
			args("fill", "/cache/file")(b)
			b.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: resource.MustParse("1Mi")}}
		}, reason: "Evicted", says: `exceeds the limit "1Mi"`, shows: event("Evicted", "")},
		{name: "mismatch", reason: "PodMismatch", says: "spec.enableServiceLinks", shows: ended(1, ""), never: true},
		{name: "exit-0", bot: args("end", "0", "1s"), reason: "Completed", says: "exit code 0", shows: ended(0, "Completed"), never: true, ends: true},
		{name: "exit-1", bot: args("end", "1", "3s"), reason: "CrashLoopBackOff", says: "exit code 1", shows: ended(1, ""), never: true, ends: true},
		{name: "memory", bot: args("eat"), reason: "OOMKilled", says: "limit (64Mi)", shows: ended(137, "OOMKilled"), never: true, ends: true},
		{name: "liveness", bot: func(b *v1alpha1.BotDeployment) {
			b.Spec.Probes.Liveness = &v1alpha1.Probe{Path: "/never", Port: "health", PeriodSeconds: 4, FailureThreshold: 2}
		}, reason: "LivenessProbeFailed", says: "HTTP /never at port health", shows: ended(-1, "")},
		{name: "readiness", bot: func(b *v1alpha1.BotDeployment) { b.Spec.Probes.Readiness.Path = "/never" }, reason: "PodNotReady", says: "readiness probe (HTTP /never",
			shows: func(p *corev1.Pod, _ []corev1.Event) bool {
				return slices.ContainsFunc(statusesOf(p), func(c corev1.ContainerStatus) bool { return c.State.Running != nil && !c.Ready })
			}, never: true},
		{name: "no-program", bot: func(b *v1alpha1.BotDeployment) { b.Spec.Command = []string{"/there-is-none"} }, reason: "ContainerCannotStart", says: "no such file",
			shows: ended(-1, "StartError"), never: true},
		{name: "never-pulled", bot: func(b *v1alpha1.BotDeployment) { b.Spec.Image = "states:there-is-none" }, reason: "ErrImageNeverPull", says: "imagePullPolicy is Never",
			shows: waits("ErrImageNeverPull"), never: true},
		{name: "no-registry", bot: func(b *v1alpha1.BotDeployment) {
			b.Spec.Image, b.Spec.ImagePullPolicy = "registry.example/states:1", corev1.PullIfNotPresent
		}, reason: "RegistryUnavailable", says: "check the registry's name", shows: waits("ErrImagePull", "ImagePullBackOff"), never: true},
		{name: "no-room", bot: needs(corev1.ResourceCPU, "15"), reason: "Unschedulable", says: "Insufficient cpu", shows: unscheduled, never: true},
		{name: "no-quota", bot: needs(corev1.ResourceMemory, "100Gi"), reason: "QuotaExceeded", says: "exceeded quota: lethe, requested: limits.memory=100Gi",
			shows: event("FailedCreate", "exceeded quota"), never: true},
		{name: "no-volume", bot: func(b *v1alpha1.BotDeployment) {
			b.Spec.Storage = &v1alpha1.BotStorage{Claim: &v1alpha1.BotClaim{Existing: "lost"}, MountPath: "/data"}
		}, reason: "VolumeNotMounted", says: "does not exist", shows: event("FailedMount", ""), never: true},
	}
}

func statusesOf(p *corev1.Pod) []corev1.ContainerStatus {
	if p == nil {
		return nil
	}
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
}

// mismatch is a policy of somebody's that changes a pod in a way that nobody is told of.
func (w *world) mismatch(t *testing.T, namespace, pod string) {
	t.Helper()
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "e2e-mismatch"}, Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
		ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
		MatchConstraints: &admissionregistrationv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}}}},
		MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "one", Expression: fmt.Sprintf("object.metadata.name == %q", pod)}},
		Mutations: []admissionregistrationv1.Mutation{{PatchType: admissionregistrationv1.PatchTypeJSONPatch,
			JSONPatch: &admissionregistrationv1.JSONPatch{Expression: `[JSONPatch{op: "replace", path: "/spec/enableServiceLinks", value: true}]`}}},
	}}
	binding := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: policy.Name}}
	w.create(t, policy, binding)
	t.Cleanup(func() {
		for _, object := range []client.Object{binding, policy} {
			if err := w.client.Delete(context.WithoutCancel(t.Context()), object); err != nil {
				t.Error(err)
			}
		}
	})
}

// lostVolume is a claim of the Tenant's, bound to a volume whose folder is not there.
func lostVolume(w *world, tenant *v1alpha1.Tenant) []client.Object {
	empty, size := "", corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	return []client.Object{
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "e2e-lost"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:               &corev1.ObjectReference{Namespace: tenant.Name, Name: "lost"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/there/is/none"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
				Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{w.info.Network.NodeName}}}}}}},
		}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "lost", Annotations: map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &empty, VolumeName: "e2e-lost", AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size}}},
	}
}

// look notes when the API shows a state, and when the bot's status tells it.
func (w *world) look(ctx context.Context, s *state, bot *v1alpha1.BotDeployment) error {
	if s.shown.IsZero() {
		pod, events := &corev1.Pod{}, &corev1.EventList{}
		err := w.client.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: bot.Name + "-bot-0"}, pod)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err != nil {
			pod = nil
		}
		if err := w.client.List(ctx, events, client.InNamespace(bot.Namespace)); err != nil {
			return err
		}
		of := slices.DeleteFunc(events.Items, func(e corev1.Event) bool {
			return e.InvolvedObject.Name != bot.Name+"-bot" && e.InvolvedObject.Name != bot.Name+"-bot-0"
		})
		if s.shows(pod, of) {
			s.shown = time.Now()
			for _, c := range statusesOf(pod) {
				for _, end := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
					if s.ends && end != nil && end.Reason != "" && (end.ExitCode != 0 || s.reason == "Completed" && c.Name == "bot") {
						s.ended = end.FinishedAt.Time
					}
				}
			}
		}
	}
	if err := w.client.Get(ctx, client.ObjectKeyFromObject(bot), bot); err != nil {
		return err
	}
	c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	if s.told.IsZero() && c != nil && c.Status == metav1.ConditionFalse && c.Reason == s.reason && strings.Contains(c.Message, s.says) {
		s.told = time.Now()
	}
	return nil
}

// blip: a pod that is older than the deadline is not ready for a moment. That is told, and is no reason to give up on
// it.
func (w *world) blip(t *testing.T, bot *v1alpha1.BotDeployment) {
	t.Helper()
	w.awaitReady(t, bot, time.Minute)
	pod := w.podNamed(t, bot.Namespace, bot.Name+"-bot-0")
	until(t, time.Minute, "see the pod older than the deadline", func(context.Context) (string, error) {
		if age := time.Since(pod.CreationTimestamp.Time); age <= time.Duration(bot.Spec.Rollout.ProgressDeadlineSeconds)*time.Second {
			return fmt.Sprintf("it is %s old", age), nil
		}
		return "", nil
	})
	away := filepath.Join(rootOf(t, pod), "tmp", "away")
	if err := os.WriteFile(away, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stalled := false
	until(t, time.Minute, "see it told", func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(bot), bot)
		stalled = stalled || meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionStalled)
		if c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady); c == nil || c.Reason != "PodNotReady" {
			return fmt.Sprintf("%+v", c), err
		}
		return "", err
	})
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "see it ready again", func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(bot), bot)
		stalled = stalled || meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionStalled)
		if !meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionReady) {
			return "it is not", err
		}
		return "", err
	})
	if stalled {
		t.Error("a blip of a moment is called stalled")
	}
}

// rootOf is the root folder of a pod's own container, as this machine sees it.
func rootOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if groups, err := os.ReadFile(file); err == nil && id != "" && strings.Contains(string(groups), id) {
			return filepath.Join(filepath.Dir(file), "root")
		}
	}
	t.Fatalf("no process of container %q of pod %s", id, pod.Name)
	return ""
}

// toldOnce counts the events about a bot that have a reason.
func (w *world) toldOnce(t *testing.T, bot *v1alpha1.BotDeployment, reason string) {
	t.Helper()
	events := &eventsv1.EventList{}
	if err := w.client.List(t.Context(), events, client.InNamespace(bot.Namespace)); err != nil {
		t.Fatal(err)
	}
	n := int32(0)
	for i := range events.Items {
		e := &events.Items[i]
		if e.Regarding.Kind != "BotDeployment" || e.Regarding.Name != bot.Name || e.Reason != reason {
			continue
		}
		if n++; e.Series != nil {
			n += e.Series.Count
		}
	}
	if n != 1 {
		t.Errorf("%s of %s was told %d times", reason, bot.Name, n)
	}
}

// nodeLost stops the kubelet: Kubernetes gives up on the node after a while, and the bot's status names it and the
// remedy.
func (w *world) nodeLost(t *testing.T, bot *v1alpha1.BotDeployment) {
	t.Helper()
	w.awaitReady(t, bot, time.Minute)
	info, err := w.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kubelet := info.Pids["kubelet"]
	if kubelet <= 1 {
		t.Fatalf("the kubelet has the process id %d", kubelet)
	}
	if err := syscall.Kill(kubelet, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goesOn := func() {
		if err := syscall.Kill(kubelet, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	defer goesOn()
	s := &state{name: "fine", reason: "NodeLost", says: "Node " + info.Network.NodeName + " does not answer", shows: func(p *corev1.Pod, _ []corev1.Event) bool {
		return p != nil && !isReady(p)
	}}
	until(t, 3*time.Minute, "see the node told lost", func(ctx context.Context) (string, error) {
		if err := w.look(ctx, s, bot); err != nil {
			return "", err
		}
		if s.told.IsZero() {
			return fmt.Sprintf("%+v", meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)), nil
		}
		return "", nil
	})
	if late := s.told.Sub(s.shown); late > soonEnough {
		t.Errorf("the lost node was told %s after the API showed it", late)
	}
	goesOn()
	w.awaitReady(t, bot, 2*time.Minute)
}
