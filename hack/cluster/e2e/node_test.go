//go:build linux && node

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/image"
)

// TestMain refuses to count as a success where no node can run.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the node tests need root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// host is what a node must leave on its host as it was.
func host(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, setting := range []string{
		"net/ipv4/ip_forward", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/netfilter/nf_conntrack_max",
	} {
		if data, err := os.ReadFile("/proc/sys/" + setting); err == nil {
			out[setting] = string(data)
		}
	}
	for what, command := range map[string]string{
		"links":      "ip -o link show | cut -d: -f2 | sort",
		"routes":     "ip route show table all | sort",
		"rules":      "nft list ruleset",
		"namespaces": "ls /run/lethe /run/netns /var/run/netns 2>/dev/null",
		"mounts":     "cut -d' ' -f4-5 /proc/self/mountinfo | sort",
		"groups":     "find /sys/fs/cgroup -maxdepth 2 -type d | sort",
		"folders":    "ls -d /run/* /var/lib/* /var/log/* /opt/* /etc/cni 2>/dev/null",
		"modules":    "cut -d' ' -f1 /proc/modules 2>/dev/null | sort",
	} {
		text, err := exec.Command("sh", "-c", command+"; true").Output()
		if err != nil {
			t.Fatal(err)
		}
		out[what] = string(text)
	}
	return out
}

// sameHost compares the host with how it was. What other programs do at the same time shows too, so a difference is
// looked at again for a while.
func sameHost(t *testing.T, before map[string]string) {
	t.Helper()
	eventually(t, 10*time.Second, "the host is as it was", func() error {
		for what, now := range host(t) {
			if now != before[what] {
				return fmt.Errorf("%s were\n%s\nand are\n%s", what, before[what], now)
			}
		}
		return nil
	})
}

// nodeGone checks that nothing is left of a cluster with a node.
func (c tool) nodeGone(t *testing.T, i info) {
	t.Helper()
	c.gone(t, i)
	if exists("/sys/class/net/" + i.Network.HostLink) {
		t.Errorf("link %s is left", i.Network.HostLink)
	}
	if exists("/run/lethe/" + i.Network.NetNS) {
		t.Errorf("network namespace %s is left", i.Network.NetNS)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), i.Dir) {
		t.Errorf("mounts are left (%v)", err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*" + i.Network.Cgroup)
	if err != nil || len(left) > 0 || exists("/sys/fs/cgroup"+i.Network.Cgroup) {
		t.Errorf("control groups are left: %v (%v)", left, err)
	}
}

// probeImage builds the image of the test's own pods.
func probeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "probe"), "./probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v: %s", err, out)
	}
	archive, err := os.Create(filepath.Join(dir, "probe.tar"))
	if err != nil {
		t.Fatal(err)
	}
	err = image.Write(archive, image.Image{
		Name: "lethe.internal/probe:1", Files: map[string]string{"probe": filepath.Join(dir, "probe")},
		Entrypoint: []string{"/probe"}, User: "65532:65532",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Name()
}

// ask asks the probe pod a question, through the API server.
func (i info) ask(question, q string) (string, error) {
	pod, err := i.try("-n", "probe", "get", "pods", "-l", "app=probe", "--field-selector=status.phase=Running",
		"-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		return "", err
	}
	return i.try("get", "--raw", fmt.Sprintf("/api/v1/namespaces/probe/pods/%s:8080/proxy/%s?q=%s", pod, question, url.QueryEscape(q)))
}

func (i info) expect(t *testing.T, question, q, want string) {
	t.Helper()
	eventually(t, 30*time.Second, question+" "+q, func() error {
		got, err := i.ask(question, q)
		if err != nil || !strings.Contains(got, want) {
			return fmt.Errorf("got %q (%v), want %q", got, err, want)
		}
		return nil
	})
}

func (i info) probeRuns(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Minute, "the probe runs", func() error {
		_, err := i.try("-n", "probe", "wait", "--for=condition=Available", "deployment/probe", "--timeout=5s")
		if err != nil {
			return err
		}
		got, err := i.ask("ok", "")
		if got != "ok" {
			return fmt.Errorf("it answers %q (%v)", got, err)
		}
		return nil
	})
}

