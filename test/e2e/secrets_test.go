package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/leakscan"
	"github.com/lethe-dev/lethe/test/snapshot"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	canaryBots     = 67
	canariesPerBot = 16 // as many as a bot may have, the authority of the stand-in for Telegram among them
)

// thousandCanaries runs bots with a thousand secrets and looks for every secret of the whole run in everything that
// is written or can be read. A control value, which stands where secrets must not, is found in each place.
func thousandCanaries(t *testing.T, w *world) {
	pods := int32(100)
	tenant := w.tenant(t, "e2e-canaries", func(s *v1alpha1.TenantSpec) {
		s.Quota = &v1alpha1.TenantQuota{Pods: &pods, Bots: &pods}
	})
	var bots []*v1alpha1.BotDeployment
	for i := range canaryBots {
		token, _ := w.newToken(t, 100+i)
		name := fmt.Sprintf("bot-%02d", i)
		bot := w.newBot(t, tenant, name, token)
		for j := 1; j < canariesPerBot-1; j++ {
			key, value := fmt.Sprintf("key-%02d", j), "canary-"+stage.Random()
			w.canaries[name+" "+key] = []byte(value)
			bot.Spec.Credentials = append(bot.Spec.Credentials, v1alpha1.Credential{Name: key, Sealed: w.seal(t, tenant, tenant.Name, name, key, 1, value)})
		}
		bots = append(bots, bot)
	}
	if n := len(w.canaries); n < 1000 {
		t.Fatalf("only %d secrets", n)
	}
	control := "control-" + stage.Random()
	bots[0].Spec.Env = append(bots[0].Spec.Env, v1alpha1.EnvVar{Name: "CONTROL", Value: control})
	for _, b := range bots {
		w.create(t, b)
	}
	for _, b := range bots {
		w.awaitReady(t, b, 6*time.Minute)
	}
	needles := []leakscan.Needle{{Name: "control", Value: []byte(control)}}
	for name, value := range w.canaries {
		needles = append(needles, leakscan.Needle{Name: name, Value: value})
	}
	kek, err := w.KEK()
	if err != nil {
		t.Fatal(err)
	}
	needles = append(needles, leakscan.Needle{Name: "key-encryption key", Value: kek})
	scanner, err := leakscan.New(needles)
	if err != nil {
		t.Fatal(err)
	}
	file := w.snapshot(t)
	check := func(place string, rep leakscan.Report, err error, controlled bool) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", place, err)
			return
		}
		found := false
		for _, f := range rep.Findings {
			if f.Needle == "control" {
				found = true
				continue
			}
			t.Errorf("%s: %s", place, f)
		}
		if controlled && !found {
			t.Errorf("%s: the control value is not found, so the search proves nothing", place)
		}
		t.Logf("%s: %d MiB in %d files searched", place, rep.Bytes>>20, rep.Files)
	}
	for _, p := range []struct {
		name, path string
		control    bool
	}{
		{"etcd's files", w.info.Etcd.DataDir, true},
		{"a snapshot of etcd", file, true},
		{"containerd's folder", w.info.Containerd.Root, true},
		{"containerd's running state", w.info.Containerd.State, true},
		{"the kubelet's folder", w.info.KubeletDir, false},
		{"volumes", w.info.VolumeDir, false},
		{"logs of pods and of the cluster, and the audit log", w.info.LogDir, false},
		{"logs of what runs beside the cluster", w.Path("logs"), false},
	} {
		if _, err := os.Stat(p.path); errors.Is(err, fs.ErrNotExist) && !p.control {
			continue
		}
		rep, err := scanner.Tree(t.Context(), p.path)
		check(p.name, rep, err, p.control)
	}
	rep, err := w.scanObjects(t.Context(), scanner)
	check("every object of the API, events and status included", rep, err, true)
	rep, err = w.scanMetrics(t.Context(), scanner)
	check("metrics", rep, err, false)
	rep, err = scanProcesses(scanner)
	check("arguments and environments of processes", rep, err, true)

	for _, b := range bots {
		if err := w.client.Delete(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range bots {
		w.gone(t, b, 3*time.Minute)
	}
}

// snapshot of etcd, as a file.
func (w *world) snapshot(t *testing.T) string {
	t.Helper()
	file := w.Path("snapshot.db")
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	e := w.info.Etcd
	if err := snapshot.ToolsBeside(e.Etcdctl, e.Etcdutl).Save(t.Context(), e.Endpoint, e.CA, e.Client.Cert, e.Client.Key, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// scanObjects lists every kind that the API server serves, as the administrator.
func (w *world) scanObjects(ctx context.Context, s *leakscan.Scanner) (leakscan.Report, error) {
	var rep leakscan.Report
	dc, err := discovery.NewDiscoveryClientForConfig(w.cfg)
	if err != nil {
		return rep, err
	}
	dyn, err := dynamic.NewForConfig(w.cfg)
	if err != nil {
		return rep, err
	}
	kinds, err := dc.ServerPreferredResources()
	if err != nil {
		return rep, err
	}
	for _, k := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, kinds) {
		gv, err := parseGroupVersion(k.GroupVersion)
		if err != nil {
			return rep, err
		}
		for _, r := range k.APIResources {
			list, err := dyn.Resource(gv.WithResource(r.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				return rep, fmt.Errorf("list %s: %w", r.Name, err)
			}
			b, err := json.Marshal(list)
			if err != nil {
				return rep, err
			}
			one, err := s.Reader(r.Name, bytes.NewReader(b))
			if err != nil {
				return rep, err
			}
			one.Files = len(list.Items)
			rep.Add(one)
		}
	}
	return rep, nil
}

// scanMetrics reads the metrics of Lethe's own pods, of the API server and of the kubelet.
func (w *world) scanMetrics(ctx context.Context, s *leakscan.Scanner) (leakscan.Report, error) {
	var rep leakscan.Report
	cs, err := kubernetes.NewForConfig(w.cfg)
	if err != nil {
		return rep, err
	}
	paths := []string{"/metrics", "/api/v1/nodes/" + w.info.Network.NodeName + "/proxy/metrics"}
	var pods corev1.PodList
	if err := w.client.List(ctx, &pods, client.InNamespace(stage.SystemNamespace)); err != nil {
		return rep, err
	}
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning {
			paths = append(paths, "/api/v1/namespaces/"+p.Namespace+"/pods/"+p.Name+":8080/proxy/metrics")
		}
	}
	if len(paths) < 6 {
		return rep, fmt.Errorf("only %d places have metrics: want the API server, the kubelet, two managers and two keyservers", len(paths))
	}
	for _, path := range paths {
		b, err := cs.RESTClient().Get().AbsPath(path).DoRaw(ctx)
		if err != nil {
			return rep, fmt.Errorf("read %s: %w", path, err)
		}
		if !bytes.Contains(b, []byte("# TYPE")) {
			return rep, fmt.Errorf("%s holds no metrics", path)
		}
		one, err := s.Reader(path, bytes.NewReader(b))
		if err != nil {
			return rep, err
		}
		rep.Add(one)
	}
	return rep, nil
}

// scanProcesses reads what any process was started with.
func scanProcesses(s *leakscan.Scanner) (leakscan.Report, error) {
	var rep leakscan.Report
	for _, what := range []string{"cmdline", "environ"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + what)
		if err != nil {
			return rep, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // it has ended
			}
			one, err := s.Reader(f, bytes.NewReader(b))
			if err != nil {
				return rep, err
			}
			one.Files = 1
			rep.Add(one)
		}
	}
	return rep, nil
}

