package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// A writer adds a child, or changes a row, in a transaction that is open while the sweep's DELETE runs, and commits
// in the middle of it. These are the races that a check before the DELETE does not win under READ COMMITTED.
func TestWritersInTheMiddleOfABatch(t *testing.T) {
	const base = `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON parent (at);
		INSERT INTO parent SELECT n, now() - interval '100 days' FROM generate_series(1, 50) n;
		CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent ON DELETE %s DEFAULT NULL); CREATE INDEX ON child (parent);
		INSERT INTO child VALUES (1, now(), NULL);`
	const left = `SELECT 'parent ' || id FROM parent UNION ALL SELECT 'child ' || id || ' ' || coalesce(parent::text, 'none') FROM child ORDER BY 1`
	for _, action := range []string{"NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"} {
		for name, tc := range map[string]struct {
			write string
			want  []string
		}{
			"a new child":           {`INSERT INTO child VALUES (2, now(), 25)`, []string{"child 1 none", "child 2 25", "parent 25"}},
			"a child that moves in": {`UPDATE child SET parent = 25 WHERE id = 1`, []string{"child 1 25", "parent 25"}},
			"a refreshed age":       {`UPDATE parent SET at = now() WHERE id = 25`, []string{"child 1 none", "parent 25"}},
			"an age taken away":     {`UPDATE parent SET at = NULL WHERE id = 25`, []string{"child 1 none", "parent 25"}},
		} {
			t.Run(name+", on delete "+action, func(t *testing.T) {
				w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))}}, fmt.Sprintf(base, action))
				writer := server.Admin(t, w.database)
				begin, err := writer.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := begin.Exec(t.Context(), tc.write); err != nil {
					t.Fatal(err)
				}
				committed := make(chan error, 1)
				go func() {
					// As soon as the sweep waits for the writer's lock, the writer commits.
					waiting := eventually(t, func() bool {
						var n int
						err := w.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lethe-sweeper' AND wait_event_type = 'Lock'").Scan(&n)
						return err == nil && n > 0
					})
					err := begin.Commit(t.Context())
					if !waiting {
						err = errors.Join(err, errors.New("the sweep never waited for the writer"))
					}
					committed <- err
				}()
				st := w.open()
				for _, i := range st.Order() {
					d, err := st.Delete(t.Context(), i, w.now, always)
					if err != nil || d.Skipped != 0 {
						t.Errorf("delete: %+v, %v", d, err)
					}
				}
				if err := <-committed; err != nil {
					t.Error(err)
				}
				want := tc.want
				if strings.HasPrefix(action, "SET") && !strings.Contains(name, "age") {
					// The reference is cut, with a new snapshot that knows the child: it keeps nothing, and is not
					// lost.
					want = []string{"child 1 none", "child 2 none"}[:len(want)-1]
				}
				if diff := cmp.Diff(want, w.admin.List(left)); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// What READ COMMITTED would do in the same race, so that the test above is known to be about something.
func TestReadCommittedLosesTheRace(t *testing.T) {
	w := newWorld(t, Config{}, `CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent VALUES (1);
		CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)`)
	writer, sweeper := server.Admin(t, w.database), server.Admin(t, w.database)
	begin, err := writer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begin.Exec(t.Context(), `INSERT INTO child VALUES (1, 1)`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := sweeper.Exec(t.Context(), `DELETE FROM parent p WHERE NOT EXISTS (SELECT FROM child c WHERE c.parent = p.id)`)
		done <- err
	}()
	if !eventually(t, func() bool {
		return w.admin.Count(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) > 0
	}) {
		t.Fatal("the DELETE never waited")
	}
	if err := begin.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := w.admin.Count(`SELECT count(*) FROM child`); n != 0 {
		t.Errorf("%d children left: PostgreSQL has become kinder, and docs/design/0002-sweeping-postgresql.md can say so", n)
	}
}

