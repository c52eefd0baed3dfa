package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/stores"
)

func (s *suite) oracle() {
	c, records := s.mixed(), s.records(5000)
	s.put(records)
	bound := s.bind(c)
	if p := bound.Problem(0); p != nil {
		s.Fatalf("%s: %s", p.Reason, p.Message)
	}
	want := s.stay(records, c.Datasets[0])
	before := s.line(bound, 0)
	if before.Overdue == 0 || before.Eligible < int64(len(records)-len(want)) && !before.Capped {
		s.Errorf("measured before: %+v, and %d are due", before, len(records)-len(want))
	}
	deleted := s.delete(c)
	s.holds(want)
	if d := deleted[0]; d.Rows != int64(len(records)-len(want)) || d.Problem != nil || d.Batches == 0 {
		s.Errorf("%+v, and %d were due", d, len(records)-len(want))
	}
	if after := s.line(s.bind(c), 0); after.Overdue != 0 || after.Eligible != 0 || after.Reason != "" {
		s.Errorf("measured after: %+v", after)
	}
	if again := s.delete(c); again[0].Rows != 0 {
		s.Errorf("a second sweep took %d more", again[0].Rows)
	}
}

// line measures a dataset with one rule.
func (s *suite) line(bound stores.Bound, i int) Line {
	s.Helper()
	measured, err := bound.Measure(s.Context(), i, stores.Clocks{Early: s.now, Late: s.now})
	lines := LinesOf(measured)
	if err != nil || len(lines) != 1 {
		s.Fatalf("measure: %v, %+v", err, lines)
	}
	return lines[0]
}

var errCrash = errors.New("the sweeper has died")

func (s *suite) crash() {
	c, records := s.mixed(), s.records(4000)
	s.put(records)
	want := s.stay(records, c.Datasets[0])
	crashes := 0
	for n := 1; ; n++ {
		if n > 1000 {
			s.Fatal("a thousand sweeps do not come to an end")
		}
		ctx, die := context.WithCancel(s.Context())
		session := s.open()
		bound, err := session.Bind(ctx, c)
		if err != nil {
			s.Fatal(err)
		}
		batches := 0
		permit := allow()
		permit.Commit = func(int64) error {
			if batches++; batches == n { // each batch of the first sweep is the last one once
				die()
				return errCrash
			}
			return nil
		}
		_, err = bound.Delete(ctx, 0, s.now, permit)
		die()
		_ = session.Close(context.WithoutCancel(ctx)) // it is dead
		if err == nil {
			break
		}
		crashes++
		s.early(want)
	}
	if crashes < 2 {
		s.Errorf("%d batches were cut short", crashes)
	}
	s.holds(want)
}

// early says what went that should have stayed.
func (s *suite) early(want []Record) {
	s.Helper()
	got, err := s.stage.Keys(s.Context(), mapped)
	if err != nil {
		s.Fatal(err)
	}
	slices.Sort(got)
	for _, r := range want {
		if _, found := slices.BinarySearch(got, r.Key); !found {
			s.Fatalf("%+v is gone", r)
		}
	}
}

// errNoLease ends a deletion.
var errNoLease = errors.New("there is no lease")

func (s *suite) lease() {
	c, records := s.mixed(), s.records(3000)
	s.put(records)
	for name, permit := range map[string]stores.Permit{
		"begin":  {Begin: func(int64) error { return errNoLease }, Commit: func(int64) error { return nil }},
		"commit": {Begin: func(int64) error { return nil }, Commit: func(int64) error { return errNoLease }},
	} {
		d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit)
		if !errors.Is(err, errNoLease) || d.Rows != 0 {
			s.Errorf("refused at %s: %v, %+v", name, err, d)
		}
		s.holds(records)
	}
	// What was committed before it was lost is counted, and nothing else went.
	asked, committed := 0, int64(0)
	permit := allow()
	permit.Commit = func(n int64) error {
		if asked++; asked > 1 {
			return errNoLease
		}
		committed = n
		return nil
	}
	d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit)
	if !errors.Is(err, errNoLease) || d.Rows != committed || committed == 0 {
		s.Errorf("lost after one batch of %d: %v, %+v", committed, err, d)
	}
	left, err := s.stage.Keys(s.Context(), mapped)
	if err != nil || int64(len(records)-len(left)) != committed {
		s.Errorf("%d of %d are left, and %d were committed (%v)", len(left), len(records), committed, err)
	}
	s.early(s.stay(records, c.Datasets[0]))
}

