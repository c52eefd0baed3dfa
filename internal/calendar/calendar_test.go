package calendar

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func hours(n int32) v1alpha1.Period  { return v1alpha1.Period{Hours: &n} }
func inDays(n int32) v1alpha1.Period { return v1alpha1.Period{Days: &n} }
func weeks(n int32) v1alpha1.Period  { return v1alpha1.Period{Weeks: &n} }
func months(n int32) v1alpha1.Period { return v1alpha1.Period{Months: &n} }
func years(n int32) v1alpha1.Period  { return v1alpha1.Period{Years: &n} }
func at(s string) time.Time          { t, _ := time.Parse(time.RFC3339Nano, s); return t }
func period(g *rapid.T) v1alpha1.Period {
	n := rapid.Int32Range(1, 130).Draw(g, "n")
	return rapid.SampledFrom([]v1alpha1.Period{hours(n * 7), inDays(n), weeks(n), months(n), years(1 + n%20)}).Draw(g, "period")
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

func oracle(t time.Time, p v1alpha1.Period, clamp bool) int64 {
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
		p             v1alpha1.Period
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
		"an invalid period never ends": {"2026-01-01T00:00:00Z", v1alpha1.Period{}, "9999-12-31T00:00:00Z", "9999-12-31T00:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := AddClamp(at(tc.from), tc.p); !got.Equal(at(tc.clamp)) {
				t.Errorf("AddClamp is %s, want %s", got, tc.clamp)
			}
			if got := AddNormalise(at(tc.from), tc.p); !got.Equal(at(tc.normal)) {
				t.Errorf("AddNormalise is %s, want %s", got, tc.normal)
			}
		})
	}
}

func TestAddAgreesWithTheOracle(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		from, p := anInstant(g), period(g)
		if got, want := AddClamp(from, p).UnixMicro(), oracle(from, p, true); got != want {
			g.Errorf("AddClamp(%s, %s) = %d, want %d", from, ISO(p), got, want)
		}
		if got, want := AddNormalise(from, p).UnixMicro(), oracle(from, p, false); got != want {
			g.Errorf("AddNormalise(%s, %s) = %d, want %d", from, ISO(p), got, want)
		}
	})
}

func TestCutoff(t *testing.T) {
	tests := map[string]struct {
		now           string
		p             v1alpha1.Period
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
			"2026-07-31T12:00:00Z", v1alpha1.Period{}, "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Cutoff(at(tc.now), tc.p); !got.Equal(at(tc.cutoff)) {
				t.Errorf("Cutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.cutoff)
			}
			if got := FloorCutoff(at(tc.now), tc.p); !got.Equal(at(tc.floor)) {
				t.Errorf("FloorCutoff is %s, want %s", got.Format(time.RFC3339Nano), tc.floor)
			}
		})
	}
}

// checkCutoff holds a cutoff against the oracle: everything up to it has expired, and the very next microsecond has not.
func checkCutoff(t interface{ Errorf(string, ...any) }, now, c time.Time, p v1alpha1.Period, clamp bool) {
	if got := oracle(c.Add(time.Microsecond), p, clamp); got <= now.UnixMicro() {
		t.Errorf("now %s, %s, clamp %v: cutoff %s is not the greatest", now, ISO(p), clamp, c)
	}
	day := time.Date(c.Year(), c.Month(), c.Day(), 0, 0, 0, 0, time.UTC)
	for back := 0; back <= 5; back++ {
		for _, older := range []time.Time{c.AddDate(0, 0, -back), day.AddDate(0, 0, -back).Add(-time.Microsecond)} {
			if oracle(older, p, clamp) > now.UnixMicro() {
				t.Errorf("now %s, %s, clamp %v: %s is before the cutoff %s and has not expired", now, ISO(p), clamp, older, c)
			}
		}
	}
}

