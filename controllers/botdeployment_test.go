package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// withTenant is a world with a Tenant that is ready.
func withTenant(t *testing.T, name string) (*world, *v1alpha1.Tenant) {
	t.Helper()
	w := newWorld(t)
	tenant := makeTenant(name, name+"-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	return w, tenant
}

func setOf(bot *v1alpha1.BotDeployment) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}}
}

// oneEvent waits for the event with a reason, and checks that there is one.
func (w *world) oneEvent(object client.Object, reason string) {
	w.t.Helper()
	w.hasEvents(object, reason, 1)
}

func (w *world) hasEvents(object client.Object, reason string, want int) {
	w.t.Helper()
	w.eventually("event "+reason, func() error {
		events := &eventsv1.EventList{}
		if err := w.admin.List(context.Background(), events); err != nil {
			return err
		}
		count := 0
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == reason && e.Regarding.UID == object.GetUID() {
				count++
				if e.Series != nil {
					count += int(e.Series.Count)
				}
			}
		}
		if count != want {
			return fmt.Errorf("%d events", count)
		}
		return nil
	})
}

func TestBotWithoutATenant(t *testing.T) {
	w := newWorld(t)
	namespace := testEnv.Namespace(t, "nobody", nil)
	bot := makeBot(namespace.Name, "b")
	w.create(bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
	w.oneEvent(bot, v1alpha1.ReasonNoTenant)
	if err := w.isEmpty(namespace.Name); err != nil {
		t.Errorf("something was made for a bot of nobody: %v", err)
	}
	w.delete(bot)
	w.gone(bot)
}

// TestBotCannotNameItsTenant: a label that a tenant could write on its own objects says nothing.
func TestBotCannotNameItsTenant(t *testing.T) {
	w, _ := withTenant(t, "victim")
	namespace := testEnv.Namespace(t, "thief", nil)
	bot := makeBot(namespace.Name, "b")
	bot.Labels = map[string]string{v1alpha1.LabelTenant: "victim"}
	bot.Annotations = map[string]string{v1alpha1.LabelTenant: "victim"}
	w.create(bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
	w.delete(bot)
	w.gone(bot)
}

func TestBotNamesOfAnyLength(t *testing.T) {
	w, _ := withTenant(t, "long")
	for _, name := range []string{strings.Repeat("a", 253), strings.Repeat("a", 252) + "b", "with.dots.in.it"} {
		bot := makeBot("long-a", name)
		w.create(bot)
		w.becomes(bot, "Ready=True")
	}
}

func TestForeignStatefulSetIsRefused(t *testing.T) {
	w, _ := withTenant(t, "squat")
	bot := makeBot("squat-a", "b")
	stranger := setOf(bot)
	stranger.Labels = resources.BotLabels("b") // a label is no proof
	stranger.Spec = appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "stranger"}}}},
	}
	if err := w.cluster.Create(context.Background(), stranger); err != nil {
		t.Fatal(err)
	}
	w.create(bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonNameTaken)
	w.becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonNameTaken)
	if err := w.get(stranger); err != nil || stranger.Generation != 1 {
		t.Errorf("the stranger's StatefulSet was touched: %v", err)
	}
	w.oneEvent(bot, v1alpha1.ReasonNameTaken)
}

// TestPlaintextInSpec: who sees no warnings at apply learns from the condition and one event that a credential stands in the spec. The bot runs.
func TestPlaintextInSpec(t *testing.T) {
	w, _ := withTenant(t, "plain")
	bot := makeBot("plain-a", "b")
	token := "123456789:" + strings.Repeat("Ab-_9", 7)
	bot.Spec.Env = []v1alpha1.EnvVar{{Name: "TOKEN", Value: token}}
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonPlaintextInSpec)
	if said := fmt.Sprint(bot.Status); !strings.Contains(said, "spec.env[TOKEN].value") || strings.Contains(said, token) {
		t.Errorf("the status says %s", said)
	}
	w.oneEvent(bot, v1alpha1.ReasonPlaintextInSpec)
	version := bot.ResourceVersion
	w.restart()
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Labels = map[string]string{"looked": "at"} })
	w.becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonPlaintextInSpec)
	if version == bot.ResourceVersion {
		t.Error("the edit was not seen")
	}
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Env = nil })
	w.becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonStored)
}

