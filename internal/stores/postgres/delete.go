package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Bounds of one batch. A transaction is to stay under half a second also on a busy machine: it lasts at most
// StatementTimeout and what beginning, counting and committing take, and aims at targetBatch.
const (
	StatementTimeout = 350 * time.Millisecond
	lockTimeout      = 150 * time.Millisecond
	targetBatch      = 150 * time.Millisecond

	firstBatch = 1000
	leastBatch = 100
	mostBatch  = 20000

	// A batch grows by no more than this; after one has run into its timeout, carefully: what is rolled back was for
	// nothing.
	fastGrowth, carefulGrowth = 2.0, 1.2

	// retries of a batch that ran into a writer, each with a new snapshot, before it is halved.
	retries = 3

	// rollbackTimeout bounds a ROLLBACK, after which the connection is given up; the server ends what is idle after
	// two seconds.
	rollbackTimeout = 5 * time.Second

	// walkTimeout bounds looking for the end of the next batch, which holds no locks.
	walkTimeout = 5 * time.Second
)

// brakeTimeout bounds counting what a dataset would lose, which is exact and not capped.
const brakeTimeout = 60 * time.Second

// Planned counts the rows that Delete would take from a dataset, and the rows of its table, the latter no further
// than most, which is told the former. The planner's estimate is not asked: of a table that has shrunk since the last
// ANALYZE it tells too much. Children count as gone where they may be deleted themselves.
func (st *Store) Planned(ctx context.Context, i int, at time.Time, most func(planned int64) int64) (planned, rows int64, problem *Problem, err error) {
	d := st.datasets[i]
	if _, ok := d.paths(); !ok {
		return 0, 0, &tooManyPaths, nil
	}
	q := &query{}
	relevant := func(q *query, d *dataset, alias string) string { return d.deletable(q, alias, at) }
	stays := func(q *query, c *dataset, alias string) string {
		if c.Delete == nil || c.problem != nil {
			return "true"
		}
		// One that only waits to hear who is known may go within this sweep, and is counted as if it did.
		return c.past(q, alias, *c.Delete, at, true) + " IS NOT TRUE"
	}
	return st.countAgainst(ctx, d, q, all(append([]string{d.deletable(q, "a", at)}, none(d.reaches(q, "a", relevant, stays))...)...), most)
}

// Expired is Planned for the impatient: it counts what has expired, whether or not other rows refer to it. It is
// never less.
func (st *Store) Expired(ctx context.Context, i int, at time.Time, most func(expired int64) int64) (expired, rows int64, problem *Problem, err error) {
	d, q := st.datasets[i], &query{}
	return st.countAgainst(ctx, d, q, d.deletable(q, "a", at), most)
}

func (st *Store) countAgainst(ctx context.Context, d *dataset, q *query, where string, most func(int64) int64) (counted, rows int64, problem *Problem, err error) {
	if d.Delete == nil || d.blocked() != nil {
		return 0, 0, nil, nil
	}
	if err := st.setTimeout(ctx, brakeTimeout); err != nil {
		return 0, 0, nil, err
	}
	err = st.session.conn.QueryRow(ctx, "SELECT count(*) FROM "+d.name()+" a WHERE "+where, q.args...).Scan(&counted)
	if err == nil {
		err = st.session.conn.QueryRow(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+d.name()+" a LIMIT $1) c", most(counted)).Scan(&rows)
	}
	problem, err = split(err)
	return counted, rows, problem, err
}

// Delete deletes from a dataset what expired before at, in short transactions, again from the start until a whole
// pass finds nothing. A row goes when it is past its window and its floor and no row of any dataset refers to it any
// more. The error is about the connection, the context or the permit, or ErrPaused; whatever was committed until then
// is in Deletion, which counts all turns of the dataset.
func (st *Store) Delete(ctx context.Context, i int, at time.Time, permit Permit) (Deletion, error) {
	d := st.datasets[i]
	if d.Delete == nil || d.blocked() != nil {
		if w := st.walkers[i]; w != nil {
			return *w.out, nil // the problem came between two turns
		}
		return Deletion{}, nil
	}
	if err := st.setTimeout(ctx, walkTimeout); err != nil {
		return Deletion{}, err
	}
	w := st.walkers[i]
	if w == nil {
		w = st.walker(d, at, permit, &Deletion{})
		st.walkers[i] = w
	}
	w.permit = permit
	if w.ended {
		w.begin() // other datasets may have lost rows that kept some of this one
	}
	before := w.out.Rows
	for {
		problem, err := w.split(ctx, w.sweepOnce(ctx))
		switch {
		case errors.Is(err, ErrPaused):
			if failed := st.flush(ctx, w.out.Rows-before); failed != nil {
				err = failed
			}
			return *w.out, err
		case err != nil:
			return *w.out, err
		case problem != nil:
			w.out.Problem = problem
		}
		if problem != nil || !w.found {
			w.ended = true
			return *w.out, st.flush(ctx, w.out.Rows-before)
		}
		w.begin()
	}
}