func TestNode(t *testing.T) {
	c := newTool(t)
	c.run(t, "assets", "--all")
	before := host(t)
	c.downAfter(t, "one")
	c.downAfter(t, "two")
	c.run(t, "up", "--name", "one", "--mode", "node", "--audit-log", "--fsync")
	c.run(t, "up", "--name", "two", "--mode", "node")
	one, two := c.info(t, "one"), c.info(t, "two")
	archive := probeImage(t)
	for _, i := range []info{one, two} {
		c.run(t, "load-image", "--name", filepath.Base(i.Dir), archive)
		i.run(t, "apply", "-f", "probe.yaml")
	}
	one.probeRuns(t)
	two.probeRuns(t)

	t.Run("pod", func(t *testing.T) { testPod(t, one) })
	t.Run("network", func(t *testing.T) { testNetwork(t, one, two) })
	t.Run("policies", func(t *testing.T) { testPolicies(t, one) })
	t.Run("access", func(t *testing.T) { testAccess(t, one) })
	t.Run("api", func(t *testing.T) { testAPI(t, one) })
	t.Run("etcd", func(t *testing.T) { testEtcd(t, one) })
	t.Run("volume", func(t *testing.T) { testVolume(t, one) })
	t.Run("crash", func(t *testing.T) { testCrash(t, c, one) })

	// Somebody uses "ip netns" beside it, which mounts the folder of its namespaces over itself.
	shell(t, "ip netns add lethe-node-test")
	defer shell(t, "ip netns delete lethe-node-test 2>/dev/null; true")

	// One goes, the other does not notice.
	c.run(t, "down", "--name", "one")
	c.nodeGone(t, one)
	two.expect(t, "get", "http://probe.probe/ok", "ok")
	c.run(t, "status", "--name", "two")
	c.run(t, "down", "--name", "two")
	c.nodeGone(t, two)
	shell(t, "ip netns delete lethe-node-test")
	if !strings.Contains(before["mounts"], " /run/netns\n") {
		shell(t, "umount /run/netns && rmdir /run/netns")
	}
	sameHost(t, before)
}

func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// testPod: a pod that passes "restricted" runs, with a native sidecar that writes, into memory, the file that another
// container takes its environment from.
func testPod(t *testing.T, i info) {
	i.expect(t, "env", "GREETING", "hello")
	mounts := i.run(t, "-n", "probe", "exec", "deployment/probe", "-c", "main", "--", "/probe", "hello")
	if mounts != "hello from a job\n" {
		t.Errorf("exec printed %q", mounts)
	}
	if logs := i.run(t, "-n", "probe", "logs", "deployment/probe", "-c", "main"); !strings.Contains(logs, "serving") {
		t.Errorf("logs: %q", logs)
	}
	// The kubelet's folder on the disk has no such file: the volume is memory, in the node's mounts.
	found, err := exec.Command("grep", "-rl", "GREETING='hello'", filepath.Join(i.Dir, "kubelet")).Output()
	if len(found) > 0 {
		t.Errorf("the file in the memory volume is on the disk: %s (%v)", found, err)
	}
	if !strings.Contains(i.run(t, "get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"), "v1.") {
		t.Error("the node has no version")
	}
}

func testNetwork(t *testing.T, one, two info) {
	one.expect(t, "lookup", "kubernetes.default.svc.cluster.local", ".128.1")
	one.expect(t, "lookup", "probe", ".")
	one.expect(t, "lookup", "no-such-service.probe.svc.cluster.local", "no such host")
	one.expect(t, "lookup", "example.com", "no such host")
	one.expect(t, "lookup", one.Network.HostName, one.Network.HostIP)
	// Through the service and back to the pod itself, which only works if the reply is translated too.
	one.expect(t, "get", "http://probe.probe/ok", "ok")
	one.expect(t, "get", "https://kubernetes.default/", "certificate")

	for _, i := range []info{one, two} {
		l, err := net.Listen("tcp", net.JoinHostPort(i.Network.HostIP, "0"))
		if err != nil {
			t.Fatal(err)
		}
		from := make(chan string, 100)
		server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from <- r.RemoteAddr
			_, _ = io.WriteString(w, "the host")
		})}
		go func() { _ = server.Serve(l) }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		i.expect(t, "get", "http://"+i.Network.HostName+":"+port, "the host")
		if got := <-from; !strings.HasPrefix(got, i.Network.NodeIP+":") {
			t.Errorf("the host sees a pod as %s, not as the node %s", got, i.Network.NodeIP)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
}

