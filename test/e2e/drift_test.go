package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/stage"
)

// handmade is one change by a foreign hand, and whether it stands.
type handmade struct {
	object client.Object
	change func()
	stands func() bool
}

// drift: every child that a hand has changed is put right, one that lost Lethe's label is found again, and one that was
// deleted comes back.
func drift(t *testing.T, w *world) {
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support"}}
	acme := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "e2e-acme", Name: name} }
	policy := &networkingv1.NetworkPolicy{ObjectMeta: acme("lethe-default-deny")}
	quota := &corev1.ResourceQuota{ObjectMeta: acme("lethe")}
	limits := &corev1.LimitRange{ObjectMeta: acme("lethe")}
	binding := &rbacv1.RoleBinding{ObjectMeta: acme("lethe-operate")}
	account := &corev1.ServiceAccount{ObjectMeta: acme("support-bot")}
	set := &appsv1.StatefulSet{ObjectMeta: acme("support-bot")}
	cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-platform", Name: "forgets-sweep"}}
	ca := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: stage.SystemNamespace, Name: "lethe-keyserver-ca"}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "e2e-acme"}}
	for what, h := range map[string]handmade{
		"a NetworkPolicy": {policy, func() { policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}} }, func() bool { return len(policy.Spec.Egress) > 0 }},
		"a ResourceQuota": {quota, func() { quota.Spec.Hard[corev1.ResourcePods] = resource.MustParse("9999") }, func() bool { return quota.Spec.Hard.Pods().Value() == 9999 }},
		"a LimitRange": {limits, func() { limits.Spec.Limits[0].Default[corev1.ResourceMemory] = resource.MustParse("17Gi") }, func() bool {
			return limits.Spec.Limits[0].Default.Memory().Equal(resource.MustParse("17Gi"))
		}},
		"a RoleBinding": {binding, func() { binding.Subjects[0].Name = "somebody-else" }, func() bool { return binding.Subjects[0].Name == "somebody-else" }},
		// Nobody else can write the tenants' copies; this is where they come from, and the manager copies it at once.
		"the keyserver's CA": {ca, func() { ca.Data["ca.crt"] = "forged" }, func() bool { return ca.Data["ca.crt"] == "forged" }},
		"a ServiceAccount":   {account, func() { account.AutomountServiceAccountToken = ptr.To(true) }, func() bool { return *account.AutomountServiceAccountToken }},
		"a StatefulSet":      {set, func() { set.Spec.Replicas = ptr.To[int32](2) }, func() bool { return *set.Spec.Replicas == 2 }},
		"a CronJob":          {cron, func() { cron.Spec.Suspend = ptr.To(true) }, func() bool { return cron.Spec.Suspend != nil && *cron.Spec.Suspend }},
		"the Pod Security of a namespace": {namespace, func() { namespace.Labels["pod-security.kubernetes.io/enforce"] = "privileged" }, func() bool {
			return namespace.Labels["pod-security.kubernetes.io/enforce"] == "privileged"
		}},
	} {
		t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) { w.handChanges(t, what, h) })
	}
	for what, o := range map[string]client.Object{
		"a NetworkPolicy": policy, "a ResourceQuota": quota, "a LimitRange": limits, "a RoleBinding": binding,
		"a plan": w.plan(t, "forgets"), "a ServiceAccount": account, "a StatefulSet": set, "a CronJob": cron,
	} {
		t.Run(strings.ReplaceAll(what, " ", "_")+"_that_lost_its_label", func(t *testing.T) {
			w.handChanges(t, what+" that lost its label", handmade{o,
				func() {
					labels := o.GetLabels()
					delete(labels, v1alpha1.LabelManagedBy)
					o.SetLabels(labels)
				},
				func() bool { return o.GetLabels()[v1alpha1.LabelManagedBy] == "" },
			})
		})
	}
	was := policy.UID
	if err := w.hand(t).Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "see a NetworkPolicy that was deleted again", func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(policy), policy)
		if policy.UID == was {
			return "it is not there", err
		}
		return "", err
	})
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, 5_000_001, "still there after all that?")
}

// plan is the ConfigMap of a store's plan in force. Older ones are still there for a while.
func (w *world) plan(t *testing.T, name string) *corev1.ConfigMap {
	t.Helper()
	store, c := &v1alpha1.DataStore{}, &corev1.ConfigMap{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: "e2e-platform", Name: name}, store); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: store.Namespace, Name: resources.PlanName(name, store.Status.Plan.Hash)}, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// handChanges lets a foreign hand change an object, and wants the change undone without the object being made anew.
func (w *world) handChanges(t *testing.T, what string, h handmade) {
	t.Helper()
	change(t, w.hand(t), h.object, func(client.Object) { h.change() })
	was := h.object.GetUID()
	until(t, 2*time.Minute, "repair "+what, func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(h.object), h.object); err != nil {
			return "", err
		}
		if h.stands() {
			return "it is as the hand left it", nil
		}
		return "", nil
	})
	if h.object.GetUID() != was {
		t.Errorf("%s was made anew instead of being put right", what)
	}
}

// takenOff: a namespace that is no longer the tenant's keeps nothing that gives or takes rights in its name.
func takenOff(t *testing.T, w *world) {
	tenant := w.tenant(t, "e2e-moving", func(s *v1alpha1.TenantSpec) {
		s.Namespaces = append(s.Namespaces, v1alpha1.TenantNamespace{Name: "e2e-moving-two"})
	})
	change(t, w.client, tenant, func(o *v1alpha1.Tenant) { o.Spec.Namespaces = o.Spec.Namespaces[:1] })
	until(t, time.Minute, "see the namespace let go", func(ctx context.Context) (string, error) {
		var bindings rbacv1.RoleBindingList
		err := w.client.List(ctx, &bindings, client.InNamespace("e2e-moving-two"))
		if n := len(bindings.Items); n > 0 {
			return fmt.Sprintf("%d RoleBindings, the first is %s", n, bindings.Items[0].Name), err
		}
		return "", err
	})
	w.awaitReady(t, tenant, time.Minute)
	forbidden(t, "the keyserver reads a Secret in a namespace that was taken off", w.serviceAccount(t, stage.SystemNamespace, "lethe-keyserver").
		Get(t.Context(), client.ObjectKey{Namespace: "e2e-moving-two", Name: "any"}, &corev1.Secret{}))
}