func TestSuspension(t *testing.T) {
	w, tenant := withTenant(t, "pause")
	bot := makeBot("pause-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")

	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.becomes(bot, "WorkloadReady=False/Suspended")
	w.becomes(bot, "Ready=True")
	w.hasReplicas(bot, 0)
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.becomes(bot, "WorkloadReady=True")
	w.hasReplicas(bot, 1)

	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
	w.becomes(bot, "Ready=True/TenantSuspended")
	w.hasReplicas(bot, 0)
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantActive })
	w.becomes(bot, "Ready=True")
	w.hasReplicas(bot, 1)
}

func (w *world) hasReplicas(bot *v1alpha1.BotDeployment, want int32) {
	w.t.Helper()
	w.eventually("replicas", func() error {
		set := setOf(bot)
		if err := w.get(set); err != nil {
			return err
		}
		if *set.Spec.Replicas != want {
			return fmt.Errorf("%d replicas, want %d", *set.Spec.Replicas, want)
		}
		return nil
	})
}

// TestStoppingNeedsNobodysLeave: a bot can be stopped while the keyserver is away.
func TestStoppingNeedsNobodysLeave(t *testing.T) {
	w, _ := withTenant(t, "stop")
	bot := makeBot("stop-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.hasReplicas(bot, 0)
}

func TestPlacementReachesRunningBots(t *testing.T) {
	w, tenant := withTenant(t, "place")
	bot := makeBot("place-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"region": "eu"}}
	})
	w.eventually("the node selector", func() error {
		set := setOf(bot)
		if err := w.get(set); err != nil {
			return err
		}
		if set.Spec.Template.Spec.NodeSelector["region"] != "eu" {
			return errors.New("the pod may still run anywhere")
		}
		return nil
	})
	w.becomes(bot, "Ready=True")
}

// TestRefusedCredentials: what cannot be opened starts nothing; where something ran, that goes on.
func TestRefusedCredentials(t *testing.T) {
	for _, reason := range []string{v1alpha1.ReasonWrongPlace, v1alpha1.ReasonMalformed, v1alpha1.ReasonUnknownKey, v1alpha1.ReasonDoesNotOpen, v1alpha1.ReasonSecretMissing} {
		t.Run(reason, func(t *testing.T) {
			w, _ := withTenant(t, "refuse")
			no := protocol.CredentialResult{Name: "telegram", Reason: reason, Message: "seal it again for this bot"}
			w.keys.set(func(k *keyserverDouble) { k.refuse["telegram"] = no })
			bot := makeBot("refuse-a", "b")
			w.create(bot)
			w.becomes(bot, "CredentialsReady=False/"+reason)
			w.becomes(bot, "Stalled=True/"+reason)
			w.becomes(bot, "IsolationReady=True")
			if err := w.isGone(setOf(bot)); err != nil {
				t.Error("a workload was made without credentials")
			}
			w.keys.set(func(k *keyserverDouble) { delete(k.refuse, "telegram") })
			edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.good" })
			w.becomes(bot, "Ready=True")
			was := bot.Status.CredentialsSecret

			w.keys.set(func(k *keyserverDouble) { k.refuse["telegram"] = no })
			edit(w, bot, func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.bad"
				b.Spec.Image = "registry.example/bot:v2"
			})
			w.becomes(bot, "CredentialsReady=False/"+reason)
			w.becomes(bot, "Stalled=True/"+reason)
			set := setOf(bot)
			if err := w.get(set); err != nil || runningSecret(set) != was || set.Spec.Template.Spec.Containers[0].Image != "registry.example/bot:v2" {
				t.Errorf("the values before must go on being used: %v %v", set.Spec.Template.Annotations, err)
			}
			w.hasEvents(bot, reason, 2) // it was refused twice
		})
	}
}

