package report

import (
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// Dataset is what was measured of one dataset after the sweep: what is its table's once, and beneath it each rule
// that governs it.
type Dataset struct {
	Name             string `json:"ds"`
	Rows             int64  `json:"n"` // estimate of the planner
	UnknownAge       int64  `json:"noage,omitempty"`
	UnknownTenant    int64  `json:"noten,omitempty"`
	Returned         int64  `json:"ret,omitempty"` // older than what the last complete sweep left, and there again
	BacklogLeft      int64  `json:"bl,omitempty"`  // of the approved backlog
	OldestAgeSeconds int64  `json:"age,omitempty"` // age of the oldest row whose age is known
	Capped           bool   `json:"cap,omitempty"` // a count of the table stopped at its bound
	// Problem is why the dataset was not measured, or not deleted from. It holds for each rule that has none of its
	// own.
	v1alpha1.Problem `json:",inline"`
	Notice           string `json:"note,omitempty"` // what is worth knowing and is no problem
	Rules            []Rule `json:"rules,omitempty"`
}

// Rule is what was measured for one rule on one dataset.
type Rule struct {
	Policy               string `json:"pol"`
	Rule                 string `json:"rule"`
	Eligible             int64  `json:"elig,omitempty"`   // past the window and deletable, still there
	Overdue              int64  `json:"over,omitempty"`   // past window and slack, still there
	OldestOverdueSeconds int64  `json:"oldest,omitempty"` // how long the worst of them has been overdue
	KeptByFloor          int64  `json:"floor,omitempty"`
	KeptByChild          int64  `json:"child,omitempty"`
	UnknownTenantLate    int64  `json:"notenLate,omitempty"` // of no known tenant, and older than the shortest window that a tenant has, and slack
	OverdueBefore        int64  `json:"over0,omitempty"`     // what was overdue before the sweep deleted
	OldestBeforeSeconds  int64  `json:"oldest0,omitempty"`   // how long the worst of them had been overdue
	Deleted              int64  `json:"del,omitempty"`
	Capped               bool   `json:"cap,omitempty"` // a count stopped at its bound
	// Problem of this rule alone: why it was not measured, or not wholly. Its numbers mean nothing then.
	v1alpha1.Problem `json:",inline"`
}

// ProblemOf is why a rule of the dataset was not measured or not deleted by: its own problem, or else the dataset's.
func (d *Dataset) ProblemOf(r *Rule) v1alpha1.Problem {
	if r.Reason != "" {
		return r.Problem
	}
	return d.Problem
}

// worstFirst sorts a copy: rules within their dataset, and datasets by their worst rule.
func worstFirst(datasets []Dataset) []Dataset {
	out := slices.Clone(datasets)
	for i := range out {
		d := &out[i]
		d.Rules = slices.Clone(d.Rules)
		slices.SortStableFunc(d.Rules, func(a, b Rule) int { return compare(d, &a, d, &b) })
	}
	slices.SortStableFunc(out, func(a, b Dataset) int { return compare(&a, a.worst(), &b, b.worst()) })
	return out
}

// worst rule of a dataset whose rules are sorted; one that says nothing where no rule governs it.
func (d *Dataset) worst() *Rule {
	if len(d.Rules) == 0 {
		return &Rule{}
	}
	return &d.Rules[0]
}

// compare orders measurements: not measured first, then by how long and how much is overdue, then what waits, then by
// name.
func compare(d *Dataset, r *Rule, e *Dataset, s *Rule) int {
	more := func(a, b int64) int {
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	}
	failing := func(p v1alpha1.Problem) int64 { return min(1, int64(len(p.Reason))) }
	for _, c := range []int{
		more(failing(d.ProblemOf(r)), failing(e.ProblemOf(s))), more(r.OldestOverdueSeconds, s.OldestOverdueSeconds), more(r.Overdue, s.Overdue),
		more(d.UnknownAge, e.UnknownAge), more(r.Eligible, s.Eligible),
	} {
		if c != 0 {
			return c
		}
	}
	return strings.Compare(d.Name+"/"+r.Policy+"/"+r.Rule, e.Name+"/"+s.Policy+"/"+s.Rule)
}

// clean takes from a dataset what a pod that was broken into may have written; not ok: it is not of its form.
func (d *Dataset) clean() (ok bool) {
	ok = isWord(d.Reason)
	d.Message, d.Notice = foreign.Text(d.Message), foreign.Text(d.Notice)
	for i := range d.Rules {
		r := &d.Rules[i]
		ok = ok && isWord(r.Reason)
		r.Message = foreign.Text(r.Message)
	}
	return ok
}
