package postgres

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/storetest"
)

func TestMeasure(t *testing.T) {
	const h = 3600
	tests := map[string]struct {
		config Config
		sql    string
		want   map[string]storetest.Line // without names, and rounded to hours
	}{
		"past the window, past the slack, and nobody knows": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 4) n;
				INSERT INTO log VALUES (11, now() - interval '90 days 2 hours'), (12, now()), (13, NULL), (14, '1970-01-01'), (15, 'infinity'), (16, '-infinity'), (17, now() + interval '1 hour')`,
			want: map[string]storetest.Line{"log": {Rows: 11, Eligible: 5, Overdue: 4, OldestOverdueSeconds: 9 * 24 * h, UnknownAge: 5, OldestAgeSeconds: 100 * 24 * h}},
		},
		"an audit measures the same": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Delete = nil })}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz);
				INSERT INTO log VALUES (1, now() - interval '90 days 2 hours'), (2, now() - interval '92 days')`,
			want: map[string]storetest.Line{"log": {Rows: 2, Eligible: 2, Overdue: 1, OldestOverdueSeconds: 24 * h, OldestAgeSeconds: 92 * 24 * h}},
		},
		"another clock that runs half a minute ahead is no future": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql:    `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); INSERT INTO log VALUES (1, now() + interval '30 seconds'), (2, now() + interval '10 minutes')`,
			want:   map[string]storetest.Line{"log": {Rows: 2, UnknownAge: 1}},
		},
		"an empty table": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql:    `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz)`,
			want:   map[string]storetest.Line{"log": {}},
		},
		"tenants with their own windows, and strangers": {
			config: Config{Tenants: []string{"acme", "globex"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text);
				INSERT INTO log SELECT i, now() - a * interval '1 day', t FROM (VALUES
				(1, 40, 'acme'), (2, 29, 'acme'), (3, 40, 'globex'), (4, 95, 'globex'), (5, 40, 'stranger'), (6, 95, NULL)) v (i, a, t)`,
			want: map[string]storetest.Line{"log": {Rows: 6, Eligible: 3, Overdue: 3, OldestOverdueSeconds: 9 * 24 * h, UnknownTenant: 2, UnknownTenantLate: 2, OldestAgeSeconds: 95 * 24 * h}},
		},
		"a tenant written in three ways: what is not a name of its own is late when its window is over": {
			config: Config{Tenants: []string{"acme", "globex"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text); CREATE INDEX ON log (tenant, at);
				INSERT INTO log SELECT i, now() - a * interval '1 day', t FROM (VALUES
				(1, 40, 'acme '), (2, 40, 'ACME'), (3, 29, 'Acme'), (4, 30.5, NULL), (5, 60, 'globex'), (6, 40, NULL), (7, 31.5, 'acme')) v (i, a, t)`,
			want: map[string]storetest.Line{"log": {Rows: 7, Eligible: 1, Overdue: 1, OldestOverdueSeconds: 12 * h, UnknownTenant: 5, UnknownTenantLate: 3, OldestAgeSeconds: 60 * 24 * h}},
		},
		"floors hold and excuse; what a child without a floor holds is overdue all the same": {
			config: Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child")), in(after(365, aTable("payment")), withFloor(years(7)))}},
			sql: `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz);
				CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent); CREATE INDEX ON child (parent);
				CREATE TABLE payment (id bigint PRIMARY KEY, at timestamptz, child bigint REFERENCES child); CREATE INDEX ON payment (child);
				INSERT INTO parent SELECT n, now() - interval '200 days' FROM generate_series(1, 5) n;
				-- 1 free; 2 child expired two days ago; 3 young child; 4 expired child under a payment; 5 child of unknown age
				INSERT INTO child VALUES (2, now() - interval '92 days', 2), (3, now(), 3), (4, now() - interval '95 days', 4), (5, NULL, 5);
				INSERT INTO payment VALUES (1, now() - interval '400 days', 4)`,
			want: map[string]storetest.Line{
				"parent":  {Rows: 5, Eligible: 2, Overdue: 4, OldestOverdueSeconds: 109 * 24 * h, KeptByFloor: 1, KeptByChild: 2, OldestAgeSeconds: 200 * 24 * h},
				"child":   {Rows: 4, Eligible: 1, Overdue: 1, OldestOverdueSeconds: 24 * h, KeptByFloor: 1, UnknownAge: 1, OldestAgeSeconds: 95 * 24 * h},
				"payment": {Rows: 1, KeptByFloor: 1, OldestAgeSeconds: 400 * 24 * h},
			},
		},
		"a parent is due by its own window, whenever its child is": {
			config: Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))}},
			sql: `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz);
				CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent); CREATE INDEX ON child (parent);
				INSERT INTO parent VALUES (1, now() - interval '200 days'), (2, now() - interval '200 days');
				INSERT INTO child VALUES (1, now() - interval '93 days', 1), (2, now() - interval '90 days 1 hour', 2)`,
			want: map[string]storetest.Line{
				"parent": {Rows: 2, Eligible: 2, Overdue: 2, OldestOverdueSeconds: 109 * 24 * h, OldestAgeSeconds: 200 * 24 * h},
				"child":  {Rows: 2, Eligible: 2, Overdue: 1, OldestOverdueSeconds: 2 * 24 * h, OldestAgeSeconds: 93 * 24 * h},
			},
		},
		"answers to answers hold what they answer": {
			config: Config{Datasets: []Dataset{after(90, aTable("thread")), after(90, aTable("post"))}},
			sql: `CREATE TABLE thread (id bigint PRIMARY KEY, at timestamptz);
				CREATE TABLE post (id bigint PRIMARY KEY, at timestamptz, thread bigint REFERENCES thread, answers bigint REFERENCES post); CREATE INDEX ON post (thread); CREATE INDEX ON post (answers);
				INSERT INTO thread VALUES (1, now() - interval '100 days'), (2, now() - interval '100 days');
				INSERT INTO post VALUES (1, now() - interval '99 days', 1, NULL), (2, now() - interval '98 days', NULL, 1), (3, now() - interval '1 day', NULL, 2),
				(4, now() - interval '99 days', 2, NULL), (5, now() - interval '98 days', NULL, 4)`,
			want: map[string]storetest.Line{
				"thread": {Rows: 2, Eligible: 1, Overdue: 2, OldestOverdueSeconds: 9 * 24 * h, KeptByChild: 1, OldestAgeSeconds: 100 * 24 * h},
				"post":   {Rows: 5, Eligible: 2, Overdue: 4, OldestOverdueSeconds: 8 * 24 * h, KeptByChild: 2, OldestAgeSeconds: 99 * 24 * h},
			},
		},
		"a dataset that no rule governs": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Rules, d.Delete = nil, nil })}},
			sql:    `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); INSERT INTO log VALUES (1, now() - interval '99 days')`,
			want:   map[string]storetest.Line{"log": {Rows: 1, OldestAgeSeconds: 99 * 24 * h, Reason: v1alpha1.ReasonUngoverned}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.config, tc.sql)
			got := w.measure()
			for name, line := range got {
				line.Dataset, line.Policy, line.Rule, line.Message = "", "", "", ""
				line.OldestOverdueSeconds = (line.OldestOverdueSeconds + h/2) / h * h
				line.OldestAgeSeconds = (line.OldestAgeSeconds + h/2) / h * h
				got[name] = line
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlannedIsWhatThenGoes(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child")), in(after(90, aTable("held")), func(d *Dataset) { d.Delete = nil })}},
		`CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz);
		CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent); CREATE INDEX ON child (parent);
		CREATE TABLE held (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent); CREATE INDEX ON held (parent);
		INSERT INTO parent SELECT n, now() - interval '100 days' FROM generate_series(1, 10) n;
		INSERT INTO child SELECT n, now() - interval '99 days', n FROM generate_series(1, 6) n; INSERT INTO child VALUES (7, now(), 7);
		INSERT INTO held VALUES (1, now() - interval '99 days', 1)`)
	st := w.open()
	want := map[string][2]int64{"parent": {8, 10}, "child": {6, 7}, "held": {0, 0}}
	got := map[string][2]int64{}
	for i, d := range w.config.Datasets {
		planned, rows, problem, err := st.Planned(t.Context(), i, w.now, func(int64) int64 { return 1000 })
		if err != nil || problem != nil {
			t.Fatalf("%v, %v", problem, err)
		}
		got[d.Name] = [2]int64{planned, rows}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("planned, rows (-want +got):\n%s", diff)
	}
	for name, d := range w.sweep() {
		if d.Rows != want[name][0] {
			t.Errorf("%s: %d rows went, %d were planned", name, d.Rows, want[name][0])
		}
	}
}

