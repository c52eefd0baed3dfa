package tenant_test

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
	tenantcontroller "github.com/lethe-dev/lethe/controllers/tenant"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

func TestTenantIsSetUp(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.RichTenant("setup", "setup-a", "setup-b")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Becomes(tenant, "InUse=False")

	if len(tenant.Status.Namespaces) != 2 || tenant.Status.KEKGrade != "Production" || len(tenant.Status.SealingKeys) != 1 {
		t.Errorf("status %+v", tenant.Status)
	}
	for _, found := range tenant.Status.Namespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: found.Name}}
		if err := w.Get(namespace); err != nil {
			t.Fatal(err)
		}
		if found.UID != string(namespace.UID) || found.Origin != tenantcontroller.OriginCreated {
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
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("bundle", "bundle-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.PublishCA("second")
	copied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "bundle-a", Name: resources.CABundleName}}
	w.Eventually("the new bundle", func() error {
		if err := w.Get(copied); err != nil {
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
		"which has no KEK":         {&operator.RefusedError{Why: v1alpha1.ReasonKEKUnavailable, Message: "the key-encryption key cannot be read"}, "KeysReady=False/" + v1alpha1.ReasonKEKUnavailable},
		"which misses a key":       {&operator.RefusedError{Why: v1alpha1.ReasonKeyMissing, Message: "the tenant's key is gone: restore the backup"}, "Stalled=True/" + v1alpha1.ReasonKeyMissing},
		"which does not obey us":   {&operator.RefusedError{Why: v1alpha1.ReasonForbidden, Message: "not yours to ask"}, "Stalled=True/" + v1alpha1.ReasonForbidden},
		"which answers nonsense 5": {&operator.RefusedError{Why: v1alpha1.ReasonInternal, Message: "internal"}, "KeysReady=False/" + v1alpha1.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			w := operator.NewWorld(t)
			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = tc.err })
			tenant := operator.MakeTenant("waits", "waits-a")
			w.Create(tenant)
			w.Becomes(tenant, tc.reason)
			w.Becomes(tenant, "Ready=False")
			w.Soon("the namespaces are isolated without the keyserver", func() error {
				if err := w.Get(tenant); err != nil || len(tenant.Status.Namespaces) == 1 {
					return err
				}
				return fmt.Errorf("the status names %d", len(tenant.Status.Namespaces))
			})
			w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
			w.Restart() // rather than wait for the next try
			w.Becomes(tenant, "Ready=True")
		})
	}
}

func TestForeignNamespaceIsRefused(t *testing.T) {
	w := operator.NewWorld(t)
	w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Labels: map[string]string{"mine": "true"}}})
	tenant := operator.MakeTenant("greedy", "stranger", "greedy-own", "lethe-system", "kube-system")
	w.Create(tenant)
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.Becomes(tenant, "NamespacesReady=False")
	w.Soon("the Tenant's own namespace does not suffer", func() error { // once Kubernetes has counted what it holds
		if err := w.Get(tenant); err != nil {
			return err
		}
		if len(tenant.Status.Namespaces) != 1 || tenant.Status.Namespaces[0].Name != "greedy-own" {
			return fmt.Errorf("status names %+v", tenant.Status.Namespaces)
		}
		return nil
	})
	stranger := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stranger"}}
	if err := w.Get(stranger); err != nil || len(stranger.Annotations) > 0 || stranger.Labels[v1alpha1.LabelTenant] != "" {
		t.Errorf("the stranger's namespace was touched: %v %v", stranger.ObjectMeta, err)
	}
	bindings := &rbacv1.RoleBindingList{}
	if err := w.Admin.List(context.Background(), bindings, client.InNamespace("stranger")); err != nil || len(bindings.Items) > 0 {
		t.Errorf("bindings in the stranger's namespace: %v %v", bindings.Items, err)
	}

	// Somebody who may do so gives the namespace to the Tenant.
	operator.Edit(w, stranger, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "greedy" })
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceReserved)
	operator.Edit(w, tenant, func(tenant *v1alpha1.Tenant) { tenant.Spec.Namespaces = tenant.Spec.Namespaces[:2] })
	w.Becomes(tenant, "Ready=True")
	if i := slices.IndexFunc(tenant.Status.Namespaces, func(n v1alpha1.TenantNamespaceStatus) bool { return n.Name == "stranger" }); i < 0 ||
		tenant.Status.Namespaces[i].Origin != tenantcontroller.OriginAdopted {
		t.Errorf("status %+v", tenant.Status.Namespaces)
	}

	// An adopted namespace outlives the Tenant, without anything of ours but the label and the standard.
	w.Delete(tenant)
	w.Gone(tenant)
	w.Eventually("left", func() error { return w.IsEmpty("stranger") })
	if err := w.Get(stranger); err != nil || stranger.DeletionTimestamp != nil {
		t.Errorf("the adopted namespace is gone: %v", err)
	}
	operator.Edit(w, stranger, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.Delete(stranger)
	w.Gone(stranger)
}

