package controllers

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
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
)

// keptBots are bots that something keeps from having a pod, each by another obstacle, with the reason that it is told by.
func keptBots(namespace string) map[string]*v1alpha1.BotDeployment {
	bots := map[string]*v1alpha1.BotDeployment{}
	add := func(reason string, edit func(*v1alpha1.BotDeployment)) {
		bot := makeBot(namespace, strings.ToLower(reason))
		edit(bot)
		bots[reason] = bot
	}
	add(v1alpha1.ReasonFileMissing, func(b *v1alpha1.BotDeployment) {
		b.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
	})
	add(v1alpha1.ReasonQuotaExceeded, func(b *v1alpha1.BotDeployment) {
		b.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: *quantityOf("30Gi")}}
	})
	add(v1alpha1.ReasonDoesNotOpen, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "refused", Sealed: sealedValue})
	})
	add(v1alpha1.ReasonVolumeMissing, func(b *v1alpha1.BotDeployment) {
		b.Spec.Storage = &v1alpha1.BotStorage{MountPath: "/data", Claim: &v1alpha1.BotClaim{Existing: "none"}}
	})
	return bots
}

// TestSuspendedIsSuspended: what a bot needs only when it runs does not keep it from being suspended, and is told all the same.
func TestSuspendedIsSuspended(t *testing.T) {
	w, tenant := withTenant(t, "still")
	w.keys.set(func(k *keyserverDouble) {
		k.refuse["refused"] = protocol.CredentialResult{Name: "refused", Reason: v1alpha1.ReasonDoesNotOpen, Message: "seal it again"}
	})
	bots := keptBots("still-a")
	nobodys := makeBot(testEnv.Namespace(t, "still-nobody", nil).Name, "b")
	bots[v1alpha1.ReasonNoTenant] = nobodys
	for _, bot := range bots {
		bot.Spec.OperatingMode = v1alpha1.ModeSuspended
		w.create(bot)
	}
	// One that ran, and lost what it needs.
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "still-a", Name: "lost", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "ran"}}, Data: map[string]string{"k": "v"}}
	w.create(config)
	ran := makeBot("still-a", "ran")
	ran.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "lost", Key: "k"}}}
	w.create(ran)
	w.becomes(ran, "Ready=True")
	w.delete(config)
	edit(w, ran, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.becomes(ran, "Ready=True/Suspended")
	w.hasReplicas(ran, 0)
	for reason, bot := range bots {
		w.becomes(bot, "Ready=True/Suspended")
		w.becomes(bot, "Stalled=False")
		w.becomes(bot, "WorkloadReady=False/Suspended")
		told := fmt.Sprint(bot.Status.Conditions)
		if !strings.Contains(told, reason) && !strings.Contains(told, "When it is to run") {
			t.Errorf("%s is told nowhere: %s", reason, told)
		}
	}
	// What its Tenant suspends is no other.
	active := makeBot("still-a", "active")
	active.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: *quantityOf("30Gi")}}
	w.create(active)
	w.becomes(active, "Stalled=True/QuotaExceeded")
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
	w.becomes(active, "Ready=True/TenantSuspended")
	// The keyserver's absence is none of a suspended bot's either.
	w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
	away := makeBot("still-a", "away")
	w.create(away)
	w.becomes(away, "Ready=True/TenantSuspended")
	w.becomes(away, "CredentialsReady=False/"+v1alpha1.ReasonKeyserverUnavailable)
	w.keys.set(func(k *keyserverDouble) { k.down = nil })
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantActive })
	w.becomes(active, "Stalled=True/QuotaExceeded")
}

