package calendar

import "time"

// clocksGoBack bounds how far ahead a clock that is going to be put back can repeat a local time that is already past.
const clocksGoBack = 26 * time.Hour

// LocalCutoff translates a cutoff for a column that holds local times of loc without saying so. It returns the greatest
// local time n (held in a time.Time in UTC, as PostgreSQL's timestamp is) so that no instant after cutoff has a local
// time of n or earlier. Where clocks are put back an hour exists twice; it counts as the later of the two.
func LocalCutoff(cutoff time.Time, loc *time.Location) time.Time {
	cutoff = cutoff.Truncate(time.Microsecond)
	least := wall(cutoff.In(loc))
	for at := cutoff.In(loc); ; {
		_, end := at.ZoneBounds()
		if end.IsZero() || end.Sub(cutoff) > clocksGoBack {
			return least
		}
		if again := wall(end.In(loc)).Add(-time.Microsecond); again.Before(least) {
			least = again
		}
		at = end.In(loc)
	}
}

// DateCutoff translates a cutoff for a column of dates in loc. A row's age begins at the end of its day, so it returns
// the greatest date (at midnight UTC) of which no part lies after cutoff.
func DateCutoff(cutoff time.Time, loc *time.Location) time.Time {
	n := LocalCutoff(cutoff, loc)
	// The day of n is over only with its last microsecond; n itself may be that.
	n = n.Add(time.Microsecond)
	return time.Date(n.Year(), n.Month(), n.Day()-1, 0, 0, 0, 0, time.UTC)
}

// FromLocal returns the instant that a local time n of loc means, the later one where it exists twice. A local time
// that is skipped when clocks are put forward is read by the offset before, as PostgreSQL does.
func FromLocal(n time.Time, loc *time.Location) time.Time {
	n = n.UTC().Truncate(time.Microsecond)
	var found time.Time
	for _, near := range []time.Time{n.Add(-clocksGoBack), n, n.Add(clocksGoBack)} {
		_, offset := near.In(loc).Zone()
		at := n.Add(-time.Duration(offset) * time.Second)
		if wall(at.In(loc)).Equal(n) && at.After(found) {
			found = at
		}
	}
	if !found.IsZero() {
		return found
	}
	_, offset := n.Add(-clocksGoBack).In(loc).Zone()
	return n.Add(-time.Duration(offset) * time.Second)
}

// FromDate returns the instant at which the day d of loc is over: when the age of its rows begins.
func FromDate(d time.Time, loc *time.Location) time.Time {
	d = d.UTC()
	return FromLocal(time.Date(d.Year(), d.Month(), d.Day()+1, 0, 0, 0, 0, time.UTC), loc)
}

// wall returns the local time that t shows, as if it were UTC.
func wall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// LocalNow returns the greatest local time (held in UTC) that any instant up to now has had in loc: what a column of
// local times can hold at most if nothing in it lies in the future. For a moment after clocks are put back that is
// ahead of the clock.
func LocalNow(now time.Time, loc *time.Location) time.Time {
	now = now.Truncate(time.Microsecond)
	most := wall(now.In(loc))
	for at := now.In(loc); ; {
		start, _ := at.ZoneBounds()
		if start.IsZero() || now.Sub(start) > clocksGoBack {
			return most
		}
		at = start.Add(-time.Microsecond).In(loc)
		if ahead := wall(at); ahead.After(most) {
			most = ahead
		}
	}
}
