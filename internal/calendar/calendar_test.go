package calendar

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func hours(n int32) Window  { return must(v1alpha1.Period{Hours: &n}) }
func inDays(n int32) Window { return must(v1alpha1.Period{Days: &n}) }
func weeks(n int32) Window  { return must(v1alpha1.Period{Weeks: &n}) }
func months(n int32) Window { return must(v1alpha1.Period{Months: &n}) }
func years(n int32) Window  { return must(v1alpha1.Period{Years: &n}) }
func must(p v1alpha1.Period) Window {
	w, err := Of(p)
	if err != nil {
		panic(err)
	}
	return w
}
func at(s string) time.Time { t, _ := time.Parse(time.RFC3339Nano, s); return t }
func period(g *rapid.T) Window {
	n := rapid.Int32Range(1, 130).Draw(g, "n")
	return rapid.SampledFrom([]Window{hours(n * 7), inDays(n), weeks(n), months(n), years(1 + n%20)}).Draw(g, "period")
}

// The oracle knows nothing of package time: it counts days from the civil calendar by the rules for leap years.
type civil struct{ year, month, day int }

func oracleLeap(y int) bool { return y%4 == 0 && (y%100 != 0 || y%400 == 0) }

func oracleLength(y, m int) int {
	return []int{31, map[bool]int{false: 28, true: 29}[oracleLeap(y)], 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[m-1]
}

// oracleMicros is the number of microseconds since 1970 of a civil date and a time of day.
func oracleMicros(c civil, ofDay int64) int64 {
	var n int64
	for y := 1970; y < c.year; y++ {
		n += 365
		if oracleLeap(y) {
			n++
		}
	}
	for m := 1; m < c.month; m++ {
		n += int64(oracleLength(c.year, m))
	}
	return (n+int64(c.day-1))*86400e6 + ofDay
}

// oracleAdd adds n months; what the month does not have is clamped, or runs over.
func oracleAdd(c civil, ofDay int64, n int, clamp bool) int64 {
	index := c.year*12 + c.month - 1 + n
	year, month, day := index/12, index%12+1, c.day
	if length := oracleLength(year, month); day > length {
		if clamp {
			day = length
		} else {
			day -= length
			month++
			if month == 13 {
				year, month = year+1, 1
			}
		}
	}
	return oracleMicros(civil{year, month, day}, ofDay)
}

func oracle(t time.Time, w Window, clamp bool) int64 {
	p := w.Period()
	ofDay := int64(t.Hour())*3600e6 + int64(t.Minute())*60e6 + int64(t.Second())*1e6 + int64(t.Nanosecond()/1000)
	c := civil{t.Year(), int(t.Month()), t.Day()}
	switch {
	case p.Hours != nil:
		return oracleMicros(c, ofDay) + int64(*p.Hours)*3600e6
	case p.Days != nil:
		return oracleMicros(c, ofDay) + int64(*p.Days)*86400e6
	case p.Weeks != nil:
		return oracleMicros(c, ofDay) + int64(*p.Weeks)*7*86400e6
	case p.Months != nil:
		return oracleAdd(c, ofDay, int(*p.Months), clamp)
	default:
		return oracleAdd(c, ofDay, int(*p.Years)*12, clamp)
	}
}

func anInstant(g *rapid.T) time.Time {
	from, to := at("2024-01-01T00:00:00Z").UnixMicro(), at("2033-01-01T00:00:00Z").UnixMicro()
	return time.UnixMicro(rapid.Int64Range(from, to).Draw(g, "t")).UTC()
}

func TestAdd(t *testing.T) {
	tests := map[string]struct {
		from          string
		p             Window
		clamp, normal string
	}{
		"a month from the 31st of January":          {"2025-01-31T10:00:00Z", months(1), "2025-02-28T10:00:00Z", "2025-03-03T10:00:00Z"},
		"a month from the 31st, in a leap year":     {"2024-01-31T10:00:00Z", months(1), "2024-02-29T10:00:00Z", "2024-03-02T10:00:00Z"},
		"seven years from a leap day":               {"2024-02-29T00:00:00Z", years(7), "2031-02-28T00:00:00Z", "2031-03-01T00:00:00Z"},
		"four years from a leap day":                {"2024-02-29T00:00:00Z", years(4), "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		"a month over the end of the year":          {"2025-12-15T01:02:03Z", months(1), "2026-01-15T01:02:03Z", "2026-01-15T01:02:03Z"},
		"ninety days are exact":                     {"2024-02-01T12:00:00Z", inDays(90), "2024-05-01T12:00:00Z", "2024-05-01T12:00:00Z"},
		"hours pass a change of clocks undisturbed": {"2026-03-28T12:00:00+01:00", hours(24), "2026-03-29T11:00:00Z", "2026-03-29T11:00:00Z"},
		"two weeks":                    {"2026-01-01T00:00:00Z", weeks(2), "2026-01-15T00:00:00Z", "2026-01-15T00:00:00Z"},
		"an invalid period never ends": {"2026-01-01T00:00:00Z", Window{}, "9999-12-31T00:00:00Z", "9999-12-31T00:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.p.AddClamp(at(tc.from)); !got.Equal(at(tc.clamp)) {
				t.Errorf("AddClamp is %s, want %s", got, tc.clamp)
			}
			if got := tc.p.AddNormalise(at(tc.from)); !got.Equal(at(tc.normal)) {
				t.Errorf("AddNormalise is %s, want %s", got, tc.normal)
			}
		})
	}
}

