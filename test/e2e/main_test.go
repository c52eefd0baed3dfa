// Package e2e plays Lethe's whole way on a real node, as assertions: pods run, secrets are looked for on the disk, rows go.
// It needs root on Linux, and fails where it has neither: no test passes by running nothing.
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

	"github.com/lethe-dev/lethe/hack/demo/stage"
)

// world is what the parts of the run share.
type world struct {
	*stage.Stage
	info     stage.Info
	cfg      *rest.Config
	client   client.Client
	telegram *stage.Telegram
	botImage string
	canaries map[string][]byte // every secret that was ever handed in, by name
	hosted   *hosted
	ends     []func(*testing.T) // of what a part has started and a later one needs
}

var shared *world

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
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

// TestEndToEnd is the whole run. Its parts share the cluster and are played in this order; each makes the tenants that it
// needs, and the last ones look back on all the others.
func TestEndToEnd(t *testing.T) {
	w := shared
	defer func() {
		for _, end := range w.ends {
			end(t)
		}
	}()
	for _, part := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"a bot answers, and never polls twice during rollouts", botAnswers},
		{"a bot reaches what its tenant has opened, and nothing else", walls},
		{"a bad image and a wrong token are set", badImage},
		{"a value sealed for another tenant is refused, and repeated nowhere", wrongPlace},
		{"one tenant takes all that the kernel counts, and others still get theirs", takesAll},
		{"states tell why, within 15 seconds", statesTellWhy},
		{"an image of anybody's finds what it needs", anyImage},
		{"two programs that people run are hosted, and answer", programs},
		{"a tenant's people cannot climb", tenantUser},
		{"the manager's identity cannot climb", managerIdentity},
		{"who has Kubernetes' own role edit reaches and reads nothing", editorReachesNothing},
		{"data is forgotten exactly", forgets},
		{"both programs know after a restart what they knew", programsAgain},
		{"both are told, and a good image recovers by itself", goodImage},
		{"what is changed by hand is put right", drift},
		{"a namespace that is taken off a tenant keeps nothing of ours", takenOff},
		{"a volume outlives its workload, and a foreign one is not mounted", volumes},
		{"other people's clusters change pods, answer DNS elsewhere and keep images private", otherClusters},
		{"gone is gone within a minute after a manager leads", goneIsGone},
		{"a sweep stops within 30 seconds when the policy is put back to Audit", putBack},
		{"a thousand secrets leave no trace", thousandCanaries},
		{"a snapshot opens nothing without the key-encryption key", snapshots},
		{"an uninstallation is refused while tenants exist", uninstallRefused},
		{"deletion leaves nothing", deletionLeavesNothing},
		{"an uninstallation without tenants works, and keeps the schemas", uninstall},
		{"nothing is granted that was never used", unusedGrants},
	} {
		t.Run(strings.ReplaceAll(part.name, " ", "_"), func(t *testing.T) { part.run(t, w) })
	}
}
