// Package e2e plays Lethe's whole way on a real node, as assertions: pods run, secrets are looked for on the disk,
// rows go. It needs root on Linux, and fails where it has neither: no test passes by running nothing. On a cluster
// that is somebody's, which it is given by make test-e2e CLUSTER=current, it runs the parts that need no access to a
// node, and names those that it does not.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/test/stage"
)

// world is what the parts of the run share.
type world struct {
	*stage.Stage
	info     stage.Info
	cfg      *rest.Config
	client   client.Client
	telegram *stage.Telegram
	botImage string
	given    *stage.Given      // nil: the cluster is the run's own
	ran      int               // parts
	canaries map[string][]byte // every secret that was ever handed in, by name
	hosted   *hosted
	ends     []func(*testing.T) // of what a part has started and a later one needs
}

var shared *world

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	if given := os.Getenv(stage.GivenVariable); given != "" {
		os.Exit(runGiven(m, given))
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: nothing was run: pods that really run need Linux and root")
		os.Exit(1)
	}
	os.Exit(run(m))
}

// run is TestMain with defers.
func run(m *testing.M) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w, err := open(ctx)
	defer func() {
		if w == nil {
			return
		}
		// Also after an interruption: nothing is left behind.
		if err := w.Down(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
		for _, left := range traces(w) {
			fmt.Fprintln(os.Stderr, "e2e: left behind:", left)
			code = 1
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	shared = w
	return m.Run()
}

// open sets the stage up: a fresh cluster, Lethe by its chart, the stand-in for Telegram.
func open(ctx context.Context) (*world, error) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lethe-e2e-")
	if err != nil {
		return nil, err
	}
	w := &world{
		Stage:    &stage.Stage{Root: root, Dir: dir, Cluster: "lethe-e2e", Realm: "e2e", Progress: os.Stderr},
		canaries: map[string][]byte{},
	}
	if err := w.Open(); err != nil {
		return w, err
	}
	// What an interrupted run left would be taken for this one's: the audit log above all.
	if err := w.DownCluster(ctx); err != nil {
		return w, err
	}
	if err := w.Build(ctx, true); err != nil {
		return w, err
	}
	if err := w.Up(ctx, "node", "--audit-log"); err != nil {
		return w, err
	}
	if w.info, err = w.Info(ctx); err != nil {
		return w, err
	}
	if w.cfg, err = w.RESTConfig(); err != nil {
		return w, err
	}
	if w.client, err = w.Client(); err != nil {
		return w, err
	}
	if err := w.LoadImages(ctx); err != nil {
		return w, err
	}
	if w.botImage, err = w.BotImage(); err != nil {
		return w, err
	}
	if err := w.PrepareKEK(ctx); err != nil {
		return w, err
	}
	if err := w.Install(ctx); err != nil {
		return w, err
	}
	if w.telegram, err = w.StartTelegram(ctx, w.info.Network.HostIP); err != nil {
		return w, err
	}
	return w, nil
}

// traces are processes, mounts and links that name the cluster after it was taken down.
func traces(w *world) []string {
	var left []string
	names := []string{w.Dir, w.info.Dir}
	ours := func(text string) bool {
		for _, n := range names {
			if n != "" && strings.Contains(text, n) {
				return true
			}
		}
		return false
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range processes {
		if b, err := os.ReadFile(p); err == nil && ours(string(b)) {
			left = append(left, "process "+filepath.Base(filepath.Dir(p))+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if ours(line) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if link := w.info.Network.HostLink; link != "" {
		if _, err := os.Stat("/sys/class/net/" + link); err == nil {
			left = append(left, "link "+link)
		}
	}
	for _, path := range names {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			left = append(left, "folder "+path)
		}
	}
	return left
}

// part of the whole run.
type part struct {
	name string
	run  func(*testing.T, *world)
	// node is what the part does that an API server alone does not let anybody do: it is not run on a cluster that is
	// somebody's. Empty: it is.
	node string
}

func parts() []part {
	return []part{
		{"a bot answers, and never polls twice during rollouts", botAnswers, ""},
		{"a bot reaches what its tenant has opened, and nothing else", walls, "sends packets from a pod's network namespace"},
		{"a bad image and a wrong token are set", badImage, ""},
		{"a value sealed for another tenant is refused, and repeated nowhere", wrongPlace, ""},
		{"one tenant takes all that the kernel counts, and others still get theirs", takesAll, "takes what the node's kernel has"},
		{"states tell why, within 15 seconds", statesTellWhy, "ends processes, and stops the node's kubelet"},
		{"an image of anybody's finds what it needs", anyImage, ""},
		{"two programs that people run are hosted, and answer", programs, "has a messenger on this machine, which your nodes need not reach"},
		{"a tenant's people cannot climb", tenantUser, ""},
		{"the manager's identity cannot climb", managerIdentity, ""},
		{"who has Kubernetes' own role edit reaches and reads nothing", editorReachesNothing, "sends packets from a pod's network namespace"},
		{"data is forgotten exactly", forgets, ""},
		{"both programs know after a restart what they knew", programsAgain, "has a messenger on this machine, which your nodes need not reach"},
		{"both are told, and a good image recovers by itself", goodImage, ""},
		{"what is changed by hand is put right", drift, ""},
		{"a namespace that is taken off a tenant keeps nothing of ours", takenOff, ""},
		{"a volume outlives its workload, and a foreign one is not mounted", volumes, "reads and writes volumes on the node"},
		{"other people's clusters change pods, answer DNS elsewhere and keep images private", otherClusters, "changes the cluster's DNS, its admission and containerd's settings"},
		{"gone is gone within a minute after a manager leads", goneIsGone, ""},
		{"a sweep stops within 30 seconds when the policy is put back to Audit", putBack, "reads the API server's audit log"},
		{"a thousand secrets leave no trace", thousandCanaries, "searches the disks of the node and of etcd"},
		{"a snapshot opens nothing without the key-encryption key", snapshots, "takes a snapshot of etcd"},
		{"an uninstallation is refused while tenants exist", uninstallRefused, ""},
		{"deletion leaves nothing", deletionLeavesNothing, "deletes every object of Lethe's kinds that there is"},
		{"an uninstallation without tenants works, and keeps the schemas", uninstall, "leaves CustomResourceDefinitions behind"},
		{"nothing is granted that was never used", unusedGrants, "reads the API server's audit log"},
	}
}

// TestEndToEnd is the whole run. Its parts share the cluster and are played in this order; each makes the tenants
// that it needs, and the last ones look back on all the others.
func TestEndToEnd(t *testing.T) {
	w := shared
	defer func() {
		for _, end := range w.ends {
			end(t)
		}
	}()
	for _, p := range parts() {
		if w.given != nil && p.node != "" {
			t.Logf("not run on this cluster: %q, which %s", p.name, p.node)
			continue
		}
		w.ran++
		t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) { p.run(t, w) })
	}
	if w.ran == 0 {
		t.Fatal("nothing was run")
	}
}

// enough says why a run is not one: fewer parts than those that every cluster can have.
func enough(ran int, all []part) error {
	want := 0
	for _, p := range all {
		if p.node == "" {
			want++
		}
	}
	if ran == 0 || ran < want {
		return fmt.Errorf("%d parts were run, and %d can be on any cluster", ran, want)
	}
	return nil
}
