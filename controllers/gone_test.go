package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/orphans"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/kcm"
)

// says waits for a text in one of an object's messages.
func (w *world) says(object client.Object, text string) error {
	if err := w.get(object); err != nil {
		return err
	}
	conditions, _ := conditionsOf(object)
	for _, c := range conditions {
		if strings.Contains(c.Message, text) {
			return nil
		}
	}
	return fmt.Errorf("no condition says %q: %+v", text, conditions)
}

// replicas of a bot's StatefulSet, and none when there is none.
func (w *world) replicas(bot *v1alpha1.BotDeployment) int32 {
	w.t.Helper()
	set := setOf(bot)
	switch err := w.get(set); {
	case apierrors.IsNotFound(err):
		return 0
	case err != nil:
		w.t.Fatal(err)
	}
	return *set.Spec.Replicas
}

// orphan does to the children in a namespace what garbage collection does for --cascade=orphan.
func (w *world) orphan(namespace string, owner client.Object) {
	w.t.Helper()
	for _, list := range kcm.ChildLists() {
		err := w.kcm.Each(list, func(o client.Object) error {
			controller := metav1.GetControllerOf(o)
			if _, bundle := o.(*corev1.ConfigMap); bundle || controller == nil || controller.UID != owner.GetUID() {
				return nil // certificates and sealing keys are the manager's alone to write, for garbage collection too
			}
			o.SetOwnerReferences(nil)
			return w.cluster.Update(context.Background(), o)
		}, client.InNamespace(namespace))
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// takeFinalizersOff is the hand that helps a deletion along.
func (w *world) takeFinalizersOff(object client.Object) {
	w.t.Helper()
	w.soon("finalizers taken off "+object.GetName(), func() error {
		if err := w.get(object); err != nil {
			return client.IgnoreNotFound(err)
		}
		object.SetFinalizers(nil)
		return client.IgnoreNotFound(w.cluster.Update(context.Background(), object))
	})
}

// forgetUse makes a Tenant deletable that admission would keep: as if its status were behind.
func (w *world) forgetUse(tenant *v1alpha1.Tenant) {
	w.t.Helper()
	w.soon("a status without InUse", func() error {
		if err := w.get(tenant); err != nil {
			return err
		}
		tenant.Status.Conditions = slices.DeleteFunc(tenant.Status.Conditions, func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionInUse })
		return w.cluster.Status().Update(context.Background(), tenant)
	})
}

// runs says what of ours runs in a namespace: what could make a pod, and pods.
func (w *world) runs(namespace string) error {
	return w.none("runs", append(kcm.ChildLists(), &corev1.PodList{}), namespace, func(o client.Object) bool {
		set, isSet := o.(*appsv1.StatefulSet)
		_, isPod := o.(*corev1.Pod)
		return isPod || isSet && *set.Spec.Replicas > 0 || strings.Contains(fmt.Sprintf("%T", o), "Job")
	})
}

// none says which objects of ours in a namespace are such.
func (w *world) none(what string, lists []client.ObjectList, namespace string, such func(client.Object) bool) error {
	var found []string
	for _, list := range lists {
		err := w.kcm.Each(list, func(o client.Object) error {
			if such(o) {
				found = append(found, fmt.Sprintf("%T %s", o, o.GetName()))
			}
			return nil
		}, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe})
		if err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s: %v", what, found)
	}
	return nil
}

// leftOfBots says what is left of bots in a namespace.
func (w *world) leftOfBots(namespace string) error {
	var left []string
	for _, list := range append(kcm.ChildLists(), &corev1.PodList{}) {
		if _, secrets := list.(*corev1.SecretList); secrets {
			continue // the keyserver's
		}
		err := w.kcm.Each(list, func(o client.Object) error {
			left = append(left, fmt.Sprintf("%T %s", o, o.GetName()))
			return nil
		}, client.InNamespace(namespace), client.MatchingLabels(resources.Labels(resources.ComponentBot)))
		if err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left: %v", left)
	}
	return nil
}

