package bulk_test

import (
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

// wallsOf are the walls of one of many tenants, as the API server would have them, and one bot of it.
func wallsOf(i int) []client.Object {
	name := fmt.Sprintf("tenant-%04d", i)
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)}}
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionNamespacesReady, v1alpha1.ConditionIsolationReady, v1alpha1.ConditionKeysReady} {
		tenant.Status.Conditions = append(tenant.Status.Conditions, metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady,
			Message: "Every namespace is the tenant's and isolated."})
	}
	settings := resources.DefaultSettings()
	out := []client.Object{tenant, resources.TenantLimitRange(tenant, name)}
	for _, quota := range resources.TenantResourceQuotas(tenant, name) {
		quota.Status.Hard, quota.Status.Used = quota.Spec.Hard.DeepCopy(), corev1.ResourceList{}
		for resourceName := range quota.Spec.Hard {
			quota.Status.Used[resourceName] = *resource.NewQuantity(int64(i%50), resource.DecimalSI)
		}
		out = append(out, quota)
	}
	for _, policy := range resources.TenantNetworkPolicies(settings, tenant, name) {
		out = append(out, policy)
	}
	for _, binding := range resources.TenantRoleBindings(settings, tenant, name) {
		out = append(out, binding)
	}
	bot := makeBot(nil)
	bot.Namespace, bot.Name, bot.UID = name, fmt.Sprintf("bot-%04d", i), types.UID("uid-of-bot-"+name)
	return append(out, bot, resources.BotStatefulSet(settings, bot, tenant, "bot-cred-0123456789"), resources.BotNetworkPolicy(settings, bot, tenant),
		resources.BotServiceAccount(bot))
}

// TestSharingChangesNothing: what a builder would find different is different, and nothing else.
func TestSharingChangesNothing(t *testing.T) {
	sharer := &bulk.Sharer{}
	for i := range 3 {
		for _, object := range wallsOf(i) {
			small := stripped(t, object)
			shared := stripped(t, object)
			sharer.Share(shared)
			sharer.Share(shared) // a first list may be shown twice
			if path := kube.Drift(small, shared); path != "" {
				t.Errorf("a %T that shares differs in %s", object, path)
			}
			if small.GetNamespace() != shared.GetNamespace() || !bulk.IsStripped(shared) {
				t.Errorf("metadata of a %T: %+v", object, shared)
			}
		}
	}
	for what, change := range map[string]func(*appsv1.StatefulSet){
		"an image":      func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "evil" },
		"a variable":    func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Env[0].Value = "evil" },
		"a volume":      func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Volumes[0].Name = "evil" },
		"a label":       func(s *appsv1.StatefulSet) { s.Spec.Template.Labels["evil"] = "" },
		"an owner":      func(s *appsv1.StatefulSet) { s.OwnerReferences[0].UID = "evil" },
		"another order": func(s *appsv1.StatefulSet) { c := s.Spec.Template.Spec.Containers[0].Env; c[0], c[1] = c[1], c[0] },
	} {
		set := render(makeBot(nil))
		wanted := stripped(t, set)
		change(set)
		changed := stripped(t, set)
		sharer.Share(wanted)
		sharer.Share(changed)
		if kube.Drift(wanted, changed) == "" {
			t.Errorf("%s was changed, and nothing differs", what)
		}
	}
}

// TestUsedIsKeptWhereItIsRead: a bot without room is told so by how much of the quota for pods is used. Of the other
// quotas it counts that something was counted.
func TestUsedIsKeptWhereItIsRead(t *testing.T) {
	sharer := &bulk.Sharer{}
	for _, i := range []int{7, 8} {
		for _, object := range wallsOf(i) {
			quota, ok := object.(*corev1.ResourceQuota)
			if !ok {
				continue
			}
			sharer.Share(quota)
			for name := range quota.Spec.Hard {
				used, counted := quota.Status.Used[name]
				if want := int64(i); !counted || quota.Name == resources.QuotaName && used.Value() != want {
					t.Errorf("%s has %s of %s used, counted: %t", quota.Name, &used, name, counted)
				}
			}
		}
	}
}

// TestWhatIsTheSameIsThereOnce: of walls that differ in names only most is shared.
func TestWhatIsTheSameIsThereOnce(t *testing.T) {
	sharer := &bulk.Sharer{}
	take := func(i int) (policies []*networkingv1.NetworkPolicy, quotas []*corev1.ResourceQuota, sets []*appsv1.StatefulSet) {
		for _, object := range wallsOf(i) {
			small := stripped(t, object)
			sharer.Share(small)
			switch o := small.(type) {
			case *networkingv1.NetworkPolicy:
				policies = append(policies, o)
			case *corev1.ResourceQuota:
				quotas = append(quotas, o)
			case *appsv1.StatefulSet:
				sets = append(sets, o)
			}
		}
		return policies, quotas, sets
	}
	policiesA, quotasA, setsA := take(1)
	policiesB, quotasB, setsB := take(2)
	for i := range policiesA {
		if a, b := policiesA[i].Spec.Egress, policiesB[i].Spec.Egress; len(a) > 0 && len(b) > 0 && &a[0] != &b[0] {
			t.Errorf("the way out of NetworkPolicy %s is there twice", policiesA[i].Name)
		}
	}
	same := func(a, b corev1.ResourceList) bool {
		return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
	}
	for i := range quotasA {
		if a, b := quotasA[i], quotasB[i]; !same(a.Spec.Hard, b.Spec.Hard) || !same(a.Status.Hard, b.Status.Hard) ||
			a.Name != resources.QuotaName && !same(a.Status.Used, b.Status.Used) {
			t.Errorf("the amounts of ResourceQuota %s are there twice", a.Name)
		}
	}
	for i := range setsA {
		if a, b := setsA[i].Spec.Template.Spec, setsB[i].Spec.Template.Spec; &a.InitContainers[0] != &b.InitContainers[0] || &a.Volumes[0] != &b.Volumes[0] {
			t.Error("the volumes or the first container of two bots are there twice")
		}
	}
	// What nobody else has is not remembered for ever, be it large or small.
	before := heap()
	for i := range 60000 {
		sharer.Share(&v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"lethe.dev/a": strconv.Itoa(i)}}})
	}
	if grown := heap() - before; grown > 3<<20 {
		t.Errorf("%d bytes of small parts are remembered", grown)
	}
	for i := range 4000 {
		policy := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}}}
		for j := range 40 {
			policy.Spec.Egress[0].To = append(policy.Spec.Egress[0].To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/%d", i/256, i%256, j)}})
		}
		sharer.Share(policy)
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d bytes are remembered", grown)
	}
	runtime.KeepAlive(sharer)
}

// TestHeapPerTenant: what a tenant with one bot takes of the manager's cache, apart from the indexes.
func TestHeapPerTenant(t *testing.T) {
	const tenants, most = 200, 22 << 10
	sharer := &bulk.Sharer{}
	kept := make([]client.Object, 0, tenants*20)
	before := heap()
	for i := range tenants {
		for _, object := range wallsOf(i) {
			bulk.Strip(object)
			sharer.Share(object)
			kept = append(kept, object)
		}
	}
	each := (heap() - before) / tenants
	runtime.KeepAlive(kept)
	runtime.KeepAlive(sharer)
	t.Logf("a tenant with one bot takes %d bytes", each)
	if each > most {
		t.Errorf("a tenant with one bot takes %d bytes of the cache, want at most %d", each, most)
	}
}