// testPolicies: a NetworkPolicy is a wall, in both directions, and comes down when it is taken away.
func testPolicies(t *testing.T, i info) {
	l, err := net.Listen("tcp", net.JoinHostPort(i.Network.HostIP, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the host")
	})}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	// Each question makes a connection of its own: one that was let through stays open.
	host := func() string { return "http://" + l.Addr().String() }
	_, port, _ := net.SplitHostPort(l.Addr().String())
	apply := func(name, spec string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "policy.json")
		text := `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"namespace":"probe","name":"` + name + `"},"spec":` + spec + `}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		i.run(t, "apply", "-f", path)
	}
	apply("closed", `{"podSelector":{},"policyTypes":["Ingress","Egress"]}`)
	i.expect(t, "get", host(), "error: ")
	i.expect(t, "get", "https://kubernetes.default/", "error: ")
	i.expect(t, "lookup", "kubernetes.default.svc.cluster.local", "error: ")
	// What the node itself asks its pods is always let through: the question came that way.
	i.expect(t, "ok", "", "ok")
	apply("open", `{"podSelector":{"matchLabels":{"app":"probe"}},"policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"`+i.Network.HostIP+`/32"}}],"ports":[{"port":`+port+`}]}]}`)
	i.expect(t, "get", host(), "the host")
	i.expect(t, "lookup", "kubernetes.default.svc.cluster.local", "error: ")
	i.run(t, "-n", "probe", "delete", "networkpolicy", "--all")
	i.expect(t, "get", "https://kubernetes.default/", "certificate")
	i.expect(t, "get", "http://probe.probe/ok", "ok")
}

// testAccess: kubectl port-forward from the host.
func testAccess(t *testing.T, i info) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, i.Kubectl, "--kubeconfig", i.Kubeconfig, "-n", "probe", "port-forward", "deployment/probe", ":8080")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 256)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line[:n]), "127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	resp, err := http.Get("http://127.0.0.1:" + port + "/ok")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" {
		t.Errorf("through port-forward: %q (%v)", body, err)
	}
	cancel()
	_ = cmd.Wait()
}

