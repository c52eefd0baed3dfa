package calendar

import (
	"errors"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Slack is clock time within which a deletion is promised after its window, parsed once. It is made by [SlackOf] and
// compared with ==. The zero Slack is none.
type Slack struct {
	unit slackUnit
	n    int32
}

// slackUnit is the unit of a slack.
type slackUnit uint8

const (
	noSlack slackUnit = iota
	slackMinutes
	slackHours
	slackDays
)

// slackUnits by their places, as units are.
var slackUnits = [...]struct {
	iso, name string
	most      int32
	one       time.Duration
}{
	slackMinutes: {"PT%dM", "minutes", 525600, time.Minute},
	slackHours:   {"PT%dH", "hours", 8760, time.Hour},
	slackDays:    {"P%dD", "days", 365, 24 * time.Hour},
}

// SlackOf parses a slack of the API: it must have exactly one unit between 1 and what the API allows.
func SlackOf(s v1alpha1.Slack) (Slack, error) {
	var found Slack
	count := 0
	for u, n := range [...]*int32{slackMinutes: s.Minutes, slackHours: s.Hours, slackDays: s.Days} {
		if n != nil {
			count++
			found = Slack{slackUnit(u), *n}
		}
	}
	if count != 1 {
		return Slack{}, fmt.Errorf("a slack has exactly one of minutes, hours, days, this one has %d", count)
	}
	return found.checked()
}

func (s Slack) checked() (Slack, error) {
	if u := slackUnits[s.unit]; s.n < 1 || s.n > u.most {
		return Slack{}, fmt.Errorf("%s: %d is not between 1 and %d", u.name, s.n, u.most)
	}
	return s, nil
}

// Duration is the clock time of s.
func (s Slack) Duration() time.Duration { return time.Duration(s.n) * slackUnits[s.unit].one }

// KeptBySweeping says whether a deletion can be as punctual as s asks.
func (s Slack) KeptBySweeping() bool { return s.Duration() >= SweepInterval }

// String writes s as ISO 8601 does: PT30M, PT24H, P1D. The zero Slack is "invalid".
func (s Slack) String() string {
	if s.unit == noSlack {
		return "invalid"
	}
	return fmt.Sprintf(slackUnits[s.unit].iso, s.n)
}

// MarshalText gives the one text of s, which is String's. That of the zero Slack is empty.
func (s Slack) MarshalText() ([]byte, error) {
	if s.unit == noSlack {
		return nil, nil
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText gives of a slack. It refuses an empty text.
func (s *Slack) UnmarshalText(text []byte) error {
	for u := slackMinutes; u <= slackDays; u++ {
		var n int32
		if got, err := fmt.Sscanf(string(text), slackUnits[u].iso, &n); got == 1 && err == nil && fmt.Sprintf(slackUnits[u].iso, n) == string(text) {
			out, err := Slack{u, n}.checked()
			*s = out
			return err
		}
	}
	return errors.New("not a slack of ISO 8601 in one unit, such as PT90M, PT24H or P7D")
}
