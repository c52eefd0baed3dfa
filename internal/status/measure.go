package status

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// Bounds of a DataStore's status, as its schema has them.
const (
	maxRules      = 256 // of one dataset
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
	// Report that the keyserver took of it, and its number among those of the store; or why there is none that counts,
	// and for what reason.
	Report   report.Report
	Sequence int64
	// ReportedAt is when the keyserver took it, by its clock.
	ReportedAt time.Time
	Err        error
	Reason     string
	// Current is whether the plan that the Job was made to run is the one in force.
	Current bool
	// Overlapped is set when another sweep of the store ran at the same time: of two, one is turned away.
	Overlapped bool
}

const messageRepeated = "; the sweep is repeated, and if that goes on look at the Jobs of the store and their pods"

// Measure puts into a status what a sweep reported. A report that cannot be read, or that does not count, changes no
// measurement: that is kept with its time, and the sweep counts as lost.
func Measure(s v1alpha1.DataStoreStatus, sweep Sweep, p plan.Plan, planDigest string) v1alpha1.DataStoreStatus {
	out := *s.DeepCopy()
	attempt, sequence := int32(0), sweep.Sequence
	if s.LastSweep != nil {
		attempt, sequence = s.LastSweep.Attempt, max(sequence, s.LastSweep.Sequence)
	}
	last := &v1alpha1.SweepStatus{JobUID: sweep.JobUID, Sequence: sequence, FinishedAt: at(sweep.FinishedAt)}
	out.LastSweep = last

	r, err := sweep.Report, sweep.Err
	turnedAway := err == nil && sweep.Overlapped && (r.Reason == v1alpha1.ReasonStoreBusy || r.Reason == v1alpha1.ReasonLeaseRefused)
	suspect := sweep.Reason == v1alpha1.ReasonReportForged || sweep.Reason == v1alpha1.ReasonReportReplayed
	if s.LastSweep != nil && (!sweep.Current && !suspect || turnedAway) {
		// It says nothing about the plan in force; what is known about that stays.
		kept := *s.LastSweep
		kept.JobUID, kept.Sequence, kept.FinishedAt = last.JobUID, sequence, last.FinishedAt
		out.LastSweep = &kept
		return out
	}
	if sweep.Current {
		last.PlanDigest = planDigest
	}
	if err != nil {
		last.Outcome, last.Attempt, last.Reason = v1alpha1.SweepLost, attempt+1, orElse(cut(sweep.Reason, maxReason), v1alpha1.ReasonReportLost)
		last.Message = cut(err.Error(), maxProblem-len(messageRepeated)) + messageRepeated
		return out
	}
	last.Outcome = outcomeOf(r.Outcome)
	last.Reason, last.Message = cut(r.Reason, maxReason), cut(r.Message, maxProblem)
	last.Deleted = Deleted(r)
	if r.Identity != (v1alpha1.StoreIdentity{}) {
		out.Plan.Identity = r.Identity
	}
	if r.Point != nil {
		out.Point = r.Point
	}
	if !sweep.Current {
		return out
	}
	if !measured(r) {
		last.Attempt = attempt + 1
		return out
	}

	// A Job whose node is lost ends long after its pod has measured.
	when := sweep.FinishedAt
	if !sweep.ReportedAt.IsZero() && sweep.ReportedAt.Before(when) {
		when = sweep.ReportedAt
	}
	out.MeasuredAt, out.MeasuredPlanDigest, out.MeasuredTenants = at(when), planDigest, cut(r.Tenants, 64)
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
	out.Datasets = datasetsOf(r, s, p, when)
	out.Overdue, out.OldestOverdueSeconds = 0, 0
	for _, m := range out.Lines {
		out.Overdue += m.Overdue
		out.OldestOverdueSeconds = max(out.OldestOverdueSeconds, m.OldestOverdueSeconds)
	}
	before := s.Omitted
	if s.MeasuredPlanDigest != planDigest {
		before = nil // of rules that may be gone
	}
	out.Datasets, out.Omitted = fit(out.Datasets, maxDatasetBytes, before)
	return out
}

// datasetsOf are the measurements of the plan's datasets and rules in the order of a report, which is the worst
// first. A report says nothing of others: those are of an earlier plan, or out of a pod that was broken into.
func datasetsOf(r report.Report, s v1alpha1.DataStoreStatus, p plan.Plan, when time.Time) []v1alpha1.DatasetMeasurement {
	planned := make(map[string]*plan.Dataset, len(p.Datasets))
	for i := range p.Datasets {
		planned[p.Datasets[i].Name] = &p.Datasets[i]
	}
	told := map[string]int{}
	var out []v1alpha1.DatasetMeasurement
	for i := range r.Datasets {
		d := &r.Datasets[i]
		if _, twice := told[d.Name]; planned[d.Name] == nil || twice {
			continue
		}
		told[d.Name] = len(out)
		out = append(out, datasetMeasurement(d, s.Datasets, *planned[d.Name], when))
	}
	// What a report says nothing of keeps the worst that was seen of it. What else was measured is unknown.
	for _, d := range p.Datasets {
		left := leftOut(d, s.Datasets, out)
		if len(left) == 0 {
			continue
		}
		at, ok := told[d.Name]
		if !ok {
			at = len(out)
			out = append(out, v1alpha1.DatasetMeasurement{Name: d.Name})
		}
		out[at].Rules = append(out[at].Rules, left...)
	}
	return out
}

