package rollout

import (
	"testing"
	"testing/quick"
)

func fleet(idle, rolling, failing int) []Bot {
	bots := make([]Bot, idle)
	for range rolling {
		bots = append(bots, Bot{Rolling: true})
	}
	for range failing {
		bots = append(bots, Bot{Rolling: true, Failing: true})
	}
	return bots
}

func TestCompute(t *testing.T) {
	limits := Limits{Percent: DefaultPercent, StopAfter: DefaultStopAfter}
	for name, tc := range map[string]struct {
		bots []Bot
		want State
	}{
		"one bot":                        {fleet(1, 0, 0), State{Fleet: 1, Room: 1}},
		"30 bots, one at a time":         {fleet(30, 0, 0), State{Fleet: 30, Room: 1}},
		"30 bots, one on its way":        {fleet(29, 1, 0), State{Fleet: 30, Rolling: 1}},
		"1000 bots, 50 at a time":        {fleet(980, 20, 0), State{Fleet: 1000, Rolling: 20, Room: 30}},
		"those that failed count":        {fleet(979, 20, 1), State{Fleet: 1000, Rolling: 20, Failed: 1, Room: 29}},
		"one failed, another is tried":   {fleet(29, 0, 1), State{Fleet: 30, Failed: 1, Room: 1}},
		"two failed, another is tried":   {fleet(28, 0, 2), State{Fleet: 30, Failed: 2, Room: 1}},
		"and none beside it":             {fleet(27, 1, 2), State{Fleet: 30, Rolling: 1, Failed: 2}},
		"three failed":                   {fleet(27, 0, 3), State{Fleet: 30, Failed: 3, Stopped: true}},
		"three failed, some on the way":  {fleet(900, 20, 3), State{Fleet: 923, Rolling: 20, Failed: 3, Stopped: true}},
		"who fails of itself is no news": {append(fleet(29, 0, 0), Bot{Failing: true}), State{Fleet: 30, Room: 1}},
	} {
		if got := Compute(tc.bots, limits); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestNeverTooMany: whatever the fleet is, taking all the room that there is leaves no more unready because of it than allowed,
// but for the one that is tried beside those that have failed.
func TestNeverTooMany(t *testing.T) {
	check := func(idle uint16, rolling, failing, percent, stop uint8) bool {
		limits := Limits{Percent: int(percent)%100 + 1, StopAfter: int(stop)%10 + 1}
		most := max(1, (int(idle)+int(failing)+int(rolling))*limits.Percent/100)
		r := min(int(rolling), most)
		s := Compute(fleet(int(idle)+int(rolling)-r, r, int(failing)), limits)
		unready := s.Rolling + s.Failed + s.Room
		switch {
		case s.Stopped:
			return s.Room == 0 && s.Failed >= limits.StopAfter
		case s.Room == 0:
			return s.Rolling > 0 // somebody's end makes room again: it never waits for nothing
		default:
			return unready <= max(most, s.Failed+1)
		}
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 20000}); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, l := range []Limits{{0, 3}, {101, 3}, {5, 0}} {
		if l.Validate() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
	if err := (Limits{DefaultPercent, DefaultStopAfter}).Validate(); err != nil {
		t.Error(err)
	}
}
