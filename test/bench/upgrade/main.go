// Command upgrade measures what a new Lethe does to a fleet: a cluster with a real node, Lethe by its chart, bots
// that run and one that is broken. It ends with lines for machines:
//
//	restarted_bots=     pods that were restarted or replaced by an upgrade to another image of Lethe
//	old_pod_unsealed=   1 when a pod made by the Lethe of before got its credentials from the new one
//	max_not_ready=      bots that were not ready at a time, sampled each second, while a change that must restart all of them goes round
//	rolled_bots=        bots that got it, the broken one included
//	stopped_after=      bots that were restarted by a change with which they fail
//	said_stopped=       bots whose condition says that it was stopped
//	resumed_bots=       bots that had it once the cause was gone
//
// Usage, as root: upgrade [-bots N]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/lethe-dev/lethe/test/stage"
)

func main() {
	bots := flag.Int("bots", 30, "bots that run")
	flag.Parse()
	if *bots < 4 || *bots > 80 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Hour, errors.New("not done after an hour"))
	defer cancel()
	if err := run(ctx, *bots); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

// run brings everything up, measures, and takes everything down again.
func run(ctx context.Context, bots int) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("pods that really run need Linux and root")
	}
	root, err := stage.RepositoryRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lethe-upgrade-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	b := &bench{n: bots, Stage: &stage.Stage{Root: root, Dir: dir, Cluster: "lethe-upgrade", Realm: "upgrade", Progress: os.Stderr}, begun: time.Now()}
	defer func() { err = errors.Join(err, b.close(), b.Down(context.WithoutCancel(ctx))) }()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	return errors.Join(b.newImage(ctx), b.mustRoll(ctx), b.fails(ctx))
}
