package status

import (
	"fmt"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// Bounds of a DataStore's status, as its schema has them.
const (
	maxRules      = plan.MaxMeasurements
	maxUncovered  = 32
	maxUndeclared = 32
	maxPointers   = 32
	maxPromises   = 256
	maxProblem    = 512
	maxReason     = 64
)

// Sweep is one Job that has ended and what it left behind.
type Sweep struct {
	JobUID     string
	FinishedAt time.Time
	// Report that report.Read made of its container's termination message, and why it made none.
	Report report.Report
	Err    error
	// Current is whether the plan that the Job was made to run is the one in force.
	Current bool
	// Overlapped is set when another sweep of the store ran at the same time: of two, one is turned away.
	Overlapped bool
}

// Measure puts into a status what a sweep reported. A report that cannot be read changes no measurement: it is kept with
// its time, and the sweep counts as lost.
func Measure(s v1alpha1.DataStoreStatus, sweep Sweep, p plan.Plan, content string) v1alpha1.DataStoreStatus {
	out := *s.DeepCopy()
	attempt := int32(0)
	if s.LastSweep != nil {
		attempt = s.LastSweep.Attempt
	}
	last := &v1alpha1.SweepStatus{JobUID: sweep.JobUID, FinishedAt: at(sweep.FinishedAt)}
	out.LastSweep = last

	r, err := sweep.Report, sweep.Err
	turnedAway := err == nil && sweep.Overlapped && (r.Reason == v1alpha1.ReasonStoreBusy || r.Reason == v1alpha1.ReasonLeaseRefused)
	if s.LastSweep != nil && (!sweep.Current || turnedAway) {
		// It says nothing about the plan in force; what is known about that stays.
		kept := *s.LastSweep
		kept.JobUID, kept.FinishedAt = last.JobUID, last.FinishedAt
		out.LastSweep = &kept
		return out
	}
	if sweep.Current {
		last.Content = content
	}
	if err != nil {
		last.Outcome, last.Attempt = v1alpha1.SweepLost, attempt+1
		last.Message = fmt.Sprintf("%s; it is repeated, and if that goes on look at the Jobs of the store and their pods", err)
		return out
	}
	last.Outcome = outcomeOf(r.Outcome)
	last.Reason, last.Message = cut(r.Reason, maxReason), cut(r.Message, maxProblem)
	last.Deleted, last.LeftOut = Deleted(r), count(r.Truncated)
	if r.SystemIdentifier != "" {
		out.Plan.SystemIdentifier = cut(r.SystemIdentifier, 64)
	}
	if p := r.Point; p != nil && p.OID > 0 && p.Timeline > 0 && p.Transactions > 0 {
		out.Database = &v1alpha1.DatabasePoint{OID: int64(p.OID), Timeline: int64(p.Timeline),
			Position: fmt.Sprintf("%X/%X", p.Position>>32, uint32(p.Position)), Transactions: int64(p.Transactions & math.MaxInt64)}
	}
	if !sweep.Current {
		return out
	}
	if !measured(r) {
		last.Attempt = attempt + 1
		return out
	}

	out.MeasuredAt, out.MeasuredContent = at(sweep.FinishedAt), content
	out.Uncovered = nil
	for _, name := range r.Uncovered[:min(len(r.Uncovered), maxUncovered)] {
		out.Uncovered = append(out.Uncovered, cut(name, 128))
	}
	out.UncoveredCount = max(count(r.UncoveredCount), count(len(out.Uncovered)))
	out.UndeclaredRelations, out.FilePointers = nil, nil
	for _, u := range r.Undeclared[:min(len(r.Undeclared), maxUndeclared)] {
		out.UndeclaredRelations = append(out.UndeclaredRelations, v1alpha1.UndeclaredRelation{Table: cut(u.Table, 128), Column: cut(u.Column, 128), References: cut(u.References, 63)})
	}
	out.UndeclaredRelationCount = max(count(r.UndeclaredCount), count(len(out.UndeclaredRelations)))
	for _, p := range r.Pointers[:min(len(r.Pointers), maxPointers)] {
		out.FilePointers = append(out.FilePointers, cut(p, 128))
	}
	out.FilePointerCount = max(count(r.PointerCount), count(len(out.FilePointers)))
	out.Rules, out.Overdue, out.OldestOverdueSeconds = nil, 0, 0
	for _, l := range r.Lines {
		window, ok := windowOf(p, l)
		if !ok {
			continue // no rule of the plan: a dataset that none governs, which the plan itself tells
		}
		out.Overdue += l.Overdue
		out.OldestOverdueSeconds = max(out.OldestOverdueSeconds, l.OldestOverdueSeconds)
		if len(out.Rules) < maxRules {
			m := ruleMeasurement(l, window)
			keepWorst(&m, s.Rules, max(l.OldestOverdueSeconds, l.OldestBeforeSeconds), sweep.FinishedAt)
			out.Rules = append(out.Rules, m)
		}
	}
	out.Rules = append(out.Rules, leftOut(out.Rules, s.Rules, p)...)
	return out
}

// leftOut keeps the worst that was seen of rules that the plan still has and that a report says nothing of. What else was measured of
// them is unknown.
func leftOut(measured, before []v1alpha1.RuleMeasurement, p plan.Plan) []v1alpha1.RuleMeasurement {
	var out []v1alpha1.RuleMeasurement
	for _, d := range p.Datasets {
		for _, r := range d.Rules {
			b := measurementOf(before, d.Name, r)
			if b == nil || b.WorstOverdueSeconds == 0 || measurementOf(measured, d.Name, r) != nil || len(measured)+len(out) >= maxRules {
				continue
			}
			out = append(out, v1alpha1.RuleMeasurement{Dataset: b.Dataset, Policy: b.Policy, Rule: b.Rule, Window: b.Window,
				WorstOverdueSeconds: b.WorstOverdueSeconds, WorstOverdueAt: b.WorstOverdueAt,
				Reason: v1alpha1.ReasonLeftOut, Message: "the last report says nothing of this rule"})
		}
	}
	return out
}

// Deleted counts the rows that a sweep deleted, those among them whose lines had no room in its report.
func Deleted(r report.Report) int64 {
	var n int64
	for _, l := range r.Lines {
		n += l.Deleted
	}
	return max(n, r.Deleted)
}

// count bounds a number that a sweep wrote.
func count(n int) int32 { return int32(min(max(n, 0), 1_000_000)) }

// measured says whether a sweep came to its measurement: one that failed, or never reached the store, did not.
func measured(r report.Report) bool {
	if r.Outcome == report.Failed || r.SystemIdentifier == "" || len(r.Lines) == 0 {
		return false
	}
	talked, known := reached(r.Reason)
	return talked || !known
}

func ruleMeasurement(l report.Line, window string) v1alpha1.RuleMeasurement {
	return v1alpha1.RuleMeasurement{
		Dataset: l.Dataset, Policy: l.Policy, Rule: l.Rule, Window: window,
		Rows: l.Rows, Eligible: l.Eligible, Overdue: l.Overdue, OldestOverdueSeconds: l.OldestOverdueSeconds,
		KeptByFloor: l.KeptByFloor, KeptByChild: l.KeptByChild,
		UnknownAge: l.UnknownAge, UnknownTenant: l.UnknownTenant, UnknownTenantLate: l.UnknownTenantLate, Deleted: l.Deleted, Capped: l.Capped,
		Returned: l.Returned, BacklogLeft: l.BacklogLeft,
		Reason: cut(l.Reason, maxReason), Message: cut(l.Message, maxProblem), Notice: cut(l.Notice, maxProblem),
	}
}

// keepWorst remembers the longest that a row was seen overdue under the same promise.
func keepWorst(m *v1alpha1.RuleMeasurement, before []v1alpha1.RuleMeasurement, seen int64, when time.Time) {
	for i := range before {
		if b := &before[i]; b.Dataset == m.Dataset && b.Policy == m.Policy && b.Rule == m.Rule && b.Window == m.Window {
			m.WorstOverdueSeconds, m.WorstOverdueAt = b.WorstOverdueSeconds, b.WorstOverdueAt
		}
	}
	if seen > m.WorstOverdueSeconds {
		m.WorstOverdueSeconds, m.WorstOverdueAt = seen, at(when)
	}
}

// windowOf the rule that a line is about; not ok when the plan has no such rule.
func windowOf(p plan.Plan, l report.Line) (string, bool) {
	for _, d := range p.Datasets {
		for _, r := range d.Rules {
			if d.Name == l.Dataset && r.Policy == l.Policy && r.Rule == l.Rule {
				return r.RetainFor.String(), true
			}
		}
	}
	return "", false
}

func outcomeOf(o report.Outcome) v1alpha1.SweepOutcome {
	switch o {
	case report.Done:
		return v1alpha1.SweepDone
	case report.Stopped:
		return v1alpha1.SweepStopped
	case report.Refused:
		return v1alpha1.SweepRefused
	default:
		return v1alpha1.SweepFailed
	}
}

func at(t time.Time) *metav1.Time {
	out := metav1.NewTime(t.UTC().Truncate(time.Second))
	return &out
}

// cut cleans and bounds what a sweep wrote: a broken-into one may write anything.
func cut(text string, most int) string {
	return foreign.Line(text, most)
}
