package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// What two tenants are called may be told apart in Kubernetes, where names are text, and be the same in the tenant
// column.
func TestTenantsThatTheColumnCannotTellApart(t *testing.T) {
	tests := map[string]struct {
		typ, row string
		config   Config
		problem  string
		left     []string
	}{
		"numbers written in two ways": {
			typ: "int", row: "7", problem: v1alpha1.ReasonUnclearTenant, left: []string{"1"},
			config: Config{Tenants: []string{"7", "007"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"007"}, RetainFor: days(30)}))}},
		},
		"a uuid in capitals": {
			typ: "uuid", row: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", problem: v1alpha1.ReasonUnclearTenant, left: []string{"1"},
			config: Config{Tenants: []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}, RetainFor: days(30)}))}},
		},
		"blanks at the end of char(n)": {
			typ: "char(8)", row: "acme", problem: v1alpha1.ReasonUnclearTenant, left: []string{"1"},
			config: Config{Tenants: []string{"acme", "acme "}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme "}, RetainFor: days(30)}))}},
		},
		"one tenant may be called so in two ways": {
			typ: "int", row: "7", left: []string{},
			config: Config{Tenants: []string{"7", "007", "8"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"7", "007"}, RetainFor: days(30)}))}},
		},
		"one tenant is called so in two ways, of which one is approved": {
			typ: "int", row: "7", problem: v1alpha1.ReasonUnclearTenant, left: []string{"1"},
			config: Config{Tenants: []string{"7", "007", "8"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"7", "007"}, RetainFor: days(30)}), func(d *Dataset) {
					d.Delete = &Windows{RetainFor: d.Delete.RetainFor, Overrides: []Override{{IDs: []string{"7"}, RetainFor: days(30)}}}
				})}},
		},
		"a number that two tenants claim, written in another way by a third": {
			typ: "int", row: "7", problem: v1alpha1.ReasonUnclearTenant, left: []string{"1"},
			config: Config{Tenants: []string{"007"}, Disputed: []string{"7", "no number"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"007"}, RetainFor: days(30)}))}},
		},
		"what two tenants claim, and no third": {
			typ: "int", row: "7", left: []string{"1"},
			config: Config{Tenants: []string{"8"}, Disputed: []string{"7"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"8"}, RetainFor: days(30)}))}},
		},
		"text tells capitals apart": {
			typ: "text", row: "acme", left: []string{"1"},
			config: Config{Tenants: []string{"acme", "Acme"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"Acme"}, RetainFor: days(30)}))}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.config, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant `+tc.typ+`);
				INSERT INTO log VALUES (1, now() - interval '31 days', '`+tc.row+`')`)
			if got := w.problems()["log"].Reason; got != tc.problem {
				t.Errorf("problem %q, want %q", got, tc.problem)
			}
			w.sweep()
			if diff := cmp.Diff(tc.left, w.admin.List(`SELECT id::text FROM log ORDER BY id`)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

// Of what a tenant is called only a part may be approved: the rows under the rest wait for the base window, as those
// of an unknown tenant do, and are overdue by what was promised.
func TestANameThatIsNotApprovedGoesByTheBaseWindow(t *testing.T) {
	w := newWorld(t, Config{Tenants: []string{"1", "2", "8"}, Datasets: []Dataset{
		in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"1", "2"}, RetainFor: days(30)}), func(d *Dataset) {
			d.Delete = &Windows{RetainFor: d.Delete.RetainFor, Overrides: []Override{{IDs: []string{"1"}, RetainFor: days(30)}}}
		})}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant int);
			INSERT INTO log SELECT 10 * t + d / 30, now() - make_interval(days => d), t FROM unnest(ARRAY[1, 2, 9]) t, unnest(ARRAY[0, 40, 100]) d`)
	if line := w.measure()["log"]; line.Reason != "" || line.Eligible != 5 || line.UnknownTenant != 3 {
		t.Errorf("line %+v", line)
	}
	w.sweep()
	if diff := cmp.Diff([]string{"10", "20", "21", "90", "91"}, w.admin.List(`SELECT id::text FROM log ORDER BY id`)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if line := w.measure()["log"]; line.Overdue != 1 {
		t.Errorf("after the sweep: %+v", line)
	}
}

// A tenant with a shorter window, none of whose names the column can hold, has its rows under names that nobody knows.
func TestATenantThatCannotBeToldIsNotGreen(t *testing.T) {
	w := newWorld(t, Config{Tenants: []string{"acme", "8"}, Datasets: []Dataset{
		in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant int); INSERT INTO log VALUES (1, now() - interval '40 days', 7), (2, now(), 8)`)
	if line := w.measure()["log"]; line.Reason != v1alpha1.ReasonUnclearTenant || line.UnknownTenant != 1 {
		t.Errorf("line %+v", line)
	}
	w.admin.Run(`DELETE FROM log WHERE tenant = 7`)
	if line := w.measure()["log"]; line.Reason != "" {
		t.Errorf("without rows of unknown tenants: %+v", line)
	}
}

// Equality of a type that an extension brings is not what the search path finds: rows would be taken for others.
func TestTypesWhoseEqualityIsNotTheServersOwn(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{
		in(after(90, aTable("parent")), func(d *Dataset) { d.Table.Key[0] = "name" }), after(90, aTable("child"))}},
		`CREATE EXTENSION citext; CREATE TABLE parent (name citext PRIMARY KEY, at timestamptz);
		CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent citext REFERENCES parent ON DELETE SET NULL); CREATE INDEX ON child (parent);
		INSERT INTO parent VALUES ('acme', now() - interval '100 days'); INSERT INTO child VALUES (1, now(), 'ACME')`)
	w.sweep()
	if diff := cmp.Diff([]string{"acme ACME"}, w.admin.List(`SELECT p.name || ' ' || c.parent FROM parent p JOIN child c ON c.parent = p.name`)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if got := w.problems()["parent"].Reason; got != v1alpha1.ReasonUnsupportedTable {
		t.Errorf("problem %q", got)
	}
}

// A deferred trigger acts at COMMIT, when what the batch did has been counted already.
func TestADeferredTriggerIsSeen(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log")), in(after(90, aTable("other")), withFloor(years(7)))}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE other (id bigint PRIMARY KEY, at timestamptz);
		INSERT INTO log VALUES (1, now() - interval '91 days'); INSERT INTO other VALUES (1, now() - interval '1 year');
		CREATE FUNCTION public.act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS 'BEGIN DELETE FROM other; RETURN OLD; END';
		CREATE CONSTRAINT TRIGGER acts AFTER DELETE ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.act()`)
	d := w.sweep()["log"]
	if n := w.admin.Count(`SELECT count(*) FROM other`); n != 1 {
		t.Errorf("%d rows are left under the floor, want 1", n)
	}
	if d.Problem == nil || d.Problem.Reason != v1alpha1.ReasonSideEffect {
		t.Errorf("problem %+v", d.Problem)
	}
}

// The planner's estimate is as old as the last ANALYZE: a table that has shrunk since must not widen the brake.
func TestPlannedDoesNotBelieveTheEstimate(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}},
		`CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz);
		INSERT INTO log SELECT n, now() - interval '91 days' FROM generate_series(1, 2000) n;
		UPDATE pg_class SET reltuples = 50000000 WHERE relname = 'log'`)
	planned, rows, problem, err := w.open().Planned(t.Context(), 0, w.now, func(planned int64) int64 { return 10 * planned })
	if planned != 2000 || rows != 2000 || problem != nil || err != nil {
		t.Errorf("planned %d of %d, %v, %v", planned, rows, problem, err)
	}
}
