// Package reconcile is what the reconcilers of several kinds share. They all have one shape: read the object, arm the
// one status write, go away cleanly when it is being deleted, and run phases in order. A phase asks a pure builder
// what should exist, makes it so, and says when it wants to be run again.
package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/lethe-dev/lethe/internal/status"
)

// Phase is one step of a reconcile. It returns after how long it must run again (0: a watch will tell), or what stopped
// it, best as a *Problem.
type Phase[S any] func(ctx context.Context, s S) (time.Duration, error)

// RunPhases runs phases until one fails, since later ones need earlier ones, and returns the soonest wait.
func RunPhases[S any](ctx context.Context, s S, phases []Phase[S]) (time.Duration, error) {
	var soonest time.Duration
	for _, run := range phases {
		wait, err := run(ctx, s)
		soonest = MinNonZero(soonest, wait)
		if err != nil {
			return soonest, err
		}
	}
	return soonest, nil
}

// MinNonZero is the smaller of two waits, where 0 is no wait at all.
func MinNonZero(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Problem is why a phase could not do its work, in words for the user.
type Problem struct {
	status.Problem
	// After this long it is worth looking again; 0 when a watch will tell.
	After time.Duration
	// Quiet problems pass by themselves and are not worth a status.
	Quiet bool
	// Cause is set when trying again at once may help: it is retried with backoff.
	Cause error
}

func (p *Problem) Error() string {
	if p.Cause != nil {
		return p.Cause.Error()
	}
	return p.Reason + ": " + p.Message
}

func (p *Problem) Unwrap() error { return p.Cause }

// ProblemIn returns the problem that an error is or wraps, or nil.
func ProblemIn(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}
