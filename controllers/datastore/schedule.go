package datastore

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

const (
	// staleAfter is how old a measurement may be: two sweeps have been missed then.
	staleAfter = 2 * resources.SweepInterval

	// A sweep that measured nothing is repeated after a minute, then four, sixteen, and every hour.
	firstRetry = time.Minute
	retryGrows = 4
	lastRetry  = resources.SweepInterval

	// stoppedRetry follows a sweep that was stopped for another reason than its time.
	stoppedRetry = time.Minute
	// overdueRetry follows a sweep that left overdue rows behind, although it may delete them.
	overdueRetry = 15 * time.Minute
	// tenantsRetry follows a sweep that measured a Shared store by other known tenants than there are now, or that
	// did not learn who is known: whose rows are whose is not to be seen for an hour otherwise. Tenants that come one
	// after the other cost one sweep in that time.
	tenantsRetry = 5 * time.Minute
)

// decideCatchUp says after how long a sweep out of turn is due: 0 and true when it is now. The CronJob is not trusted
// to sweep in time, only to sweep. tenants names those that are known to a Shared store.
func decideCatchUp(now time.Time, s v1alpha1.DataStoreStatus, planDigest, tenants string, deletes bool) (wait time.Duration, due bool) {
	last := s.LastSweep
	switch {
	case last == nil, last.PlanDigest != planDigest:
		return 0, true
	case last.Attempt > 0:
		return until(now, last.FinishedAt.Add(retryAfter(last.Attempt)))
	case last.Outcome == v1alpha1.SweepStopped && last.Reason == v1alpha1.ReasonTimeBudget && last.Deleted > 0:
		return 0, true
	case last.Outcome == v1alpha1.SweepStopped && last.Reason == v1alpha1.ReasonTimeBudget:
		// Nothing went in all of that time: what holds it up will not have gone in a minute.
		return until(now, last.FinishedAt.Add(overdueRetry))
	case last.Outcome == v1alpha1.SweepStopped:
		return until(now, last.FinishedAt.Add(stoppedRetry))
	case deletable(s) && deletes && last.Outcome == v1alpha1.SweepDone:
		return until(now, last.FinishedAt.Add(overdueRetry))
	case s.MeasuredAt == nil || s.MeasuredPlanDigest != planDigest:
		return 0, true
	case last.Reason == v1alpha1.ReasonTenantsUnknown, tenants != "" && s.MeasuredTenants != "" && s.MeasuredTenants != tenants:
		return until(now, last.FinishedAt.Add(tenantsRetry))
	default:
		return until(now, s.MeasuredAt.Add(staleAfter))
	}
}

// deletable says whether overdue rows are left that nothing keeps: another sweep may take them.
func deletable(s v1alpha1.DataStoreStatus) bool {
	for _, m := range s.Lines {
		if m.Overdue > 0 && m.Eligible > 0 {
			return true
		}
	}
	return false
}

func until(now, then time.Time) (time.Duration, bool) {
	if left := then.Sub(now); left > 0 {
		return left, false
	}
	return 0, true
}

func retryAfter(attempt int32) time.Duration {
	wait := firstRetry
	for ; attempt > 1 && wait < lastRetry; attempt-- {
		wait *= retryGrows
	}
	return min(wait, lastRetry)
}

// catchUpName is the same as long as no other sweep has ended: whoever asks twice gets one Job.
func catchUpName(store *v1alpha1.DataStore, planDigest string, last *v1alpha1.SweepStatus) string {
	after := ""
	if last != nil {
		after = last.JobUID
	}
	sum := sha256.Sum256([]byte(string(store.UID) + "\n" + planDigest + "\n" + after))
	return resources.CatchUpName(store.Name, hex.EncodeToString(sum[:]))
}

// isActive says whether a Job may still sweep. One that a hand has suspended does not: a sweep out of turn takes its
// place.
func isActive(job *batchv1.Job) bool {
	_, ended := reconcile.FinishedAt(job)
	return !ended && (job.Spec.Suspend == nil || !*job.Spec.Suspend)
}

// planHashOf is the hash of the plan that a Job was made to run.
func planHashOf(job *batchv1.Job) string { return resources.PlanHashOf(job.Spec.Template.Spec) }