// TestRevertedCommit: an older value keeps the newer one running, and says so.
func TestRevertedCommit(t *testing.T) {
	w, _ := withTenant(t, "revert")
	bot := makeBot("revert-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	was := bot.Status.CredentialsSecret
	w.keys.set(func(k *keyserverDouble) {
		k.refuse["telegram"] = protocol.CredentialResult{Name: "telegram", Reason: v1alpha1.ReasonRolledBack, Version: 2}
		k.pinned = was
	})
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.old" })
	w.becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonRolledBack)
	w.becomes(bot, "Ready=True")
	if bot.Status.CredentialsSecret != was {
		t.Errorf("%s is used instead of %s", bot.Status.CredentialsSecret, was)
	}
	w.oneEvent(bot, v1alpha1.ReasonRolledBack)
}

func TestBotOutlivesAnAbsentKeyserver(t *testing.T) {
	w, _ := withTenant(t, "absent")
	running, fresh := makeBot("absent-a", "running"), makeBot("absent-a", "fresh")
	w.create(running)
	w.becomes(running, "Ready=True")
	w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
	w.restart()
	w.create(fresh)
	w.becomes(fresh, "CredentialsReady=False/"+v1alpha1.ReasonKeyserverUnavailable)
	w.becomes(running, "Ready=True")
	set := setOf(running)
	editAs(w, w.cluster, set, func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "drifted" })
	w.eventually("repaired without the keyserver", func() error {
		if err := w.get(set); err != nil {
			return err
		}
		if image := set.Spec.Template.Spec.Containers[0].Image; image == "drifted" {
			return errors.New("still drifted")
		}
		return nil
	})
}

// TestBadImageThenGoodImage: a revision that never becomes ready is told of, stalls in time, and does not block its repair.
func TestBadImageThenGoodImage(t *testing.T) {
	w, _ := withTenant(t, "image")
	w.kcm.Broken = func(image string) bool { return strings.Contains(image, "broken") }
	bot := makeBot("image-a", "b")
	bot.Spec.Image = "registry.example/broken:v1"
	bot.Spec.Rollout.ProgressDeadlineSeconds = 10
	w.create(bot)
	w.becomes(bot, "Reconciling=True/PodMissing")

	set := setOf(bot)
	if err := w.get(set); err != nil {
		t.Fatal(err)
	}
	if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("with ordered pod management a broken pod blocks the revision that repairs it")
	}
	w.podOf(bot, set, "ErrImagePull")
	w.restart() // rather than wait a minute for the next look
	w.becomes(bot, "Ready=False/ImagePullBackOff")
	w.becomes(bot, "Stalled=True/ImagePullBackOff")
	w.oneEvent(bot, "ImagePullBackOff")
	w.restart()
	w.calm()
	if err := w.isNow(bot, "Stalled=True/ImagePullBackOff"); err != nil {
		t.Errorf("a restart forgot that the deadline has passed: %v", err)
	}
	if written := w.wire.written(); len(written) > 0 {
		t.Errorf("a restart wrote %v", written)
	}

	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.becomes(bot, "Ready=True")
}

// TestPodThatTheClusterChanged: the keyserver gives such a pod nothing, and the bot's condition names the field.
func TestPodThatTheClusterChanged(t *testing.T) {
	w, _ := withTenant(t, "changed")
	w.kcm.Broken = func(string) bool { return true }
	bot := makeBot("changed-a", "b")
	bot.Spec.Rollout.ProgressDeadlineSeconds = 10
	w.create(bot)
	w.becomes(bot, "Reconciling=True/PodMissing")
	set := setOf(bot)
	if err := w.get(set); err != nil {
		t.Fatal(err)
	}
	set.Spec.Template.Spec.Containers[0].Env = append(set.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "INJECTED", Value: "by-a-webhook"})
	w.podOf(bot, set, "PodInitializing", func(p *corev1.Pod) {
		p.Status.InitContainerStatuses[0].State.Terminated.ExitCode = 1
	})
	w.restart() // rather than wait a minute for the next look
	w.becomes(bot, "WorkloadReady=False/PodMismatch")
	w.becomes(bot, "Stalled=True/PodMismatch")
	c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	if !strings.Contains(c.Message, "spec.containers[0].env") || strings.Contains(c.Message, "by-a-webhook") {
		t.Errorf("the message does not name the field, or repeats what is in it: %s", c.Message)
	}
	w.oneEvent(bot, "PodMismatch")
}