// adriftPod makes the pod of a bot as it is when its StatefulSet was deleted and it was left.
func (w *world) adriftPod(bot *v1alpha1.BotDeployment) {
	w.t.Helper()
	set := setOf(bot)
	if err := w.get(set); err != nil {
		w.t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = bot.Namespace, resources.BotPodName(bot.Name)
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
	if err := w.cluster.Create(context.Background(), pod); err != nil {
		w.t.Fatal(err)
	}
}

// TestGoneIsGone: after every way of going away, with a manager there and without, nothing of ours runs without a bot that
// lives, is not suspended, and is in a tenant's namespace.
func TestGoneIsGone(t *testing.T) {
	type scene struct {
		w      *world
		tenant *v1alpha1.Tenant
		bot    *v1alpha1.BotDeployment
	}
	ways := map[string]struct {
		how  func(s scene)
		then func(s scene) // what comes back, if it was a mistake
		kept bool          // the bot is still there, and its children with it
	}{
		"orphaned": {how: func(s scene) {
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
		}},
		"orphaned, and its finalizers taken off": {how: func(s scene) {
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
			s.w.takeFinalizersOff(s.bot)
		}},
		"its StatefulSet deleted from under its pod, then orphaned": {how: func(s scene) {
			s.w.adriftPod(s.bot)
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
			s.w.takeFinalizersOff(s.bot)
		}},
		"orphaned, and made again under its name": {kept: true, how: func(s scene) {
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
			s.w.takeFinalizersOff(s.bot)
			again := makeBot(s.bot.Namespace, s.bot.Name)
			again.Spec.OperatingMode = v1alpha1.ModeSuspended
			s.w.create(again)
		}, then: func(s scene) {
			again := makeBot(s.bot.Namespace, s.bot.Name)
			s.w.becomes(again, "Ready=True")
			if again.UID == s.bot.UID {
				s.w.t.Fatal("it is the same bot")
			}
			edit(s.w, again, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
			s.w.becomes(again, "Ready=True")
			set := setOf(again)
			if err := s.w.get(set); err != nil || !metav1.IsControlledBy(set, again) {
				s.w.t.Errorf("the StatefulSet belongs to %v, %v", set.OwnerReferences, err)
			}
		}},
		"held by a finalizer": {kept: true, how: func(s scene) {
			edit(s.w, s.bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = append(b.Finalizers, "example.com/hold") })
			s.w.delete(s.bot)
		}, then: func(s scene) {
			s.w.eventually("it says who holds it", func() error { return s.w.says(s.bot, "example.com/hold") })
			s.w.takeFinalizersOff(s.bot)
			s.w.gone(s.bot)
			s.w.eventually("nothing left", func() error { return s.w.leftOfBots(s.bot.Namespace) })
		}},
		"suspended": {kept: true, how: func(s scene) {
			edit(s.w, s.bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		}},
		"suspended, orphaned": {how: func(s scene) {
			edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
			s.w.takeFinalizersOff(s.bot)
		}},
		"suspended with its Tenant": {kept: true, how: func(s scene) {
			edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
		}},
		"its namespace's label taken away": {kept: true, how: func(s scene) {
			edit(s.w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.bot.Namespace}}, func(n *corev1.Namespace) {
				delete(n.Labels, v1alpha1.LabelTenant)
			})
		}, then: func(s scene) {
			s.w.becomes(s.bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
			edit(s.w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.bot.Namespace}}, func(n *corev1.Namespace) {
				n.Labels[v1alpha1.LabelTenant] = s.tenant.Name
			})
			s.w.becomes(s.bot, "Ready=True")
			if s.w.replicas(s.bot) != 1 {
				s.w.t.Error("the bot did not come back with the label")
			}
		}},
		"its Tenant gone without being asked": {kept: true, how: func(s scene) {
			s.w.forgetUse(s.tenant)
			s.w.soon("deleted", func() error {
				return client.IgnoreNotFound(s.w.cluster.Delete(context.Background(), s.tenant.DeepCopy()))
			})
			s.w.takeFinalizersOff(s.tenant)
		}, then: func(s scene) {
			again := makeTenant(s.tenant.Name, s.bot.Namespace)
			s.w.create(again)
			s.w.becomes(again, "Ready=True")
			s.w.becomes(s.bot, "Ready=True")
			if s.w.replicas(s.bot) != 1 {
				s.w.t.Error("the bot did not come back with its Tenant")
			}
		}},
		"its namespace taken off the list, after it was orphaned": {how: func(s scene) {
			s.w.orphan(s.bot.Namespace, s.bot)
			s.w.delete(s.bot)
			s.w.takeFinalizersOff(s.bot)
			edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: t.Name + "-z"}} })
		}, then: func(s scene) {
			s.w.eventually("left for good", func() error { return s.w.isEmptyButSecrets(s.bot.Namespace) })
		}},
	}
	number := 0
	for name, way := range ways {
		for _, up := range []bool{true, false} {
			number++
			id := fmt.Sprintf("gone-%d", number)
			t.Run(fmt.Sprintf("%s, manager there: %v", name, up), func(t *testing.T) {
				w := newWorld(t)
				s := scene{w: w, tenant: makeTenant(id, id+"-a"), bot: makeBot(id+"-a", "b")}
				w.create(s.tenant)
				w.becomes(s.tenant, "Ready=True")
				w.create(s.bot)
				w.becomes(s.bot, "Ready=True")
				w.becomes(s.tenant, "InUse=True")
				if !up {
					w.stop()
				}
				way.how(s)
				if !up {
					w.start(&wire{})
				}
				w.eventually("nothing runs", func() error { return w.runs(s.bot.Namespace) })
				if !way.kept {
					w.gone(s.bot)
					w.eventually("nothing left", func() error { return w.leftOfBots(s.bot.Namespace) })
				}
				if way.then != nil {
					way.then(s)
				}
			})
		}
	}
}

