// Package storetest is what every engine of package stores must pass, against a real store of its kind: it deletes what an oracle says and nothing else,
// through crashes, lost leases, races and turns, and it never calls measured what it did not see.
//
// The oracle is written from the words of a promise (a window, a floor, whose a record is) and knows no engine.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/retention"
	"github.com/lethe-dev/lethe/internal/stores"
)

// Record is one of a store's.
type Record struct {
	Key string
	// Tenant's identifier; empty: the record names none. It means nothing in a table that is not shared.
	Tenant string
	// At is when it was made; zero: the record does not tell.
	At time.Time
}

// Stage is a store of an engine's kind that is empty but for its tables.
type Stage interface {
	Engine() stores.Engine
	// Where the store is, and the password of the role that sweeps: the least one that the engine's documentation asks for.
	Where() (plan.Connection, string)
	// Table declares a table of the stage as a dataset of a DataStore does, shared: with what tells whose a record is.
	Table(name string, shared bool) v1alpha1.Table
	// Put writes records, or writes them again.
	Put(ctx context.Context, table string, records ...Record) error
	// Keys of all records that are there, in any order, whoever may see them.
	Keys(ctx context.Context, table string) ([]string, error)
	// Hide takes from the role the sight of some records of a table, in the way in which that happens to stores of this kind, so that nobody tells it.
	Hide(ctx context.Context, table string) error
}

// Run holds an engine to the contract. New makes a stage with these tables.
func Run(t *testing.T, stage func(t *testing.T, tables ...string) Stage) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"the oracle", (*suite).oracle}, {"a crash at each batch", (*suite).crash}, {"a lease that is lost", (*suite).lease}, {"a batch again", (*suite).again},
		{"turns", (*suite).turns}, {"a race", (*suite).race}, {"what the brake is told", (*suite).brake}, {"floors", (*suite).floor}, {"unknown ages", (*suite).ages},
		{"tenants", (*suite).tenants}, {"measured and not permitted", (*suite).audit}, {"a table that is not there", (*suite).missing}, {"uncovered", (*suite).uncovered},
		{"two sweepers", (*suite).two}, {"blindness", (*suite).blind}, {"identity", (*suite).identity}, {"a wrong password", (*suite).password},
		{"points in its life", (*suite).points},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, stage: stage(t, "messages", "calls"), now: time.Now().UTC().Truncate(time.Second)}
			c.test(s)
		})
	}
}

type suite struct {
	*testing.T
	stage Stage
	now   time.Time
}

// allow permits everything.
func allow() stores.Permit {
	return stores.Permit{Begin: func(int64) error { return nil }, Commit: func(int64) error { return nil }}
}

func days(n int32) v1alpha1.Period { return v1alpha1.Period{Days: &n} }

// dataset of a table that is deleted from after some days.
func (s *suite) dataset(table string, shared bool, w stores.Windows) stores.Dataset {
	slack := int32(24)
	return stores.Dataset{Name: table, Table: s.stage.Table(table, shared), Delete: &w,
		Rules: []stores.Rule{{Policy: "promise", Rule: table, Windows: w, DeleteWithin: v1alpha1.Slack{Hours: &slack}}}}
}

func (s *suite) open() stores.Session {
	s.Helper()
	where, password := s.stage.Where()
	session, err := s.stage.Engine().Open(s.Context(), where, password, time.Now)
	if err != nil {
		s.Fatalf("open: %v", err)
	}
	s.Cleanup(func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), 10*time.Second)
		defer cancel()
		_ = session.Close(bounded) // the test may have cut it
	})
	return session
}

func (s *suite) bind(c stores.Config) stores.Bound {
	s.Helper()
	bound, err := s.open().Bind(s.Context(), c)
	if err != nil {
		s.Fatalf("bind: %v", err)
	}
	return bound
}

func (s *suite) put(table string, records []Record) {
	s.Helper()
	if err := s.stage.Put(s.Context(), table, records...); err != nil {
		s.Fatalf("put: %v", err)
	}
}

// delete lets everything go that may.
func (s *suite) delete(c stores.Config) []stores.Deletion {
	s.Helper()
	bound := s.bind(c)
	out := make([]stores.Deletion, len(c.Datasets))
	for _, i := range bound.Order() {
		var err error
		if out[i], err = bound.Delete(s.Context(), i, s.now, allow()); err != nil {
			s.Fatalf("delete from %s: %v", c.Datasets[i].Name, err)
		}
	}
	return out
}

