package datastore

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// startsWithin is how long a sweep's pod may take to run before somebody looks why it does not.
const startsWithin = 20 * time.Second

// lookAtSweep finds out why a sweep's pod does not run: it would be waited for until the Job's deadline, and then
// leave no report.
func (r *Reconciler) lookAtSweep(ctx context.Context, s *scope) (time.Duration, error) {
	for i := range s.jobs {
		job := &s.jobs[i]
		if !isActive(job) || (job.Status.Ready != nil && *job.Status.Ready > 0) {
			continue
		}
		if left := job.CreationTimestamp.Add(startsWithin).Sub(s.now); left > 0 {
			return left, nil
		}
		var pods corev1.PodList
		if err := r.Writer.Live.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)}); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, fmt.Errorf("list the pods of a Job: %w", err))
		}
		for j := range pods.Items {
			w, ok := status.Unpulled(&pods.Items[j])
			if !ok {
				continue
			}
			s.unstarted = &status.Problem{Condition: v1alpha1.ConditionReady, Reason: w.Reason, Message: "The sweep has not begun. " + w.Message}
			if w.AsksWho {
				s.unstarted.Message += " " + reconcile.PullSecretsSentence(ctx, r.Keys, r.Settings, resources.KindDataStore, s.store, s.tenant)
			}
		}
		return reconcile.LookEvery, nil
	}
	return 0, nil
}
