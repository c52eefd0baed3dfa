package bot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	botcontroller "github.com/lethe-dev/lethe/controllers/bot"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/operator"
)

func TestBotWithoutATenant(t *testing.T) {
	w := operator.NewWorld(t)
	namespace := operator.TestEnv.Namespace(t, "nobody", nil)
	bot := operator.MakeBot(namespace.Name, "b")
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
	w.OneEvent(bot, v1alpha1.ReasonNoTenant)
	if err := w.IsEmpty(namespace.Name); err != nil {
		t.Errorf("something was made for a bot of nobody: %v", err)
	}
	w.Delete(bot)
	w.Gone(bot)
}

// TestBotCannotNameItsTenant: a label that a tenant could write on its own objects says nothing.
func TestBotCannotNameItsTenant(t *testing.T) {
	w, _ := operator.WithTenant(t, "victim")
	namespace := operator.TestEnv.Namespace(t, "thief", nil)
	bot := operator.MakeBot(namespace.Name, "b")
	bot.Labels = map[string]string{v1alpha1.LabelTenant: "victim"}
	bot.Annotations = map[string]string{v1alpha1.LabelTenant: "victim"}
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
	w.Delete(bot)
	w.Gone(bot)
}

func TestBotNamesOfAnyLength(t *testing.T) {
	w, _ := operator.WithTenant(t, "long")
	for _, name := range []string{strings.Repeat("a", 253), strings.Repeat("a", 252) + "b", "with.dots.in.it"} {
		bot := operator.MakeBot("long-a", name)
		w.Create(bot)
		w.Becomes(bot, "Ready=True")
	}
}

func TestForeignStatefulSetIsRefused(t *testing.T) {
	w, _ := operator.WithTenant(t, "squat")
	bot := operator.MakeBot("squat-a", "b")
	stranger := operator.SetOf(bot)
	stranger.Labels = resources.BotLabels("b") // a label is no proof
	stranger.Spec = appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "stranger"}}}},
	}
	if err := w.Cluster.Create(context.Background(), stranger); err != nil {
		t.Fatal(err)
	}
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonNameTaken)
	w.Becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonNameTaken)
	if err := w.Get(stranger); err != nil || stranger.Generation != 1 {
		t.Errorf("the foreign StatefulSet was touched: %v", err)
	}
	w.OneEvent(bot, v1alpha1.ReasonNameTaken)
}

// TestPlaintextInSpec: who sees no warnings at apply learns from the condition and one event that a credential stands
// in the spec. The bot runs.
func TestPlaintextInSpec(t *testing.T) {
	w, _ := operator.WithTenant(t, "plain")
	bot := operator.MakeBot("plain-a", "b")
	token := "123456789:" + strings.Repeat("Ab-_9", 7)
	bot.Spec.Env = []v1alpha1.EnvVar{{Name: "TOKEN", Value: token}}
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonPlaintextInSpec)
	if said := fmt.Sprint(bot.Status); !strings.Contains(said, "spec.env[TOKEN].value") || strings.Contains(said, token) {
		t.Errorf("the status says %s", said)
	}
	w.OneEvent(bot, v1alpha1.ReasonPlaintextInSpec)
	version := bot.ResourceVersion
	w.Restart()
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Labels = map[string]string{"looked": "at"} })
	w.Becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonPlaintextInSpec)
	if version == bot.ResourceVersion {
		t.Error("the edit was not seen")
	}
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Env = nil })
	w.Becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonStored)
}

func TestSuspension(t *testing.T) {
	w, tenant := operator.WithTenant(t, "pause")
	bot := operator.MakeBot("pause-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")

	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Becomes(bot, "WorkloadReady=False/Suspended")
	w.Becomes(bot, "Ready=True")
	w.HasReplicas(bot, 0)
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.Becomes(bot, "WorkloadReady=True")
	w.HasReplicas(bot, 1)

	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
	w.Becomes(bot, "Ready=True/TenantSuspended")
	w.HasReplicas(bot, 0)
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantActive })
	w.Becomes(bot, "Ready=True")
	w.HasReplicas(bot, 1)
}

// TestStoppingNeedsNobodysLeave: a bot can be stopped while the keyserver is away.
func TestStoppingNeedsNobodysLeave(t *testing.T) {
	w, _ := operator.WithTenant(t, "stop")
	bot := operator.MakeBot("stop-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.HasReplicas(bot, 0)
}

func TestPlacementReachesRunningBots(t *testing.T) {
	w, tenant := operator.WithTenant(t, "place")
	bot := operator.MakeBot("place-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"region": "eu"}}
	})
	w.Eventually("the node selector", func() error {
		set := operator.SetOf(bot)
		if err := w.Get(set); err != nil {
			return err
		}
		if set.Spec.Template.Spec.NodeSelector["region"] != "eu" {
			return errors.New("the pod may still run anywhere")
		}
		return nil
	})
	w.Becomes(bot, "Ready=True")
}