func (s *suite) again() {
	c, records := s.mixed(), s.records(2000)
	s.put(records)
	tries := 0
	permit := allow()
	permit.Commit = func(int64) error {
		if tries++; tries == 1 {
			return fmt.Errorf("%w: no answer", stores.ErrRepeat)
		}
		return nil
	}
	d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit)
	want := s.stay(records, c.Datasets[0])
	if err != nil || d.Rows != int64(len(records)-len(want)) || tries < 2 {
		s.Errorf("%v, %+v after %d tries", err, d, tries)
	}
	s.holds(want)
}

func (s *suite) turns() {
	c, records := s.mixed(), s.records(4000)
	s.put(records)
	bound, turns, worked := s.bind(c), 0, false
	permit := allow()
	permit.Commit = func(int64) error {
		worked = true
		return nil
	}
	permit.Pause = func() bool { return worked }
	for {
		d, err := bound.Delete(s.Context(), 0, s.now, permit)
		if err == nil {
			if want := s.stay(records, c.Datasets[0]); d.Rows != int64(len(records)-len(want)) {
				s.Errorf("all turns together took %d", d.Rows)
			}
			break
		}
		if turns++; !errors.Is(err, stores.ErrPaused) || turns > 1000 {
			s.Fatalf("turn %d: %v", turns, err)
		}
		worked = false
	}
	if turns == 0 {
		s.Error("no turn was ended")
	}
	s.holds(s.stay(records, c.Datasets[0]))
}

// race: what becomes younger, or another tenant's, before its batch begins stays.
func (s *suite) race() {
	c, records := s.mixed(), s.records(3000)
	s.put(records)
	once := false
	permit := allow()
	permit.Begin = func(int64) error {
		if once {
			return nil
		}
		once = true
		for i := range records {
			switch i % 3 {
			case 0:
				records[i].At = s.now.Add(-time.Hour)
			case 1:
				records[i].Tenant = "long"
			}
		}
		return s.stage.Put(s.Context(), mapped, records...)
	}
	if d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit); err != nil || d.Problem != nil {
		s.Errorf("%v, %+v", err, d)
	}
	if !once {
		s.Fatal("no batch began")
	}
	s.holds(s.stay(records, c.Datasets[0]))
}

func (s *suite) brake() {
	c, records := s.mixed(), s.records(3000)
	s.put(records)
	bound, going := s.bind(c), int64(len(records)-len(s.stay(records, c.Datasets[0])))
	for name, count := range map[string]func(context.Context, int, time.Time, func(int64) int64) (int64, int64, *v1alpha1.Problem, error){
		"Expired": bound.Expired, "Planned": bound.Planned,
	} {
		n, all, problem, err := count(s.Context(), 0, s.now, func(int64) int64 { return int64(len(records)) + 1 })
		if err != nil || problem != nil || n < going || all > int64(len(records)) || all < n {
			s.Errorf("%s: %d of %d (%v, %v), and %d of %d would go", name, n, all, problem, err, going, len(records))
		}
		_, all, _, err = count(s.Context(), 0, s.now, func(int64) int64 { return 10 })
		if err != nil || all > 10 {
			s.Errorf("%s counted %d records where 10 were enough (%v)", name, all, err)
		}
	}
	older, problem, err := bound.Older(s.Context(), 0, s.now.AddDate(0, 0, -30))
	want := int64(0)
	for _, r := range records {
		if !r.At.IsZero() && !r.At.After(s.now.AddDate(0, 0, -30)) {
			want++
		}
	}
	if err != nil || problem != nil || older != want {
		s.Errorf("%d are older than 30 days (%v, %v), counted %d", want, problem, err, older)
	}
	dueOfShort, err := bound.Due(s.Context(), 0, s.now)
	want = 0
	for _, r := range records {
		if r.Tenant == "short" && due(r, c.Datasets[0], s.now) {
			want++
		}
	}
	// Those that are past the others' window too may be counted or not.
	if err != nil || dueOfShort > want || dueOfShort == 0 {
		s.Errorf("of the tenant with the shorter window %d are due, counted %d (%v)", want, dueOfShort, err)
	}
	s.holds(records)
}

