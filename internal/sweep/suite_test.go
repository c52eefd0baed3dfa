package sweep

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/pg"
)

var server *pg.Server

func TestMain(m *testing.M) {
	code := pg.Main(m, pg.Options{}, func(s *pg.Server) { server = s })
	if built != "" {
		if err := os.RemoveAll(built); err != nil {
			fmt.Fprintln(os.Stderr, "remove the sweeper's binary:", err)
			code = 1
		}
	}
	os.Exit(code)
}

const password = "only-for-tests"

func days(n int32) calendar.Window { return calendar.Or(&v1alpha1.Period{Days: &n}) }

func slackHours(n int32) calendar.Slack {
	s, err := calendar.SlackOf(v1alpha1.Slack{Hours: &n})
	if err != nil {
		panic(err)
	}
	return s
}

// dataset of a table with the key "id" and the age "at", deleted from after some days.
func dataset(name string, after int32) plan.Dataset {
	return plan.Dataset{
		Name: name, DataClass: "Conversations",
		Place: plan.Place{Table: &v1alpha1.Table{Schema: "public", Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeTimestamptz}}},
		Rules:  []plan.Rule{{Policy: "promise", Rule: name, Mode: v1alpha1.PolicyEnforce, RetainFor: days(after), DeleteWithin: slackHours(24)}},
		Delete: &plan.Deletion{Policy: "promise", Rule: name, RetainFor: days(after)},
	}
}

// permit for so many rows, approved then, for so long.
func permit(rows int64, at time.Time, long time.Duration) *plan.Backlog {
	at = at.UTC().Truncate(time.Second)
	return &plan.Backlog{Rows: rows, ApprovedAt: at, Until: at.Add(long)}
}

// world is a database with the shipped role and a plan for it.
type world struct {
	t        testing.TB
	server   *pg.Server
	database string
	admin    pg.Admin
	plan     plan.Plan
}

func newWorld(t testing.TB, sql string, datasets ...plan.Dataset) *world {
	t.Helper()
	w := &world{t: t, server: server, database: server.Database(t, sql)}
	w.prepare(datasets)
	role := w.plan.Target.Postgres.Username
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Exec(ctx, w.database, "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Errorf("drop the role: %v", err)
		}
	})
	return w
}

// newServerWorld is newWorld on a server of its own, which the test may stop and restore.
func newServerWorld(t testing.TB, sql string, datasets ...plan.Dataset) *world {
	t.Helper()
	w := &world{t: t, database: "chat"}
	w.own(pg.Start(t.Context(), pg.Options{FSync: true}))
	w.must(w.server.Exec(t.Context(), "postgres", "CREATE DATABASE chat"))
	w.must(w.server.Exec(t.Context(), "chat", sql))
	w.prepare(datasets)
	return w
}

// own takes over a server that the test ends.
func (w *world) own(s *pg.Server, err error) {
	w.t.Helper()
	w.must(err)
	w.server = s
	w.t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// prepare makes the role that is shipped and the plan.
func (w *world) prepare(datasets []plan.Dataset) {
	w.t.Helper()
	w.admin = w.server.Admin(w.t, w.database)
	role := "sweeper_" + w.database
	w.plan = plan.Plan{
		Format: plan.Format, Store: plan.Store{Namespace: "acme", Name: "chat", UID: "store-uid"},
		Tenancy: v1alpha1.TenancyDedicated, Datasets: datasets, BrakePercent: 100, ValidUntil: time.Now().Add(time.Hour).UTC(),
	}
	w.plan.Target = w.connection(role)
	w.plan.Database = plan.Database{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: w.system()}, Name: w.database, Address: w.plan.Target.Address()}
	spec := v1alpha1.DataStoreSpec{Postgres: &v1alpha1.PostgresStore{Database: w.database, Username: role}}
	for _, d := range datasets {
		spec.Datasets = append(spec.Datasets, v1alpha1.Dataset{Name: d.Name, Table: *d.Table})
	}
	w.admin.Run(postgres.Grants(spec))
	w.admin.Run(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password))
}

func (w *world) connection(role string) plan.Target {
	w.t.Helper()
	ca, err := os.ReadFile(w.server.CAFile)
	w.must(err)
	return plan.Target{Type: v1alpha1.StorePostgres, Postgres: &plan.PostgresTarget{Host: w.server.Host, Port: int32(w.server.Port), Database: w.database, Username: role, CABundle: string(ca)}}
}

// system is the identifier of the database cluster.
func (w *world) system() string {
	w.t.Helper()
	return w.admin.List("SELECT system_identifier::text FROM pg_control_system()")[0]
}

// run sweeps with what the tests do not care about filled in.
func (w *world) run(o Options) report.Report {
	w.t.Helper()
	o.Plan, o.Hash, o.Engines = w.plan, "hash", stores.Engines{postgres.Engine{}}
	if o.Leaser == nil {
		k := newKeyserver(w.t)
		k.By(&w.plan)
		o.Leaser = client(w.t, k)
	}
	if o.Budget == 0 {
		o.Budget = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	r := Run(w.t.Context(), o)
	if _, err := report.Encode(r); err != nil {
		w.t.Errorf("the report does not encode: %v", err)
	}
	return r
}

func newKeyserver(t testing.TB) *lease.Server {
	t.Helper()
	k, err := lease.Start(t.TempDir(), password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func client(t testing.TB, k *lease.Server) *keyclient.Client {
	t.Helper()
	c, err := k.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func refusal(reason string) *keyapi.Error {
	return &keyapi.Error{Reason: reason, Message: "the answer is no: " + reason}
}