// TestRefusedCredentials: what cannot be opened starts nothing; where something ran, that goes on.
func TestRefusedCredentials(t *testing.T) {
	for _, reason := range []string{v1alpha1.ReasonWrongPlace, v1alpha1.ReasonMalformed, v1alpha1.ReasonUnknownKey, v1alpha1.ReasonDoesNotOpen, v1alpha1.ReasonSecretMissing} {
		t.Run(reason, func(t *testing.T) {
			w, _ := operator.WithTenant(t, "refuse")
			no := keyapi.CredentialResult{Name: "telegram", Reason: reason, Message: "seal it again for this bot"}
			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Refuse["telegram"] = no })
			bot := operator.MakeBot("refuse-a", "b")
			w.Create(bot)
			w.Becomes(bot, "CredentialsReady=False/"+reason)
			w.Becomes(bot, "Stalled=True/"+reason)
			w.Becomes(bot, "IsolationReady=True")
			if err := w.IsGone(operator.SetOf(bot)); err != nil {
				t.Error("a workload was made without credentials")
			}
			w.Keys.Set(func(k *operator.KeyserverDouble) { delete(k.Refuse, "telegram") })
			operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.good" })
			w.Becomes(bot, "Ready=True")
			was := bot.Status.CredentialsSecret

			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Refuse["telegram"] = no })
			operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.bad"
				b.Spec.Image = "registry.example/bot:v2"
			})
			w.Becomes(bot, "CredentialsReady=False/"+reason)
			w.Becomes(bot, "Stalled=True/"+reason)
			set := operator.SetOf(bot)
			if err := w.Get(set); err != nil || botcontroller.RunningSecret(set) != was || set.Spec.Template.Spec.Containers[0].Image != "registry.example/bot:v2" {
				t.Errorf("the values before must go on being used: %v %v", set.Spec.Template.Annotations, err)
			}
			w.HasEvents(bot, reason, 2) // it was refused twice
		})
	}
}

// TestRevertedCommit: an older value keeps the newer one running, and says so.
func TestRevertedCommit(t *testing.T) {
	w, _ := operator.WithTenant(t, "revert")
	bot := operator.MakeBot("revert-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	was := bot.Status.CredentialsSecret
	w.Keys.Set(func(k *operator.KeyserverDouble) {
		k.Refuse["telegram"] = keyapi.CredentialResult{Name: "telegram", Reason: v1alpha1.ReasonRolledBack, Version: 2}
		k.Pinned = was
	})
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.old" })
	w.Becomes(bot, "CredentialsReady=True/"+v1alpha1.ReasonRolledBack)
	w.Becomes(bot, "Ready=True")
	if bot.Status.CredentialsSecret != was {
		t.Errorf("%s is used instead of %s", bot.Status.CredentialsSecret, was)
	}
	w.OneEvent(bot, v1alpha1.ReasonRolledBack)
}

func TestBotOutlivesAnAbsentKeyserver(t *testing.T) {
	w, _ := operator.WithTenant(t, "absent")
	running, fresh := operator.MakeBot("absent-a", "running"), operator.MakeBot("absent-a", "fresh")
	w.Create(running)
	w.Becomes(running, "Ready=True")
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
	w.Restart()
	w.Create(fresh)
	w.Becomes(fresh, "CredentialsReady=False/"+v1alpha1.ReasonKeyserverUnavailable)
	w.Becomes(running, "Ready=True")
	set := operator.SetOf(running)
	operator.EditAs(w, w.Cluster, set, func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "drifted" })
	w.Eventually("repaired without the keyserver", func() error {
		if err := w.Get(set); err != nil {
			return err
		}
		if image := set.Spec.Template.Spec.Containers[0].Image; image == "drifted" {
			return errors.New("still drifted")
		}
		return nil
	})
}

// TestBadImageThenGoodImage: a revision that never becomes ready is told of, stalls in time, and does not block its
// repair.
func TestBadImageThenGoodImage(t *testing.T) {
	w, _ := operator.WithTenant(t, "image")
	w.KCM.Broken = func(image string) bool { return strings.Contains(image, "broken") }
	bot := operator.MakeBot("image-a", "b")
	bot.Spec.Image = "registry.example/broken:v1"
	bot.Spec.Rollout.ProgressDeadlineSeconds = 10
	w.Create(bot)
	w.Becomes(bot, "Reconciling=True/PodMissing")

	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("with ordered pod management a broken pod blocks the revision that repairs it")
	}
	podOf(w, bot, set, "ErrImagePull")
	w.Restart() // rather than wait a minute for the next look
	w.Becomes(bot, "Ready=False/ImagePullBackOff")
	w.Becomes(bot, "Stalled=True/ImagePullBackOff")
	w.OneEvent(bot, "ImagePullBackOff")
	w.Restart()
	w.Calm()
	if err := w.IsNow(bot, "Stalled=True/ImagePullBackOff"); err != nil {
		t.Errorf("a restart forgot that the deadline has passed: %v", err)
	}
	if written := w.Wire.Written(); len(written) > 0 {
		t.Errorf("a restart wrote %v", written)
	}

	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Becomes(bot, "Ready=True")
}

