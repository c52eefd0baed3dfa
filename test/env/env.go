// Package env starts a real kube-apiserver and etcd for tests, with the kinds, roles and admission policies of this
// repository installed. There is no controller-manager: no garbage collection, no pods made from StatefulSets.
package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/kstatus"
)

// Names of the cluster that every test sees.
const (
	SystemNamespace = "lethe-system"
	KeysNamespace   = "lethe-keys"
)

// Env is a running API server.
type Env struct {
	// Config is the administrator's (group system:masters). The admission policies bind the administrator too.
	Config *rest.Config
	// Client is the administrator's, without a cache.
	Client client.Client
	// Scheme knows Kubernetes' own kinds and Lethe's.
	Scheme *kruntime.Scheme
	// Root is the repository's folder.
	Root string
	// Assets is the folder of kube-apiserver, etcd and kubectl.
	Assets string

	// mapper is that of all clients: one that finds out for itself asks the API server some ten times before its
	// first request.
	mapper   meta.RESTMapper
	auditLog string
	folder   string
	server   *envtest.Environment
	shared   shared
	audit    audit
}

// Start runs an API server until the test ends.
func Start(t testing.TB) *Env {
	t.Helper()
	e, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	return e
}

// Main is a TestMain: it runs the tests of a package against one API server, which use hands to them. Meanwhile Flux'
// own code looks at every status that the manager writes.
//
//	func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { testEnv = e })) }
func Main(m *testing.M, use func(*Env)) int {
	e, err := New(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	watcher, err := kstatus.Watch(e.Config, e.Scheme)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(e)
	code := m.Run()
	for _, problem := range watcher.End() {
		fmt.Fprintln(os.Stderr, "a status that Flux takes for another:", problem)
		code = 1
	}
	if err := e.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// New runs an API server until Stop. The binaries are those in KUBEBUILDER_ASSETS or, where that is unset, the ones
// that hack/cluster has built or builds now.
func New(ctx context.Context) (*Env, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	assets, err := assetsFolder(ctx, root)
	if err != nil {
		return nil, err
	}
	scheme, err := NewScheme()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "lethe-env-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the API server: %w", err)
	}
	e := &Env{Scheme: scheme, Root: root, Assets: assets, folder: folder, auditLog: filepath.Join(folder, "audit.jsonl")}
	if err := e.start(ctx, assets); err != nil {
		_ = e.Stop()
		return nil, err
	}
	return e, nil
}

// NewScheme knows Kubernetes' own kinds and Lethe's.
func NewScheme() (*kruntime.Scheme, error) {
	scheme := kruntime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register Kubernetes' kinds: %w", err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register Lethe's kinds: %w", err)
	}
	return scheme, nil
}

