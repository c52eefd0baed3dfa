package plan

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/lethe-dev/lethe/internal/calendar"
)

// Covers says whether whatever a sweep by the plan held deletes a sweep by the plan live may delete as well, so that
// one that has begun may go on. What can be ordered is ordered: windows, floors, the brake, backlogs, validity,
// disputes. Everything else must be equal, also a field that this function knows nothing of. Where an order cannot be
// proved the answer is no: the sweep ends, and the next is of the live plan.
func Covers(live, held Plan) bool {
	if !equal(unordered(live), unordered(held)) {
		return false
	}
	if live.BrakePercent < held.BrakePercent || live.ValidUntil.Before(held.ValidUntil) {
		return false
	}
	// A value that is disputed since may be, to a column that takes upper and lower case for the same, one that the
	// sweep takes for a single tenant's: the store has not been asked. Of those that are merely known the sweep hears
	// with its lease.
	if !subset(live.Disputed, held.Disputed) {
		return false
	}
	c := cover{live: live, held: held, ord: newOrdering(), columns: map[[2]int]bool{}}
	for i := range held.Datasets {
		if !c.dataset(live.Datasets[i], held.Datasets[i]) {
			return false
		}
	}
	return true
}

// equal compares by what is written of a plan: one that was read has nothing where one that was compiled has an empty
// list.
func equal(a, b any) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	other, err := json.Marshal(b)
	return err == nil && bytes.Equal(one, other)
}

// unordered is a plan without what Covers has an order for.
func unordered(p Plan) Plan {
	p.Periods, p.Classes, p.Disputed, p.BrakePercent, p.ValidUntil = nil, nil, nil, 0, time.Time{}
	p.Datasets = slices.Clone(p.Datasets)
	for i := range p.Datasets {
		d := &p.Datasets[i]
		d.Floor, d.Delete = nil, nil
		d.Rules = slices.Clone(d.Rules)
		for n := range d.Rules {
			d.Rules[n].RetainFor, d.Rules[n].Own = calendar.Window{}, 0
		}
	}
	return p
}

// unorderedDeletion is a deletion without what Covers has an order for.
func unorderedDeletion(d Deletion) Deletion {
	d.RetainFor, d.Own, d.Backlog = calendar.Window{}, 0, nil
	return d
}

// unorderedBacklog is a backlog without what Covers has an order for. An approval that is another is not counted on:
// what is used up of the one says nothing about the other.
func unorderedBacklog(b Backlog) Backlog {
	b.Rows, b.Until = 0, time.Time{}
	return b
}

// cover is one comparison.
type cover struct {
	live, held Plan
	ord        *ordering
	columns    map[[2]int]bool // pairs of columns that were compared, live before held
}

func (c *cover) dataset(live, held Dataset) bool {
	// A floor that is new, or longer, keeps rows.
	if live.Floor != nil && (held.Floor == nil || !c.ord.atMost(*live.Floor, *held.Floor)) {
		return false
	}
	for i := range held.Rules {
		if !c.windows(live.Rules[i].RetainFor, live.Rules[i].Own, held.Rules[i].RetainFor, held.Rules[i].Own) {
			return false
		}
	}
	if held.Delete == nil {
		return true
	}
	return live.Delete != nil && equal(unorderedDeletion(*live.Delete), unorderedDeletion(*held.Delete)) &&
		c.windows(live.Delete.RetainFor, live.Delete.Own, held.Delete.RetainFor, held.Delete.Own) && backlogCovers(live.Delete.Backlog, held.Delete.Backlog)
}

func backlogCovers(live, held *Backlog) bool {
	if held == nil {
		return true
	}
	return live != nil && equal(unorderedBacklog(*live), unorderedBacklog(*held)) && live.Rows >= held.Rows && !live.Until.Before(held.Until)
}

// windows says whether no row stays longer by the live ones. The same tenants must have windows of their own, under
// the same identifiers: of an identifier that is there or not there the store must be asked first whether its column
// can tell it from another.
func (c *cover) windows(live calendar.Window, liveOwn int, held calendar.Window, heldOwn int) bool {
	if !c.ord.atMost(live, held) {
		return false
	}
	pair := [2]int{liveOwn, heldOwn}
	covered, known := c.columns[pair]
	if !known {
		covered = slices.EqualFunc(c.live.Overrides(liveOwn), c.held.Overrides(heldOwn), func(l, h Override) bool {
			return l.Tenant == h.Tenant && slices.Equal(l.ExternalIDs, h.ExternalIDs) && c.ord.atMost(l.RetainFor, h.RetainFor)
		})
		c.columns[pair] = covered
	}
	return covered
}

// subset says whether all of some values are among others.
func subset(some, others []string) bool {
	among := make(map[string]bool, len(others))
	for _, v := range others {
		among[v] = true
	}
	return !slices.ContainsFunc(some, func(v string) bool { return !among[v] })
}
