package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/internal/calendar"
)

// Class is tenants that have the same windows of their own wherever any tenant has one. A tenant of which only some
// identifiers have a window somewhere is in two classes, each with some of them.
type Class struct {
	// Windows of the class, one for each column that rules and deletions name by Own: the place of a period in
	// Plan.Periods, counted from 1. 0: the class has no window of its own there, and the base window is for it.
	Windows []int `json:"windows"`
	// Tenants by name, each with the values of the tenant column that are its, sorted. Each value stands in a plan
	// once.
	Tenants map[string][]string `json:"tenants"`
}

// Override is the shorter window of one tenant in a Shared store, as Overrides reads it out of the tables of a plan.
type Override struct {
	Tenant      string          `json:"tenant"`
	ExternalIDs []string        `json:"externalIDs"`
	RetainFor   calendar.Window `json:"retainFor"`
}

// Overrides are the windows of single tenants in one column of the plan's tables, sorted by tenant. Column 0 has none.
func (p Plan) Overrides(column int) []Override {
	if column <= 0 {
		return nil
	}
	var out []Override
	for _, c := range p.Classes {
		if column > len(c.Windows) || c.Windows[column-1] == 0 {
			continue
		}
		window := p.Periods[c.Windows[column-1]-1]
		for name, ids := range c.Tenants {
			out = append(out, Override{Tenant: name, ExternalIDs: ids, RetainFor: window})
		}
	}
	slices.SortFunc(out, func(a, b Override) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), slices.Compare(a.ExternalIDs, b.ExternalIDs))
	})
	return joined(out)
}

// Identifiers are the values of the tenant column that belong to tenants with a window of their own, sorted.
func (p Plan) Identifiers() []string {
	var out []string
	for _, c := range p.Classes {
		for _, ids := range c.Tenants {
			out = append(out, ids...)
		}
	}
	slices.Sort(out)
	return out
}

// joined makes one override of those that give one tenant the same window.
func joined(in []Override) []Override {
	out := in[:0]
	for _, o := range in {
		last := len(out) - 1
		if last < 0 || out[last].Tenant != o.Tenant || out[last].RetainFor != o.RetainFor {
			out = append(out, o)
			continue
		}
		ids := slices.Concat(out[last].ExternalIDs, o.ExternalIDs)
		slices.Sort(ids)
		out[last].ExternalIDs = ids
	}
	return out
}

// checkTables says what is wrong with the tables of a plan: whoever reads one by its columns must find what they name.
func (p Plan) checkTables() error {
	columns := 0
	if len(p.Classes) > 0 {
		columns = len(p.Classes[0].Windows)
	}
	seen := map[string]bool{}
	for _, c := range p.Classes {
		if len(c.Windows) != columns {
			return fmt.Errorf("%w: a class has %d windows, another %d", ErrMalformed, len(c.Windows), columns)
		}
		for _, w := range c.Windows {
			if w < 0 || w > len(p.Periods) {
				return fmt.Errorf("%w: a class names period %d of %d", ErrMalformed, w, len(p.Periods))
			}
		}
		for _, ids := range c.Tenants {
			for _, id := range ids {
				if seen[id] {
					return fmt.Errorf("%w: one identifier stands in it twice", ErrMalformed)
				}
				seen[id] = true
			}
		}
	}
	for _, d := range p.Datasets {
		for _, r := range d.Rules {
			if r.Own < 0 || r.Own > columns {
				return fmt.Errorf("%w: a rule names column %d of %d", ErrMalformed, r.Own, columns)
			}
		}
		if d.Delete != nil && (d.Delete.Own < 0 || d.Delete.Own > columns) {
			return fmt.Errorf("%w: a deletion names column %d of %d", ErrMalformed, d.Delete.Own, columns)
		}
	}
	return nil
}

// sheet is the windows of single tenants under one rule, or under several together, while a plan is compiled. It is
// shared by all datasets that have the same ones, and never changed once it is made.
type sheet struct {
	overrides []Override // sorted by tenant
	of        map[string]int
	// firsts are the places of the first override with each window.
	firsts []int
	// said are the problems that came up, of each dataset that the rule governs.
	said []string
}

// noOverrides is the sheet of a store that has none.
var noOverrides = &sheet{}

func newSheet(overrides []Override, said ...string) *sheet {
	s := &sheet{overrides: overrides, of: make(map[string]int, len(overrides)), said: said}
	seen := map[calendar.Window]bool{}
	for i, o := range overrides {
		s.of[o.Tenant] = i
		if k := o.RetainFor; !seen[k] {
			seen[k] = true
			s.firsts = append(s.firsts, i)
		}
	}
	return s
}

// windowOf one tenant, where base is that of all that have none of their own.
func (s *sheet) windowOf(tenant string, base calendar.Window) calendar.Window {
	if o := s.find(tenant); o != nil {
		return o.RetainFor
	}
	return base
}

// find the override of a tenant; nil: it has none.
func (s *sheet) find(tenant string) *Override {
	if i, ok := s.of[tenant]; ok {
		return &s.overrides[i]
	}
	return nil
}

// binder puts sheets into the tables of a plan.
type binder struct {
	columns []*sheet
	known   map[*sheet]int
	same    map[string]int
}

// column of a sheet; 0: it is empty.
func (b *binder) column(s *sheet) int {
	if s == nil || len(s.overrides) == 0 {
		return 0
	}
	if n, ok := b.known[s]; ok {
		return n
	}
	var text strings.Builder
	for _, o := range s.overrides {
		fmt.Fprintf(&text, "%s\n%s\n%q\n", o.Tenant, o.RetainFor, o.ExternalIDs)
	}
	n, ok := b.same[text.String()]
	if !ok {
		b.columns = append(b.columns, s)
		n = len(b.columns)
		b.same[text.String()] = n
	}
	b.known[s] = n
	return n
}

// bind fills the tables: periods in the order in which classes name them, classes in the order of their first tenant.
func (b *binder) bind(p *Plan) {
	type place struct{ tenant, id string }
	rows := map[place][]int{}
	places := map[calendar.Window]int{}
	var periods []calendar.Window
	for n, s := range b.columns {
		for _, o := range s.overrides {
			k := o.RetainFor
			if places[k] == 0 {
				periods = append(periods, o.RetainFor)
				places[k] = len(periods)
			}
			for _, id := range o.ExternalIDs {
				at := place{o.Tenant, id}
				if rows[at] == nil {
					rows[at] = make([]int, len(b.columns))
				}
				rows[at][n] = places[k]
			}
		}
	}
	sorted := make([]place, 0, len(rows))
	for at := range rows {
		sorted = append(sorted, at)
	}
	slices.SortFunc(sorted, func(a, b place) int { return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.id, b.id)) })
	classes := map[string]int{}
	for _, at := range sorted {
		k := fmt.Sprint(rows[at])
		i, ok := classes[k]
		if !ok {
			i = len(p.Classes)
			classes[k] = i
			p.Classes = append(p.Classes, Class{Windows: rows[at], Tenants: map[string][]string{}})
		}
		p.Classes[i].Tenants[at.tenant] = append(p.Classes[i].Tenants[at.tenant], at.id)
	}
	p.Periods = periods
}
