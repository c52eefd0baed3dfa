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

// walker goes over the expired rows of a dataset in an order that an index has, one range after another.
type walker struct {
	st     *Store
	d      *dataset
	at     time.Time
	permit Permit
	out    *Deletion

	order  []*column // what the walk goes by
	desc   bool
	inside *between // what the walk keeps within, beside what has expired
	size   int      // rows that the next range is to have
	least  int      // and has at least
	growth float64
	lanes  []lane  // together they are what may be deleted
	lane   int     // which of them the pass has come to
	inner  *walker // goes over rows of one age, and was paused there
	place  cursor  // where in it
	found  bool    // whether the pass has deleted anything
	ended  bool    // a whole pass has found nothing

	own   []uint32 // tables that hold the dataset's rows
	other []uint32 // every other table
	floor []uint32 // of those, the ones with a floor
}

// between is a range of another walk.
type between struct {
	walk     *walker
	from, to cursor
}

func (st *Store) walker(d *dataset, at time.Time, permit Permit, out *Deletion) *walker {
	w := &walker{st: st, d: d, at: at, permit: permit, out: out, size: firstBatch, least: leastBatch, growth: fastGrowth, lanes: d.lanes(at), own: d.table.leaves}
	switch {
	case !d.table.leads(d.age):
		// Without an index on the age one walk by the key reads the table once; one by age would sort it for each
		// batch.
		w.order = d.walkKey()
	case d.Table.AgeColumn.Type == v1alpha1.AgeDate:
		w.order = append([]*column{d.age}, d.key...) // many rows share a day
	default:
		w.order = []*column{d.age}
	}
	// Answers are younger than what they answer: the newest first, so that what refers goes before what is referred to.
	w.desc = w.order[0] == d.age && len(d.self()) > 0
	for oid, t := range st.cat.tables {
		if t.kind != "p" && !slices.Contains(w.own, oid) {
			w.other = append(w.other, oid)
		}
	}
	for _, o := range st.datasets {
		if o != d && o.table != nil && o.Floor != nil {
			w.floor = append(w.floor, o.table.leaves...)
		}
	}
	return w
}

// leads says whether an index begins with the column.
func (t *table) leads(k *column) bool {
	for _, x := range t.indexes {
		if x.usable && len(x.columns) > 0 && x.columns[0] == k.number {
			return true
		}
	}
	return false
}

// walkKey is the key in the order in which an index has it.
func (d *dataset) walkKey() []*column {
	for _, x := range d.table.indexes {
		if !x.unique {
			continue
		}
		var out []*column
		for _, n := range x.columns {
			for _, k := range d.key {
				if k.number == n {
					out = append(out, k)
				}
			}
		}
		if len(out) == len(x.columns) {
			return out
		}
	}
	return d.key
}

// cursor is a place in the walk, as text: the types are the server's own. nil is the beginning or the end.
type cursor []string

// begin begins a pass anew: what was skipped is tried again.
func (w *walker) begin() {
	w.lane, w.place, w.inner, w.found, w.ended = 0, nil, nil, false, false
	w.out.Skipped, w.out.Problem = 0, nil
}

// sweepOnce goes once over all expired rows, from where it was paused.
func (w *walker) sweepOnce(ctx context.Context) error {
	if w.inner != nil {
		if err := w.goInside(ctx); err != nil {
			return err
		}
	}
	for w.lane < len(w.lanes) {
		if w.permit.Pause != nil && w.permit.Pause() {
			return ErrPaused
		}
		to, size, err := w.next(ctx, w.place)
		if err != nil {
			return err
		}
		if err := w.finish(ctx, w.place, to, size); err != nil {
			return err
		}
		if w.place = to; to == nil {
			w.lane++
		}
	}
	return nil
}

