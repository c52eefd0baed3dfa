package pg

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Main starts one server for all tests of a package, runs them, and stops it; call it from TestMain. The exit code
// comes back.
func Main(m *testing.M, o Options, use func(*Server)) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Start(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(s)
	code := m.Run()
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Database makes a database of its own for a test, runs the SQL in it, and drops it at the end. It returns the name.
func (s *Server) Database(t testing.TB, sql ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := "t_" + random()[:12]
	if err := s.Exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Exec(ctx, "postgres", "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	if err := s.Exec(ctx, name, strings.Join(sql, ";\n")); err != nil {
		t.Fatalf("fill the database: %v", err)
	}
	return name
}

// Admin is a connection of the superuser. What its own methods cannot do ends the test.
type Admin struct {
	*pgx.Conn
	t testing.TB
}

// Admin is a connection of the superuser that the test closes when it ends.
func (s *Server) Admin(t testing.TB, database string) Admin {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := s.Connect(ctx, database)
	if err != nil {
		t.Fatalf("connect as the superuser: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the database may have been dropped underneath
	})
	return Admin{Conn: conn, t: t}
}

// Run runs any number of statements.
func (a Admin) Run(sql string) {
	a.t.Helper()
	if _, err := a.PgConn().Exec(a.t.Context(), sql).ReadAll(); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
}

// Count reads one number.
func (a Admin) Count(sql string) int64 {
	a.t.Helper()
	var n int64
	if err := a.QueryRow(a.t.Context(), sql).Scan(&n); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// List reads one text column.
func (a Admin) List(sql string) []string {
	a.t.Helper()
	rows, err := a.Query(a.t.Context(), sql)
	if err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	return out
}