func TestAddAgreesWithTheOracle(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		from, p := anInstant(g), period(g)
		if got, want := p.AddClamp(from).UnixMicro(), oracle(from, p, true); got != want {
			g.Errorf("AddClamp(%s, %s) = %d, want %d", from, p, got, want)
		}
		if got, want := p.AddNormalise(from).UnixMicro(), oracle(from, p, false); got != want {
			g.Errorf("AddNormalise(%s, %s) = %d, want %d", from, p, got, want)
		}
	})
}

func TestCutoff(t *testing.T) {
	tests := map[string]struct {
		now           string
		p             Window
		cutoff, floor string
	}{
		"days": {"2026-06-10T08:00:00Z", inDays(90), "2026-03-12T08:00:00Z", "2026-03-12T08:00:00Z"},
		"on the last of February what is clamped there waits for the end of the day": {
			"2025-02-28T09:30:00Z", months(1), "2025-01-28T09:30:00Z", "2025-01-28T09:30:00Z"},
		"on the first of March all of January has expired, but a floor still holds its end": {
			"2025-03-01T00:00:00Z", months(1), "2025-02-01T00:00:00Z", "2025-01-29T00:00:00Z"},
		"seven years ago there was a 29th of February": {
			"2031-02-28T12:00:00Z", years(7), "2024-02-28T12:00:00Z", "2024-02-28T12:00:00Z"},
		"the day after the last of February, seven years from a leap day": {
			"2031-03-01T12:00:00Z", years(7), "2024-03-01T12:00:00Z", "2024-02-29T12:00:00Z"},
		"on the 31st, a month of 30 days ago": {
			"2026-07-31T12:00:00Z", months(1), "2026-06-30T23:59:59.999999Z", "2026-06-30T23:59:59.999999Z"},
		"an invalid period makes nothing old enough": {
			"2026-07-31T12:00:00Z", Window{}, "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.p.Cutoff(at(tc.now)); !got.Equal(at(tc.cutoff)) {
				t.Errorf("Cutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.cutoff)
			}
			if got := tc.p.FloorCutoff(at(tc.now)); !got.Equal(at(tc.floor)) {
				t.Errorf("FloorCutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.floor)
			}
		})
	}
}

// checkCutoff holds a cutoff against the oracle: everything up to it has expired, and the very next microsecond has
// not.
func checkCutoff(t interface{ Errorf(string, ...any) }, now, c time.Time, p Window, clamp bool) {
	if got := oracle(c.Add(time.Microsecond), p, clamp); got <= now.UnixMicro() {
		t.Errorf("now %s, %s, clamp %v: cutoff %s is not the greatest", now, p, clamp, c)
	}
	day := time.Date(c.Year(), c.Month(), c.Day(), 0, 0, 0, 0, time.UTC)
	for back := 0; back <= 5; back++ {
		for _, older := range []time.Time{c.AddDate(0, 0, -back), day.AddDate(0, 0, -back).Add(-time.Microsecond)} {
			if oracle(older, p, clamp) > now.UnixMicro() {
				t.Errorf("now %s, %s, clamp %v: %s is before the cutoff %s and has not expired", now, p, clamp, older, c)
			}
		}
	}
}

