// Package calendar is calendar arithmetic on retention windows. It is pure: the time is always a parameter.
//
// A [Window] is a period that was parsed and validated once; whoever holds one need not ask again whether it is any.
// All arithmetic is in UTC and at microsecond resolution, which is what PostgreSQL stores. A record of age t under
// the window w expires at w.AddClamp(t); under a floor it may go at w.AddNormalise(t), which is never earlier. Both
// are asked backwards: Cutoff and FloorCutoff give the age up to which everything has expired, found by search, since
// subtracting months is not the inverse of adding them.
package calendar

import (
	"time"
)

// SweepInterval is how often a store is swept and measured. A deletion cannot be promised within less.
const SweepInterval = time.Hour

// The zero Window keeps everything for ever: these two are what expiry and cutoff are then. Zero would delete all.
var (
	never     = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	beginning = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
)

// AddClamp returns t plus w. A day that the month does not have becomes its last day at the same time of day:
// 31 January and one month is 28 (29) February; 29 February 2024 and seven years is 28 February 2031.
// The result is in UTC, cut to the microsecond. The zero Window gives the year 9999.
func (w Window) AddClamp(t time.Time) time.Time {
	if w.IsZero() {
		return never
	}
	l := w.length()
	t = t.UTC().Truncate(time.Microsecond)
	if l.months == 0 {
		return t.Add(time.Duration(l.hours) * time.Hour)
	}
	last := lastDay(t.Year(), int(t.Month())+l.months)
	if t.Day() <= last {
		return t.AddDate(0, l.months, 0)
	}
	return t.AddDate(0, 0, last-t.Day()).AddDate(0, l.months, 0)
}

// AddNormalise returns t plus w. A day that the month does not have runs over into the next one: 31 January and one
// month is 3 (2) March; 29 February 2024 and seven years is 1 March 2031. It is never earlier than AddClamp.
// The result is in UTC, cut to the microsecond. The zero Window gives the year 9999.
func (w Window) AddNormalise(t time.Time) time.Time {
	if w.IsZero() {
		return never
	}
	l := w.length()
	t = t.UTC().Truncate(time.Microsecond)
	if l.months == 0 {
		return t.Add(time.Duration(l.hours) * time.Hour)
	}
	return t.AddDate(0, l.months, 0)
}

// Cutoff returns the greatest age c of which it holds that everything as old as c or older has expired:
// w.AddClamp(t) <= now for every t <= c.
//
// "For every" matters at the end of a month. 28 January 10:00 and one month is 28 February 10:00, yet 31 January 09:00
// and one month is 28 February 09:00: the younger record expires first. The greatest c with w.AddClamp(c) <= now would
// at 09:30 be 31 January 09:30, and a statement "age <= c" would delete the record of 28 January 10:00 half an hour
// early. So days that the month does not have wait for the end of its last day, less than 24 hours.
//
// The result is in UTC and a whole microsecond. The zero Window gives the year 1: nothing is old enough.
func (w Window) Cutoff(now time.Time) time.Time {
	return w.search(now, latestClamp)
}

// FloorCutoff is Cutoff with the later arithmetic: w.AddNormalise(t) <= now for every t <= c. No floor can be
// undercut by the choice between two readings of "a month".
func (w Window) FloorCutoff(now time.Time) time.Time {
	return w.search(now, latestNormalise)
}

// search finds the greatest c with latest(c) <= now by halving; latest never falls as its argument grows.
func (w Window) search(now time.Time, latest func(time.Time, int) time.Time) time.Time {
	if w.IsZero() {
		return beginning
	}
	l := w.length()
	now = now.UTC().Truncate(time.Microsecond)
	if l.months == 0 {
		return now.Add(-time.Duration(l.hours) * time.Hour)
	}
	// n months are at most 31 n days and at least 28 n days less what a clamp takes, so c lies between.
	low := now.AddDate(0, 0, -31*l.months-7).UnixMicro()
	high := now.AddDate(0, 0, -28*l.months+7).UnixMicro()
	for low < high {
		middle := low + (high-low+1)/2
		if latest(time.UnixMicro(middle).UTC(), l.months).After(now) {
			high = middle - 1
		} else {
			low = middle
		}
	}
	return time.UnixMicro(low).UTC()
}

// latestClamp is the greatest AddClamp(s) over all s <= t.
func latestClamp(t time.Time, months int) time.Time {
	if t.Day() <= lastDay(t.Year(), int(t.Month())+months) {
		return t.AddDate(0, months, 0)
	}
	return endOfMonth(t.Year(), int(t.Month())+months)
}

// latestNormalise is the greatest AddNormalise(s) over all s <= t: what runs over from the month before can be later.
func latestNormalise(t time.Time, months int) time.Time {
	own := t.AddDate(0, months, 0)
	before := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC).Add(-time.Microsecond).AddDate(0, months, 0)
	if before.After(own) {
		return before
	}
	return own
}

// lastDay of a month; month may lie outside 1 to 12 and is then counted on from the year.
func lastDay(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// endOfMonth is the last microsecond of a month.
func endOfMonth(year, month int) time.Time {
	return time.Date(year, time.Month(month)+1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Microsecond)
}