// TestPlannedCountsAChildThatWaitsForTheList: who is known may be heard within the sweep, and the brake of what the
// child keeps is asked once.
func TestPlannedCountsAChildThatWaitsForTheList(t *testing.T) {
	shared := func(name string) v1alpha1.Table {
		table := aTable(name)
		table.TenantColumn = "tenant"
		return table
	}
	own := func(d *Dataset) {
		d.Delete = &Windows{RetainFor: d.Delete.RetainFor, Overrides: []Override{{IDs: []string{"acme"}, RetainFor: days(30)}}}
	}
	w := newWorld(t, Config{Datasets: []Dataset{after(90, shared("parent")), in(after(90, shared("child")), own)}, TenantsUnread: "the keyserver did not say who is known"},
		`CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz, tenant text);
		CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, tenant text, parent bigint REFERENCES parent); CREATE INDEX ON child (parent);
		INSERT INTO parent SELECT n, now() - interval '100 days', 'acme' FROM generate_series(1, 10) n;
		INSERT INTO child SELECT n, now() - interval '40 days', 'acme', n FROM generate_series(1, 6) n;
		INSERT INTO child VALUES (7, now(), 'acme', 7)`)
	planned, _, problem, err := w.open().Planned(t.Context(), 0, w.now, func(int64) int64 { return 1000 })
	if err != nil || problem != nil || planned != 9 {
		t.Errorf("%d rows are planned, want the 9 that no living child may keep: %v, %v", planned, problem, err)
	}
	// As long as nobody says so, they stay.
	if gone := w.sweep()["parent"].Rows; gone != 3 {
		t.Errorf("%d rows went, want the 3 without children", gone)
	}
}