func TestLockedRowsAreSkippedAndTheRestGoes(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}}, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 300) n`)
	locker, err := server.Admin(t, w.database).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), `SELECT FROM log WHERE id = 77 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	d := w.sweep()["log"]
	if d.Rows != 299 || d.Skipped != 1 || d.Problem == nil || d.Problem.Reason != v1alpha1.ReasonLocked {
		t.Errorf("%+v", d)
	}
	if err := locker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := w.sweep()["log"]; d.Rows != 1 || d.Skipped != 0 || d.Problem != nil {
		t.Errorf("after the lock: %+v", d)
	}
}

func TestTriggers(t *testing.T) {
	tests := map[string]struct {
		body    string // of a trigger function, after each row
		problem string
		left    []string
	}{
		"one that counts elsewhere is let be":               {`UPDATE counter SET n = n - 1; RETURN OLD`, "", []string{"log 3", "other 1"}},
		"one that copies is let be: coverage asks for that": {`INSERT INTO copies SELECT OLD.id; RETURN OLD`, "", []string{"log 3", "other 1"}},
		"one that deletes elsewhere":                        {`DELETE FROM other; RETURN OLD`, v1alpha1.ReasonSideEffect, []string{"log 1", "log 2", "log 3", "other 1"}},
		"one that deletes other rows here":                  {`DELETE FROM log WHERE id = 3; RETURN OLD`, v1alpha1.ReasonSideEffect, []string{"log 1", "log 2", "log 3", "other 1"}},
		"one that changes what a floor protects":            {`UPDATE other SET at = now(); RETURN OLD`, v1alpha1.ReasonSideEffect, []string{"log 1", "log 2", "log 3", "other 1"}},
		"one that always fails":                             {`RAISE EXCEPTION 'a value of row %', OLD.id`, v1alpha1.ReasonGuarded, []string{"log 1", "log 2", "log 3", "other 1"}},
		"one that fails for a single row":                   {`IF OLD.id = 1 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD`, v1alpha1.ReasonGuarded, []string{"log 1", "log 3", "other 1"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log")), in(after(90, aTable("other")), withFloor(years(7)))}},
				`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE other (id bigint PRIMARY KEY, at timestamptz);
				CREATE TABLE counter (n int); CREATE TABLE copies (id bigint); INSERT INTO counter VALUES (2);
				INSERT INTO log VALUES (1, now() - interval '91 days'), (2, now() - interval '92 days'), (3, now()); INSERT INTO other VALUES (1, now() - interval '1 year');
				CREATE FUNCTION public.act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS 'BEGIN `+replaceQuotes(tc.body)+`; END';
				CREATE TRIGGER acts AFTER DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.act()`)
			d := w.sweep()["log"]
			reason := ""
			if d.Problem != nil {
				reason = d.Problem.Reason
			}
			if reason != tc.problem {
				t.Errorf("problem %+v, want %q", d.Problem, tc.problem)
			}
			if diff := cmp.Diff(tc.left, w.admin.List(`SELECT 'log ' || id FROM log UNION ALL SELECT 'other ' || id FROM other ORDER BY 1`)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if notice := w.open().Notice(0); notice != "triggers run when a row is deleted: acts" {
				t.Errorf("notice %q", notice)
			}
		})
	}
}

// Statements of triggers are not compiled: the settings that keep a batch to its indexes make each look expensive
// enough.
func TestTriggersAreNotCompiled(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE seen (jit text);
		INSERT INTO log VALUES (1, now() - interval '91 days');
		CREATE FUNCTION public.act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS 'BEGIN INSERT INTO seen VALUES (current_setting(''jit'')); RETURN OLD; END';
		CREATE TRIGGER acts AFTER DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.act()`)
	w.sweep()
	if diff := cmp.Diff([]string{"off"}, w.admin.List(`SELECT jit FROM seen`)); diff != "" {
		t.Errorf("jit (-want +got):\n%s", diff)
	}
}

func replaceQuotes(s string) string {
	out := ""
	for _, r := range s {
		if r == '\'' {
			out += "'"
		}
		out += string(r)
	}
	return out
}