// leftOut are the rules of a dataset that the plan still has, that something overdue was once seen of, and that are
// not among those measured now.
func leftOut(d plan.Dataset, before, measured []v1alpha1.DatasetMeasurement) []v1alpha1.RuleMeasurement {
	var out []v1alpha1.RuleMeasurement
	for _, r := range d.Rules {
		_, b := measurementOf(before, d.Name, r)
		if b == nil || b.WorstOverdueSeconds == 0 {
			continue
		}
		if _, now := measurementOf(measured, d.Name, r); now != nil {
			continue
		}
		out = append(out, v1alpha1.RuleMeasurement{Policy: b.Policy, Rule: b.Rule, Window: b.Window, WorstOverdueSeconds: b.WorstOverdueSeconds, WorstOverdueAt: b.WorstOverdueAt,
			Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonLeftOut, Message: "the last report says nothing of this rule"}})
	}
	return out
}

// Deleted counts the rows that a sweep deleted, those among them of datasets whose measurement failed.
func Deleted(r report.Report) int64 {
	var n int64
	for _, d := range r.Datasets {
		for _, m := range d.Rules {
			n += m.Deleted
		}
	}
	return max(n, r.Deleted)
}

// count bounds a number that a sweep wrote.
func count(n int) int32 { return int32(min(max(n, 0), 1_000_000)) }

// measured says whether a sweep came to its measurement: one that failed, or never reached the store, did not.
func measured(r report.Report) bool {
	if r.Outcome == report.Failed || r.Identity == (v1alpha1.StoreIdentity{}) || len(r.Datasets) == 0 {
		return false
	}
	talked, known := reached(r.Reason)
	return talked || !known
}

func datasetMeasurement(d *report.Dataset, before []v1alpha1.DatasetMeasurement, p plan.Dataset, when time.Time) v1alpha1.DatasetMeasurement {
	out := v1alpha1.DatasetMeasurement{
		Name: d.Name, Rows: d.Rows, UnknownAge: d.UnknownAge, UnknownTenant: d.UnknownTenant, Returned: d.Returned, BacklogLeft: d.BacklogLeft, Capped: d.Capped,
		Problem: bounded(d.Problem), Notice: cut(d.Notice, maxProblem),
	}
	for i := range d.Rules {
		r := &d.Rules[i]
		n := slices.IndexFunc(p.Rules, func(planned plan.Rule) bool { return planned.Policy == r.Policy && planned.Rule == r.Rule })
		twice := slices.ContainsFunc(out.Rules, func(m v1alpha1.RuleMeasurement) bool { return m.Policy == r.Policy && m.Rule == r.Rule })
		if n < 0 || twice {
			continue
		}
		m := v1alpha1.RuleMeasurement{
			Policy: r.Policy, Rule: r.Rule, Window: p.Rules[n].RetainFor.String(), Eligible: r.Eligible, Overdue: r.Overdue, OldestOverdueSeconds: r.OldestOverdueSeconds,
			KeptByFloor: r.KeptByFloor, KeptByChild: r.KeptByChild, UnknownTenantLate: r.UnknownTenantLate, Deleted: r.Deleted, Capped: r.Capped, Problem: bounded(r.Problem),
		}
		_, b := measurementOf(before, d.Name, p.Rules[n])
		keepWorst(&m, b, max(r.OldestOverdueSeconds, r.OldestBeforeSeconds), when)
		out.Rules = append(out.Rules, m)
	}
	return out
}

func bounded(p v1alpha1.Problem) v1alpha1.Problem {
	return v1alpha1.Problem{Reason: cut(p.Reason, maxReason), Message: cut(p.Message, maxProblem)}
}

// keepWorst remembers the longest that a row was seen overdue under the same promise; before is what was measured of
// it last, or nil.
func keepWorst(m, before *v1alpha1.RuleMeasurement, seen int64, when time.Time) {
	if before != nil {
		m.WorstOverdueSeconds, m.WorstOverdueAt = before.WorstOverdueSeconds, before.WorstOverdueAt
	}
	if seen > m.WorstOverdueSeconds {
		m.WorstOverdueSeconds, m.WorstOverdueAt = seen, at(when)
	}
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
