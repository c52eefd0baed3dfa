// Package rollout decides how many bots may be restarted at a time because of Lethe, over the whole installation, and
// when that has to stop. It is pure: what it needs to know stands in the objects, so that a manager that comes later
// decides the same.
package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Limits of what is done to the fleet.
type Limits struct {
	// Percent of the bots that may be unready at a time because of it; at least one bot.
	Percent int
	// StopAfter is how many bots, which were ready and fail with it, end it.
	StopAfter int
	// Deadline is how long a restarted bot may be on its way before it counts as failed. It is who operates Lethe
	// that says so: by a deadline of the bot's own one tenant would hold up all others.
	Deadline time.Duration
	// Lasts is how long a restarted bot has to have been ready, without a restart of its own, before it is proven:
	// programs that fail with a change mostly do so when they first log in, poll, or run into a time-out, within half
	// a minute of their start.
	Lasts time.Duration
}

// Default limits.
const (
	DefaultPercent   = 5
	DefaultStopAfter = 3
	DefaultDeadline  = 5 * time.Minute
	DefaultLasts     = time.Minute
)

const leastDeadline, mostDeadline = time.Minute, 24 * time.Hour

// Defaults are all of them.
func Defaults() Limits {
	return Limits{Percent: DefaultPercent, StopAfter: DefaultStopAfter, Deadline: DefaultDeadline, Lasts: DefaultLasts}
}

// Validate says what is wrong with limits, by the names of the flags.
func (l Limits) Validate() error {
	switch {
	case l.Percent < 1 || l.Percent > 100:
		return fmt.Errorf("--rollout-percent %d is not between 1 and 100", l.Percent)
	case l.StopAfter < 1:
		return fmt.Errorf("--rollout-stop-after %d is less than 1", l.StopAfter)
	case l.Deadline < leastDeadline || l.Deadline > mostDeadline:
		return fmt.Errorf("--rollout-deadline %s is not between %s and %s", l.Deadline, leastDeadline, mostDeadline)
	default:
		return nil
	}
}

// Stage is how a bot that is to run stands with a change that restarts it.
type Stage string

const (
	// Untouched: it was not restarted because of it, or has been proven since, or was unready before.
	Untouched Stage = ""
	// OnItsWay: it was ready, was restarted, and is not ready yet.
	OnItsWay Stage = "OnItsWay"
	// Proving: it is ready again, and that has not lasted.
	Proving Stage = "Proving"
	// Failed: its status says that it fails, or its time is over.
	Failed Stage = "Failed"
)

// Stage of a bot that was restarted at a time. What fails does so also while it is ready for a moment: so it is with
// crash loops.
func (l Limits) Stage(restarted, now time.Time, isReady, isFailing bool) Stage {
	switch {
	case isFailing:
		return Failed
	case isReady:
		return Proving
	case now.Sub(restarted) >= l.Deadline:
		return Failed
	default:
		return OnItsWay
	}
}

// Bot is one of the fleet that is to run.
type Bot struct {
	Tenant string
	Stage  Stage
}

// Proven counts the bots that were restarted and have lasted, since something began to wait. It lives in the
// manager's memory: one that comes later begins slowly again.
type Proven struct {
	All int
	Of  map[string]int // by tenant
}

// counts of bots that were restarted because of a change and are not proven yet.
type counts struct {
	rolling, proving, failed int
}

func (c counts) unproven() int { return c.rolling + c.proving + c.failed }

// State of the fleet.
type State struct {
	// Fleet is how many bots are to run.
	Fleet int
	// Rolling are on their way, Proving are ready again, Failed have failed.
	Rolling, Proving, Failed int
	// Stopped: too many have failed, and nobody's bots are restarted any more.
	Stopped bool

	limits Limits
	proven Proven
	of     map[string]*counts
	// open are those of tenants that are not stopped by their own failures: what a stopped one has failed takes
	// nobody's room.
	open counts
}

