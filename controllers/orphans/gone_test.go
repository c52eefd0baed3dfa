package orphans_test

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/orphans"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/kcm"
	"github.com/lethe-dev/lethe/test/operator"
)

// orphan does to the children in a namespace what garbage collection does for --cascade=orphan.
func orphan(w *operator.World, namespace string, owner client.Object) {
	w.T.Helper()
	for _, list := range kcm.ChildLists() {
		err := w.KCM.Each(list, func(o client.Object) error {
			controller := metav1.GetControllerOf(o)
			if _, bundle := o.(*corev1.ConfigMap); bundle || controller == nil || controller.UID != owner.GetUID() {
				return nil // certificates and sealing keys are the manager's alone to write, for garbage collection too
			}
			o.SetOwnerReferences(nil)
			return w.Cluster.Update(context.Background(), o)
		}, client.InNamespace(namespace))
		if err != nil {
			w.T.Fatal(err)
		}
	}
}

// takeFinalizersOff is the hand that helps a deletion along.
func takeFinalizersOff(w *operator.World, object client.Object) {
	w.T.Helper()
	w.Soon("finalizers taken off "+object.GetName(), func() error {
		if err := w.Get(object); err != nil {
			return client.IgnoreNotFound(err)
		}
		object.SetFinalizers(nil)
		return client.IgnoreNotFound(w.Cluster.Update(context.Background(), object))
	})
}

// forgetUse makes a Tenant deletable that admission would keep: as if its status were behind.
func forgetUse(w *operator.World, tenant *v1alpha1.Tenant) {
	w.T.Helper()
	w.Soon("a status without InUse", func() error {
		if err := w.Get(tenant); err != nil {
			return err
		}
		tenant.Status.Conditions = slices.DeleteFunc(tenant.Status.Conditions, func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionInUse })
		return w.Cluster.Status().Update(context.Background(), tenant)
	})
}

// runs says what of ours runs in a namespace: what could make a pod, and pods.
func runs(w *operator.World, namespace string) error {
	return w.None("runs", append(kcm.ChildLists(), &corev1.PodList{}), namespace, func(o client.Object) bool {
		set, isSet := o.(*appsv1.StatefulSet)
		_, isPod := o.(*corev1.Pod)
		return isPod || isSet && *set.Spec.Replicas > 0 || strings.Contains(fmt.Sprintf("%T", o), "Job")
	})
}