func testAPI(t *testing.T, i info) {
	token, err := i.ask("file", "/token/token")
	if err != nil {
		t.Fatal(err)
	}
	review := filepath.Join(t.TempDir(), "review.json")
	data, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []string{"probe"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(review, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if user := i.run(t, "create", "-f", review, "-o", "jsonpath={.status.user.username}"); user != "system:serviceaccount:probe:default" {
		t.Errorf("the projected token is reviewed as %q", user)
	}
	// The policy takes a moment to be read.
	eventually(t, 30*time.Second, "admission policy", func() error {
		out, err := i.try("create", "configmap", "forbidden")
		if err == nil {
			_, deleted := i.try("delete", "configmap", "forbidden")
			return fmt.Errorf("was let through: %s (%v)", out, deleted)
		}
		if !strings.Contains(err.Error(), "this name is forbidden") {
			return err
		}
		return nil
	})
	eventually(t, 90*time.Second, "a CronJob's pod completes", func() error {
		out, err := i.try("-n", "probe", "get", "jobs", "-o", "jsonpath={.items[*].status.succeeded}")
		if err != nil || !strings.Contains(out, "1") {
			return fmt.Errorf("succeeded: %q (%v)", out, err)
		}
		return nil
	})
	if log, err := os.ReadFile(i.AuditLog); err != nil || !strings.Contains(string(log), `"resource":"tokenreviews"`) {
		t.Errorf("the audit log lacks the review (%v)", err)
	}
}

// testEtcd: the tools reach etcd from the host, and only with its own certificate.
func testEtcd(t *testing.T, i info) {
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	base := []string{"--endpoints", i.Etcd.Endpoint, "--cacert", i.Etcd.CA}
	args := append(slices.Clone(base), "--cert", i.Etcd.Client.Cert, "--key", i.Etcd.Client.Key, "snapshot", "save", snapshot)
	if out, err := exec.Command(i.Etcd.Etcdctl, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if data, err := os.ReadFile(snapshot); err != nil || !strings.Contains(string(data), "no-forbidden") {
		t.Errorf("the snapshot lacks an object (%v)", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := filepath.Join(i.Dir, "pki", "admin")
	args = append(slices.Clone(base), "--cert", client+".crt", "--key", client+".key", "--command-timeout=5s", "get", "/")
	if out, err := exec.CommandContext(ctx, i.Etcd.Etcdctl, args...).CombinedOutput(); err == nil {
		t.Errorf("the administrator of the API is let into etcd: %s", out)
	}
}

// testVolume: a claim of the default class is bound, written to by a user other than root, kept for the next pod, and
// removed with its claim.
func testVolume(t *testing.T, i info) {
	i.expect(t, "write", "/data/file", "written")
	i.run(t, "-n", "probe", "rollout", "restart", "deployment/probe")
	i.run(t, "-n", "probe", "rollout", "status", "deployment/probe", "--timeout=60s")
	i.probeRuns(t)
	i.expect(t, "file", "/data/file", "kept")

	claim := filepath.Join(t.TempDir(), "claim.json")
	text := `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"brief","namespace":"probe"},` +
		`"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}`
	if err := os.WriteFile(claim, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	i.run(t, "apply", "-f", claim)
	i.run(t, "-n", "probe", "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/brief", "--timeout=30s")
	volume := i.run(t, "-n", "probe", "get", "pvc", "brief", "-o", "jsonpath={.spec.volumeName}")
	if !exists(filepath.Join(i.VolumeDir, volume)) {
		t.Errorf("no folder for volume %s", volume)
	}
	i.run(t, "-n", "probe", "delete", "pvc", "brief")
	eventually(t, 30*time.Second, "the volume goes with its claim", func() error {
		out, err := i.try("get", "pv", volume, "--ignore-not-found", "-o", "name")
		if err != nil || out != "" || exists(filepath.Join(i.VolumeDir, volume)) {
			return fmt.Errorf("volume %q, folder %t (%v)", out, exists(filepath.Join(i.VolumeDir, volume)), err)
		}
		return nil
	})
}

// testCrash: any part may be killed, or all at once, and up makes the cluster whole with its data.
func testCrash(t *testing.T, c tool, i info) {
	uid := func() string {
		return i.run(t, "-n", "probe", "get", "pods", "-l", "app=probe", "-o",
			`jsonpath={range .items[?(@.status.phase=="Running")]}{.metadata.uid}{.status.containerStatuses[0].containerID}{end}`)
	}
	container := uid()
	for _, part := range []string{"kubelet", "containerd", "kube-proxy", "etcd"} {
		kill(t, c.info(t, "one").Pids[part])
		c.run(t, "up", "--name", "one")
		i.probeRuns(t)
		if now := uid(); now != container {
			t.Errorf("after %s was killed, container %s is %s", part, container, now)
		}
	}
	// Without the holder the mounts cannot be entered; all starts again.
	kill(t, c.info(t, "one").Pids["holder"])
	c.run(t, "up", "--name", "one")
	i.probeRuns(t)
	i.expect(t, "file", "/data/file", "kept")

	// Everything at once, as at a restart of the machine, except for the network namespace.
	for _, procs := range trackedProcesses(t, i) {
		_ = syscall.Kill(procs, syscall.SIGKILL)
	}
	eventually(t, 20*time.Second, "everything has ended", func() error {
		if left := trackedProcesses(t, i); len(left) > 0 {
			return fmt.Errorf("%d processes are left", len(left))
		}
		return nil
	})
	shell(t, "umount /run/lethe/"+i.Network.NetNS+" && rm /run/lethe/"+i.Network.NetNS)
	c.run(t, "up", "--name", "one")
	i.probeRuns(t)
	i.expect(t, "file", "/data/file", "kept")
	i.expect(t, "get", "http://probe.probe/ok", "ok")
}

// trackedProcesses are all processes in the cluster's control groups.
func trackedProcesses(t *testing.T, i info) []int {
	t.Helper()
	var out []int
	roots := []string{"/sys/fs/cgroup" + i.Network.Cgroup}
	more, err := filepath.Glob("/sys/fs/cgroup/*" + i.Network.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range append(roots, more...) {
		text, err := exec.Command("sh", "-c", "find "+root+" -name cgroup.procs -exec cat {} + 2>/dev/null; true").Output()
		if err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid > 0 && running(pid) && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// Whenever up is killed, down finds everything that was made, and the host is as it was.
func TestNodeUpIsKilled(t *testing.T) {
	c := newTool(t)
	c.run(t, "assets", "--all")
	before := host(t)
	c.downAfter(t, "k")
	for _, after := range []time.Duration{
		50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, 4 * time.Second, 7 * time.Second, 9 * time.Second,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := c.command(ctx, "up", "--name", "k", "--mode", "node").Run()
		cancel()
		t.Logf("up, killed after %s: %v", after, err)
		c.run(t, "down", "--name", "k")
		if left := mentioning(t, c.cache+"/clusters"); len(left) > 0 {
			t.Errorf("killed after %s: still running: %v", after, left)
		}
		sameHost(t, before)
	}
	c.run(t, "up", "--name", "k", "--mode", "node")
	i := c.info(t, "k")
	c.run(t, "down", "--name", "k")
	c.nodeGone(t, i)
	sameHost(t, before)
}

// Someone who may not run a node is told so in one sentence that names what they can run.
func TestNodeNeedsRoot(t *testing.T) {
	c := newTool(t)
	cmd := c.command(t.Context(), "up", "--name", "u", "--mode", "node")
	// The tool and its cache have to be reachable for the other user.
	for dir := c.cache; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs root") || !strings.Contains(string(out), "--mode simulated") {
		t.Errorf("got %v: %s", err, out)
	}
	if lines := strings.Count(strings.TrimSpace(string(out)), "\n"); lines != 0 {
		t.Errorf("more than one sentence: %s", out)
	}
}
