package calendar

import (
	"errors"
	"fmt"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Window is a retention period: a number of hours, days, weeks, months or years. It is made by [Of] or [ParseISO],
// which refuse what the API would, and is compared with ==; P12M and P1Y are two windows of one length. The zero
// Window is none: it keeps everything for ever and compares with nothing, so that a window that somebody forgot
// deletes nothing.
type Window struct {
	unit unit
	n    int32
}

// unit of a window.
type unit uint8

const (
	noUnit unit = iota
	hour
	day
	week
	month
	year
)

// units by their places: how ISO 8601 writes each, what a field of the API calls it, and the most that the API allows
// of it.
var units = [...]struct {
	iso, name string
	most      int32
}{
	hour:  {"PT%dH", "hours", 876000},
	day:   {"P%dD", "days", 36500},
	week:  {"P%dW", "weeks", 5200},
	month: {"P%dM", "months", 1200},
	year:  {"P%dY", "years", 100},
}

// Of parses a period of the API: it must have exactly one unit, at least 1 and at most what the API allows.
func Of(p v1alpha1.Period) (Window, error) {
	var found Window
	for u, n := range [...]*int32{hour: p.Hours, day: p.Days, week: p.Weeks, month: p.Months, year: p.Years} {
		switch {
		case n == nil:
		case found.unit != noUnit:
			return Window{}, fmt.Errorf("a period has exactly one unit, this one has %s and %s", units[found.unit].name, units[u].name)
		default:
			found = Window{unit(u), *n}
		}
	}
	if found.unit == noUnit {
		return Window{}, errors.New("a period needs one of hours, days, weeks, months, years")
	}
	return checked(found)
}

// Or parses a period that may be missing. One that is missing, or is none, is the zero Window.
func Or(p *v1alpha1.Period) Window {
	if p == nil {
		return Window{}
	}
	w, err := Of(*p)
	if err != nil {
		return Window{}
	}
	return w
}

func checked(w Window) (Window, error) {
	if u := units[w.unit]; w.n < 1 || w.n > u.most {
		return Window{}, fmt.Errorf("%s: %d is not between 1 and %d", u.name, w.n, u.most)
	}
	return w, nil
}

// ParseISO reads what String writes: a whole number of one unit, such as PT36H, P90D, P2W, P24M or P7Y.
func ParseISO(text string) (Window, error) {
	for u := hour; u <= year; u++ {
		var n int32
		if got, err := fmt.Sscanf(text, units[u].iso, &n); got == 1 && err == nil && fmt.Sprintf(units[u].iso, n) == text {
			return checked(Window{u, n})
		}
	}
	return Window{}, errors.New("not a period of ISO 8601 in one unit, such as PT36H, P90D, P2W, P24M or P7Y")
}

// IsZero says that there is no window.
func (w Window) IsZero() bool { return w.unit == noUnit }

// String writes w as ISO 8601 does: PT36H, P90D, P2W, P24M, P7Y. The zero Window is "invalid".
func (w Window) String() string {
	if w.IsZero() {
		return "invalid"
	}
	return fmt.Sprintf(units[w.unit].iso, w.n)
}

// MarshalText gives the one text of w, which is String's. That of the zero Window is empty.
func (w Window) MarshalText() ([]byte, error) {
	if w.IsZero() {
		return nil, nil
	}
	return []byte(w.String()), nil
}

// UnmarshalText reads what MarshalText gives of a window. It refuses an empty text: where there may be no window,
// there is no text.
func (w *Window) UnmarshalText(text []byte) (err error) {
	*w, err = ParseISO(string(text))
	return err
}

// Period is w as the API has it. That of the zero Window is empty.
func (w Window) Period() v1alpha1.Period {
	n := w.n
	switch w.unit {
	case hour:
		return v1alpha1.Period{Hours: &n}
	case day:
		return v1alpha1.Period{Days: &n}
	case week:
		return v1alpha1.Period{Weeks: &n}
	case month:
		return v1alpha1.Period{Months: &n}
	case year:
		return v1alpha1.Period{Years: &n}
	default:
		return v1alpha1.Period{}
	}
}

// length of a window, reduced to the two kinds that exist: an exact number of hours or a number of calendar months.
type length struct {
	hours  int64 // exact; set when months is 0
	months int   // calendar; a year is exactly 12 of them
}

func (w Window) length() length {
	n := int64(w.n)
	switch w.unit {
	case hour:
		return length{hours: n}
	case day:
		return length{hours: n * 24}
	case week:
		return length{hours: n * 24 * 7}
	case month:
		return length{months: int(n)}
	default:
		return length{months: int(n) * 12}
	}
}
