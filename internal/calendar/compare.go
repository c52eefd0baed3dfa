package calendar

import (
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// AtMost says whether a is provably no longer than b: whatever day a record is of, a ends when b does or earlier.
// Between hours, days and weeks, and between months and years, that is comparing numbers. Between the two groups the
// longest that a can be must fit into the shortest that b can be: 28 days are at most one month, 30 days are not.
// An invalid period compares with nothing.
func AtMost(a, b v1alpha1.Period) bool {
	return compare(a, b, func(x, y int64) bool { return x <= y })
}

// Shorter says whether a is provably shorter than b, whatever day a record is of. See AtMost.
func Shorter(a, b v1alpha1.Period) bool {
	return compare(a, b, func(x, y int64) bool { return x < y })
}

func compare(a, b v1alpha1.Period, holds func(x, y int64) bool) bool {
	la, err := parse(a)
	if err != nil {
		return false
	}
	lb, err := parse(b)
	if err != nil {
		return false
	}
	if la.months > 0 && lb.months > 0 {
		return holds(int64(la.months), int64(lb.months))
	}
	_, longest := la.extent()
	shortest, _ := lb.extent()
	return holds(longest, shortest)
}

// Incomparable explains why AtMost(a, b) is false, for a person: longer, or not provably shorter.
func Incomparable(a, b v1alpha1.Period) string {
	la, err := parse(a)
	if err != nil {
		return err.Error()
	}
	lb, err := parse(b)
	if err != nil {
		return err.Error()
	}
	_, longest := la.extent()
	shortest, _ := lb.extent()
	if (la.months > 0) == (lb.months > 0) || AtMost(b, a) {
		return fmt.Sprintf("%s is longer than %s", ISO(a), ISO(b))
	}
	return fmt.Sprintf("%s is not provably shorter than %s: the first can last %s, the second can be over after %s; use the same unit for both",
		ISO(a), ISO(b), days(longest), days(shortest))
}

func days(hours int64) string {
	if hours%24 != 0 {
		return fmt.Sprintf("%d hours", hours)
	}
	return fmt.Sprintf("%d days", hours/24)
}

// extent returns the fewest and the most hours that the length can last. Months are tried from every month of the
// 400 years after which the Gregorian calendar repeats.
func (l length) extent() (least, most int64) {
	if l.months == 0 {
		return l.hours, l.hours
	}
	const cycle = 400 * 12
	least = 1 << 62
	for m := 1; m <= cycle; m++ {
		start := time.Date(2000, time.Month(m), 1, 0, 0, 0, 0, time.UTC)
		end := time.Date(2000, time.Month(m+l.months), 1, 0, 0, 0, 0, time.UTC)
		full := int64(end.Sub(start) / (24 * time.Hour))
		// From the last day of a long month the clamp takes away what the target month is shorter.
		clamped := full - int64(max(0, lastDay(2000, m)-lastDay(2000, m+l.months)))
		least, most = min(least, clamped), max(most, full)
	}
	return least * 24, most * 24
}
