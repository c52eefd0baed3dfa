package postgres

import (
	"slices"
	"sort"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/guess"
)

// declare adds the declared relations to the foreign keys: what refers to a row keeps it, as ON DELETE NO ACTION
// does. The database knows nothing of them, so that it checks nothing itself.
func (st *Store) declare(relations []Relation) {
	for _, r := range relations {
		i := slices.IndexFunc(st.datasets, func(d *dataset) bool { return d.Name == r.References })
		if !r.Declared || i < 0 || st.datasets[i].table == nil {
			continue
		}
		d, at := st.datasets[i], r.String()
		child := st.cat.byName[[2]string{r.Schema, r.Table}]
		if child == nil {
			d.refuse(v1alpha1.ReasonMissingTable, "spec.relations[%s]: there is no table %s.%s: correct it, or take the entry away", at, r.Schema, r.Table)
			continue
		}
		child = st.cat.tables[child.root]
		from, to := child.columns[r.Column], d.table.columns[r.To]
		switch {
		case from == nil:
			d.refuse(v1alpha1.ReasonMissingColumn, "spec.relations[%s]: %s has no column %s: correct it, or take the entry away", at, child, r.Column)
		case to == nil:
			d.refuse(v1alpha1.ReasonMissingColumn, "spec.relations[%s].referencesColumn: %s has no column %s: correct it", at, d.table, r.To)
		case !comparableTypes(from, to):
			d.refuse(v1alpha1.ReasonRelationType, "spec.relations[%s]: column %s of %s is %s and column %s of %s is %s, which an index does not compare: ALTER TABLE %s ALTER COLUMN %s TYPE %s USING %s::%s",
				at, r.Column, child, from.typ, r.To, d.table, to.typ, qualified(child), ident(from.name), to.typ, ident(from.name), to.typ)
		default:
			st.cat.edges = append(st.cat.edges, &edge{name: at, declared: true, child: child, parent: d.table, childColumns: []*column{from}, parentColumns: []*column{to}, onDelete: "a"})
		}
	}
}

// integers and texts are types of pg_type.oid within which an index compares across types.
var (
	integers = []uint32{20, 21, 23}
	texts    = []uint32{25, 1043}
)

func comparableTypes(a, b *column) bool {
	return a.typOID == b.typOID || slices.Contains(integers, a.typOID) && slices.Contains(integers, b.typOID) || slices.Contains(texts, a.typOID) && slices.Contains(texts, b.typOID)
}

// what names an edge to people.
func (e *edge) what() string {
	if e.declared {
		return "spec.relations[" + foreign.Name(e.name) + "]"
	}
	return "foreign key " + foreign.Name(e.name)
}

// undo is what else there is to do about an edge.
func (e *edge) undo() string {
	if e.declared {
		return "correct spec.relations"
	}
	return "drop the foreign key"
}

// checkRelations refuses to delete from datasets of which nobody has said whether rows refer to each other: a column
// is named after the one, and neither a foreign key nor spec.relations ties it. Both sides wait for a person.
func (st *Store) checkRelations(relations []Relation) {
	byTable := map[[2]string]*dataset{}
	var known []guess.Dataset
	for _, d := range st.datasets {
		if d.table == nil {
			continue
		}
		byTable[[2]string{d.table.schema, d.table.name}] = d
		g := guess.Dataset{Name: d.Name, Schema: d.table.schema, Table: d.table.name, Explained: []string{string(d.Table.AgeColumn.Name), string(d.Table.TenantColumn)}}
		for _, k := range d.Table.Key {
			g.Key = append(g.Key, string(k))
		}
		known = append(known, g)
	}
	for _, r := range guess.Relations(st.cat.shape(), known) {
		if slices.ContainsFunc(relations, func(s Relation) bool {
			return s.Schema == r.Schema && s.Table == r.Table && s.Column == r.Column && s.References == r.References
		}) {
			continue
		}
		st.undeclared = append(st.undeclared, r)
	}
	for _, r := range st.undeclared {
		parent := st.datasets[slices.IndexFunc(st.datasets, func(d *dataset) bool { return d.Name == r.References })]
		for _, d := range []*dataset{parent, byTable[[2]string{r.Schema, r.Table}]} {
			if d != nil {
				d.refuse(v1alpha1.ReasonUndeclaredRelation, "column %s of %s is named after dataset %s, and no foreign key says whether it refers to it, so nothing goes from either: "+
					"say it in spec.relations: [{schema: %s, table: %s, column: %s, references: %s, state: Declared, reason: …}], or state: Denied; 'kubectl lethe explain' lists all of them",
					foreign.Name(r.Column), foreign.Name(r.Schema+"."+r.Table), r.References, foreign.Name(r.Schema), foreign.Name(r.Table), foreign.Name(r.Column), r.References)
			}
		}
	}
	for _, d := range st.datasets {
		if d.table == nil {
			continue
		}
		for _, k := range d.table.sorted() {
			if guess.Pointer(k.name, k.typ) && !slices.Contains(d.key, k) {
				st.pointers = append(st.pointers, d.Name+"."+k.name)
			}
		}
	}
	sort.Strings(st.pointers)
}

// shape is the catalogue as a guess is made of it: tables that hold rows, partitions aside.
func (c *catalogue) shape() []guess.Table {
	keys := map[*table][]guess.Key{}
	for _, e := range c.edges {
		k := guess.Key{Schema: e.parent.schema, Name: e.parent.name}
		for _, column := range e.childColumns {
			k.Columns = append(k.Columns, column.name)
		}
		keys[e.child] = append(keys[e.child], k)
	}
	var out []guess.Table
	for _, t := range c.roots() {
		if t.kind == "m" {
			continue // drawn from others, whose columns are looked at
		}
		g := guess.Table{Schema: t.schema, Name: t.name, Keys: keys[t]}
		for _, k := range t.sorted() {
			g.Columns = append(g.Columns, guess.Column{Name: k.name, Type: k.typ})
		}
		out = append(out, g)
	}
	return out
}

// sorted are the columns of a table in its own order.
func (t *table) sorted() []*column {
	out := make([]*column, 0, len(t.columns))
	for _, k := range t.columns {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b *column) int { return int(a.number) - int(b.number) })
	return out
}

// Undeclared lists the columns that are named after a dataset and that neither a foreign key nor a person ties to it.
func (st *Store) Undeclared() []guess.Relation { return slices.Clone(st.undeclared) }

// Pointers lists columns, as dataset.column, that may hold the only pointer to a file or an object elsewhere.
func (st *Store) Pointers() []string { return slices.Clone(st.pointers) }

// remedy is what would let the parent go.
func (l *link) remedy() string {
	if l.declared {
		return "or correct spec.relations"
	}
	return "or make the key ON DELETE SET NULL"
}
