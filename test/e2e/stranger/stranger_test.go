// Package stranger plays the demo on a cluster of hack/cluster as if it were somebody's: with a kubeconfig and things
// of that somebody's own, and nothing of the stage's but a command that loads images. It needs root on Linux, as
// package e2e does, and fails elsewhere.
package stranger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/guest"
	"github.com/lethe-dev/lethe/test/stage"
)

// somebody has a cluster.
type somebody struct {
	*stage.Stage
	client     client.Client
	discovery  discovery.DiscoveryInterface
	kubeconfig string // the somebody's own, with two contexts
	demo       string // the demo's program
	env        []string
}

const kubeContext = "the-shop"

// TestTheDemoOnSomebodysCluster refuses, is killed half-way, begins again, checks every outcome, and leaves every
// object as it was.
func TestTheDemoOnSomebodysCluster(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Fatal("nothing was run: pods that really run need Linux and root")
	}
	ctrllog.SetLogger(logr.Discard())
	s := open(t)
	s.things(t)
	before := s.snapshot(t)

	t.Run("without a terminal and without YES nothing begins", func(t *testing.T) {
		out := s.fails(t, "up", "--cluster", "current", "--load", s.loader())
		for _, want := range []string{kubeContext, "lethe-system", "YES=the-shop"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not said:\n%s", want, out)
			}
		}
	})
	t.Run("how images come to the nodes is asked for", func(t *testing.T) {
		if out := s.fails(t, "up", "--cluster", "current", "--yes", kubeContext); !strings.Contains(out, "IMAGE=") || !strings.Contains(out, "LOAD=") {
			t.Error(out)
		}
	})
	t.Run("who may not is told what", func(t *testing.T) {
		out := s.fails(t, "up", "--cluster", "current", "--context", "the-clerk", "--yes", "the-clerk", "--load", s.loader())
		if !strings.Contains(out, "create customresourcedefinitions.apiextensions.k8s.io") || !strings.Contains(out, "cluster-admin") {
			t.Error(out)
		}
	})
	t.Run("a namespace of the same name is somebody's, whatever common label it has", func(t *testing.T) {
		for _, name := range []string{"acme-bots", "lethe-demo"} {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/part-of": "lethe-demo"}}}
			s.create(t, ns)
			defer s.gone(t, ns)
		}
		out := s.fails(t, "up", "--cluster", "current", "--yes", kubeContext, "--load", s.loader())
		for _, want := range []string{"namespaces/acme-bots", "namespaces/lethe-demo", "nothing was touched"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not said:\n%s", want, out)
			}
		}
		// A demo that was killed before it touched the cluster has left files alone.
		kube := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(kube), kube); err != nil {
			t.Fatal(err)
		}
		left := s.Path("cache", "demo-on-"+string(kube.UID))
		if err := os.MkdirAll(filepath.Join(left, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if out := s.runs(t, "down", "--cluster", "current", "--yes", kubeContext); !strings.Contains(out, "There is no demo") {
			t.Error(out)
		}
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its files: %v", err)
		}
	})
	t.Run("Lethe's kinds are somebody's", func(t *testing.T) {
		crd := filepath.Join(s.Root, "config", "crd", "bases", "lethe.dev_dataretentionpolicies.yaml")
		s.kubectl(t, "apply", "--server-side", "-f", crd)
		defer s.kubectl(t, "delete", "--wait", "-f", crd)
		// Helm would take it for its own release's, and change it.
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "shop-first", Annotations: released()}, Value: 10}
		s.create(t, class)
		defer s.gone(t, class)
		for _, command := range []string{"up", "test"} {
			out := s.fails(t, command, "--cluster", "current", "--yes", kubeContext, "--load", s.loader())
			if !strings.Contains(out, "customresourcedefinitions/dataretentionpolicies.lethe.dev") || !strings.Contains(out, "priorityclasses/shop-first") {
				t.Error(out)
			}
		}
	})
	s.same(t, before, "after the demo was refused")
	if t.Failed() {
		return
	}

	played := t.Run("tests that were killed at work are removed without a Lethe that runs, and the demo checks every outcome", func(t *testing.T) {
		s.killed(t, "test", "e2e-acme", "pods/support-bot-0")
		s.kubectl(t, "delete", "deployment", "lethe-manager", "--namespace", stage.SystemNamespace)
		out := s.runs(t, "up", "--cluster", "current", "--yes", kubeContext, "--load", s.loader())
		for _, want := range []string{
			"An earlier demo, or test, is here", "its objects are removed without it", "what an earlier run left is removed", "You said: Is anybody there?", "one consumer polls the token", "globex's does not",
			"Audit agrees with the oracle on every table, and deleted nothing.", "Exactly the rows that should go are gone, and every other row is there.",
			"All that may go has gone.", "Secrets of the demo's namespaces", "make demo-down CLUSTER=current",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not said", want)
			}
		}
		if t.Failed() {
			t.Log(out)
		}
	})
	if !played {
		return
	}
	t.Run("what somebody made meanwhile is not removed with the demo", func(t *testing.T) {
		tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "initech"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "initech-bots"}}}}
		s.create(t, tenant)
		if out := s.fails(t, "down", "--cluster", "current", "--yes", kubeContext); !strings.Contains(out, "tenants/initech") || !strings.Contains(out, "nothing was removed") {
			t.Error(out)
		}
		if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: "acme-bots", Name: "support"}, &v1alpha1.BotDeployment{}); err != nil {
			t.Errorf("the demo's bot: %v", err)
		}
		s.gone(t, tenant)
	})
	t.Run("every trace is removed", func(t *testing.T) {
		s.runs(t, "down", "--cluster", "current", "--yes", kubeContext)
		s.same(t, before, "after the demo")
		if left, err := filepath.Glob(filepath.Join(s.Path("cache"), "demo*")); err != nil || len(left) > 0 {
			t.Errorf("left on this machine: %q %v", left, err)
		}
	})
}