// Compute counts. Bots that were unready before are restarted without being asked for, and are none of these.
func Compute(bots []Bot, proven Proven, limits Limits) State {
	s := State{Fleet: len(bots), limits: limits, proven: proven, of: map[string]*counts{}}
	for _, b := range bots {
		c := s.of[b.Tenant]
		if c == nil {
			c = &counts{}
			s.of[b.Tenant] = c
		}
		switch b.Stage {
		case OnItsWay:
			s.Rolling++
			c.rolling++
		case Proving:
			s.Proving++
			c.proving++
		case Failed:
			s.Failed++
			c.failed++
		case Untouched:
		}
	}
	// One tenant alone stops its own bots only: for all others there have to be as many failures, from as many
	// tenants as there are.
	share, counted := (limits.StopAfter+len(s.of)-1)/max(1, len(s.of)), 0
	for _, c := range s.of {
		counted += min(c.failed, share)
		if c.failed < limits.StopAfter {
			s.open.failed += c.failed
		}
	}
	s.open.rolling, s.open.proving = s.Rolling, s.Proving
	s.Stopped = counted >= limits.StopAfter
	return s
}

// IsStopped says whether no bot of a tenant is restarted: because nobody's is, or because too many of its own have
// failed.
func (s State) IsStopped(tenant string) bool { return s.Stopped || s.isStoppedAlone(tenant) }

func (s State) isStoppedAlone(tenant string) bool {
	c := s.of[tenant]
	return c != nil && c.failed >= s.limits.StopAfter
}

// StoppedTenants are those that their own failures have stopped.
func (s State) StoppedTenants() []string {
	var stopped []string
	for tenant := range s.of {
		if s.isStoppedAlone(tenant) {
			stopped = append(stopped, tenant)
		}
	}
	slices.Sort(stopped)
	return stopped
}

// IsQuiet says whether nothing is on its way, of one tenant or, without a name, of any.
func (s State) IsQuiet(tenant string) bool {
	if tenant == "" {
		return s.Rolling+s.Proving == 0
	}
	c := s.of[tenant]
	return c == nil || c.rolling+c.proving == 0
}

// Most that may be unready at a time because of it.
func (s State) Most() int { return max(1, s.Fleet*s.limits.Percent/100) }

// room is how many more may be restarted now: of all, and of one tenant.
func (s State) room(tenant string) int {
	if s.IsStopped(tenant) {
		return 0
	}
	// Those that may be unready, and those that are not proven: until as many have lasted as would stop it, no more
	// than those.
	unready := s.Most() - s.open.rolling - s.open.failed
	if s.open.rolling == 0 {
		unready = max(1, unready) // one that has failed must not end it alone
	}
	unproven := s.begun(s.proven.All, s.open)
	c := counts{}
	if of := s.of[tenant]; of != nil {
		c = *of
	}
	return max(0, min(unready, unproven, s.begun(s.proven.Of[tenant], c)))
}

// begun is how many more may be restarted as long as those that were have not lasted.
func (s State) begun(proven int, c counts) int {
	most := s.limits.StopAfter
	if proven >= s.limits.StopAfter {
		most = max(most, s.Most())
	}
	room := most - c.unproven()
	if c.rolling+c.proving == 0 {
		room = max(1, room)
	}
	return room
}

// Waiting is a bot that would be restarted.
type Waiting struct {
	Tenant, Namespace, Name string
}

// Turns are those of the waiting that may be restarted now, in their order: tenants take turns, and who has the
// fewest that are not proven comes first, so that failures are seen with as few as possible, and with different
// tenants.
func (s State) Turns(waiting []Waiting) []Waiting {
	of := map[string][]Waiting{}
	for _, w := range waiting {
		of[w.Tenant] = append(of[w.Tenant], w)
	}
	tenants := make([]string, 0, len(of))
	for tenant := range of {
		slices.SortFunc(of[tenant], func(a, b Waiting) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
		tenants = append(tenants, tenant)
	}
	slices.Sort(tenants)
	sim := s
	sim.of = map[string]*counts{}
	for tenant, c := range s.of {
		copied := *c
		sim.of[tenant] = &copied
	}
	var turns []Waiting
	for {
		next, found := "", false
		for _, tenant := range tenants {
			if len(of[tenant]) > 0 && sim.room(tenant) > 0 && (!found || sim.unproven(tenant) < sim.unproven(next)) {
				next, found = tenant, true
			}
		}
		if !found {
			return turns
		}
		turns = append(turns, of[next][0])
		of[next] = of[next][1:]
		if sim.of[next] == nil {
			sim.of[next] = &counts{}
		}
		sim.of[next].rolling++
		sim.Rolling++
		sim.open.rolling++
	}
}

func (s State) unproven(tenant string) int {
	if c := s.of[tenant]; c != nil {
		return c.unproven()
	}
	return 0
}
