//go:build unix

// Package e2e runs the cluster tool as its users do and looks at what it leaves on the machine.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tool is the built cluster command with a cache of its own, whose programs are those of the user's cache.
type tool struct {
	path, cache string
}

func newTool(t *testing.T) tool {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := tool{path: filepath.Join(dir, "cluster"), cache: filepath.Join(dir, "c")}
	out, err := exec.Command("go", "build", "-o", c.path, "..").CombinedOutput()
	if err != nil {
		t.Fatalf("build the tool: %v: %s", err, out)
	}
	// The programs take minutes to build: they come from the user's cache, where this also leaves them.
	real := os.Getenv("LETHE_CACHE")
	if real == "" {
		base := os.Getenv("XDG_CACHE_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				t.Fatal(err)
			}
			base = filepath.Join(home, ".cache")
		}
		real = filepath.Join(base, "lethe")
	}
	for _, d := range []string{filepath.Join(real, "bin"), c.cache} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(real, "bin"), filepath.Join(c.cache, "bin")); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c tool) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Env = append(os.Environ(), "LETHE_CACHE="+c.cache, "KUBEBUILDER_ASSETS=", "KUBECONFIG=/nowhere")
	return cmd
}

// try runs the tool and returns what it prints, errors and progress included.
func (c tool) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := c.command(t.Context(), args...).CombinedOutput()
	t.Logf("cluster %s\n%s", strings.Join(args, " "), out)
	return string(out), err
}

