package bot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

// keptBots are bots that something keeps from having a pod, each by another obstacle, with the reason that it is told
// by.
func keptBots(namespace string) map[string]*v1alpha1.BotDeployment {
	bots := map[string]*v1alpha1.BotDeployment{}
	add := func(reason string, edit func(*v1alpha1.BotDeployment)) {
		bot := operator.MakeBot(namespace, strings.ToLower(reason))
		edit(bot)
		bots[reason] = bot
	}
	add(v1alpha1.ReasonFileMissing, func(b *v1alpha1.BotDeployment) {
		b.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
	})
	add(v1alpha1.ReasonQuotaExceeded, func(b *v1alpha1.BotDeployment) {
		b.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: *operator.QuantityOf("30Gi")}}
	})
	add(v1alpha1.ReasonDoesNotOpen, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "refused", Sealed: operator.SealedValue})
	})
	add(v1alpha1.ReasonVolumeMissing, func(b *v1alpha1.BotDeployment) {
		b.Spec.Storage = &v1alpha1.BotStorage{MountPath: "/data", Claim: &v1alpha1.BotClaim{Existing: "none"}}
	})
	return bots
}

// TestSuspendedIsSuspended: what a bot needs only when it runs does not keep it from being suspended, and is told all
// the same.
func TestSuspendedIsSuspended(t *testing.T) {
	w, tenant := operator.WithTenant(t, "still")
	w.Keys.Set(func(k *operator.KeyserverDouble) {
		k.Refuse["refused"] = keyapi.CredentialResult{Name: "refused", Reason: v1alpha1.ReasonDoesNotOpen, Message: "seal it again"}
	})
	bots := keptBots("still-a")
	nobodys := operator.MakeBot(operator.TestEnv.Namespace(t, "still-nobody", nil).Name, "b")
	bots[v1alpha1.ReasonNoTenant] = nobodys
	for _, bot := range bots {
		bot.Spec.OperatingMode = v1alpha1.ModeSuspended
		w.Create(bot)
	}
	// One that ran, and lost what it needs.
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "still-a", Name: "lost", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "ran"}}, Data: map[string]string{"k": "v"}}
	w.Create(config)
	ran := operator.MakeBot("still-a", "ran")
	ran.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "lost", Key: "k"}}}
	w.Create(ran)
	w.Becomes(ran, "Ready=True")
	w.Delete(config)
	operator.Edit(w, ran, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Becomes(ran, "Ready=True/Suspended")
	w.HasReplicas(ran, 0)
	for reason, bot := range bots {
		w.Becomes(bot, "Ready=True/Suspended")
		w.Becomes(bot, "Stalled=False")
		w.Becomes(bot, "WorkloadReady=False/Suspended")
		told := fmt.Sprint(bot.Status.Conditions)
		if !strings.Contains(told, reason) && !strings.Contains(told, "When it is to run") {
			t.Errorf("%s is told nowhere: %s", reason, told)
		}
	}
	// What its Tenant suspends is no other.
	active := operator.MakeBot("still-a", "active")
	active.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: *operator.QuantityOf("30Gi")}}
	w.Create(active)
	w.Becomes(active, "Stalled=True/QuotaExceeded")
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
	w.Becomes(active, "Ready=True/TenantSuspended")
	// The keyserver's absence is none of a suspended bot's either.
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
	away := operator.MakeBot("still-a", "away")
	w.Create(away)
	w.Becomes(away, "Ready=True/TenantSuspended")
	w.Becomes(away, "CredentialsReady=False/"+v1alpha1.ReasonKeyserverUnavailable)
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantActive })
	w.Becomes(active, "Stalled=True/QuotaExceeded")
}

