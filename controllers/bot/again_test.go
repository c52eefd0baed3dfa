package bot_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestAHelperThatCannotBePulled: a bot that waits for Lethe's own image gets the present one as soon as there is
// another, since what it was made with may be what cannot be had.
func TestAHelperThatCannotBePulled(t *testing.T) {
	w, _ := operator.WithTenant(t, "helper-gone")
	w.KCM.Unready = func(*appsv1.StatefulSet) bool { return true }
	bot := operator.MakeBot("helper-gone-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Reconciling=True/PodMissing")
	failingPod(w, bot)
	upgrade(w, image2)
	w.Eventually("the present helper", func() error {
		if got := helperImage(setOf(w, bot)); got != image2 {
			return fmt.Errorf("the helper is %s", got)
		}
		return nil
	})
	w.Calm()
}

// TestAResumedTenantIsNotStalled: the time for which a bot was not to run is not time for which it did not come up.
func TestAResumedTenantIsNotStalled(t *testing.T) {
	w := operator.NewWorld(t)
	w.Stop()
	fake := clocktesting.NewFakePassiveClock(time.Now())
	w.Clock = fake
	w.Start(&operator.Wire{})
	tenant := operator.MakeTenant("resumed", "resumed-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("resumed-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
	w.Becomes(bot, "Ready=True/TenantSuspended")
	fake.SetTime(fake.Now().Add(time.Hour))
	w.KCM.Unready = func(*appsv1.StatefulSet) bool { return true }
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantActive })
	w.HasReplicas(bot, 1)
	w.Becomes(bot, "Reconciling=True/PodMissing")
	w.Calm()
	if err := w.Get(bot); err != nil {
		t.Fatal(err)
	}
	if meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionStalled) {
		t.Errorf("%+v", bot.Status.Conditions)
	}
}

// TestAConfigMapThatChangesBeforeThePodIsMade: what a pod is refused for is Lethe's to put right, and nobody's
// webhook is blamed.
func TestAConfigMapThatChangesBeforeThePodIsMade(t *testing.T) {
	w, _ := operator.WithTenant(t, "file-moved")
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "file-moved-a", Name: "config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "b"}}, Data: map[string]string{"k": "first"}}
	w.Create(config)
	bot := operator.MakeBot("file-moved-a", "b")
	bot.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	before := setOf(w, bot).Spec.Template.Annotations[v1alpha1.AnnotationFile+"0"]
	operator.Edit(w, config, func(c *corev1.ConfigMap) { c.Data["k"] = "second" })
	w.KCM.Unready = func(*appsv1.StatefulSet) bool { return true }
	set := setOf(w, bot)
	podOf(w, bot, set, "PodInitializing", func(p *corev1.Pod) {
		p.Spec.NodeName = aNode(w)
		p.Status.InitContainerStatuses[0].State.Terminated.ExitCode = 1
	})
	set.Status.ReadyReplicas, set.Status.AvailableReplicas = 0, 0
	if err := w.Cluster.Status().Update(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	file := func() string { return setOf(w, bot).Spec.Template.Annotations[v1alpha1.AnnotationFile+"0"] }
	w.Eventually("the file as it is now", func() error {
		if err := w.Get(bot); err != nil {
			return err
		}
		now := file()
		if before != "" && now != before {
			return nil // the pod of before is nobody's any more; there is no controller here that ends it
		}
		for _, c := range bot.Status.Conditions {
			if c.Reason == "PodMismatch" {
				t.Fatalf("somebody else is blamed: %s", c.Message)
			}
		}
		return fmt.Errorf("file %q, before %q", now, before)
	})
}
