package controllers_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/operator"
)

// backlog is how many objects of one tenant wait.
const backlog = 200

// TestVictimBesideABacklog: one tenant has two hundred bots, and the keyserver does not answer for any of them. Another
// tenant's bot comes up all the same: one that is made when the backlog is there, and one that a new leader finds in
// it.
func TestVictimBesideABacklog(t *testing.T) {
	w := operator.NewWorld(t)
	greedy, victim := operator.WithBots(operator.MakeTenant("greedy", "greedy-a", "greedy-b")), operator.MakeTenant("victim", "victim-a")
	w.Create(greedy, victim)
	w.Becomes(greedy, "Ready=True")
	w.Becomes(victim, "Ready=True")

	open := closeDoor(w.Keys, "greedy-a", "greedy-b")
	defer open()
	bots := append(w.CreateBots("greedy-a", backlog/2), w.CreateBots("greedy-b", backlog/2)...)
	w.Soon("a worker waits for the keyserver", func() error {
		if waitingCalls(w.Keys) == 0 {
			return fmt.Errorf("nobody asks")
		}
		return nil
	})
	after := operator.MakeBot("victim-a", "after")
	w.Create(after)
	w.Becomes(after, "Ready=True")

	w.Stop()
	within := operator.MakeBot("victim-a", "within")
	w.Create(within)
	for _, bot := range bots { // so that the list is in no order of making
		change(w, bot, "changed")
	}
	w.Start(&operator.Wire{})
	w.Becomes(within, "Ready=True")
	if n := waitingCalls(w.Keys); n == 0 || n > 5 {
		t.Errorf("%d of 10 workers wait for the backlog, want some and at most half", n)
	}
	open()
	w.Eventually("the backlog goes on", func() error {
		for _, bot := range bots[:10] {
			if err := w.IsNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestManyUpdatesOfOneObject: an object that is changed again and again costs a burst of passes and then one for each
// second, whatever it is that changes, and the last change counts.
func TestManyUpdatesOfOneObject(t *testing.T) {
	const updates = 500
	w := operator.NewWorld(t)
	tenant, bot := operator.MakeTenant("hasty", "hasty-a"), operator.MakeBot("hasty-a", "bot")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Stop()
	w.Pace = time.Second
	w.Start(&operator.Wire{})
	w.Calm()

	begin, asked, wrote, from := operator.Passes(t, "botdeployment"), w.Keys.CallsTo(resources.KindBotDeployment), len(w.Wire.Written()), time.Now()
	for i := range updates {
		change(w, bot, fmt.Sprint(i))
	}
	w.Becomes(bot, "Ready=True")
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	if set.Spec.Template.Spec.Containers[0].Args[0] != fmt.Sprint(updates-1) {
		t.Errorf("runs with %v", set.Spec.Template.Spec.Containers[0].Args)
	}
	most := 20 + int(time.Since(from)/time.Second) + 2
	if n := operator.Passes(t, "botdeployment") - begin; n > most {
		t.Errorf("%d updates made %d passes, want at most %d", updates, n, most)
	}
	if n := w.Keys.CallsTo(resources.KindBotDeployment) - asked; n > most {
		t.Errorf("%d updates asked the keyserver %d times, want at most %d", updates, n, most)
	}
	if n := len(w.Wire.Written()) - wrote; n > 2*most {
		t.Errorf("%d updates made %d writes, want at most %d", updates, n, 2*most)
	}
}

// closeDoor makes calls about objects in some namespaces wait until the door is opened again.
func closeDoor(k *operator.KeyserverDouble, namespaces ...string) (open func()) {
	door := make(chan struct{})
	k.Set(func(k *operator.KeyserverDouble) {
		k.Closed = map[string]chan struct{}{}
		for _, namespace := range namespaces {
			k.Closed[namespace] = door
		}
	})
	return sync.OnceFunc(func() {
		k.Set(func(k *operator.KeyserverDouble) { k.Closed = nil })
		close(door)
	})
}

func waitingCalls(k *operator.KeyserverDouble) int {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	return k.Waiting
}

// change gives a bot another argument.
func change(w *operator.World, bot *v1alpha1.BotDeployment, argument string) {
	w.T.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(fmt.Sprintf(`{"spec":{"args":[%q]}}`, argument)))
	if err := w.Admin.Patch(w.T.Context(), bot, patch); err != nil {
		w.T.Fatal(err)
	}
}

// TestFullQuota: a namespace takes no more bots than its Tenant's quota says, in Kubernetes' own words, and a bot whose
// children a full quota refuses says so in the same words, and comes up when there is room.
func TestFullQuota(t *testing.T) {
	w := operator.NewWorld(t)
	two, full := int32(2), true
	tenant := operator.MakeTenant("small", "small-a")
	tenant.Spec.Quota = &v1alpha1.TenantQuota{Bots: &two}
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Create(operator.MakeBot("small-a", "one"))
	w.Becomes(operator.MakeBot("small-a", "one"), "Ready=True")

	// Nothing is freed from here on, and no account is left.
	w.KCM.Full = func(*corev1.ResourceQuota) bool { return full }
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "small-a", Name: resources.QuotaObjectsName}}
	w.Eventually("the quota is full", func() error {
		if err := w.Get(quota); err != nil {
			return err
		}
		const accounts = corev1.ResourceName("count/serviceaccounts")
		quota.Status.Used[accounts] = quota.Status.Hard[accounts]
		return w.Cluster.Status().Update(t.Context(), quota)
	})
	bot := operator.MakeBot("small-a", "two")
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/QuotaExceeded")
	message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
	if !strings.Contains(message, "exceeded quota: lethe-objects, requested: count/serviceaccounts=1") || !strings.Contains(message, "have the Tenant's spec.quota raised") {
		t.Errorf("it says %q", message)
	}
	err := w.Admin.Create(t.Context(), operator.MakeBot("small-a", "three"))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "count/botdeployments.lethe.dev") {
		t.Errorf("a third bot: %v", err)
	}
	full = false
	w.Restart()
	w.Becomes(bot, "Ready=True")
}