// holds compares what is left of a table.
func (s *suite) holds(table string, want []Record) {
	s.Helper()
	got, err := s.stage.Keys(s.Context(), table)
	if err != nil {
		s.Fatal(err)
	}
	var keys []string
	for _, r := range want {
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	slices.Sort(got)
	if !slices.Equal(got, keys) {
		s.Errorf("%s: %d records are left and %d should be\ngone too early: %v\nforgotten: %v", table, len(got), len(keys), without(keys, got), without(got, keys))
	}
}

// without lists some of a that are not in b.
func without(a, b []string) []string {
	var out []string
	for _, k := range a {
		if _, found := slices.BinarySearch(b, k); !found && len(out) < 10 {
			out = append(out, k)
		}
	}
	return out
}

// due is the oracle.
func due(r Record, d stores.Dataset, at time.Time) bool {
	if d.Delete == nil || r.At.IsZero() || r.At.After(at) {
		return false
	}
	window := d.Delete.RetainFor
	for _, o := range d.Delete.Overrides {
		if d.Table.TenantColumn != "" && r.Tenant != "" && slices.Contains(o.IDs, r.Tenant) {
			window = o.RetainFor
		}
	}
	if r.At.After(retention.Cutoff(at, window)) {
		return false
	}
	return d.Floor == nil || !r.At.After(retention.Cutoff(at, *d.Floor))
}

func (s *suite) stay(records []Record, d stores.Dataset) []Record {
	var out []Record
	for _, r := range records {
		if !due(r, d, s.now) {
			out = append(out, r)
		}
	}
	return out
}

// records at random, and always the same: of every tenant, of none, without an age, of tomorrow, of either side of windows of 10, 30 and 60 days.
func (s *suite) records(n int) []Record {
	random := rand.New(rand.NewPCG(1, 2))
	tenants := []string{"", "short", "long", "plain", "disputed", "nobody's"}
	out := make([]Record, n)
	for i := range out {
		r := Record{Key: "r" + strconv.Itoa(i), Tenant: tenants[random.IntN(len(tenants))]}
		switch random.IntN(20) {
		case 0:
		case 1:
			r.At = s.now.Add(24 * time.Hour)
		default:
			edge := []int{10, 30, 60}[random.IntN(3)]
			r.At = s.now.AddDate(0, 0, -edge).Add(time.Duration(random.IntN(20_000)-10_000) * time.Minute)
		}
		out[i] = r
	}
	return out
}

// mixed is a shared dataset with windows of tenants' own, one shorter and one longer than the others'.
func (s *suite) mixed(table string) stores.Config {
	w := stores.Windows{RetainFor: days(30), Overrides: []stores.Override{{IDs: []string{"short"}, RetainFor: days(10)}, {IDs: []string{"long"}, RetainFor: days(60)}}}
	return stores.Config{Datasets: []stores.Dataset{s.dataset(table, true, w)}, Exempt: s.exempt("messages", "calls", table),
		Tenants: []string{"short", "long", "plain"}, Disputed: []string{"disputed"}}
}

// exempt are the two tables of the stage without the last one named.
func (s *suite) exempt(a, b, mapped string) [][2]string {
	var out [][2]string
	for _, name := range []string{a, b} {
		if name != mapped {
			at := s.stage.Table(name, false)
			out = append(out, [2]string{string(at.Schema), string(at.Name)})
		}
	}
	return out
}

func (s *suite) oracle() {
	c, records := s.mixed("messages"), s.records(5000)
	s.put("messages", records)
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
	s.holds("messages", want)
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
func (s *suite) line(bound stores.Bound, i int) report.Line {
	s.Helper()
	lines, err := bound.Measure(s.Context(), i, stores.Clocks{Early: s.now, Late: s.now})
	if err != nil || len(lines) != 1 {
		s.Fatalf("measure: %v, %+v", err, lines)
	}
	return lines[0]
}

var errCrash = errors.New("the sweeper has died")

func (s *suite) crash() {
	c, records := s.mixed("messages"), s.records(4000)
	s.put("messages", records)
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
		s.early("messages", want)
	}
	if crashes < 2 {
		s.Errorf("%d batches were cut short", crashes)
	}
	s.holds("messages", want)
}

// early says what went that should have stayed.
func (s *suite) early(table string, want []Record) {
	s.Helper()
	got, err := s.stage.Keys(s.Context(), table)
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
	c, records := s.mixed("messages"), s.records(3000)
	s.put("messages", records)
	for name, permit := range map[string]stores.Permit{
		"begin":  {Begin: func(int64) error { return errNoLease }, Commit: func(int64) error { return nil }},
		"commit": {Begin: func(int64) error { return nil }, Commit: func(int64) error { return errNoLease }},
	} {
		d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit)
		if !errors.Is(err, errNoLease) || d.Rows != 0 {
			s.Errorf("refused at %s: %v, %+v", name, err, d)
		}
		s.holds("messages", records)
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
	left, err := s.stage.Keys(s.Context(), "messages")
	if err != nil || int64(len(records)-len(left)) != committed {
		s.Errorf("%d of %d are left, and %d were committed (%v)", len(left), len(records), committed, err)
	}
	s.early("messages", s.stay(records, c.Datasets[0]))
}

func (s *suite) again() {
	c, records := s.mixed("messages"), s.records(2000)
	s.put("messages", records)
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
	s.holds("messages", want)
}

func (s *suite) turns() {
	c, records := s.mixed("messages"), s.records(4000)
	s.put("messages", records)
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
	s.holds("messages", s.stay(records, c.Datasets[0]))
}

// race: what becomes younger, or another tenant's, before its batch begins stays.
func (s *suite) race() {
	c, records := s.mixed("messages"), s.records(3000)
	s.put("messages", records)
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
		return s.stage.Put(s.Context(), "messages", records...)
	}
	if d, err := s.bind(c).Delete(s.Context(), 0, s.now, permit); err != nil || d.Problem != nil {
		s.Errorf("%v, %+v", err, d)
	}
	if !once {
		s.Fatal("no batch began")
	}
	s.holds("messages", s.stay(records, c.Datasets[0]))
}

