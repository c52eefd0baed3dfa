package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// in changes a dataset.
func in(d Dataset, change ...func(*Dataset)) Dataset {
	for _, c := range change {
		c(&d)
	}
	return d
}

func withFloor(w calendar.Window) func(*Dataset) { return func(d *Dataset) { d.Floor = &w } }

func withTenant(column v1alpha1.Identifier, overrides ...Override) func(*Dataset) {
	return func(d *Dataset) {
		d.Table.TenantColumn = column
		d.Delete = &Windows{RetainFor: d.Delete.RetainFor, Overrides: overrides}
		d.Rules[0].Windows = *d.Delete
	}
}

func withAge(a v1alpha1.AgeColumn) func(*Dataset) { return func(d *Dataset) { d.Table.AgeColumn = a } }

func TestWhatGoesAndWhatStays(t *testing.T) {
	tests := map[string]struct {
		config Config
		sql    string
		left   string // query whose rows are what stays
		want   []string
	}{
		"an idle table: its newest row goes too": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz NOT NULL);
				INSERT INTO log SELECT n, now() - interval '91 days' FROM generate_series(1, 2500) n`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{},
		},
		"the window counts to the microsecond": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz NOT NULL); CREATE INDEX ON log (at);
				INSERT INTO log VALUES (1, now() - interval '90 days 1 hour'), (2, now() - interval '89 days 23 hours'), (3, now())`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"2", "3"},
		},
		"an age that nobody can believe is never deleted": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
				INSERT INTO log VALUES (1, NULL), (2, '1970-01-01'), (3, 'infinity'), (4, '-infinity'), (5, now() + interval '1 hour'),
				(6, '1989-12-31 23:59:59+00'), (7, '1990-01-01 00:00:00+00')`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"1", "2", "3", "4", "5", "6"},
		},
		"local times are read in their zone": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), withAge(v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeTimestamp, TimeZone: "Pacific/Kiritimati"}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamp);
				INSERT INTO log SELECT 1, now() AT TIME ZONE 'Pacific/Kiritimati' - interval '90 days 1 hour';
				INSERT INTO log SELECT 2, now() AT TIME ZONE 'Pacific/Kiritimati' - interval '89 days 23 hours';
				INSERT INTO log SELECT 3, now() AT TIME ZONE 'UTC' - interval '90 days 1 hour'; INSERT INTO log VALUES (4, NULL), (5, 'infinity')`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"2", "4", "5"},
		},
		"a date is over at the end of its day": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), withAge(v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeDate, TimeZone: "Etc/UTC"}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at date);
				INSERT INTO log VALUES (1, (now() AT TIME ZONE 'UTC')::date - 92), (2, (now() AT TIME ZONE 'UTC')::date - 91),
				(3, (now() AT TIME ZONE 'UTC')::date - 90), (4, NULL), (5, '-infinity')`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"3", "4", "5"},
		},
		"a shared table: tenants with a window of their own, everybody else and strangers by the base": {
			config: Config{Tenants: []string{"acme", "globex"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme"}, RetainFor: days(30)}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text); CREATE INDEX ON log (tenant, at);
				INSERT INTO log SELECT i, now() - a * interval '1 day', t FROM (VALUES
				(1, 31, 'acme'), (2, 29, 'acme'), (3, 31, 'globex'), (4, 91, 'globex'), (5, 31, 'stranger'), (6, 91, 'stranger'), (7, 31, NULL), (8, 91, NULL)) v (i, a, t)`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"2", "3", "5", "7"},
		},
		"a tenant that its column's type cannot hold has no rows": {
			config: Config{Tenants: []string{"acme", "7"}, Datasets: []Dataset{
				in(after(90, aTable("log")), withTenant("tenant", Override{IDs: []string{"acme", "7"}, RetainFor: days(30)}))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant int);
				INSERT INTO log VALUES (1, now() - interval '31 days', 7), (2, now() - interval '31 days', 8)`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"2"},
		},
		"a floor holds what the window would take": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("payment")), withFloor(years(7)))}},
			sql: `CREATE TABLE payment (id bigint PRIMARY KEY, at timestamptz);
				INSERT INTO payment VALUES (1, now() - interval '8 years'), (2, now() - interval '6 years')`,
			left: `SELECT id::text FROM payment ORDER BY id`, want: []string{"2"},
		},
		"a parent goes with its last child and not before: no action, cascade; set null lets it go": {
			config: Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("kept")), after(90, aTable("cascaded")), after(90, aTable("nulled"))}},
			sql: `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz);
				CREATE TABLE kept (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent);
				CREATE TABLE cascaded (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent ON DELETE CASCADE);
				CREATE TABLE nulled (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent ON DELETE SET NULL);
				CREATE INDEX ON kept (parent); CREATE INDEX ON cascaded (parent); CREATE INDEX ON nulled (parent);
				INSERT INTO parent SELECT n, now() - interval '100 days' FROM generate_series(1, 8) n;
				INSERT INTO kept VALUES (1, now() - interval '99 days', 1), (2, now(), 2);
				INSERT INTO cascaded VALUES (1, now() - interval '99 days', 3), (2, now(), 4), (3, NULL, 7);
				INSERT INTO nulled VALUES (1, now() - interval '99 days', 5), (2, now(), 6)`,
			left: `SELECT 'parent ' || id FROM parent UNION ALL SELECT 'kept ' || id || ' ' || parent FROM kept
				UNION ALL SELECT 'cascaded ' || id || ' ' || parent FROM cascaded UNION ALL SELECT 'nulled ' || id || ' ' || coalesce(parent::text, '') FROM nulled ORDER BY 1`,
			want: []string{"cascaded 2 4", "cascaded 3 7", "kept 2 2", "nulled 2 ", "parent 2", "parent 4", "parent 7"},
		},
		"a reference that the database cuts keeps nothing: set default, some columns only, the table itself, in a circle": {
			config: Config{Datasets: []Dataset{after(90, aTable("parent")), after(90, aTable("defaulted")), after(90, aTable("post")),
				in(after(90, aTable("wide")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"tenant", "id"} }), after(90, aTable("partly")), after(90, aTable("latest"))}},
			sql: `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz, latest bigint);
				CREATE TABLE latest (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent); CREATE INDEX ON latest (parent);
				ALTER TABLE parent ADD FOREIGN KEY (latest) REFERENCES latest ON DELETE SET NULL; CREATE INDEX ON parent (latest);
				CREATE TABLE defaulted (id bigint PRIMARY KEY, at timestamptz, parent bigint DEFAULT 0 REFERENCES parent ON DELETE SET DEFAULT); CREATE INDEX ON defaulted (parent);
				CREATE TABLE post (id bigint PRIMARY KEY, at timestamptz, answers bigint REFERENCES post ON DELETE SET NULL); CREATE INDEX ON post (answers); CREATE INDEX ON post (at);
				CREATE TABLE wide (tenant int, id bigint, at timestamptz, PRIMARY KEY (tenant, id));
				CREATE TABLE partly (id bigint PRIMARY KEY, at timestamptz, tenant int NOT NULL, wide bigint, FOREIGN KEY (tenant, wide) REFERENCES wide ON DELETE SET NULL (wide));
				CREATE INDEX ON partly (tenant, wide);
				INSERT INTO parent VALUES (0, now()), (1, now() - interval '100 days'), (2, now() - interval '100 days');
				INSERT INTO latest VALUES (1, now() - interval '99 days', 1), (2, now(), 2); UPDATE parent SET latest = id WHERE id > 0;
				INSERT INTO defaulted VALUES (1, now(), 1);
				INSERT INTO post VALUES (1, now() - interval '100 days', NULL), (2, now() - interval '1 day', 1), (3, now(), 2);
				INSERT INTO wide VALUES (7, 1, now() - interval '100 days'); INSERT INTO partly VALUES (1, now(), 7, 1)`,
			left: `SELECT 'parent ' || id FROM parent UNION ALL SELECT 'latest ' || id FROM latest UNION ALL SELECT concat_ws(' ', 'defaulted', id, parent) FROM defaulted
				UNION ALL SELECT concat_ws(' ', 'post', id, answers) FROM post UNION ALL SELECT 'wide ' || id FROM wide UNION ALL SELECT concat_ws(' ', 'partly', id, tenant, wide) FROM partly ORDER BY 1`,
			want: []string{"defaulted 1 0", "latest 2", "parent 0", "parent 2", "partly 1 7", "post 2", "post 3 2"},
		},
		"many levels, with keys of two columns": {
			config: Config{Datasets: []Dataset{
				in(after(90, aTable("account")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"tenant", "id"} }),
				in(after(90, aTable("conversation")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"tenant", "id"} }),
				after(30, aTable("message"))}},
			sql: `CREATE TABLE account (tenant text, id bigint, at timestamptz, PRIMARY KEY (tenant, id));
				CREATE TABLE conversation (tenant text, id bigint, at timestamptz, account bigint, PRIMARY KEY (tenant, id),
					FOREIGN KEY (tenant, account) REFERENCES account (tenant, id) ON DELETE CASCADE);
				CREATE INDEX ON conversation (account, tenant);
				CREATE TABLE message (id bigint PRIMARY KEY, at timestamptz, tenant text, conversation bigint,
					FOREIGN KEY (tenant, conversation) REFERENCES conversation (tenant, id));
				CREATE INDEX ON message (tenant, conversation);
				INSERT INTO account SELECT t, n, now() - interval '100 days' FROM unnest('{a,b}'::text[]) t, generate_series(1, 3) n;
				INSERT INTO conversation SELECT t, n, now() - interval '95 days', n FROM unnest('{a,b}'::text[]) t, generate_series(1, 2) n;
				INSERT INTO message VALUES (1, now() - interval '40 days', 'a', 1), (2, now() - interval '20 days', 'a', 2), (3, now(), NULL, 2)`,
			left: `SELECT 'account ' || tenant || id FROM account UNION ALL SELECT 'conversation ' || tenant || id FROM conversation
				UNION ALL SELECT 'message ' || id FROM message ORDER BY 1`,
			want: []string{"account a2", "conversation a2", "message 2", "message 3"},
		},
		"a table that refers to itself": {
			config: Config{Datasets: []Dataset{after(90, aTable("post"))}},
			sql: `CREATE TABLE post (id bigint PRIMARY KEY, at timestamptz, answers bigint REFERENCES post); CREATE INDEX ON post (answers); CREATE INDEX ON post (at);
				INSERT INTO post SELECT n, now() - interval '200 days' + n * interval '1 minute', CASE WHEN n % 500 = 1 THEN NULL ELSE n - 1 END FROM generate_series(1, 3000) n;
				INSERT INTO post VALUES (4001, now() - interval '100 days', 4001);
				INSERT INTO post VALUES (4002, now() - interval '100 days', NULL), (4003, now() - interval '99 days', 4002), (4004, now(), 4003)`,
			left: `SELECT id::text FROM post ORDER BY id`, want: []string{"4002", "4003", "4004"},
		},
		"many rows of one age, as an import makes them, and a slow server": {
			config: Config{Datasets: []Dataset{after(90, aTable("log"))}},
			sql: `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
				INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 3000) n; INSERT INTO log SELECT n, now() - interval '99 days' + n * interval '1 second' FROM generate_series(3001, 3100) n;
				CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0002); RETURN OLD; END';
				CREATE TRIGGER slow BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.slow()`,
			left: `SELECT id::text FROM log`, want: []string{},
		},
		"keys of any type": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"a", "b", "c"} })}},
			sql: `CREATE TABLE log (a uuid DEFAULT gen_random_uuid(), b varchar(10), c numeric, at timestamptz, PRIMARY KEY (c, b, a));
				INSERT INTO log (b, c, at) SELECT 'it''s "' || n % 7, n / 7.0, now() - interval '91 days' FROM generate_series(1, 3333) n`,
			left: `SELECT a::text FROM log`, want: []string{},
		},
		"a partitioned table": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Table.Key = []v1alpha1.Identifier{"id", "at"} })}},
			sql: `CREATE TABLE log (id bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
				CREATE TABLE log_old PARTITION OF log FOR VALUES FROM (MINVALUE) TO ('2020-01-01'); CREATE TABLE log_rest PARTITION OF log DEFAULT;
				INSERT INTO log VALUES (1, '2019-01-01'), (2, now() - interval '91 days'), (3, now())`,
			left: `SELECT id::text FROM log ORDER BY id`, want: []string{"3"},
		},
		"names that need quotes, and look like SQL": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("Drop_Table$")), func(d *Dataset) {
				d.Table.Schema, d.Table.Key, d.Table.AgeColumn.Name = "Select", []v1alpha1.Identifier{"Order"}, "From"
			})}},
			sql: `CREATE SCHEMA "Select"; CREATE TABLE "Select"."Drop_Table$" ("Order" bigint PRIMARY KEY, "From" timestamptz);
				INSERT INTO "Select"."Drop_Table$" VALUES (1, now() - interval '91 days'), (2, now())`,
			left: `SELECT "Order"::text FROM "Select"."Drop_Table$"`, want: []string{"2"},
		},
		"nothing is deleted where only measuring was asked for": {
			config: Config{Datasets: []Dataset{in(after(90, aTable("log")), func(d *Dataset) { d.Delete = nil })}},
			sql:    `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); INSERT INTO log VALUES (1, now() - interval '91 days')`,
			left:   `SELECT id::text FROM log`, want: []string{"1"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.config, tc.sql)
			first := w.sweep()
			if diff := cmp.Diff(tc.want, w.admin.List(tc.left)); diff != "" {
				t.Errorf("left (-want +got):\n%s\n%+v %v", diff, first, w.problems())
			}
			for name, d := range w.sweep() {
				if d.Rows != 0 {
					t.Errorf("a second sweep deleted %d rows of %s", d.Rows, name)
				}
			}
			for name, line := range w.measure() {
				if tc.config.Datasets[0].Delete != nil && (line.Eligible != 0 || line.Overdue != line.KeptByChild || line.Reason != "") {
					t.Errorf("after the sweep %s measures %+v", name, line)
				}
			}
		})
	}
}