// next finds the end of a range of size rows that begins after from; nil: the rest is smaller. Rows of the same age
// as the last belong to it.
func (w *walker) next(ctx context.Context, from cursor) (to cursor, size int, err error) {
	for {
		to, err := w.look(ctx, from)
		if code(err) == timedOut && ctx.Err() == nil && w.size > leastBatch {
			w.size = max(leastBatch, w.size/2)
			continue
		}
		return to, w.size, err
	}
}

func (w *walker) look(ctx context.Context, from cursor) (cursor, error) {
	q := &query{}
	return w.scan(w.st.session.conn.QueryRow(ctx, w.lookup(q, from), q.args...))
}

// lookup writes the question for the end of the next range.
func (w *walker) lookup(q *query, from cursor) string {
	columns, sorted := make([]string, 0, len(w.order)), make([]string, 0, len(w.order))
	for _, k := range w.order {
		columns = append(columns, dotted("a", k)+"::text")
		sorted = append(sorted, dotted("a", k)+map[bool]string{true: " DESC"}[w.desc])
	}
	return fmt.Sprintf("SELECT %s FROM %s a WHERE %s ORDER BY %s OFFSET %s LIMIT 1",
		strings.Join(columns, ", "), w.d.name(), all(w.where(q, from, nil)...), strings.Join(sorted, ", "), q.arg(w.size-1, "bigint"))
}

func (w *walker) scan(row pgx.Row) (cursor, error) {
	to := make(cursor, len(w.order))
	into := make([]any, len(to))
	for i := range to {
		into[i] = &to[i]
	}
	err := row.Scan(into...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the next batch of %s: %w", w.d.Name, err)
	}
	return to, nil
}

// where lists what rows of a range meet: they may be deleted, lie after from and not after to, and inside what the
// walk keeps within. From a cursor to the same cursor are the rows that have it.
func (w *walker) where(q *query, from, to cursor) []string {
	out := []string{w.lanes[w.lane](q, "a")}
	if in := w.inside; in != nil {
		out = append(out, in.walk.bounds(q, in.from, in.to)...)
	}
	return append(out, w.bounds(q, from, to)...)
}

func (w *walker) bounds(q *query, from, to cursor) []string {
	var out []string
	if from != nil && slices.Equal(from, to) {
		return []string{w.compare(q, to, opEqual)}
	}
	if from != nil {
		out = append(out, w.compare(q, from, map[bool]string{false: opMore, true: opLess}[w.desc]))
	}
	if to != nil {
		out = append(out, w.compare(q, to, map[bool]string{false: opAtMost, true: opAtLeast}[w.desc]))
	}
	return out
}

func (w *walker) compare(q *query, m cursor, operator string) string {
	return fmt.Sprintf("(%s) %s (%s)", columnList("a", w.order), operator, w.values(q, m))
}

func (w *walker) values(q *query, m cursor) string {
	values := make([]string, 0, len(m))
	for i, k := range w.order {
		// Of the column's own type, so that the planner knows it, and leaves out the partitions that lie elsewhere.
		values = append(values, q.arg(m[i], k.typ))
	}
	return strings.Join(values, ", ")
}

// What cannot be deleted must cost little: after mostRollbacks rolled back transactions, and two more for each that
// succeeded, the dataset is left for this sweep. So rows that go pay for finding the ones beside them that do not.
const mostRollbacks = 70

// finish deletes a range: at once, or when that fails, in halves. What cannot be deleted even alone is skipped, so
// that one row does not keep all others.
func (w *walker) finish(ctx context.Context, from, to cursor, size int) error {
	for attempt := 0; ; attempt++ {
		rows, err := w.batch(ctx, from, to)
		if err == nil && rows > 0 && w.d.restrictsItself() {
			attempt = -1
			continue // what referred to a row of this range may be gone now
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrRepeat) && ctx.Err() == nil {
			attempt-- // Begin says when it is enough
			continue
		}
		if code(err) == "" || ctx.Err() != nil {
			return err
		}
		w.out.Rollbacks++
		if p := w.hopeless(ctx, err); p != nil {
			return &datasetError{*p}
		}
		if conflict(err) && attempt < retries {
			continue
		}
		w.growth = carefulGrowth
		switch {
		case size > 1:
			return w.halve(ctx, from, to, size)
		case w.byAge():
			return w.sameAge(ctx, from, to)
		}
		w.least = 1
		w.skip(err)
		return nil
	}
}

