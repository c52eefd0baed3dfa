//go:build unix

// Command cluster runs real Kubernetes clusters on one machine without a container engine: the API alone, the API with
// simulated nodes, or a real node whose pods run. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/assets"
	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/cluster"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/policies"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
	"github.com/lethe-dev/lethe/hack/cluster/internal/provisioner"
)

const usage = `usage: cluster <command> [flags]

  up          bring a cluster up, or up again; one that is up stays as it is
  down        stop a cluster and remove every trace of it
  status      list clusters, or the parts of one (--name)
  kubeconfig  print the path of a cluster's own kubeconfig
  info        print where everything of a cluster is (-o json)
  load-image  import image archives into the node:  load-image --name N image.tar...
  ctr         talk to the node's containerd:        ctr --name N -- images ls
  assets      build etcd, kube-apiserver and kubectl, print their folder (for KUBEBUILDER_ASSETS); --all: all programs

Each command explains its flags with -h.
`

// command is one of this program's; it gets the arguments after its name.
type command func(ctx context.Context, cacheRoot string, args []string) error

var commands = map[string]command{
	"up": up, "down": down, "status": status, "kubeconfig": kubeconfig, "info": info,
	"load-image": loadImage, "ctr": ctr, "assets": buildAssets,
}

// inner commands are those that this program runs itself with.
var inner = map[string]func(args []string) error{
	process.HelperCommand: process.Helper,
	provisioner.Command:   provisioner.Run,
	policies.Command:      policies.Run,
	node.HoldCommand: func(args []string) error {
		if len(args) != 1 {
			return errors.New("hold a node: one folder is needed")
		}
		return node.Hold(args[0])
	},
}

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		var said alreadySaid
		if errors.As(err, &said) {
			os.Exit(said.code)
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprint(os.Stderr, usage)
		return nil
	}
	if f, ok := inner[args[0]]; ok {
		return f(args[1:])
	}
	f, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("no command %q; the commands are %s", args[0], strings.Join(slices.Sorted(maps.Keys(commands)), ", "))
	}
	root, err := cache.Root()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return f(ctx, root, args[1:])
}

// progress goes to standard error, so that standard output is the answer alone.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "  "+format+"\n", args...) }

func newFlags(name string) (*flag.FlagSet, *string) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	return flags, flags.String("name", "lethe", "`name` of the cluster")
}

// noArgs parses flags and refuses anything after them.
func noArgs(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", flags.Name(), flags.Arg(0))
	}
	return nil
}

func up(ctx context.Context, root string, args []string) error {
	flags, name := newFlags("up")
	mode := flags.String("mode", "", "`mode`: control-plane (API and controllers), simulated (with nodes that only pretend), node (pods run; Linux, root); may be left out for a cluster that exists")
	nodes := flags.Int("nodes", 0, "`number` of simulated nodes (default 1)")
	stages := flags.String("pod-stages", "", "what simulated pods go through: kwok's sets fast, general, chaos or `files` of stages, separated by commas (default fast)")
	noControllers := flags.Bool("no-controllers", false, "leave kube-controller-manager out (mode control-plane)")
	auditLog := flags.Bool("audit-log", false, "keep an audit log of the API")
	auditPolicy := flags.String("audit-policy", "", "audit policy `file` (default: every request without its body)")
	fsync := flags.Bool("fsync", false, "let etcd wait for the disk; without it data survives crashes of programs, not of the machine")
	wait := flags.Duration("wait", 5*time.Minute, "how `long` to wait until all is ready, builds not counted")
	extra := map[string][]string{}
	flags.Func("extra-arg", "`part=argument` to add, such as kube-apiserver=--v=4; may be repeated", func(v string) error {
		part, arg, ok := strings.Cut(v, "=")
		if !ok || arg == "" {
			return errors.New("say part=argument")
		}
		extra[part] = append(extra[part], arg)
		return nil
	})
	if err := noArgs(flags, args); err != nil {
		return err
	}
	options := cluster.Options{Wait: *wait, Progress: progress}
	if *mode == "" {
		only := true
		flags.Visit(func(f *flag.Flag) { only = only && (f.Name == "name" || f.Name == "wait") })
		if !only {
			return errors.New("up: --mode is needed with other settings")
		}
	} else {
		spec := cluster.Spec{
			Mode: cluster.Mode(*mode), Nodes: *nodes, NoControllers: *noControllers,
			AuditLog: *auditLog, Fsync: *fsync,
		}
		if len(extra) > 0 {
			spec.ExtraArgs = extra
		}
		if spec.Mode == cluster.Simulated {
			if spec.Nodes == 0 {
				spec.Nodes = 1
			}
			if *stages == "" {
				*stages = "fast"
			}
		}
		var err error
		if spec.PodStages, err = stageFiles(*stages); err != nil {
			return err
		}
		if *auditPolicy != "" {
			if spec.AuditPolicy, err = filepath.Abs(*auditPolicy); err != nil {
				return fmt.Errorf("up: %w", err)
			}
		}
		options.Spec = &spec
	}
	c, err := cluster.Up(ctx, root, *name, options)
	if err != nil {
		return err
	}
	fmt.Println(c.Kubeconfig())
	return nil
}

