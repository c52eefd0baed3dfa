package postgres

import (
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/internal/report"
)

// guarded is a table of 20 000 expired rows, and a trigger that refuses those for which a condition holds.
const guarded = `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
	INSERT INTO log SELECT n, now() - interval '100 days' + n * interval '1 second' FROM generate_series(1, 20000) n;
	CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF %s THEN RAISE EXCEPTION ''a value of row %%'', OLD.id; END IF; RETURN OLD; END';
	CREATE TRIGGER keeps BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.guard();`

// What cannot be deleted costs a handful of attempts, is named by what the catalogue knows, and keeps nothing else.
func TestPoison(t *testing.T) {
	tests := map[string]struct {
		sql    string
		later  string
		hold   string // run in a transaction that stays open meanwhile
		left   int64
		most   int // rollbacks
		reason string
		says   []string
	}{
		"a guard on every row": {
			sql: guard("true"), left: 20000, most: 100, reason: report.LineGuarded, says: []string{"trigger keeps (function public.guard())", "P0001"},
		},
		"a guard on one row": {
			sql: guard("OLD.id = 777"), left: 1, most: 40, reason: report.LineGuarded, says: []string{"trigger keeps"},
		},
		"a guard on some rows here and there": {
			sql: guard("OLD.id % 5000 = 1"), left: 4, most: 100, reason: report.LineGuarded, says: []string{"trigger keeps"},
		},
		"a trigger that finds its own tables by the role's search path": {
			sql: guard("EXISTS (SELECT FROM stopped)") + `CREATE TABLE stopped (id int); GRANT SELECT ON stopped TO PUBLIC`, left: 0, most: 0,
		},
		"a trigger that finds its tables by nobody's": {
			sql: guard("EXISTS (SELECT FROM elsewhere)") + `CREATE SCHEMA app; CREATE TABLE app.elsewhere (id int)`, left: 20000, most: 100,
			reason: report.LineGuarded, says: []string{"42P01", "ALTER FUNCTION public.guard() SET search_path"},
		},
		"a publication of a table without replica identity": {
			sql: `CREATE TABLE log (id bigint NOT NULL, at timestamptz); CREATE UNIQUE INDEX ON log (id); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 20000) n; CREATE PUBLICATION everything FOR TABLE log`,
			left: 20000, reason: report.LineReplicaIdentity, says: []string{"everything", "REPLICA IDENTITY"},
		},
		"a publication that passes no deletion on": {
			sql: `CREATE TABLE log (id bigint NOT NULL, at timestamptz); CREATE UNIQUE INDEX ON log (id); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 2000) n; CREATE PUBLICATION added FOR TABLE log WITH (publish = 'insert')`,
		},
		"a table that is locked": {
			sql: guard("false"), hold: `LOCK TABLE log IN SHARE MODE`, left: 20000, most: 100, reason: report.LineLocked, says: []string{"ShareLock"},
		},
		"a table that is locked for reading too": {
			sql: guard("false"), hold: `LOCK TABLE log`, left: 20000, most: 100, reason: report.LineLocked, says: []string{"AccessExclusiveLock"},
		},
		"rows that are locked": {
			sql: guard("false"), hold: `SELECT FROM log WHERE id % 7000 = 1 FOR UPDATE`, left: 3, most: 100, reason: report.LineLocked,
		},
		// A third of it goes in 355 ms where the disk is fast: within the bound of a statement, or just above.
		"a row of 1200 MB": {
			sql: guard("false") + `ALTER TABLE log ADD a text, ADD b text, ADD c text, ADD d text;
				ALTER TABLE log ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL, ALTER d SET STORAGE EXTERNAL;
				UPDATE log SET a = repeat('x', 300000000) WHERE id = 777; UPDATE log SET b = repeat('x', 300000000) WHERE id = 777;
				UPDATE log SET c = repeat('x', 300000000) WHERE id = 777; UPDATE log SET d = repeat('x', 300000000) WHERE id = 777`,
			left: 1, most: 80, reason: report.LineTimeout, says: []string{"very large", "by hand"},
		},
		"a row for which a trigger takes long": {
			sql:  strings.ReplaceAll(guard("OLD.id = 777"), "RAISE EXCEPTION ''a value of row %'', OLD.id", "PERFORM pg_sleep(1)"),
			left: 1, most: 80, reason: report.LineTimeout, says: []string{"trigger keeps"},
		},
		"a notice is no problem": {
			sql: strings.ReplaceAll(guard("true"), "RAISE EXCEPTION", "RAISE NOTICE"), left: 0, most: 0,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}}, tc.sql)
			w.admin.Run(tc.later)
			st := w.open()
			release := func() {}
			if tc.hold != "" {
				locker, err := server.Admin(t, w.database).Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				release = func() { _ = locker.Rollback(t.Context()) }
				if _, err := locker.Exec(t.Context(), tc.hold); err != nil {
					t.Fatal(err)
				}
			}
			d, err := st.Delete(t.Context(), 0, w.now, always)
			release()
			if err != nil {
				t.Fatal(err)
			}
			problem := d.Problem
			if problem == nil {
				problem = st.Problem(0)
			}
			if problem == nil {
				problem = &Problem{}
			}
			if problem.Reason != tc.reason {
				t.Errorf("problem %+v, want %q", problem, tc.reason)
			}
			for _, want := range tc.says {
				if !strings.Contains(problem.Message, want) {
					t.Errorf("message %q does not say %q", problem.Message, want)
				}
			}
			if strings.Contains(problem.Message, "a value of row") {
				t.Errorf("the server's own words came through: %q", problem.Message)
			}
			if d.Rollbacks > tc.most {
				t.Errorf("%d transactions were rolled back, at most %d should", d.Rollbacks, tc.most)
			}
			if n := w.admin.Count(`SELECT count(*) FROM log`); n != tc.left {
				t.Errorf("%d rows are left, want %d; %+v", n, tc.left, d)
			}
		})
	}
}

func guard(when string) string {
	return strings.ReplaceAll(strings.ReplaceAll(guarded, "%s", when), "%%", "%")
}