// TestTimeBeginsAnew: for as long as something stood in a bot's way, nothing of its deadline went by. When that goes,
// the bot is on its way and not Stalled, also for a manager that was just started; and when it then takes too long,
// it is.
func TestTimeBeginsAnew(t *testing.T) {
	w := operator.NewWorld(t)
	w.Stop()
	fake := clocktesting.NewFakePassiveClock(time.Now())
	w.Clock, w.Resync = fake, operator.ResyncEvery // each pass looks at the clock
	w.KCM.Unready = func(*appsv1.StatefulSet) bool { return true }
	w.Keys.Set(func(k *operator.KeyserverDouble) {
		k.Refuse["refused"] = keyapi.CredentialResult{Name: "refused", Reason: v1alpha1.ReasonDoesNotOpen, Message: "seal it again"}
	})
	w.Start(&operator.Wire{})
	tenant := operator.MakeTenant("anew", "anew-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bots := keptBots("anew-a")
	for reason, bot := range bots {
		w.Create(bot)
		w.Becomes(bot, "Stalled=True/"+reason)
	}
	roomless := operator.MakeBot("anew-a", "roomless")
	w.Create(roomless)
	w.Eventually("the set of roomless", func() error {
		return w.Admin.Get(t.Context(), client.ObjectKey{Namespace: roomless.Namespace, Name: resources.BotName(roomless.Name)}, &appsv1.StatefulSet{})
	})
	fake.SetTime(fake.Now().Add(time.Second)) // the settling time has to pass, which began with the pass that made the set
	w.Becomes(roomless, "Reconciling=True/PodMissing")
	scheduled := func(p *corev1.Pod, value corev1.ConditionStatus) {
		p.Status.InitContainerStatuses, p.Status.ContainerStatuses = nil, nil
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: value, LastTransitionTime: metav1.NewTime(fake.Now()), Message: "0/1 nodes are available: 1 Insufficient memory."}}
	}
	podOf(w, roomless, setOf(w, roomless), "", func(p *corev1.Pod) { scheduled(p, corev1.ConditionFalse) })
	w.Becomes(roomless, "Reconciling=True/Unschedulable")
	fake.SetTime(fake.Now().Add(time.Hour))
	w.Becomes(roomless, "Stalled=True/Unschedulable")
	bots[v1alpha1.ReasonUnschedulable] = roomless

	// Each obstacle goes. The keyserver is asked again only after a while.
	w.Keys.Set(func(k *operator.KeyserverDouble) { delete(k.Refuse, "refused") })
	fake.SetTime(fake.Now().Add(reconcile.RereadEvery + time.Second))
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Quota = &v1alpha1.TenantQuota{EphemeralStorage: operator.QuantityOf("64Gi")}
	})
	w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: "config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "filemissing"}}, Data: map[string]string{"k": "v"}})
	w.Create(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: "none", Annotations: map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *operator.QuantityOf("1Gi")}}}})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: resources.BotPodName(roomless.Name)}}
	if err := w.Get(pod); err != nil {
		t.Fatal(err)
	}
	scheduled(pod, corev1.ConditionTrue)
	if err := w.Cluster.Status().Update(context.Background(), pod); err != nil {
		t.Fatal(err)
	}
	isOnItsWay := func() {
		t.Helper()
		for was, bot := range bots {
			w.Eventually(was+" is over", func() error {
				if err := w.Get(bot); err != nil {
					return err
				}
				if meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionStalled) && stalledReason(bot) != was {
					t.Fatalf("%s is over, and it is Stalled: %+v", was, bot.Status.Conditions)
				}
				if c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionReconciling); c == nil || c.Reason == was {
					return fmt.Errorf("%+v", bot.Status.Conditions)
				}
				return nil
			})
		}
	}
	isOnItsWay()
	fake.SetTime(fake.Now().Add(200 * time.Second)) // of 300
	w.Restart()
	w.Calm()
	isOnItsWay()
	fake.SetTime(fake.Now().Add(301 * time.Second))
	for was, bot := range bots {
		w.Eventually(was+" was over, and then nothing came", func() error {
			if err := w.Get(bot); err != nil {
				return err
			}
			if reason := stalledReason(bot); reason != "PodMissing" && reason != "PodNotReady" {
				return fmt.Errorf("stalled: %q", reason)
			}
			return nil
		})
	}
}

func stalledReason(bot *v1alpha1.BotDeployment) string {
	if c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionStalled); c != nil {
		return c.Reason
	}
	return ""
}

// TestReadyOnlyWhenItLasts: what was counted of a pod says that it is ready, and the pod itself that its program has
// ended a moment ago. Nobody had looked before, since the bot was new.
func TestReadyOnlyWhenItLasts(t *testing.T) {
	w, _ := operator.WithTenant(t, "lasts")
	w.KCM.Unready = func(*appsv1.StatefulSet) bool { return true }
	bot := operator.MakeBot("lasts-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Reconciling=True/PodMissing")
	now := metav1.Now()
	podOf(w, bot, setOf(w, bot), "", func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: resources.ContainerBot, Ready: true, RestartCount: 1,
			State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: metav1.NewTime(now.Add(-3 * time.Second)), FinishedAt: now}}}
	})
	w.KCM.Unready = nil // its kubelet was late, and five seconds have passed
	w.Eventually("the crash told", func() error {
		if err := w.Get(bot); err != nil {
			return err
		}
		if meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionReady) {
			t.Fatalf("called ready: %+v", bot.Status.Conditions)
		}
		return w.IsNow(bot, "WorkloadReady=False/CrashLoopBackOff")
	})
}
