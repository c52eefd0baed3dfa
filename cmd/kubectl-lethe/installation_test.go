package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
)

// installation is Lethe as the chart installs it in a cluster of its own: the objects that helm renders, the real
// manager and the real keyserver, each with its own rights, and the keyserver's own TLS. Only what runs containers
// and Kubernetes' own controllers are played.
type installation struct {
	t      *testing.T
	c      *caller
	folder string // of the person who operates it: the KEK, values.yaml, Git, the backup
	clock  *clocktesting.FakePassiveClock

	keys    atomic.Pointer[keyclient.Client]
	stopped []func() // what runs, last begun first
}

// newInstallation begins with an empty cluster and a folder that holds what Git and the documentation say.
func newInstallation(t *testing.T) *installation {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	i := &installation{t: t, folder: t.TempDir(), clock: clocktesting.NewFakePassiveClock(time.Now())}
	shared := testEnv
	t.Cleanup(func() { testEnv = shared })
	t.Chdir(i.folder)
	i.must(os.Symlink(filepath.Join(testEnv.Root, "charts"), "charts"))
	for _, folder := range []string{"tenants", "bots", "claims"} {
		i.must(os.Mkdir(folder, 0o700))
	}
	i.must(os.WriteFile("values.yaml", []byte("realm: "+testRealm+"\nimage: {tag: dev}\nkek: {volume: {persistentVolumeClaim: {claimName: lethe-kek, readOnly: true}}}\n"), 0o600))
	i.newCluster()
	i.c.ok("", "keys", "generate-kek", "kek")
	return i
}

