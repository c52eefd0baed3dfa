package datastore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// sweptJob is a Job that has ended, and what its pod reported.
type sweptJob struct {
	job    batchv1.Job
	report report.Report // zero when there is none that counts
	lost   string        // the reason why there is none that counts
}

// readReports takes the report of every Job that has ended since the last look, each once, from the keyserver, which
// took it of the Job's pod. The pod itself says which report it handed in.
func (r *Reconciler) readReports(ctx context.Context, s *scope) (time.Duration, error) {
	var err error
	if s.jobs, err = r.jobsOf(ctx, s.store); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	ended, same := unread(s.jobs, s.status.LastSweep)
	if len(ended) == 0 && len(same) == 0 {
		return 0, nil
	}
	kept, err := r.keptReport(ctx, s.store)
	if err != nil {
		return 0, err
	}
	for i := range same {
		if isNewest(kept.Statement, s.status.LastSweep, &same[i]) {
			ended = slices.Insert(ended, 0, same[i])
		}
	}
	for i := range ended {
		job := &ended[i]
		if isSuperseded(kept.Statement.Job, ended[i+1:], s.jobs) {
			continue
		}
		pods, err := r.podsOf(ctx, job)
		if err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
		}
		hash := planHashOf(job)
		current, err := plan.Accepts(s.result.Plan, hash, s.now)
		if err != nil {
			return 0, fmt.Errorf("compare a Job's plan: %w", err)
		}
		var before int64
		if s.status.LastSweep != nil {
			before = s.status.LastSweep.Sequence
		}
		left := status.Ended{JobUID: string(job.UID), PlanHash: hash}
		left.PodUID, left.Message = terminationMessageOf(pods, job)
		sweep := kept.Of(left, before)
		sweep.FinishedAt, _ = reconcile.FinishedAt(job)
		sweep.Current, sweep.Overlapped = current, overlapped(s.jobs, job)
		s.status = status.Measure(s.status, sweep, s.result.Plan, s.planDigest)
		s.swept = append(s.swept, sweptJob{job: *job, report: sweep.Report, lost: sweep.Reason})
	}
	return 0, nil
}

// isSuperseded says whether the last report, that of the Job kept, is a Job's that is yet to be read: one of those that
// ended later, or one that runs. The keyserver keeps the last one only, and that measured the same rules.
func isSuperseded(kept string, later, jobs []batchv1.Job) bool {
	is := func(j batchv1.Job) bool { return string(j.UID) == kept }
	runs := func(j batchv1.Job) bool { return is(j) && isActive(&j) }
	return slices.ContainsFunc(later, is) || slices.ContainsFunc(jobs, runs)
}

// keptReport asks the keyserver for the last report of a store. That it has none which counts, and that it will have
// none until a person acts, are answers. That it cannot say is an error: the Jobs stay unread until it can.
func (r *Reconciler) keptReport(ctx context.Context, store *v1alpha1.DataStore) (status.KeptReport, error) {
	answer, err := r.Keys.LastReport(ctx, reconcile.RefTo(resources.KindDataStore, store))
	if err == nil {
		return status.KeptReportOf(answer, string(store.UID)), nil
	}
	var refused interface{ Reason() string }
	if errors.As(err, &refused) {
		switch reason := refused.Reason(); {
		case reason == v1alpha1.ReasonReportLost, reason == v1alpha1.ReasonReportForged, reason == v1alpha1.ReasonReportReplayed,
			v1alpha1.FactsOf(reason).IsFinal():
			return status.NoKeptReport(reason, err), nil
		}
	}
	return status.KeptReport{}, reconcile.KeyProblem(v1alpha1.ConditionReady, err)
}

// podsOf reads a Job's pods past the cache; pods are not watched. A failure to look is an error, never no pods.
func (r *Reconciler) podsOf(ctx context.Context, job *batchv1.Job) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.Writer.Live.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)}); err != nil {
		return nil, fmt.Errorf("list the pods of a Job: %w", err)
	}
	return pods.Items, nil
}

// terminationMessageOf is the termination message of a Job's last pod, and which pod that is: of a pod and the one
// that replaced it, the later one has it, also when it said nothing.
func terminationMessageOf(pods []corev1.Pod, job *batchv1.Job) (podUID, message string) {
	latest := time.Time{}
	for _, pod := range pods {
		if !metav1.IsControlledBy(&pod, job) {
			continue
		}
		for _, c := range pod.Status.ContainerStatuses {
			if end := c.State.Terminated; c.Name == resources.ContainerSweeper && end != nil && !end.FinishedAt.Time.Before(latest) {
				podUID, message, latest = string(pod.UID), end.Message, end.FinishedAt.Time
			}
		}
	}
	return podUID, message
}
