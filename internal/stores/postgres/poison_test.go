package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
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
			sql: guard("true"), left: 20000, most: 100, reason: v1alpha1.ReasonGuarded, says: []string{"trigger keeps (function public.guard())", "P0001"},
		},
		"a guard on one row": {
			sql: guard("OLD.id = 777"), left: 1, most: 40, reason: v1alpha1.ReasonGuarded, says: []string{"trigger keeps"},
		},
		"a guard on some rows here and there": {
			sql: guard("OLD.id % 5000 = 1"), left: 4, most: 100, reason: v1alpha1.ReasonGuarded, says: []string{"trigger keeps"},
		},
		"a trigger that finds its own tables by the role's search path": {
			sql: guard("EXISTS (SELECT FROM stopped)") + `CREATE TABLE stopped (id int); GRANT SELECT ON stopped TO PUBLIC`, left: 0, most: 0,
		},
		"a trigger that finds its tables by nobody's": {
			sql: guard("EXISTS (SELECT FROM elsewhere)") + `CREATE SCHEMA app; CREATE TABLE app.elsewhere (id int)`, left: 20000, most: 100,
			reason: v1alpha1.ReasonGuarded, says: []string{"42P01", "ALTER FUNCTION public.guard() SET search_path"},
		},
		"a guard on many rows here and there": {
			sql: guard("OLD.id % 200 = 1"), left: 100, most: 2500, reason: v1alpha1.ReasonGuarded, says: []string{"trigger keeps"},
		},
		"a publication of a table without replica identity": {
			sql: `CREATE TABLE log (id bigint NOT NULL, at timestamptz); CREATE UNIQUE INDEX ON log (id); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 20000) n; CREATE PUBLICATION everything FOR TABLE log`,
			left: 20000, reason: v1alpha1.ReasonReplicaIdentity, says: []string{"everything", "REPLICA IDENTITY"},
		},
		"a publication that passes no deletion on": {
			sql: `CREATE TABLE log (id bigint NOT NULL, at timestamptz); CREATE UNIQUE INDEX ON log (id); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 2000) n; CREATE PUBLICATION added FOR TABLE log WITH (publish = 'insert')`,
		},
		"a table that is locked": {
			sql: guard("false"), hold: `LOCK TABLE log IN SHARE MODE`, left: 20000, most: 100, reason: v1alpha1.ReasonLocked, says: []string{"ShareLock"},
		},
		"a table that is locked for reading too": {
			sql: guard("false"), hold: `LOCK TABLE log`, left: 20000, most: 100, reason: v1alpha1.ReasonLocked, says: []string{"AccessExclusiveLock"},
		},
		"rows that are locked": {
			sql: guard("false"), hold: `SELECT FROM log WHERE id % 7000 = 1 FOR UPDATE`, left: 3, most: 100, reason: v1alpha1.ReasonLocked,
		},
		// A third of it goes in 355 ms where the disk is fast: within the bound of a statement, or just above.
		"a row of 1200 MB": {
			sql: guard("false") + `ALTER TABLE log ADD a text, ADD b text, ADD c text, ADD d text;
				ALTER TABLE log ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL, ALTER d SET STORAGE EXTERNAL;
				UPDATE log SET a = repeat('x', 300000000) WHERE id = 777; UPDATE log SET b = repeat('x', 300000000) WHERE id = 777;
				UPDATE log SET c = repeat('x', 300000000) WHERE id = 777; UPDATE log SET d = repeat('x', 300000000) WHERE id = 777`,
			left: 1, most: 80, reason: v1alpha1.ReasonTimeout, says: []string{"very large", "by hand"},
		},
		"a row for which a trigger takes long": {
			sql:  strings.ReplaceAll(guard("OLD.id = 777"), "RAISE EXCEPTION ''a value of row %'', OLD.id", "PERFORM pg_sleep(1)"),
			left: 1, most: 80, reason: v1alpha1.ReasonTimeout, says: []string{"trigger keeps"},
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

// Rows of one age, of which there are many, take turns like all others, and go on where they were paused.
func TestRowsOfOneAgeTakeTurns(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, timestamptz '2020-01-01' FROM generate_series(1, 20000) n;
		INSERT INTO log SELECT n, timestamptz '2021-01-01' + n * interval '1 second' FROM generate_series(20001, 22000) n;
		CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0005); RETURN OLD; END';
		CREATE TRIGGER slow BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.slow();`)
	st := w.open()
	asked, turns := 0, 0
	p := always
	p.Pause = func() bool { asked++; return asked%5 == 0 } // a turn is some batches
	for {
		d, err := st.Delete(t.Context(), 0, w.now, p)
		if err == nil {
			if d.Rows != 22000 || d.Problem != nil || w.admin.Count(`SELECT count(*) FROM log`) != 0 {
				t.Errorf("%+v", d)
			}
			break
		}
		if !errors.Is(err, ErrPaused) {
			t.Fatal(err)
		}
		turns++
	}
	if turns < 5 {
		t.Errorf("%d turns for 20 000 rows of one age", turns)
	}
}

// A few rows of a tenant with a shorter window lie among a hundred thousand of others, which are not read for them.
func TestAShortWindowAmongOthers(t *testing.T) {
	d := in(after(90, aTable("message")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))
	w := newWorld(t, Config{Tenants: []string{"acme"}, Datasets: []Dataset{d}},
		`CREATE TABLE message (id bigint PRIMARY KEY, at timestamptz, tenant text); CREATE INDEX message_at ON message (at); CREATE INDEX ON message (tenant, at);
		INSERT INTO message SELECT n, now() - interval '80 days' + n * interval '1 second', CASE WHEN n % 2000 = 0 THEN 'acme' ELSE 'other' END FROM generate_series(1, 100000) n;
		INSERT INTO message SELECT n, now() - interval '100 days', CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'other' END FROM generate_series(100001, 100010) n; ANALYZE message`)
	st := w.open()
	deleted, err := st.Delete(t.Context(), 0, w.now, always)
	if err != nil || deleted.Rows != 60 || deleted.Problem != nil || w.admin.Count(`SELECT count(*) FROM message`) != 99950 {
		t.Fatalf("%+v, %v", deleted, err)
	}
	if err := st.session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Its counts are there when the session has ended.
	for w.admin.Count(`SELECT count(*) FROM pg_stat_activity WHERE usename = '`+w.role+`'`) > 0 {
		w.admin.Run(`SELECT pg_stat_clear_snapshot()`)
	}
	if n := w.admin.Count(`SELECT coalesce(sum(idx_tup_read), 0)::int8 FROM pg_stat_user_indexes WHERE relname = 'message'`) +
		w.admin.Count(`SELECT coalesce(sum(seq_tup_read), 0)::int8 FROM pg_stat_user_tables WHERE relname = 'message'`); n == 0 || n > 2000 {
		t.Errorf("%d rows were read to delete 60", n)
	}
}

// A row that stays must still say whose it is, and how old, when what it refers to has gone.
func TestDetachingTakesNoTenant(t *testing.T) {
	for name, tc := range map[string]struct{ action, remedy string }{
		"set null":            {"SET NULL", `ON DELETE SET NULL ("message")`},
		"set null of the two": {"SET NULL (tenant)", "ON DELETE RESTRICT"},
		"set default":         {"SET DEFAULT", "ON DELETE RESTRICT"},
		"of the other":        {"SET NULL (message)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			message := in(after(90, aTable("message")), withTenant("tenant"))
			message.Table.Key = []v1alpha1.Identifier{"tenant", "id"}
			w := newWorld(t, Config{Tenants: []string{"acme"}, Datasets: []Dataset{message,
				in(after(90, aTable("rating")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))}},
				`CREATE TABLE message (tenant text, id bigint, at timestamptz, PRIMARY KEY (tenant, id));
				CREATE TABLE rating (id bigint PRIMARY KEY, at timestamptz, tenant text, message bigint, FOREIGN KEY (tenant, message) REFERENCES message ON DELETE `+tc.action+`);
				CREATE INDEX ON rating (tenant, message);
				INSERT INTO message VALUES ('acme', 1, now() - interval '100 days'); INSERT INTO rating VALUES (1, now() - interval '10 days', 'acme', 1)`)
			st := w.open()
			p := st.Problem(0)
			w.sweep()
			if n := w.admin.Count(`SELECT count(*) FROM rating WHERE tenant = 'acme'`); n != 1 {
				t.Error("the row has lost its tenant")
			}
			switch {
			case tc.remedy == "" && (p != nil || w.admin.Count(`SELECT count(*) FROM message`) != 0):
				t.Errorf("%+v", p)
			case tc.remedy != "" && (p == nil || p.Reason != v1alpha1.ReasonCascade || !strings.HasSuffix(p.Message, tc.remedy) || !strings.Contains(p.Message, "column tenant")):
				t.Errorf("%+v", p)
			}
		})
	}
}
