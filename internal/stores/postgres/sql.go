package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// query collects the arguments of a statement. Values are always bound; identifiers come from the catalogue and are
// quoted.
type query struct {
	args  []any
	alias int
}

func (q *query) arg(v any, typ string) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d::%s", len(q.args), typ)
}

func (q *query) newAlias() string {
	q.alias++
	return fmt.Sprintf("t%d", q.alias)
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

func qualified(t *table) string { return pgx.Identifier{t.schema, t.name}.Sanitize() }

func identList(columns []*column) string { return columnList("", columns) }

// columnList writes a.x, a.y or, without an alias, x, y.
func columnList(alias string, columns []*column) string {
	out := make([]string, 0, len(columns))
	for _, k := range columns {
		out = append(out, dotted(alias, k))
	}
	return strings.Join(out, ", ")
}

func dotted(alias string, k *column) string {
	if alias == "" {
		return ident(k.name)
	}
	return alias + "." + ident(k.name)
}

// Operators of the server's own, whatever the search path holds: a DELETE runs under the role's.
const (
	opEqual   = "OPERATOR(pg_catalog.=)"
	opAtMost  = "OPERATOR(pg_catalog.<=)"
	opAtLeast = "OPERATOR(pg_catalog.>=)"
	opLess    = "OPERATOR(pg_catalog.<)"
	opMore    = "OPERATOR(pg_catalog.>)"
)

// equal writes a.x = b.u AND a.y = b.v.
func equal(a string, as []*column, b string, bs []*column) string {
	out := make([]string, 0, len(as))
	for i := range as {
		out = append(out, dotted(a, as[i])+" "+opEqual+" "+dotted(b, bs[i]))
	}
	return strings.Join(out, " AND ")
}

func (d *dataset) name() string { return qualified(d.table) }

// ageType is the column's type as a cast.
func (d *dataset) ageType() string {
	switch d.Table.AgeColumn.Type {
	case v1alpha1.AgeDate:
		return "date"
	case v1alpha1.AgeTimestamp:
		return "timestamp"
	default:
		return "timestamptz"
	}
}

// toColumn translates a cutoff into the column's type, so that the comparison can use an index on it.
func (d *dataset) toColumn(cutoff time.Time) time.Time {
	switch d.Table.AgeColumn.Type {
	case v1alpha1.AgeDate:
		return calendar.DateCutoff(cutoff, d.zone)
	case v1alpha1.AgeTimestamp:
		return calendar.LocalCutoff(cutoff, d.zone)
	default:
		return cutoff
	}
}

// plausible is the earliest age that is believed: before it lie zeros that were written as 1970, and -infinity.
func (d *dataset) plausible() string {
	switch d.ageType() {
	case "date":
		return "date '1990-01-01'"
	case "timestamp":
		return "timestamp '1990-01-01 00:00:00'"
	default:
		return "timestamptz '1990-01-01 00:00:00+00'"
	}
}

// skewTolerance is how far the store's and the pod's clock may differ, and so how far ahead an age may lie that another
// machine's clock wrote.
const skewTolerance = time.Minute

// unknownAge is true of rows whose age is unknown.
func (d *dataset) unknownAge(q *query, alias string, now time.Time) string {
	now = now.Add(skewTolerance)
	if d.ageType() != "timestamptz" {
		now = calendar.LocalNow(now, d.zone)
	}
	age := dotted(alias, d.age)
	return fmt.Sprintf("(%s IS NULL OR %s < %s OR %s > %s)", age, age, d.plausible(), age, q.arg(now, d.ageType()))
}

// ofTenants is true of rows whose tenant is one of ids.
func (d *dataset) ofTenants(q *query, alias string, ids []string) string {
	return fmt.Sprintf("%s %s ANY(%s::%s[])", dotted(alias, d.tenant), opEqual, q.arg(ids, "text[]"), d.tenant.typ)
}

// known keeps the ids that the tenant column can hold.
func (d *dataset) known(ids []string) []string {
	var out []string
	for _, id := range ids {
		if d.ids[id] {
			out = append(out, id)
		}
	}
	return out
}

// cutoff of a window at a time; with a floor the earlier of both.
func (d *dataset) cutoff(w calendar.Window, at time.Time, floor bool) time.Time {
	c := w.Cutoff(at)
	if floor && d.Floor != nil {
		if f := d.Floor.FloorCutoff(at); f.Before(c) {
			return f
		}
	}
	return c
}

// past is true of rows whose age is known and past their window at a time, with a floor past that, too. It is written
// so that an index on the age column bounds what is read.
func (d *dataset) past(q *query, alias string, w Windows, at time.Time, floor bool) string {
	base, groups := d.cutoffs(w, at, floor)
	latest := base
	if n := len(groups); n > 0 && groups[n-1].cutoff.After(base) {
		latest = groups[n-1].cutoff
	}
	return d.pastUpTo(q, alias, base, groups, latest)
}

// group is tenants with one cutoff of their own.
type group struct {
	cutoff time.Time
	ids    []string
}

// cutoffs are that of the window, and those of tenants with one of their own, the earliest first. An identifier that
// stands in two groups has the earlier.
func (d *dataset) cutoffs(w Windows, at time.Time, floor bool) (base time.Time, groups []group) {
	of := map[time.Time][]string{}
	for _, o := range w.Overrides {
		if ids := d.known(o.IDs); d.tenant != nil && len(ids) > 0 {
			c := d.cutoff(o.RetainFor, at, floor)
			of[c] = append(of[c], ids...)
		}
	}
	taken := map[string]bool{}
	for _, c := range slices.SortedFunc(maps.Keys(of), time.Time.Compare) {
		g := group{cutoff: c}
		for _, id := range of[c] {
			if !taken[id] {
				g.ids, taken[id] = append(g.ids, id), true
			}
		}
		slices.Sort(g.ids)
		groups = append(groups, g)
	}
	return d.cutoff(w.RetainFor, at, floor), groups
}

// pastUpTo is past of rows that are not younger than a cutoff.
func (d *dataset) pastUpTo(q *query, alias string, base time.Time, groups []group, latest time.Time) string {
	age := dotted(alias, d.age)
	var cases strings.Builder
	for _, g := range groups {
		if len(g.ids) > 0 {
			fmt.Fprintf(&cases, " WHEN %s THEN %s", d.ofTenants(q, alias, g.ids), q.arg(d.toColumn(g.cutoff), d.ageType()))
		}
	}
	within := fmt.Sprintf("%s %s %s AND %s %s %s", age, opAtLeast, d.plausible(), age, opAtMost, q.arg(d.toColumn(latest), d.ageType()))
	if cases.Len() == 0 {
		return "(" + within + ")"
	}
	return fmt.Sprintf("(%s AND %s %s CASE%s ELSE %s END)", within, age, opAtMost, cases.String(), q.arg(d.toColumn(base), d.ageType()))
}

// expired is past under any rule of the dataset, whether it enforces or only audits: what was promised.
func (d *dataset) expired(q *query, alias string, at time.Time) string {
	var any []string
	for _, r := range d.Rules {
		any = append(any, d.past(q, alias, r.Windows, at, true))
	}
	if len(any) == 0 {
		return "false"
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// deletable is past under what may be deleted.
func (d *dataset) deletable(q *query, alias string, at time.Time) string {
	if d.Delete == nil || d.blocked() != nil {
		return "false"
	}
	return d.past(q, alias, *d.Delete, at, true)
}

// lane is a part of what may be deleted from a dataset.
type lane func(q *query, alias string) string

// lanes parts what may be deleted so that each part is found by an index. The rows of a tenant whose window is
// shorter than the others' lie among theirs: by age alone all of theirs would be read for its few, again and again.
// Where an index begins with the tenant, such tenants have lanes of their own.
func (d *dataset) lanes(at time.Time) []lane {
	all := lane(func(q *query, alias string) string { return d.deletable(q, alias, at) })
	if d.Delete == nil || d.blocked() != nil || d.tenant == nil || !d.table.leads(d.tenant) || len(d.self()) > 0 {
		return []lane{all} // rows that refer to each other go by age, whosever they are
	}
	base, groups := d.cutoffs(*d.Delete, at, true)
	out := []lane{func(q *query, alias string) string { return d.pastUpTo(q, alias, base, groups, base) }}
	for _, g := range groups {
		if !g.cutoff.After(base) || len(g.ids) == 0 {
			continue
		}
		out = append(out, func(q *query, alias string) string {
			age := dotted(alias, d.age)
			return fmt.Sprintf("(%s AND %s %s %s AND %s %s %s AND %s %s %s)", d.ofTenants(q, alias, g.ids), age, opAtLeast, d.plausible(),
				age, opMore, q.arg(d.toColumn(base), d.ageType()), age, opAtMost, q.arg(d.toColumn(g.cutoff), d.ageType()))
		})
	}
	return out
}

// condition on a row of a dataset.
type condition func(q *query, d *dataset, alias string) string

// self lists the foreign keys of a table into itself.
func (d *dataset) self() []*link {
	var out []*link
	for _, l := range d.children {
		if l.child == d {
			out = append(out, l)
		}
	}
	return out
}

// maxPaths bounds how many ways lead from a dataset down its foreign keys before measuring gives up.
const maxPaths = 64

// paths lists the ways down the foreign keys from d, each without repeating a dataset; nil, false: too many.
func (d *dataset) paths() ([][]*link, bool) {
	var out [][]*link
	if len(d.self()) > 0 {
		out = append(out, nil) // the rows that refer to a row within its own table
	}
	out = append(out, d.ways(func(*dataset) bool { return true })...)
	return out, len(out) <= maxPaths
}

// ways lists the ways down the foreign keys from d to other datasets, and goes on beyond those that further says.
func (d *dataset) ways(further func(*dataset) bool) [][]*link {
	var out [][]*link
	var walk func(at *dataset, path []*link, seen []*dataset)
	walk = func(at *dataset, path []*link, seen []*dataset) {
		for _, l := range at.children {
			if slices.Contains(seen, l.child) || l.child.unmeasurable || len(out) > maxPaths {
				continue
			}
			next := append(slices.Clone(path), l)
			out = append(out, next)
			if further(l.child) {
				walk(l.child, next, append(slices.Clone(seen), l.child))
			}
		}
	}
	walk(d, nil, []*dataset{d})
	return out
}

// chain writes the rows that a path leads to from the row root of d: FROM items, conditions that tie them to root,
// and the alias of the last. A table that refers to itself is followed to the end.
func (d *dataset) chain(q *query, root string, path []*link) (from, where, last string) {
	var items, ties []string
	join := func(what, alias, on string) {
		if len(items) == 0 {
			items, ties = append(items, what+" "+alias), append(ties, on)
			return
		}
		items = append(items, "JOIN "+what+" "+alias+" ON "+on)
	}
	at, alias := d, root
	closure := func() {
		links := at.self()
		if len(links) == 0 {
			return
		}
		within, next := q.newAlias(), q.newAlias()
		refers := make([]string, 0, len(links))
		for _, l := range links {
			refers = append(refers, "("+equal("y", l.childColumns, "x", l.parentColumns)+")")
		}
		join(fmt.Sprintf("LATERAL (WITH RECURSIVE s AS (SELECT %s UNION SELECT %s FROM s JOIN %s x ON %s JOIN %s y ON %s) SELECT * FROM s)",
			columnList(alias, at.key), columnList("y", at.key), at.name(), equal("x", at.key, "s", at.key), at.name(), strings.Join(refers, " OR ")),
			within, "true")
		join(at.name(), next, equal(next, at.key, within, at.key))
		alias = next
	}
	closure()
	for _, l := range path {
		next := q.newAlias()
		join(qualified(l.edge.child), next, equal(next, l.childColumns, alias, l.parentColumns))
		at, alias = l.child, next
		closure()
	}
	return strings.Join(items, " "), strings.Join(ties, " AND "), alias
}

// keys writes a query for keys of a dataset.
type keys func(q *query) string

// reaches writes conditions on a row of d of which at least one holds when a row that refers to it meets cond,
// however far down. relevant are the rows of d that it is asked of: where a table refers to itself, all of them are
// followed at once, so that a chain of any length costs its length.
func (d *dataset) reaches(q *query, root string, relevant condition, cond condition) []string {
	return d.reach(q, root, func(q *query) string {
		r := q.newAlias()
		return fmt.Sprintf("SELECT %s FROM %s %s WHERE %s", columnList(r, d.key), d.name(), r, relevant(q, d, r))
	}, cond, nil)
}

func (d *dataset) reach(q *query, root string, relevant keys, cond condition, seen []*dataset) []string {
	if len(d.self()) > 0 && !slices.Contains(seen, d) {
		return []string{fmt.Sprintf("(%s) IN (%s)", columnList(root, d.key), d.kept(q, relevant, cond, seen))}
	}
	var out []string
	seen = append(slices.Clone(seen), d)
	for _, path := range d.ways(func(c *dataset) bool { return len(c.self()) == 0 }) {
		end := path[len(path)-1].child
		if slices.Contains(seen, end) {
			continue
		}
		from, tie, last := joined(q, root, path)
		meets := ""
		if len(end.self()) > 0 {
			meets = strings.Join(end.reach(q, last, func(q *query) string {
				r := q.newAlias()
				from, tie, last := joined(q, r, path)
				return fmt.Sprintf("SELECT %s FROM %s %s JOIN %s ON %s WHERE (%s) IN (%s)", columnList(last, end.key), d.name(), r, from, tie, columnList(r, d.key), relevant(q))
			}, cond, seen), " OR ")
		} else if meets = cond(q, end, last); meets == "false" {
			continue
		}
		out = append(out, fmt.Sprintf("EXISTS (SELECT 1 FROM %s WHERE %s AND (%s))", from, tie, meets))
	}
	return out
}

// joined writes the rows that a path leads to from the row root: FROM items, conditions that tie them to root, and
// the alias of the last.
func joined(q *query, root string, path []*link) (from, tie, last string) {
	items, ties, alias := make([]string, 0, len(path)), make([]string, 0, len(path)), root
	for _, l := range path {
		next := q.newAlias()
		items = append(items, qualified(l.edge.child)+" "+next)
		ties = append(ties, equal(next, l.childColumns, alias, l.parentColumns))
		alias = next
	}
	from = strings.Join(items, " CROSS JOIN ")
	if len(items) > 1 {
		from = "(" + from + ")"
	}
	return from, strings.Join(ties, " AND "), alias
}

// kept writes a query for the keys of rows of a table that refers to itself: of those that meet cond, or that a row of
// another table keeps, and of all that they lead to. Only what refers to relevant rows is looked at.
func (d *dataset) kept(q *query, relevant keys, cond condition, seen []*dataset) string {
	below, kept, x, y := q.newAlias(), q.newAlias(), q.newAlias(), q.newAlias()
	var down, up []string
	for _, l := range d.self() {
		down = append(down, fmt.Sprintf("SELECT %s FROM %s c WHERE %s", columnList("c", d.key), d.name(), equal("c", l.childColumns, x, l.parentColumns)))
		up = append(up, fmt.Sprintf("SELECT %s FROM %s c WHERE %s", columnList("c", d.key), d.name(), equal(x, l.childColumns, "c", l.parentColumns)))
	}
	meets := d.reach(q, x, func(*query) string { return "SELECT " + columnList(below, d.key) + " FROM " + below }, cond, append(slices.Clone(seen), d))
	if c := cond(q, d, x); c != "false" {
		meets = append(meets, c)
	}
	if len(meets) == 0 {
		meets = []string{"false"}
	}
	follow := func(from string, next []string) string {
		return fmt.Sprintf("SELECT %s FROM %s JOIN %s %s ON %s CROSS JOIN LATERAL (%s) %s", columnList(y, d.key), from, d.name(), x, equal(x, d.key, from, d.key), strings.Join(next, " UNION ALL "), y)
	}
	return fmt.Sprintf("WITH RECURSIVE %[1]s AS (%[3]s UNION %[4]s), %[2]s AS (SELECT %[5]s FROM %[1]s JOIN %[6]s %[7]s ON %[8]s WHERE %[9]s UNION %[10]s) SELECT %[11]s FROM %[2]s",
		below, kept, relevant(q), follow(below, down), columnList(x, d.key), d.name(), x, equal(x, d.key, below, d.key), strings.Join(meets, " OR "), follow(kept, up), identList(d.key))
}

// all joins conditions that must hold together.
func all(conditions ...string) string { return strings.Join(conditions, " AND ") }

// none joins conditions of which none may hold.
func none(conditions []string) []string {
	out := make([]string, 0, len(conditions))
	for _, c := range conditions {
		out = append(out, "NOT "+c)
	}
	return out
}
