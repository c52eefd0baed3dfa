package sweep

import (
	"slices"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

func notReached(d plan.Dataset) report.Dataset {
	out := report.Dataset{Name: d.Name, Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonNotReached, Message: "the sweep ended before this was measured"}}
	for _, r := range d.Rules {
		out.Rules = append(out.Rules, report.Rule{Policy: r.Policy, Rule: r.Rule})
	}
	return out
}

// nameGuesses tells what a person has to say or to know about the columns.
func (s *run) nameGuesses() {
	undeclared, pointers := s.store.Undeclared(), s.store.Pointers()
	s.r.UndeclaredCount, s.r.PointerCount = len(undeclared), len(pointers)
	s.r.Pointers = pointers[:min(len(pointers), report.MaxPointers)]
	for _, u := range undeclared[:min(len(undeclared), report.MaxUndeclared)] {
		s.r.Undeclared = append(s.r.Undeclared, report.Relation{Table: u.Schema + "." + u.Table, Column: u.Column, References: u.References})
	}
}

// complete adds to a measurement what is not measured: what was deleted, what was refused, what the plan itself
// complains of.
func (s *run) complete(m *report.Dataset, i int) {
	d := s.Plan.Datasets[i]
	m.Returned, m.BacklogLeft = s.returned[i], s.backlogs[i].left()
	if p := s.refused[i]; p != nil && m.Reason == "" {
		m.Reason, m.Message = p.Reason, p.Message
	}
	for n := range m.Rules {
		s.completeRule(m, &m.Rules[n], i)
	}
	if d.Problem != "" && m.Reason == "" {
		m.Reason, m.Message = v1alpha1.ReasonPlan, d.Problem
	}
	m.Message, m.Notice = cut(m.Message), cut(s.notice(i))
}

func (s *run) completeRule(m *report.Dataset, rule *report.Rule, i int) {
	d := s.Plan.Datasets[i]
	// Rows are booked to the rule that deleted them, and to no other that governs the same dataset.
	if d.Delete != nil && rule.Policy == d.Delete.Policy && rule.Rule == d.Delete.Rule {
		rule.Deleted = s.deleted[i].Rows
	}
	for _, r := range d.Rules {
		if r.Policy == rule.Policy && r.Rule == rule.Rule && r.Problem != "" && m.ProblemOf(rule).Reason == "" {
			rule.Reason, rule.Message = v1alpha1.ReasonPlan, r.Problem
		}
	}
	if i < len(s.before) {
		for _, b := range s.before[i] {
			if b.Policy == rule.Policy && b.Rule == rule.Rule {
				rule.OverdueBefore, rule.OldestBeforeSeconds = b.Overdue, b.OldestOverdueSeconds
			}
		}
	}
	rule.Message = cut(rule.Message)
}

// judge turns what single datasets ran into to the outcome of the whole.
func (s *run) judge() {
	if s.unread != "" {
		reason := v1alpha1.ReasonTenantsUnknown
		if s.tooMany {
			reason = v1alpha1.ReasonTooManyTenants
		}
		s.end(report.Refused, reason, "%s: what depends on it was neither deleted nor measured", s.unread)
	}
	var names []string
	for i := range s.r.Datasets {
		if d := &s.r.Datasets[i]; refused(d.Reason) || slices.ContainsFunc(d.Rules, func(r report.Rule) bool { return refused(r.Reason) }) {
			names = append(names, d.Name)
		}
	}
	if len(names) > 0 {
		s.end(report.Refused, v1alpha1.ReasonDatasetsRefused, "%d of %d datasets were not wholly measured or deleted from, first %s: see what is said of each",
			len(names), len(s.Plan.Datasets), names[0])
	}
}

// refused says of a reason that something of its dataset was not measured or not deleted from, and that nothing else
// tells why.
func refused(reason string) bool {
	switch reason {
	case "", v1alpha1.ReasonUngoverned, v1alpha1.ReasonPlan, v1alpha1.ReasonNotReached, v1alpha1.ReasonContradiction:
		return false
	}
	return true
}
