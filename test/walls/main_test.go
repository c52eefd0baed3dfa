// Package walls tries to climb the admission policies and roles that Lethe ships, as each identity that could want to,
// against a real kube-apiserver. Each refusal stands beside an allowed twin, so that a wall that refuses everything
// fails too.
package walls

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/env"
)

const (
	managerUser   = "system:serviceaccount:lethe-system:lethe-manager"
	keyserverUser = "system:serviceaccount:lethe-system:lethe-keyserver"
	tenant        = "acme"
	tenantNS      = "acme-bots"
	otherNS       = "plain"

	// groupMost may do everything but use the verbs of lethe.dev: with it, only admission stands in the way.
	groupMost = "walls:most"
	// groupOperate and groupView have the roles that a Tenant's spec.access gives.
	groupOperate = "acme:operators"
	groupView    = "acme:viewers"
	// groupAdopt, groupDebug and groupNetwork have one verb on the tenant acme.
	groupAdopt = "walls:adopt-acme"
	groupDebug = "walls:debug-acme"
	// groupAdoptAll has the verb adopt on every tenant.
	groupAdoptAll = "walls:adopt-all"
	groupNetwork  = "walls:network-acme"
	// groupNamespaces may write namespaces, and nothing else.
	groupNamespaces = "walls:namespaces"
)

var (
	server *env.Env
	admin  identity
	// prepared is why the tests cannot begin, if they cannot.
	prepared error
)

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, func(e *env.Env) {
		server, admin = e, identity{Client: e.Client, config: e.Config}
		if prepared = e.InstallBotFinalizer(context.Background()); prepared == nil {
			prepared = prepare()
		}
	}))
}

// prepare makes one tenant with a namespace, and the identities of the tests.
func prepare() error {
	ctx := context.Background()
	objects := []client.Object{
		namespace(otherNS, nil), namespace(tenantNS, map[string]string{lethev1.LabelTenant: tenant}),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "default"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: otherNS, Name: "b-bot"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: otherNS, Name: "default"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "default"}},
		role(groupMost,
			rbacv1.PolicyRule{APIGroups: []string{"", "apps", "batch", "cilium.io", "discovery.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
			rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "create", "update", "patch", "delete"}}),
		role(groupAdopt, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, ResourceNames: []string{tenant}, Verbs: []string{"adopt"}}),
		role(groupDebug, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, ResourceNames: []string{tenant}, Verbs: []string{"debug"}}),
		role(groupNetwork, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, ResourceNames: []string{tenant}, Verbs: []string{"network"}}),
		role(groupAdoptAll, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, Verbs: []string{"adopt"}}),
		role(groupNamespaces, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces", "namespaces/status"}, Verbs: []string{"*"}}),
		bindCluster(groupNamespaces), bindCluster(groupAdoptAll), bindCluster(groupMost), bindCluster(groupAdopt), bindCluster(groupDebug), bindCluster(groupNetwork),
		binding(tenantNS, "lethe-manager", "lethe-manager-tenant", serviceAccount("lethe-system", "lethe-manager")),
		binding(tenantNS, "lethe-keyserver", "lethe-keyserver-tenant", serviceAccount("lethe-system", "lethe-keyserver")),
		binding(tenantNS, "lethe-operate", "lethe-tenant-operate", group(groupOperate)),
		binding(tenantNS, "lethe-view", "lethe-tenant-view", group(groupView)),
	}
	for _, o := range objects {
		if err := admin.Create(ctx, o); err != nil {
			return fmt.Errorf("create %s: %w", o.GetName(), err)
		}
	}
	// Accounts of bots are nobody's to make but the manager's, and a controller's of Kubernetes here.
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "b-bot"}, AutomountServiceAccountToken: new(false)}
	if err := cluster().Create(ctx, account); err != nil {
		return err
	}
	return waitForPolicies(ctx)
}

// cluster is one of Kubernetes' own controllers.
func cluster() identity { return as("system:kube-controller-manager", "system:masters") }

// waitForPolicies waits until the API server enforces the policies: it compiles them in the background. The binding of
// the last one that was created is the last one that it sees.
func waitForPolicies(ctx context.Context) error {
	probe := namespace("probe", map[string]string{lethev1.LabelTenant: "nobody"})
	pod := runnable("probe", tenantNS)
	token := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: tenantNS}}
	if err := admin.Create(ctx, token); err != nil {
		return err
	}
	most := as("walls:probe", groupMost)
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(most.Create(ctx, probe.DeepCopy(), client.DryRunAll)) &&
			apierrors.IsForbidden(most.Create(ctx, pod.DeepCopy(), client.DryRunAll)) &&
			apierrors.IsForbidden(requestToken(ctx, most, token)) &&
			apierrors.IsForbidden(as(managerUser, groupMost).Create(ctx,
				binding(otherNS, "probe", "view", group("x")), client.DryRunAll)), nil
	})
}

// as acts as a user with groups, as the API server's authentication would name them.
func as(user string, groups ...string) identity {
	config := server.ConfigFor(user, groups...)
	impersonated, err := client.New(config, client.Options{Scheme: server.Scheme, Mapper: admin.RESTMapper()})
	if err != nil {
		panic(err)
	}
	return identity{Client: impersonated, config: config}
}

// identity is a client together with what it was made of, for calls that a client does not offer.
type identity struct {
	client.Client
	config *rest.Config
}

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func role(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

// bindCluster gives the group the ClusterRole of its own name.
func bindCluster(name string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{group(name)},
	}
}

func binding(ns, name, roleName string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: roleName},
		Subjects:   subjects,
	}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: name}
}

func serviceAccount(ns, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: name}
}