func TestCutoffAgreesWithTheOracleOnEveryDay(t *testing.T) {
	periods := []Window{hours(1), hours(49), inDays(1), inDays(30), inDays(90), inDays(365), weeks(1), weeks(53),
		months(1), months(2), months(3), months(6), months(11), months(12), months(13), months(24), years(1), years(2), years(7), years(10)}
	for day := at("2024-01-01T00:00:00Z"); day.Year() <= 2032; day = day.AddDate(0, 0, 1) {
		for _, now := range []time.Time{day, day.Add(13*time.Hour + 37*time.Minute), day.Add(24*time.Hour - time.Microsecond)} {
			for _, p := range periods {
				c, f := p.Cutoff(now), p.FloorCutoff(now)
				checkCutoff(t, now, c, p, true)
				checkCutoff(t, now, f, p, false)
				if f.After(c) {
					t.Errorf("now %s, %s: floor cutoff %s is after the cutoff %s", now, p, f, c)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
}

func TestCutoffProperties(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		now, p := anInstant(g), period(g)
		checkCutoff(g, now, p.Cutoff(now), p, true)
		checkCutoff(g, now, p.FloorCutoff(now), p, false)
		later := now.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(g, "later")))
		if p.Cutoff(later).Before(p.Cutoff(now)) || p.FloorCutoff(later).Before(p.FloorCutoff(now)) {
			g.Errorf("%s: the cutoff goes back between %s and %s", p, now, later)
		}
	})
}

func TestAtMost(t *testing.T) {
	tests := []struct {
		a, b            Window
		atMost, shorter bool
	}{
		{inDays(30), inDays(90), true, true},
		{inDays(90), inDays(90), true, false},
		{inDays(91), inDays(90), false, false},
		{inDays(28), months(1), true, false},
		{inDays(27), months(1), true, true},
		{inDays(29), months(1), false, false},
		{inDays(30), months(1), false, false},
		{months(1), inDays(31), true, false},
		{months(1), inDays(30), false, false},
		{months(2), inDays(62), true, false},
		{months(2), inDays(61), false, false},
		{years(1), inDays(366), true, false},
		{years(1), inDays(365), false, false},
		{inDays(365), years(1), true, false},
		{months(12), years(1), true, false},
		{years(2), months(24), true, false},
		{months(23), years(2), true, true},
		{inDays(730), years(2), true, false},
		{years(4), inDays(1461), true, false},
		{hours(24), inDays(1), true, false},
		{hours(25), inDays(1), false, false},
		{weeks(2), inDays(14), true, false},
		{weeks(4), months(1), true, false},
		{Window{}, inDays(1), false, false},
		{inDays(1), Window{}, false, false},
	}
	for _, tc := range tests {
		t.Run(tc.a.String()+" against "+tc.b.String(), func(t *testing.T) {
			if got := tc.a.AtMost(tc.b); got != tc.atMost {
				t.Errorf("AtMost is %v", got)
			}
			if got := tc.a.Shorter(tc.b); got != tc.shorter {
				t.Errorf("Shorter is %v", got)
			}
		})
	}
}

func TestWhatIsProvedHoldsForEveryRecord(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		a, b, from := period(g), period(g), anInstant(g)
		ends, other := oracle(from, a, true), oracle(from, b, true)
		if a.AtMost(b) && ends > other {
			g.Errorf("AtMost(%s, %s), yet from %s the first ends later", a, b, from)
		}
		if a.Shorter(b) && ends >= other {
			g.Errorf("Shorter(%s, %s), yet from %s the first does not end earlier", a, b, from)
		}
	})
}

