package doors

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var small = Limits{Anonymous: 8, PerSource: 5, Known: 6, PerName: 3, Reserved: 2, Wire: 1 << 10}

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(source string, after time.Duration) *seat {
	return &seat{source: source, since: began.Add(after)}
}

func mustAdmit(t *testing.T, tab *table, s *seat) {
	t.Helper()
	if out, reason, ok := tab.admit(s); !ok || out != nil {
		t.Fatalf("%s: let in %v (%s), at the expense of %v", s.source, ok, reason, out)
	}
}

// TestASharedAddress: one that is new gets the place of one of its own address that has done the least, and honest
// ones have time to speak before that.
func TestASharedAddress(t *testing.T) {
	tab := newTable(small)
	seats := make([]*seat, small.PerSource)
	for i := range seats {
		seats[i] = at("10.0.0.1", time.Duration(i)*time.Millisecond)
		mustAdmit(t, &tab, seats[i])
	}
	if out, reason, ok := tab.admit(at("10.0.0.1", 10*time.Millisecond)); ok || out != nil || reason != CauseSource {
		t.Fatalf("before anybody's time is up: %v, %s, %v", out, reason, ok)
	}
	mustAdmit(t, &tab, at("10.0.0.2", 10*time.Millisecond))
	seats[0].rank, seats[1].rank = asked, spoke
	late := at("10.0.0.1", 3*time.Second)
	if out, _, ok := tab.admit(late); !ok || out != seats[2] {
		t.Fatalf("closed %+v", out)
	}
	if got := tab.sources["10.0.0.1"]; got != small.PerSource {
		t.Errorf("%d of one address", got)
	}
	for _, s := range seats {
		s.rank = asked
	}
	late.rank = spoke
	if out, _, ok := tab.admit(at("10.0.0.1", 3*time.Second+ripe[spoke])); !ok || out != late {
		t.Fatalf("closed %+v, though another has done less", out)
	}
}

// TestManyAddresses: whoever has many gives way at once to one who has none, and not to one who has as many.
func TestManyAddresses(t *testing.T) {
	tab := newTable(small)
	for i := range small.PerSource {
		mustAdmit(t, &tab, at("10.0.0.1", time.Duration(i)))
	}
	for i := range small.Anonymous - small.PerSource {
		mustAdmit(t, &tab, at(fmt.Sprintf("10.0.1.%d", i), 0))
	}
	out, reason, ok := tab.admit(at("10.0.0.9", time.Millisecond))
	if !ok || reason != CauseFull || out.source != "10.0.0.1" {
		t.Fatalf("one with nothing yet: %v, %s, closed %+v", ok, reason, out)
	}
	if _, _, ok := tab.admit(at("10.0.0.1", time.Millisecond)); ok {
		t.Error("whoever has the most got one more before anybody's time was up")
	}
}

// TestKnownOnesAreApart: no number of anonymous connections closes one that is known, nor does one name close
// another's; what the manager has is reserved.
func TestKnownOnesAreApart(t *testing.T) {
	tab := newTable(small)
	know := func(name string, after time.Duration) *seat {
		s := at("10.0.0.1", after)
		mustAdmit(t, &tab, s)
		if out, _, ok := tab.prove(s, name, name == "manager"); !ok || out != nil {
			t.Fatalf("%s: %v, %v", name, ok, out)
		}
		return s
	}
	manager := know("manager", 0)
	mine := []*seat{know("acme", 1), know("acme", 2), know("acme", 3)}
	mine[0].busy = true
	mine[1].used, mine[2].used = began.Add(2*time.Second), began.Add(time.Second)
	for i := range 100 {
		tab.admit(at("10.0.0.1", time.Hour+time.Duration(i)*time.Second))
	}
	for _, s := range append(mine, manager) {
		if _, in := tab.seats[s]; !in {
			t.Fatal("an anonymous connection closed one that is known")
		}
	}
	more := at("10.0.0.5", 2*time.Hour)
	if _, _, ok := tab.admit(more); !ok {
		t.Fatal("not let in")
	}
	if out, reason, ok := tab.prove(more, "acme", false); !ok || out != mine[2] || reason != CauseName {
		t.Fatalf("one more of acme: %v, %s, closed %+v", ok, reason, out)
	}
	for _, s := range []*seat{mine[1], more} {
		s.busy = true
	}
	again := at("10.0.0.6", 2*time.Hour)
	if _, _, ok := tab.admit(again); !ok {
		t.Fatal("not let in")
	}
	if _, _, ok := tab.prove(again, "acme", false); ok {
		t.Error("one more, though all of acme are at work")
	}
	if again.name != "" {
		t.Error("it is known all the same")
	}
}

// TestBiggestNameGivesWay: when all places of known ones are taken, the name with the most of them gives one up.
func TestBiggestNameGivesWay(t *testing.T) {
	tab := newTable(small)
	for i, name := range []string{"a", "a", "a", "b", "b", "c"} {
		s := at(fmt.Sprint(i), 0)
		mustAdmit(t, &tab, s)
		tab.prove(s, name, false)
	}
	s := at("x", 0)
	mustAdmit(t, &tab, s)
	if out, reason, ok := tab.prove(s, "d", false); !ok || reason != CauseKnown || out.name != "a" {
		t.Fatalf("%v, %s, closed %+v", ok, reason, out)
	}
}

// TestTableIsBounded plays at random, and counts again from the start after each step.
func TestTableIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := newTable(small)
	var all []*seat
	for step := range 20000 {
		var s *seat
		if len(all) > 0 {
			s = all[r.IntN(len(all))]
		}
		switch kind := r.IntN(8); {
		case s == nil || kind < 4:
			s = at(fmt.Sprint("s", r.IntN(6)), time.Duration(step)*time.Millisecond)
			tab.admit(s)
			all = append(all, s)
		case kind == 4:
			tab.remove(s)
		case kind == 5:
			name := fmt.Sprint("n", r.IntN(4))
			tab.prove(s, name, name == "n0")
		case kind == 6:
			s.rank = rank(r.IntN(3))
		default:
			s.busy = !s.busy
		}
		anonymous, known, reserved := 0, 0, 0
		names, sources := map[string]int{}, map[string]int{}
		for s := range tab.seats {
			switch {
			case s.name == "":
				anonymous++
				sources[s.source]++
			case s.reserved:
				reserved++
				names[s.name]++
			default:
				known++
				names[s.name]++
			}
		}
		if anonymous != tab.anonymous || known != tab.known || reserved != tab.reserved || len(names) != len(tab.names) || len(sources) != len(tab.sources) {
			t.Fatalf("step %d: counted %d, %d, %d, noted %+v", step, anonymous, known, reserved, tab)
		}
		if anonymous > small.Anonymous || known > small.Known || reserved > small.Reserved {
			t.Fatalf("step %d: %d anonymous, %d known, %d reserved", step, anonymous, known, reserved)
		}
		for n, c := range names {
			if n != "n0" && c > small.PerName {
				t.Fatalf("step %d: %d of %s", step, c, n)
			}
		}
		for n, c := range sources {
			if c > small.PerSource {
				t.Fatalf("step %d: %d of %s", step, c, n)
			}
		}
	}
}
