package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/chatdb"
	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/stage"
)

// demo is one run. Each step leaves here what later ones need.
type demo struct {
	*stage.Stage
	out       io.Writer
	simulated bool
	theirs    *theirs // nil: the cluster is the demo's own

	info     stage.Info
	client   client.Client
	telegram *stage.Telegram
	token    string // of acme's bot
	control  string // written on purpose, so that the search is known to find things
	botID    int64

	postgres *pg.Server // as this machine reaches it
	database address    // as pods do
	filled   time.Time
	promise  chatdb.Windows
	oracle   chatdb.Verdicts
}

// address of a server.
type address struct {
	host string
	port int32
}

// step is one act. It checks its own outcome: what is not as its title says is an error.
type step struct {
	title string
	run   func(context.Context) error
	where where
}

// where a step is played.
type where int

const (
	realNode    where = 1 << iota // on the demo's own node, where pods really run
	pretended                     // on the demo's own cluster, where they only pretend
	theirsAlone                   // on a cluster that is somebody's

	pods     = realNode | theirsAlone
	own      = realNode | pretended
	anywhere = pods | pretended
)

// where this run is played.
func (d *demo) where() where {
	switch {
	case d.theirs != nil:
		return theirsAlone
	case d.simulated:
		return pretended
	default:
		return realNode
	}
}

func (d *demo) steps() []step {
	return []step{
		{"1  Build what is needed, and start a cluster of one node", d.startCluster, own},
		{"1  Clear what an earlier run left", d.clear, own},
		{"1  Build what is needed", d.buildTheirs, theirsAlone},
		{"1  Remove what an earlier run left", d.clearTheirs, theirsAlone},
		{"1  Bring the images to the nodes", d.bringTheirs, theirsAlone},
		{"2  Install Lethe with its chart; the key-encryption key is a file on a volume of its own", d.install, realNode},
		{"2  Install Lethe with its chart; manager and keyserver run on this machine, since pods only pretend", d.installOnHost, pretended},
		{"2  Install Lethe with its chart; the key-encryption key is a file on a volume of its own", d.installTheirs, theirsAlone},
		{"3  Two customers, acme and globex, and the platform's own tenant", d.tenants, anywhere},
		{"3  A stand-in for Telegram on a private address that only acme's tenant opens", d.door, realNode},
		{"3  A stand-in for Telegram in a pod whose address only acme's tenant opens", d.doorTheirs, theirsAlone},
		{"3  Seal the bot's token to acme's public key, and apply the bot", d.bot, anywhere},
		{"3  Write to the bot, and read its answer", d.talk, pods},
		{"4  Look for the token, the private keys and the key-encryption key where they must not be", d.leaks, realNode},
		{"4  Look for the token, the private keys and the key-encryption key in all that the API shows", d.leaksTheirs, theirsAlone},
		{"4  A snapshot of etcd opens nothing without the key-encryption key, and everything with it", d.snapshot, realNode},
		{"4  The Secrets open nothing without the key-encryption key, and everything with it", d.secretsTheirs, theirsAlone},
		{"5  A chat product's PostgreSQL with 300 000 messages of two customers", d.fill, pods},
		{"5  Audit: measure what the promise would delete, and delete nothing", d.audit, pods},
		{"5  Approve the plan, and enforce it", d.enforce, pods},
		{"5  Compare what is left with what was worked out before the sweep", d.compare, pods},
		{"5  Everything that Lethe knows", d.everything, anywhere},
	}
}

func (d *demo) up(ctx context.Context) error {
	if err := d.Open(); err != nil {
		return err
	}
	began := time.Now()
	if err := d.play(ctx, d.steps()); err != nil {
		return fmt.Errorf("%w\n\nWhat was started is still there: %s", err, d.theirs.afterFailure())
	}
	d.say("\nAll of it took %s. It stays up.", took(began))
	d.lookAround()
	return nil
}

// play takes those of the steps that are for where this run is.
func (d *demo) play(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if s.where&d.where() == 0 {
			continue
		}
		d.say("\n%s", s.title)
		start := time.Now()
		if err := s.run(ctx); err != nil {
			d.say("   failed after %s", took(start))
			return fmt.Errorf("step %q: %w", s.title, err)
		}
		d.say("   done in %s", took(start))
	}
	return nil
}

func (d *demo) down(ctx context.Context) error {
	if _, err := os.Stat(d.Dir); errors.Is(err, fs.ErrNotExist) {
		d.say("There is no demo to take down.")
		return nil
	}
	if err := d.Down(ctx); err != nil {
		return err
	}
	d.say("The demo is gone: its processes, its cluster with mounts and links, its database and its files.")
	return nil
}

func took(start time.Time) string { return time.Since(start).Round(100 * time.Millisecond).String() }

// say prints a line. A reader that has gone is no reason to stop.
func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// note prints a line that belongs to the step above it.
func (d *demo) note(format string, args ...any) { d.say("   "+format, args...) }

// indented moves lines of other programs to the right.
type indented struct{ w io.Writer }

// Write implements io.Writer.
func (i indented) Write(p []byte) (int, error) {
	for line := range lines(p) {
		if _, err := fmt.Fprintf(i.w, "   %s\n", line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// lookAround says what there is to see.
func (d *demo) lookAround() {
	if d.theirs == nil {
		d.say("\n6  Look around, with a kubeconfig of the demo's own:\n")
	} else {
		d.say("\n6  Look around, with a kubeconfig of this context alone:\n")
	}
	d.say("   export KUBECONFIG=%s", d.Kubeconfig())
	d.say("   export PATH=%s:$PATH", d.Path("bin"))
	for _, c := range d.commands() {
		d.say("   %s", c)
	}
	d.say("\n   The manifests that were applied: %s", d.Path("manifests"))
	d.say("\n   make demo-down%s removes every trace.", d.theirs.words())
}

func (d *demo) commands() []string {
	c := []string{
		"kubectl get lethe --all-namespaces",
		"kubectl describe tenant acme",
		"kubectl -n acme-bots get all,networkpolicies,resourcequotas",
		"kubectl -n acme-bots get bot support -o yaml",
	}
	if d.simulated {
		return c
	}
	return append(c,
		"kubectl lethe plan platform-data/chat",
		"kubectl lethe verify platform-data/chat",
		"kubectl -n platform-data get cronjobs,jobs,configmaps",
		"kubectl -n acme-bots logs support-bot-0",
	)
}
