package datastore

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/status"
)

// report computes the conditions out of what the pass saw, writes the status if it differs, and then, once, tells
// about it.
func (r *Reconciler) report(ctx context.Context, s *scope) error {
	if !s.store.DeletionTimestamp.IsZero() {
		return r.reportLeaving(ctx, s)
	}
	if s.quiet && s.refusal == nil {
		return nil
	}
	if s.result == nil && s.refusal == nil {
		return nil // the plan could not be made for want of an answer: what the status says still stands
	}
	observed := status.StoreObserved{
		Now: s.now, Refusal: s.refusal, Credentials: s.credentials, Result: s.result, PlanDigest: s.planDigest,
		Measured: s.status, StaleAfter: staleAfter, Retried: s.retried,
	}
	observed.Problem = s.unstarted
	if s.problem != nil && s.refusal == nil {
		observed.Problem = s.problem
	}
	after := s.store.DeepCopy()
	after.Status = s.status
	after.Status.ObservedGeneration = s.store.Generation
	status.Apply(&after.Status.Conditions, status.Store(observed), s.store.Generation, metav1.NewTime(s.now))
	after.Status.Promises, after.Status.PromiseCount = status.Promises(observed)
	after.Status.OverdueRows = status.OverdueRows(after.Status.Overdue, after.Status.Conditions)
	written, err := reconcile.WriteStatus(ctx, r.Writer.Client, s.store, after, reconcile.SameStatus(s.store.Status, after.Status))
	if written {
		reconcile.EmitEvents(r.Recorder, after, s.store.Status.Conditions, after.Status.Conditions)
		r.emitSweeps(s, after)
	}
	return err
}

// reportLeaving says what a store on its way out waits for, and leaves the rest of its status as it is.
func (r *Reconciler) reportLeaving(ctx context.Context, s *scope) error {
	if s.leaving == nil {
		return nil
	}
	after := s.store.DeepCopy()
	status.Apply(&after.Status.Conditions, status.Summary(s.leaving, false, "", ""), s.store.Generation, metav1.NewTime(s.now))
	_, err := reconcile.WriteStatus(ctx, r.Writer.Client, s.store, after, reconcile.SameStatus(s.store.Status, after.Status))
	return err
}

// emitSweeps sends what the conditions do not say: rows that were deleted, a report that is lost or not believed, a
// brake that has tripped, and that a store which was compliant no longer shows that it is.
func (r *Reconciler) emitSweeps(s *scope, after *v1alpha1.DataStore) {
	for _, swept := range s.swept {
		r.Deleted.count(after, swept.report)
		if n := status.Deleted(swept.report); n > 0 {
			r.Recorder.Eventf(after, nil, corev1.EventTypeNormal, v1alpha1.ReasonSweepFinished, "Sweep", "deleted %d row(s) that were past their window", n)
		}
		if swept.lost != "" {
			r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, swept.lost, "Sweep", "the report of a sweep does not count, and status.lastSweep says why")
		}
	}
	if names := braked(&after.Status, v1alpha1.ReasonBrakeTripped); names != "" && names != braked(&s.store.Status, v1alpha1.ReasonBrakeTripped) {
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, v1alpha1.ReasonBrakeTripped, "Sweep",
			"more would be deleted than spec.brake allows, so nothing of this is: %s", names)
	}
	if names := braked(&after.Status, v1alpha1.ReasonReturned); names != "" && names != braked(&s.store.Status, v1alpha1.ReasonReturned) {
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, v1alpha1.ReasonReturned, "Sweep",
			"rows that had been deleted are there again, so nothing of this is deleted until it is approved: %s", names)
	}
	was := meta.FindStatusCondition(s.store.Status.Conditions, v1alpha1.ConditionCompliant)
	now := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionCompliant)
	if was != nil && was.Status == metav1.ConditionTrue && now.Status == metav1.ConditionUnknown {
		r.Recorder.Eventf(after, nil, corev1.EventTypeWarning, now.Reason, "Measure", "condition %s is %s, and says more", now.Type, now.Status)
	}
}

// braked names the datasets that were not deleted from for a reason, in the order of the status.
func braked(s *v1alpha1.DataStoreStatus, reason string) string {
	var names []string
	for d, m := range s.Lines {
		if d.ProblemOf(m).Reason == reason && !slices.Contains(names, d.Name) {
			names = append(names, d.Name)
		}
	}
	return strings.Join(names, ", ")
}