// snapshots: what a thief of a snapshot has. The bot of the first part runs: there is something to open.
func snapshots(t *testing.T, w *world) {
	e := w.info.Etcd
	secrets, err := snapshot.ToolsBeside(e.Etcdctl, e.Etcdutl).Secrets(t.Context(), w.snapshot(t))
	if err != nil {
		t.Fatal(err)
	}
	guess := w.Path("secrets", "guess")
	if _, err := w.Lethe(t.Context(), "", "keys", "generate-kek", guess); err != nil {
		t.Fatal(err)
	}
	wrong, err := os.ReadFile(guess)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := snapshot.Open(secrets, wrong); err == nil || len(opened.Credentials) > 0 || len(opened.PrivateKeys) > 0 {
		t.Errorf("another key opened %d credentials (%v)", len(opened.Credentials), err)
	}
	right, err := os.ReadFile(w.KEKFile())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := snapshot.Open(secrets, right)
	if err != nil {
		t.Fatal(err)
	}
	token := string(opened.Credentials["e2e-acme/BotDeployment/support/telegram-token"])
	if _, secret, _ := strings.Cut(token, ":"); secret == "" || secret != string(w.canaries["token 1"]) {
		t.Errorf("the right key opened %d credentials, and not the bot's token", len(opened.Credentials))
	}
	if len(opened.PrivateKeys) == 0 {
		t.Error("the right key opened no private key")
	}
	// The private keys, known only now, stand nowhere either.
	var needles []leakscan.Needle
	for name, key := range opened.PrivateKeys {
		needles = append(needles, leakscan.Needle{Name: "private key " + name, Value: key})
	}
	scanner, err := leakscan.New(needles)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{e.DataDir, w.info.Containerd.Root, w.info.KubeletDir, w.info.LogDir} {
		rep, err := scanner.Tree(t.Context(), dir)
		if err != nil {
			t.Error(err)
		}
		for _, f := range rep.Findings {
			t.Error(f)
		}
	}
}
