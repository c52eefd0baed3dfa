package postgres

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/storetest"
)

var server *pg.Server

func TestMain(m *testing.M) {
	os.Exit(pg.Main(m, pg.Options{}, func(s *pg.Server) { server = s }))
}

const rolePassword = "only-for-tests"

// world is a database with the shipped role, and the admin's view of it.
type world struct {
	t        testing.TB
	database string
	role     string
	admin    pg.Admin
	config   Config
	spec     v1alpha1.DataStoreSpec
	now      time.Time
}

func days(n int32) calendar.Window  { return calendar.Or(&v1alpha1.Period{Days: &n}) }
func years(n int32) calendar.Window { return calendar.Or(&v1alpha1.Period{Years: &n}) }
func slackHours(n int32) calendar.Slack {
	s, err := calendar.SlackOf(v1alpha1.Slack{Hours: &n})
	if err != nil {
		panic(err)
	}
	return s
}

// aTable has a bigint key "id" and a timestamptz age "at".
func aTable(name string) v1alpha1.Table {
	return v1alpha1.Table{Schema: "public", Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"},
		AgeColumn: v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeTimestamptz}}
}

// dataset of a table that is deleted from after some days.
func after(n int32, t v1alpha1.Table) Dataset {
	w := Windows{RetainFor: days(n)}
	return Dataset{Name: string(t.Name), Place: plan.Place{Table: &t}, Delete: &w,
		Rules: []Rule{{Policy: "promise", Rule: string(t.Name), Windows: w, DeleteWithin: slackHours(24)}}}
}

// newWorld runs the SQL in a new database and makes the role with the SQL that is shipped.
func newWorld(t testing.TB, config Config, sql ...string) *world {
	t.Helper()

	w := &world{t: t, config: config, now: time.Now()}
	w.database = server.Database(t, sql...)
	w.role = "sweeper_" + w.database
	w.admin = server.Admin(t, w.database)
	w.spec = v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{Database: w.database, Username: w.role}}
	for _, d := range config.Datasets {
		w.spec.Datasets = append(w.spec.Datasets, v1alpha1.Dataset{Name: d.Name, Table: *d.Table})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, in := range []string{w.database, "postgres"} {
			if err := server.Exec(ctx, in, fmt.Sprintf(`DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '%s') THEN
				EXECUTE 'DROP OWNED BY %s'; END IF; END $$`, w.role, w.role)); err != nil {
				t.Errorf("drop what the role owns: %v", err)
			}
		}
		if err := server.Exec(ctx, "postgres", "DROP ROLE IF EXISTS "+w.role); err != nil {
			t.Errorf("drop the role: %v", err)
		}
	})
	w.grant()
	w.admin.Run(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", w.role, rolePassword))

	return w
}

// grant runs the shipped SQL for the datasets whose tables exist, as an admin would after mending a name.
func (w *world) grant() {
	w.t.Helper()
	if _, err := w.admin.PgConn().Exec(w.t.Context(), Grants(w.spec)).ReadAll(); err != nil {
		w.t.Fatalf("run the grants: %v", err)
	}
}

func (w *world) target() Target {
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return Target{Host: server.Host, Port: int32(server.Port), Database: w.database, Username: w.role, CABundle: string(ca)}
}

func (w *world) connect() *Session {
	w.t.Helper()
	s, err := Connect(w.t.Context(), w.target(), rolePassword, time.Now)
	if err != nil {
		w.t.Fatalf("connect: %v", err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Close(ctx) // a test may have ended it
	})
	return s
}

func (w *world) open() *Store {
	w.t.Helper()
	st, err := Open(w.t.Context(), w.connect(), w.config)
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	return st
}

var always = Permit{Begin: func(int64) error { return nil }, Commit: func(int64) error { return nil }}

// sweep deletes from all datasets in order and returns how many rows went from each.
func (w *world) sweep() map[string]Deletion {
	w.t.Helper()
	st := w.open()
	out := map[string]Deletion{}
	for _, i := range st.Order() {
		d, err := st.Delete(w.t.Context(), i, w.now, always)
		if err != nil {
			w.t.Fatalf("delete from %s: %v", w.config.Datasets[i].Name, err)
		}
		out[w.config.Datasets[i].Name] = d
	}
	return out
}

// measure returns the lines of all datasets by name.
func (w *world) measure() map[string]storetest.Line {
	w.t.Helper()
	st := w.open()
	out := map[string]storetest.Line{}
	for i, d := range w.config.Datasets {
		measured, err := st.Measure(w.t.Context(), i, Clocks{Early: w.now, Late: w.now})
		if err != nil {
			w.t.Fatalf("measure %s: %v", d.Name, err)
		}
		out[d.Name] = storetest.LinesOf(measured)[0]
	}
	return out
}

// problems returns why each dataset is refused.
func (w *world) problems() map[string]Problem {
	w.t.Helper()
	st := w.open()
	out := map[string]Problem{}
	for i, d := range w.config.Datasets {
		if p := st.Problem(i); p != nil {
			out[d.Name] = *p
		}
	}
	return out
}
