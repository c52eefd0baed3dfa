package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/kcm"
)

func TestTenantIsSetUp(t *testing.T) {
	w := newWorld(t)
	tenant := richTenant("setup", "setup-a", "setup-b")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.becomes(tenant, "InUse=False")

	if len(tenant.Status.Namespaces) != 2 || tenant.Status.KEKGrade != "Production" || len(tenant.Status.SealingKeys) != 1 {
		t.Errorf("status %+v", tenant.Status)
	}
	for _, found := range tenant.Status.Namespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: found.Name}}
		if err := w.get(namespace); err != nil {
			t.Fatal(err)
		}
		if found.UID != string(namespace.UID) || found.Origin != originCreated {
			t.Errorf("status names %+v, the namespace has UID %s", found, namespace.UID)
		}
		if namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" || namespace.Labels[v1alpha1.LabelTenant] != "setup" {
			t.Errorf("labels %v", namespace.Labels)
		}
	}
	if !slices.Contains(tenant.Finalizers, v1alpha1.FinalizerKeys) {
		t.Error("the Tenant has no finalizer")
	}
}

func TestCABundleIsCopiedAndFollowed(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("bundle", "bundle-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.publishCA("second")
	copied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "bundle-a", Name: resources.CABundleName}}
	w.eventually("the new bundle", func() error {
		if err := w.get(copied); err != nil {
			return err
		}
		if got := copied.Data[resources.CABundleKey]; got != "second" {
			return fmt.Errorf("the copy holds %q", got)
		}
		return nil
	})
}

func TestTenantWaitsForTheKeyserver(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		reason string
	}{
		"which cannot be reached":  {errors.New("connection refused"), "KeysReady=False/" + v1alpha1.ReasonKeyserverUnavailable},
		"which has no KEK":         {&refusedError{v1alpha1.ReasonKEKUnavailable, "the key-encryption key cannot be read"}, "KeysReady=False/" + v1alpha1.ReasonKEKUnavailable},
		"which misses a key":       {&refusedError{v1alpha1.ReasonKeyMissing, "the tenant's key is gone: restore the backup"}, "Stalled=True/" + v1alpha1.ReasonKeyMissing},
		"which does not obey us":   {&refusedError{v1alpha1.ReasonForbidden, "not yours to ask"}, "Stalled=True/" + v1alpha1.ReasonForbidden},
		"which answers nonsense 5": {&refusedError{v1alpha1.ReasonInternal, "internal"}, "KeysReady=False/" + v1alpha1.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.keys.set(func(k *keyserverDouble) { k.down = tc.err })
			tenant := makeTenant("waits", "waits-a")
			w.create(tenant)
			w.becomes(tenant, tc.reason)
			w.becomes(tenant, "Ready=False")
			w.soon("the namespaces are walled in without the keyserver", func() error {
				if err := w.get(tenant); err != nil || len(tenant.Status.Namespaces) == 1 {
					return err
				}
				return fmt.Errorf("the status names %d", len(tenant.Status.Namespaces))
			})
			w.keys.set(func(k *keyserverDouble) { k.down = nil })
			w.restart() // rather than wait for the next try
			w.becomes(tenant, "Ready=True")
		})
	}
}

func TestNamespaceOfAStrangerIsRefused(t *testing.T) {
	w := newWorld(t)
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Labels: map[string]string{"mine": "true"}}})
	tenant := makeTenant("greedy", "stranger", "greedy-own", "lethe-system", "kube-system")
	w.create(tenant)
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.becomes(tenant, "NamespacesReady=False")
	w.soon("the Tenant's own namespace does not suffer", func() error { // once Kubernetes has counted what it holds
		if err := w.get(tenant); err != nil {
			return err
		}
		if len(tenant.Status.Namespaces) != 1 || tenant.Status.Namespaces[0].Name != "greedy-own" {
			return fmt.Errorf("status names %+v", tenant.Status.Namespaces)
		}
		return nil
	})
	stranger := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stranger"}}
	if err := w.get(stranger); err != nil || len(stranger.Annotations) > 0 || stranger.Labels[v1alpha1.LabelTenant] != "" {
		t.Errorf("the stranger's namespace was touched: %v %v", stranger.ObjectMeta, err)
	}
	bindings := &rbacv1.RoleBindingList{}
	if err := w.admin.List(context.Background(), bindings, client.InNamespace("stranger")); err != nil || len(bindings.Items) > 0 {
		t.Errorf("bindings in the stranger's namespace: %v %v", bindings.Items, err)
	}

	// Somebody who may do so gives the namespace to the Tenant.
	edit(w, stranger, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "greedy" })
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceReserved)
	edit(w, tenant, func(tenant *v1alpha1.Tenant) { tenant.Spec.Namespaces = tenant.Spec.Namespaces[:2] })
	w.becomes(tenant, "Ready=True")
	if i := slices.IndexFunc(tenant.Status.Namespaces, func(n v1alpha1.TenantNamespaceStatus) bool { return n.Name == "stranger" }); i < 0 ||
		tenant.Status.Namespaces[i].Origin != originAdopted {
		t.Errorf("status %+v", tenant.Status.Namespaces)
	}

	// An adopted namespace outlives the Tenant, without anything of ours but the label and the standard.
	w.delete(tenant)
	w.gone(tenant)
	w.eventually("left", func() error { return w.isEmpty("stranger") })
	if err := w.get(stranger); err != nil || stranger.DeletionTimestamp != nil {
		t.Errorf("the adopted namespace is gone: %v", err)
	}
	edit(w, stranger, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.delete(stranger)
	w.gone(stranger)
}

