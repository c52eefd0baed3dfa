// Command sweep measures a sweep against one raw DELETE of the same rows, on the same server, in the same run: the
// shipped role, its statements, foreign keys, a lease, one million messages. Each of three rounds deletes both ways,
// in turns, from a fresh copy of the same database; medians count. Then one sweep of each database that is hard for
// one (hard.go). It ends with lines for machines:
//
//	before_sweep_ratio=    sweep_ratio of an earlier commit's engine, by its own bench, in the same run
//	sweep_ratio=           rows per second of the sweep over those of the raw DELETE
//	poison_rollbacks=      transactions that 100 000 rows cost which a trigger keeps
//	starved_datasets=      datasets beside them whose rows did not go in the same sweep
//	chain_20000_s=         a sweep of 20 000 rows that each refer to the one before
//	partitions_1100_s=     a sweep of 1 100 daily partitions that a foreign key refers to
//	unknown_tenants_20m_s= a sweep of a table with 20 million rows of tenants that nobody knows
//	sweep_txn_max_ms=      longest transaction of all sweeps
//	sweep_premature=       rows gone that should have stayed
//
// Usage: sweep [-rows N] [-rounds N] [-unknown N] [-before COMMIT] [-fsync=false]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/internal/sweep"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/pg"
)

const (
	role     = "lethe_sweeper"
	password = "only-for-the-bench"
	base     = "chat"
	window   = 90
)

// schema of a chat product. Messages are spread over 120 days, so that about a quarter has expired, the oldest first
// in the table, as in a table that is written as time goes by. Every fifth has an attachment of its age. The body is
// what a message weighs.
const schema = `
	CREATE TABLE conversation (id bigint PRIMARY KEY, at timestamptz NOT NULL, title text);
	CREATE TABLE message (id bigint PRIMARY KEY, conversation_id bigint NOT NULL REFERENCES conversation, at timestamptz NOT NULL, body text);
	CREATE TABLE attachment (id bigint PRIMARY KEY, message_id bigint NOT NULL REFERENCES message ON DELETE CASCADE, at timestamptz NOT NULL, media text);
	INSERT INTO conversation SELECT n, now() - interval '120 days' + n * interval '120 days' / %[1]d, 'conversation ' || n FROM generate_series(1, %[1]d) n;
	INSERT INTO message SELECT n, 1 + (n::float8 / %[2]d * (%[1]d - 100))::bigint + n %% 100, now() - interval '120 days' + n * interval '120 days' / %[2]d, repeat(md5(n::text), 4) FROM generate_series(1, %[2]d) n;
	INSERT INTO attachment SELECT n, n * 5, (SELECT at FROM message WHERE id = n * 5), 's3://media/' || md5(n::text) FROM generate_series(1, %[2]d / 5) n;
	CREATE INDEX ON conversation (at); CREATE INDEX ON message (at); CREATE INDEX ON attachment (at);
	CREATE INDEX ON message (conversation_id); CREATE INDEX ON attachment (message_id);`

// raw is what a person would type for the same promise, each table by one statement.
var raw = []string{
	`DELETE FROM attachment WHERE at <= $1`,
	`DELETE FROM message WHERE at <= $1`,
	`DELETE FROM conversation c WHERE at <= $1 AND NOT EXISTS (SELECT FROM message m WHERE m.conversation_id = c.id)`,
}

// premature counts, against the untouched copy, what is gone and should not be, or is there and should be gone.
const left = `SELECT (SELECT count(*) FROM attachment), (SELECT count(*) FROM message), (SELECT count(*) FROM conversation),
	(SELECT count(*) FROM attachment WHERE at <= $1) + (SELECT count(*) FROM message WHERE at <= $1)
	+ (SELECT count(*) FROM conversation c WHERE at <= $1 AND NOT EXISTS (SELECT FROM message m WHERE m.conversation_id = c.id))`

const stay = `SELECT (SELECT count(*) FROM attachment WHERE at > $1), (SELECT count(*) FROM message WHERE at > $1),
	(SELECT count(*) FROM conversation c WHERE at > $1 OR EXISTS (SELECT FROM message m WHERE m.conversation_id = c.id AND m.at > $1))`