// isEmptyButSecrets leaves out what is the keyserver's to remove.
func (w *world) isEmptyButSecrets(namespace string) error {
	err := w.isEmpty(namespace)
	if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "*v1.Secret ", ""), "*v1.") {
		return nil
	}
	return err
}

// TestSuspensionNeedsNobodysLeave: a bot stops although a step before its workload cannot be done.
func TestSuspensionNeedsNobodysLeave(t *testing.T) {
	for name, suspend := range map[string]func(w *world, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment){
		"bot": func(w *world, _ *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) {
			edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		},
		"tenant": func(w *world, tenant *v1alpha1.Tenant, _ *v1alpha1.BotDeployment) {
			edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, tenant := withTenant(t, "leave-"+name)
			bot := makeBot(tenant.Name+"-a", "b")
			w.create(bot)
			w.becomes(bot, "Ready=True")
			w.stop()
			// Somebody else's policy is in the way.
			policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}}
			w.delete(policy)
			if err := w.cluster.Create(context.Background(), policy); err != nil {
				t.Fatal(err)
			}
			suspend(w, tenant, bot)
			w.start(&wire{})
			w.eventually("stopped", func() error { return w.runs(bot.Namespace) })
			// It is what it is to be, and what would keep it from running is told beside that.
			w.becomes(bot, "IsolationReady=False/"+v1alpha1.ReasonNameTaken)
			w.becomes(bot, "Ready=True")
		})
	}
}

