package walls

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// try runs attempts with the rights that are really shipped: whether a role or a policy refuses does not matter.
func try(t *testing.T, attempts []attempt) {
	t.Helper()
	if prepared != nil {
		t.Fatal(prepared)
	}
	for _, tc := range attempts {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.try(t.Context(), tc.as)
			switch {
			case tc.denied && !apierrors.IsForbidden(err):
				t.Errorf("want 403, got: %v", err)
			case !tc.denied && err != nil && !apierrors.IsNotFound(err):
				t.Errorf("want it allowed, got: %v", err)
			}
		})
	}
}

func get(o client.Object, ns, name string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, o.DeepCopyObject().(client.Object))
	}
}

func list(l client.ObjectList, ns string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.List(ctx, l.DeepCopyObject().(client.ObjectList), client.InNamespace(ns))
	}
}

func TestManagersRights(t *testing.T) {
	manager := as(managerUser, "system:serviceaccounts", "system:serviceaccounts:lethe-system")
	self := serviceAccount("lethe-system", "lethe-manager")
	attempts := []attempt{
		{name: "list all Secrets", as: manager, denied: true, try: list(&corev1.SecretList{}, "")},
		{name: "a pod in kube-system", as: manager, denied: true, try: create(runnable("p", "kube-system"))},
		{name: "a pod in a tenant's namespace", as: manager, denied: true, try: create(runnable("p", tenantNS))},
		{name: "a StatefulSet outside tenants", as: manager, denied: true, try: create(statefulSet("s", otherNS))},
		{name: "a StatefulSet in its own namespace", as: manager, denied: true, try: create(statefulSet("s", "lethe-system"))},
		{name: "a RoleBinding outside tenants", as: manager, denied: true, try: create(binding(otherNS, "b", "lethe-manager-tenant", self))},
		{name: "a RoleBinding to another role", as: manager, denied: true, try: create(binding(tenantNS, "b", "cluster-admin", self))},
		{name: "a ClusterRoleBinding", as: manager, denied: true, try: create(bindCluster("b"))},
		{name: "a wider role", as: manager, denied: true, try: patchOf(role("lethe-manager"), `{"rules":[]}`)},
		{name: "a token of a bot", as: manager, denied: true, try: func(ctx context.Context, c identity) error {
			return requestToken(ctx, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "probe"}})
		}},
		{name: "a namespace that is no tenant's", as: manager, denied: true, try: remove(namespace(otherNS, nil))},
		{name: "a sweep's lease", as: manager, denied: true, try: get(&coordinationv1.Lease{}, "lethe-keys", "x")},

		{name: "a StatefulSet in a tenant's namespace", as: manager, try: create(statefulSet("s", tenantNS))},
		{name: "its RoleBinding in a tenant's namespace", as: manager, try: create(binding(tenantNS, "b", "lethe-manager-tenant", self))},
		{name: "the tenants", as: manager, try: list(&lethev1.TenantList{}, "")},
	}
	for _, ns := range []string{"lethe-keys", "lethe-system", "kube-system", tenantNS, otherNS} {
		attempts = append(attempts,
			attempt{name: "read a Secret in " + ns, as: manager, denied: true, try: get(&corev1.Secret{}, ns, "x")},
			attempt{name: "list Secrets in " + ns, as: manager, denied: true, try: list(&corev1.SecretList{}, ns)},
			attempt{name: "write a Secret in " + ns, as: manager, denied: true, try: create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}})})
	}
	try(t, attempts)
}

func TestKeyserversRights(t *testing.T) {
	keyserver := as(keyserverUser, "system:serviceaccounts", "system:serviceaccounts:lethe-system")
	secret := func(ns string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}}
	}
	try(t, []attempt{
		{name: "read a Secret of a tenant", as: keyserver, try: get(&corev1.Secret{}, tenantNS, "x")},
		{name: "write a Secret of a tenant", as: keyserver, try: create(secret(tenantNS))},
		{name: "read a wrapped key", as: keyserver, try: get(&corev1.Secret{}, "lethe-keys", "x")},
		{name: "read a Secret elsewhere", as: keyserver, denied: true, try: get(&corev1.Secret{}, otherNS, "x")},
		{name: "write a Secret elsewhere", as: keyserver, denied: true, try: create(secret("kube-system"))},
		{name: "list all Secrets", as: keyserver, denied: true, try: list(&corev1.SecretList{}, "")},
		{name: "list the Secrets of a tenant", as: keyserver, denied: true, try: list(&corev1.SecretList{}, tenantNS)},
		{name: "a pod of a tenant", as: keyserver, denied: true, try: create(runnable("p", tenantNS))},
		{name: "a StatefulSet of a tenant", as: keyserver, denied: true, try: create(statefulSet("s", tenantNS))},
	})
}

