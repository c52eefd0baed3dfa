// Package storetest is what every engine of package stores must pass, against a real store of its kind: it deletes
// what an oracle says and nothing else, through crashes, lost leases, races and turns, and it never calls measured
// what it did not see.
//
// The oracle is written from the words of a promise (a window, a floor, whose a record is) and knows no engine.
package storetest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
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
	// Where the store is, and the credentials of the role that sweeps: the least one that the engine's documentation
	// asks for. They may be wiped.
	Where() (plan.Target, stores.Credentials)
	// Place is that of the records of a table of the stage, shared: with what tells whose a record is. Exempt is the
	// same of one that holds nothing to delete.
	Place(name string, shared bool) plan.Place
	Exempt(name string) plan.Exemption
	// Put writes records, or writes them again.
	Put(ctx context.Context, table string, records ...Record) error
	// Keys of all records that are there, in any order, whoever may see them.
	Keys(ctx context.Context, table string) ([]string, error)
	// Hide takes from the role the sight of some records of a table, in the way in which that happens to stores of
	// this kind, so that nobody tells it.
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
		{"tenants", (*suite).tenants}, {"who is known", (*suite).known}, {"measured and not permitted", (*suite).audit}, {"a table that is not there", (*suite).missing}, {"uncovered", (*suite).uncovered},
		{"two sweepers", (*suite).two}, {"blindness", (*suite).blind}, {"identity", (*suite).identity}, {"wrong credentials", (*suite).credentials},
		{"points in its life", (*suite).points},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, stage: stage(t, mapped, other), now: time.Now().UTC().Truncate(time.Second)}
			c.test(s)
		})
	}
}

// The tables of a stage: one is a dataset, the other is exempt.
const mapped, other = "messages", "calls"

type suite struct {
	*testing.T
	stage Stage
	now   time.Time
}

// allow permits everything.
func allow() stores.Permit {
	return stores.Permit{Begin: func(int64) error { return nil }, Commit: func(int64) error { return nil }}
}

func days(n int32) calendar.Window { return calendar.Or(&v1alpha1.Period{Days: &n}) }

// day is the slack of every rule.
var day, _ = calendar.SlackOf(v1alpha1.Slack{Hours: new(int32(24))}) // one that is none would delete nothing

// dataset of a table that is deleted from after some days.
func (s *suite) dataset(table string, w stores.Windows) stores.Dataset {
	return stores.Dataset{Name: table, Place: s.stage.Place(table, true), Delete: &w,
		Rules: []stores.Rule{{Policy: "promise", Rule: table, Windows: w, DeleteWithin: day}}}
}

func (s *suite) open() stores.Session {
	s.Helper()
	where, with := s.stage.Where()
	session, err := s.stage.Engine().Open(s.Context(), where, with, time.Now)
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

func (s *suite) put(records []Record) {
	s.Helper()
	if err := s.stage.Put(s.Context(), mapped, records...); err != nil {
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
func (s *suite) holds(want []Record) {
	s.Helper()
	got, err := s.stage.Keys(s.Context(), mapped)
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
		s.Errorf("%d records are left and %d should be\ngone too early: %v\nforgotten: %v", len(got), len(keys), without(keys, got), without(got, keys))
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
		if d.IsShared() && r.Tenant != "" && slices.Contains(o.IDs, r.Tenant) {
			window = o.RetainFor
		}
	}
	if r.At.After(window.Cutoff(at)) {
		return false
	}
	return d.Floor == nil || !r.At.After(d.Floor.Cutoff(at))
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

// records at random, and always the same: of every tenant, of none, without an age, of tomorrow, of either side of
// windows of 10, 30 and 60 days.
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
func (s *suite) mixed() stores.Config {
	w := stores.Windows{RetainFor: days(30), Overrides: []stores.Override{{IDs: []string{"short"}, RetainFor: days(10)}, {IDs: []string{"long"}, RetainFor: days(60)}}}
	return stores.Config{Datasets: []stores.Dataset{s.dataset(mapped, w)}, Exempt: s.exempt(),
		Tenants: []string{"short", "long", "plain"}, Disputed: []string{"disputed"}}
}

// exempt is the other table of the stage.
func (s *suite) exempt() []plan.Exemption { return []plan.Exemption{s.stage.Exempt(other)} }