// TestTimeBeginsAnew: for as long as something stood in a bot's way, nothing of its deadline went by. When that goes, the bot is on its way and not Stalled,
// also for a manager that was just started; and when it then takes too long, it is.
func TestTimeBeginsAnew(t *testing.T) {
	w := newWorld(t)
	w.stop()
	fake := clocktesting.NewFakePassiveClock(time.Now())
	w.clock, w.resync = fake, resyncEvery // each pass looks at the clock
	w.kcm.Unready = func(*appsv1.StatefulSet) bool { return true }
	w.keys.set(func(k *keyserverDouble) {
		k.refuse["refused"] = protocol.CredentialResult{Name: "refused", Reason: v1alpha1.ReasonDoesNotOpen, Message: "seal it again"}
	})
	w.start(&wire{})
	tenant := makeTenant("anew", "anew-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bots := keptBots("anew-a")
	for reason, bot := range bots {
		w.create(bot)
		w.becomes(bot, "Stalled=True/"+reason)
	}
	roomless := makeBot("anew-a", "roomless")
	w.create(roomless)
	w.eventually("the set of roomless", func() error {
		return w.admin.Get(t.Context(), client.ObjectKey{Namespace: roomless.Namespace, Name: resources.BotName(roomless.Name)}, &appsv1.StatefulSet{})
	})
	fake.SetTime(fake.Now().Add(time.Second)) // the settling time has to pass, which began with the pass that made the set
	w.becomes(roomless, "Reconciling=True/PodMissing")
	scheduled := func(p *corev1.Pod, value corev1.ConditionStatus) {
		p.Status.InitContainerStatuses, p.Status.ContainerStatuses = nil, nil
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: value, LastTransitionTime: metav1.NewTime(fake.Now()), Message: "0/1 nodes are available: 1 Insufficient memory."}}
	}
	w.podOf(roomless, w.setOf(roomless), "", func(p *corev1.Pod) { scheduled(p, corev1.ConditionFalse) })
	w.becomes(roomless, "Reconciling=True/Unschedulable")
	fake.SetTime(fake.Now().Add(time.Hour))
	w.becomes(roomless, "Stalled=True/Unschedulable")
	bots[v1alpha1.ReasonUnschedulable] = roomless

	// Each obstacle goes. The keyserver is asked again only after a while.
	w.keys.set(func(k *keyserverDouble) { delete(k.refuse, "refused") })
	fake.SetTime(fake.Now().Add(rereadEvery + time.Second))
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.Quota = &v1alpha1.TenantQuota{EphemeralStorage: quantityOf("64Gi")} })
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: "config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "filemissing"}}, Data: map[string]string{"k": "v"}})
	w.create(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: "none", Annotations: map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *quantityOf("1Gi")}}}})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "anew-a", Name: resources.BotPodName(roomless.Name)}}
	if err := w.get(pod); err != nil {
		t.Fatal(err)
	}
	scheduled(pod, corev1.ConditionTrue)
	if err := w.cluster.Status().Update(context.Background(), pod); err != nil {
		t.Fatal(err)
	}
	isOnItsWay := func() {
		t.Helper()
		for was, bot := range bots {
			w.eventually(was+" is over", func() error {
				if err := w.get(bot); err != nil {
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
	w.restart()
	w.calm()
	isOnItsWay()
	fake.SetTime(fake.Now().Add(301 * time.Second))
	for was, bot := range bots {
		w.eventually(was+" was over, and then nothing came", func() error {
			if err := w.get(bot); err != nil {
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

// TestReadyOnlyWhenItLasts: what was counted of a pod says that it is ready, and the pod itself that its program has ended a moment ago. Nobody had looked
// before, since the bot was new.
func TestReadyOnlyWhenItLasts(t *testing.T) {
	w, _ := withTenant(t, "lasts")
	w.kcm.Unready = func(*appsv1.StatefulSet) bool { return true }
	bot := makeBot("lasts-a", "b")
	w.create(bot)
	w.becomes(bot, "Reconciling=True/PodMissing")
	now := metav1.Now()
	w.podOf(bot, w.setOf(bot), "", func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
		p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: resources.ContainerBot, Ready: true, RestartCount: 1,
			State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: metav1.NewTime(now.Add(-3 * time.Second)), FinishedAt: now}}}
	})
	w.kcm.Unready = nil // its kubelet was late, and five seconds have passed
	w.eventually("the crash told", func() error {
		if err := w.get(bot); err != nil {
			return err
		}
		if meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionReady) {
			t.Fatalf("called ready: %+v", bot.Status.Conditions)
		}
		return w.isNow(bot, "WorkloadReady=False/CrashLoopBackOff")
	})
}
