package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/guess"
	"github.com/lethe-dev/lethe/internal/plan"
)

// Store is a database whose catalogue has been held against a Config. Its datasets are indexed as in the Config.
type Store struct {
	session   *Session
	cat       *catalogue
	datasets  []*dataset
	uncovered []string
	// undeclared relations keep their datasets from being deleted from; pointers are columns that may lead to files
	// elsewhere.
	undeclared []guess.Relation
	pointers   []string
	order      []int // children before parents
	walkers    map[int]*walker
	disputed   []string
	castables  map[string]map[string]bool // by type and identifier: whether it can hold it, as far as that was asked
	compared   map[string]bool            // identifiers that were held against those of tenants with a window of their own
}

// dataset is a Dataset found in the catalogue.
type dataset struct {
	Dataset
	table        *table
	key          []*column // as declared
	age          *column
	tenant       *column // nil in a Dedicated store
	zone         *time.Location
	ids          map[string]bool // known tenants that the tenant column's type can hold
	unknown      *[]string       // values of the tenant column that are no tenant's; nil: not looked for, or too many
	children     []*link         // foreign keys into this table whose rows keep theirs: all but those that the database cuts itself
	problem      *Problem        // keeps rows from being deleted
	against      string          // promises that contradict each other: rows may go, and some will be late
	unmeasurable bool            // problem keeps even measuring from being possible
	unclear      bool            // problem is that tenants cannot be told apart
	nameless     string          // why it is not known which tenants there are; empty: it is
	counted      bool
	rows         int64 // of the table, once counted
}

// link is a foreign key between two datasets; both may be the same.
type link struct {
	*edge
	child *dataset
}