func (s *suite) floor() {
	c, records := s.mixed(), s.records(3000)
	floor := days(45)
	c.Datasets[0].Floor = &floor
	s.put(records)
	if l := s.line(s.bind(c), 0); l.KeptByFloor == 0 {
		s.Errorf("nothing is kept by a floor: %+v", l)
	}
	s.delete(c)
	s.holds(s.stay(records, c.Datasets[0]))
}

func (s *suite) ages() {
	c := s.mixed()
	records := []Record{{Key: "none", Tenant: "plain"}, {Key: "old", Tenant: "plain", At: s.now.AddDate(-1, 0, 0)}, {Key: "1970", Tenant: "plain", At: time.Unix(1000, 0)},
		{Key: "future", Tenant: "plain", At: s.now.AddDate(1, 0, 0)}}
	s.put(records)
	s.delete(c)
	s.holds([]Record{records[0], records[2], records[3]})
	if l := s.line(s.bind(c), 0); l.UnknownAge != 3 {
		s.Errorf("%d ages are unknown, and 3 are: %+v", l.UnknownAge, l)
	}
}

func (s *suite) tenants() {
	c := s.mixed()
	at := func(d int) time.Time { return s.now.AddDate(0, 0, -d) }
	records := []Record{
		{Key: "short 20", Tenant: "short", At: at(20)}, {Key: "long 40", Tenant: "long", At: at(40)}, {Key: "plain 20", Tenant: "plain", At: at(20)},
		{Key: "plain 40", Tenant: "plain", At: at(40)}, {Key: "disputed 20", Tenant: "disputed", At: at(20)}, {Key: "nobody 20", Tenant: "nobody's", At: at(20)},
		{Key: "nobody 40", Tenant: "nobody's", At: at(40)}, {Key: "none 20", At: at(20)}, {Key: "SHORT 20", Tenant: "SHORT", At: at(20)},
	}
	s.put(records)
	l := s.line(s.bind(c), 0)
	if l.UnknownTenant != 5 || l.UnknownTenantLate == 0 {
		s.Errorf("5 are of unknown tenants, and some of them older than the shortest window: %+v", l)
	}
	s.delete(c)
	s.holds(s.stay(records, c.Datasets[0]))
}

// known: the list of tenants may change while a sweep is under way, and may be lost.
func (s *suite) known() {
	c := s.mixed()
	records := []Record{{Key: "short 20", Tenant: "short", At: s.now.AddDate(0, 0, -20)}, {Key: "new 40", Tenant: "new", At: s.now.AddDate(0, 0, -40)}}
	s.put(records)
	bound := s.bind(c)
	if l := s.line(bound, 0); l.UnknownTenant != 1 || bound.Unclear(0) {
		s.Errorf("new is not known yet: %+v", l)
	}
	if err := bound.Know(s.Context(), append(c.Tenants, "new"), ""); err != nil {
		s.Fatal(err)
	}
	if l := s.line(bound, 0); l.UnknownTenant != 0 || bound.Unclear(0) {
		s.Errorf("new is known: %+v", l)
	}
	if err := bound.Know(s.Context(), nil, "the keyserver does not answer"); err != nil {
		s.Fatal(err)
	}
	if l := s.line(bound, 0); l.Reason == "" || !bound.Unclear(0) || bound.Problem(0) == nil {
		s.Errorf("nobody knows who is known: %+v", l)
	}
	if err := bound.Know(s.Context(), append(c.Tenants, "new"), ""); err != nil {
		s.Fatal(err)
	}
	if l := s.line(bound, 0); l.Reason != "" || l.UnknownTenant != 0 || bound.Unclear(0) || bound.Problem(0) != nil {
		s.Errorf("it is known again: %+v, %+v", l, bound.Problem(0))
	}
	c.TenantsUnread = "the keyserver does not answer"
	s.delete(c)
	s.holds(records)
	c.TenantsUnread = ""
	s.delete(c)
	s.holds(nil)
}