func TestTenantsUsersRights(t *testing.T) {
	operator, viewer := as("ann", groupOperate), as("vic", groupView)
	bot := &lethev1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "b"}, Spec: lethev1.BotDeploymentSpec{Image: "bot:1"}}
	elsewhere := bot.DeepCopy()
	elsewhere.Namespace = otherNS
	store := &lethev1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "s"}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "probe"}}
	attempts := []attempt{
		{name: "operate: a bot", as: operator, try: create(bot)},
		{name: "operate: a pod's log", as: operator, try: func(ctx context.Context, c identity) error { return connect(ctx, c, tenantNS, "absent", "log") }},
		{name: "operate: the stores", as: operator, try: list(&lethev1.DataStoreList{}, tenantNS)},
		{name: "view: the bots", as: viewer, try: list(&lethev1.BotDeploymentList{}, tenantNS)},
		{name: "view: the pods", as: viewer, try: list(&corev1.PodList{}, tenantNS)},

		{name: "operate: a bot elsewhere", as: operator, denied: true, try: create(elsewhere)},
		{name: "view: a bot", as: viewer, denied: true, try: create(bot)},
		{name: "view: a pod's log", as: viewer, denied: true, try: func(ctx context.Context, c identity) error { return connect(ctx, c, tenantNS, "absent", "log") }},
	}
	for name, who := range map[string]identity{"operate": operator, "view": viewer} {
		attempts = append(attempts,
			attempt{name: name + ": a pod", as: who, denied: true, try: create(runnable("p", tenantNS))},
			attempt{name: name + ": a pod's token", as: who, denied: true, try: func(ctx context.Context, c identity) error { return requestToken(ctx, c, account) }},
			attempt{name: name + ": a store", as: who, denied: true, try: create(store)},
			attempt{name: name + ": a change of a store", as: who, denied: true, try: patchOf(store, `{"spec":{"approvedPlan":null}}`)},
			attempt{name: name + ": the protected label", as: who, denied: true, try: patchOf(namespace(tenantNS, nil), `{"metadata":{"labels":{"lethe.dev/tenant":"globex"}}}`)},
			attempt{name: name + ": a Secret", as: who, denied: true, try: get(&corev1.Secret{}, tenantNS, "x")},
			attempt{name: name + ": a ConfigMap", as: who, denied: true, try: create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "x"}})},
			attempt{name: name + ": a command in a pod", as: who, denied: true, try: func(ctx context.Context, c identity) error { return connect(ctx, c, tenantNS, "absent", "exec") }},
			attempt{name: name + ": a RoleBinding", as: who, denied: true, try: create(binding(tenantNS, "x", "lethe-tenant-view", group("x")))},
			attempt{name: name + ": a status", as: who, denied: true, try: patchStatusOf(bot, `{"status":{"tenant":"globex"}}`)},
			attempt{name: name + ": the tenants", as: who, denied: true, try: list(&lethev1.TenantList{}, "")})
	}
	try(t, attempts)
}

// TestRolesHoldNothingThatLeadsFurther reads the roles as shipped: the verbs and resources by which one right becomes
// another.
func TestRolesHoldNothingThatLeadsFurther(t *testing.T) {
	var roles []namedRules
	var clusterRoles rbacv1.ClusterRoleList
	var namespaced rbacv1.RoleList
	if err := errors.Join(admin.List(t.Context(), &clusterRoles), admin.List(t.Context(), &namespaced)); err != nil {
		t.Fatal(err)
	}
	for _, r := range clusterRoles.Items {
		roles = append(roles, namedRules{r.Name, r.Rules})
	}
	for _, r := range namespaced.Items {
		roles = append(roles, namedRules{r.Namespace + "/" + r.Name, r.Rules})
	}
	seen := 0
	for _, r := range roles {
		if !strings.Contains(r.name, "lethe-") {
			continue
		}
		seen++
		for _, rule := range r.rules {
			checkRule(t, r.name, rule)
		}
	}
	if seen != 14 {
		t.Errorf("%d roles of ours, want 14", seen)
	}
}

type namedRules struct {
	name  string
	rules []rbacv1.PolicyRule
}

func checkRule(t *testing.T, name string, rule rbacv1.PolicyRule) {
	t.Helper()
	for _, verb := range []string{"*", "escalate", "impersonate", "deletecollection", "approve", "sign"} {
		if slices.Contains(rule.Verbs, verb) {
			t.Errorf("%s holds the verb %s", name, verb)
		}
	}
	if slices.Contains(rule.Verbs, "bind") && len(rule.ResourceNames) == 0 {
		t.Errorf("%s may bind any role", name)
	}
	for _, resource := range rule.Resources {
		switch resource {
		case "nodes":
			// A node is read where a pod is not ready and the node has not been heard of.
			if name != "lethe-manager" || !slices.Equal(rule.Verbs, []string{"get"}) {
				t.Errorf("%s holds %v on nodes", name, rule.Verbs)
			}
		case "*", "pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers", "serviceaccounts/token", "nodes/proxy",
			"persistentvolumes", "validatingadmissionpolicies", "mutatingwebhookconfigurations", "validatingwebhookconfigurations":
			t.Errorf("%s holds %s", name, resource)
		case "secrets":
			if !strings.Contains(name, "lethe-keyserver") {
				t.Errorf("%s holds a verb on Secrets", name)
			}
			if name == "lethe-keyserver" {
				t.Errorf("%s holds a verb on Secrets in the whole cluster", name)
			}
		}
	}
}
