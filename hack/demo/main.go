// Command demo plays the whole of Lethe on this machine: a real one-node cluster, two customers, a bot that answers,
// and a database that forgets. `make demo` runs it, `make demo-down` removes every trace.
//
//	demo up                     as root on Linux: pods really run
//	demo up --simulated         anywhere: nodes only pretend, so there is no bot to talk to and nothing is deleted
//	demo up --cluster current   anywhere: on the cluster that the user's kubeconfig names, after a question
//	demo test --cluster current the end-to-end tests that need no node's files, on that cluster, and removes all that they made
//	demo down [--cluster current]
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
	"slices"
	"syscall"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/test/stage"
)

const usage = `usage: demo up [--simulated | --cluster current ...] | demo test --cluster current ... | demo down [--cluster current ...]
  up      play the demo and leave it running
  test    run the end-to-end tests that need no access to a node, and remove every trace of them
  down    remove every trace of it`

// options of both commands.
type options struct {
	simulated                                                          bool
	cluster, context, image, load, postgres, storageClass, values, yes string
}

func (o *options) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet("demo "+name, flag.ContinueOnError)
	f.StringVar(&o.cluster, "cluster", "", "current: the cluster that your kubeconfig names; left out, one of the demo's own on this machine")
	f.StringVar(&o.context, "context", "", "with --cluster current: another context of your kubeconfig than the current one")
	f.StringVar(&o.yes, "yes", "", "with --cluster current: the answer to the question, given beforehand: the context's name")
	if name == "down" {
		return f
	}
	f.BoolVar(&o.simulated, "simulated", false, "simulated nodes: the Kubernetes half only, without root")
	f.StringVar(&o.image, "image", "", "with --cluster current: a repository that you may push to and nodes pull from, without a tag")
	f.StringVar(&o.load, "load", "", "with --cluster current: kind, k3d, minikube, or a command that brings an image's archive, named behind it, to every node")
	f.StringVar(&o.postgres, "postgres", "", "with --cluster current: an image of PostgreSQL, where none can be made of this machine's")
	f.StringVar(&o.storageClass, "storage-class", "", "with --cluster current: the class of the key-encryption key's volume; left out, the default one")
	f.StringVar(&o.values, "values", "", "with --cluster current: a file with values of the chart, as docs/platforms.md has them")
	return f
}

// check says which options do not go together.
func (o *options) check() error {
	switch {
	case o.cluster != "" && o.cluster != "current":
		return fmt.Errorf("CLUSTER=%s is not known: current is the cluster that your kubeconfig names; left out, the demo makes one of its own", o.cluster)
	case o.cluster == "current" && o.simulated:
		return errors.New("--simulated makes a cluster of the demo's own, and --cluster current takes yours: say one of them")
	case o.cluster == "" && (o.context != "" || o.image != "" || o.load != "" || o.postgres != "" || o.storageClass != "" || o.values != "" || o.yes != ""):
		return errors.New("CONTEXT, IMAGE, LOAD, POSTGRES, STORAGE_CLASS, VALUES and YES are for a cluster of yours: say CLUSTER=current as well")
	}
	return nil
}

func main() {
	ctrllog.SetLogger(logr.Discard()) // it would complain that nobody has set one
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup has it ignored
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends it at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	if !slices.Contains([]string{"up", "test", "down"}, args[0]) {
		return errors.New(usage)
	}
	var o options
	flags := o.flags(args[0])
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return errors.New(usage)
	}
	if err := o.check(); err != nil {
		return err
	}
	if args[0] == "test" && o.cluster == "" {
		return errors.New("demo test is for a cluster of yours: say --cluster current as well; make test-e2e makes one of its own")
	}
	if o.cluster == "current" {
		return runTheirs(ctx, args[0], o, out)
	}
	s, err := newStage(out)
	if err != nil {
		return err
	}
	d := &demo{Stage: s, out: out, simulated: o.simulated}
	if args[0] == "down" {
		return d.down(ctx)
	}
	if err := machineCan(d.simulated, runtime.GOOS, os.Geteuid()); err != nil {
		return err
	}
	return d.up(ctx)
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
