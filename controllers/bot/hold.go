package bot

import (
	"context"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/status"
)

// heldBack ends the rendering of a StatefulSet whose pod could never start: the one that runs is kept.
type heldBack struct {
	missing string
	own     bool // it is the bot's own change
}

func (h *heldBack) Error() string { return h.missing }

// mayStart refuses a template that names what the cluster does not have, before the pod that runs is thrown away for
// one that never can. It is asked only when a pod would be replaced. A StorageClass is none of it: a bot can get no
// other volume than it began with.
func (r *Reconciler) mayStart(ctx context.Context, s *scope, own bool) error {
	missing, err := reconcile.MissingClasses(ctx, r.Writer.Live, reconcile.ClassesOf(s.tenant.Spec.Placement, "the Tenant's ")...)
	if err != nil || missing == "" {
		return err
	}
	return &heldBack{missing: missing, own: own}
}

// keep says of a change that is held back why it is. One of the bot's own is not in force, and waits for a person.
func (s *scope) keep(h *heldBack) {
	s.held = h
	if h.own {
		s.addProblem(&reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonClassMissing, Stalled: true,
			Message: h.missing + ". A pod with it could never start, so the one of before is kept: make it, or have the Tenant name one that kubectl get runtimeclasses,priorityclasses shows."}})
	}
}