// newCluster has nothing of an earlier one.
func (i *installation) newCluster() {
	i.t.Helper()
	i.stop()
	testEnv = env.Start(i.t)
	i.t.Cleanup(i.stop) // before the API server ends
	i.c = newCaller(i.t)
	i.c.terminal, i.c.now = true, time.Now
	i.t.Setenv("KUBECONFIG", i.c.kubeconfig)
	i.t.Setenv("PATH", testEnv.Assets+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func (i *installation) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// run does what a documented line says, in a shell; helm's objects are rendered by helm and applied.
func (i *installation) run(words []string) outcome {
	i.t.Helper()
	line := strings.Join(words, " ")
	switch {
	case words[0] == "kubectl" && words[1] == "lethe":
		return i.c.ok(env.KeysNamespace+"\n", words[2:]...)
	case words[0] == "helm" && words[1] == "install":
		i.install(words[2:])
		return outcome{}
	}
	out, err := exec.CommandContext(i.t.Context(), "sh", "-c", line).CombinedOutput()
	if err != nil {
		i.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	if strings.Contains(line, "rollout restart deployment/lethe-keyserver") {
		i.startKeyserver() // the kubelet's part
	}
	return outcome{out: string(out)}
}

var helmBinary = sync.OnceValues(func() (string, error) {
	out, err := exec.Command(filepath.Join(testEnv.Root, "hack", "tools", "build.sh"), "helm").Output()
	return strings.TrimSpace(string(out)), err
})

// install applies what helm would, and runs the programs of the Deployments that it has made.
func (i *installation) install(arguments []string) {
	i.t.Helper()
	helm, err := helmBinary()
	i.must(err)
	var stderr bytes.Buffer
	command := exec.CommandContext(i.t.Context(), helm, append([]string{"template", "--no-hooks"}, slices.DeleteFunc(slices.Clone(arguments), func(s string) bool { return s == "--create-namespace" })...)...)
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		i.t.Fatalf("%v: %s", err, stderr.String())
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		i.must(err)
		if len(o.Object) == 0 {
			continue
		}
		if err := testEnv.Client.Patch(i.t.Context(), o, client.Apply, client.FieldOwner("helm"), client.ForceOwnership); err != nil { //nolint:staticcheck // any kind
			i.t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	i.startKeyserver()
	i.startManager()
}

// stop ends the programs.
func (i *installation) stop() {
	for _, stop := range slices.Backward(i.stopped) {
		stop()
	}
	i.stopped = nil
}

func (i *installation) settings() resources.Settings {
	settings := resources.DefaultSettings()
	settings.Image = "lethe:dev"
	return settings
}

// startKeyserver begins one that remembers nothing, in the place of the one before. Its minutes go by with the clock
// of the test.
func (i *installation) startKeyserver() {
	i.t.Helper()
	realm := &corev1.ConfigMap{}
	i.must(testEnv.Client.Get(i.t.Context(), clientKey(env.SystemNamespace, "lethe-realm"), realm))
	kek, err := keystore.LoadKEK(filepath.Join(i.folder, "kek"))
	i.must(err)
	metrics, err := keyserver.NewMetrics(prometheus.NewRegistry())
	i.must(err)
	server, err := keyserver.New(keyserver.Options{Client: testEnv.AsServiceAccount(i.t, env.SystemNamespace, resources.ServiceAccountKeyserver), KEK: kek,
		KEKGrade: keyserver.GradeProduction, Realm: realm.Data["realm"], KeysNamespace: env.KeysNamespace, Hosts: []string{"127.0.0.1"}, Settings: i.settings(),
		Clock: i.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	i.must(err)
	i.must(server.Maintain(i.t.Context()))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server.Authority().TLSConfig())
	i.must(err)
	calls := &http.Server{Handler: server.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var work sync.WaitGroup
	work.Go(func() { _ = calls.Serve(listener) })
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				// Each says in its log what it could not do, and tries again.
				_ = server.Maintain(ctx)
				_ = server.Rotate(ctx)
			}
		}
	})
	i.stopped = append(i.stopped, func() {
		cancel()
		_ = calls.Close()
		work.Wait()
	})
	token := filepath.Join(i.t.TempDir(), "token")
	text, err := testEnv.Token(i.t.Context(), env.SystemNamespace, resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil)
	i.must(err)
	i.must(os.WriteFile(token, []byte(text), 0o600))
	admin := testEnv.Client
	keys, err := keyclient.New(keyclient.Options{URL: "https://" + listener.Addr().(*net.TCPAddr).String(), TokenFile: token, CA: func(ctx context.Context) ([]byte, error) {
		bundle := &corev1.ConfigMap{}
		err := admin.Get(ctx, clientKey(env.SystemNamespace, resources.CABundleName), bundle)
		return []byte(bundle.Data[resources.CABundleKey]), err
	}})
	i.must(err)
	i.keys.Store(keys)
}

// Tenant, Credentials, PullSecrets and Revoke ask the keyserver that runs now, as its Service does.
func (i *installation) Tenant(ctx context.Context, tenant keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	return i.keys.Load().Tenant(ctx, tenant)
}

func (i *installation) Credentials(ctx context.Context, object keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	return i.keys.Load().Credentials(ctx, object)
}

func (i *installation) PullSecrets(ctx context.Context, object keyapi.ObjectRef) (keyapi.PullSecretsResponse, error) {
	return i.keys.Load().PullSecrets(ctx, object)
}

func (i *installation) LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	return i.keys.Load().LastReport(ctx, store)
}

func (i *installation) Revoke(ctx context.Context, object keyapi.ObjectRef) error {
	return i.keys.Load().Revoke(ctx, object)
}

// startManager runs the manager, and what it expects of Kubernetes.
func (i *installation) startManager() {
	i.t.Helper()
	config := testEnv.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager)
	options, err := controllers.ManagerOptions(config, 4, nil)
	i.must(err)
	again := true
	options.Scheme, options.Metrics, options.Controller.SkipNameValidation = testEnv.Scheme, metricsserver.Options{BindAddress: "0"}, &again
	manager, err := ctrl.NewManager(config, options)
	i.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	i.must(controllers.Setup(ctx, manager, controllers.Options{Settings: i.settings(), Keys: i, KeysNamespace: env.KeysNamespace,
		StatusGracePeriod: 300 * time.Millisecond, Pace: time.Millisecond, OrphansAfter: 300 * time.Millisecond}))
	var work sync.WaitGroup
	work.Go(func() {
		if err := manager.Start(ctx); err != nil {
			i.t.Errorf("the manager ended with: %v", err)
		}
	})
	kubernetes := &kcm.Controllers{Client: testEnv.AsCluster(i.t), Reader: testEnv.Cache(i.t)}
	work.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				_ = kubernetes.Once() // in the next round again
			}
		}
	})
	i.stopped = append(i.stopped, func() {
		cancel()
		work.Wait()
	})
}

