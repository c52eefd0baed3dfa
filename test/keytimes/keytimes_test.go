package keytimes

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/sweep"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/storetest"
)

const password = "only-for-tests"

// where is a target of a type that package plan has no member for: the sweep needs to know nothing of it but the type.
var where = plan.Target{Type: Type}

type stage struct{ server *Server }

func TestContract(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, tables ...string) storetest.Stage { return stage{NewServer(password, tables...)} })
}

func (s stage) Engine() stores.Engine {
	return Engine{Server: s.server}
}

func (stage) Where() (plan.Target, stores.Credentials) {
	return where, stores.Credentials{"password": []byte(password), "token": []byte(tokenOf(password))}
}

func (stage) Exempt(name string) plan.Exemption {
	return plan.Exemption{Table: &plan.TableName{Name: v1alpha1.Identifier(name)}}
}

func (stage) Place(name string, shared bool) plan.Place {
	t := &v1alpha1.Table{Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"key"}, AgeColumn: v1alpha1.AgeColumn{Name: "time", Type: v1alpha1.AgeTimestamptz}}
	if shared {
		t.TenantColumn = "tenant"
	}
	return plan.Place{Table: t}
}

func (s stage) Put(_ context.Context, table string, records ...storetest.Record) error {
	for _, r := range records {
		s.server.Put(table, r.Key, r.Tenant, r.At)
	}
	return nil
}

func (s stage) Keys(_ context.Context, table string) ([]string, error) {
	return s.server.Keys(table), nil
}

func (s stage) Hide(context.Context, string) error {
	s.server.Restrict("r1")
	return nil
}

// aPlan deletes after 30 days what the set messages holds, of one tenant after 10.
func aPlan(s *Server) plan.Plan {
	base, short := calendar.Or(&v1alpha1.Period{Days: new(int32(30))}), calendar.Or(&v1alpha1.Period{Days: new(int32(10))})
	slack, err := calendar.SlackOf(v1alpha1.Slack{Hours: new(int32(24))})
	if err != nil {
		panic(err)
	}
	return plan.Plan{
		Format: plan.Format, Store: plan.Store{Namespace: "acme", Name: "keys", UID: "uid"}, Tenancy: v1alpha1.TenancyShared, Target: where,
		Database: plan.Database{Identity: v1alpha1.StoreIdentity{Kind: identityKind, Value: s.ID}, Name: s.Name, Address: where.Address()}, BrakePercent: 100, ValidUntil: time.Now().Add(time.Hour).UTC(),
		Periods: []calendar.Window{short}, Classes: []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"a"}}}},
		Datasets: []plan.Dataset{{Name: "messages", DataClass: "Conversations", Place: stage{}.Place("messages", true),
			Rules:  []plan.Rule{{Policy: "promise", Rule: "messages", Mode: v1alpha1.PolicyEnforce, RetainFor: base, Own: 1, DeleteWithin: slack}},
			Delete: &plan.Deletion{Policy: "promise", Rule: "messages", RetainFor: base, Own: 1}}},
	}
}

