package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var defaults = Defaults()

// fleet of one tenant, by how many are in each stage.
func fleet(tenant string, untouched, rolling, proving, failed int) []Bot {
	var bots []Bot
	for stage, n := range map[Stage]int{Untouched: untouched, OnItsWay: rolling, Proving: proving, Failed: failed} {
		for range n {
			bots = append(bots, Bot{Tenant: tenant, Stage: stage})
		}
	}
	return bots
}

// TestTurns: who is restarted next of four that wait in each of the tenants a, b and c.
func TestTurns(t *testing.T) {
	many := Proven{All: 3, Of: map[string]int{"a": 3, "b": 3, "c": 3}}
	var waiting []Waiting
	for _, tenant := range []string{"c", "a", "b"} {
		for _, name := range []string{"4", "2", "1", "3"} {
			waiting = append(waiting, Waiting{Tenant: tenant, Name: name})
		}
	}
	for name, tc := range map[string]struct {
		bots    []Bot
		proven  Proven
		want    string
		stopped string // the tenants whose bots are not restarted any more; * for all
	}{
		"one bot":                       {fleet("a", 1, 0, 0, 0), Proven{}, "[a1]", ""},
		"30 bots, one at a time":        {fleet("a", 30, 0, 0, 0), many, "[a1]", ""},
		"one is on its way":             {fleet("a", 29, 1, 0, 0), many, "[]", ""},
		"one is ready and not proven":   {fleet("a", 29, 0, 1, 0), many, "[b1]", ""},
		"two are":                       {fleet("a", 28, 0, 2, 0), many, "[b1]", ""},
		"three are":                     {fleet("a", 27, 0, 3, 0), many, "[]", ""},
		"a great fleet begins slowly":   {fleet("a", 1000, 0, 0, 0), Proven{}, "[a1 b1 c1]", ""},
		"and goes on when one lasted":   {fleet("a", 998, 0, 2, 0), Proven{All: 1, Of: map[string]int{"a": 1}}, "[b1]", ""},
		"fast when three have":          {fleet("a", 1000, 0, 0, 0), many, "[a1 b1 c1 a2 b2 c2 a3 b3 c3 a4 b4 c4]", ""},
		"up to five per cent":           {fleet("a", 952, 48, 0, 0), many, "[b1 c1]", ""},
		"those not proven count":        {fleet("a", 952, 20, 27, 1), many, "[b1 c1]", ""},
		"a tenant begins slowly, too":   {fleet("a", 1000, 0, 0, 0), Proven{All: 9, Of: map[string]int{"b": 9}}, "[a1 b1 c1 a2 b2 c2 a3 b3 c3 b4]", ""},
		"one failed, another is tried":  {fleet("a", 29, 0, 0, 1), Proven{}, "[b1]", ""},
		"two failed, another is tried":  {fleet("a", 28, 0, 0, 2), Proven{}, "[b1]", ""},
		"and none beside it":            {fleet("a", 27, 0, 1, 2), Proven{}, "[]", ""},
		"three failed, of one tenant":   {fleet("a", 27, 0, 0, 3), Proven{}, "[]", "*"},
		"three failed, one is ready":    {fleet("a", 900, 0, 20, 3), many, "[]", "*"},
		"of one tenant among others":    {slices.Concat(fleet("a", 27, 0, 0, 3), fleet("b", 1, 0, 0, 0)), many, "[b1]", "a"},
		"of one in a great fleet":       {slices.Concat(fleet("a", 97, 0, 0, 30), fleet("b", 73, 0, 0, 0)), many, "[b1 c1 b2 c2 b3 c3 b4 c4]", "a"},
		"of two tenants of two":         {slices.Concat(fleet("a", 27, 0, 0, 2), fleet("b", 1, 0, 0, 1)), many, "[]", "*"},
		"of two tenants of three":       {slices.Concat(fleet("a", 27, 0, 0, 2), fleet("b", 1, 0, 0, 1), fleet("c", 1, 0, 0, 0)), many, "[c1]", ""},
		"of three tenants of three":     {slices.Concat(fleet("a", 27, 0, 0, 1), fleet("b", 1, 0, 0, 1), fleet("c", 1, 0, 0, 1)), many, "[]", "*"},
		"of two of three, all of one's": {slices.Concat(fleet("a", 27, 0, 0, 9), fleet("b", 1, 0, 0, 1), fleet("c", 1, 0, 0, 0)), many, "[c1]", "a"},
	} {
		s := Compute(tc.bots, tc.proven, defaults)
		got, most := []string{}, s.Turns(waiting)
		for _, w := range most {
			got = append(got, w.Tenant+w.Name)
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
		stopped := ""
		for _, tenant := range []string{"a", "b", "c"} {
			if s.IsStopped(tenant) && !s.Stopped {
				stopped += tenant
			}
		}
		if s.Stopped {
			stopped = "*"
		}
		if stopped != tc.stopped {
			t.Errorf("%s: stopped %q, want %q", name, stopped, tc.stopped)
		}
	}
}

func TestStage(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		ago     time.Duration
		ready   bool
		failing bool
		want    Stage
	}{
		{0, false, false, OnItsWay}, {DefaultDeadline - 1, false, false, OnItsWay}, {DefaultDeadline, false, false, Failed},
		{time.Second, false, true, Failed}, {time.Second, true, true, Failed}, {time.Second, true, false, Proving}, {time.Hour, true, false, Proving},
	} {
		if got := defaults.Stage(now.Add(-tc.ago), now, tc.ready, tc.failing); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// program is how a bot behaves once a change has restarted it.
type program struct {
	readyAfter time.Duration // 0: never
	endsAfter  time.Duration // 0: never
}

// rolled is one bot of a world in which a change goes round.
type rolled struct {
	Waiting
	program
	unreadyBefore bool // it has the change at once, and is asked for nothing
	has, marked   bool
	at            time.Time
}

func (b *rolled) stage(now time.Time) Stage {
	if !b.marked {
		return Untouched
	}
	age := now.Sub(b.at)
	return defaults.Stage(b.at, now, b.readyAfter > 0 && age >= b.readyAfter, b.endsAfter > 0 && age >= b.endsAfter)
}

// goRound plays a change that restarts everybody, second by second, as the manager does it, and holds what the docs
// promise. It ends when nothing has happened for ten minutes.
func goRound(t *testing.T, name string, bots []*rolled) {
	t.Helper()
	proven, now := Proven{Of: map[string]int{}}, time.Now()
	for last := now; now.Sub(last) < 2*DefaultDeadline; now = now.Add(time.Second) {
		var all []Bot
		var waiting []Waiting
		byName := map[Waiting]*rolled{}
		for _, b := range bots {
			byName[b.Waiting] = b
			if b.marked && b.stage(now) == Proving && now.Sub(b.at) >= b.readyAfter+defaults.Lasts {
				b.marked, last = false, now
				proven.All++
				proven.Of[b.Tenant]++
			}
			all = append(all, Bot{Tenant: b.Tenant, Stage: b.stage(now)})
			if !b.has && !b.unreadyBefore {
				waiting = append(waiting, b.Waiting)
			}
		}
		before := Compute(all, proven, defaults)
		for _, turn := range before.Turns(waiting) {
			b := byName[turn]
			b.has, b.marked, b.at, last = true, true, now, now
			all[slices.Index(bots, b)].Stage = OnItsWay
		}
		s := Compute(all, proven, defaults)
		most, open := max(1, len(bots)/20), s.open.failed
		if s.Rolling > most || s.Rolling+open > max(most, open+1) {
			t.Fatalf("%s: %d are on their way and %d have failed, %d may be", name, s.Rolling, open, most)
		}
		begun := DefaultStopAfter
		if proven.All >= begun {
			begun = max(begun, most)
		}
		if n := s.Rolling + s.Proving + open; n > max(begun, open+1) {
			t.Fatalf("%s: %d are not proven, %d may be", name, n, begun)
		}
	}
}

// makeFleet has tenants that all have the same number of bots, in an order of their own.
func makeFleet(tenants, each int, how func(tenant, i int) program) []*rolled {
	var bots []*rolled
	for tenant := range tenants {
		for i := range each {
			bots = append(bots, &rolled{Waiting: Waiting{Tenant: fmt.Sprintf("t%03d", tenant), Name: fmt.Sprintf("b%03d", i)}, program: how(tenant, i)})
		}
	}
	rand.Shuffle(len(bots), func(i, j int) { bots[i], bots[j] = bots[j], bots[i] })
	return bots
}

func has(bots []*rolled, which func(*rolled) bool) (have, of int) {
	for _, b := range bots {
		if which(b) {
			of++
			if b.has {
				have++
			}
		}
	}
	return have, of
}

func everybody(*rolled) bool { return true }

func seconds(least, most int) time.Duration {
	return time.Duration(least+rand.IntN(most-least+1)) * time.Second
}

func good() program { return program{readyAfter: seconds(1, 40)} }

// bad ones: each is a way to fail with a change.
func bad() program {
	switch ready := seconds(1, 10); rand.IntN(4) {
	case 0:
		return program{} // never ready, and never says why
	case 1:
		return program{endsAfter: seconds(1, 5)}
	case 2:
		return program{readyAfter: ready, endsAfter: ready + seconds(10, 30)} // healthy, and late
	default:
		return program{readyAfter: ready, endsAfter: ready + DefaultLasts - time.Second}
	}
}

// TestWhatIsPromised is what the docs promise of a change that must restart bots, in fleets of all sizes.
func TestWhatIsPromised(t *testing.T) {
	for _, size := range []struct{ tenants, each int }{{1, 1}, {1, 30}, {1, 200}, {2, 15}, {3, 10}, {30, 1}, {4, 60}, {40, 3}} {
		name := fmt.Sprintf("%d tenants with %d bots each", size.tenants, size.each)
		n := size.tenants * size.each

		bots := makeFleet(size.tenants, size.each, func(int, int) program { return good() })
		goRound(t, name+", all good", bots)
		if have, _ := has(bots, everybody); have != n {
			t.Errorf("%s: %d of %d have it", name, have, n)
		}

		bots = makeFleet(size.tenants, size.each, func(int, int) program { return bad() })
		goRound(t, name+", all bad", bots)
		if have, _ := has(bots, everybody); have != min(n, DefaultStopAfter) {
			t.Errorf("%s: %d that were healthy have failed before it was stopped, want %d", name, have, DefaultStopAfter)
		}

		// Those that were unready before do not count, however many they are.
		bots = makeFleet(size.tenants, size.each, func(int, int) program { return good() })
		for i, b := range bots {
			b.unreadyBefore = i%2 == 1
		}
		goRound(t, name+", half of them unready before", bots)
		if have, of := has(bots, func(b *rolled) bool { return !b.unreadyBefore }); have != of {
			t.Errorf("%s, half of them unready before: %d of %d have it", name, have, of)
		}

		if size.tenants == 1 {
			continue
		}
		// One tenant's bots all fail: they are stopped, and nobody else's.
		bots = makeFleet(size.tenants, size.each, func(tenant, _ int) program {
			if tenant == 1 {
				return bad()
			}
			return good()
		})
		goRound(t, name+", one tenant's bad", bots)
		if have, of := has(bots, func(b *rolled) bool { return b.Tenant != "t001" }); have != of {
			t.Errorf("%s, one tenant's bad: %d of %d others have it", name, have, of)
		}
		if have, of := has(bots, func(b *rolled) bool { return b.Tenant == "t001" }); have != min(of, DefaultStopAfter) {
			t.Errorf("%s, one tenant's bad: %d of them have failed before it was stopped, want %d", name, have, DefaultStopAfter)
		}
	}
}

// TestNeverStuck: in whatever stages a fleet is, something is restarted next, or is on its way and makes room, or it
// was stopped.
func TestNeverStuck(t *testing.T) {
	for range 20000 {
		limits := Limits{Percent: 1 + rand.IntN(100), StopAfter: 1 + rand.IntN(10), Deadline: DefaultDeadline}
		proven := Proven{All: rand.IntN(20), Of: map[string]int{}}
		var bots []Bot
		var waiting []Waiting
		for i := range 1 + rand.IntN(5) {
			tenant := fmt.Sprint(i)
			proven.Of[tenant] = rand.IntN(20)
			bots = append(bots, fleet(tenant, rand.IntN(100), rand.IntN(3), rand.IntN(3), rand.IntN(4))...)
			waiting = append(waiting, Waiting{Tenant: tenant, Name: "b"})
		}
		s := Compute(bots, proven, limits)
		stopped := !slices.ContainsFunc(waiting, func(w Waiting) bool { return !s.IsStopped(w.Tenant) })
		if n := len(s.Turns(waiting)); n == 0 && !stopped && s.IsQuiet("") {
			t.Fatalf("%+v, %+v, %v: nothing happens any more", limits, proven, bots)
		} else if n > 0 && stopped {
			t.Fatalf("%+v, %+v, %v: it goes on", limits, proven, bots)
		}
	}
}

func TestValidate(t *testing.T) {
	for flag, change := range map[string]func(*Limits){
		"--rollout-percent 0": func(l *Limits) { l.Percent = 0 }, "--rollout-percent 101": func(l *Limits) { l.Percent = 101 },
		"--rollout-stop-after 0": func(l *Limits) { l.StopAfter = 0 }, "--rollout-deadline 1s": func(l *Limits) { l.Deadline = time.Second },
		"--rollout-deadline 25h": func(l *Limits) { l.Deadline = 25 * time.Hour },
	} {
		l := Defaults()
		change(&l)
		if err := l.Validate(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
	if err := defaults.Validate(); err != nil {
		t.Error(err)
	}
}