// open makes a cluster, and a kubeconfig as somebody has one.
func open(t *testing.T) *somebody {
	t.Helper()
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	s := &somebody{Stage: &stage.Stage{Root: root, Dir: t.TempDir(), Cluster: "lethe-stranger", Realm: "demo", Progress: os.Stderr}}
	t.Cleanup(func() {
		if err := s.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.DownCluster(t.Context()), s.Up(t.Context(), "node")); err != nil {
		t.Fatal(err)
	}
	if s.client, err = s.Client(); err != nil {
		t.Fatal(err)
	}
	cfg, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if s.discovery, err = discovery.NewDiscoveryClientForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.KubectlPath = info.Kubectl
	s.writeKubeconfig(t)
	s.demo = s.Path("bin", "demo")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.demo, "./hack/demo")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the demo: %v\n%s", err, out)
	}
	// The demo's own files are in a cache of their own, so that what is left of them is seen; the programs that are
	// built for every cache are not built again.
	if err := os.MkdirAll(s.Path("cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	cache, err := stage.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(cache, "bin"), s.Path("cache", "bin")); err != nil {
		t.Fatal(err)
	}
	s.env = append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "KUBECONFIG=") || strings.HasPrefix(e, "PATH=") || strings.HasPrefix(e, "LETHE_CACHE=")
	}), "KUBECONFIG="+s.kubeconfig, "LETHE_CACHE="+s.Path("cache"), "PATH="+filepath.Dir(info.Kubectl)+":"+os.Getenv("PATH"))
	return s
}

// writeKubeconfig gives the cluster's administrator the name of somebody's context, and adds a context of somebody
// who may nothing.
func (s *somebody) writeKubeconfig(t *testing.T) {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	admin := cfg.Contexts[cfg.CurrentContext]
	clerk, user := admin.DeepCopy(), cfg.AuthInfos[admin.AuthInfo].DeepCopy()
	user.Impersonate = "clerk"
	clerk.AuthInfo = "clerk"
	cfg.AuthInfos["clerk"], cfg.Contexts["the-clerk"], cfg.Contexts[kubeContext] = user, clerk, admin
	cfg.CurrentContext = kubeContext
	s.kubeconfig = s.Path("somebodys-kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, s.kubeconfig); err != nil {
		t.Fatal(err)
	}
}

// loader is how images come to this node: what somebody says with LOAD=.
func (s *somebody) loader() string {
	// The cluster is in another cache than the demo's files.
	script := s.Path("load.sh")
	if _, err := os.Stat(script); err != nil {
		cache, _ := stage.CacheDir()
		text := fmt.Sprintf("#!/bin/sh\nLETHE_CACHE=%q exec %q load-image --name %s \"$@\"\n", cache, filepath.Join(s.Root, "hack", "cluster", "cluster.sh"), s.Cluster)
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			return "false"
		}
	}
	return script
}

// released is what helm would write on an object of the demo's release.
func released() map[string]string {
	return map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "lethe-system"}
}

// things of somebody's own, some with names, labels and annotations that are nearly the demo's.
func (s *somebody) things(t *testing.T) {
	t.Helper()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	helms := map[string]string{"app.kubernetes.io/managed-by": "Helm"}
	s.create(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "lethe-demo-notes", Labels: map[string]string{"app.kubernetes.io/part-of": "lethe-demo", guest.MarkLabel: guest.Demo.Name}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "e2e-shop", Labels: map[string]string{guest.MarkLabel: guest.EndToEnd.Name}}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "lethe", Labels: helms, Annotations: released()}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "lethe-before", Labels: helms, Annotations: released()}},
		&corev1.Secret{ObjectMeta: meta("lethe-kek"), StringData: map[string]string{"kek": "not the demo's"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "released", Labels: helms,
			Annotations: map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "shop"}}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "acme"}, Data: map[string]string{"a": "b"}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "lethe-readers"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}},
		&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "somebodys"}, Reason: "Said", Message: "something", Type: corev1.EventTypeNormal,
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: metav1.NamespaceDefault, Name: "acme"}},
	)
}

