package sweep

import (
	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

func notReached(d plan.Dataset) []report.Line {
	line := report.Line{Dataset: d.Name, Reason: v1alpha1.ReasonNotReached, Message: "the sweep ended before this was measured"}
	if len(d.Rules) == 0 {
		return []report.Line{line}
	}
	var lines []report.Line
	for _, r := range d.Rules {
		line.Policy, line.Rule = r.Policy, r.Rule
		lines = append(lines, line)
	}
	return lines
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

// complete adds to a line what is not measured: what was deleted, what was refused, what the plan itself complains of.
func (s *run) complete(line *report.Line, i int) {
	d := s.Plan.Datasets[i]
	// Rows are booked to the rule that deleted them, and to no other that governs the same dataset.
	if d.Delete != nil && line.Policy == d.Delete.Policy && line.Rule == d.Delete.Rule {
		line.Deleted = s.deleted[i].Rows
	}
	line.Returned, line.BacklogLeft = s.returned[i], s.backlogs[i].left()
	if p := s.refused[i]; p != nil && line.Reason == "" {
		line.Reason, line.Message = p.Reason, p.Message
	}
	problem := d.Problem
	for _, r := range d.Rules {
		if r.Policy == line.Policy && r.Rule == line.Rule && r.Problem != "" {
			problem = r.Problem
		}
	}
	if problem != "" && line.Reason == "" {
		line.Reason, line.Message = v1alpha1.ReasonPlan, problem
	}
	if i < len(s.before) {
		for _, b := range s.before[i] {
			if b.Policy == line.Policy && b.Rule == line.Rule {
				line.OverdueBefore, line.OldestBeforeSeconds = b.Overdue, b.OldestOverdueSeconds
			}
		}
	}
	line.Message, line.Notice = cut(line.Message, maxMessage), cut(s.notice(i), maxMessage)
}

// judge turns what single datasets ran into to the outcome of the whole.
func (s *run) judge() {
	if s.unread != "" {
		s.end(report.Refused, v1alpha1.ReasonTenantsUnknown, "%s: what depends on it was neither deleted nor measured", s.unread)
	}
	var names []string
	seen := map[string]bool{}
	for _, l := range s.r.Lines {
		switch l.Reason {
		case "", v1alpha1.ReasonUngoverned, v1alpha1.ReasonPlan, v1alpha1.ReasonNotReached, v1alpha1.ReasonContradiction:
			continue
		}
		if !seen[l.Dataset] {
			seen[l.Dataset] = true
			names = append(names, l.Dataset)
		}
	}
	if len(names) > 0 {
		s.end(report.Refused, v1alpha1.ReasonDatasetsRefused, "%d of %d datasets were not wholly measured or deleted from, first %s: see their lines",
			len(names), len(s.Plan.Datasets), names[0])
	}
}