// flush waits until what was committed is on the disk: batches do not wait for it. A server that crashes before has
// the rows back, and the next sweep deletes them again; what is reported as deleted must stay so.
func (st *Store) flush(ctx context.Context, rows int64) error {
	if rows == 0 {
		return nil
	}
	m, err := st.session.Mark(ctx)
	if err == nil {
		err = st.session.awaitDisk(ctx, m.position)
	}
	if err != nil {
		return fmt.Errorf("make the deletion durable: %w", err)
	}
	return nil
}

// begin opens a batch. The limits are the transaction's own, and constants. Waiting for the disk is left to flush.
var begin = []string{
	"BEGIN ISOLATION LEVEL REPEATABLE READ",
	fmt.Sprintf("SET LOCAL statement_timeout = %d", StatementTimeout.Milliseconds()),
	fmt.Sprintf("SET LOCAL lock_timeout = %d", lockTimeout.Milliseconds()),
	"SET LOCAL idle_in_transaction_session_timeout = 2000",
	"SET LOCAL synchronous_commit = off",
	// What a deferred trigger does is to be seen before COMMIT.
	"SET CONSTRAINTS ALL IMMEDIATE",
	// Each foreign key has an index, and a batch is small: looking up its rows one by one is right, and hashing or
	// reading all of a child's table for each batch, which the planner likes for middling tables, makes a sweep
	// quadratic. What is off costs so much to the planner that it would compile each statement of a trigger: minutes
	// for some ten thousand rows.
	"SET LOCAL jit = off",
	"SET LOCAL enable_hashjoin = off", "SET LOCAL enable_mergejoin = off", "SET LOCAL enable_seqscan = off", "SET LOCAL enable_material = off",
}

// touched counts what the transaction has deleted or changed so far: in the dataset's own table, in others, and
// changes in tables with a floor.
const touched = `SELECT (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_deleted(o)), 0)::int8 FROM pg_catalog.unnest($1::oid[]) o),
	(SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_deleted(o)), 0)::int8 FROM pg_catalog.unnest($2::oid[]) o),
	(SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_updated(o)), 0)::int8 FROM pg_catalog.unnest($3::oid[]) o)`

// batch deletes one range in one transaction, and adapts the size of the next to how long it took.
func (w *walker) batch(ctx context.Context, from, to cursor) (int64, error) {
	if err := w.permit.Begin(int64(w.size)); err != nil {
		return 0, err
	}
	clock := w.st.session.clock
	start := clock()
	rows, err := w.transaction(ctx, from, to, func(rows int64) { w.adapt(rows, clock().Sub(start)) })
	w.out.Longest = max(w.out.Longest, clock().Sub(start))
	if err != nil {
		return 0, err
	}
	w.out.Rows += rows
	w.out.Batches++
	w.found = w.found || rows > 0
	w.d.rows -= min(rows, w.d.rows)
	return rows, nil
}

// adapt aims the next batch at targetBatch by how long this one took.
func (w *walker) adapt(rows int64, took time.Duration) {
	growth := w.growth
	if w.size < leastBatch {
		growth = fastGrowth // single rows were tried after one that could not go
	}
	factor := min(growth, max(0.5, float64(targetBatch)/float64(max(took, time.Millisecond))))
	if rows < int64(w.size)/2 {
		factor = min(1, factor) // a small batch says nothing about a larger one
	}
	w.size = min(mostBatch, max(w.least, int(float64(w.size)*factor+0.5)))
	if rows > 0 && w.size > leastBatch {
		w.least = leastBatch
	}
}

// transaction deletes one range. It takes two turns to the server: begin, delete and count; then, if the lease still
// holds, commit. deleted is called between them.
func (w *walker) transaction(ctx context.Context, from, to cursor, deleted func(int64)) (rows int64, err error) {
	conn := w.st.session.conn
	defer func() {
		if err != nil && !conn.IsClosed() {
			// The caller's context may have ended; a transaction left open would keep its locks.
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
			defer cancel()
			_, _ = conn.PgConn().Exec(bounded, "ROLLBACK").ReadAll()
		}
	}()
	rows, err = w.deleteRange(ctx, from, to)
	if err != nil {
		return 0, err
	}
	deleted(rows)
	if err := w.permit.Commit(rows); err != nil {
		return 0, err
	}
	return rows, w.commit(ctx)
}

// peels is how often one transaction deletes again from a range of a table whose rows refer to each other by ON
// DELETE RESTRICT: each statement takes the rows that nothing refers to, and so uncovers the next.
const peels = 32

