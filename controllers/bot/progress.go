package bot

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// observeUnsteady keeps a bot unready whose program has ended a short while ago, though its pod is ready at the
// moment. One whose status says already that it is ready is not looked at: it is not asked for its reasons.
func (r *Reconciler) observeUnsteady(ctx context.Context, s *scope, set *appsv1.StatefulSet) (time.Duration, error) {
	before := s.told()
	if before != nil && before.Status == metav1.ConditionTrue || resources.IsSuspended(s.bot, s.tenant) {
		return 0, nil
	}
	o, err := r.observePod(ctx, s, set)
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	w, left, ok := status.Unsteady(o)
	if !ok {
		return 0, nil
	}
	w.Overdue = s.wasOverdue()
	s.observed.Workload = &w
	return min(left, r.lookAfter(reconcile.LookEvery)), nil
}

// observeStopped finds out how a suspended bot is whose pass was ended by something that it needs only when it runs:
// it is suspended all the same. What stands in its way then is told in the condition that it belongs to.
func (r *Reconciler) observeStopped(ctx context.Context, s *scope, wait time.Duration, err error) (time.Duration, error) {
	by := s.suspendedBy()
	if by == status.NotSuspended || s.observed.Workload != nil || reconcile.ProblemIn(err) == nil {
		return wait, err
	}
	set, failed := setOfBot(ctx, r.Writer.Client, s.bot)
	if failed != nil || set != nil && reconcile.RunsPods(set) {
		return wait, errors.Join(err, failed) // that is why it still runs
	}
	s.observed.Suspended = by
	if set == nil || status.IsSetDone(set) {
		s.observed.Workload = &status.Workload{Done: true}
		return wait, err
	}
	look, failed := r.observeUnready(ctx, s, set)
	return reconcile.MinNonZero(wait, look), errors.Join(err, failed)
}

// suspendedBy says who stopped the bot, also where nobody knows whose it is.
func (s *scope) suspendedBy() status.Suspension {
	switch {
	case s.tenant != nil:
		return suspension(s.bot, s.tenant)
	case s.bot.DeletionTimestamp.IsZero() && s.bot.Spec.OperatingMode == v1alpha1.ModeSuspended:
		return status.SuspendedBySpec
	default:
		return status.NotSuspended
	}
}

// told is what the status says of the workload of the present generation, or nil.
func (s *scope) told() *metav1.Condition {
	c := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	if c == nil || c.ObservedGeneration != s.bot.Generation {
		return nil
	}
	return c
}

// timeLeft is how long the bot may still take until it is Stalled. Its time begins anew when what kept it goes:
// something before its pod, or a step of its pod. Once it is Stalled it remains so, until then or until it is ready.
func (s *scope) timeLeft(o status.PodObserved, reason string) time.Duration {
	whole := time.Duration(s.bot.Spec.Rollout.ProgressDeadlineSeconds) * time.Second
	before, ready := s.told(), meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionReady)
	// Something beside the workload was what the bot waited for, and is mended.
	beside := before != nil && ready != nil && ready.Status == metav1.ConditionFalse && ready.ObservedGeneration == s.bot.Generation &&
		ready.Reason != before.Reason && s.observed.Problem == nil
	switch {
	case before != nil && before.Status != metav1.ConditionTrue && (beside || status.LiesBehind(before.Reason, reason)):
		s.anew = true
		return whole
	case s.wasOverdue():
		return 0
	default:
		return whole - s.now.Sub(s.unreadySince(o))
	}
}

// wasOverdue remembers, in the status itself, that the deadline of this generation has passed.
func (s *scope) wasOverdue() bool {
	stalled, workload := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionStalled), s.told()
	return stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.ObservedGeneration == s.bot.Generation &&
		workload != nil && workload.Status == metav1.ConditionFalse && workload.Reason == stalled.Reason
}

// unreadySince is when the bot began to be on its way: as the status has it, which notes in Reconciling when that
// began anew, and not before its pod's last step. Where no status says so yet it is what the pod says, or when this
// process first saw it.
func (s *scope) unreadySince(o status.PodObserved) time.Time {
	var unready time.Time
	step := status.LastStep(o)
	if !step.IsZero() {
		for _, c := range o.Pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
				unready = c.LastTransitionTime.Time
			}
		}
	}
	before := s.told()
	switch {
	case before != nil && before.Status == metav1.ConditionFalse:
		if step.IsZero() {
			step = s.generationSeenAt // there is no pod yet: what was before it was first worked on is no waiting
		}
		since := latest(before.LastTransitionTime.Time, step)
		if c := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionReconciling); c != nil {
			since = latest(since, c.LastTransitionTime.Time)
		}
		return since
	case !unready.IsZero() && unready.Before(s.generationSeenAt):
		return latest(unready, step) // it began before this process did
	default:
		return s.generationSeenAt
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