// becomes waits for a condition, "Type=Status" or "Type=Status/Reason".
func (i *installation) becomes(o client.Object, want string) {
	i.t.Helper()
	i.becomesWithin(30*time.Second, o, want)
}

func (i *installation) becomesWithin(most time.Duration, o client.Object, want string) {
	i.t.Helper()
	kind, rest, _ := strings.Cut(want, "=")
	state, reason, _ := strings.Cut(rest, "/")
	deadline := time.After(most)
	for {
		i.must(testEnv.Client.Get(i.t.Context(), client.ObjectKeyFromObject(o), o))
		conditions := conditionsOf(o)
		c := meta.FindStatusCondition(conditions, kind)
		if c != nil && string(c.Status) == state && (reason == "" || c.Reason == reason) && (kind != "Ready" || c.ObservedGeneration == o.GetGeneration()) {
			return
		}
		select {
		case <-deadline:
			i.t.Fatalf("%T %s is not %s within %s: %s", o, o.GetName(), want, most, told(conditions))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func conditionsOf(o client.Object) []metav1.Condition {
	switch o := o.(type) {
	case *v1alpha1.Tenant:
		return o.Status.Conditions
	case *v1alpha1.BotDeployment:
		return o.Status.Conditions
	case *v1alpha1.DataStore:
		return o.Status.Conditions
	}
	return nil
}

func told(conditions []metav1.Condition) string {
	var out strings.Builder
	for _, c := range conditions {
		fmt.Fprintf(&out, "\n  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
	}
	return out.String()
}

// git writes an object to a file of the folder that is applied, and says the object's name.
func (i *installation) git(file string, o client.Object, kind string) {
	i.t.Helper()
	plain := map[string]any{}
	text, err := sigsyaml.Marshal(o)
	i.must(err)
	i.must(sigsyaml.Unmarshal(text, &plain))
	plain["apiVersion"], plain["kind"] = v1alpha1.GroupVersion.String(), kind
	if kind == "PersistentVolumeClaim" {
		plain["apiVersion"] = "v1"
	}
	delete(plain, "status")
	text, err = sigsyaml.Marshal(plain)
	i.must(err)
	i.must(os.WriteFile(file, text, 0o600))
}

// apply applies the bots and stores of Git.
func (i *installation) apply() { i.run([]string{"kubectl", "apply", "-R", "-f", "bots/"}) }

// sealed seals a value with the program.
func (i *installation) sealed(value string, arguments ...string) v1alpha1.SealedValue {
	i.t.Helper()
	return v1alpha1.SealedValue(strings.TrimSpace(i.c.ok(value, append([]string{"seal"}, arguments...)...).out))
}

// customer is a tenant with a bot that keeps data on a volume.
type customer struct {
	tenant *v1alpha1.Tenant
	bot    *v1alpha1.BotDeployment
	first  v1alpha1.SealedValue // of version 1; the bot has version 2
}

// newCustomer has its objects in Git, sealed and applied, and waits until all is well.
func (i *installation) newCustomer(name string) *customer {
	i.t.Helper()
	c := &customer{
		tenant: &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: name + "-bots"}}}},
		bot: &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: name + "-bots", Name: "support"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1",
			Storage: &v1alpha1.BotStorage{Size: oneGi, MountPath: "/data", ReclaimPolicy: "Retain"}}},
	}
	i.git("tenants/"+name+".yaml", c.tenant, "Tenant")
	i.run([]string{"kubectl", "apply", "-R", "-f", "tenants/"})
	i.becomes(c.tenant, "Ready=True")
	c.first = i.sealed(canary, "--bot", name+"-bots/support", "--credential", "telegram-token", "--version", "1")
	c.bot.Spec.Credentials = []v1alpha1.Credential{{Name: "telegram-token", Sealed: i.sealed(canary, "--bot", name+"-bots/support", "--credential", "telegram-token", "--version", "2")}}
	i.git("bots/"+name+"-support.yaml", c.bot, "BotDeployment")
	i.apply()
	i.becomes(c.bot, "Ready=True")
	return c
}