// Open reads the catalogue and holds the datasets against it.
func Open(ctx context.Context, s *Session, c Config) (*Store, error) {
	cat, err := load(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	st := &Store{session: s, cat: cat, walkers: map[int]*walker{}, compared: map[string]bool{}, castables: map[string]map[string]bool{}}
	for i := range c.Datasets {
		st.datasets = append(st.datasets, st.find(c.Datasets[i]))
	}
	st.checkRepeated()
	st.declare(c.Relations)
	st.checkEdges()
	st.checkRelations(c.Relations)
	st.checkPromises()
	st.order = st.sortChildrenFirst()
	st.uncovered = st.findUncovered(c.Exempt)
	st.disputed = c.Disputed
	if err := st.Know(ctx, c.Tenants, c.TenantsUnread); err != nil {
		return nil, err
	}
	return st, nil
}

// Order lists the datasets children first: the order to delete in.
func (st *Store) Order() []int { return slices.Clone(st.order) }

// Waits says whether rows of a dataset may be kept by rows of one of those for which open holds, directly or through
// others.
func (st *Store) Waits(i int, open func(child int) bool) bool {
	place := map[*dataset]int{}
	for n, d := range st.datasets {
		place[d] = n
	}
	for _, path := range st.datasets[i].ways(func(*dataset) bool { return true }) {
		if open(place[path[len(path)-1].child]) {
			return true
		}
	}
	return false
}

// Problem of a dataset that keeps rows from being deleted; nil: none.
func (st *Store) Problem(i int) *Problem { return st.datasets[i].blocked() }

// blocked is what keeps rows from being deleted now; nil: nothing does.
func (d *dataset) blocked() *Problem {
	if d.problem == nil && d.unlisted() {
		return &Problem{Reason: v1alpha1.ReasonNotReached, Message: fmt.Sprintf("%s, so that tenants of %s with a window of their own cannot be told from others", d.nameless, d.Name)}
	}
	return d.problem
}

// unlisted says that it is not known who is known, and that a tenant has a window of its own here.
func (d *dataset) unlisted() bool { return d.nameless != "" && len(d.overrides()) > 0 }

// Measurable says whether a dataset can be measured in spite of its problem.
func (st *Store) Measurable(i int) bool { return !st.datasets[i].unmeasurable }

// Notice tells what is worth knowing about a dataset and stops nothing: triggers that run for each row deleted.
func (st *Store) Notice(i int) string {
	d := st.datasets[i]
	if d.table == nil || len(d.table.deleteTriggers) == 0 {
		return ""
	}
	return "triggers run when a row is deleted: " + strings.Join(d.triggerNames(), ", ")
}

func (d *dataset) triggerNames() []string {
	names := make([]string, 0, len(d.table.deleteTriggers))
	for _, g := range d.table.deleteTriggers {
		names = append(names, foreign.Name(g.name))
	}
	return names
}

// Uncovered lists the tables that are neither a dataset nor exempt, as schema.table, sorted.
func (st *Store) Uncovered() []string { return slices.Clone(st.uncovered) }

// refuse keeps the first problem: the ones that follow from it say less.
func (d *dataset) refuse(reason, format string, args ...any) {
	if d.problem == nil {
		d.problem = &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
}

// cannotRead is refuse for what makes measuring impossible, too.
func (d *dataset) cannotRead(reason, format string, args ...any) {
	d.unmeasurable = true
	d.problem = &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// find looks a dataset up in the catalogue.
func (st *Store) find(in Dataset) *dataset {
	d := &dataset{Dataset: in, zone: time.UTC}
	if in.Table == nil {
		d.Table = &v1alpha1.Table{} // what is said of it elsewhere is said of nothing
		d.cannotRead(v1alpha1.ReasonUnsupportedTable, "the dataset is no table, and PostgreSQL holds nothing else: see that manager and sweeper are of one version")
		return d
	}
	schema := string(in.Table.Schema)
	if schema == "" {
		schema = "public"
	}
	t := st.cat.byName[[2]string{schema, string(in.Table.Name)}]
	if t == nil {
		d.cannotRead(v1alpha1.ReasonMissingTable, "there is no table %s.%s: correct table.schema and table.name (upper and lower case count)", schema, in.Table.Name)
		return d
	}
	d.table = t
	switch {
	case t.kind == "m", t.kind == "f":
		d.cannotRead(v1alpha1.ReasonUnsupportedTable, "%s is not an ordinary table: map the tables that it draws from, and exempt it with a reason", t)
	case t.root != t.oid:
		d.cannotRead(v1alpha1.ReasonUnsupportedTable, "%s is a partition: map %s as a whole", t, st.cat.tables[t.root])
	case !t.mayUse:
		d.cannotRead(v1alpha1.ReasonMissingPrivilege, "the role may not use schema %s: run the SQL that 'kubectl lethe grants' prints", t.schema)
	case t.rowSecurity:
		d.cannotRead(v1alpha1.ReasonUnsupportedTable, "row security hides rows of %s from the role, so that rows would be kept unseen: ALTER ROLE … BYPASSRLS", t)
	default:
		d.findColumns()
	}
	if d.problem != nil {
		return d
	}
	switch {
	case t.rules:
		d.refuse(v1alpha1.ReasonUnsupportedTable, "%s has rewrite rules, which can turn a DELETE into something else: drop them", t)
	case t.inherits:
		d.refuse(v1alpha1.ReasonUnsupportedTable, "%s takes part in table inheritance, which keys and foreign keys do not reach across: use declarative partitions", t)
	case !t.mayDelete:
		d.refuse(v1alpha1.ReasonMissingPrivilege, "the role may not delete from %s: run the SQL that 'kubectl lethe grants' prints", t)
	}
	d.checkIdentity(st.cat.tables)
	return d
}

// Types of pg_type.oid that never change.
const (
	dateOID        = 1082
	timestampOID   = 1114
	timestamptzOID = 1184
)

func (d *dataset) findColumns() {
	t := d.table
	column := func(field string, name v1alpha1.Identifier) *column {
		k := t.columns[string(name)]
		switch {
		case d.problem != nil:
		case k == nil:
			d.cannotRead(v1alpha1.ReasonMissingColumn, "%s has no column %s: correct table.%s (upper and lower case count)", t, name, field)
		case !k.readable:
			d.cannotRead(v1alpha1.ReasonMissingPrivilege, "the role may not read column %s of %s: run the SQL that 'kubectl lethe grants' prints", name, t)
		}
		return k
	}
	for _, name := range d.Table.Key {
		d.key = append(d.key, column("key", name))
	}
	d.age = column("ageColumn.name", d.Table.AgeColumn.Name)
	if d.Table.TenantColumn != "" {
		d.tenant = column("tenantColumn", d.Table.TenantColumn)
	}
	if d.problem != nil {
		return
	}
	want := map[v1alpha1.AgeColumnType]uint32{
		v1alpha1.AgeTimestamptz: timestamptzOID, v1alpha1.AgeTimestamp: timestampOID, v1alpha1.AgeDate: dateOID,
	}[d.Table.AgeColumn.Type]
	if d.age.typOID != want {
		d.cannotRead(v1alpha1.ReasonWrongAgeType, "column %s of %s is %s, ageColumn.type says %s: declare what the database says (only timestamptz, timestamp and date tell an age)",
			d.age.name, t, d.age.typ, d.Table.AgeColumn.Type)
		return
	}
	if d.Table.AgeColumn.Type != v1alpha1.AgeTimestamptz {
		loc, err := time.LoadLocation(d.Table.AgeColumn.TimeZone)
		if d.Table.AgeColumn.TimeZone == "" || d.Table.AgeColumn.TimeZone == "Local" || err != nil {
			d.cannotRead(v1alpha1.ReasonUnknownTimeZone, "ageColumn.timeZone %q is no zone of the IANA database: use for example Etc/UTC or Europe/Berlin", d.Table.AgeColumn.TimeZone)
			return
		}
		d.zone = loc
	}
	d.checkKey()
	if d.tenant != nil {
		d.checkTypes(d.tenant)
	}
	d.checkTypes(d.key...)
}

// checkTypes refuses columns that are compared and whose type brings a comparison of its own.
func (d *dataset) checkTypes(columns ...*column) {
	for _, k := range columns {
		if k.foreign {
			d.refuse(v1alpha1.ReasonUnsupportedTable, "column %s of %s is %s, which an extension compares in its own way: rows could be taken for others; make it a type of the server's own",
				k.name, d.table, k.typ)
		}
	}
}

// checkKey asks that no two rows can have the same key.
func (d *dataset) checkKey() {
	key := map[int16]bool{}
	for _, k := range d.key {
		if !k.notNull {
			d.cannotRead(v1alpha1.ReasonKeyNotUnique, "key column %s of %s may be NULL: ALTER TABLE %s ALTER COLUMN %s SET NOT NULL, or name the primary key",
				k.name, d.table, d.name(), ident(k.name))
			return
		}
		key[k.number] = true
	}
	for _, x := range d.table.indexes {
		inside := x.unique
		for _, n := range x.columns {
			inside = inside && key[n]
		}
		if inside {
			return
		}
	}
	d.cannotRead(v1alpha1.ReasonKeyNotUnique, "no unique index of %s lies within the key columns: name the primary key in table.key, or CREATE UNIQUE INDEX", d.table)
}

// checkRepeated refuses a table that two datasets name: their windows would contradict each other.
func (st *Store) checkRepeated() {
	first := map[*table]*dataset{}
	for _, d := range st.datasets {
		if d.table == nil {
			continue
		}
		if other := first[d.table]; other != nil {
			for _, each := range []*dataset{other, d} {
				each.refuse(v1alpha1.ReasonUnsupportedTable, "datasets %s and %s name the same table %s: a table is one dataset", other.Name, d.Name, d.table)
			}
			continue
		}
		first[d.table] = d
	}
}

// checkEdges walks the foreign keys into each dataset. Whatever refers to it must be a dataset itself, indexed,
// readable, and nothing that the database would change on its own may lie under a floor.
func (st *Store) checkEdges() {
	byTable := map[*table]*dataset{}
	for _, d := range st.datasets {
		if d.table != nil {
			byTable[d.table] = d
		}
	}
	for _, d := range st.datasets {
		if d.table == nil || d.key == nil {
			continue
		}
		for _, e := range st.cat.into(d.table) {
			child := byTable[e.child]
			switch {
			case child == nil:
				d.refuse(v1alpha1.ReasonUndeclaredForeignKey, "%s refers to %s (%s) and is no dataset: add a dataset for it to spec.datasets, or %s", e.child, d.table, e.what(), e.undo())
				continue
			case !e.child.indexed(e.childColumns):
				d.refuse(v1alpha1.ReasonUnindexedForeignKey, "%s of %s has no index, each deletion would read all of it: CREATE INDEX CONCURRENTLY ON %s (%s)",
					e.what(), e.child, qualified(e.child), identList(e.childColumns))
			}
			for _, k := range slices.Concat(e.childColumns, e.parentColumns) {
				if !k.readable {
					d.cannotRead(v1alpha1.ReasonMissingPrivilege, "the role may not read column %s, which %s uses: run the SQL that 'kubectl lethe grants' prints again", k.name, e.what())
				}
			}
			d.checkTypes(slices.Concat(e.childColumns, e.parentColumns)...)
			if e.detaches() {
				d.checkDetaching(e, child)
				continue
			}
			d.children = append(d.children, &link{edge: e, child: child})
		}
		st.checkCascades(d, d.table, nil, byTable)
	}
}

// tells says whether a column tells whose a row is, how old, or which.
func (d *dataset) tells(k *column) bool {
	return k == d.age || k == d.tenant || slices.Contains(d.key, k)
}

// checkDetaching refuses a foreign key that would take from a row that stays what says whose it is or how old, and
// one that would set NULL what must not be NULL: each deletion would fail.
func (d *dataset) checkDetaching(e *edge, child *dataset) {
	for _, k := range e.detached {
		if child.tells(k) {
			action := map[string]string{"n": "SET NULL", "d": "SET DEFAULT"}[e.onDelete]
			rest := "RESTRICT"
			if others := slices.DeleteFunc(slices.Clone(e.detached), child.tells); e.onDelete == "n" && len(others) > 0 {
				rest = "SET NULL (" + identList(others) + ")"
			}
			d.refuse(v1alpha1.ReasonCascade, "foreign key %s changes column %s of %s (ON DELETE %s) when rows of %s go, and by that column Lethe knows whose a row is, how old, or which: make the key ON DELETE %s",
				e.name, k.name, e.child, action, d.table, rest)
			return
		}
	}
	if e.onDelete != "n" {
		return
	}
	for _, k := range e.detached {
		if k.notNull {
			d.refuse(v1alpha1.ReasonCascade, "foreign key %s sets column %s of %s to NULL when rows of %s go, and the column is NOT NULL, so that none can go: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL, or make the key ON DELETE RESTRICT",
				e.name, k.name, e.child, d.table, qualified(e.child), ident(k.name))
			return
		}
	}
}

// checkCascades follows CASCADE, SET NULL and SET DEFAULT as far as the database would carry them.
func (st *Store) checkCascades(d *dataset, from *table, seen []*table, byTable map[*table]*dataset) {
	for _, e := range st.cat.into(from) {
		if !e.cascades() || slices.Contains(seen, e.child) {
			continue
		}
		child := byTable[e.child]
		action := map[string]string{"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}[e.onDelete]
		switch {
		case child == nil:
			d.refuse(v1alpha1.ReasonUndeclaredForeignKey, "deleting from %s reaches %s through foreign key %s (ON DELETE %s), which is no dataset: add a dataset for it to spec.datasets",
				d.table, e.child, e.name, action)
		case child.Floor != nil:
			d.refuse(v1alpha1.ReasonCascade, "foreign key %s (ON DELETE %s) changes rows of %s, which have a floor, when rows of %s go: ALTER TABLE %s DROP CONSTRAINT %s, and add it again with ON DELETE RESTRICT",
				e.name, action, e.child, from, qualified(e.child), ident(e.name))
		}
		if e.onDelete == "c" {
			st.checkCascades(d, e.child, append(seen, from), byTable)
		}
	}
}

// checkPromises finds promises that cannot both be kept: a row must go, and one that refers to it, without a floor,
// may stay longer. Nothing is deleted any earlier or later for it; it is said before the first row is late.
func (st *Store) checkPromises() {
	byID := windowsByID{}
	for _, d := range st.datasets {
		for _, l := range d.children {
			if l.child == d || l.child.Floor != nil || len(l.child.Rules) == 0 || d.against != "" {
				continue
			}
			for _, r := range d.Rules {
				windows := append([]Override{{IDs: []string{""}, RetainFor: r.Windows.RetainFor}}, r.Windows.Overrides...)
				for _, o := range windows {
					if slices.ContainsFunc(o.IDs, func(id string) bool { return !l.child.goesWithin(byID, id, o.RetainFor) }) {
						d.against = fmt.Sprintf("rule %s/%s lets rows of %s go after %s, and rows of dataset %s, which refer to them (%s), may stay longer: give %s a window that is provably not longer, a floor if the law says so, %s",
							r.Policy, r.Rule, d.Name, o.RetainFor, l.child.Name, l.what(), l.child.Name, l.remedy())
						break
					}
				}
			}
		}
	}
}

// goesWithin says whether some rule lets the rows of a tenant go after a window that is provably not longer; the
// tenant "" has none of its own.
func (d *dataset) goesWithin(byID windowsByID, tenant string, window calendar.Window) bool {
	return slices.ContainsFunc(d.Rules, func(r Rule) bool { return byID.of(r.Windows, tenant).AtMost(window) })
}

// windowsByID are overrides by identifier. Rules share what they have in common, and so a thousand tenants are read
// once.
type windowsByID map[*Override]map[string]calendar.Window

func (m windowsByID) of(w Windows, id string) calendar.Window {
	if len(w.Overrides) == 0 {
		return w.RetainFor
	}
	own := m[&w.Overrides[0]]
	if own == nil {
		own = map[string]calendar.Window{}
		for _, o := range w.Overrides {
			for _, id := range o.IDs {
				own[id] = o.RetainFor
			}
		}
		m[&w.Overrides[0]] = own
	}
	if p, ok := own[id]; ok {
		return p
	}
	return w.RetainFor
}

// sortChildrenFirst puts a dataset after everything that refers to it, and refuses circles. A table that refers to
// itself is no circle: its batches are repeated until they are empty.
func (st *Store) sortChildrenFirst() []int {
	const visiting, done = 1, 2
	state := map[*dataset]int{}
	place := map[*dataset]int{}
	for i, d := range st.datasets {
		place[d] = i
	}
	var order []int
	var visit func(d *dataset, path []*dataset)
	visit = func(d *dataset, path []*dataset) {
		if state[d] == done {
			return
		}
		if state[d] == visiting {
			circle := path[slices.Index(path, d):]
			names := make([]string, 0, len(circle))
			for _, c := range circle {
				names = append(names, c.table.String())
			}
			for _, c := range circle {
				c.refuse(v1alpha1.ReasonForeignKeyCycle, "foreign keys run in a circle through %s, so that no row can go first: drop one of them", strings.Join(names, ", "))
			}
			return
		}
		state[d] = visiting
		for _, l := range d.children {
			if l.child != d {
				visit(l.child, append(slices.Clone(path), d))
			}
		}
		state[d] = done
		order = append(order, place[d])
	}
	for _, d := range st.datasets {
		visit(d, nil)
	}
	return order
}

func (st *Store) findUncovered(exempt []plan.Exemption) []string {
	covered := map[*table]bool{}
	for _, e := range exempt {
		if e.Table == nil {
			continue // of another kind of place, of which plan.Decode knows none: it covers nothing here
		}
		if t := st.cat.byName[[2]string{cmp.Or(string(e.Table.Schema), "public"), string(e.Table.Name)}]; t != nil {
			covered[t] = true
		}
	}
	for _, d := range st.datasets {
		if d.table != nil {
			covered[d.table] = true
		}
	}
	var out []string
	for _, t := range st.cat.roots() {
		if !covered[t] {
			out = append(out, t.String())
		}
	}
	return out
}

// readTenants finds out which of the known tenants the type of each tenant column can hold: "acme" is no uuid, so no
// row of a uuid column is its.
func (st *Store) readTenants(ctx context.Context, all []string) error {
	possible := map[string]map[string]bool{}
	for _, d := range st.datasets {
		if d.tenant == nil || d.unmeasurable {
			continue
		}
		ids, ok := possible[d.tenant.typ]
		if !ok {
			var err error
			if ids, err = st.castable(ctx, d.tenant.typ, all); err != nil {
				return err
			}
			possible[d.tenant.typ] = ids
		}
		d.ids = ids
	}
	return nil
}

// castable are those identifiers that a type can hold. Each is asked for once: where one cannot be held, they are
// asked for one by one.
func (st *Store) castable(ctx context.Context, typ string, ids []string) (map[string]bool, error) {
	asked := st.castables[typ]
	if asked == nil {
		asked = map[string]bool{}
		st.castables[typ] = asked
	}
	fresh := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, known := asked[id]
		return known
	})
	if len(fresh) > 0 {
		held, err := st.cast(ctx, typ, fresh)
		if err != nil {
			return nil, err
		}
		for _, id := range fresh {
			asked[id] = held[id]
		}
	}
	ok := map[string]bool{}
	for _, id := range ids {
		if asked[id] {
			ok[id] = true
		}
	}
	return ok, nil
}

func (st *Store) cast(ctx context.Context, typ string, ids []string) (map[string]bool, error) {
	ok := map[string]bool{}
	// typ comes from format_type, which quotes what needs it.
	_, err := st.session.conn.Exec(ctx, "SELECT $1::text[]::"+typ+"[]", ids)
	if err == nil {
		for _, id := range ids {
			ok[id] = true
		}
		return ok, nil
	}
	if code(err) == "" {
		return nil, fmt.Errorf("read the tenants' identifiers: %w", err)
	}
	for _, id := range ids {
		_, err := st.session.conn.Exec(ctx, "SELECT $1::text::"+typ, id)
		switch {
		case err == nil:
			ok[id] = true
		case !strings.HasPrefix(code(err), "22") && !strings.HasPrefix(code(err), "23"): // neither is it no value of the type, nor does a domain refuse it
			return nil, fmt.Errorf("read the tenants' identifiers: %w", err)
		}
	}
	return ok, nil
}
