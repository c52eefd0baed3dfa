package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/lethe-dev/lethe/test/guest"
	"github.com/lethe-dev/lethe/test/stage"
)

// theirs is a run on a cluster that is somebody's.
type theirs struct {
	guest    *guest.Guest
	facts    guest.Facts
	wishes   guest.Wishes
	config   *clientcmdapi.Config // of this cluster and no other
	programs map[string]string    // images that are made beside the demo's
	images   stage.TheirImages
	services *stage.Services
}

// words are what is said behind make demo and make demo-down.
func (t *theirs) words() string {
	if t == nil {
		return ""
	}
	return " CLUSTER=current"
}

// afterFailure is what can be done then.
func (t *theirs) afterFailure() string {
	if t == nil {
		return "make demo goes on with it, make demo-down removes it"
	}
	return "make demo CLUSTER=current removes it and begins again, make demo-down CLUSTER=current removes it"
}

// runTheirs looks, refuses or asks, and only then begins.
func runTheirs(ctx context.Context, command string, o options, out io.Writer) error {
	play := guest.Demo
	if command == "test" {
		play = guest.EndToEnd
	}
	d, err := openTheirs(ctx, play, o, out)
	if err != nil {
		return err
	}
	t := d.theirs
	defer func() {
		if t.services != nil {
			t.services.Close()
		}
		t.guest.Release(context.WithoutCancel(ctx))
	}()
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	if command == "down" {
		return d.downTheirs(ctx, o, terminal)
	}
	problems := t.facts.Problems(t.wishes)
	if len(problems) == 0 {
		problems = append(problems, t.machineLacks(o)...)
	}
	if err := guest.Refused(problems); err != nil {
		return err
	}
	if err := guest.Agree(os.Stdin, out, terminal, o.yes, t.facts.Question(play, t.wishes), t.facts.Context); err != nil {
		return err
	}
	if d.KubectlPath, err = exec.LookPath("kubectl"); err != nil {
		return fmt.Errorf("find kubectl: %w", err)
	}
	if err := d.Open(); err != nil {
		return err
	}
	if err := clientcmd.WriteToFile(*t.config, d.Kubeconfig()); err != nil {
		return fmt.Errorf("keep the kubeconfig of this cluster: %w", err)
	}
	// It may be an administrator's: it stays only where a demo does.
	defer func() {
		if t.guest.Begun == "" {
			_ = os.Remove(d.Kubeconfig()) // make demo-down removes it where this does not
		}
	}()
	if d.client, err = d.Client(); err != nil {
		return err
	}
	if command == "test" {
		t.programs = testPrograms
		return d.test(ctx)
	}
	return d.up(ctx)
}

// openTheirs looks at the cluster that the user's kubeconfig names, and changes nothing.
func openTheirs(ctx context.Context, play *guest.Play, o options, out io.Writer) (*demo, error) {
	t := &theirs{wishes: guest.Wishes{Postgres: o.postgres, StorageClass: o.storageClass}}
	d := &demo{out: out, theirs: t}
	var err error
	if o.values != "" {
		if t.wishes.Values, err = filepath.Abs(o.values); err != nil {
			return nil, fmt.Errorf("VALUES: %w", err)
		}
		if _, err := os.Stat(t.wishes.Values); err != nil {
			return nil, fmt.Errorf("VALUES: %w", err)
		}
	}
	if t.config, err = guest.Pinned(o.context); err != nil {
		return nil, err
	}
	t.facts.Named(t.config)
	cfg, err := clientcmd.NewDefaultClientConfig(*t.config, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %q of your kubeconfig: %w", t.facts.Context, err)
	}
	cfg.QPS, cfg.Burst = 50, 100
	scheme, err := stage.NewScheme()
	if err != nil {
		return nil, err
	}
	if t.guest, err = guest.New(cfg, scheme, play, d.note); err != nil {
		return nil, err
	}
	if t.guest.DNS, err = guest.DNSNamespace(t.wishes.Values); err != nil {
		return nil, err
	}
	if err := t.guest.Look(ctx, &t.facts); err != nil {
		return nil, err
	}
	if len(t.facts.Missing) > 0 {
		return d, nil // it will be refused
	}
	id, err := t.guest.ID(ctx)
	if err != nil {
		return nil, err
	}
	if d.Stage, err = newStage(out); err != nil {
		return nil, err
	}
	d.Dir += "-on-" + id
	return d, nil
}

// machineLacks says what this machine would need.
func (t *theirs) machineLacks(o options) []string {
	var out []string
	var err error
	if t.wishes.Delivery, err = guest.Deliver(o.image, o.load, t.facts.Context, t.facts.Minikube); err != nil {
		out = append(out, err.Error())
	} else if load := t.wishes.Delivery.Load; len(load) > 0 {
		if _, err := exec.LookPath(load[0]); err != nil {
			out = append(out, fmt.Sprintf("%s, which would bring the images to the nodes, is not found: %v", load[0], err))
		}
	}
	if _, err := exec.LookPath("kubectl"); err != nil {
		out = append(out, fmt.Sprintf("kubectl is not found: %v", err))
	}
	if t.wishes.Postgres == "" {
		if err := stage.PostgresHere(runtime.GOOS, runtime.GOARCH, t.facts.Architectures[0]); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}

// removeTheirs removes what is marked from the cluster, and the files from this machine. guest.ErrNothing: nothing
// was there.
func (d *demo) removeTheirs(ctx context.Context, mark types.UID) error {
	err := d.theirs.guest.Remove(ctx, mark)
	if err != nil && !errors.Is(err, guest.ErrNothing) {
		return fmt.Errorf("%w\n\nWhat is left is still marked: make demo-down CLUSTER=current goes on", err)
	}
	return errors.Join(err, os.RemoveAll(d.Dir))
}

// markLost says what is there of a release that has the demo's name and no mark: the demo's, whose mark somebody
// took, or a Lethe of the user's.
func (t *theirs) markLost(dir string) error {
	return fmt.Errorf("no namespace has the demo's mark (label %s on %s), and a release of the chart with the demo's name is here: %s. Whether it is a demo's or your "+
		"own Lethe cannot be told: nothing was removed, neither here nor in %s. Of a demo, label the namespace again (kubectl label namespace %s %s=%s) and begin again",
		guest.MarkLabel, guest.Namespace, guest.Some(t.facts.Released), dir, guest.Namespace, guest.MarkLabel, guest.Demo.Name)
}

// downTheirs removes the demo from the cluster, and then its files from this machine.
func (d *demo) downTheirs(ctx context.Context, o options, terminal bool) error {
	t := d.theirs
	if len(t.facts.Missing) > 0 {
		return guest.Refused(t.facts.Problems(t.wishes))
	}
	if t.facts.Busy {
		return guest.ErrBusy
	}
	if t.facts.Was == nil && len(t.facts.Released) > 0 {
		return t.markLost(d.Dir)
	}
	if t.facts.Was != nil {
		if err := guest.Agree(os.Stdin, d.out, terminal, o.yes, t.facts.DownQuestion(), t.facts.Context); err != nil {
			return err
		}
	}
	err := d.removeTheirs(ctx, t.facts.Mark)
	nothing := errors.Is(err, guest.ErrNothing)
	if err != nil && !nothing {
		return err
	}
	if nothing {
		d.say("There is no demo on the cluster of context %s: no namespace %s with the demo's label. Nothing was touched.", t.facts.Context, guest.Namespace)
		return nil
	}
	d.say("The demo is gone from the cluster of context %s, and its files from this machine. Its images stay on the nodes until they are cleaned up there.", t.facts.Context)
	return nil
}