type bench struct {
	server  *pg.Server
	leases  *lease.Server
	cutoff  time.Time
	want    [3]int64
	total   int64
	longest time.Duration
	wrong   int64
	resting int // processes of the server without any session
}

func main() {
	messages := flag.Int("rows", 1_000_000, "rows of the largest table")
	rounds := flag.Int("rounds", 3, "rounds of each way")
	unknown := flag.Int("unknown", 20_000_000, "rows of unknown tenants")
	fsync := flag.Bool("fsync", true, "write through to the disk, as a real server does")
	before := flag.String("before", "", "commit whose engine is measured too, \"\" for none")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *before != "" {
		if err := runBefore(ctx, *before, *messages, *rounds, *fsync); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := run(ctx, *messages, *rounds, *unknown, *fsync); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, messages, rounds, unknown int, fsync bool) (err error) {
	s, err := pg.Start(ctx, pg.Options{FSync: fsync, Settings: map[string]string{"max_wal_size": "4GB", "autovacuum": "off"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	dir, err := os.MkdirTemp("", "lethe-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	leases, err := lease.Start(dir, password)
	if err != nil {
		return err
	}
	defer leases.Close()
	b := &bench{server: s, leases: leases}
	if err := b.prepare(ctx, messages); err != nil {
		return err
	}
	fmt.Printf("%d messages, %d rows to delete, fsync %v, longest allowed statement %s\n", messages, b.total, fsync, postgres.StatementTimeout)

	var raws, sweeps, deletes, rawCPU, sweepCPU []float64
	for n := range rounds {
		took, err := b.round(ctx, b.deleteRaw)
		if err != nil {
			return fmt.Errorf("raw DELETE: %w", err)
		}
		raws, rawCPU = append(raws, float64(b.total)/took.all.Seconds()), append(rawCPU, took.cpu.Seconds())
		swept, err := b.round(ctx, b.sweep)
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		sweeps, sweepCPU = append(sweeps, float64(b.total)/swept.all.Seconds()), append(sweepCPU, swept.cpu.Seconds())
		deletes = append(deletes, float64(b.total)/swept.deleting.Seconds())
		fmt.Printf("round %d: raw DELETE %.2fs (%.0f rows/s), sweep %.2fs (%.0f rows/s), of it deleting and verifying %.2fs (%.0f rows/s)\n",
			n+1, took.all.Seconds(), raws[n], swept.all.Seconds(), sweeps[n], swept.deleting.Seconds(), deletes[n])
	}
	fmt.Printf("noise: raw DELETE ±%.0f%%, sweep ±%.0f%%\n", noise(raws), noise(sweeps))
	fmt.Printf("processor time, of the server and the sweeper: raw DELETE %.2fs, sweep %.2fs, ratio %.2f (what the other ratio is on an idle machine)\n",
		median(rawCPU), median(sweepCPU), median(rawCPU)/median(sweepCPU))
	fmt.Printf("deleting and verifying alone, without brake and measurement: %.2f\n", median(deletes)/median(raws))
	lines, err := b.hardOnes(ctx, unknown)
	if err != nil {
		return err
	}
	fmt.Printf("sweep_ratio=%.2f\n", median(sweeps)/median(raws))
	for _, line := range lines {
		fmt.Println(line)
	}
	fmt.Printf("sweep_txn_max_ms=%d\n", b.longest.Milliseconds())
	fmt.Printf("sweep_premature=%d\n", b.wrong)
	return nil
}

func (b *bench) prepare(ctx context.Context, messages int) error {
	fmt.Println("filling the database")
	if err := b.server.Exec(ctx, "postgres", "CREATE DATABASE "+base); err != nil {
		return err
	}
	if err := b.server.Exec(ctx, base, fmt.Sprintf(schema, messages/50, messages)); err != nil {
		return err
	}
	spec := v1alpha1.DataStoreSpec{Postgres: &v1alpha1.PostgresStore{Database: base, Username: role}}
	for _, d := range datasets() {
		spec.Datasets = append(spec.Datasets, v1alpha1.Dataset{Name: d.Name, Table: *d.Table})
	}
	for _, sql := range []string{postgres.Grants(spec), fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password), "VACUUM (ANALYZE, FREEZE)"} {
		if err := b.server.Exec(ctx, base, sql); err != nil {
			return err
		}
	}
	conn, err := b.server.Connect(ctx, base)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	// The raw DELETE takes the cutoff that the sweep finds by itself some seconds later; a moment without rows hides
	// the difference.
	if err := conn.QueryRow(ctx, `SELECT now() - interval '90 days'`).Scan(&b.cutoff); err != nil {
		return fmt.Errorf("choose the cutoff: %w", err)
	}
	if _, err := conn.Exec(ctx, `WITH a AS (DELETE FROM attachment WHERE at > $1 AND at < $1 + interval '1 hour') SELECT`, b.cutoff); err != nil {
		return fmt.Errorf("clear the hour after the cutoff: %w", err)
	}
	for _, sql := range []string{`DELETE FROM message m WHERE at > $1 AND at < $1 + interval '1 hour'`,
		`UPDATE conversation SET at = $1 + interval '2 hours' WHERE at > $1 AND at < $1 + interval '1 hour'`} {
		if _, err := conn.Exec(ctx, sql, b.cutoff); err != nil {
			return fmt.Errorf("clear the hour after the cutoff: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE, FREEZE)"); err != nil {
		return fmt.Errorf("vacuum: %w", err)
	}
	var all int64
	if err := conn.QueryRow(ctx, stay, b.cutoff).Scan(&b.want[0], &b.want[1], &b.want[2]); err != nil {
		return fmt.Errorf("count what stays: %w", err)
	}
	if err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM attachment) + (SELECT count(*) FROM message) + (SELECT count(*) FROM conversation)`).Scan(&all); err != nil {
		return fmt.Errorf("count all: %w", err)
	}
	b.total = all - b.want[0] - b.want[1] - b.want[2]
	return nil
}

type took struct{ all, deleting, cpu time.Duration }

// round runs one way on a fresh copy and holds what is left against what should be.
func (b *bench) round(ctx context.Context, way func(context.Context, string) (took, error)) (took, error) {
	const name = "round"
	for _, sql := range []string{"CREATE DATABASE " + name + " TEMPLATE " + base, "GRANT CONNECT ON DATABASE " + name + " TO " + role, "CHECKPOINT"} {
		if err := b.server.Exec(ctx, "postgres", sql); err != nil {
			return took{}, err
		}
	}
	before, err := b.processor(ctx)
	if err != nil {
		return took{}, err
	}
	t, err := way(ctx, name)
	if err != nil {
		return t, err
	}
	after, err := b.processor(ctx)
	if err != nil {
		return t, err
	}
	t.cpu = after - before
	conn, err := b.server.Connect(ctx, name)
	if err != nil {
		return t, fmt.Errorf("connect: %w", err)
	}
	var got [3]int64
	var late int64
	err = conn.QueryRow(ctx, left, b.cutoff).Scan(&got[0], &got[1], &got[2], &late)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return t, fmt.Errorf("count what is left: %w", err)
	}
	for i := range got {
		b.wrong += max(0, b.want[i]-got[i])
	}
	if late > 0 {
		return t, fmt.Errorf("%d rows that should be gone are left", late)
	}
	return t, b.server.Exec(ctx, "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
}

// processor is the time on a processor that this process and all ended sessions of the server have used. It waits until
// no more than resting children of the server are left: a session counts when it has been waited for.
func (b *bench) processor(ctx context.Context) (time.Duration, error) {
	for {
		n, err := b.children()
		if err != nil {
			return 0, err
		}
		if b.resting == 0 {
			b.resting = n
		}
		if n <= b.resting {
			break
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, fmt.Errorf("read the own processor time: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.server.PID))
	if err != nil {
		return 0, fmt.Errorf("read the server's processor time: %w", err)
	}
	// After the name in brackets come state and numbers; the 14th and 15th are what ended children used, in
	// hundredths of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	total := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for _, field := range fields[13:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the server's processor time: %w", err)
		}
		total += time.Duration(ticks) * 10 * time.Millisecond
	}
	return total, nil
}

// children counts the processes of the server, those that have ended and were not waited for included.
func (b *bench) children() (int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("look for sessions: %w", err)
	}
	parent, n := strconv.Itoa(b.server.PID), 0
	for _, path := range stats {
		stat, _ := os.ReadFile(path) // it may have ended since
		if fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(fields) > 1 && fields[1] == parent {
			n++
		}
	}
	return n, nil
}

func (b *bench) deleteRaw(ctx context.Context, database string) (took, error) {
	conn, err := b.server.Connect(ctx, database)
	if err != nil {
		return took{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	start := time.Now()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range raw {
			if _, err := tx.Exec(ctx, sql, b.cutoff); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	t := time.Since(start)
	return took{all: t, deleting: t}, err
}

func (b *bench) sweep(ctx context.Context, database string) (took, error) {
	p := plan.Plan{Tenancy: v1alpha1.TenancyDedicated, Datasets: datasets()}
	r, t, err := b.runPlan(ctx, database, p)
	if err == nil && r.Outcome != report.Done {
		err = fmt.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
	return t, err
}

// runPlan sweeps a database once by a plan of which only tenancy, tenants and datasets are set.
func (b *bench) runPlan(ctx context.Context, database string, p plan.Plan) (report.Report, took, error) {
	ca, err := os.ReadFile(b.server.CAFile)
	if err != nil {
		return report.Report{}, took{}, fmt.Errorf("read the authority: %w", err)
	}
	client, err := b.leases.Client()
	if err != nil {
		return report.Report{}, took{}, err
	}
	var system string
	conn, err := b.server.Connect(ctx, database)
	if err != nil {
		return report.Report{}, took{}, fmt.Errorf("connect: %w", err)
	}
	err = conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return report.Report{}, took{}, fmt.Errorf("read the identity: %w", err)
	}
	p.Format, p.Store = plan.Format, plan.Store{Namespace: "bench", Name: "chat", UID: "bench"}
	p.Target = plan.Target{Type: v1alpha1.StorePostgres, Postgres: &plan.PostgresTarget{Host: b.server.Host, Port: int32(b.server.Port), Database: database, Username: role, CABundle: string(ca)}}
	p.Database = plan.Database{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: system}, Name: database, Address: p.Target.Address()}
	p.BrakePercent, p.ValidUntil = 100, time.Now().Add(time.Hour)
	watch := &watcher{Handler: slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})}
	start := time.Now()
	r := sweep.Run(ctx, sweep.Options{Plan: p, Engines: stores.Engines{postgres.Engine{}}, Hash: "bench", Leaser: client, Budget: time.Hour, Clock: time.Now, Log: slog.New(watch)})
	b.longest = max(b.longest, watch.longest)
	return r, took{all: time.Since(start), deleting: watch.deleting}, nil
}

// watcher reads from the sweep's own log how long it deleted and how long its longest transaction was.
type watcher struct {
	slog.Handler
	deleting, longest time.Duration
}

func (w *watcher) Enabled(context.Context, slog.Level) bool { return true }

func (w *watcher) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		d, err := time.ParseDuration(a.Value.String())
		switch {
		case err != nil:
		case a.Key == "took":
			w.deleting += d
		case a.Key == "longestTransaction":
			w.longest = max(w.longest, d)
		}
		return true
	})
	return nil
}

func datasets() []plan.Dataset {
	return []plan.Dataset{dataset("conversation", "id"), dataset("message", "id"), dataset("attachment", "id")}
}

// dataset is a table of the window, whose age stands in the column at.
func dataset(name string, key ...v1alpha1.Identifier) plan.Dataset {
	retain := calendar.Or(&v1alpha1.Period{Days: new(int32(window))})
	day, _ := calendar.SlackOf(v1alpha1.Slack{Hours: new(int32(24))}) // a slack that is none would delete nothing
	return plan.Dataset{
		Name: name, DataClass: "Conversations",
		Place:  plan.Place{Table: &v1alpha1.Table{Schema: "public", Name: v1alpha1.Identifier(name), Key: key, AgeColumn: v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeTimestamptz}}},
		Rules:  []plan.Rule{{Policy: "promise", Rule: name, Mode: v1alpha1.PolicyEnforce, RetainFor: retain, DeleteWithin: day}},
		Delete: &plan.Deletion{Policy: "promise", Rule: name, RetainFor: retain},
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// noise is how far the runs lie from their median, in percent.
func noise(v []float64) float64 {
	m, most := median(v), 0.0
	for _, x := range v {
		most = max(most, max(x-m, m-x)/m*100)
	}
	return most
}