// keep is the keyserver's stand-in for the sweeps of a plan.
func keep(t *testing.T, p *plan.Plan) *lease.Server {
	t.Helper()
	k, err := lease.Start(t.TempDir(), password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	k.Known, k.Others = []string{"b"}, map[string]string{"token": tokenOf(password)}
	k.By(p)
	return k
}

func run(t *testing.T, s *Server, p plan.Plan, k *lease.Server) report.Report {
	t.Helper()
	client, err := k.Client()
	if err != nil {
		t.Fatal(err)
	}
	r := sweep.Run(t.Context(), sweep.Options{Plan: p, Hash: "hash", Engines: stores.Engines{stage{s}.Engine()}, Leaser: client, Budget: time.Minute,
		Clock: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if _, err := report.Encode(r); err != nil {
		t.Errorf("the report does not encode: %v", err)
	}
	return r
}

// fill has old and young keys of two tenants, and one that a backup brings back later.
func fill(s *Server) {
	for i := range 1500 {
		s.Put("messages", strconv.Itoa(i), []string{"a", "b"}[i%2], time.Now().AddDate(0, 0, -[]int{5, 40, 20}[i%3]))
	}
}

// A whole sweep, as the sweeper runs it, needs nothing of the store that this one has not.
func TestSweep(t *testing.T) {
	s := NewServer(password, "messages")
	fill(s)
	p := aPlan(s)
	k := keep(t, &p)
	r := run(t, s, p, k)
	// Of a third all go, of another third those of acme.
	if r.Outcome != report.Done || r.Deleted != 750 || r.Identity.Value != s.ID || r.Point != nil || len(s.Keys("messages")) != 750 {
		t.Fatalf("%+v, and %d keys are left", r, len(s.Keys("messages")))
	}
	if r = run(t, s, p, k); r.Outcome != report.Done || r.Deleted != 0 {
		t.Errorf("again: %+v", r)
	}
	// It keeps no history, and what has returned is seen all the same.
	s.Put("messages", "back", "b", time.Now().AddDate(0, 0, -50))
	r = run(t, s, p, k)
	if r.Outcome != report.Refused || len(storetest.Lines(r)) != 1 || storetest.Lines(r)[0].Reason != v1alpha1.ReasonReturned || !slices.Contains(s.Keys("messages"), "back") {
		t.Errorf("a key has returned: %+v", r)
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Server, *plan.Plan)
		reason string
		others map[string]string // credentials beside the password, where they are not those that it needs
	}{
		"another store": {change: func(s *Server, _ *plan.Plan) { s.ID = "9999" }, reason: v1alpha1.ReasonIdentityChanged},
		"the same number of another kind": {change: func(_ *Server, p *plan.Plan) { p.Database.Identity.Kind = "PostgresSystemIdentifier" },
			reason: v1alpha1.ReasonIdentityChanged},
		"neither has an identity": {change: func(s *Server, p *plan.Plan) { s.ID, p.Database.Identity = "", v1alpha1.StoreIdentity{} },
			reason: v1alpha1.ReasonIdentityChanged},
		"the brake":               {change: func(_ *Server, p *plan.Plan) { p.BrakePercent = 1 }, reason: v1alpha1.ReasonDatasetsRefused},
		"a part is hidden":        {change: func(s *Server, _ *plan.Plan) { s.Restrict("1") }, reason: v1alpha1.ReasonDatasetsRefused},
		"nobody is there":         {change: func(s *Server, _ *plan.Plan) { s.Down = true }, reason: v1alpha1.ReasonUnreachable},
		"a kind without engine":   {change: func(_ *Server, p *plan.Plan) { p.Target.Type = "Punchcards" }, reason: v1alpha1.ReasonPlanMismatch},
		"a credential is missing": {change: func(*Server, *plan.Plan) {}, reason: v1alpha1.ReasonPlanMismatch, others: map[string]string{}},
		"a credential too many": {change: func(*Server, *plan.Plan) {}, reason: v1alpha1.ReasonPlanMismatch,
			others: map[string]string{"token": tokenOf(password), "pin": "1"}},
		"another token":      {change: func(*Server, *plan.Plan) {}, reason: v1alpha1.ReasonWrongPassword, others: map[string]string{"token": "x"}},
		"a set that is gone": {change: func(_ *Server, p *plan.Plan) { p.Datasets[0].Table.Name = "gone" }, reason: v1alpha1.ReasonDatasetsRefused},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(password, "messages")
			fill(s)
			p := aPlan(s)
			tc.change(s, &p)
			k := keep(t, &p)
			if tc.others != nil {
				k.Others = tc.others
			}
			if r := run(t, s, p, k); r.Reason != tc.reason || r.Deleted != 0 || len(s.Keys("messages")) != 1500 {
				t.Errorf("%+v, and %d keys are left", r, len(s.Keys("messages")))
			}
			if asked, released := k.Count(); asked > 0 && released != 1 {
				t.Errorf("a lease was asked for %d times and released %d times", asked, released)
			}
		})
	}
}

// Without transactions a key may be written between the last permit and its deletion: then it stays.
func TestWrittenAtTheLastMoment(t *testing.T) {
	s := NewServer(password, "messages")
	fill(s)
	p := aPlan(s)
	w := stores.Windows{RetainFor: p.Datasets[0].Delete.RetainFor}
	_, with := stage{s}.Where()
	session, err := stage{s}.Engine().Open(t.Context(), where, with, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := session.Bind(t.Context(), stores.Config{Datasets: []stores.Dataset{{Name: "messages", Place: p.Datasets[0].Place, Delete: &w}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.Delete(t.Context(), 0, time.Now(), stores.Permit{Begin: func(int64) error { return nil }, Commit: func(int64) error {
		for _, key := range s.Keys("messages") {
			s.Put("messages", key, "b", time.Now())
		}
		return nil
	}})
	if err != nil || d.Rows != 0 || len(s.Keys("messages")) != 1500 {
		t.Errorf("%v, %+v, and %d keys are left", err, d, len(s.Keys("messages")))
	}
}
