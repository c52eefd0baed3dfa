package controllers

import (
	"context"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// backlog is how many objects of one tenant wait.
const backlog = 200

// TestVictimBesideABacklog: one tenant has two hundred bots, and the keyserver does not answer for any of them. Another
// tenant's bot comes up all the same: one that is made when the backlog is there, and one that a new leader finds in it.
func TestVictimBesideABacklog(t *testing.T) {
	w := newWorld(t)
	greedy, victim := withBots(makeTenant("greedy", "greedy-a", "greedy-b")), makeTenant("victim", "victim-a")
	w.create(greedy, victim)
	w.becomes(greedy, "Ready=True")
	w.becomes(victim, "Ready=True")

	open := w.keys.close("greedy-a", "greedy-b")
	defer open()
	bots := append(w.createBots("greedy-a", backlog/2), w.createBots("greedy-b", backlog/2)...)
	w.soon("a worker waits for the keyserver", func() error {
		if w.keys.waitingCalls() == 0 {
			return fmt.Errorf("nobody asks")
		}
		return nil
	})
	after := makeBot("victim-a", "after")
	w.create(after)
	w.becomes(after, "Ready=True")

	w.stop()
	within := makeBot("victim-a", "within")
	w.create(within)
	for _, bot := range bots { // so that the list is in no order of making
		w.change(bot, "changed")
	}
	w.start(&wire{})
	w.becomes(within, "Ready=True")
	if n := w.keys.waitingCalls(); n == 0 || n > 5 {
		t.Errorf("%d of 10 workers wait for the backlog, want some and at most half", n)
	}
	open()
	w.eventually("the backlog goes on", func() error {
		for _, bot := range bots[:10] {
			if err := w.isNow(bot, "Ready=True"); err != nil {
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
	w := newWorld(t)
	tenant, bot := makeTenant("hasty", "hasty-a"), makeBot("hasty-a", "bot")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.stop()
	w.pace = time.Second
	w.start(&wire{})
	w.calm()

	begin, asked, wrote, from := passes(t, "botdeployment"), w.keys.callsTo(resources.KindBotDeployment), len(w.wire.written()), time.Now()
	for i := range updates {
		w.change(bot, fmt.Sprint(i))
	}
	w.becomes(bot, "Ready=True")
	set := setOf(bot)
	if err := w.get(set); err != nil {
		t.Fatal(err)
	}
	if set.Spec.Template.Spec.Containers[0].Args[0] != fmt.Sprint(updates-1) {
		t.Errorf("runs with %v", set.Spec.Template.Spec.Containers[0].Args)
	}
	most := 20 + int(time.Since(from)/time.Second) + 2
	if n := passes(t, "botdeployment") - begin; n > most {
		t.Errorf("%d updates made %d passes, want at most %d", updates, n, most)
	}
	if n := w.keys.callsTo(resources.KindBotDeployment) - asked; n > most {
		t.Errorf("%d updates asked the keyserver %d times, want at most %d", updates, n, most)
	}
	if n := len(w.wire.written()) - wrote; n > 2*most {
		t.Errorf("%d updates made %d writes, want at most %d", updates, n, 2*most)
	}
}

// close makes calls about objects in some namespaces wait until the door is opened again.
func (k *keyserverDouble) close(namespaces ...string) (open func()) {
	door := make(chan struct{})
	k.set(func(k *keyserverDouble) {
		k.closed = map[string]chan struct{}{}
		for _, namespace := range namespaces {
			k.closed[namespace] = door
		}
	})
	return sync.OnceFunc(func() {
		k.set(func(k *keyserverDouble) { k.closed = nil })
		close(door)
	})
}

func (k *keyserverDouble) waitingCalls() int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.waiting
}

// pass waits at a closed door.
func (k *keyserverDouble) pass(ctx context.Context, namespace string) error {
	k.mutex.Lock()
	door := k.closed[namespace]
	k.mutex.Unlock()
	if door == nil {
		return nil
	}
	k.set(func(k *keyserverDouble) { k.waiting++ })
	defer k.set(func(k *keyserverDouble) { k.waiting-- })
	select {
	case <-door:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// change gives a bot another argument.
func (w *world) change(bot *v1alpha1.BotDeployment, argument string) {
	w.t.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(fmt.Sprintf(`{"spec":{"args":[%q]}}`, argument)))
	if err := w.admin.Patch(w.t.Context(), bot, patch); err != nil {
		w.t.Fatal(err)
	}
}

// TestFullQuota: a namespace takes no more bots than its Tenant's quota says, in Kubernetes' own words, and a bot whose
// children a full quota refuses says so in the same words, and comes up when there is room.
func TestFullQuota(t *testing.T) {
	w := newWorld(t)
	two, full := int32(2), true
	tenant := makeTenant("small", "small-a")
	tenant.Spec.Quota = &v1alpha1.TenantQuota{Bots: &two}
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.create(makeBot("small-a", "one"))
	w.becomes(makeBot("small-a", "one"), "Ready=True")

	// Nothing is freed from here on, and no account is left.
	w.kcm.Full = func(*corev1.ResourceQuota) bool { return full }
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "small-a", Name: resources.QuotaObjectsName}}
	w.eventually("the quota is full", func() error {
		if err := w.get(quota); err != nil {
			return err
		}
		const accounts = corev1.ResourceName("count/serviceaccounts")
		quota.Status.Used[accounts] = quota.Status.Hard[accounts]
		return w.cluster.Status().Update(t.Context(), quota)
	})
	bot := makeBot("small-a", "two")
	w.create(bot)
	w.becomes(bot, "Stalled=True/QuotaExceeded")
	message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
	if !strings.Contains(message, "exceeded quota: lethe-objects, requested: count/serviceaccounts=1") || !strings.Contains(message, "have the Tenant's spec.quota raised") {
		t.Errorf("it says %q", message)
	}
	err := w.admin.Create(t.Context(), makeBot("small-a", "three"))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "count/botdeployments.lethe.dev") {
		t.Errorf("a third bot: %v", err)
	}
	full = false
	w.restart()
	w.becomes(bot, "Ready=True")
}

// TestFullQuotaOfAnotherHand: a quota that is not the Tenant's is named, with its own words and what to do, whichever child it refuses.
func TestFullQuotaOfAnotherHand(t *testing.T) {
	w := newWorld(t)
	w.create(makeTenant("tight", "tight-a"))
	w.becomes(makeTenant("tight", "tight-a"), "Ready=True")
	none := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "tight-a", Name: "team"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	w.create(quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	if err := w.cluster.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	bot := makeKeeper("tight-a", "one", resources.ReclaimRetain)
	w.create(bot)
	w.becomes(bot, "Stalled=True/QuotaExceeded")
	message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
	for _, says := range []string{"ResourceQuota team, which is not Lethe's", "one-data", "requested: persistentvolumeclaims=1", "have that quota raised by whoever made it"} {
		if !strings.Contains(message, says) {
			t.Errorf("it says %q, without %q", message, says)
		}
	}
}

// TestUncountedQuota: until Kubernetes has counted, nothing runs in a namespace, the Tenant says what it waits for, and a quota
// that was made too early is made anew.
func TestUncountedQuota(t *testing.T) {
	w := newWorld(t)
	w.kcm.Full = func(*corev1.ResourceQuota) bool { return true } // nobody counts
	w.stop()
	ahead := clocktesting.NewFakePassiveClock(time.Now())
	w.clock = ahead
	w.start(&wire{})
	tenant := makeTenant("early", "early-a")
	w.create(tenant)
	w.becomes(tenant, "NamespacesReady=False/Progressing")
	if len(tenant.Status.Namespaces) > 0 {
		t.Errorf("namespaces: %+v", tenant.Status.Namespaces)
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "early-a", Name: resources.QuotaObjectsName}}
	w.eventually("a quota", func() error { return w.get(quota) })
	was := quota.UID
	ahead.SetTime(time.Now().Add(time.Minute))
	w.eventually("another quota", func() error {
		if err := w.get(quota); err != nil || quota.UID != was {
			return err
		}
		return fmt.Errorf("it is the same")
	})
	w.kcm.Full = nil
	ahead.SetTime(time.Now())
	w.becomes(tenant, "Ready=True")
}

// TestQueueMetrics: the gauges of the queues have a series for each controller, and none for a tenant or an object.
func TestQueueMetrics(t *testing.T) {
	q := newQueues(testEnv.Client, 10, time.Second)
	queue := q.options().NewQueue("botdeployment", nil)
	for i := range 30 {
		queue.Add(request(fmt.Sprintf("object-%d", i)))
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
