package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/storetest"
)

// poison is a table that a trigger guards, beside two that nothing does.
const poison = `
	CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL);
	CREATE TABLE click (id bigint PRIMARY KEY, at timestamptz NOT NULL);
	CREATE TABLE visit (id bigint PRIMARY KEY, at timestamptz NOT NULL);
	INSERT INTO audit SELECT n, now() - interval '200 days' + n * interval '1 second' FROM generate_series(1, 100000) n;
	INSERT INTO click SELECT n, now() - interval '200 days' + n * interval '1 second' FROM generate_series(1, 20000) n;
	INSERT INTO visit SELECT n, now() - interval '200 days' + n * interval '1 second' FROM generate_series(1, 20000) n;
	CREATE INDEX ON audit (at); CREATE INDEX ON click (at); CREATE INDEX ON visit (at);
	CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''kept''; END';
	CREATE TRIGGER guard BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION guard();`

// chain is the versions of one document.
const chain = `
	CREATE TABLE version (id bigint PRIMARY KEY, at timestamptz NOT NULL, before bigint REFERENCES version);
	INSERT INTO version SELECT n, now() - interval '200 days' + n * interval '1 minute', nullif(n - 1, 0) FROM generate_series(1, 20000) n;
	CREATE INDEX ON version (at); CREATE INDEX ON version (before);`

// partitions are three years of days, a hundred rows each.
const partitions = `
	CREATE TABLE event (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	DO $$ BEGIN FOR d IN 0..1099 LOOP
		EXECUTE format('CREATE TABLE event_%s PARTITION OF event FOR VALUES FROM (%L) TO (%L)', d, date_trunc('day', now()) - d * interval '1 day', date_trunc('day', now()) - (d - 1) * interval '1 day');
	END LOOP; END $$;
	INSERT INTO event SELECT n, date_trunc('day', now()) - (n % 1100) * interval '1 day' + interval '1 minute' FROM generate_series(1, 110000) n;
	CREATE TABLE detail (id bigint PRIMARY KEY, event_id bigint NOT NULL, event_at timestamptz NOT NULL, at timestamptz NOT NULL, FOREIGN KEY (event_id, event_at) REFERENCES event ON DELETE CASCADE);
	INSERT INTO detail SELECT id, id, at, at FROM event WHERE id % 5 = 0;
	CREATE INDEX ON event (at); CREATE INDEX ON detail (at); CREATE INDEX ON detail (event_id, event_at);`

// strangers are rows of a thousand tenants that nobody knows, and one that is known.
const strangers = `
	CREATE TABLE message (id bigint PRIMARY KEY, tenant text NOT NULL, at timestamptz NOT NULL);
	INSERT INTO message SELECT n, CASE WHEN n %% 1000 = 0 THEN 'acme' ELSE 'ghost-' || n %% 1000 END, now() - interval '80 days' + n * interval '79 days' / %[1]d FROM generate_series(1, %[1]d) n;
	CREATE INDEX ON message (tenant, at); CREATE INDEX ON message (at);`

// hard is a database that is hard to sweep.
type hard struct {
	name, schema string
	plan         plan.Plan
	// look returns the lines for machines, after the sweep.
	look func(context.Context, *hard) ([]string, error)
	took time.Duration
}