// isEmpty says what is left of ours in a namespace.
func (w *world) isEmpty(namespace string) error {
	return w.none("left", kcm.ChildLists(), namespace, func(client.Object) bool { return true })
}

func TestNamespaceOfAnotherTenantIsRefused(t *testing.T) {
	w := newWorld(t)
	first, second := makeTenant("first", "shared"), makeTenant("second", "shared")
	w.create(first)
	w.becomes(first, "Ready=True")
	w.create(second)
	w.becomes(second, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.becomes(first, "Ready=True")
	bot := makeBot("shared", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	if bot.Status.Tenant != "first" {
		t.Errorf("the bot is taken for one of %s", bot.Status.Tenant)
	}
}

// TestNamespaceMadeAnew: a namespace of the same name is another namespace.
func TestNamespaceMadeAnew(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("anew", "anew-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("anew-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	was := tenant.Status.Namespaces[0].UID

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "anew-a"}}
	w.delete(namespace)
	w.gone(bot)
	if !w.keys.isRevoked(bot.UID) {
		t.Error("the bot went with its namespace and its keys were not revoked")
	}
	w.eventually("another namespace", func() error {
		if err := w.isNow(tenant, "Ready=True"); err != nil {
			return err
		}
		if len(tenant.Status.Namespaces) != 1 || tenant.Status.Namespaces[0].UID == was {
			return fmt.Errorf("status names %+v", tenant.Status.Namespaces)
		}
		return nil
	})
	again := makeBot("anew-a", "b")
	w.create(again)
	w.becomes(again, "Ready=True")
}

func TestNamespaceTakenOffTheList(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("list", "list-a", "list-b")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("list-b", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.becomes(tenant, "InUse=True")

	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceInUse)
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.becomes(bot, "Ready=True") // it goes on being the Tenant's

	w.delete(bot)
	w.gone(bot)
	w.becomes(tenant, "Ready=True")
	w.eventually("left", func() error { return w.isEmpty("list-b") })
	if len(tenant.Status.Namespaces) != 1 {
		t.Errorf("status names %+v", tenant.Status.Namespaces)
	}
	late := makeBot("list-b", "late")
	w.create(late)
	w.becomes(late, "Stalled=True/"+v1alpha1.ReasonNoTenant)

	edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Namespaces = append(t.Spec.Namespaces, v1alpha1.TenantNamespace{Name: "list-b"})
	})
	w.becomes(late, "Ready=True")
}

// TestNamespaceTakenOffTheListWhileABotEnds: the Tenant says already that it is in no use, and is still woken when the bot is really gone.
func TestNamespaceTakenOffTheListWhileABotEnds(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("ending", "ending-a", "ending-b")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("ending-b", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = append(b.Finalizers, "example.com/wait") })
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceInUse)
	w.delete(bot)
	w.becomes(tenant, "InUse=False")
	w.calm()
	edit(w, bot, func(b *v1alpha1.BotDeployment) {
		b.Finalizers = slices.DeleteFunc(b.Finalizers, func(f string) bool { return f == "example.com/wait" })
	})
	w.gone(bot)
	w.becomes(tenant, "Ready=True")
}

func TestTenantInUseCannotBeDeleted(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("busy", "busy-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("busy-a", "b")
	w.create(bot)
	w.becomes(tenant, "InUse=True")
	err := w.cluster.Delete(context.Background(), tenant.DeepCopy())
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		t.Fatalf("deleting a Tenant with a bot: %v", err)
	}
	w.delete(bot)
	w.gone(bot)
	w.becomes(tenant, "InUse=False")
	w.delete(tenant)
	w.gone(tenant)
	w.gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "busy-a"}})
	if !w.keys.isRevoked(tenant.UID) {
		t.Error("the Tenant's keys were not revoked")
	}
}