// TestPodThatTheClusterChanged: the keyserver gives such a pod nothing, and the bot's condition names the field.
func TestPodThatTheClusterChanged(t *testing.T) {
	w, _ := operator.WithTenant(t, "changed")
	w.KCM.Broken = func(string) bool { return true }
	bot := operator.MakeBot("changed-a", "b")
	bot.Spec.Rollout.ProgressDeadlineSeconds = 10
	w.Create(bot)
	w.Becomes(bot, "Reconciling=True/PodMissing")
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	set.Spec.Template.Spec.Containers[0].Env = append(set.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "INJECTED", Value: "by-a-webhook"})
	podOf(w, bot, set, "PodInitializing", func(p *corev1.Pod) {
		p.Status.InitContainerStatuses[0].State.Terminated.ExitCode = 1
	})
	w.Restart() // rather than wait a minute for the next look
	w.Becomes(bot, "WorkloadReady=False/PodMismatch")
	w.Becomes(bot, "Stalled=True/PodMismatch")
	c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	if !strings.Contains(c.Message, "spec.containers[0].env") || strings.Contains(c.Message, "by-a-webhook") {
		t.Errorf("the message does not name the field, or repeats what is in it: %s", c.Message)
	}
	w.OneEvent(bot, "PodMismatch")
}

// podOf plays the kubelet for a pod whose image cannot be pulled.
func podOf(w *operator.World, bot *v1alpha1.BotDeployment, set *appsv1.StatefulSet, reason string, changes ...func(*corev1.Pod)) {
	w.T.Helper()
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = bot.Namespace, resources.BotPodName(bot.Name)
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = "revision"
	if err := w.Cluster.Create(context.Background(), pod); err != nil {
		w.T.Fatal(err)
	}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerUnseal, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerBot, Image: bot.Spec.Image,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	for _, change := range changes {
		change(pod)
	}
	if err := w.Cluster.Status().Update(context.Background(), pod); err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { _ = w.Cluster.Delete(context.Background(), pod, client.GracePeriodSeconds(0)) })
}

// TestSpecThatKubernetesRefuses: what our own rules let through may be refused further down, by a policy of the
// cluster's for example.
func TestSpecThatKubernetesRefuses(t *testing.T) {
	w, _ := operator.WithTenant(t, "invalid")
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
	w.Create(policy, binding)
	t.Cleanup(func() { w.Delete(binding); w.Delete(policy) })
	bot := operator.MakeBot("invalid-a", "b")
	bot.Spec.Image = "registry.example/bot:latest"
	labels := map[string]string{"a": "b"}
	probe := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "invalid-a", Name: "probe"}, Spec: appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: bot.Spec.Image}}}}}}
	w.Eventually("the policy is enforced", func() error {
		err := w.Cluster.Create(context.Background(), probe.DeepCopy(), client.DryRunAll)
		if !apierrors.IsInvalid(err) {
			return fmt.Errorf("a StatefulSet of that image is not refused as invalid (%T)", err)
		}
		return nil
	})
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonRefused)
	w.Becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonRefused)
	c := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled)
	if !strings.Contains(c.Message, "containers[].image must not be latest") {
		t.Errorf("the message does not name the field, or was not cleaned: %q", c.Message)
	}
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v1" })
	w.Becomes(bot, "Ready=True")
}

func TestBotDeletion(t *testing.T) {
	w, _ := operator.WithTenant(t, "delete")
	with, without := operator.MakeBot("delete-a", "with"), operator.MakeBot("delete-a", "without")
	without.Spec.Credentials, without.Spec.Channels = nil, nil
	w.Create(with, without)
	w.Becomes(with, "Ready=True")
	w.Becomes(without, "Ready=True")
	w.Becomes(without, "CredentialsReady=True/NoCredentials")
	if len(without.Finalizers) > 0 {
		t.Error("a bot without credentials has nothing that must be undone")
	}

	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
	w.Delete(with)
	w.Delete(without)
	w.Gone(without)
	w.Becomes(with, "Reconciling=True/Deleting")
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
	w.Restart()
	w.Gone(with)
	if !w.Keys.IsRevoked(with.UID) {
		t.Error("the keys were not revoked")
	}
	w.Eventually("nothing is left", func() error {
		return errors.Join(w.IsGone(operator.SetOf(with)), w.IsGone(operator.SetOf(without)))
	})
}

// TestFinalizerTakenOff: a hand that takes our finalizer off does not make the keyserver forget.
func TestFinalizerTakenOff(t *testing.T) {
	w, _ := operator.WithTenant(t, "finalizer")
	bot := operator.MakeBot("finalizer-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
	w.Eventually("it is back", func() error {
		if err := w.Get(bot); err != nil {
			return err
		}
		if !reconcile.HasFinalizer(bot) {
			return errors.New("no finalizer")
		}
		return nil
	})
}