// TestFullQuotaOfAnotherHand: a quota that is not the Tenant's is named, with its own words and what to do, whichever
// child it refuses.
func TestFullQuotaOfAnotherHand(t *testing.T) {
	w := operator.NewWorld(t)
	w.Create(operator.MakeTenant("tight", "tight-a"))
	w.Becomes(operator.MakeTenant("tight", "tight-a"), "Ready=True")
	none := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "tight-a", Name: "team"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	w.Create(quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	if err := w.Cluster.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	bot := operator.MakeKeeper("tight-a", "one", resources.ReclaimRetain)
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/QuotaExceeded")
	message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
	for _, says := range []string{"ResourceQuota team, which is not Lethe's", "one-data", "requested: persistentvolumeclaims=1", "have that quota raised by whoever made it"} {
		if !strings.Contains(message, says) {
			t.Errorf("it says %q, without %q", message, says)
		}
	}
}

// TestUncountedQuota: until Kubernetes has counted, nothing runs in a namespace, the Tenant says what it waits for,
// and a quota that was made too early is made anew.
func TestUncountedQuota(t *testing.T) {
	w := operator.NewWorld(t)
	w.KCM.Full = func(*corev1.ResourceQuota) bool { return true } // nobody counts
	w.Stop()
	ahead := clocktesting.NewFakePassiveClock(time.Now())
	w.Clock = ahead
	w.Start(&operator.Wire{})
	tenant := operator.MakeTenant("early", "early-a")
	w.Create(tenant)
	w.Becomes(tenant, "NamespacesReady=False/Progressing")
	if len(tenant.Status.Namespaces) > 0 {
		t.Errorf("namespaces: %+v", tenant.Status.Namespaces)
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "early-a", Name: resources.QuotaObjectsName}}
	w.Eventually("a quota", func() error { return w.Get(quota) })
	was := quota.UID
	ahead.SetTime(time.Now().Add(time.Minute))
	w.Eventually("another quota", func() error {
		if err := w.Get(quota); err != nil || quota.UID != was {
			return err
		}
		return fmt.Errorf("it is the same")
	})
	w.KCM.Full = nil
	ahead.SetTime(time.Now())
	w.Becomes(tenant, "Ready=True")
}

// TestQueueMetrics: the gauges of the queues have a series for each controller, and none for a tenant or an object.
func TestQueueMetrics(t *testing.T) {
	q := controllers.NewQueues(operator.TestEnv.Client, 10, time.Second)
	queue := q.Options().NewQueue("botdeployment", nil)
	for i := range 30 {
		queue.Add(ctrl.Request{NamespacedName: client.ObjectKey{Name: fmt.Sprintf("object-%d", i)}})
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(q); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if len(family.GetMetric()) != 1 {
			t.Errorf("%s has %d series", family.GetName(), len(family.GetMetric()))
		}
		got[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
	}
	if got["lethe_queue_depth"] != 30 || got["lethe_queue_tenants"] != 30 || len(got) != 3 {
		t.Errorf("gauges: %v", got)
	}
	queue.ShutDown()
}
