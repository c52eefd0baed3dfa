// Package controllers holds one reconciler for each kind. They all have one shape: read the object, arm the one status
// write, go away cleanly when it is being deleted, and run phases in order. A phase asks a pure builder what should exist,
// makes it so, and says when it wants to be run again.
package controllers

import (
	"context"
	"errors"
	"time"

	"github.com/lethe-dev/lethe/internal/status"
)

// phase is one step of a reconcile. It returns after how long it must run again (0: a watch will tell), or what stopped
// it, best as a *problem.
type phase[S any] func(ctx context.Context, s S) (time.Duration, error)

// runPhases runs phases until one fails, since later ones need earlier ones, and returns the soonest wait.
func runPhases[S any](ctx context.Context, s S, phases []phase[S]) (time.Duration, error) {
	var soonest time.Duration
	for _, run := range phases {
		wait, err := run(ctx, s)
		soonest = sooner(soonest, wait)
		if err != nil {
			return soonest, err
		}
	}
	return soonest, nil
}

// sooner is the smaller of two waits, where 0 is no wait at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// problem is why a phase could not do its work, in words for the user.
type problem struct {
	status.Problem
	// after this long it is worth looking again; 0 when a watch will tell.
	after time.Duration
	// quiet problems pass by themselves and are not worth a status.
	quiet bool
	// cause is set when trying again at once may help: it is retried with backoff.
	cause error
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.cause.Error()
	}
	return p.Reason + ": " + p.Message
}

func (p *problem) Unwrap() error { return p.cause }

// problemIn returns the problem that an error is or wraps, or nil.
func problemIn(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}