// leftOfBots says what is left of bots in a namespace.
func leftOfBots(w *operator.World, namespace string) error {
	var left []string
	for _, list := range append(kcm.ChildLists(), &corev1.PodList{}) {
		if _, secrets := list.(*corev1.SecretList); secrets {
			continue // the keyserver's
		}
		err := w.KCM.Each(list, func(o client.Object) error {
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
func adriftPod(w *operator.World, bot *v1alpha1.BotDeployment) {
	w.T.Helper()
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		w.T.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = bot.Namespace, resources.BotPodName(bot.Name)
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
	if err := w.Cluster.Create(context.Background(), pod); err != nil {
		w.T.Fatal(err)
	}
}

// TestGoneIsGone: after every way of going away, with a manager there and without, nothing of ours runs without a bot
// that lives, is not suspended, and is in a tenant's namespace.
func TestGoneIsGone(t *testing.T) {
	type scene struct {
		w      *operator.World
		tenant *v1alpha1.Tenant
		bot    *v1alpha1.BotDeployment
	}
	ways := map[string]struct {
		how  func(s scene)
		then func(s scene) // what comes back, if it was a mistake
		kept bool          // the bot is still there, and its children with it
	}{
		"orphaned": {how: func(s scene) {
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
		}},
		"orphaned, and its finalizers taken off": {how: func(s scene) {
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
			takeFinalizersOff(s.w, s.bot)
		}},
		"its StatefulSet deleted from under its pod, then orphaned": {how: func(s scene) {
			adriftPod(s.w, s.bot)
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
			takeFinalizersOff(s.w, s.bot)
		}},
		"orphaned, and made again under its name": {kept: true, how: func(s scene) {
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
			takeFinalizersOff(s.w, s.bot)
			again := operator.MakeBot(s.bot.Namespace, s.bot.Name)
			again.Spec.OperatingMode = v1alpha1.ModeSuspended
			s.w.Create(again)
		}, then: func(s scene) {
			again := operator.MakeBot(s.bot.Namespace, s.bot.Name)
			s.w.Becomes(again, "Ready=True")
			if again.UID == s.bot.UID {
				s.w.T.Fatal("it is the same bot")
			}
			operator.Edit(s.w, again, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
			s.w.Becomes(again, "Ready=True")
			set := operator.SetOf(again)
			if err := s.w.Get(set); err != nil || !metav1.IsControlledBy(set, again) {
				s.w.T.Errorf("the StatefulSet belongs to %v, %v", set.OwnerReferences, err)
			}
		}},
		"held by a finalizer": {kept: true, how: func(s scene) {
			operator.Edit(s.w, s.bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = append(b.Finalizers, "example.com/hold") })
			s.w.Delete(s.bot)
		}, then: func(s scene) {
			s.w.Eventually("it says who holds it", func() error { return s.w.Says(s.bot, "example.com/hold") })
			takeFinalizersOff(s.w, s.bot)
			s.w.Gone(s.bot)
			s.w.Eventually("nothing left", func() error { return leftOfBots(s.w, s.bot.Namespace) })
		}},
		"suspended": {kept: true, how: func(s scene) {
			operator.Edit(s.w, s.bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		}},
		"suspended, orphaned": {how: func(s scene) {
			operator.Edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
			takeFinalizersOff(s.w, s.bot)
		}},
		"suspended with its Tenant": {kept: true, how: func(s scene) {
			operator.Edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
		}},
		"its namespace's label taken away": {kept: true, how: func(s scene) {
			operator.Edit(s.w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.bot.Namespace}}, func(n *corev1.Namespace) {
				delete(n.Labels, v1alpha1.LabelTenant)
			})
		}, then: func(s scene) {
			s.w.Becomes(s.bot, "Stalled=True/"+v1alpha1.ReasonNoTenant)
			operator.Edit(s.w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.bot.Namespace}}, func(n *corev1.Namespace) {
				n.Labels[v1alpha1.LabelTenant] = s.tenant.Name
			})
			s.w.Becomes(s.bot, "Ready=True")
			if s.w.Replicas(s.bot) != 1 {
				s.w.T.Error("the bot did not come back with the label")
			}
		}},
		"its Tenant gone without being asked": {kept: true, how: func(s scene) {
			forgetUse(s.w, s.tenant)
			s.w.Soon("deleted", func() error {
				return client.IgnoreNotFound(s.w.Cluster.Delete(context.Background(), s.tenant.DeepCopy()))
			})
			takeFinalizersOff(s.w, s.tenant)
		}, then: func(s scene) {
			again := operator.MakeTenant(s.tenant.Name, s.bot.Namespace)
			s.w.Create(again)
			s.w.Becomes(again, "Ready=True")
			s.w.Becomes(s.bot, "Ready=True")
			if s.w.Replicas(s.bot) != 1 {
				s.w.T.Error("the bot did not come back with its Tenant")
			}
		}},
		"its namespace taken off the list, after it was orphaned": {how: func(s scene) {
			orphan(s.w, s.bot.Namespace, s.bot)
			s.w.Delete(s.bot)
			takeFinalizersOff(s.w, s.bot)
			operator.Edit(s.w, s.tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: t.Name + "-z"}} })
		}, then: func(s scene) {
			s.w.Eventually("left for good", func() error { return isEmptyButSecrets(s.w, s.bot.Namespace) })
		}},
	}
	number := 0
	for name, way := range ways {
		for _, up := range []bool{true, false} {
			number++
			id := fmt.Sprintf("gone-%d", number)
			t.Run(fmt.Sprintf("%s, manager there: %v", name, up), func(t *testing.T) {
				w := operator.NewWorld(t)
				s := scene{w: w, tenant: operator.MakeTenant(id, id+"-a"), bot: operator.MakeBot(id+"-a", "b")}
				w.Create(s.tenant)
				w.Becomes(s.tenant, "Ready=True")
				w.Create(s.bot)
				w.Becomes(s.bot, "Ready=True")
				w.Becomes(s.tenant, "InUse=True")
				if !up {
					w.Stop()
				}
				way.how(s)
				if !up {
					w.Start(&operator.Wire{})
				}
				w.Eventually("nothing runs", func() error { return runs(w, s.bot.Namespace) })
				if !way.kept {
					w.Gone(s.bot)
					w.Eventually("nothing left", func() error { return leftOfBots(w, s.bot.Namespace) })
				}
				if way.then != nil {
					way.then(s)
				}
			})
		}
	}
}

