package datastore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// oldPlanGrace is how long a plan stays after another has come into force: the CronJob's controller may just be
// making a Job of the one before, whose pod would wait for its ConfigMap until the Job's deadline.
const oldPlanGrace = 2 * time.Minute

// jobsOf returns the Jobs of a store, those of its CronJob and those out of turn, oldest first. A Job with its labels
// and another owner is not among them.
func (r *Reconciler) jobsOf(ctx context.Context, store *v1alpha1.DataStore) ([]batchv1.Job, error) {
	owners := map[string]bool{string(store.UID): true}
	var cron batchv1.CronJob
	err := r.Writer.Client.Get(ctx, client.ObjectKey{Namespace: store.Namespace, Name: resources.SweepName(store.Name)}, &cron)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get the CronJob: %w", err)
	}
	if err == nil && metav1.IsControlledBy(&cron, store) {
		owners[string(cron.UID)] = true
	}
	var list batchv1.JobList
	if err := r.Writer.Client.List(ctx, &list, client.InNamespace(store.Namespace),
		client.MatchingLabels(resources.StoreLabels(store.Name, resources.ComponentSweeper))); err != nil {
		return nil, fmt.Errorf("list Jobs: %w", err)
	}
	var jobs []batchv1.Job
	for _, job := range list.Items {
		if owner := metav1.GetControllerOf(&job); owner != nil && owners[string(owner.UID)] {
			jobs = append(jobs, job)
		}
	}
	slices.SortFunc(jobs, inOrder)
	return jobs, nil
}

// inOrder compares two Jobs by when they were made, and of those of one second by their names.
func inOrder(a, b batchv1.Job) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// unread returns the Jobs that have ended since the last one that was read, in the order in which they ended, and
// apart from them the others that ended in the same second as that one. Times are whole seconds, so that nothing in
// those Jobs tells which of them were read; [isNewest] does.
func unread(jobs []batchv1.Job, last *v1alpha1.SweepStatus) (since, same []batchv1.Job) {
	isThere := last != nil && slices.ContainsFunc(jobs, func(j batchv1.Job) bool { return string(j.UID) == last.JobUID })
	for _, job := range jobs {
		ended, ok := reconcile.FinishedAt(&job)
		switch {
		case !ok, last != nil && string(job.UID) == last.JobUID, last != nil && last.FinishedAt != nil && ended.Before(last.FinishedAt.Time):
		case isThere && last.FinishedAt != nil && ended.Equal(last.FinishedAt.Time):
			same = append(same, job)
		default:
			since = append(since, job)
		}
	}
	slices.SortStableFunc(since, func(a, b batchv1.Job) int {
		x, _ := reconcile.FinishedAt(&a)
		y, _ := reconcile.FinishedAt(&b)
		return x.Compare(y)
	})
	return since, same
}

// isNewest says whether the last report that the keyserver took is a Job's, and was not read before: of Jobs that ended
// in one second that one is unread. Any other counts as read, or they would take turns in being the last.
func isNewest(kept ledger.Statement, last *v1alpha1.SweepStatus, job *batchv1.Job) bool {
	return kept.Job == string(job.UID) && last != nil && kept.Sequence > last.Sequence
}

// overlapped says whether another Job of the store ran while this one did.
func overlapped(jobs []batchv1.Job, job *batchv1.Job) bool {
	ended, _ := reconcile.FinishedAt(job)
	for i := range jobs {
		other := &jobs[i]
		if other.UID == job.UID || other.CreationTimestamp.After(ended) {
			continue
		}
		otherEnded, ok := reconcile.FinishedAt(other)
		if !ok && isActive(other) || ok && !otherEnded.Before(job.CreationTimestamp.Time) {
			return true
		}
	}
	return false
}

// ensureCatchUp makes a sweep out of turn when one is due. One Job of a store at a time: while another is active it
// waits for that to end.
func (r *Reconciler) ensureCatchUp(ctx context.Context, s *scope) (time.Duration, error) {
	for i := range s.jobs {
		if isActive(&s.jobs[i]) {
			return 0, nil
		}
	}
	wait, due := decideCatchUp(s.now, s.status, s.planDigest, s.known, s.result.Plan.Deletes())
	if !due {
		return wait, nil
	}
	name := catchUpName(s.store, s.planDigest, s.status.LastSweep)
	job := resources.CatchUpJob(r.Settings, s.store, s.tenant, s.hash, name)
	err := r.Writer.Client.Create(ctx, job, kube.FieldOwner)
	if apierrors.IsAlreadyExists(err) {
		// The cache does not show it yet, or it is a foreign object.
		var live batchv1.Job
		if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(job), &live); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, fmt.Errorf("get Job %s: %w", name, err))
		}
		if !metav1.IsControlledBy(&live, s.store) {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, &kube.ForeignError{Kind: "Job", Key: client.ObjectKeyFromObject(job)})
		}
		return 0, nil
	}
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, fmt.Errorf("create Job %s: %w", name, err))
	}
	log.FromContext(ctx).Info("Created Job", "object", client.ObjectKeyFromObject(job))
	return 0, nil
}

// cleanPlans removes the plans that are no longer in force and that no Job runs.
func (r *Reconciler) cleanPlans(ctx context.Context, s *scope) (time.Duration, error) {
	var list corev1.ConfigMapList
	if err := r.Writer.Client.List(ctx, &list, client.InNamespace(s.store.Namespace),
		client.MatchingLabels(resources.StoreLabels(s.store.Name, resources.ComponentPlan))); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, fmt.Errorf("list plans: %w", err))
	}
	used := map[string]bool{resources.PlanName(s.store.Name, s.hash): true}
	for i := range s.jobs {
		if _, ended := reconcile.FinishedAt(&s.jobs[i]); !ended {
			used[resources.PlanName(s.store.Name, planHashOf(&s.jobs[i]))] = true
		}
	}
	inForceSince := s.now
	for _, c := range list.Items {
		if c.Name == resources.PlanName(s.store.Name, s.hash) {
			inForceSince = c.CreationTimestamp.Time
		}
	}
	var wait time.Duration
	for i := range list.Items {
		old := &list.Items[i]
		if used[old.Name] || !metav1.IsControlledBy(old, s.store) || !old.DeletionTimestamp.IsZero() {
			continue
		}
		if left := inForceSince.Add(oldPlanGrace).Sub(s.now); left > 0 {
			wait = reconcile.MinNonZero(wait, left)
			continue
		}
		if err := r.Writer.Delete(ctx, old); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
		}
	}
	return wait, nil
}
