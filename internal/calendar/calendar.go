// Package calendar is calendar arithmetic on retention periods. It is pure: the time is always a parameter.
//
// All arithmetic is in UTC and at microsecond resolution, which is what PostgreSQL stores. A record of age t under the
// window p expires at AddClamp(t, p); under a floor it may go at AddNormalise(t, p), which is never earlier. Both are
// asked backwards: Cutoff and FloorCutoff give the age up to which everything has expired, found by search, since
// subtracting months is not the inverse of adding them.
package calendar

import (
	"errors"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// unit of a period, reduced to the two kinds that exist: an exact number of hours or a number of calendar months.
type length struct {
	hours  int64 // exact; set when months is 0
	months int   // calendar; a year is exactly 12 of them
}

// bound names a unit with its number and the most that the API allows of it.
type bound struct {
	name   string
	value  *int32
	most   int32
	length func(n int32) length
}

func bounds(p v1alpha1.Period) []bound {
	return []bound{
		{"hours", p.Hours, 876000, func(n int32) length { return length{hours: int64(n)} }},
		{"days", p.Days, 36500, func(n int32) length { return length{hours: int64(n) * 24} }},
		{"weeks", p.Weeks, 5200, func(n int32) length { return length{hours: int64(n) * 24 * 7} }},
		{"months", p.Months, 1200, func(n int32) length { return length{months: int(n)} }},
		{"years", p.Years, 100, func(n int32) length { return length{months: int(n) * 12} }},
	}
}

// parse returns the length of p, or why it has none.
func parse(p v1alpha1.Period) (length, error) {
	var found *bound
	for _, b := range bounds(p) {
		if b.value == nil {
			continue
		}
		if found != nil {
			return length{}, fmt.Errorf("a period has exactly one unit, this one has %s and %s", found.name, b.name)
		}
		found = &b
	}
	if found == nil {
		return length{}, errors.New("a period needs one of hours, days, weeks, months, years")
	}
	if n := *found.value; n < 1 || n > found.most {
		return length{}, fmt.Errorf("%s: %d is not between 1 and %d", found.name, n, found.most)
	}
	return found.length(*found.value), nil
}

// Validate says whether p has exactly one unit, at least 1 and at most what the API allows.
func Validate(p v1alpha1.Period) error {
	_, err := parse(p)
	return err
}

// SweepInterval is how often a store is swept and measured. A deletion cannot be promised within less.
const SweepInterval = time.Hour

// KeptBySweeping says whether a deletion can be as punctual as a slack asks.
func KeptBySweeping(s v1alpha1.Slack) bool {
	d, err := SlackDuration(s)
	return err == nil && d >= SweepInterval
}

// SlackDuration returns the clock time of s, or an error when it does not have exactly one unit between 1 and what the API allows.
func SlackDuration(s v1alpha1.Slack) (time.Duration, error) {
	var found time.Duration
	units := 0
	for _, u := range []struct {
		name  string
		value *int32
		most  int32
		one   time.Duration
	}{
		{"minutes", s.Minutes, 525600, time.Minute},
		{"hours", s.Hours, 8760, time.Hour},
		{"days", s.Days, 365, 24 * time.Hour},
	} {
		if u.value == nil {
			continue
		}
		if *u.value < 1 || *u.value > u.most {
			return 0, fmt.Errorf("%s: %d is not between 1 and %d", u.name, *u.value, u.most)
		}
		units++
		found = time.Duration(*u.value) * u.one
	}
	if units != 1 {
		return 0, fmt.Errorf("a slack has exactly one of minutes, hours, days, this one has %d", units)
	}
	return found, nil
}

// ISO writes p as ISO 8601 does: PT36H, P90D, P2W, P24M, P7Y. An invalid period is "invalid".
func ISO(p v1alpha1.Period) string {
	if Validate(p) != nil {
		return "invalid"
	}
	switch {
	case p.Hours != nil:
		return fmt.Sprintf("PT%dH", *p.Hours)
	case p.Days != nil:
		return fmt.Sprintf("P%dD", *p.Days)
	case p.Weeks != nil:
		return fmt.Sprintf("P%dW", *p.Weeks)
	case p.Months != nil:
		return fmt.Sprintf("P%dM", *p.Months)
	default:
		return fmt.Sprintf("P%dY", *p.Years)
	}
}

// ParseISO reads what ISO writes: a whole number of one unit, such as PT36H, P90D, P2W, P24M or P7Y.
func ParseISO(text string) (v1alpha1.Period, error) {
	for _, unit := range []string{"PT%dH", "P%dD", "P%dW", "P%dM", "P%dY"} {
		var n int32
		if got, err := fmt.Sscanf(text, unit, &n); got != 1 || err != nil || fmt.Sprintf(unit, n) != text {
			continue
		}
		p := map[string]v1alpha1.Period{"PT%dH": {Hours: &n}, "P%dD": {Days: &n}, "P%dW": {Weeks: &n}, "P%dM": {Months: &n}, "P%dY": {Years: &n}}[unit]
		if err := Validate(p); err != nil {
			return v1alpha1.Period{}, err
		}
		return p, nil
	}
	return v1alpha1.Period{}, errors.New("not a period of ISO 8601 in one unit, such as PT36H, P90D, P2W, P24M or P7Y")
}

// ISOSlack writes s as ISO 8601 does: PT30M, PT24H, P1D. An invalid slack is "invalid".
func ISOSlack(s v1alpha1.Slack) string {
	if _, err := SlackDuration(s); err != nil {
		return "invalid"
	}
	switch {
	case s.Minutes != nil:
		return fmt.Sprintf("PT%dM", *s.Minutes)
	case s.Hours != nil:
		return fmt.Sprintf("PT%dH", *s.Hours)
	default:
		return fmt.Sprintf("P%dD", *s.Days)
	}
}

// An invalid period keeps everything for ever: these two are what expiry and cutoff are then. Zero would delete all.
var (
	never     = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	beginning = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
)

// AddClamp returns t plus p. A day that the month does not have becomes its last day at the same time of day:
// 31 January and one month is 28 (29) February; 29 February 2024 and seven years is 28 February 2031.
// The result is in UTC, cut to the microsecond. An invalid period gives the year 9999.
func AddClamp(t time.Time, p v1alpha1.Period) time.Time {
	l, err := parse(p)
	if err != nil {
		return never
	}
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

// AddNormalise returns t plus p. A day that the month does not have runs over into the next one: 31 January and one
// month is 3 (2) March; 29 February 2024 and seven years is 1 March 2031. It is never earlier than AddClamp.
// The result is in UTC, cut to the microsecond. An invalid period gives the year 9999.
func AddNormalise(t time.Time, p v1alpha1.Period) time.Time {
	l, err := parse(p)
	if err != nil {
		return never
	}
	t = t.UTC().Truncate(time.Microsecond)
	if l.months == 0 {
		return t.Add(time.Duration(l.hours) * time.Hour)
	}
	return t.AddDate(0, l.months, 0)
}

// Cutoff returns the greatest age c of which it holds that everything as old as c or older has expired:
// AddClamp(t, p) <= now for every t <= c.
//
// "For every" matters at the end of a month. 28 January 10:00 and one month is 28 February 10:00, yet 31 January 09:00
// and one month is 28 February 09:00: the younger record expires first. The greatest c with AddClamp(c, p) <= now would
// at 09:30 be 31 January 09:30, and a statement "age <= c" would delete the record of 28 January 10:00 half an hour
// early. So days that the month does not have wait for the end of its last day, less than 24 hours.
//
// The result is in UTC and a whole microsecond. An invalid period gives the year 1: nothing is old enough.
func Cutoff(now time.Time, p v1alpha1.Period) time.Time {
	return search(now, p, latestClamp)
}

// FloorCutoff is Cutoff with the later arithmetic: AddNormalise(t, p) <= now for every t <= c. No floor can be
// undercut by the choice between two readings of "a month".
func FloorCutoff(now time.Time, p v1alpha1.Period) time.Time {
	return search(now, p, latestNormalise)
}

// search finds the greatest c with latest(c) <= now by halving; latest never falls as its argument grows.
func search(now time.Time, p v1alpha1.Period, latest func(time.Time, int) time.Time) time.Time {
	l, err := parse(p)
	if err != nil {
		return beginning
	}
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