// isEmptyButSecrets leaves out what is the keyserver's to remove.
func isEmptyButSecrets(w *operator.World, namespace string) error {
	err := w.IsEmpty(namespace)
	if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "*v1.Secret ", ""), "*v1.") {
		return nil
	}
	return err
}

// TestSuspensionNeedsNobodysLeave: a bot stops although a step before its workload cannot be done.
func TestSuspensionNeedsNobodysLeave(t *testing.T) {
	for name, suspend := range map[string]func(w *operator.World, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment){
		"bot": func(w *operator.World, _ *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) {
			operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		},
		"tenant": func(w *operator.World, tenant *v1alpha1.Tenant, _ *v1alpha1.BotDeployment) {
			operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, tenant := operator.WithTenant(t, "leave-"+name)
			bot := operator.MakeBot(tenant.Name+"-a", "b")
			w.Create(bot)
			w.Becomes(bot, "Ready=True")
			w.Stop()
			// Somebody else's policy is in the way.
			policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}}
			w.Delete(policy)
			if err := w.Cluster.Create(context.Background(), policy); err != nil {
				t.Fatal(err)
			}
			suspend(w, tenant, bot)
			w.Start(&operator.Wire{})
			w.Eventually("stopped", func() error { return runs(w, bot.Namespace) })
			// It is what it is to be, and what would keep it from running is told beside that.
			w.Becomes(bot, "IsolationReady=False/"+v1alpha1.ReasonNameTaken)
			w.Becomes(bot, "Ready=True")
		})
	}
}

// TestNothingRunsBeforeTheTenantIsInUse: what protects a Tenant from being deleted is written before a bot's
// StatefulSet.
func TestNothingRunsBeforeTheTenantIsInUse(t *testing.T) {
	w, tenant := operator.WithTenant(t, "first")
	before := len(w.Wire.Written())
	bot := operator.MakeBot("first-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	writes := w.Wire.Written()[before:]
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
			w, tenant := operator.WithTenant(t, "halt-"+name)
			bot := operator.MakeBot(tenant.Name+"-a", "b")
			w.Create(bot)
			w.Becomes(bot, "Ready=True")
			w.Stop()
			if suspended {
				operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			}
			forgetUse(w, tenant)
			w.Delete(tenant)
			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
			w.Start(&operator.Wire{})
			w.Eventually("stopped", func() error { return runs(w, bot.Namespace) })
			w.Becomes(bot, "Ready=False")
			w.Eventually("it waits for the bot", func() error { return w.Says(tenant, tenant.Name+"-a") })
			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
			if w.Keys.IsRevoked(tenant.UID) {
				t.Error("the Tenant's keys were destroyed although a bot exists")
			}
			w.Delete(bot)
			w.Restart() // rather than wait for the next try
			w.Gone(bot)
			w.Gone(tenant)
		})
	}
}

