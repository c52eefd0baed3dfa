package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options of a run.
type options struct {
	bots    int
	tenants int
	workers int
	resyncs int
	profile string
	limit   time.Duration
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == harnessCommand {
		ctrl.SetLogger(logr.Discard())
		if err := harness(ctrl.SetupSignalHandler(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "scale: harness:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.bots, "n", 1000, "number of bots")
	flag.IntVar(&o.tenants, "tenants", 0, "number of tenants (default a tenth of the bots, at most 100)")
	flag.IntVar(&o.workers, "workers", 10, "workers of the manager, and of the bare client")
	flag.IntVar(&o.resyncs, "resyncs", 10, "full resyncs over which nothing may be written")
	flag.StringVar(&o.profile, "profile", "", "folder for profiles of the manager's controllers and of the API server")
	flag.DurationVar(&o.limit, "limit", time.Hour, "give up after this long")
	flag.Parse()
	if o.tenants == 0 {
		o.tenants = min(max(o.bots/10, 1), 100)
	}
	if o.bots < 1 || o.tenants < 1 || o.workers < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done after %s", o.limit))
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		stop()
		os.Exit(1)
	}
}

// run brings everything up, measures, and takes everything down again.
func run(ctx context.Context, o options) (err error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return errors.New("the folder of the sources is unknown")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(file))))
	work, err := os.MkdirTemp("", "lethe-scale-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	b := &bench{options: o, root: root, work: work, out: os.Stdout, begun: time.Now()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.results.print(os.Stdout)
	return nil
}