// timedOut is the SQLSTATE of a statement that did not end in its time: smaller ranges may.
const timedOut = "57014"

// hopeless says why the dataset is to be left after an error; nil: what else there is may go.
func (w *walker) hopeless(ctx context.Context, err error) *Problem {
	if code(err) == notAvailable {
		if p := w.st.tableLock(ctx, w.d); p != nil {
			return p
		}
	}
	if w.out.Rollbacks < mostRollbacks+2*w.out.Batches {
		return nil
	}
	p := w.explain(err)
	p.Message += fmt.Sprintf("; %d attempts failed, so the rest of this dataset was left for now", w.out.Rollbacks)
	return p
}

// conflict is an error that a new snapshot may cure: another session changed or referred to a row of the batch
// meanwhile.
func conflict(err error) bool {
	switch code(err) {
	case "40001", "40P01", "23503", "23001":
		return true
	}
	return false
}

// halve goes over a range again in batches of half the size.
func (w *walker) halve(ctx context.Context, from, to cursor, size int) error {
	w.size = max(1, size/2)
	w.least = min(w.least, w.size)
	for {
		next, size, err := w.next(ctx, from)
		if err != nil {
			return err
		}
		if size == 1 {
			// This is the next row. There is none, it lies further on, or it is deleted without a search for it:
			// between it and the one before may lie millions that stay.
			if next == nil || to != nil && !slices.Equal(next, to) && w.past(ctx, next, to) {
				return nil
			}
			if err := w.finish(ctx, next, next, 1); err != nil || slices.Equal(next, to) {
				return err
			}
			from = next
			continue
		}
		if next == nil {
			return w.finish(ctx, from, to, size)
		}
		if to != nil && w.past(ctx, next, to) {
			if w.byAge() {
				return w.sameAge(ctx, from, to)
			}
			return w.finish(ctx, from, to, size)
		}
		if err := w.finish(ctx, from, next, size); err != nil {
			return err
		}
		from = next
	}
}

// byAge says whether rows of one age cannot be told apart in the walk.
func (w *walker) byAge() bool { return w.inside == nil && len(w.order) == 1 && w.order[0] == w.d.age }

// sameAge goes by key over a range whose rows are of one age, or mostly, and too many for one batch: an import has
// made them.
func (w *walker) sameAge(ctx context.Context, from, to cursor) error {
	by := *w
	w.inner = &by
	by.order, by.desc, by.inside, by.size, by.place = w.d.walkKey(), false, &between{w, from, to}, leastBatch, nil
	by.lanes, by.lane, by.inner = w.lanes[w.lane:w.lane+1], 0, nil
	return w.goInside(ctx)
}

// goInside goes on over rows of one age. Paused there, the walk keeps its place, and goes on there with its next turn.
func (w *walker) goInside(ctx context.Context) error {
	w.inner.permit = w.permit
	err := w.inner.sweepOnce(ctx)
	w.found = w.found || w.inner.found
	if !errors.Is(err, ErrPaused) {
		w.inner = nil
	}
	return err
}

// past says whether cursor a lies at or after b; the server compares, since the types are its own.
func (w *walker) past(ctx context.Context, a, b cursor) bool {
	q := &query{}
	var past bool
	statement := fmt.Sprintf("SELECT (%s) %s (%s)", w.values(q, a), map[bool]string{false: ">=", true: "<="}[w.desc], w.values(q, b))
	// On an error the range is finished as a whole, where the error shows again.
	return w.st.session.conn.QueryRow(ctx, statement, q.args...).Scan(&past) != nil || past
}

func (w *walker) skip(err error) {
	w.out.Skipped++
	w.out.Problem = w.explain(err)
}
