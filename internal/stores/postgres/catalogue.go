package postgres

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/internal/foreign"
)

// catalogue is what the server says about its tables. Nothing in it comes out of a row.
type catalogue struct {
	tables map[uint32]*table
	byName map[[2]string]*table
	edges  []*edge
}

// table of the database that holds rows: ordinary, partitioned, foreign, or a materialised view.
type table struct {
	oid          uint32
	schema, name string
	kind         string // pg_class.relkind
	rows         float64
	rowSecurity  bool // applies to this role
	rules        bool
	inherits     bool // an ordinary table with children or parents
	root         uint32
	leaves       []uint32 // tables that hold the rows: itself, or its partitions

	mayDelete, mayUse bool
	columns           map[string]*column
	byNumber          map[int16]*column
	indexes           []index
	deleteTriggers    []trigger
	updateTriggers    []trigger
	// unidentified is a publication that passes deletions on although the table has no replica identity.
	unidentified string
}

// trigger of a user.
type trigger struct {
	name     string
	function string // with schema and arguments, quoted as SQL
	called   string // as the server tells where an error comes from: name and opening parenthesis
}

func (g trigger) String() string {
	return fmt.Sprintf("trigger %s (function %s)", foreign.Name(g.name), foreign.Name(strings.TrimSuffix(g.function, "()"))+"()")
}

type column struct {
	name     string
	number   int16
	typ      string // format_type, qualified, without modifiers
	typOID   uint32
	notNull  bool
	readable bool
	// foreign: the type is an extension's, and so are its operators. The search path finds the server's own only,
	// which may see differences where the type's do not: of citext, 'a' = 'A'.
	foreign bool
}

type index struct {
	columns []int16 // key columns in order; an expression is 0
	unique  bool    // and valid, immediate, without predicate
	usable  bool    // valid, and its predicate, if any, is only "column IS NOT NULL"
}

// edge is a foreign key: rows of child refer to rows of parent.
type edge struct {
	name          string
	child, parent *table
	childColumns  []*column
	parentColumns []*column
	detached      []*column // of the child, which SET NULL or SET DEFAULT writes
	declared      bool      // by a person, in spec.relations: the database does not know it
	onDelete      string    // pg_constraint.confdeltype: a no action, r restrict, c cascade, n set null, d set default
}

// String names the table to people: what it is called is up to whoever may create tables there.
func (t *table) String() string { return foreign.Name(t.schema + "." + t.name) }

func (e *edge) cascades() bool { return e.onDelete == "c" || e.detaches() }

// detaches says that the database itself cuts the reference when the parent goes: SET NULL, SET DEFAULT. Such a row
// keeps nothing from being deleted.
func (e *edge) detaches() bool { return e.onDelete == "n" || e.onDelete == "d" }

const ours = `n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'`

// load reads the catalogue in one snapshot.
func load(ctx context.Context, conn *pgx.Conn) (*catalogue, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	c := &catalogue{tables: map[uint32]*table{}, byName: map[[2]string]*table{}}
	for _, read := range []func(context.Context, pgx.Tx) error{c.readTables, c.readColumns, c.readIndexes, c.readTriggers, c.readPublications, c.readEdges} {
		if err := read(ctx, tx); err != nil {
			return nil, fmt.Errorf("read the catalogue: %w", err)
		}
	}
	return c, nil
}

func (c *catalogue) readTables(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8,
			c.relrowsecurity AND row_security_active(c.oid), c.relhasrules,
			c.relkind = 'r' AND NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)),
			CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid)::oid, c.oid) ELSE c.oid END,
			has_table_privilege(c.oid, 'DELETE'), has_schema_privilege(n.oid, 'USAGE')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't' AND `+ours)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		t := &table{columns: map[string]*column{}, byNumber: map[int16]*column{}}
		if err := rows.Scan(&t.oid, &t.schema, &t.name, &t.kind, &t.rows, &t.rowSecurity, &t.rules, &t.inherits, &t.root, &t.mayDelete, &t.mayUse); err != nil {
			return err
		}
		c.tables[t.oid], c.byName[[2]string{t.schema, t.name}] = t, t
	}
	for _, t := range c.tables {
		root := c.tables[t.root]
		if root == nil {
			root, t.root = t, t.oid
		}
		if t.kind != "p" {
			root.leaves = append(root.leaves, t.oid)
		}
	}
	return rows.Err()
}

func (c *catalogue) readColumns(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT a.attrelid, a.attname::text, a.attnum, format_type(a.atttypid, -1), a.atttypid, a.attnotnull,
			has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
			(WITH RECURSIVE b AS (SELECT t.* FROM pg_type t WHERE t.oid = a.atttypid UNION ALL SELECT t.* FROM pg_type t JOIN b ON t.oid = b.typbasetype)
				SELECT bool_or(b.typtype = 'b' AND b.typcategory <> 'A' AND b.typnamespace <> 'pg_catalog'::regnamespace) FROM b)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND `+ours)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var oid uint32
		k := &column{}
		if err := rows.Scan(&oid, &k.name, &k.number, &k.typ, &k.typOID, &k.notNull, &k.readable, &k.foreign); err != nil {
			return err
		}
		if t := c.tables[oid]; t != nil {
			t.columns[k.name], t.byNumber[k.number] = k, k
		}
	}
	return rows.Err()
}

