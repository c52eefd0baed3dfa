package main

import (
	"bytes"
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
)

var update = flag.Bool("update", false, "write golden files")

var testEnv *env.Env

func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { testEnv = e })) }

const testRealm = "test"

// day0 is when every test runs.
var day0 = time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC)

// random gives the same keys in every run.
func random(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// outcome is what a call left behind.
type outcome struct {
	code        int
	out, errOut string
}

// caller runs the program as one person in one kubeconfig.
type caller struct {
	t          *testing.T
	kubeconfig string
	as         string   // empty: the administrator
	groups     []string // of as
	terminal   bool
	now        func() time.Time // nil for day0
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	c := testEnv.Config
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	if !strings.HasPrefix(c.Host, "https://") {
		config.Clusters["test"].Server = "https://" + c.Host
	}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test", Namespace: "default"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, kubeconfig: path}
}

func (c *caller) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return day0
}

// run calls the program with something on standard input.
func (c *caller) run(stdin string, args ...string) outcome {
	c.t.Helper()
	args = append(args, "--kubeconfig", c.kubeconfig, "--cache-dir", filepath.Dir(c.kubeconfig))
	if c.as != "" {
		args = append(args, "--as", c.as)
		for _, g := range append([]string{"system:authenticated"}, c.groups...) {
			args = append(args, "--as-group", g)
		}
	}
	return c.runAs(stdin, args)
}

// runAs calls it with these words and no others.
func (c *caller) runAs(stdin string, args []string) outcome {
	c.t.Helper()
	var out, errOut bytes.Buffer
	s := &shell{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &out, ErrOut: &errOut},
		config:    genericclioptions.NewConfigFlags(true),
		now:       c.time,
		random:    random(9),
		terminal:  func() bool { return c.terminal },
		hidden:    func() ([]byte, error) { return []byte(stdin), nil },
	}
	code := run(context.Background(), s, args)
	return outcome{code: code, out: out.String(), errOut: errOut.String()}
}

// ok runs it and expects it to work.
func (c *caller) ok(stdin string, args ...string) outcome {
	c.t.Helper()
	o := c.run(stdin, args...)
	if o.code != 0 {
		c.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), o.code, o.out, o.errOut)
	}
	return o
}

// fails runs it and expects an error with all these words.
func (c *caller) fails(stdin string, args []string, words ...string) outcome {
	c.t.Helper()
	o := c.run(stdin, args...)
	if o.code == 0 {
		c.t.Fatalf("%s: it worked\n%s", strings.Join(args, " "), o.out)
	}
	for _, w := range words {
		if !strings.Contains(o.errOut, w) {
			c.t.Errorf("%s: the error does not say %q:\n%s", strings.Join(args, " "), w, o.errOut)
		}
	}
	return o
}

// golden compares text with testdata/<name>; go test -update writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// makeTenant makes a Tenant that the manager has been through: it has one namespace of the same name, and a key.
func makeTenant(t *testing.T, name string, change func(*v1alpha1.Tenant)) sealing.PrivateKey {
	t.Helper()
	ctx := t.Context()
	priv, err := sealing.GeneratePrivateKey(random(name[0]))
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelTenant: name}}}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: name}}}}
	if change != nil {
		change(tenant)
	}
	create(t, ns, tenant)
	pub := priv.Public()
	tenant.Status = v1alpha1.TenantStatus{
		Namespaces:  []v1alpha1.TenantNamespaceStatus{{Name: name, UID: string(ns.UID), Origin: "Adopted"}},
		SealingKeys: []v1alpha1.SealingKey{{KID: pub.KID(), Suite: sealing.Suite, Public: pub.String(), Realm: testRealm, State: v1alpha1.SealingKeyActive}},
		KEKGrade:    "Production",
	}
	if err := testEnv.Client.Status().Update(ctx, tenant); err != nil {
		t.Fatal(err)
	}
	return priv
}

// makePlatform makes the Tenant of the host company, which stays until all tests have ended.
func makePlatform(t *testing.T) sealing.PrivateKey {
	t.Helper()
	ctx := t.Context()
	priv, err := sealing.GeneratePrivateKey(random('p'))
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "platform", Labels: map[string]string{v1alpha1.LabelTenant: "platform"}}}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "platform"},
		Spec: v1alpha1.TenantSpec{Class: v1alpha1.TenantPlatform, Namespaces: []v1alpha1.TenantNamespace{{Name: "platform"}}}}
	for _, o := range []client.Object{ns, tenant} {
		if err := testEnv.Client.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	tenant.Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: "platform", UID: string(ns.UID), Origin: "Adopted"}}
	if err := testEnv.Client.Status().Update(ctx, tenant); err != nil {
		t.Fatal(err)
	}
	return priv
}

// create makes objects, and removes them after the test (namespaces stay: nothing here would finish removing them).
func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := testEnv.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.IgnoreNotFound(testEnv.Client.Delete(context.Background(), o)); err != nil {
				t.Error(err)
			}
		})
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testEnvNamespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func clientKey(namespace, name string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: name}
}