func TestCutoffAgreesWithTheOracleOnEveryDay(t *testing.T) {
	periods := []v1alpha1.Period{hours(1), hours(49), inDays(1), inDays(30), inDays(90), inDays(365), weeks(1), weeks(53),
		months(1), months(2), months(3), months(6), months(11), months(12), months(13), months(24), years(1), years(2), years(7), years(10)}
	for day := at("2024-01-01T00:00:00Z"); day.Year() <= 2032; day = day.AddDate(0, 0, 1) {
		for _, now := range []time.Time{day, day.Add(13*time.Hour + 37*time.Minute), day.Add(24*time.Hour - time.Microsecond)} {
			for _, p := range periods {
				c, f := Cutoff(now, p), FloorCutoff(now, p)
				checkCutoff(t, now, c, p, true)
				checkCutoff(t, now, f, p, false)
				if f.After(c) {
					t.Errorf("now %s, %s: floor cutoff %s is after the cutoff %s", now, ISO(p), f, c)
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
		checkCutoff(g, now, Cutoff(now, p), p, true)
		checkCutoff(g, now, FloorCutoff(now, p), p, false)
		later := now.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(g, "later")))
		if Cutoff(later, p).Before(Cutoff(now, p)) || FloorCutoff(later, p).Before(FloorCutoff(now, p)) {
			g.Errorf("%s: the cutoff goes back between %s and %s", ISO(p), now, later)
		}
	})
}

func TestAtMost(t *testing.T) {
	tests := []struct {
		a, b            v1alpha1.Period
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
		{v1alpha1.Period{}, inDays(1), false, false},
		{inDays(1), v1alpha1.Period{}, false, false},
	}
	for _, tc := range tests {
		t.Run(ISO(tc.a)+" against "+ISO(tc.b), func(t *testing.T) {
			if got := AtMost(tc.a, tc.b); got != tc.atMost {
				t.Errorf("AtMost is %v", got)
			}
			if got := Shorter(tc.a, tc.b); got != tc.shorter {
				t.Errorf("Shorter is %v", got)
			}
		})
	}
}

func TestWhatIsProvedHoldsForEveryRecord(t *testing.T) {
	rapid.Check(t, func(g *rapid.T) {
		a, b, from := period(g), period(g), anInstant(g)
		ends, other := oracle(from, a, true), oracle(from, b, true)
		if AtMost(a, b) && ends > other {
			g.Errorf("AtMost(%s, %s), yet from %s the first ends later", ISO(a), ISO(b), from)
		}
		if Shorter(a, b) && ends >= other {
			g.Errorf("Shorter(%s, %s), yet from %s the first does not end earlier", ISO(a), ISO(b), from)
		}
	})
}

func TestIncomparableSaysWhy(t *testing.T) {
	tests := map[string]struct {
		a, b v1alpha1.Period
		want string
	}{
		"longer":       {inDays(91), inDays(90), "P91D is longer than P90D"},
		"much longer":  {inDays(400), years(1), "P400D is longer than P1Y"},
		"not provable": {inDays(30), months(1), "P30D is not provably shorter than P1M: the first can last 30 days, the second can be over after 28 days; use the same unit for both"},
		"invalid":      {v1alpha1.Period{}, months(1), "a period needs one of hours, days, weeks, months, years"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Incomparable(tc.a, tc.b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateAndISO(t *testing.T) {
	n := int32(3)
	tests := map[string]struct {
		p       v1alpha1.Period
		iso     string
		wantErr string
	}{
		"hours":          {hours(36), "PT36H", ""},
		"days":           {inDays(90), "P90D", ""},
		"weeks":          {weeks(2), "P2W", ""},
		"months":         {months(24), "P24M", ""},
		"years":          {years(7), "P7Y", ""},
		"nothing":        {v1alpha1.Period{}, "invalid", "a period needs one of hours, days, weeks, months, years"},
		"two units":      {v1alpha1.Period{Days: &n, Weeks: &n}, "invalid", "a period has exactly one unit, this one has days and weeks"},
		"zero":           {inDays(0), "invalid", "days: 0 is not between 1 and 36500"},
		"negative":       {months(-1), "invalid", "months: -1 is not between 1 and 1200"},
		"over a century": {years(101), "invalid", "years: 101 is not between 1 and 100"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.iso, ISO(tc.p)); diff != "" {
				t.Errorf("ISO (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantErr, fmt.Sprint(Validate(tc.p))); diff != "" && (tc.wantErr != "" || Validate(tc.p) != nil) {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
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
			got, err := SlackDuration(tc.s)
			if got != tc.want || (err == nil) != tc.ok {
				t.Errorf("SlackDuration is %s, %v", got, err)
			}
			if iso := ISOSlack(tc.s); iso != tc.iso {
				t.Errorf("ISOSlack is %s, want %s", iso, tc.iso)
			}
		})
	}
}