// TestNothingRunsBeforeTheTenantIsInUse: what protects a Tenant from being deleted is written before a bot's StatefulSet.
func TestNothingRunsBeforeTheTenantIsInUse(t *testing.T) {
	w, tenant := withTenant(t, "first")
	before := len(w.wire.written())
	bot := makeBot("first-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	writes := w.wire.written()[before:]
	said := slices.IndexFunc(writes, func(s string) bool { return strings.HasSuffix(s, "/tenants/"+tenant.Name+"/status") })
	ran := slices.IndexFunc(writes, func(s string) bool { return strings.Contains(s, "POST") && strings.HasSuffix(s, "/statefulsets") })
	if said < 0 || ran < 0 || said > ran {
		t.Errorf("InUse was written as number %d and the StatefulSet as number %d of %v", said, ran, writes)
	}
}

// TestDeletionStopsPodsFirst: whatever a Tenant's deletion waits for, nothing runs meanwhile.
func TestDeletionStopsPodsFirst(t *testing.T) {
	for name, suspended := range map[string]bool{"active": false, "suspended": true} {
		t.Run(name, func(t *testing.T) {
			w, tenant := withTenant(t, "halt-"+name)
			bot := makeBot(tenant.Name+"-a", "b")
			w.create(bot)
			w.becomes(bot, "Ready=True")
			w.stop()
			if suspended {
				edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			}
			w.forgetUse(tenant)
			w.delete(tenant)
			w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
			w.start(&wire{})
			w.eventually("stopped", func() error { return w.runs(bot.Namespace) })
			w.becomes(bot, "Ready=False")
			w.eventually("it waits for the bot", func() error { return w.says(tenant, tenant.Name+"-a") })
			w.keys.set(func(k *keyserverDouble) { k.down = nil })
			if w.keys.isRevoked(tenant.UID) {
				t.Error("the Tenant's keys were destroyed although a bot exists")
			}
			w.delete(bot)
			w.restart() // rather than wait for the next try
			w.gone(bot)
			w.gone(tenant)
		})
	}
}

// TestAHeldBotHoldsUpNobodyElse: a tenant's user who puts a finalizer on a bot keeps that bot, and neither the Tenant nor
// its keys. The namespace goes when the finalizer does.
func TestAHeldBotHoldsUpNobodyElse(t *testing.T) {
	w, tenant := withTenant(t, "held")
	bot := makeBot("held-a", "b")
	bot.Finalizers = []string{"example.com/hold"}
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.becomes(tenant, "InUse=True")
	w.delete(bot)
	w.eventually("the bot says who holds it", func() error { return w.says(bot, "example.com/hold") })
	if !w.keys.isRevoked(bot.UID) {
		t.Error("the bot's keys outlive it")
	}
	w.eventually("stopped", func() error { return w.runs("held-a") })
	w.becomes(tenant, "InUse=False")
	w.delete(tenant)
	w.gone(tenant)
	w.oneEvent(tenant, v1alpha1.ReasonHeld)
	if !w.keys.isRevoked(tenant.UID) {
		t.Error("the Tenant's keys outlive it")
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "held-a"}}
	if err := w.get(namespace); err != nil || namespace.DeletionTimestamp == nil {
		t.Errorf("the namespace is not on its way out: %v", err)
	}
	w.takeFinalizersOff(bot)
	w.gone(namespace)
}

// TestAHeldBotWhereOurRightsAreGone: Kubernetes removes our RoleBinding with all else in a namespace, and the manager may not look for
// pods there any more. The Tenant goes all the same once Kubernetes says that no pod remains, and not before.
func TestAHeldBotWhereOurRightsAreGone(t *testing.T) {
	w, tenant := withTenant(t, "rightless")
	bot := makeBot("rightless-a", "b")
	bot.Finalizers = []string{"example.com/hold"}
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.adriftPod(bot)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotPodName(bot.Name)}}
	w.soon("the pod is held", func() error {
		if err := w.get(pod); err != nil {
			return err
		}
		pod.Finalizers = []string{"example.com/hold"}
		return w.cluster.Update(context.Background(), pod)
	})
	w.delete(bot)
	w.eventually("the bot says who holds it", func() error { return w.says(bot, "example.com/hold") })
	w.becomes(tenant, "InUse=False")
	w.stop()
	w.delete(tenant)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "rightless-a"}}
	w.delete(namespace)
	w.eventually("Kubernetes has removed what it can", func() error {
		if err := w.none("is left", []client.ObjectList{&rbacv1.RoleBindingList{}}, namespace.Name, func(client.Object) bool { return true }); err != nil {
			return err
		}
		if err := w.get(namespace); err != nil {
			return err
		}
		if !strings.Contains(fmt.Sprint(namespace.Status.Conditions), "pods. has 1 resource instances") {
			return fmt.Errorf("it is not told what remains: %v", namespace.Status.Conditions)
		}
		return nil
	})
	w.start(&wire{})
	w.eventually("it waits for the pod", func() error { return w.says(tenant, "Waiting for Kubernetes to remove rightless-a") })
	w.takeFinalizersOff(pod)
	w.gone(tenant)
	w.oneEvent(tenant, v1alpha1.ReasonHeld)
	w.takeFinalizersOff(bot)
	w.gone(namespace)
}

