// Command demo plays the whole of Lethe on this machine: a real one-node cluster, two customers, a bot that answers, and a
// database that forgets. `make demo` runs it, `make demo-down` removes every trace.
//
//	demo up               as root on Linux: pods really run
//	demo up --simulated   anywhere: nodes only pretend, so there is no bot to talk to and nothing is deleted
//	demo down
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/hack/demo/stage"
)

const usage = `usage: demo up [--simulated] | demo down
  up      play the demo and leave it running
  down    remove every trace of it`

func main() {
	ctrllog.SetLogger(logr.Discard()) // it would complain that nobody has set one
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("demo "+args[0], flag.ContinueOnError)
	simulated := flags.Bool("simulated", false, "simulated nodes: the Kubernetes half only, without root")
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return errors.New(usage)
	}
	s, err := newStage(out)
	if err != nil {
		return err
	}
	d := &demo{Stage: s, out: out, simulated: *simulated}
	switch args[0] {
	case "up":
		if err := machineCan(d.simulated, runtime.GOOS, os.Geteuid()); err != nil {
			return err
		}
		return d.up(ctx)
	case "down":
		return d.down(ctx)
	default:
		return errors.New(usage)
	}
}

// newStage is where the demo's things are, in the user's cache.
func newStage(out io.Writer) (*stage.Stage, error) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	cache, err := stage.CacheDir()
	if err != nil {
		return nil, err
	}
	return &stage.Stage{
		Root: root, Dir: filepath.Join(cache, "demo"), Cluster: "lethe-demo", Realm: "demo",
		Progress: indented{out},
	}, nil
}

// machineCan says why this machine cannot run a node, and what can be had instead.
func machineCan(simulated bool, goos string, euid int) error {
	if simulated {
		return nil
	}
	const instead = "the half of it that is Kubernetes runs anywhere on simulated nodes: go run ./hack/demo up --simulated"
	switch {
	case goos != "linux":
		return fmt.Errorf("pods really run in this demo, which needs Linux; this is %s. %s", goos, instead)
	case euid != 0:
		return fmt.Errorf("pods really run in this demo, which needs root (a network namespace, mounts, containerd): sudo make demo. %s", instead)
	}
	return nil
}