func TestALockedTableIsUnknownAndNotZero(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}}, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); INSERT INTO log VALUES (1, now() - interval '91 days')`)
	st := w.open()
	locker, err := server.Admin(t, w.database).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Rollback(t.Context()) }()
	if _, err := locker.Exec(t.Context(), `LOCK TABLE log`); err != nil {
		t.Fatal(err)
	}
	measured, err := st.Measure(t.Context(), 0, Clocks{Early: w.now, Late: w.now.Add(time.Second)})
	if err != nil || measured.Reason != v1alpha1.ReasonLocked {
		t.Errorf("%+v, %v", measured, err)
	}
}

// What was not counted is said before whatever else is wrong with the dataset: its numbers mean nothing.
func TestNotCountedGoesFirst(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("conversations")), after(90, aTable("messages"))}},
		`CREATE TABLE conversations (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE messages (id bigint PRIMARY KEY, conversation_id bigint, at timestamptz);
		INSERT INTO conversations SELECT n, now() - interval '100 days' FROM generate_series(1, 50) n`)
	st := w.open()
	clocks := Clocks{Early: w.now, Late: w.now.Add(time.Second)}
	reason := func() storetest.Line {
		t.Helper()
		measured, err := st.Measure(t.Context(), 0, clocks)
		lines := storetest.LinesOf(measured)
		if err != nil || len(lines) != 1 {
			t.Fatalf("%+v, %v", lines, err)
		}
		return lines[0]
	}
	if l := reason(); l.Reason != v1alpha1.ReasonUndeclaredRelation || l.Eligible != 50 {
		t.Fatalf("%+v", l)
	}
	st = w.open() // rows of a table are counted once in a sweep
	locker, err := server.Admin(t, w.database).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Rollback(t.Context()) }()
	if _, err := locker.Exec(t.Context(), `LOCK TABLE conversations`); err != nil {
		t.Fatal(err)
	}
	if l := reason(); l.Reason != v1alpha1.ReasonLocked {
		t.Errorf("%+v", l)
	}
}