func TestNamespaceOfAnotherTenantIsRefused(t *testing.T) {
	w := operator.NewWorld(t)
	first, second := operator.MakeTenant("first", "shared"), operator.MakeTenant("second", "shared")
	w.Create(first)
	w.Becomes(first, "Ready=True")
	w.Create(second)
	w.Becomes(second, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.Becomes(first, "Ready=True")
	bot := operator.MakeBot("shared", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	if bot.Status.Tenant != "first" {
		t.Errorf("the bot is taken for one of %s", bot.Status.Tenant)
	}
}

// TestNamespaceMadeAnew: a namespace of the same name is another namespace.
func TestNamespaceMadeAnew(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("anew", "anew-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("anew-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	was := tenant.Status.Namespaces[0].UID

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "anew-a"}}
	w.Delete(namespace)
	w.Gone(bot)
	if !w.Keys.IsRevoked(bot.UID) {
		t.Error("the bot went with its namespace and its keys were not revoked")
	}
	w.Eventually("another namespace", func() error {
		if err := w.IsNow(tenant, "Ready=True"); err != nil {
			return err
		}
		if len(tenant.Status.Namespaces) != 1 || tenant.Status.Namespaces[0].UID == was {
			return fmt.Errorf("status names %+v", tenant.Status.Namespaces)
		}
		return nil
	})
	again := operator.MakeBot("anew-a", "b")
	w.Create(again)
	w.Becomes(again, "Ready=True")
}

func TestNamespaceTakenOffTheList(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("list", "list-a", "list-b")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("list-b", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")

	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceInUse)
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Becomes(bot, "Ready=True") // it goes on being the Tenant's

	w.Delete(bot)
	w.Gone(bot)
	w.Becomes(tenant, "Ready=True")
	w.Eventually("left", func() error { return w.IsEmpty("list-b") })
	if len(tenant.Status.Namespaces) != 1 {
		t.Errorf("status names %+v", tenant.Status.Namespaces)
	}
	late := operator.MakeBot("list-b", "late")
	w.Create(late)
	w.Becomes(late, "Stalled=True/"+v1alpha1.ReasonNoTenant)

	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Namespaces = append(t.Spec.Namespaces, v1alpha1.TenantNamespace{Name: "list-b"})
	})
	w.Becomes(late, "Ready=True")
}

// TestNamespaceTakenOffTheListWhileABotEnds: the Tenant says already that it is in no use, and is still woken when
// the bot is really gone.
func TestNamespaceTakenOffTheListWhileABotEnds(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("ending", "ending-a", "ending-b")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("ending-b", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = append(b.Finalizers, "example.com/wait") })
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceInUse)
	w.Delete(bot)
	w.Becomes(tenant, "InUse=False")
	w.Calm()
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) {
		b.Finalizers = slices.DeleteFunc(b.Finalizers, func(f string) bool { return f == "example.com/wait" })
	})
	w.Gone(bot)
	w.Becomes(tenant, "Ready=True")
}

func TestTenantInUseCannotBeDeleted(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("busy", "busy-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("busy-a", "b")
	w.Create(bot)
	w.Becomes(tenant, "InUse=True")
	err := w.Cluster.Delete(context.Background(), tenant.DeepCopy())
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		t.Fatalf("deleting a Tenant with a bot: %v", err)
	}
	w.Delete(bot)
	w.Gone(bot)
	w.Becomes(tenant, "InUse=False")
	w.Delete(tenant)
	w.Gone(tenant)
	w.Gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "busy-a"}})
	if !w.Keys.IsRevoked(tenant.UID) {
		t.Error("the Tenant's keys were not revoked")
	}
}

// TestTenantDeletedWithABotInIt: where admission could not know of a bot, no key is destroyed before somebody has
// looked: the deletion waits, says so, and ends once the bot is gone.
func TestTenantDeletedWithABotInIt(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("race", "race-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Stop()
	bot := operator.MakeBot("race-a", "b")
	w.Create(bot) // nobody has noticed yet
	w.Delete(tenant)
	w.Start(&operator.Wire{})
	w.Eventually("it says what it waits for", func() error { return w.Says(tenant, "race-a") })
	w.Calm()
	if w.Keys.IsRevoked(tenant.UID) {
		t.Error("keys were destroyed although a bot exists")
	}
	if w.Replicas(bot) > 0 {
		t.Error("a bot of a Tenant that is being deleted was started")
	}
	w.Delete(bot)
	w.Gone(bot)
	w.Gone(tenant)
	if !w.Keys.IsRevoked(tenant.UID) {
		t.Error("keys outlived the Tenant")
	}
	w.Gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "race-a"}})
}