func (s *somebody) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := s.client.Create(t.Context(), o); err != nil {
			t.Fatalf("create %s: %v", o.GetName(), err)
		}
	}
}

// gone deletes an object and waits for its end.
func (s *somebody) gone(t *testing.T, o client.Object) {
	t.Helper()
	err := stage.Until(t.Context(), 2*time.Minute, "delete "+o.GetName(), func(ctx context.Context) (string, error) {
		if err := s.client.Delete(ctx, o); err != nil {
			return "", client.IgnoreNotFound(err)
		}
		return "its end", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *somebody) kubectl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := s.Kubectl(t.Context(), "", args...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// command is the demo as somebody starts it, without a terminal, and a process group of its own.
func (s *somebody) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), s.demo, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.Root, s.env, 10*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (s *somebody) runs(t *testing.T, args ...string) string {
	t.Helper()
	began := time.Now()
	out, err := s.command(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("demo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Logf("demo %s took %s", args[0], time.Since(began).Round(time.Second))
	return string(out)
}

func (s *somebody) fails(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(t, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("demo %s ended with %v:\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// killed starts the demo, or the tests, and kills it, with what it has started, as soon as an object is there.
func (s *somebody) killed(t *testing.T, command, namespace, object string) {
	t.Helper()
	cmd := s.command(t, command, "--cluster", "current", "--yes", kubeContext, "--load", s.loader())
	var out locked
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := stage.Until(t.Context(), 8*time.Minute, "wait for "+object, func(ctx context.Context) (string, error) {
		select {
		case err := <-ended:
			return "", stage.Stop(fmt.Errorf("the demo ended before it was killed: %w\n%s", err, out.String()))
		default:
		}
		found, err := s.Kubectl(ctx, "", "get", "--ignore-not-found", "-o", "name", "--namespace", namespace, object)
		if err == nil && found == "" {
			return "it is not there", nil
		}
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatal("the demo ended well before it was killed")
	}
}

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what was written so far.
func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// snapshot is every object of the cluster that is not in motion by itself: by its kind, namespace and name, with its
// UID and a sum of what it says. Left out are Leases, of which the cluster renews some, and Events of others than
// Lethe's and the demo's objects.
func (s *somebody) snapshot(t *testing.T) map[string]string {
	t.Helper()
	out, err := s.objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d objects are in this cluster", len(out))
	}
	return out
}

func (s *somebody) objects(ctx context.Context) (map[string]string, error) {
	lists, err := s.discovery.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range l.APIResources {
			// Events are there under two groups; these are the same objects.
			if !slices.Contains(r.Verbs, "list") || r.Name == "leases" || gv.Group == "events.k8s.io" || gv.Group == "metrics.k8s.io" {
				continue
			}
			var list unstructured.UnstructuredList
			list.SetGroupVersionKind(gv.WithKind(r.Kind + "List"))
			if err := s.client.List(ctx, &list); err != nil {
				return nil, fmt.Errorf("list %s: %w", r.Name, err)
			}
			for _, o := range list.Items {
				if r.Name == "events" && !aboutTheDemo(o) {
					continue
				}
				out[strings.Join([]string{r.Name + "." + gv.Group, o.GetNamespace(), o.GetName()}, "/")] = string(o.GetUID()) + " " + sum(o)
			}
		}
	}
	return out, nil
}

// aboutTheDemo: an event that names anything of Lethe's or of the demo's. The node, which has this cluster's name,
// has events all the time.
func aboutTheDemo(o unstructured.Unstructured) bool {
	if kind, _, _ := unstructured.NestedString(o.Object, "involvedObject", "kind"); kind == "Node" {
		return false
	}
	b, err := json.Marshal(o.Object)
	return err != nil || slices.ContainsFunc([]string{"lethe", "acme", "globex", "platform"}, func(word string) bool { return strings.Contains(string(b), word) })
}

// sum of what an object says, without what the API server counts and what controllers report.
func sum(o unstructured.Unstructured) string {
	o = *o.DeepCopy()
	delete(o.Object, "status")
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	b, err := json.Marshal(o.Object)
	if err != nil {
		return err.Error()
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// same waits until every object is as it was: controllers of the cluster's own take a moment, for their roles above
// all.
func (s *somebody) same(t *testing.T, before map[string]string, when string) {
	t.Helper()
	err := stage.Until(t.Context(), 30*time.Second, when+" wait until every object is as it was before", func(ctx context.Context) (string, error) {
		now, err := s.objects(ctx)
		if err != nil {
			return "", err
		}
		var differ []string
		for _, name := range slices.Sorted(maps.Keys(now)) {
			switch was, ok := before[name]; {
			case !ok:
				differ = append(differ, "new: "+name)
			case was != now[name]:
				differ = append(differ, "changed: "+name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(before)) {
			if _, ok := now[name]; !ok {
				differ = append(differ, "gone: "+name)
			}
		}
		return strings.Join(differ, "; "), nil
	})
	if err != nil {
		t.Error(err)
	}
}
