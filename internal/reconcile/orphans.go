package reconcile

import (
	"context"
)

// Orphans is the sweep of what Lethe made and nobody owns any more, as far as reconcilers tell it and ask it something.
type Orphans interface {
	// Soon has a namespace looked into once garbage collection has had its time.
	Soon(namespace string)
	// SoonOf does so for the namespaces of a Tenant that has gone.
	SoonOf(ctx context.Context, tenant string)
	// Clear removes what has no owner any more from a namespace, and names what of it still runs.
	Clear(ctx context.Context, namespace string) (running []string, err error)
	// Running names the pods of ours in a namespace.
	Running(ctx context.Context, namespace string) ([]string, error)
	// Regain gives the manager its rights back in a namespace whose Tenant is gone, and returns a conflict then: the
	// write that was refused can be made again. Where it cannot, it returns the refusal.
	Regain(ctx context.Context, namespace string, refused error) error
}
