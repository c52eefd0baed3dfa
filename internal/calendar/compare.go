package calendar

import (
	"fmt"
	"time"
)

// AtMost says whether w is provably no longer than v: whatever day a record is of, w ends when v does or earlier.
// Between hours, days and weeks, and between months and years, that is comparing numbers. Between the two groups the
// longest that w can be must fit into the shortest that v can be: 28 days are at most one month, 30 days are not.
// The zero Window compares with nothing.
func (w Window) AtMost(v Window) bool {
	return w.compare(v, func(x, y int64) bool { return x <= y })
}

// Shorter says whether w is provably shorter than v, whatever day a record is of. See AtMost.
func (w Window) Shorter(v Window) bool {
	return w.compare(v, func(x, y int64) bool { return x < y })
}

func (w Window) compare(v Window, holds func(x, y int64) bool) bool {
	if w.IsZero() || v.IsZero() {
		return false
	}
	a, b := w.length(), v.length()
	if a.months > 0 && b.months > 0 {
		return holds(int64(a.months), int64(b.months))
	}
	_, longest := a.extent()
	shortest, _ := b.extent()
	return holds(longest, shortest)
}

// Incomparable explains why w.AtMost(v) is false, for a person: longer, or not provably shorter.
func (w Window) Incomparable(v Window) string {
	if w.IsZero() || v.IsZero() {
		return "a window in exactly one unit is needed"
	}
	a, b := w.length(), v.length()
	_, longest := a.extent()
	shortest, _ := b.extent()
	if (a.months > 0) == (b.months > 0) || v.AtMost(w) {
		return fmt.Sprintf("%s is longer than %s", w, v)
	}
	return fmt.Sprintf("%s is not provably shorter than %s: the first can last %s, the second can be over after %s; use the same unit for both",
		w, v, days(longest), days(shortest))
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
