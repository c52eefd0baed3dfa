package plan

import (
	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/retention"
)

// ordering remembers comparisons of windows: a store of ten thousand tenants compares the same few over and over.
type ordering struct {
	known map[[2]string]bool
}

func newOrdering() *ordering { return &ordering{known: map[[2]string]bool{}} }

// atMost says whether a is provably no longer than b.
func (o *ordering) atMost(a, b v1alpha1.Period) bool {
	key := [2]string{retention.ISO(a), retention.ISO(b)}
	v, ok := o.known[key]
	if !ok {
		v = retention.AtMost(a, b)
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