// audit: a dataset without permission is measured, and nothing of it goes.
func (s *suite) audit() {
	c, records := s.mixed(), s.records(500)
	c.Datasets[0].Delete = nil
	s.put(records)
	if d := s.delete(c); d[0].Rows != 0 {
		s.Errorf("%+v", d[0])
	}
	s.holds(records)
	if l := s.line(s.bind(c), 0); l.Overdue == 0 || l.Reason != "" {
		s.Errorf("%+v", l)
	}
	overdue, err := s.bind(c).Overdue(s.Context(), 0, stores.Clocks{Early: s.now, Late: s.now})
	if err != nil || len(overdue) != 1 || overdue[0].Overdue == 0 {
		s.Errorf("%v, %+v", err, overdue)
	}
}

func (s *suite) missing() {
	c := s.mixed()
	w := stores.Windows{RetainFor: days(1)}
	lost := s.dataset(mapped, w)
	lost.Name, lost.Place = "lost", s.stage.Place("lost", true)
	c.Datasets = append(c.Datasets, lost)
	s.put([]Record{{Key: "old", Tenant: "plain", At: s.now.AddDate(-1, 0, 0)}})
	bound := s.bind(c)
	if p := bound.Problem(1); p == nil || p.Reason != v1alpha1.ReasonMissingTable {
		s.Errorf("%+v", p)
	}
	if l := s.line(bound, 1); l.Reason != v1alpha1.ReasonMissingTable || l.Message == "" {
		s.Errorf("%+v", l)
	}
	if order := bound.Order(); len(order) != 2 {
		s.Errorf("%v", order)
	}
	s.delete(c) // the other one goes on
	s.holds(nil)
}

func (s *suite) uncovered() {
	c := s.mixed()
	if got := s.bind(c).Uncovered(); len(got) != 0 {
		s.Errorf("exempt, and uncovered: %v", got)
	}
	c.Exempt = nil
	if got := s.bind(c).Uncovered(); len(got) != 1 {
		s.Errorf("one table is neither a dataset nor exempt: %v", got)
	}
}

func (s *suite) two() {
	first, second := s.open(), s.open()
	one, err := first.Lock(s.Context())
	if err != nil || one == stores.LockBusy {
		s.Fatalf("%v, %v", one, err)
	}
	two, err := second.Lock(s.Context())
	switch {
	case err != nil, one == stores.LockHeld && two != stores.LockBusy, one == stores.LockNone && two != stores.LockNone:
		s.Errorf("the first has %v, the second %v (%v)", one, two, err)
	}
	if err := first.Close(s.Context()); err != nil || !first.Closed() {
		s.Errorf("close: %v, closed %v", err, first.Closed())
	}
	c, records := s.mixed(), s.records(2000)
	s.put(records)
	if one == stores.LockNone {
		// Then two at a time must be right too.
		failed := make(chan error, 2)
		for range 2 {
			bound := s.bind(c)
			go func() {
				_, err := bound.Delete(s.Context(), 0, s.now, allow())
				failed <- err
			}()
		}
		if err := errors.Join(<-failed, <-failed); err != nil {
			s.Error(err)
		}
	} else {
		s.delete(c)
	}
	s.holds(s.stay(records, c.Datasets[0]))
}

// blind: a role from which records are hidden must not be told that all is well.
func (s *suite) blind() {
	c, records := s.mixed(), s.records(200)
	s.put(records)
	if err := s.stage.Hide(s.Context(), mapped); err != nil {
		s.Fatal(err)
	}
	bound := s.bind(c)
	if bound.Problem(0) == nil {
		s.Error("records are hidden from the role, and nothing says so")
	}
	if l := s.line(bound, 0); l.Reason == "" {
		s.Errorf("what the role does not see was measured: %+v", l)
	}
	s.delete(c)
	s.holds(records)
}