func (s *suite) brake() {
	c, records := s.mixed("messages"), s.records(3000)
	s.put("messages", records)
	bound, going := s.bind(c), int64(len(records)-len(s.stay(records, c.Datasets[0])))
	for name, count := range map[string]func(context.Context, int, time.Time, func(int64) int64) (int64, int64, *stores.Problem, error){
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
	s.holds("messages", records)
}

func (s *suite) floor() {
	c, records := s.mixed("messages"), s.records(3000)
	floor := days(45)
	c.Datasets[0].Floor = &floor
	s.put("messages", records)
	if l := s.line(s.bind(c), 0); l.KeptByFloor == 0 {
		s.Errorf("nothing is kept by a floor: %+v", l)
	}
	s.delete(c)
	s.holds("messages", s.stay(records, c.Datasets[0]))
}

func (s *suite) ages() {
	c := s.mixed("messages")
	records := []Record{{Key: "none", Tenant: "plain"}, {Key: "old", Tenant: "plain", At: s.now.AddDate(-1, 0, 0)}, {Key: "1970", Tenant: "plain", At: time.Unix(1000, 0)},
		{Key: "future", Tenant: "plain", At: s.now.AddDate(1, 0, 0)}}
	s.put("messages", records)
	s.delete(c)
	s.holds("messages", []Record{records[0], records[2], records[3]})
	if l := s.line(s.bind(c), 0); l.UnknownAge != 3 {
		s.Errorf("%d ages are unknown, and 3 are: %+v", l.UnknownAge, l)
	}
}

func (s *suite) tenants() {
	c := s.mixed("messages")
	at := func(d int) time.Time { return s.now.AddDate(0, 0, -d) }
	records := []Record{
		{Key: "short 20", Tenant: "short", At: at(20)}, {Key: "long 40", Tenant: "long", At: at(40)}, {Key: "plain 20", Tenant: "plain", At: at(20)},
		{Key: "plain 40", Tenant: "plain", At: at(40)}, {Key: "disputed 20", Tenant: "disputed", At: at(20)}, {Key: "nobody 20", Tenant: "nobody's", At: at(20)},
		{Key: "nobody 40", Tenant: "nobody's", At: at(40)}, {Key: "none 20", At: at(20)}, {Key: "SHORT 20", Tenant: "SHORT", At: at(20)},
	}
	s.put("messages", records)
	l := s.line(s.bind(c), 0)
	if l.UnknownTenant != 5 || l.UnknownTenantLate == 0 {
		s.Errorf("5 are of unknown tenants, and some of them older than the shortest window: %+v", l)
	}
	s.delete(c)
	s.holds("messages", s.stay(records, c.Datasets[0]))
}

// audit: a dataset without permission is measured, and nothing of it goes.
func (s *suite) audit() {
	c, records := s.mixed("messages"), s.records(500)
	c.Datasets[0].Delete = nil
	s.put("messages", records)
	if d := s.delete(c); d[0].Rows != 0 {
		s.Errorf("%+v", d[0])
	}
	s.holds("messages", records)
	if l := s.line(s.bind(c), 0); l.Overdue == 0 || l.Reason != "" {
		s.Errorf("%+v", l)
	}
	overdue, err := s.bind(c).Overdue(s.Context(), 0, stores.Clocks{Early: s.now, Late: s.now})
	if err != nil || len(overdue) != 1 || overdue[0].Overdue == 0 {
		s.Errorf("%v, %+v", err, overdue)
	}
}

func (s *suite) missing() {
	c := s.mixed("messages")
	w := stores.Windows{RetainFor: days(1)}
	lost := s.dataset("messages", true, w)
	lost.Name, lost.Table.Name = "lost", "lost"
	c.Datasets = append(c.Datasets, lost)
	s.put("messages", []Record{{Key: "old", Tenant: "plain", At: s.now.AddDate(-1, 0, 0)}})
	bound := s.bind(c)
	if p := bound.Problem(1); p == nil || p.Reason != report.LineMissingTable {
		s.Errorf("%+v", p)
	}
	if l := s.line(bound, 1); l.Reason != report.LineMissingTable || l.Message == "" {
		s.Errorf("%+v", l)
	}
	if order := bound.Order(); len(order) != 2 {
		s.Errorf("%v", order)
	}
	s.delete(c) // the other one goes on
	s.holds("messages", nil)
}

func (s *suite) uncovered() {
	c := s.mixed("messages")
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
	c, records := s.mixed("messages"), s.records(2000)
	s.put("messages", records)
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
	s.holds("messages", s.stay(records, c.Datasets[0]))
}

// blind: a role from which records are hidden must not be told that all is well.
func (s *suite) blind() {
	c, records := s.mixed("messages"), s.records(200)
	s.put("messages", records)
	if err := s.stage.Hide(s.Context(), "messages"); err != nil {
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
	s.holds("messages", records)
}

func (s *suite) identity() {
	a, err := s.open().Identify(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	b, err := s.open().Identify(s.Context())
	if err != nil || a != b || a.SystemIdentifier == "" || a.Database == "" {
		s.Errorf("%+v, then %+v (%v)", a, b, err)
	}
	now, skew, err := s.open().Now(s.Context())
	if err != nil || now.IsZero() || skew.Abs() > time.Minute {
		s.Errorf("the clock says %s, skew %s (%v)", now, skew, err)
	}
}

func (s *suite) password() {
	where, right := s.stage.Where()
	session, err := s.stage.Engine().Open(s.Context(), where, right+"not", time.Now)
	var known *stores.Error
	if err == nil {
		_ = session.Close(s.Context()) // it should not be there
	}
	if !errors.As(err, &known) || known.Reason != report.ReasonWrongPassword || known.Message == "" {
		s.Errorf("%v", err)
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
	if first.Witnesses, err = h.Witness(s.Context(), 2); err != nil || len(first.Witnesses) != 2 {
		s.Fatalf("%v, %v", first.Witnesses, err)
	}
	s.put("messages", s.records(10))
	second, err := h.Reach(s.Context(), point().Mark)
	if err != nil {
		s.Fatal(err)
	}
	if why, err := h.Back(s.Context(), first, second); err != nil || why != "" {
		s.Errorf("it went on, and %q (%v)", why, err)
	}
	if why, err := h.Back(s.Context(), second, first); err != nil || why == "" {
		s.Errorf("it went back, and nothing is said (%v)", err)
	}
}
