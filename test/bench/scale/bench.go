package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	systemNamespace = "lethe-system"
	keysNamespace   = "lethe-keys"
	managerAccount  = "lethe-manager"
	keysAccount     = "lethe-keyserver"
	realm           = "bench"
	image           = "lethe:bench"
)

// bench is one run.
type bench struct {
	options
	root, work string
	self       string // path of this program
	out        io.Writer
	begun      time.Time

	cluster *cluster
	admin   client.Client
	raw     rest.Interface
	scheme  *runtime.Scheme
	audit   *auditLog

	manager, keyserver *program
	keyserverURL       string
	world              *world
	results            results
	undo               []func() error

	sealed atomic.Int64 // credentials so far
}

// step tells what is being done.
func (b *bench) step(format string, args ...any) {
	fmt.Fprintf(b.out, "%6.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// close takes everything down, the last thing first.
func (b *bench) close() error {
	var failed error
	for i := len(b.undo) - 1; i >= 0; i-- {
		failed = errors.Join(failed, b.undo[i]())
	}
	return errors.Join(failed, os.RemoveAll(b.work))
}

func (b *bench) setUp(ctx context.Context) error {
	b.scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(b.scheme), v1alpha1.AddToScheme(b.scheme)); err != nil {
		return fmt.Errorf("register kinds: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	b.self = self
	b.step("building manager and keyserver")
	for name, pkg := range map[string]string{"manager": ".", "keyserver": "./cmd/keyserver"} {
		if err := build(ctx, b.root, pkg, filepath.Join(b.work, name)); err != nil {
			return err
		}
	}
	b.step("bringing up a cluster with simulated nodes")
	c, err := b.bringUp(ctx)
	if err != nil {
		return err
	}
	b.cluster, b.audit = c, &auditLog{path: c.AuditLog}
	config, err := c.config("", "lethe-bench-admin")
	if err != nil {
		return err
	}
	if b.admin, err = client.New(config, client.Options{Scheme: b.scheme}); err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	b.raw = clients.RESTClient()
	b.step("installing Lethe's kinds, roles and walls")
	if err := b.install(ctx); err != nil {
		return err
	}
	if err := b.identities(ctx); err != nil {
		return err
	}
	b.step("starting keyserver and manager")
	if err := b.startKeyserver(ctx); err != nil {
		return err
	}
	if err := b.startManager(ctx); err != nil {
		return err
	}
	b.step("%d tenants", b.tenants)
	return b.makeTenants(ctx)
}

// waitFor asks every interval until the answer is yes. The last answer is in the error.
func waitFor(ctx context.Context, what string, limit, interval time.Duration, done func(context.Context) (bool, string, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not so after %s", limit))
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := ""
	for {
		ok, state, err := done(ctx)
		if ok {
			return nil
		}
		if last = state; err != nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last seen: %s)", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