func TestIncomparableSaysWhy(t *testing.T) {
	tests := map[string]struct {
		a, b Window
		want string
	}{
		"longer":       {inDays(91), inDays(90), "P91D is longer than P90D"},
		"much longer":  {inDays(400), years(1), "P400D is longer than P1Y"},
		"not provable": {inDays(30), months(1), "P30D is not provably shorter than P1M: the first can last 30 days, the second can be over after 28 days; use the same unit for both"},
		"invalid":      {Window{}, months(1), "a window in exactly one unit is needed"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.a.Incomparable(tc.b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOfAndISO(t *testing.T) {
	three := []int32{3, 0, -1, 101, 36500, 36501}
	tests := map[string]struct {
		p       v1alpha1.Period
		iso     string
		wantErr string
	}{
		"hours":          {v1alpha1.Period{Hours: &three[0]}, "PT3H", ""},
		"days":           {v1alpha1.Period{Days: &three[0]}, "P3D", ""},
		"weeks":          {v1alpha1.Period{Weeks: &three[0]}, "P3W", ""},
		"months":         {v1alpha1.Period{Months: &three[0]}, "P3M", ""},
		"years":          {v1alpha1.Period{Years: &three[0]}, "P3Y", ""},
		"a century":      {v1alpha1.Period{Days: &three[4]}, "P36500D", ""},
		"nothing":        {v1alpha1.Period{}, "invalid", "a period needs one of hours, days, weeks, months, years"},
		"two units":      {v1alpha1.Period{Days: &three[0], Weeks: &three[0]}, "invalid", "a period has exactly one unit, this one has days and weeks"},
		"zero":           {v1alpha1.Period{Days: &three[1]}, "invalid", "days: 0 is not between 1 and 36500"},
		"negative":       {v1alpha1.Period{Months: &three[2]}, "invalid", "months: -1 is not between 1 and 1200"},
		"over a century": {v1alpha1.Period{Years: &three[3]}, "invalid", "years: 101 is not between 1 and 100"},
		"a day too much": {v1alpha1.Period{Days: &three[5]}, "invalid", "days: 36501 is not between 1 and 36500"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w, err := Of(tc.p)
			if diff := cmp.Diff(tc.iso, w.String()); diff != "" {
				t.Errorf("String (-want +got):\n%s", diff)
			}
			if Or(&tc.p) != w || w.IsZero() != (tc.wantErr != "") {
				t.Errorf("Or is %s, Of %s", Or(&tc.p), w)
			}
			if tc.wantErr == "" {
				if diff := cmp.Diff(tc.p, w.Period()); err != nil || diff != "" {
					t.Errorf("%v, and Period gives (-want +got):\n%s", err, diff)
				}
				return
			}
			if diff := cmp.Diff(tc.wantErr, fmt.Sprint(err)); diff != "" {
				t.Errorf("Of (-want +got):\n%s", diff)
			}
		})
	}
	if w := Or(nil); !w.IsZero() {
		t.Errorf("no period is %s", w)
	}
}

// The text of a window is the only one: whatever else is read is refused, so that equal plans have equal bytes.
func TestTextOfWindowsAndSlacks(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		w := period(g)
		text, err := json.Marshal(w)
		var back Window
		if err != nil || json.Unmarshal(text, &back) != nil || back != w {
			g.Errorf("%s is written as %s (%v), and read as %s", w, text, err, back)
		}
	})
	for _, text := range []string{`""`, `"invalid"`, `"P"`, `"P90"`, `"P090D"`, `"+P90D"`, `"P+90D"`, `"P-1D"`, `"P0D"`, `"P1Y2M"`, `"P36501D"`, `"p90d"`, `" P90D"`, `"P90D "`, `90`, `{"days":90}`, `"PT30M"`} {
		var w Window
		if err := json.Unmarshal([]byte(text), &w); err == nil {
			t.Errorf("%s is read as the window %s", text, w)
		}
	}
	for _, text := range []string{`""`, `"PT0M"`, `"PT05M"`, `"P1W"`, `"P366D"`, `"P1M"`, `{"hours":24}`} {
		var s Slack
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s is read as the slack %s", text, s)
		}
	}
	if text, err := json.Marshal([]any{Window{}, Slack{}}); err != nil || string(text) != `["",""]` {
		t.Errorf("what is none is written as %s (%v)", text, err)
	}
}

func TestSlack(t *testing.T) {
	n, zero := int32(3), int32(0)
	tests := map[string]struct {
		s    v1alpha1.Slack
		want time.Duration
		iso  string
		ok   bool
	}{
		"minutes":   {v1alpha1.Slack{Minutes: &n}, 3 * time.Minute, "PT3M", true},
		"hours":     {v1alpha1.Slack{Hours: &n}, 3 * time.Hour, "PT3H", true},
		"days":      {v1alpha1.Slack{Days: &n}, 72 * time.Hour, "P3D", true},
		"nothing":   {v1alpha1.Slack{}, 0, "invalid", false},
		"two units": {v1alpha1.Slack{Hours: &n, Days: &n}, 0, "invalid", false},
		"zero":      {v1alpha1.Slack{Hours: &zero}, 0, "invalid", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := SlackOf(tc.s)
			if got.Duration() != tc.want || (err == nil) != tc.ok {
				t.Errorf("SlackOf is %s, %v", got.Duration(), err)
			}
			if got.String() != tc.iso || got.KeptBySweeping() != (tc.want >= time.Hour) {
				t.Errorf("it is %s, want %s, and kept by sweeping: %v", got, tc.iso, got.KeptBySweeping())
			}
			if !tc.ok {
				return
			}
			text, err := json.Marshal(got)
			var back Slack
			if err != nil || json.Unmarshal(text, &back) != nil || back != got {
				t.Errorf("it is written as %s (%v), and read as %s", text, err, back)
			}
		})
	}
}