// podOf plays the kubelet for a pod whose image cannot be pulled.
func (w *world) podOf(bot *v1alpha1.BotDeployment, set *appsv1.StatefulSet, reason string, changes ...func(*corev1.Pod)) {
	w.t.Helper()
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = bot.Namespace, resources.BotPodName(bot.Name)
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = "revision"
	if err := w.cluster.Create(context.Background(), pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerUnseal, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerBot, Image: bot.Spec.Image,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	for _, change := range changes {
		change(pod)
	}
	if err := w.cluster.Status().Update(context.Background(), pod); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.cluster.Delete(context.Background(), pod, client.GracePeriodSeconds(0)) })
}

// TestSpecThatKubernetesRefuses: what our own rules let through may be refused further down, by a policy of the cluster's for example.
func TestSpecThatKubernetesRefuses(t *testing.T) {
	w, _ := withTenant(t, "invalid")
	name, invalid := "bot-invalid", metav1.StatusReasonInvalid
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"statefulsets"}}}}}},
		Validations: []admissionv1.Validation{{Expression: "object.spec.template.spec.containers.all(c, !c.image.endsWith(':latest'))",
			Message: "spec.template.spec.containers[].image must not be \u202elatest", Reason: &invalid}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}
	w.create(policy, binding)
	t.Cleanup(func() { w.delete(binding); w.delete(policy) })
	bot := makeBot("invalid-a", "b")
	bot.Spec.Image = "registry.example/bot:latest"
	labels := map[string]string{"a": "b"}
	probe := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "invalid-a", Name: "probe"}, Spec: appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: bot.Spec.Image}}}}}}
	w.eventually("the policy is enforced", func() error {
		err := w.cluster.Create(context.Background(), probe.DeepCopy(), client.DryRunAll)
		if !apierrors.IsInvalid(err) {
			return fmt.Errorf("a StatefulSet of that image is not refused as invalid (%T)", err)
		}
		return nil
	})
	w.create(bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonRefused)
	w.becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonRefused)
	c := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled)
	if !strings.Contains(c.Message, "containers[].image must not be latest") {
		t.Errorf("the message does not name the field, or was not cleaned: %q", c.Message)
	}
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v1" })
	w.becomes(bot, "Ready=True")
}

func TestBotDeletion(t *testing.T) {
	w, _ := withTenant(t, "delete")
	with, without := makeBot("delete-a", "with"), makeBot("delete-a", "without")
	without.Spec.Credentials, without.Spec.Channels = nil, nil
	w.create(with, without)
	w.becomes(with, "Ready=True")
	w.becomes(without, "Ready=True")
	w.becomes(without, "CredentialsReady=True/NoCredentials")
	if len(without.Finalizers) > 0 {
		t.Error("a bot without credentials has nothing that must be undone")
	}

	w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
	w.delete(with)
	w.delete(without)
	w.gone(without)
	w.becomes(with, "Reconciling=True/Deleting")
	w.keys.set(func(k *keyserverDouble) { k.down = nil })
	w.restart()
	w.gone(with)
	if !w.keys.isRevoked(with.UID) {
		t.Error("the keys were not revoked")
	}
	w.eventually("nothing is left", func() error {
		return errors.Join(w.isGone(setOf(with)), w.isGone(setOf(without)))
	})
}

// TestFinalizerTakenOff: a hand that takes our finalizer off does not make the keyserver forget.
func TestFinalizerTakenOff(t *testing.T) {
	w, _ := withTenant(t, "finalizer")
	bot := makeBot("finalizer-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
	w.eventually("it is back", func() error {
		if err := w.get(bot); err != nil {
			return err
		}
		if !hasFinalizer(bot) {
			return errors.New("no finalizer")
		}
		return nil
	})
}