// hardOnes sweeps each once.
func (b *bench) hardOnes(ctx context.Context, unknown int) ([]string, error) {
	seconds := func(name string, left string) func(context.Context, *hard) ([]string, error) {
		return func(ctx context.Context, h *hard) ([]string, error) {
			n, err := b.count(ctx, h.name, left)
			if err == nil && n > 0 {
				err = fmt.Errorf("%d rows that should be gone are left", n)
			}
			return []string{fmt.Sprintf("%s=%.1f", name, h.took.Seconds())}, err
		}
	}
	days := calendar.Or(&v1alpha1.Period{Days: new(int32(30))})
	message := dataset("message", "id")
	message.Table.TenantColumn = "tenant"
	message.Rules[0].Own, message.Delete.Own = 1, 1
	var lines []string
	for _, h := range []*hard{
		{name: "poison", schema: poison, plan: plan.Plan{Datasets: []plan.Dataset{dataset("audit", "id"), dataset("click", "id"), dataset("visit", "id")}}, look: b.poisoned},
		{name: "chain", schema: chain, plan: plan.Plan{Datasets: []plan.Dataset{dataset("version", "id")}}, look: seconds("chain_20000_s", "SELECT count(*) FROM version")},
		{name: "partitions", schema: partitions, plan: plan.Plan{Datasets: []plan.Dataset{dataset("event", "id", "at"), dataset("detail", "id")}},
			look: seconds("partitions_1100_s", "SELECT (SELECT count(*) FROM event WHERE at < now() - interval '91 days') + (SELECT count(*) FROM detail WHERE at < now() - interval '91 days')")},
		{name: "strangers", schema: fmt.Sprintf(strangers, unknown), plan: plan.Plan{Tenancy: v1alpha1.TenancyShared,
			Periods: []calendar.Window{days}, Classes: []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"acme"}}}},
			Datasets: []plan.Dataset{message}},
			look: seconds(fmt.Sprintf("unknown_tenants_%dm_s", unknown/1_000_000), "SELECT count(*) FROM message WHERE tenant = 'acme' AND at < now() - interval '31 days'")},
	} {
		more, err := b.hardOne(ctx, h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

func (b *bench) hardOne(ctx context.Context, h *hard) ([]string, error) {
	if h.plan.Tenancy == "" {
		h.plan.Tenancy = v1alpha1.TenancyDedicated
	}
	spec := v1alpha1.DataStoreSpec{Tenancy: h.plan.Tenancy, Postgres: &v1alpha1.PostgresStore{Database: h.name, Username: role}}
	for _, d := range h.plan.Datasets {
		spec.Datasets = append(spec.Datasets, v1alpha1.Dataset{Name: d.Name, Table: *d.Table})
	}
	if err := b.server.Exec(ctx, "postgres", "CREATE DATABASE "+h.name); err != nil {
		return nil, err
	}
	for _, sql := range []string{h.schema, postgres.Grants(spec), fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password), "VACUUM (ANALYZE)"} {
		if err := b.server.Exec(ctx, h.name, sql); err != nil {
			return nil, err
		}
	}
	r, t, err := b.runPlan(ctx, h.name, h.plan)
	if err != nil {
		return nil, err
	}
	h.took = t.all
	fmt.Printf("%s: %.1fs, %s %s %s\n", h.name, t.all.Seconds(), r.Outcome, r.Reason, r.Message)
	for _, l := range storetest.Lines(r) {
		fmt.Printf("   %s: deleted %d, eligible %d, overdue %d, unknown tenants' %d %s %s\n", l.Dataset, l.Deleted, l.Eligible, l.Overdue, l.UnknownTenant, l.Reason, l.Message)
	}
	// What was not swept or not counted to its end has no time: only the guarded rows are there to be refused.
	if r.Outcome != report.Done && h.name != "poison" {
		return nil, fmt.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
	if h.name == "strangers" && (len(r.Datasets) != 1 || r.Datasets[0].UnknownTenant == 0) {
		return nil, fmt.Errorf("no rows of unknown tenants were counted: %+v", r.Datasets)
	}
	lines, err := h.look(ctx, h)
	return lines, errors.Join(err, b.server.Exec(ctx, "postgres", "DROP DATABASE "+h.name+" WITH (FORCE)"))
}

// poisoned counts what the guarded rows cost, and whose rows stayed because of them.
func (b *bench) poisoned(ctx context.Context, h *hard) ([]string, error) {
	starved := 0
	for _, table := range []string{"click", "visit"} {
		n, err := b.count(ctx, h.name, "SELECT count(*) FROM "+table)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			starved++
		}
	}
	// A session's counts are there when it has ended.
	for {
		n, err := b.count(ctx, h.name, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '"+role+"'")
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
	}
	n, err := b.count(ctx, h.name, "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")
	return []string{fmt.Sprintf("poison_rollbacks=%d", n), fmt.Sprintf("starved_datasets=%d", starved)}, err
}

func (b *bench) count(ctx context.Context, database, sql string) (int64, error) {
	conn, err := b.server.Connect(ctx, database)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	var n int64
	if err := errors.Join(conn.QueryRow(ctx, sql).Scan(&n), conn.Close(ctx)); err != nil {
		return 0, fmt.Errorf("%s: %w", sql, err)
	}
	return n, nil
}