func (e *Env) start(ctx context.Context, assets string) error {
	policy := filepath.Join(e.folder, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("write the audit policy: %w", err)
	}
	e.server = &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		CRDDirectoryPaths:        []string{filepath.Join(e.Root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		Scheme:                   e.Scheme,
		ControlPlaneStartTimeout: time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	args := e.server.ControlPlane.GetAPIServer().Configure()
	args.Set("audit-policy-file", policy)
	args.Set("audit-log-path", e.auditLog)
	args.Set("audit-log-mode", "blocking")
	args.Set("audit-log-maxsize", "10000") // in MB: Writes goes on in the same file
	// What a pod could also be given by a server of this version, so that the walls are tried with it.
	args.Set("feature-gates", "ClusterTrustBundle=true,ClusterTrustBundleProjection=true,PodCertificateRequest=true")
	args.Set("runtime-config", "certificates.k8s.io/v1beta1=true")
	// envtest switches this plugin off; a real cluster has it, and it writes into pods.
	args.Disable("disable-admission-plugins")
	config, err := e.server.Start()
	if err != nil {
		return fmt.Errorf("start kube-apiserver and etcd out of %s: %w", assets, err)
	}
	config.QPS = -1
	e.Config = config
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("make a transport to the API server: %w", err)
	}
	if e.mapper, err = apiutil.NewDynamicRESTMapper(config, transport); err != nil {
		return fmt.Errorf("make a mapper of kinds: %w", err)
	}
	e.Client, err = client.New(config, client.Options{Scheme: e.Scheme, Mapper: e.mapper})
	if err != nil {
		return fmt.Errorf("make the administrator's client: %w", err)
	}
	return e.install(ctx)
}

// Stop ends the API server and removes its files.
func (e *Env) Stop() error {
	err := e.shared.stop()
	if e.server != nil {
		err = errors.Join(err, e.server.Stop())
	}
	if err = errors.Join(err, os.RemoveAll(e.folder)); err != nil {
		return fmt.Errorf("stop the API server: %w", err)
	}
	return nil
}

// Kubeconfig is the administrator's, as a file's content.
func (e *Env) Kubeconfig() []byte { return e.server.KubeConfig }

// ConfigFor is the configuration of a client that acts as a user in groups, beside system:authenticated.
func (e *Env) ConfigFor(user string, groups ...string) *rest.Config {
	config := rest.CopyConfig(e.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append([]string{"system:authenticated"}, groups...)}
	return config
}

// As is a client that acts as a user in groups, beside system:authenticated.
func (e *Env) As(t testing.TB, user string, groups ...string) client.Client {
	t.Helper()
	c, err := client.New(e.ConfigFor(user, groups...), client.Options{Scheme: e.Scheme, Mapper: e.mapper})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// AsGroup is a client that acts as a nameless member of a group.
func (e *Env) AsGroup(t testing.TB, group string) client.Client {
	t.Helper()
	return e.As(t, "someone", group)
}

// ServiceAccountConfig is the configuration of a client that acts as a ServiceAccount.
func (e *Env) ServiceAccountConfig(namespace, name string) *rest.Config {
	return e.ConfigFor("system:serviceaccount:"+namespace+":"+name, "system:serviceaccounts", "system:serviceaccounts:"+namespace)
}

// AsServiceAccount is a client that acts as a ServiceAccount.
func (e *Env) AsServiceAccount(t testing.TB, namespace, name string) client.Client {
	t.Helper()
	c, err := client.New(e.ServiceAccountConfig(namespace, name), client.Options{Scheme: e.Scheme, Mapper: e.mapper})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// AsCluster is a client that the admission policies take for Kubernetes' own controllers, and that may do everything.
// Tests use it to be the controller-manager, and to be the hand that changes what Lethe owns.
func (e *Env) AsCluster(t testing.TB) client.Client {
	t.Helper()
	return e.As(t, "system:kube-controller-manager", "system:masters")
}

// Token is a token of a ServiceAccount for an audience, bound to an object where one is given.
func (e *Env) Token(ctx context.Context, namespace, serviceAccount, audience string, bound *authenticationv1.BoundObjectReference) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      []string{audience},
		BoundObjectRef: bound,
	}}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: serviceAccount}}
	if err := e.Client.SubResource("token").Create(ctx, sa, request); err != nil {
		return "", fmt.Errorf("ask for a token of %s/%s: %w", namespace, serviceAccount, err)
	}
	return request.Status.Token, nil
}

// PodToken is the token that a kubelet would project into a pod.
func (e *Env) PodToken(ctx context.Context, pod *corev1.Pod, audience string) (string, error) {
	return e.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, audience, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
	})
}

// Namespace makes a namespace with a name of its own, which begins with prefix.
func (e *Env) Namespace(t testing.TB, prefix string, labels map[string]string) *corev1.Namespace {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-", Labels: labels}}
	if err := e.Client.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace
}

func repositoryRoot() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("the folder of the sources is unknown")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return "", fmt.Errorf("the sources of the tests were moved since they were compiled (with -trimpath?): %w", err)
	}
	return root, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
