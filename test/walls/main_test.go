// Package walls tries to climb the admission policies and roles that Lethe ships, as each identity that could want to,
// against a real kube-apiserver. Each refusal stands beside an allowed twin, so that a wall that refuses everything
// fails too.
package walls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
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
	// groupAdopt and groupDebug have groupMost's rights through it, and one verb on the tenant acme.
	groupAdopt = "walls:adopt-acme"
	groupDebug = "walls:debug-acme"
)

var (
	config *rest.Config
	scheme = runtime.NewScheme()
	admin  identity
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	var err error
	if config, err = environment.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "start kube-apiserver:", err)
		return 1
	}
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
	} else {
		code = m.Run()
	}
	if err := environment.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop kube-apiserver:", err)
		return 1
	}
	return code
}

// prepare installs the roles and policies as shipped, one tenant with a namespace, and the identities of the tests.
func prepare() error {
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), lethev1.AddToScheme(scheme)); err != nil {
		return err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	admin = identity{Client: c, config: config}
	ctx := context.Background()
	objects := []client.Object{
		namespace("lethe-system", nil), namespace("lethe-keys", nil), namespace(otherNS, nil),
		namespace(tenantNS, map[string]string{lethev1.LabelTenant: tenant}),
		role(groupMost,
			rbacv1.PolicyRule{APIGroups: []string{"", "apps", "batch", "rbac.authorization.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
			rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "create", "update", "patch", "delete"}}),
		role(groupAdopt, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, ResourceNames: []string{tenant}, Verbs: []string{"adopt"}}),
		role(groupDebug, rbacv1.PolicyRule{APIGroups: []string{"lethe.dev"}, Resources: []string{"tenants"}, ResourceNames: []string{tenant}, Verbs: []string{"debug"}}),
		bindCluster(groupMost), bindCluster(groupAdopt), bindCluster(groupDebug),
	}
	for _, o := range objects {
		if err := admin.Create(ctx, o); err != nil {
			return fmt.Errorf("create %s: %w", o.GetName(), err)
		}
	}
	for _, folder := range []string{"rbac", "admission"} {
		if err := install(ctx, filepath.Join("..", "..", "config", folder)); err != nil {
			return err
		}
	}
	for _, b := range []*rbacv1.RoleBinding{
		binding(tenantNS, "lethe-manager", "lethe-manager-tenant", serviceAccount("lethe-system", "lethe-manager")),
		binding(tenantNS, "lethe-keyserver", "lethe-keyserver-tenant", serviceAccount("lethe-system", "lethe-keyserver")),
		binding(tenantNS, "lethe-operate", "lethe-tenant-operate", group(groupOperate)),
		binding(tenantNS, "lethe-view", "lethe-tenant-view", group(groupView)),
	} {
		if err := admin.Create(ctx, b); err != nil {
			return err
		}
	}
	return waitForPolicies(ctx)
}

// install creates every object of the YAML files in a folder.
func install(ctx context.Context, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
		for {
			var u unstructured.Unstructured
			if err := decoder.Decode(&u.Object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if u.Object == nil {
				continue
			}
			if err := admin.Create(ctx, &u); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return nil
}

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

// as is a client that impersonates a user with groups, as the API server's authentication would name them.
func as(user string, groups ...string) identity {
	c := rest.CopyConfig(config)
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append([]string{"system:authenticated"}, groups...)}
	impersonated, err := client.New(c, client.Options{Scheme: scheme, Mapper: admin.RESTMapper()})
	if err != nil {
		panic(err)
	}
	return identity{Client: impersonated, config: c}
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