// TestHasNoPods: only what Kubernetes has said of the whole namespace counts. In doubt a pod may run.
func TestHasNoPods(t *testing.T) {
	const bots, pods = "botdeployments.lethe.dev has 1 resource instances", "pods. has 1 resource instances"
	remaining := func(status corev1.ConditionStatus, message string) corev1.NamespaceCondition {
		return corev1.NamespaceCondition{Type: corev1.NamespaceContentRemaining, Status: status, Message: message}
	}
	failure := func(kind corev1.NamespaceConditionType, status corev1.ConditionStatus) corev1.NamespaceCondition {
		return corev1.NamespaceCondition{Type: kind, Status: status}
	}
	held := remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots)
	for name, c := range map[string]struct {
		conditions []corev1.NamespaceCondition
		want       bool
	}{
		"nothing is said yet":      {nil, false},
		"only that nothing failed": {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionFalse)}, false},
		"a bot":                    {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionFalse), held}, true},
		"a pod alone":              {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+pods)}, false},
		"a bot and a pod":          {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots+", "+pods)}, false},
		"pods of metrics, no pods": {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots+", pods.metrics.k8s.io has 1 resource instances")}, true},
		"everything is gone":       {[]corev1.NamespaceCondition{remaining(corev1.ConditionFalse, "All content successfully removed")}, true},
		"it is not known":          {[]corev1.NamespaceCondition{remaining(corev1.ConditionUnknown, "")}, false},
		"not all was deleted":      {[]corev1.NamespaceCondition{held, failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionTrue)}, false},
		"not all was found":        {[]corev1.NamespaceCondition{held, failure(corev1.NamespaceDeletionDiscoveryFailure, corev1.ConditionTrue)}, false},
		"not all was read":         {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionGVParsingFailure, corev1.ConditionTrue), held}, false},
	} {
		namespace := &corev1.Namespace{Status: corev1.NamespaceStatus{Conditions: c.conditions}}
		if got := hasNoPods(namespace); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestTheOrphanSweepTouchesNothingElse: what nobody recorded, what somebody else controls and what is another part's stays.
func TestTheOrphanSweepTouchesNothingElse(t *testing.T) {
	w, tenant := withTenant(t, "theirs")
	bot := makeBot("theirs-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	gone := makeBot("theirs-a", "gone")
	gone.UID = "0e0e0e0e-0000-4000-8000-000000000000"
	yes := true
	theirs := map[string]*corev1.ConfigMap{}
	for name, change := range map[string]func(*corev1.ConfigMap){
		"without-label":  func(c *corev1.ConfigMap) { delete(c.Labels, v1alpha1.LabelManagedBy) },
		"without-record": func(c *corev1.ConfigMap) { c.Annotations = nil },
		"another-part":   func(c *corev1.ConfigMap) { c.Labels[v1alpha1.LabelComponent] = "theirs" },
		"controlled": func(c *corev1.ConfigMap) {
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "d", UID: "7", Controller: &yes}}
		},
		"of-a-bot-that-lives": func(c *corev1.ConfigMap) { c.Annotations[v1alpha1.AnnotationOwnerUID] = string(bot.UID) },
	} {
		child := resources.BotServiceAccount(gone)
		c := &corev1.ConfigMap{ObjectMeta: *child.ObjectMeta.DeepCopy()}
		c.Name, c.OwnerReferences = name, nil
		change(c)
		theirs[name] = c
		w.create(c)
	}
	bait := &corev1.ConfigMap{ObjectMeta: *resources.BotServiceAccount(gone).ObjectMeta.DeepCopy()}
	bait.Name, bait.OwnerReferences = "bait", nil
	w.create(bait)
	if _, known := orphans.OwnerOf(bait); !known {
		t.Fatal("the bait is no orphan")
	}
	w.restart()
	w.gone(bait)
	for name, c := range theirs {
		version := c.ResourceVersion
		if err := w.get(c); err != nil || c.ResourceVersion != version {
			t.Errorf("%s was touched: %v", name, err)
		}
	}
	w.oneEvent(tenant, v1alpha1.ReasonOrphanRemoved)
	w.delete(bot)
}
