package storetest

import "github.com/lethe-dev/lethe/internal/report"

// Line is one rule on one dataset with what was measured of both, for tests that look at them together. A dataset
// without rules has one.
type Line struct {
	Dataset, Policy, Rule            string
	Rows, Eligible                   int64
	Overdue, OldestOverdueSeconds    int64
	KeptByFloor, KeptByChild         int64
	UnknownAge                       int64
	UnknownTenant, UnknownTenantLate int64
	OverdueBefore                    int64
	OldestBeforeSeconds              int64
	Returned, BacklogLeft, Deleted   int64
	OldestAgeSeconds                 int64
	Capped                           bool
	Reason, Message, Notice          string
}

// LinesOf a dataset.
func LinesOf(d report.Dataset) []Line {
	rules := d.Rules
	if len(rules) == 0 {
		rules = []report.Rule{{}}
	}
	var out []Line
	for i := range rules {
		r := &rules[i]
		why := d.ProblemOf(r)
		out = append(out, Line{
			Dataset: d.Name, Policy: r.Policy, Rule: r.Rule, Rows: d.Rows, Eligible: r.Eligible, Overdue: r.Overdue, OldestOverdueSeconds: r.OldestOverdueSeconds,
			KeptByFloor: r.KeptByFloor, KeptByChild: r.KeptByChild, UnknownAge: d.UnknownAge, UnknownTenant: d.UnknownTenant, UnknownTenantLate: r.UnknownTenantLate,
			OverdueBefore: r.OverdueBefore, OldestBeforeSeconds: r.OldestBeforeSeconds, Returned: d.Returned, BacklogLeft: d.BacklogLeft, Deleted: r.Deleted, OldestAgeSeconds: d.OldestAgeSeconds,
			Capped: d.Capped || r.Capped, Reason: why.Reason, Message: why.Message, Notice: d.Notice,
		})
	}
	return out
}

// Lines of a report, in its order.
func Lines(r report.Report) []Line {
	var out []Line
	for _, d := range r.Datasets {
		out = append(out, LinesOf(d)...)
	}
	return out
}
