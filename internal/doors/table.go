package doors

import "time"

// rank is how far an anonymous connection has got. One that has got less far goes first.
type rank int

const (
	silent rank = iota // nothing came over it yet
	spoke              // something did, and no whole request
	asked              // a whole request is being looked at
)

// ripe is how long a connection of each rank is left alone by others of its own address: enough for an honest one to
// get further, so that a flood behind a shared address does not close faster than honest ones can speak.
var ripe = [...]time.Duration{silent: 50 * time.Millisecond, spoke: time.Second, asked: 2 * time.Second}

// seat is a connection's place.
type seat struct {
	conn   *Conn // nil in tests of the table
	source string
	since  time.Time // let in
	used   time.Time // last answered
	rank   rank
	busy   bool // a request is being answered

	name     string // "" of an anonymous one
	reserved bool
}

// table is who is in. It decides and does nothing: the times come from the seats themselves, newest last.
type table struct {
	limits Limits
	seats  map[*seat]struct{}

	anonymous, known, reserved int
	sources, names             map[string]int
}

func newTable(l Limits) table {
	return table{limits: l, seats: map[*seat]struct{}{}, sources: map[string]int{}, names: map[string]int{}}
}

// admit finds a place for an anonymous connection. Where its address has its share already, or anonymous connections
// as a whole do, it gets the place of another one, out, or none.
func (t *table) admit(s *seat) (out *seat, reason string, ok bool) {
	if t.sources[s.source] >= t.limits.PerSource {
		reason = CauseSource
		out = t.least(s.source, s.since, true)
	} else if t.anonymous >= t.limits.Anonymous {
		reason = CauseFull
		biggest, count := t.biggest(t.sources)
		// Whoever has at least two more than the newcomer's address gives one up at once; otherwise nobody is closed
		// before its time.
		out = t.least(biggest, s.since, count <= t.sources[s.source]+1)
	}
	if reason != "" && out == nil {
		return nil, reason, false
	}
	if out != nil {
		t.remove(out)
	}
	t.seats[s] = struct{}{}
	t.anonymous++
	t.sources[s.source]++
	return out, reason, true
}

// least is the anonymous connection of an address that has done the least, and of those the oldest; nil when none may
// go.
func (t *table) least(source string, now time.Time, onlyRipe bool) *seat {
	var out *seat
	for s := range t.seats {
		if s.name != "" || s.source != source || (onlyRipe && now.Sub(s.since) < ripe[s.rank]) {
			continue
		}
		if out == nil || s.rank < out.rank || (s.rank == out.rank && s.since.Before(out.since)) {
			out = s
		}
	}
	return out
}

func (t *table) biggest(of map[string]int) (string, int) {
	name, most := "", 0
	for n, count := range of {
		if count > most || (count == most && n < name) {
			name, most = n, count
		}
	}
	return name, most
}

// prove moves an anonymous connection to those that are known. An idle connection gives up its place where there are
// too many.
func (t *table) prove(s *seat, name string, reserved bool) (out *seat, reason string, ok bool) {
	if _, in := t.seats[s]; !in {
		return nil, "", false // closed meanwhile
	}
	if s.name != "" {
		return nil, "", s.name == name
	}
	count := t.names[name]
	switch {
	case reserved && t.reserved >= t.limits.Reserved, !reserved && count >= t.limits.PerName:
		reason = CauseName
		out = t.idlest(name)
	case !reserved && t.known >= t.limits.Known:
		reason = CauseKnown
		biggest, most := t.biggestKnown()
		if most <= count {
			biggest = name
		}
		out = t.idlest(biggest)
	}
	if reason != "" && out == nil {
		return nil, reason, false
	}
	if out != nil {
		t.remove(out)
	}
	t.remove(s)
	s.name, s.reserved = name, reserved
	t.seats[s] = struct{}{}
	t.names[name]++
	if reserved {
		t.reserved++
	} else {
		t.known++
	}
	return out, reason, true
}

// biggestKnown is the name that has the most places among those that are not reserved.
func (t *table) biggestKnown() (string, int) {
	open := map[string]int{}
	for s := range t.seats {
		if s.name != "" && !s.reserved {
			open[s.name]++
		}
	}
	return t.biggest(open)
}

// idlest is the connection of a name that was not used for the longest time; one that is at work never is.
func (t *table) idlest(name string) *seat {
	var out *seat
	for s := range t.seats {
		if s.name == name && !s.busy && (out == nil || s.used.Before(out.used)) {
			out = s
		}
	}
	return out
}

// remove is harmless for a seat that is not there.
func (t *table) remove(s *seat) {
	if _, in := t.seats[s]; !in {
		return
	}
	delete(t.seats, s)
	switch {
	case s.name == "":
		t.anonymous--
		less(t.sources, s.source)
		return
	case s.reserved:
		t.reserved--
	default:
		t.known--
	}
	less(t.names, s.name)
}

func less(of map[string]int, key string) {
	if of[key]--; of[key] == 0 {
		delete(of, key)
	}
}
