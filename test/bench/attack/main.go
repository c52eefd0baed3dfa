// Command attack measures what one tenant can take from everybody: a cluster with a real node, Lethe by its chart
// with the chart's own limits, one tenant whose every pod and object does its worst, and 20 other tenants with new
// bots, measured quiet first and then under attack. It ends with lines for machines:
//
//	keyserver_rss_peak_mib=, manager_rss_peak_mib=  most resident memory of one process (limits 256 and 512)
//	restarts=                restarts of containers of Lethe's
//	victim_ready_p99_ratio=  time from creation to Ready of other tenants' new bots, under attack over quiet
//	victim_unseal_failed=    pods of other tenants whose unsealing failed, and bots that never came up
//	etcd_growth_mib=         growth of etcd's file from the beginning of the attack to its end
//
// Usage, as root: attack [-pods N] [-updates N] [-victims N] [-attack-time D]
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

// options of a run.
type options struct {
	pods, updates, victims, connections int
	attackTime                          time.Duration
	cpu                                 string
}

func main() {
	var o options
	flag.IntVar(&o.pods, "pods", 8, "pods of the attacking tenant")
	flag.IntVar(&o.updates, "updates", 10000, "updates of one object of the attacking tenant's")
	flag.IntVar(&o.victims, "victims", 20, "other tenants")
	flag.IntVar(&o.connections, "connections", 10, "connections of each kind of attack, of each pod to each keyserver")
	flag.DurationVar(&o.attackTime, "attack-time", 4*time.Minute, "longest time of the attack")
	flag.StringVar(&o.cpu, "cpu", "100m", "CPU limit of each attacking pod")
	flag.Parse()
	if o.pods < 1 || o.pods > 40 || o.updates < 0 || o.victims < 1 || o.victims > 50 || o.connections < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Minute, errors.New("not done after 20 minutes"))
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}

// run brings everything up, measures, and takes everything down again.
func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("pods that really run need Linux and root")
	}
	root, err := stage.RepositoryRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lethe-attack-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	b := &bench{options: o, Stage: &stage.Stage{Root: root, Dir: dir, Cluster: "lethe-attack", Realm: "attack", Progress: os.Stderr}, begun: time.Now()}
	defer func() { err = errors.Join(err, b.Down(context.WithoutCancel(ctx))) }()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	defer b.orders.close()
	return b.measure(ctx)
}
