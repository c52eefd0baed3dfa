// Package rollout decides how many bots may be restarted at a time because of Lethe, over the whole installation, and when that
// has to stop. It is pure: what it needs to know stands in the objects, so that a manager that comes later decides the same.
package rollout

import "fmt"

// Limits of what is done to the fleet.
type Limits struct {
	// Percent of the bots that may be unready at a time because of it; at least one bot.
	Percent int
	// StopAfter is how many bots, which were ready and fail with it, end it.
	StopAfter int
}

// Default limits.
const (
	DefaultPercent   = 5
	DefaultStopAfter = 3
)

// Validate says what is wrong with limits, by the names of the flags.
func (l Limits) Validate() error {
	switch {
	case l.Percent < 1 || l.Percent > 100:
		return fmt.Errorf("--rollout-percent %d is not between 1 and 100", l.Percent)
	case l.StopAfter < 1:
		return fmt.Errorf("--rollout-stop-after %d is less than 1", l.StopAfter)
	default:
		return nil
	}
}

// Bot is one of the fleet that is to run.
type Bot struct {
	// Rolling: it was ready, was restarted because of Lethe, and has not been ready since.
	Rolling bool
	// Failing: it is not only on its way, its status says that it fails.
	Failing bool
}

// State of the fleet.
type State struct {
	// Fleet is how many bots are to run.
	Fleet int
	// Rolling are on their way, Failed have failed.
	Rolling, Failed int
	// Stopped: too many have failed.
	Stopped bool
	// Room is how many more may be restarted now.
	Room int
}

// Compute counts. Bots that were unready before are restarted without being asked for, and are none of these.
func Compute(bots []Bot, limits Limits) State {
	s := State{Fleet: len(bots)}
	for _, b := range bots {
		switch {
		case b.Rolling && b.Failing:
			s.Failed++
		case b.Rolling:
			s.Rolling++
		}
	}
	s.Stopped = s.Failed >= limits.StopAfter
	if s.Stopped {
		return s
	}
	s.Room = max(1, s.Fleet*limits.Percent/100) - s.Rolling - s.Failed
	if s.Rolling == 0 {
		s.Room = max(1, s.Room) // one that has failed must not end it alone
	}
	s.Room = max(0, s.Room)
	return s
}
