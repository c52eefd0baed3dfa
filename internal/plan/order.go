package plan

import (
	"github.com/lethe-dev/lethe/internal/calendar"
)

// ordering remembers comparisons of windows: a store of ten thousand tenants compares the same few over and over.
type ordering struct {
	known map[[2]calendar.Window]bool
}

func newOrdering() *ordering { return &ordering{known: map[[2]calendar.Window]bool{}} }

// atMost says whether a is provably no longer than b.
func (o *ordering) atMost(a, b calendar.Window) bool {
	key := [2]calendar.Window{a, b}
	v, ok := o.known[key]
	if !ok {
		v = a.AtMost(b)
		o.known[key] = v
	}
	return v
}

// shortest returns the place of the window that is provably no longer than any other, -1 when there is none.
func (o *ordering) shortest(windows []calendar.Window) int {
	for i, w := range windows {
		least := true
		for _, v := range windows {
			least = least && o.atMost(w, v)
		}
		if least {
			return i
		}
	}
	return -1
}
