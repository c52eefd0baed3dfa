package postgres

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

const parentAndChild = `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz);
	CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent ON DELETE CASCADE);`

func TestWhatIsRefused(t *testing.T) {
	log := `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, other timestamp, body text, tenant text);
		INSERT INTO log VALUES (1, now() - interval '91 days')`
	tests := map[string]struct {
		datasets []Dataset
		sql      string
		later    string            // run after the grants
		want     map[string]string // dataset: reason
		remedy   string            // must be in some message
	}{
		"a missing table": {
			datasets: []Dataset{after(90, aTable("log")), after(90, aTable("logs"))}, sql: log, later: "",
			want: map[string]string{"logs": v1alpha1.ReasonMissingTable}, remedy: "there is no table public.logs",
		},
		"a missing column": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `ALTER TABLE log RENAME at TO created_at`,
			want: map[string]string{"log": v1alpha1.ReasonMissingColumn}, remedy: "log has no column at",
		},
		"SQL in an identifier is a name like any other, and not there": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.AgeColumn.Name = `at" < now(); DROP TABLE log; --` })}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonMissingColumn},
		},
		"SQL in a table's name": {
			datasets: []Dataset{after(90, aTable(`log"; DROP TABLE log; --`))}, sql: log,
			want: map[string]string{`log"; DROP TABLE log; --`: v1alpha1.ReasonMissingTable},
		},
		"an age column of another type than declared": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.AgeColumn.Name = "other" })}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonWrongAgeType}, remedy: "timestamp without time zone",
		},
		"an age column that tells no age": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.AgeColumn.Name = "body" })}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonWrongAgeType},
		},
		"local times without a zone": {
			datasets: []Dataset{in(after(90, aTable("log")), withAge(v1alpha1.AgeColumn{Name: "other", Type: v1alpha1.AgeTimestamp}))}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonUnknownTimeZone},
		},
		"local times of a zone that does not exist": {
			datasets: []Dataset{in(after(90, aTable("log")), withAge(v1alpha1.AgeColumn{Name: "other", Type: v1alpha1.AgeTimestamp, TimeZone: "Europe/Atlantis"}))}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonUnknownTimeZone}, remedy: "Europe/Atlantis",
		},
		"a key that is not unique": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"at"} })}, sql: log, later: `UPDATE log SET at = now(); ALTER TABLE log ALTER at SET NOT NULL`,
			want: map[string]string{"log": v1alpha1.ReasonKeyNotUnique},
		},
		"a key that may be NULL": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"body"} })}, sql: log, later: `CREATE UNIQUE INDEX ON log (body)`,
			want: map[string]string{"log": v1alpha1.ReasonKeyNotUnique}, remedy: `SET NOT NULL`,
		},
		"a unique index that leaves rows out": {
			datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"tenant"} })}, sql: log,
			later: `UPDATE log SET tenant = 'a'; ALTER TABLE log ALTER tenant SET NOT NULL; CREATE UNIQUE INDEX ON log (tenant) WHERE id > 5`,
			want:  map[string]string{"log": v1alpha1.ReasonKeyNotUnique},
		},
		"a tenant column that is not there": {
			datasets: []Dataset{in(after(90, aTable("log")), withTenant("tenant"))}, sql: log, later: `ALTER TABLE log DROP tenant`,
			want: map[string]string{"log": v1alpha1.ReasonMissingColumn},
		},
		"a view": {
			datasets: []Dataset{after(90, aTable("seen"))}, sql: log + `; CREATE VIEW seen AS SELECT id, at FROM log`,
			want: map[string]string{"seen": v1alpha1.ReasonMissingTable},
		},
		"a materialised view": {
			datasets: []Dataset{after(90, aTable("copied"))}, sql: log + `; CREATE MATERIALIZED VIEW copied AS SELECT id, at FROM log`,
			want: map[string]string{"copied": v1alpha1.ReasonUnsupportedTable},
		},
		"a partition": {
			datasets: []Dataset{after(90, aTable("part"))},
			sql:      `CREATE TABLE whole (id bigint PRIMARY KEY, at timestamptz) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF whole DEFAULT`,
			want:     map[string]string{"part": v1alpha1.ReasonUnsupportedTable}, remedy: "public.whole",
		},
		"row security": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `ALTER TABLE log ENABLE ROW LEVEL SECURITY`,
			want: map[string]string{"log": v1alpha1.ReasonUnsupportedTable}, remedy: "row security",
		},
		"a rewrite rule": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `CREATE RULE keep AS ON DELETE TO log DO INSTEAD NOTHING`,
			want: map[string]string{"log": v1alpha1.ReasonUnsupportedTable}, remedy: "rewrite rules",
		},
		"inheritance": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `CREATE TABLE heir () INHERITS (log)`,
			want: map[string]string{"log": v1alpha1.ReasonUnsupportedTable}, remedy: "partitions",
		},
		"a table twice": {
			datasets: []Dataset{after(90, aTable("log")), in(after(30, aTable("log")), func(d *Dataset) { d.Name = "again" })}, sql: log,
			want: map[string]string{"log": v1alpha1.ReasonUnsupportedTable, "again": v1alpha1.ReasonUnsupportedTable},
		},
		"a grant taken away": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `REVOKE DELETE ON log FROM PUBLIC; DO $$ BEGIN EXECUTE 'REVOKE DELETE ON log FROM sweeper_' || current_database(); END $$`,
			want: map[string]string{"log": v1alpha1.ReasonMissingPrivilege}, remedy: "kubectl lethe grants",
		},
		"a column that may not be read": {
			datasets: []Dataset{after(90, aTable("log"))}, sql: log, later: `DO $$ BEGIN EXECUTE 'REVOKE SELECT (at) ON log FROM sweeper_' || current_database(); END $$`,
			want: map[string]string{"log": v1alpha1.ReasonMissingPrivilege}, remedy: "kubectl lethe grants",
		},
		"a foreign key from a table that nobody named": {
			datasets: []Dataset{after(90, aTable("parent"))}, sql: parentAndChild,
			want: map[string]string{"parent": v1alpha1.ReasonUndeclaredForeignKey}, remedy: "add a dataset for it",
		},
		"a foreign key without an index": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))}, sql: parentAndChild,
			want: map[string]string{"parent": v1alpha1.ReasonUnindexedForeignKey}, remedy: `CREATE INDEX CONCURRENTLY ON "public"."child" ("parent")`,
		},
		"an index on another order of columns does not serve": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))}, sql: parentAndChild + `CREATE INDEX ON child (at, parent)`,
			want: map[string]string{"parent": v1alpha1.ReasonUnindexedForeignKey},
		},
		"a partial index on what is not NULL serves": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))}, sql: parentAndChild + `CREATE INDEX ON child (parent) WHERE parent IS NOT NULL`,
			want: map[string]string{},
		},
		"a foreign key added after the grants": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))},
			sql:      `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint)`,
			later:    `ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent; CREATE INDEX ON child (parent)`,
			want:     map[string]string{"parent": v1alpha1.ReasonMissingPrivilege}, remedy: "again",
		},
		"a cascade into a table with a floor": {
			datasets: []Dataset{after(90, aTable("parent")), in(after(90, aTable("child")), withFloor(years(7)))}, sql: parentAndChild + `CREATE INDEX ON child (parent)`,
			want: map[string]string{"parent": v1alpha1.ReasonCascade}, remedy: "ON DELETE RESTRICT",
		},
		"a cascade over two tables into one with a floor": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child")), in(after(90, aTable("paid")), withFloor(years(7)))},
			sql: parentAndChild + `CREATE INDEX ON child (parent);
				CREATE TABLE paid (id bigint PRIMARY KEY, at timestamptz, child bigint REFERENCES child ON DELETE SET NULL); CREATE INDEX ON paid (child)`,
			want: map[string]string{"parent": v1alpha1.ReasonCascade, "child": v1alpha1.ReasonCascade},
		},
		"a cascade over a mapped table into one that nobody named": {
			datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("child"))},
			sql: parentAndChild + `CREATE INDEX ON child (parent);
				CREATE TABLE lost (id bigint PRIMARY KEY, child bigint REFERENCES child ON DELETE CASCADE); CREATE INDEX ON lost (child)`,
			want: map[string]string{"parent": v1alpha1.ReasonUndeclaredForeignKey, "child": v1alpha1.ReasonUndeclaredForeignKey},
		},
		"a circle": {
			datasets: []Dataset{after(90, aTable("a")), after(90, aTable("b")), after(90, aTable("c"))},
			sql: `CREATE TABLE a (id bigint PRIMARY KEY, at timestamptz, b bigint); CREATE TABLE b (id bigint PRIMARY KEY, at timestamptz, a bigint REFERENCES a);
				ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b; CREATE INDEX ON a (b); CREATE INDEX ON b (a);
				CREATE TABLE c (id bigint PRIMARY KEY, at timestamptz, a bigint REFERENCES a); CREATE INDEX ON c (a)`,
			want: map[string]string{"a": v1alpha1.ReasonForeignKeyCycle, "b": v1alpha1.ReasonForeignKeyCycle}, remedy: "public.a, public.b",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// The grants need tables that are there and columns that have these names: what is wrong comes after, or
			// is left out.
			var good []Dataset
			for _, d := range tc.datasets {
				switch r := tc.want[d.Name]; {
				case r == v1alpha1.ReasonMissingTable:
				case r == v1alpha1.ReasonMissingColumn && tc.later == "":
					good = append(good, after(90, aTable(string(d.Table.Name))))
				default:
					good = append(good, d)
				}
			}
			w := newWorld(t, Config{Datasets: good, Tenants: []string{"acme"}}, tc.sql)
			w.config.Datasets = tc.datasets
			if tc.later != "" {
				w.admin.Run(tc.later)
			}
			tables := w.admin.List(`SELECT c.oid::regclass || ' ' || n FROM pg_class c, LATERAL (SELECT (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || c.oid::regclass, false, true, '')))[1]::text n) x
				WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`)
			got := map[string]string{}
			var messages []string
			for name, p := range w.problems() {
				got[name] = p.Reason
				messages = append(messages, p.Message)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s\n%s", diff, strings.Join(messages, "\n"))
			}
			if !strings.Contains(strings.Join(messages, "\n"), tc.remedy) {
				t.Errorf("no message speaks of %q:\n%s", tc.remedy, strings.Join(messages, "\n"))
			}
			lines := w.measure()
			for name, reason := range tc.want {
				if lines[name].Reason != reason {
					t.Errorf("the line of %s has the reason %q", name, lines[name].Reason)
				}
			}
			deleted := w.sweep()
			for name := range tc.want {
				if deleted[name].Rows != 0 {
					t.Errorf("%d rows of %s were deleted", deleted[name].Rows, name)
				}
			}
			if len(tc.want) == len(tc.datasets) {
				after := w.admin.List(`SELECT c.oid::regclass || ' ' || n FROM pg_class c, LATERAL (SELECT (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || c.oid::regclass, false, true, '')))[1]::text n) x
					WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`)
				if diff := cmp.Diff(tables, after); diff != "" {
					t.Errorf("the tables changed (-before +after):\n%s", diff)
				}
			}
		})
	}
}

func TestCoverage(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}, Exempt: []plan.Exemption{{Table: &plan.TableName{Name: "migrations"}}, {Table: &plan.TableName{Schema: "other", Name: "kept"}}, {}}},
		`CREATE SCHEMA other; CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE migrations (id int); CREATE TABLE other.kept (id int);
		CREATE TABLE other.migrations (id int); CREATE TABLE forgotten (id int) PARTITION BY RANGE (id); CREATE TABLE forgotten_1 PARTITION OF forgotten DEFAULT;
		CREATE VIEW seen AS SELECT 1 AS x; CREATE MATERIALIZED VIEW copied AS SELECT 1 AS x; CREATE UNLOGGED TABLE fast (id int)`)
	want := []string{"other.migrations", "public.copied", "public.fast", "public.forgotten"}
	if diff := cmp.Diff(want, w.open().Uncovered()); diff != "" {
		t.Errorf("uncovered (-want +got):\n%s", diff)
	}
}
