package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Grants returns the SQL, for psql and a role that owns the tables, that makes the role of a store's sweeps and gives
// it what it needs and no more: to delete from the datasets' tables, and to read their key, age and tenant columns
// and the columns that their foreign keys and declared relations among each other are made of. It can be run again,
// and must be when one is added.
func Grants(spec v1alpha1.DataStoreSpec) string {
	if spec.Postgres == nil {
		return ""
	}
	role, quote := pgx.Identifier{spec.Postgres.Username}.Sanitize(), dollar(spec)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("-- The role that Lethe sweeps as. Run this in database %s, as the owner of the tables.", comment(spec.Postgres.Database))
	line("-- It cannot read what the tables hold beside keys, ages, tenants and foreign keys, and cannot insert or update.")
	line("-- Set its password afterwards with: \\password %s", comment(spec.Postgres.Username))
	line("DO %s BEGIN", quote)
	line("  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s) THEN", literal(spec.Postgres.Username))
	line("    CREATE ROLE %s LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION;", role)
	line("  END IF;")
	line("  IF NOT has_function_privilege(%s, 'pg_catalog.pg_control_system()', 'EXECUTE') THEN", literal(spec.Postgres.Username))
	line("    GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO %s;", role)
	line("  END IF;")
	line("END %s;", quote)
	line("GRANT CONNECT ON DATABASE %s TO %s;", pgx.Identifier{spec.Postgres.Database}.Sanitize(), role)

	var schemas []string
	for _, d := range spec.Datasets {
		if s := schemaOf(d.Table); !slices.Contains(schemas, s) {
			schemas = append(schemas, s)
		}
	}
	slices.Sort(schemas)
	for _, s := range schemas {
		line("GRANT USAGE ON SCHEMA %s TO %s;", pgx.Identifier{s}.Sanitize(), role)
	}
	tables := make([]string, 0, len(spec.Datasets))
	related := relatedColumns(spec)
	for _, d := range spec.Datasets {
		table := pgx.Identifier{schemaOf(d.Table), string(d.Table.Name)}.Sanitize()
		columns := append(slices.Clone(d.Table.Key), d.Table.AgeColumn.Name)
		if d.Table.TenantColumn != "" {
			columns = append(columns, d.Table.TenantColumn)
		}
		columns = append(columns, related[[2]string{schemaOf(d.Table), string(d.Table.Name)}]...)
		var quoted []string
		for _, c := range columns {
			q := pgx.Identifier{string(c)}.Sanitize()
			if !slices.Contains(quoted, q) {
				quoted = append(quoted, q)
			}
		}
		line("GRANT DELETE, SELECT (%s) ON %s TO %s;", strings.Join(quoted, ", "), table, role)
		tables = append(tables, fmt.Sprintf("(%s, %s)", literal(schemaOf(d.Table)), literal(string(d.Table.Name))))
	}
	if len(tables) == 0 {
		return b.String()
	}
	line("-- Foreign keys among these tables: a row goes only when no row refers to it.")
	line("DO %s DECLARE k record; BEGIN", quote)
	line("  FOR k IN")
	line("    WITH datasets AS (SELECT c.oid FROM (VALUES %s) AS d (s, t)", strings.Join(tables, ", "))
	line("      JOIN pg_catalog.pg_namespace n ON n.nspname = d.s JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = d.t)")
	line("    SELECT DISTINCT x.relation::regclass AS relation, a.attname FROM pg_catalog.pg_constraint f")
	line("      CROSS JOIN LATERAL (SELECT f.conrelid, unnest(f.conkey) UNION ALL SELECT f.confrelid, unnest(f.confkey)) AS x (relation, number)")
	line("      JOIN pg_catalog.pg_attribute a ON a.attrelid = x.relation AND a.attnum = x.number")
	line("    WHERE f.contype = 'f' AND f.conrelid IN (SELECT oid FROM datasets) AND f.confrelid IN (SELECT oid FROM datasets)")
	line("  LOOP")
	line("    EXECUTE format('GRANT SELECT (%%I) ON %%s TO %%I', k.attname, k.relation, %s);", literal(spec.Postgres.Username))
	line("  END LOOP;")
	line("END %s;", quote)
	return b.String()
}

// relatedColumns are the columns that declared relations compare, by table.
func relatedColumns(spec v1alpha1.DataStoreSpec) map[[2]string][]v1alpha1.Identifier {
	out := map[[2]string][]v1alpha1.Identifier{}
	for _, r := range spec.Relations {
		if r.State != v1alpha1.RelationDeclared {
			continue
		}
		from := [2]string{schemaOf(v1alpha1.Table{Schema: r.Schema}), string(r.Table)}
		out[from] = append(out[from], r.Column)
		for _, d := range spec.Datasets {
			if to := [2]string{schemaOf(d.Table), string(d.Table.Name)}; d.Name == r.References && r.ReferencesColumn != "" {
				out[to] = append(out[to], r.ReferencesColumn)
			}
		}
	}
	return out
}

func schemaOf(t v1alpha1.Table) string {
	if t.Schema == "" {
		return "public"
	}
	return string(t.Schema)
}

// literal quotes a string for SQL; E” keeps backslashes meaning themselves whatever the server's settings.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}

// comment keeps a name on its line.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// dollar is a dollar quote that occurs in no name: a role may be called anything.
func dollar(spec v1alpha1.DataStoreSpec) string {
	for n := 0; ; n++ {
		if quote := fmt.Sprintf("$lethe%d$", n); !strings.Contains(spec.Postgres.Username, quote) {
			return quote
		}
	}
}
