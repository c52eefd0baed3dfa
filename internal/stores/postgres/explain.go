package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// notAvailable is the SQLSTATE of a lock that was not to be had in time (lock_not_available).
const notAvailable = "55P03"

// unnamed are the SQLSTATEs of code that names something which is not there: table, function, column, object, schema.
var unnamed = []string{"42P01", "42883", "42703", "42704", "3F000"}

// explain tells why rows could not be deleted, by what the catalogue knows of the table: the server's own words can
// repeat values of a row.
func (w *walker) explain(err error) *Problem {
	t, c := w.d.table, code(err)
	reason, message := explain(err)
	p := &Problem{Reason: reason, Message: message}
	culprits := w.culprits(err)
	running := make([]string, 0, len(culprits))
	for _, g := range culprits {
		running = append(running, g.String())
	}
	who := strings.Join(running, ", ")
	switch {
	case conflict(err):
		p.Message = fmt.Sprintf("rows are changed or referred to again and again by other sessions%s", w.throughKey(err))
	case c == timedOut:
		p.Message = fmt.Sprintf("deleting a single row of %s did not end within %s: it is very large, or what runs for each row is slow; delete it by hand, or make that faster", t, StatementTimeout)
		if who != "" {
			p.Message += " (" + who + ")"
		}
	case reason != v1alpha1.ReasonStoreError || who == "":
	case slices.Contains(unnamed, c):
		p.Reason = v1alpha1.ReasonGuarded
		p.Message = fmt.Sprintf("%s does not find something that it names (SQLSTATE %s), since it runs under the search_path of the sweeper's role: ALTER FUNCTION %s SET search_path = %s, pg_temp",
			who, c, culprits[0].function, ident(t.schema))
	default:
		p.Reason = v1alpha1.ReasonGuarded
		p.Message = fmt.Sprintf("%s does not let rows of %s go (SQLSTATE %s): change it so that rows past their window may go, or declare what it keeps as a floor", who, t, c)
	}
	return p
}

// throughKey names the foreign key of an error, as the catalogue knows it.
func (w *walker) throughKey(err error) string {
	for _, e := range w.st.cat.into(w.d.table) {
		if !e.declared && names(err, e.name, "") {
			return fmt.Sprintf(" (foreign key %s of %s)", foreign.Name(e.name), e.child)
		}
	}
	return ""
}

// culprits are the triggers that an error may come from: those whose function the server names, else all that run.
func (w *walker) culprits(err error) []trigger {
	all := w.st.cat.runningTriggers(w.d.table)
	named := slices.DeleteFunc(slices.Clone(all), func(g trigger) bool { return !names(err, "", g.called) })
	if len(named) > 0 {
		return named
	}
	return all
}

// runningTriggers are those of a table that run when a row of it is deleted, and those that run where a foreign key
// carries the deletion on.
func (c *catalogue) runningTriggers(t *table) []trigger {
	var out []trigger
	seen := map[*table]bool{}
	var visit func(t *table)
	visit = func(t *table) {
		if seen[t] {
			return
		}
		seen[t] = true
		out = append(out, t.deleteTriggers...)
		for _, e := range c.into(t) {
			switch {
			case e.onDelete == "c":
				visit(e.child)
			case e.detaches():
				out = append(out, e.child.updateTriggers...)
			}
		}
	}
	visit(t)
	return out
}

// tableLock says who has a table that deleting needs locked as a whole; nil: nobody, or it cannot be seen.
func (st *Store) tableLock(ctx context.Context, d *dataset) *Problem {
	tables := slices.Clone(d.table.leaves)
	for _, l := range d.children {
		tables = append(tables, l.child.table.leaves...)
	}
	var oid uint32
	var mode string
	var pid int32
	err := st.session.conn.QueryRow(ctx, `SELECT relation, mode, pid FROM pg_locks WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = ANY($1::oid[])
		AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') ORDER BY mode LIMIT 1`, append(tables, d.table.oid)).Scan(&oid, &mode, &pid)
	if err != nil || st.cat.tables[oid] == nil {
		return nil // nobody, or not to be seen: single rows then
	}
	return &Problem{Reason: v1alpha1.ReasonLocked, Message: fmt.Sprintf("another session (pid %d) has locked %s as a whole (%s), so nothing of this dataset can go now: see pg_stat_activity for what it does",
		pid, st.cat.tables[oid], foreign.Word(mode))}
}

// split is split for a walk, whose problem may be a lock on the whole table.
func (w *walker) split(ctx context.Context, err error) (*Problem, error) {
	if code(err) == notAvailable {
		if p := w.st.tableLock(ctx, w.d); p != nil {
			return p, nil
		}
	}
	return split(err)
}

// checkIdentity refuses a table whose deletions a publication passes on, and that has nothing by which to tell its
// rows: the server refuses each deletion then.
func (d *dataset) checkIdentity(tables map[uint32]*table) {
	for _, oid := range append([]uint32{d.table.oid}, d.table.leaves...) {
		t := tables[oid]
		if t != nil && t.unidentified != "" {
			d.refuse(v1alpha1.ReasonReplicaIdentity, "publication %s passes deletions of %s on, which has no replica identity, so the server refuses to delete: ALTER TABLE %s REPLICA IDENTITY USING INDEX …, or ALTER PUBLICATION … SET (publish = 'insert, update')",
				foreign.Name(t.unidentified), t, qualified(t))
			return
		}
	}
}