func (c tool) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t, args...)
	if err != nil {
		t.Fatalf("cluster %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// info is what the tests read of a cluster.
type info struct {
	Dir, Kubeconfig, Server, Kubectl, AuditLog string
	Pids                                       map[string]int
	Etcd                                       struct {
		DataDir, Endpoint, CA, Etcdctl string
		Client                         struct{ Cert, Key string }
	}
	Network struct {
		NetNS, HostLink, HostIP, NodeIP, HostName, Cgroup, MountNS string
	}
	Containerd struct{ Root, Socket string }
	VolumeDir  string
}

func (c tool) info(t *testing.T, name string) info {
	t.Helper()
	out, err := c.command(t.Context(), "info", "--name", name, "-o", "json").Output()
	if err != nil {
		t.Fatalf("info: %v", err)
	}
	var i info
	if err := json.Unmarshal(out, &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// downAfter brings the cluster down when the test ends, however it ends.
func (c tool) downAfter(t *testing.T, name string) {
	t.Cleanup(func() {
		out, err := c.command(context.Background(), "down", "--name", name).CombinedOutput()
		if err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
}

func (i info) try(args ...string) (string, error) {
	cmd := exec.Command(i.Kubectl, append([]string{"--kubeconfig", i.Kubeconfig, "--cache-dir", filepath.Join(i.Dir, "cache")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (i info) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := i.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually polls until f is content or the time is over.
func eventually(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		<-tick.C
	}
}

// running says whether a process runs that is not just waiting to be reaped.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) && exists("/proc/self/stat") {
		return false
	}
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	// A process that is killed ends thread by thread. Until the last has (field 20 counts them), it is there, though its first is a zombie.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(fields) < 20 || fields[0] != "Z" || fields[17] != "0" && fields[17] != "1"
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mentioning are the processes whose command line has the text: what was forgotten by every record still has it.
func mentioning(t *testing.T, text string) []string {
	t.Helper()
	out, err := exec.Command("ps", "-ewwo", "pid=,stat=,args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && strings.Contains(line, text) && !strings.HasPrefix(fields[1], "Z") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// kill kills a process and waits for its end.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "process ends", func() error {
		if running(pid) {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
}

// gone checks that nothing is left of a cluster.
func (c tool) gone(t *testing.T, i info) {
	t.Helper()
	for part, pid := range i.Pids {
		if running(pid) {
			t.Errorf("%s (process %d) still runs", part, pid)
		}
	}
	if left := mentioning(t, i.Dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if exists(i.Dir) {
		t.Errorf("%s is still there", i.Dir)
	}
	entries, err := os.ReadDir(filepath.Dir(i.Dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), filepath.Base(i.Dir)) {
			t.Errorf("%s is still there", e.Name())
		}
	}
}

func TestControlPlane(t *testing.T) {
	c := newTool(t)
	c.downAfter(t, "cp")
	c.run(t, "up", "--name", "cp", "--mode", "control-plane", "--audit-log")
	before := c.info(t, "cp")
	for _, part := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		if !running(before.Pids[part]) {
			t.Errorf("%s does not run", part)
		}
	}
	before.run(t, "create", "configmap", "kept", "--from-literal=a=b")
	// The controllers work: this account is made by one.
	eventually(t, 30*time.Second, "default service account", func() error {
		_, err := before.try("get", "serviceaccount", "default")
		return err
	})
	if log, err := os.ReadFile(before.AuditLog); err != nil || !bytes.Contains(log, []byte(`"name":"kept"`)) {
		t.Errorf("the audit log lacks the request (%v)", err)
	}

	if out := c.run(t, "up", "--name", "cp"); !strings.Contains(out, "is up already") {
		t.Errorf("up of what is up: %s", out)
	}
	if again := c.info(t, "cp"); fmt.Sprint(again.Pids) != fmt.Sprint(before.Pids) {
		t.Errorf("processes changed from %v to %v", before.Pids, again.Pids)
	}
	if out, err := c.try(t, "up", "--name", "cp", "--mode", "simulated"); err == nil {
		t.Errorf("another mode for a cluster that is up: %s", out)
	}

	for _, part := range []string{"kube-controller-manager", "kube-apiserver", "etcd"} {
		kill(t, c.info(t, "cp").Pids[part])
		if out, err := c.try(t, "status", "--name", "cp"); err == nil || !strings.Contains(out, "has ended") {
			t.Errorf("status after %s was killed: %v: %s", part, err, out)
		}
		c.run(t, "up", "--name", "cp")
		if out := before.run(t, "get", "configmap", "kept", "-o", "name"); !strings.Contains(out, "kept") {
			t.Errorf("after %s was killed: %q", part, out)
		}
	}
	after := c.info(t, "cp")
	if after.Pids["etcd"] == before.Pids["etcd"] {
		t.Error("etcd was killed and has the same process")
	}
	c.run(t, "down", "--name", "cp")
	c.gone(t, after)
	if out := c.run(t, "down", "--name", "cp"); !strings.Contains(out, "no cluster") {
		t.Errorf("down of what is gone: %s", out)
	}
}

// After a restart of the machine a cluster goes on with its data if etcd has waited for the disk, else it begins anew.
func TestMachineRestarts(t *testing.T) {
	c := newTool(t)
	for name, args := range map[string][]string{"torn": nil, "durable": {"--fsync"}} {
		c.downAfter(t, name)
		c.run(t, append([]string{"up", "--name", name, "--mode", "control-plane", "--no-controllers"}, args...)...)
		i := c.info(t, name)
		i.run(t, "create", "configmap", "kept")
		for _, pid := range i.Pids {
			kill(t, pid)
		}
		file := filepath.Join(i.Dir, "state.json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var state map[string]any
		if err := json.Unmarshal(text, &state); err != nil {
			t.Fatal(err)
		}
		state["boot"] = "an earlier one"
		if text, err = json.Marshal(state); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out := c.run(t, "up", "--name", name)
		if anew := strings.Contains(out, "beginning anew"); anew != (name == "torn") {
			t.Errorf("%s: began anew: %t", name, anew)
		}
		_, err = c.info(t, name).try("get", "configmap", "kept")
		if kept := err == nil; kept != (name == "durable") {
			t.Errorf("%s: data kept: %t (%v)", name, kept, err)
		}
		c.run(t, "status", "--name", name)
		c.run(t, "down", "--name", name)
		c.gone(t, i)
	}
}

// Whenever up is killed, the next up makes the cluster whole and down finds everything that was started.
func TestUpIsKilled(t *testing.T) {
	c := newTool(t)
	c.run(t, "assets")
	c.downAfter(t, "k")
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond} {
		for _, again := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			// The context kills it with SIGKILL.
			err := c.command(ctx, "up", "--name", "k", "--mode", "control-plane", "--no-controllers").Run()
			cancel()
			t.Logf("up, killed after %s: %v", after, err)
			if again {
				c.run(t, "up", "--name", "k", "--mode", "control-plane", "--no-controllers")
				c.run(t, "status", "--name", "k")
			}
			c.run(t, "down", "--name", "k")
			if left := mentioning(t, c.cache+"/clusters"); len(left) > 0 {
				t.Fatalf("killed after %s, up again %t: still running: %v", after, again, left)
			}
			entries, err := os.ReadDir(filepath.Join(c.cache, "clusters"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
				t.Fatalf("killed after %s, up again %t: left: %v (%v)", after, again, entries, err)
			}
		}
	}
}

// A start that fails says which part, why, and where its log is.
func TestFailureSaysWhichPartAndWhy(t *testing.T) {
	c := newTool(t)
	c.downAfter(t, "f")
	out, err := c.try(t, "up", "--name", "f", "--mode", "control-plane", "--no-controllers", "--wait", "1m",
		"--extra-arg", "kube-apiserver=--no-such-flag")
	if err == nil {
		t.Fatal("an API server with an unknown flag came up")
	}
	for _, want := range []string{"kube-apiserver did not become ready", "has ended", "kube-apiserver.log", "unknown flag: --no-such-flag"} {
		if !strings.Contains(out, want) {
			t.Errorf("the message lacks %q: %s", want, out)
		}
	}
	i := c.info(t, "f")
	c.run(t, "down", "--name", "f")
	c.gone(t, i)
}

func TestSimulated(t *testing.T) {
	c := newTool(t)
	c.downAfter(t, "s")
	c.run(t, "up", "--name", "s", "--mode", "simulated", "--nodes", "3")
	i := c.info(t, "s")
	if nodes := strings.Fields(i.run(t, "get", "nodes", "-o", "name")); len(nodes) != 3 {
		t.Errorf("nodes: %v", nodes)
	}
	i.run(t, "create", "deployment", "d", "--image=none", "--replicas=5")
	eventually(t, time.Minute, "simulated pods are ready", func() error {
		if out, err := i.try("get", "deployment", "d", "-o", "jsonpath={.status.readyReplicas}"); err != nil || out != "5" {
			return fmt.Errorf("ready: %q (%v)", out, err)
		}
		return nil
	})
	c.run(t, "down", "--name", "s")
	c.gone(t, i)
}

func TestBadInput(t *testing.T) {
	c := newTool(t)
	for want, args := range map[string][]string{
		"the commands are":  {"start"},
		"--name":            {"up", "--name", "../x", "--mode", "control-plane"},
		"the modes are":     {"up", "--name", "x", "--mode", "nodes"},
		"say --mode":        {"up", "--name", "x"},
		"no such cluster":   {"kubeconfig", "--name", "x"},
		"unexpected":        {"down", "x"},
		"no file":           {"up", "--name", "x", "--mode", "simulated", "--pod-stages", "quick"},
		"say part=argument": {"up", "--name", "x", "--mode", "simulated", "--extra-arg", "etcd"},
		"at least one":      {"load-image", "--name", "x"},
	} {
		out, err := c.try(t, args...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("cluster %v: %v: the message lacks %q: %s", args, err, want, out)
		}
	}
	if entries, err := os.ReadDir(c.cache); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "clusters" }) {
		t.Errorf("a refused command left %v (%v)", entries, err)
	}
}