func (w *walker) deleteRange(ctx context.Context, from, to cursor) (rows int64, err error) {
	q := &query{}
	statement, again := w.deletion(q, from, to), 1
	b := &pgx.Batch{}
	settings := begin
	if len(w.d.self()) > 0 {
		settings = append(slices.Clone(begin), "SET LOCAL enable_hashjoin = on") // the rows of a range among each other
	}
	if w.d.restrictsItself() {
		again = peels
	}
	for _, sql := range settings {
		b.Queue(sql)
	}
	b.Queue("SELECT pg_catalog.set_config('search_path', $1, true)", w.st.session.path)
	b.Queue(touched, w.own, w.other, w.floor)
	for range again {
		b.Queue(statement, q.args...)
	}
	b.Queue(touched, w.own, w.other, w.floor)
	results := w.st.session.conn.SendBatch(ctx, b)
	var before, after [3]int64
	for range settings {
		if err == nil {
			_, err = results.Exec()
		}
	}
	if err == nil {
		_, err = results.Exec()
	}
	if err == nil {
		err = results.QueryRow().Scan(&before[0], &before[1], &before[2])
	}
	for range again {
		if err == nil {
			tag, failed := results.Exec()
			rows, err = rows+tag.RowsAffected(), failed
		}
	}
	if err == nil {
		err = results.QueryRow().Scan(&after[0], &after[1], &after[2])
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return 0, fmt.Errorf("delete from %s: %w", w.d.Name, err)
	}
	return rows, w.sideEffect(rows, before, after)
}

// deletion writes the DELETE of one range. Where rows of the table refer to each other, a row goes together with
// those that refer to it: all that may go are gathered, those are put back that a row refers to which stays, and what
// these refer to.
func (w *walker) deletion(q *query, from, to cursor) string {
	d := w.d
	where := w.where(q, from, to)
	var together []*link
	for _, l := range d.children {
		if l.child == d && l.onDelete != "r" {
			together = append(together, l)
			continue
		}
		where = append(where, d.unreferred(l))
	}
	if len(together) == 0 {
		return "DELETE FROM " + d.name() + " a WHERE " + all(where...)
	}
	columns := slices.Clone(d.key)
	var referred, refers []string
	for _, l := range together {
		for _, k := range slices.Concat(l.childColumns, l.parentColumns) {
			if !slices.Contains(columns, k) {
				columns = append(columns, k)
			}
		}
		referred = append(referred, fmt.Sprintf("EXISTS (SELECT 1 FROM %s c WHERE %s AND NOT (%s) AND NOT EXISTS (SELECT 1 FROM goes x WHERE %s))",
			d.name(), equal("c", l.childColumns, "g", l.parentColumns), equal("c", d.key, "g", d.key), equal("x", d.key, "c", d.key)))
		refers = append(refers, "("+equal("y", l.childColumns, "g", l.parentColumns)+")")
	}
	return fmt.Sprintf(`WITH RECURSIVE goes AS MATERIALIZED (SELECT %s FROM %s a WHERE %s),
		stays AS (SELECT %s FROM goes g WHERE %s UNION SELECT %s FROM stays s JOIN goes y ON %s JOIN goes g ON %s)
		DELETE FROM %s a WHERE EXISTS (SELECT 1 FROM goes x WHERE %s) AND NOT EXISTS (SELECT 1 FROM stays x WHERE %s)`,
		columnList("a", columns), d.name(), all(where...),
		columnList("g", d.key), strings.Join(referred, " OR "), columnList("g", d.key), equal("y", d.key, "s", d.key), strings.Join(refers, " OR "),
		d.name(), equal("x", d.key, "a", d.key), equal("x", d.key, "a", d.key))
}

// restrictsItself says whether rows of the table refer to each other so that none can go in one statement with those
// that refer to it.
func (d *dataset) restrictsItself() bool {
	return slices.ContainsFunc(d.self(), func(l *link) bool { return l.onDelete == "r" })
}

func (w *walker) commit(ctx context.Context) error {
	tag, err := w.st.session.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %s", tag)
	}
	if err != nil {
		return fmt.Errorf("commit a batch of %s: %w", w.d.Name, err)
	}
	return nil
}

// unreferred is true of a row that no row refers to through l. A row that refers to itself does not count.
func (d *dataset) unreferred(l *link) string {
	refers := equal("c", l.childColumns, "a", l.parentColumns)
	if l.child == d {
		refers += " AND NOT (" + equal("c", d.key, "a", d.key) + ")"
	}
	return fmt.Sprintf("NOT EXISTS (SELECT 1 FROM %s c WHERE %s)", qualified(l.edge.child), refers)
}

// sideEffect compares what the transaction did to what the DELETE says it did. Triggers are the users' own code: one
// that deletes other rows, or keeps rows, or changes what a floor protects, makes this dataset unfit for sweeping.
func (w *walker) sideEffect(rows int64, before, after [3]int64) error {
	var what string
	switch {
	case after[1] != before[1]:
		what = "deleted rows of other tables"
	case after[0]-before[0] != rows:
		what = "deleted more rows of it than have expired"
	case after[2] != before[2]:
		what = "changed rows of a table that has a floor"
	default:
		return nil
	}
	return &datasetError{Problem{Reason: v1alpha1.ReasonSideEffect, Message: fmt.Sprintf(
		"deleting expired rows of %s also %s, so it was rolled back: change the triggers (%s) or the foreign keys", w.d.table, what, strings.Join(w.d.triggerNames(), ", "))}}
}