func (c *catalogue) readIndexes(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT i.indrelid, (i.indkey::int2[])[0:i.indnkeyatts - 1],
			i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL,
			i.indisvalid AND am.amname IN ('btree', 'hash') AND (i.indpred IS NULL
				OR pg_get_expr(i.indpred, i.indrelid) ~ '^\(("[^"]+"|[a-z_][a-z0-9_$]*) IS NOT NULL\)$')
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `+ours)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var oid uint32
		var x index
		if err := rows.Scan(&oid, &x.columns, &x.unique, &x.usable); err != nil {
			return err
		}
		if t := c.tables[oid]; t != nil {
			t.indexes = append(t.indexes, x)
		}
	}
	return rows.Err()
}

func (c *catalogue) readTriggers(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT g.tgrelid, g.tgname::text, g.tgfoid::regprocedure::text, p.proname || '(', g.tgtype & 8 <> 0, g.tgtype & 16 <> 0
		FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
		WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 24 <> 0 ORDER BY 2`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var oid uint32
		var g trigger
		var deletes, updates bool
		if err := rows.Scan(&oid, &g.name, &g.function, &g.called, &deletes, &updates); err != nil {
			return err
		}
		t := c.tables[oid]
		if t != nil && deletes {
			t.deleteTriggers = append(t.deleteTriggers, g)
		}
		if t != nil && updates {
			t.updateTriggers = append(t.updateTriggers, g)
		}
	}
	return rows.Err()
}

// readPublications finds tables of which the server would refuse to delete: a publication passes deletions on, of the
// table or of what it is a partition of, and nothing tells its rows.
func (c *catalogue) readPublications(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT c.oid, min(p.pubname::text) FROM pg_class c
		CROSS JOIN LATERAL (SELECT c.oid AS relid UNION SELECT relid::oid FROM pg_partition_ancestors(c.oid)) a
		JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace n ON n.oid = ac.relnamespace
		JOIN pg_publication_tables pt ON pt.schemaname = n.nspname AND pt.tablename = ac.relname
		JOIN pg_publication p ON p.pubname = pt.pubname AND p.pubdelete
		WHERE c.relkind = 'r' AND c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
			AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
		GROUP BY c.oid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var oid uint32
		var name string
		if err := rows.Scan(&oid, &name); err != nil {
			return err
		}
		if t := c.tables[oid]; t != nil {
			t.unidentified = name
		}
	}
	return rows.Err()
}

// readEdges reads the foreign keys as they were declared: the copies that PostgreSQL makes for partitions are left
// out, and a key of or to a single partition counts for the whole table.
func (c *catalogue) readEdges(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT k.conname::text, k.conrelid, k.confrelid, k.conkey, k.confkey, k.confdeltype::text,
			-- Servers before 15 have no such column: there all columns of the key are set.
			ARRAY(SELECT jsonb_array_elements_text(CASE jsonb_typeof(to_jsonb(k) -> 'confdelsetcols') WHEN 'array' THEN to_jsonb(k) -> 'confdelsetcols' ELSE '[]' END)::int2)
		FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conrelid, k.conname`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var from, to uint32
		var fromColumns, toColumns, set []int16
		e := &edge{}
		if err := rows.Scan(&e.name, &from, &to, &fromColumns, &toColumns, &e.onDelete, &set); err != nil {
			return err
		}
		child, parent := c.tables[from], c.tables[to]
		if child == nil || parent == nil {
			continue // both lie outside what can be a dataset, for example a catalogue of an extension
		}
		e.child, e.parent = c.tables[child.root], c.tables[parent.root]
		for i := range fromColumns {
			// A partition may number its columns otherwise than its root: the name is what they share.
			e.childColumns = append(e.childColumns, e.child.columns[child.byNumber[fromColumns[i]].name])
			e.parentColumns = append(e.parentColumns, e.parent.columns[parent.byNumber[toColumns[i]].name])
			if len(set) == 0 || slices.Contains(set, fromColumns[i]) {
				e.detached = append(e.detached, e.childColumns[i])
			}
		}
		c.edges = append(c.edges, e)
	}
	return rows.Err()
}

// into lists the foreign keys that refer to t.
func (c *catalogue) into(t *table) []*edge {
	var in []*edge
	for _, e := range c.edges {
		if e.parent == t {
			in = append(in, e)
		}
	}
	return in
}

// roots lists the tables that are not partitions of another, by name.
func (c *catalogue) roots() []*table {
	var all []*table
	for _, t := range c.tables {
		if t.root == t.oid {
			all = append(all, t)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].String() < all[j].String() })
	return all
}

// estimate of the rows in t and its partitions; -1 when the planner has never looked.
func (c *catalogue) estimate(t *table) int64 {
	var n float64
	for _, oid := range t.leaves {
		rows := c.tables[oid].rows
		if rows < 0 {
			return -1
		}
		n += rows
	}
	return int64(n)
}

// indexed says whether an index of t begins with exactly these columns, in any order.
func (t *table) indexed(columns []*column) bool {
	for _, x := range t.indexes {
		if !x.usable || len(x.columns) < len(columns) {
			continue
		}
		head := map[int16]bool{}
		for _, n := range x.columns[:len(columns)] {
			head[n] = true
		}
		all := true
		for _, k := range columns {
			all = all && head[k.number]
		}
		if all {
			return true
		}
	}
	return false
}
