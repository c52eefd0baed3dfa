package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestTheRoleCanDoNothingElse(t *testing.T) {
	w := newWorld(t, Config{Tenants: []string{"acme"}, Datasets: []Dataset{
		in(after(90, aTable("parent")), withTenant("tenant")), in(after(90, aTable("child")), withTenant("tenant"))}},
		`CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz, tenant text, code text UNIQUE, body text);
		CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, tenant text, code text REFERENCES parent (code), body text);
		CREATE INDEX ON child (code); CREATE TABLE other (id bigint); CREATE SCHEMA private; CREATE TABLE private.t (id bigint)`)
	conn := w.connect().conn
	tests := map[string]struct {
		sql  string
		want string // SQLSTATE, empty: allowed
	}{
		"read key, age, tenant":            {`SELECT id, at, tenant FROM parent`, ""},
		"read both ends of a foreign key":  {`SELECT p.code, c.code FROM parent p, child c`, ""},
		"delete":                           {`DELETE FROM child WHERE id = 0`, ""},
		"leave a mark that is durable":     {`SELECT pg_logical_emit_message(true, 'lethe', '')`, ""},
		"read the content":                 {`SELECT body FROM parent`, "42501"},
		"read the content of a child":      {`SELECT body FROM child`, "42501"},
		"read everything":                  {`SELECT * FROM child`, "42501"},
		"find rows by content":             {`SELECT id FROM child WHERE body LIKE 'a%'`, "42501"},
		"learn content by deleting":        {`DELETE FROM child WHERE body LIKE 'a%'`, "42501"},
		"get content back from a deletion": {`DELETE FROM child RETURNING body`, "42501"},
		"copy":                             {`COPY child TO STDOUT`, "42501"},
		"insert":                           {`INSERT INTO child (id) VALUES (9)`, "42501"},
		"update":                           {`UPDATE child SET at = now()`, "42501"},
		"lock a row":                       {`SELECT id FROM child FOR UPDATE`, "42501"},
		"truncate":                         {`TRUNCATE child`, "42501"},
		"another table":                    {`SELECT id FROM other`, "42501"},
		"another schema":                   {`SELECT id FROM private.t`, "42501"},
		"statistics of content":            {`SELECT 1 / count(*) FROM pg_stats WHERE attname = 'body'`, "22012"},
		"make a role":                      {`CREATE ROLE more`, "42501"},
		"switch a trigger off":             {`ALTER TABLE child DISABLE TRIGGER ALL`, "42501"},
		"become a replica":                 {`SET session_replication_role = replica`, "42501"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := conn.PgConn().Exec(t.Context(), "SET search_path = public; BEGIN; "+tc.sql+"; ROLLBACK").ReadAll()
			if got := code(err); got != tc.want || tc.want == "" && err != nil {
				t.Errorf("%v", err)
			}
			if _, err := conn.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestGrantsCanBeRunAgain(t *testing.T) {
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}}, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz)`)
	w.grant()
	w.connect()
}

// A role may be called anything, and its name stands inside quotes of three kinds.
func TestGrantsQuoteNames(t *testing.T) {
	for _, name := range []string{`plain`, `it's`, `back\slash`, `"quoted"`, `$lethe0$ END; DROP TABLE log; --`, "two\nlines; DROP TABLE log", `%I %s`} {
		t.Run(name, func(t *testing.T) {
			database := server.Database(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz)`)
			admin := server.Admin(t, database)
			role := name + " " + database
			spec := v1alpha1.DataStoreSpec{Postgres: &v1alpha1.PostgresStore{Database: database, Username: role},
				Datasets: []v1alpha1.Dataset{{Name: "log", Table: aTable("log")}}}
			if _, err := admin.PgConn().Exec(t.Context(), Grants(spec)).ReadAll(); err != nil {
				t.Fatalf("%v\n%s", err, Grants(spec))
			}
			var may bool
			if err := admin.QueryRow(t.Context(), `SELECT has_table_privilege($1, 'log', 'DELETE')`, role).Scan(&may); err != nil || !may {
				t.Errorf("the role may delete: %v, %v", may, err)
			}
			quoted := pgx.Identifier{role}.Sanitize()
			if _, err := admin.PgConn().Exec(t.Context(), "DROP OWNED BY "+quoted+"; DROP ROLE "+quoted).ReadAll(); err != nil {
				t.Errorf("drop the role: %v", err)
			}
			for line := range strings.Lines(Grants(spec)) {
				if strings.HasPrefix(line, "DROP") {
					t.Errorf("a name broke out of its comment: %s", line)
				}
			}
		})
	}
	if got := Grants(v1alpha1.DataStoreSpec{}); got != "" {
		t.Errorf("grants of a store that is no PostgreSQL: %q", got)
	}
}