// stageFiles leaves the names of kwok's own sets as they are and makes paths absolute.
func stageFiles(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	out := strings.Split(list, ",")
	for i, s := range out {
		if slices.Contains([]string{"fast", "general", "chaos"}, s) {
			continue
		}
		path, err := filepath.Abs(s)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, fmt.Errorf("--pod-stages: %q is none of fast, general, chaos and no file: %w", s, err)
		}
		out[i] = path
	}
	return out, nil
}

func down(_ context.Context, root string, args []string) error {
	flags, name := newFlags("down")
	if err := noArgs(flags, args); err != nil {
		return err
	}
	err := cluster.Down(root, *name, progress)
	if errors.Is(err, cluster.ErrNone) {
		progress("there is no cluster %s", *name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("bring cluster %s down: %w", *name, err)
	}
	progress("cluster %s is gone", *name)
	return nil
}

func status(ctx context.Context, root string, args []string) error {
	flags, name := newFlags("status")
	if err := noArgs(flags, args); err != nil {
		return err
	}
	named := false
	flags.Visit(func(f *flag.Flag) { named = named || f.Name == "name" })
	out := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	if named {
		c, err := cluster.Load(root, *name)
		if err != nil {
			return err
		}
		return errors.Join(partStatus(ctx, out, c), out.Flush())
	}
	all, err := cluster.All(root)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "NAME\tMODE\tPARTS\tSERVER")
	for _, c := range all {
		parts, err := c.Status(ctx)
		if err != nil {
			return err
		}
		good := 0
		for _, p := range parts {
			if p.Problem == "" {
				good++
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%d/%d\t%s\n", c.Name, c.Mode(), good, len(parts), c.Server())
	}
	return out.Flush()
}

// partStatus prints a line per part; an error if one does not serve.
func partStatus(ctx context.Context, out io.Writer, c *cluster.Cluster) error {
	parts, err := c.Status(ctx)
	if err != nil {
		return err
	}
	bad := 0
	fmt.Fprintln(out, "PART\tPID\tSTATUS\tLOG")
	for _, p := range parts {
		pid, problem := fmt.Sprint(p.PID), "ready"
		if p.PID == 0 {
			pid = "-"
		}
		if p.Problem != "" {
			bad, problem = bad+1, strings.ReplaceAll(p.Problem, "\n", " ")
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", p.Name, pid, problem, p.Log)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d parts of cluster %s do not serve; to start them: cluster up --name %s", bad, len(parts), c.Name, c.Name)
	}
	return nil
}

func kubeconfig(_ context.Context, root string, args []string) error {
	flags, name := newFlags("kubeconfig")
	if err := noArgs(flags, args); err != nil {
		return err
	}
	c, err := cluster.Load(root, *name)
	if err != nil {
		return err
	}
	fmt.Println(c.Kubeconfig())
	return nil
}

func info(_ context.Context, root string, args []string) error {
	flags, name := newFlags("info")
	format := flags.String("o", "json", "output `format`; json is the one there is")
	if err := noArgs(flags, args); err != nil {
		return err
	}
	if *format != "json" {
		return fmt.Errorf("info: -o %q: the format is json", *format)
	}
	c, err := cluster.Load(root, *name)
	if err != nil {
		return err
	}
	all, err := c.Info()
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

func loadImage(ctx context.Context, root string, args []string) error {
	flags, name := newFlags("load-image")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("load-image: name at least one image archive")
	}
	c, err := cluster.Load(root, *name)
	if err != nil {
		return err
	}
	return c.LoadImages(ctx, flags.Args()...)
}

func ctr(ctx context.Context, root string, args []string) error {
	flags, name := newFlags("ctr")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := cluster.Load(root, *name)
	if err != nil {
		return err
	}
	cmd, err := c.Ctr(ctx, flags.Args()...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return alreadySaid{exit.ExitCode()}
	}
	return err
}

// alreadySaid is the failure of a program that has told the user about it itself.
type alreadySaid struct{ code int }

func (a alreadySaid) Error() string { return fmt.Sprintf("ended with %d", a.code) }

func buildAssets(_ context.Context, root string, args []string) error {
	flags := flag.NewFlagSet("assets", flag.ContinueOnError)
	all := flags.Bool("all", false, "build the programs of every mode")
	if err := noArgs(flags, args); err != nil {
		return err
	}
	if own := assets.FromEnvironment(); own != "" && !*all {
		fmt.Println(own)
		return nil
	}
	names := assets.ForEnvtest
	if *all {
		names = slices.Sorted(maps.Keys(assets.Programs))
	}
	b := assets.Builder{Cache: root, Progress: progress}
	dir, err := b.Folder(names)
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}