func TestDeletionWaitsForTheKeyserver(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("stuck", "stuck-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("connection refused") })
	w.Delete(tenant)
	w.Becomes(tenant, "Reconciling=True/Deleting")
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stuck-a"}}
	if err := w.Get(namespace); err != nil || namespace.DeletionTimestamp != nil {
		t.Errorf("the namespace went before the keys were revoked: %v", err)
	}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
	w.Restart()
	w.Gone(tenant)
}

// TestExternalIDClaimedTwice: whoever claims an identifier that another Tenant has is Stalled, be it the younger
// Tenant or the older one; the one that had it stays Ready and says so once; taking the second claim away heals both.
func TestExternalIDClaimedTwice(t *testing.T) {
	for name, tc := range map[string]struct{ holder, later string }{"the older has it": {"claim-a", "claim-b"}, "the younger has it": {"claim-d", "claim-c"}} {
		t.Run(name, func(t *testing.T) {
			w := operator.NewWorld(t)
			tenants := map[string]*v1alpha1.Tenant{}
			for _, each := range slices.Sorted(slices.Values([]string{tc.holder, tc.later})) { // the older comes first
				tenants[each] = operator.MakeTenant(each, each)
				if each == tc.holder {
					tenants[each].Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}}
				}
				w.Create(tenants[each])
				w.Becomes(tenants[each], "Ready=True")
			}
			holder, later := tenants[tc.holder], tenants[tc.later]
			operator.Edit(w, later, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}} })
			w.Becomes(later, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
			w.OneEvent(holder, v1alpha1.ReasonExternalIDContested)
			contested := func(want bool) {
				t.Helper()
				w.Eventually("what the holder says", func() error {
					if err := w.Get(holder); err != nil {
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
			w.Restart()
			operator.Edit(w, holder, func(t *v1alpha1.Tenant) { t.Spec.State = v1alpha1.TenantSuspended })
			w.Eventually("the new spec was looked at", func() error {
				if err := w.Get(holder); err != nil || holder.Status.ObservedGeneration != holder.Generation {
					return fmt.Errorf("generation %d of %d: %w", holder.Status.ObservedGeneration, holder.Generation, err)
				}
				return nil
			})
			contested(true)
			w.Becomes(later, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
			operator.Edit(w, later, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs[0].Value = "43" })
			w.Becomes(later, "Ready=True")
			contested(false)
		})
	}
}

// TestExternalIDPassesOn: when the first lets go of an identifier, the second has it.
func TestExternalIDPassesOn(t *testing.T) {
	w := operator.NewWorld(t)
	first, second := operator.MakeTenant("pass-a", "pass-a"), operator.MakeTenant("pass-b", "pass-b")
	id := []v1alpha1.ExternalID{{Type: "AccountID", Value: "77"}}
	first.Spec.ExternalIDs, second.Spec.ExternalIDs = id, id
	w.Create(first)
	w.Becomes(first, "Ready=True")
	w.Create(second)
	w.Becomes(second, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
	operator.Edit(w, first, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = nil })
	w.Becomes(second, "Ready=True")
	operator.Edit(w, first, func(t *v1alpha1.Tenant) { t.Spec.ExternalIDs = id })
	w.Becomes(first, "Stalled=True/"+v1alpha1.ReasonExternalIDTaken)
	w.Becomes(second, "Ready=True")
}

func TestForeignChildIsRefused(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("foreign", "foreign-a")
	w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign-a", Labels: map[string]string{v1alpha1.LabelTenant: "foreign"}}})
	stranger := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "foreign-a", Name: resources.LimitRangeName}}
	w.Create(stranger, tenant)
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNameTaken)
	version := stranger.ResourceVersion
	if err := w.Get(stranger); err != nil || stranger.ResourceVersion != version {
		t.Errorf("the stranger's LimitRange was touched: %v", err)
	}
	w.OneEvent(tenant, v1alpha1.ReasonNameTaken)
	w.Delete(stranger)
	w.Restart() // rather than wait for the next look
	w.Becomes(tenant, "Ready=True")
	w.Delete(tenant)
	w.Gone(tenant)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign-a"}}
	operator.Edit(w, namespace, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.Delete(namespace)
	w.Gone(namespace)
}
