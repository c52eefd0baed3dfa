package calendar

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t interface{ Fatalf(string, ...any) }, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("load %s: %v", name, err)
	}
	return loc
}

func TestLocalCutoff(t *testing.T) {
	tests := map[string]struct {
		zone, cutoff, local, date string
	}{
		"UTC":                                      {"Etc/UTC", "2026-06-10T08:00:00Z", "2026-06-10T08:00:00Z", "2026-06-09T00:00:00Z"},
		"summer in Berlin":                         {"Europe/Berlin", "2026-06-10T08:00:00Z", "2026-06-10T10:00:00Z", "2026-06-09T00:00:00Z"},
		"midnight in Berlin ends the day before":   {"Europe/Berlin", "2026-06-09T22:00:00Z", "2026-06-10T00:00:00Z", "2026-06-09T00:00:00Z"},
		"a microsecond before midnight":            {"Europe/Berlin", "2026-06-09T21:59:59.999999Z", "2026-06-09T23:59:59.999999Z", "2026-06-09T00:00:00Z"},
		"two microseconds before midnight":         {"Europe/Berlin", "2026-06-09T21:59:59.999998Z", "2026-06-09T23:59:59.999998Z", "2026-06-08T00:00:00Z"},
		"before the hour that comes twice":         {"Europe/Berlin", "2026-10-24T23:30:00Z", "2026-10-25T01:30:00Z", "2026-10-24T00:00:00Z"},
		"in its first pass: it is yet to come":     {"Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:59:59.999999Z", "2026-10-24T00:00:00Z"},
		"in its second pass":                       {"Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z", "2026-10-24T00:00:00Z"},
		"clocks put forward":                       {"Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z", "2026-03-28T00:00:00Z"},
		"clocks put back at midnight: a day again": {"America/Havana", "2026-11-01T04:30:00Z", "2026-10-31T23:59:59.999999Z", "2026-10-31T00:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			loc := zone(t, tc.zone)
			if got := LocalCutoff(at(tc.cutoff), loc); !got.Equal(at(tc.local)) {
				t.Errorf("LocalCutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.local)
			}
			if got := DateCutoff(at(tc.cutoff), loc); !got.Equal(at(tc.date)) {
				t.Errorf("DateCutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.date)
			}
		})
	}
}

func TestFromLocal(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	tests := map[string]struct{ local, want string }{
		"summer":                   {"2026-06-10T10:00:00Z", "2026-06-10T08:00:00Z"},
		"winter":                   {"2026-01-10T10:00:00Z", "2026-01-10T09:00:00Z"},
		"an hour that comes twice": {"2026-10-25T02:30:00Z", "2026-10-25T01:30:00Z"},
		"an hour that is left out": {"2026-03-29T02:30:00Z", "2026-03-29T01:30:00Z"},
		"the day before that":      {"2026-03-28T02:30:00Z", "2026-03-28T01:30:00Z"},
		"the hour after it":        {"2026-03-29T03:30:00Z", "2026-03-29T01:30:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := FromLocal(at(tc.local), berlin); !got.Equal(at(tc.want)) {
				t.Errorf("FromLocal is %s, want %s", got, tc.want)
			}
		})
	}
	if got := FromDate(at("2026-06-09T00:00:00Z"), berlin); !got.Equal(at("2026-06-09T22:00:00Z")) {
		t.Errorf("FromDate is %s", got)
	}
}

// A record that was written at any instant after the cutoff must not look old enough, and one that was written at the
// cutoff or before must look so at the latest when the clocks have settled.
func TestLocalCutoffIsNeverEarly(t *testing.T) {
	names := []string{"Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo", "Etc/UTC"}
	rapid.Check(t, func(g *rapid.T) {
		loc := zone(g, rapid.SampledFrom(names).Draw(g, "zone"))
		cutoff := anInstant(g)
		if rapid.Bool().Draw(g, "near a change of clocks") {
			if _, end := cutoff.In(loc).ZoneBounds(); !end.IsZero() {
				cutoff = end.Add(time.Duration(rapid.Int64Range(-3*3600e6, 3*3600e6).Draw(g, "off")) * time.Microsecond)
			}
		}
		local, date := LocalCutoff(cutoff, loc), DateCutoff(cutoff, loc)
		after := cutoff.Add(time.Duration(rapid.Int64Range(1, 50*3600e6).Draw(g, "after")) * time.Microsecond)
		written := wall(after.In(loc))
		if !written.After(local) {
			g.Errorf("%s: written at %s (%s there), after the cutoff %s, and it looks old enough for %s", loc, after, written, cutoff, local)
		}
		day := time.Date(written.Year(), written.Month(), written.Day(), 0, 0, 0, 0, time.UTC)
		if !day.After(date) {
			g.Errorf("%s: the day of %s is not over at %s, and it looks old enough for %s", loc, after, cutoff, date)
		}
		if before := wall(cutoff.Add(-26 * time.Hour).In(loc)); before.After(local) {
			g.Errorf("%s: written a day before the cutoff %s, and not old enough for %s", loc, cutoff, local)
		}
	})
}
