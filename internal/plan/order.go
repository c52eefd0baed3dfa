package plan

import (
	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// ordering remembers comparisons of windows: a store of ten thousand tenants compares the same few over and over.
type ordering struct {
	known map[[2]periodKey]bool
}

func newOrdering() *ordering { return &ordering{known: map[[2]periodKey]bool{}} }

// periodKey is a period that can be compared: its numbers of hours, days, weeks, months and years, each apart from having none.
type periodKey [5]int64

func keyOf(p v1alpha1.Period) (k periodKey) {
	for i, n := range [...]*int32{p.Hours, p.Days, p.Weeks, p.Months, p.Years} {
		if n != nil {
			k[i] = 1<<40 + int64(*n)
		}
	}
	return k
}

// atMost says whether a is provably no longer than b.
func (o *ordering) atMost(a, b v1alpha1.Period) bool {
	key := [2]periodKey{keyOf(a), keyOf(b)}
	v, ok := o.known[key]
	if !ok {
		v = calendar.AtMost(a, b)
		o.known[key] = v
	}
	return v
}

// shortest returns the place of the window that is provably no longer than any other, -1 when there is none.
func (o *ordering) shortest(windows []v1alpha1.Period) int {
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