func (s *suite) identity() {
	a, err := s.open().Identify(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	b, err := s.open().Identify(s.Context())
	if err != nil || a != b || a.Of.Kind == "" || a.Of.Value == "" || a.Database == "" {
		s.Errorf("%+v, then %+v (%v)", a, b, err)
	}
	now, skew, err := s.open().Now(s.Context())
	if err != nil || now.IsZero() || skew.Abs() > time.Minute {
		s.Errorf("the clock says %s, skew %s (%v)", now, skew, err)
	}
}

// credentials: each of the set is needed, and none is told.
func (s *suite) credentials() {
	where, right := s.stage.Where()
	if err := right.Check(s.stage.Engine()); err != nil {
		s.Fatal(err)
	}
	for name, what := range s.stage.Engine().Credentials() {
		if what == "" {
			s.Errorf("nobody knows what %s is for", name)
		}
		_, wrong := s.stage.Where()
		wrong[name] = append(wrong[name], "not"...)
		session, err := s.stage.Engine().Open(s.Context(), where, wrong, time.Now)
		var known *stores.Error
		if err == nil {
			_ = session.Close(s.Context()) // it should not be there
		}
		if !errors.As(err, &known) || known.Reason != v1alpha1.ReasonWrongPassword || known.Message == "" || strings.Contains(fmt.Sprint(err, wrong), string(wrong[name])) {
			s.Errorf("a wrong %s: %v", name, err)
		}
		delete(wrong, name)
		if err := wrong.Check(s.stage.Engine()); !errors.As(err, &known) || !strings.Contains(known.Message, name) {
			s.Errorf("without %s: %v", name, err)
		}
	}
	_, more := s.stage.Where()
	more["nobodys"] = []byte("x")
	if err := more.Check(s.stage.Engine()); err == nil {
		s.Error("a credential that nobody needs was taken")
	}
	if said := s.stage.Engine().Describe(errCrash); said == "" {
		s.Error("an error that the engine does not know is described by nothing")
	}
}

func (s *suite) points() {
	h, ok := s.open().(stores.Historian)
	if !ok {
		return // it keeps none, and says so by its type
	}
	point := func() (out struct{ Mark stores.Mark }) {
		s.Helper()
		var err error
		if out.Mark, err = h.Mark(s.Context()); err != nil {
			s.Fatal(err)
		}
		return out
	}
	first, err := h.Reach(s.Context(), point().Mark)
	if err != nil {
		s.Fatal(err)
	}
	witnesses, err := h.Witness(s.Context(), 2)
	if err != nil || len(witnesses) != 2 {
		s.Fatalf("%v, %v", witnesses, err)
	}
	identity, err := s.open().Identify(s.Context())
	if err != nil || !(keyapi.Point{Of: identity.Of, StorePoint: first, Witnesses: witnesses}).IsValid() {
		s.Errorf("what is to be remembered is not of its form: %+v, %+v, %v (%v)", identity, first, witnesses, err)
	}
	s.put(s.records(10))
	second, err := h.Reach(s.Context(), point().Mark)
	if err != nil {
		s.Fatal(err)
	}
	if why, err := h.Back(s.Context(), first, witnesses, second); err != nil || why != "" {
		s.Errorf("it went on, and %q (%v)", why, err)
	}
	if why, err := h.Back(s.Context(), second, nil, first); err != nil || why == "" {
		s.Errorf("it went back, and nothing is said (%v)", err)
	}
	for _, last := range []v1alpha1.StorePoint{{Kind: "Nobodys", Value: first.Value}, {Kind: first.Kind, Value: "nothing"}} {
		if why, err := h.Back(s.Context(), last, witnesses, second); err != nil || why == "" {
			s.Errorf("it was at a point that nobody reads, and nothing is said (%v)", err)
		}
	}
}