// TestTenantDeletedWithABotInIt: where admission could not know of a bot, no key is destroyed before somebody has looked: the
// deletion waits, says so, and ends once the bot is gone.
func TestTenantDeletedWithABotInIt(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("race", "race-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.stop()
	bot := makeBot("race-a", "b")
	w.create(bot) // nobody has noticed yet
	w.delete(tenant)
	w.start(&wire{})
	w.eventually("it says what it waits for", func() error { return w.says(tenant, "race-a") })
	w.calm()
	if w.keys.isRevoked(tenant.UID) {
		t.Error("keys were destroyed although a bot exists")
	}
	if w.replicas(bot) > 0 {
		t.Error("a bot of a Tenant that is being deleted was started")
	}
	w.delete(bot)
	w.gone(bot)
	w.gone(tenant)
	if !w.keys.isRevoked(tenant.UID) {
		t.Error("keys outlived the Tenant")
	}
	w.gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "race-a"}})
}

func TestDeletionWaitsForTheKeyserver(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("stuck", "stuck-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.keys.set(func(k *keyserverDouble) { k.down = errors.New("connection refused") })
	w.delete(tenant)
	w.becomes(tenant, "Reconciling=True/Deleting")
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stuck-a"}}
	if err := w.get(namespace); err != nil || namespace.DeletionTimestamp != nil {
		t.Errorf("the namespace went before the keys were revoked: %v", err)
	}
	w.keys.set(func(k *keyserverDouble) { k.down = nil })
	w.restart()
	w.gone(tenant)
}

// TestExternalIDClaimedTwice: whoever claims an identifier that another Tenant has is Stalled, be it the younger Tenant or the older one; the one that
// had it stays Ready and says so once; taking the second claim away heals both.
func TestExternalIDClaimedTwice(t *testing.T) {
	for name, tc := range map[string]struct{ holder, later string }{"the older has it": {"claim-a", "claim-b"}, "the younger has it": {"claim-d", "claim-c"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tenants := map[string]*v1alpha1.Tenant{}
			for _, each := range slices.Sorted(slices.Values([]string{tc.holder, tc.later})) { // the older comes first
				tenants[each] = makeTenant(each, each)
				if each == tc.holder {
					tenants[each].Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}}
				}
				w.create(tenants[each])
				w.becomes(tenants[each], "Ready=True")
			}
			holder, later := tenants[tc.holder], tenants[tc.later]
			edit(w, later, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}} })
			w.becomes(later, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
			w.oneEvent(holder, v1alpha1.ReasonExternalIDContested)
			contested := func(want bool) {
				t.Helper()
				w.eventually("what the holder says", func() error {
					if err := w.get(holder); err != nil {
						return err
					}
					ready := meta.FindStatusCondition(holder.Status.Conditions, v1alpha1.ConditionReady)
					if ready == nil || ready.Status != metav1.ConditionTrue || strings.Contains(ready.Message, "AccountID 42 by "+later.Name) != want {
						return fmt.Errorf("%+v", ready)
					}
					return nil
				})
			}
			contested(true)
			// Neither a restart nor a change of the holder's spec turns the two around.
			w.restart()
			edit(w, holder, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			w.eventually("the new spec was looked at", func() error {
				if err := w.get(holder); err != nil || holder.Status.ObservedGeneration != holder.Generation {
					return fmt.Errorf("generation %d of %d: %w", holder.Status.ObservedGeneration, holder.Generation, err)
				}
				return nil
			})
			contested(true)
			w.becomes(later, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
			edit(w, later, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs[0].Value = "43" })
			w.becomes(later, "Ready=True")
			contested(false)
		})
	}
}

// TestExternalIDPassesOn: when the first lets go of an identifier, the second has it.
func TestExternalIDPassesOn(t *testing.T) {
	w := newWorld(t)
	first, second := makeTenant("pass-a", "pass-a"), makeTenant("pass-b", "pass-b")
	id := []v1alpha1.ExternalID{{Type: "AccountID", Value: "77"}}
	first.Spec.ExternalIDs, second.Spec.ExternalIDs = id, id
	w.create(first)
	w.becomes(first, "Ready=True")
	w.create(second)
	w.becomes(second, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
	edit(w, first, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = nil })
	w.becomes(second, "Ready=True")
	edit(w, first, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = id })
	w.becomes(first, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
	w.becomes(second, "Ready=True")
}

func TestForeignChildIsRefused(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("foreign", "foreign-a")
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign-a", Labels: map[string]string{v1alpha1.LabelTenant: "foreign"}}})
	stranger := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "foreign-a", Name: resources.LimitRangeName}}
	w.create(stranger, tenant)
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNameTaken)
	version := stranger.ResourceVersion
	if err := w.get(stranger); err != nil || stranger.ResourceVersion != version {
		t.Errorf("the stranger's LimitRange was touched: %v", err)
	}
	w.oneEvent(tenant, v1alpha1.ReasonNameTaken)
	w.delete(stranger)
	w.restart() // rather than wait for the next look
	w.becomes(tenant, "Ready=True")
	w.delete(tenant)
	w.gone(tenant)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign-a"}}
	edit(w, namespace, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.delete(namespace)
	w.gone(namespace)
}
