// Package policies makes NetworkPolicies walls on the real node: it follows pods, namespaces and policies, and keeps the
// kernel's packet filter as they say. The plain pod network of the node would take no notice of them.
package policies

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/api"
)

// Command is the command of this program that Run is.
const Command = "enforce-policies"

const (
	// gather is how long changes are gathered before the rules are made anew.
	gather = 20 * time.Millisecond
	// retryAfter is the pause after the kernel has refused the rules.
	retryAfter = time.Second
)

// Run keeps the rules of the network namespace that it runs in until SIGTERM.
func Run(args []string) error {
	flags := flag.NewFlagSet(Command, flag.ContinueOnError)
	client := api.Flags(flags, "lethe-network-policies")
	nft := flags.String("nft", "nft", "the program nft")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("enforce policies: %w", err)
	}
	connected, err := client()
	if err != nil {
		return fmt.Errorf("enforce policies: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	e := &enforcer{changed: make(chan struct{}, 1), listed: map[string]bool{}, state: State{
		Pods: map[string]Pod{}, Namespaces: map[string]Namespace{}, Policies: map[string]Policy{},
	}}
	var group sync.WaitGroup
	group.Go(func() {
		follow(ctx, e, connected, "/api/v1/pods", e.state.Pods, func(p Pod) string { return p.Metadata.UID })
	})
	group.Go(func() {
		follow(ctx, e, connected, "/api/v1/namespaces", e.state.Namespaces, func(n Namespace) string { return n.Metadata.UID })
	})
	group.Go(func() {
		follow(ctx, e, connected, "/apis/networking.k8s.io/v1/networkpolicies", e.state.Policies, func(p Policy) string { return p.Metadata.UID })
	})
	e.apply(ctx, *nft)
	group.Wait()
	return nil
}

type enforcer struct {
	changed chan struct{}

	mu     sync.Mutex
	state  State
	listed map[string]bool // lists that have been read once
}

// follow keeps one kind of objects as the API server has it.
func follow[T any](ctx context.Context, e *enforcer, client *api.Client, path string, known map[string]T, uid func(T) string) {
	change := func(do func()) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		do()
		e.listed[path] = true
		select {
		case e.changed <- struct{}{}:
		default:
		}
		return nil
	}
	api.Follow(ctx, client, path, api.Follower[T]{
		List: func(_ context.Context, objects []T) error {
			return change(func() {
				clear(known)
				for _, o := range objects {
					known[uid(o)] = o
				}
			})
		},
		Event: func(_ context.Context, kind string, o T) error {
			return change(func() {
				if kind == "DELETED" {
					delete(known, uid(o))
					return
				}
				known[uid(o)] = o
			})
		},
	})
}

// script is empty until everything has been read: half of it would open what is closed, or close what is open.
func (e *enforcer) script() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.listed) < 3 {
		return ""
	}
	return Script(e.state)
}

// apply gives the kernel the rules whenever they have changed.
func (e *enforcer) apply(ctx context.Context, nft string) {
	inForce := ""
	wait := gather
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = gather
		script := e.script()
		if script == "" || script == inForce {
			continue
		}
		cmd := exec.CommandContext(ctx, nft, "-f", "-")
		cmd.Stdin = bytes.NewReader([]byte(script))
		if out, err := cmd.CombinedOutput(); err != nil {
			log.Printf("nft: %v: %s", err, out)
			wait = retryAfter
			select {
			case e.changed <- struct{}{}:
			default:
			}
			continue
		}
		inForce = script
	}
}
