package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/report"
)

// Bounds of one measurement.
const (
	// MeasureTimeout ends a statement: its line is then unknown, never zero.
	MeasureTimeout = 5 * time.Second
	// readLockTimeout ends waiting for a table that somebody has locked even for reading.
	readLockTimeout = time.Second
)

// Measure counts what a dataset holds, and for each of its rules what is past its window, overdue and kept, and why.
// It changes nothing. What has a Reason was not measured, or not wholly; its numbers mean nothing then. The error is
// about the connection only.
func (st *Store) Measure(ctx context.Context, i int, clocks Clocks) (report.Dataset, error) {
	d := st.datasets[i]
	out := report.Dataset{Name: d.Name}
	if d.problem != nil {
		out.Reason, out.Message = d.problem.Reason, d.problem.Message
	}
	if out.Reason == "" && d.nameless != "" {
		out.Reason, out.Message = v1alpha1.ReasonNotReached, d.nameless+", so that rows of unknown tenants are not told from others"
	}
	if !d.unmeasurable {
		if err := st.setTimeout(ctx, MeasureTimeout); err != nil {
			return out, err
		}
		if err := unlessLost(st.measureTable(ctx, d, clocks, &out), &out.Problem); err != nil {
			return out, err
		}
		if out.Reason == "" && out.UnknownTenant > 0 && d.ambiguousTenants() {
			out.Reason, out.Message = v1alpha1.ReasonUnclearTenant, fmt.Sprintf(
				"column %s of %s is %s, which can hold none of the externalIDs of a tenant with a shorter window, and there are rows of unknown tenants, which may be its: correct spec.externalIDs of the Tenant",
				d.tenant.name, d.table, d.tenant.typ)
		}
	}
	if d.against != "" && out.Reason == "" {
		out.Reason, out.Message = v1alpha1.ReasonContradiction, d.against
	}
	if len(d.Rules) == 0 {
		if out.Reason == "" {
			out.Reason, out.Message = v1alpha1.ReasonUngoverned, "no rule governs this dataset: add one for its dataClass to a DataRetentionPolicy that selects the store"
		}
		return out, nil
	}
	for _, r := range d.Rules {
		rule := report.Rule{Policy: r.Policy, Rule: r.Rule}
		if !d.unmeasurable {
			if err := unlessLost(st.measureRule(ctx, d, r, clocks, &rule), &rule.Problem); err != nil {
				return out, err
			}
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

// Overdue counts only what is overdue, for each rule of a dataset. One with a Reason was not measured.
func (st *Store) Overdue(ctx context.Context, i int, clocks Clocks) ([]report.Rule, error) {
	d := st.datasets[i]
	if d.unmeasurable || len(d.Rules) == 0 {
		return nil, nil
	}
	if err := st.setTimeout(ctx, MeasureTimeout); err != nil {
		return nil, err
	}
	var rules []report.Rule
	for _, r := range d.Rules {
		rule := report.Rule{Policy: r.Policy, Rule: r.Rule}
		paths, at, err := d.overdueAt(r, clocks)
		if err == nil {
			err = st.measureOverdue(ctx, d, r, paths, at, &rule)
		}
		if err := unlessLost(err, &rule.Problem); err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// overdueAt is the time at which a row must have been past its window to be overdue now, and the ways down from the
// dataset.
func (d *dataset) overdueAt(r Rule, clocks Clocks) (paths [][]*link, at time.Time, err error) {
	paths, ok := d.paths()
	if !ok {
		return nil, at, &datasetError{tooManyPaths}
	}
	return paths, clocks.Late.Add(-r.DeleteWithin.Duration()), nil
}

func (st *Store) setTimeout(ctx context.Context, most time.Duration) error {
	_, err := st.session.conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d; SET lock_timeout = %d", most.Milliseconds(), readLockTimeout.Milliseconds()))
	if err != nil {
		return fmt.Errorf("set the statement timeout: %w", err)
	}
	return nil
}

// unlessLost notes what the server said, and passes on only what ended the connection. That something was not counted
// goes before whatever else is noted: the numbers mean nothing.
func unlessLost(err error, noted *v1alpha1.Problem) error {
	problem, lost := split(err)
	if problem != nil {
		*noted = *problem
	}
	return lost
}

// split tells a problem of one dataset from what ended the connection. Of both there is one at most.
func split(err error) (*Problem, error) {
	if reason, message := explain(err); reason != "" {
		return &Problem{Reason: reason, Message: message}, nil
	}
	return nil, err
}

// explain turns an answer of the server into a reason; empty: the connection is lost or the caller gave up.
func explain(err error) (reason, message string) {
	switch c := code(err); c {
	case "":
		var h *datasetError
		if errors.As(err, &h) {
			return h.Reason, h.Message
		}
		return "", ""
	case notAvailable:
		return v1alpha1.ReasonLocked, "rows or the table are locked by other sessions for long: look for transactions that stay open"
	case timedOut:
		return v1alpha1.ReasonTimeout, "a statement did not end in its time: an index on the age column (and on the tenant column before it) makes it fast"
	case "42501":
		return v1alpha1.ReasonMissingPrivilege, "the role lacks a privilege (SQLSTATE 42501): run the SQL that 'kubectl lethe grants' prints"
	default:
		// The server's own text can repeat values of a row.
		return v1alpha1.ReasonStoreError, "the store answered with SQLSTATE " + c + ": see the server's log"
	}
}

// datasetError carries a Problem up to where it is noted.
type datasetError struct{ Problem }

func (h *datasetError) Error() string { return h.Message }

var tooManyPaths = Problem{Reason: v1alpha1.ReasonUnsupportedTable, Message: fmt.Sprintf("more than %d ways lead down the foreign keys from this table", maxPaths)}

// measureTable reads what holds for the table as a whole.
func (st *Store) measureTable(ctx context.Context, d *dataset, clocks Clocks, out *report.Dataset) error {
	rows, err := st.rows(ctx, d)
	if err != nil {
		return err
	}
	out.Rows = rows
	q := &query{}
	oldest := fmt.Sprintf("(SELECT min(%s) FROM %s a WHERE %s >= %s)", d.instant("a"), d.name(), dotted("a", d.age), d.plausible())
	var age *time.Time
	err = st.session.conn.QueryRow(ctx, "SELECT "+capped(d.name()+" a", d.unknownAge(q, "a", clocks.Late))+", "+oldest, q.args...).Scan(&out.UnknownAge, &age)
	if err != nil {
		return fmt.Errorf("measure %s: %w", d.Name, err)
	}
	if age != nil && age.Before(clocks.Late) {
		out.OldestAgeSeconds = int64(clocks.Late.Sub(*age) / time.Second)
	}
	if d.tenant != nil {
		if err := st.findUnknownTenants(ctx, d); err != nil {
			return err
		}
		q := &query{}
		err := st.session.conn.QueryRow(ctx, "SELECT "+capped(d.name()+" a", d.ofUnknownTenant(q, "a")), q.args...).Scan(&out.UnknownTenant)
		if err != nil {
			return fmt.Errorf("count the rows of unknown tenants in %s: %w", d.Name, err)
		}
		if err := st.setTimeout(ctx, MeasureTimeout); err != nil {
			return err
		}
	}
	out.Capped = out.UnknownAge >= CountCap || out.UnknownTenant >= CountCap
	return nil
}

// rows counts a table, or estimates one that is large. A table is counted once in a sweep; what is deleted from it is
// taken off.
func (st *Store) rows(ctx context.Context, d *dataset) (int64, error) {
	if d.counted {
		return d.rows, nil
	}
	if estimate := st.cat.estimate(d.table); estimate > CountCap {
		d.counted, d.rows = true, estimate
		return estimate, nil
	}
	var n int64
	err := st.session.conn.QueryRow(ctx, "SELECT "+capped(d.name()+" a", "true")).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", d.Name, err)
	}
	d.counted, d.rows = true, n
	return n, nil
}

// measureRule counts in one statement, so that its numbers add up, and looks at what is overdue in a second.
func (st *Store) measureRule(ctx context.Context, d *dataset, r Rule, clocks Clocks, out *report.Rule) error {
	paths, at, err := d.overdueAt(r, clocks)
	if err != nil {
		return err
	}
	q, from := &query{}, d.name()+" a"
	past := d.past(q, "a", r.Windows, clocks.Early, false)
	held := d.heldByFloor(q, "a", r, clocks.Early)
	counts := []string{capped(from, past), "NULL::bigint", "0", "0"}
	if len(paths) > 0 || d.Floor != nil {
		counts[1] = capped(from, d.eligible(q, "a", r, clocks.Early))
	}
	if len(held) > 0 {
		counts[2] = capped(from, past+" AND ("+strings.Join(held, " OR ")+")")
	}
	if late := d.latestOverride(r, at); late != nil {
		counts[3] = capped(from, fmt.Sprintf("%s >= %s AND %s <= %s AND %s", dotted("a", d.age), d.plausible(), dotted("a", d.age), q.arg(d.toColumn(*late), d.ageType()), d.ofUnknownTenant(q, "a")))
	}
	var total int64
	var eligible *int64 // NULL: nothing could keep a row, so it is the total
	err = st.session.conn.QueryRow(ctx, "SELECT "+strings.Join(counts, ", "), q.args...).Scan(&total, &eligible, &out.KeptByFloor, &out.UnknownTenantLate)
	if err != nil {
		return fmt.Errorf("measure %s: %w", d.Name, err)
	}
	out.Eligible = total
	if eligible != nil {
		out.Eligible = *eligible
	}
	out.KeptByChild = max(0, total-out.Eligible-out.KeptByFloor)
	out.Capped = total >= CountCap || out.UnknownTenantLate >= CountCap
	if total == 0 && !at.After(clocks.Early) {
		return nil // what is overdue would be past its window as well
	}
	return st.measureOverdue(ctx, d, r, paths, at, out)
}

// eligible is true of a row that is past the rule's window and its floor, and that no row which has not expired
// refers to, however far down: those that have expired go first, in the same sweep.
func (d *dataset) eligible(q *query, alias string, r Rule, at time.Time) string {
	alive := func(q *query, c *dataset, alias string) string { return c.expired(q, alias, at) + " IS NOT TRUE" }
	conditions := []string{d.past(q, alias, r.Windows, at, true)}
	return all(append(conditions, none(d.reaches(q, alias, past(r, at), alive))...)...)
}

// past is the condition on rows that are past the rule's window and their floor.
func past(r Rule, at time.Time) condition {
	return func(q *query, d *dataset, alias string) string { return d.past(q, alias, r.Windows, at, true) }
}

// heldByFloor lists what makes a floor hold a row: its own, or that of a row which refers to it.
func (d *dataset) heldByFloor(q *query, alias string, r Rule, at time.Time) []string {
	held := func(q *query, c *dataset, alias string) string {
		if c.Floor == nil {
			return "false"
		}
		cutoff := c.Floor.FloorCutoff(at)
		return fmt.Sprintf("%s > %s", dotted(alias, c.age), q.arg(c.toColumn(cutoff), c.ageType()))
	}
	var out []string
	if own := held(q, d, alias); own != "false" {
		out = append(out, own)
	}
	relevant := func(q *query, d *dataset, alias string) string { return d.past(q, alias, r.Windows, at, false) }
	return append(out, d.reaches(q, alias, relevant, held)...)
}

// measureOverdue counts the rows that were past window and floor at a time that already lies a slack in the past,
// whatever keeps them, and finds how long the worst has been due since then. Only floors excuse: its own, and that of
// a row which refers to it.
func (st *Store) measureOverdue(ctx context.Context, d *dataset, r Rule, paths [][]*link, at time.Time, out *report.Rule) error {
	q := &query{}
	where := []string{d.past(q, "a", r.Windows, at, true)}
	due := []string{d.due(q, "a", []Windows{r.Windows})}
	for _, p := range paths {
		end := d
		if len(p) > 0 {
			end = p[len(p)-1].child
		}
		if end.Floor == nil {
			continue
		}
		from, tie, last := d.chain(q, "a", p)
		due = append(due, fmt.Sprintf("(SELECT max(%s + %s) FROM %s WHERE %s)", end.instant(last), q.arg(end.Floor.String(), "interval"), from, tie))
	}
	where = append(where, none(d.heldByFloor(q, "a", r, at))...)
	var worst *time.Time
	err := st.session.conn.QueryRow(ctx, fmt.Sprintf("SELECT count(*), min(due) FROM (SELECT GREATEST(%s) AS due FROM %s a WHERE %s LIMIT %d) o",
		strings.Join(due, ", "), d.name(), all(where...), CountCap), q.args...).Scan(&out.Overdue, &worst)
	if err != nil {
		return fmt.Errorf("measure what is overdue in %s: %w", d.Name, err)
	}
	out.Capped = out.Capped || out.Overdue >= CountCap
	if worst != nil {
		out.OldestOverdueSeconds = max(1, int64(at.Sub(*worst)/time.Second))
	}
	return nil
}

func (d *dataset) windows() []Windows {
	out := make([]Windows, 0, len(d.Rules))
	for _, r := range d.Rules {
		out = append(out, r.Windows)
	}
	return out
}

// instant is the age of a row as a point in time.
func (d *dataset) instant(alias string) string {
	age := dotted(alias, d.age)
	zone := "'" + strings.ReplaceAll(d.Table.AgeColumn.TimeZone, "'", "''") + "'"
	switch d.ageType() {
	case "date":
		return "((" + age + " + 1)::timestamp AT TIME ZONE " + zone + ")"
	case "timestamp":
		return "(" + age + " AT TIME ZONE " + zone + ")"
	default:
		return age
	}
}

// due is when a row expires under the first of its windows, not before its floor. The session's zone is UTC, in which
// adding months to a timestamptz clamps as calendar.Window.AddClamp does.
func (d *dataset) due(q *query, alias string, windows []Windows) string {
	instant := d.instant(alias)
	ends := make([]string, 0, len(windows))
	for _, w := range windows {
		length := q.arg(w.RetainFor.String(), "interval")
		var cases strings.Builder
		for _, o := range w.Overrides {
			if ids := d.known(o.IDs); d.tenant != nil && len(ids) > 0 {
				fmt.Fprintf(&cases, " WHEN %s THEN %s", d.ofTenants(q, alias, ids), q.arg(o.RetainFor.String(), "interval"))
			}
		}
		if cases.Len() > 0 {
			length = "CASE" + cases.String() + " ELSE " + length + " END"
		}
		ends = append(ends, "("+instant+" + "+length+")")
	}
	first := "LEAST(" + strings.Join(ends, ", ") + ")"
	if d.Floor == nil {
		return first
	}
	return fmt.Sprintf("GREATEST(%s, %s + %s)", first, instant, q.arg(d.Floor.String(), "interval"))
}

// capped writes a count that stops at CountCap.
func capped(from, where string) string {
	return fmt.Sprintf("(SELECT count(*) FROM (SELECT 1 FROM %s WHERE %s LIMIT %d) c)", from, where, CountCap)
}

// Describe tells an error without what the server's text may repeat of a row: its SQLSTATE, or what broke.
func Describe(err error) string {
	if reason, message := explain(err); reason != "" {
		return message
	}
	if err == nil {
		return ""
	}
	return "the connection to the store broke: " + foreign.Network(err).Error()
}