// TestAHeldBotHoldsUpNobodyElse: a tenant's user who puts a finalizer on a bot keeps that bot, and neither the Tenant
// nor its keys. The namespace goes when the finalizer does.
func TestAHeldBotHoldsUpNobodyElse(t *testing.T) {
	w, tenant := operator.WithTenant(t, "held")
	bot := operator.MakeBot("held-a", "b")
	bot.Finalizers = []string{"example.com/hold"}
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	w.Delete(bot)
	w.Eventually("the bot says who holds it", func() error { return w.Says(bot, "example.com/hold") })
	if !w.Keys.IsRevoked(bot.UID) {
		t.Error("the bot's keys outlive it")
	}
	w.Eventually("stopped", func() error { return runs(w, "held-a") })
	w.Becomes(tenant, "InUse=False")
	w.Delete(tenant)
	w.Gone(tenant)
	w.OneEvent(tenant, v1alpha1.ReasonHeld)
	if !w.Keys.IsRevoked(tenant.UID) {
		t.Error("the Tenant's keys outlive it")
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "held-a"}}
	if err := w.Get(namespace); err != nil || namespace.DeletionTimestamp == nil {
		t.Errorf("the namespace is not on its way out: %v", err)
	}
	takeFinalizersOff(w, bot)
	w.Gone(namespace)
}

// TestAHeldBotWhereOurRightsAreGone: Kubernetes removes our RoleBinding with all else in a namespace, and the manager
// may not look for pods there any more. The Tenant goes all the same once Kubernetes says that no pod remains, and
// not before.
func TestAHeldBotWhereOurRightsAreGone(t *testing.T) {
	w, tenant := operator.WithTenant(t, "rightless")
	bot := operator.MakeBot("rightless-a", "b")
	bot.Finalizers = []string{"example.com/hold"}
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	adriftPod(w, bot)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotPodName(bot.Name)}}
	w.Soon("the pod is held", func() error {
		if err := w.Get(pod); err != nil {
			return err
		}
		pod.Finalizers = []string{"example.com/hold"}
		return w.Cluster.Update(context.Background(), pod)
	})
	w.Delete(bot)
	w.Eventually("the bot says who holds it", func() error { return w.Says(bot, "example.com/hold") })
	w.Becomes(tenant, "InUse=False")
	w.Stop()
	w.Delete(tenant)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "rightless-a"}}
	w.Delete(namespace)
	w.Eventually("Kubernetes has removed what it can", func() error {
		if err := w.None("is left", []client.ObjectList{&rbacv1.RoleBindingList{}}, namespace.Name, func(client.Object) bool { return true }); err != nil {
			return err
		}
		if err := w.Get(namespace); err != nil {
			return err
		}
		if !strings.Contains(fmt.Sprint(namespace.Status.Conditions), "pods. has 1 resource instances") {
			return fmt.Errorf("it is not told what remains: %v", namespace.Status.Conditions)
		}
		return nil
	})
	w.Start(&operator.Wire{})
	w.Eventually("it waits for the pod", func() error { return w.Says(tenant, "Waiting for Kubernetes to remove rightless-a") })
	takeFinalizersOff(w, pod)
	w.Gone(tenant)
	w.OneEvent(tenant, v1alpha1.ReasonHeld)
	takeFinalizersOff(w, bot)
	w.Gone(namespace)
}

// TestTheOrphanSweepTouchesNothingElse: what nobody recorded, what somebody else controls and what is another part's
// stays.
func TestTheOrphanSweepTouchesNothingElse(t *testing.T) {
	w, tenant := operator.WithTenant(t, "theirs")
	bot := operator.MakeBot("theirs-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	gone := operator.MakeBot("theirs-a", "gone")
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
		w.Create(c)
	}
	bait := &corev1.ConfigMap{ObjectMeta: *resources.BotServiceAccount(gone).ObjectMeta.DeepCopy()}
	bait.Name, bait.OwnerReferences = "bait", nil
	w.Create(bait)
	if _, known := orphans.OwnerOf(bait); !known {
		t.Fatal("the bait is no orphan")
	}
	w.Restart()
	w.Gone(bait)
	for name, c := range theirs {
		version := c.ResourceVersion
		if err := w.Get(c); err != nil || c.ResourceVersion != version {
			t.Errorf("%s was touched: %v", name, err)
		}
	}
	w.OneEvent(tenant, v1alpha1.ReasonOrphanRemoved)
	w.Delete(bot)
}
