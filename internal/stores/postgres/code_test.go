package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestOnlyStatesThatAreKnownPass: a server, or a trigger in it, writes into SQLSTATE what it likes.
func TestOnlyStatesThatAreKnownPass(t *testing.T) {
	for state, want := range map[string]string{
		"28P01": "28P01", "57014": "57014", "P0001": "P0001", "0A000": "0A000", "3D000": "3D000", "XX001": "XX001", "HV00N": "HV00N", "F0001": "F0001", "72000": "72000",
		"": "XX000", "hunter2": "XX000", "28p01": "XX000", "28P0": "XX000", "28P012": "XX000", "28P0\n": "XX000", "\x1b[31m": "XX000", "ACME1": "XX000", "00\u202e": "XX000", "99999": "XX000",
	} {
		err := fmt.Errorf("delete: %w", &pgconn.PgError{Code: state, Severity: "hunter2", Message: "hunter2", Detail: "hunter2", ConstraintName: "hunter2", Routine: "hunter2", Where: "hunter2"})
		if got := code(err); got != want {
			t.Errorf("%q became %q, want %q", state, got, want)
		}
		for _, said := range []string{Describe(err), classifyConnect(Target{Host: "db", Port: 1}, err).Error()} {
			if strings.Contains(said, "hunter2") || strings.ContainsAny(said, "\x1b\n\u202e") {
				t.Errorf("%q: %q", state, said)
			}
		}
	}
	if got := code(errors.New("28P01")); got != "" {
		t.Errorf("%q is no server's", got)
	}
}

// TestOneFileReadsWhatAServerSays: nothing but code, and the comparison with what the catalogue knows, looks into a
// server's error.
func TestOneFileReadsWhatAServerSays(t *testing.T) {
	fields := regexp.MustCompile(`\b(server|pgErr|pge)\.(Code|Severity|SeverityUnlocalized|Message|Detail|Hint|Where|InternalQuery|SchemaName|TableName|ColumnName|DataTypeName|ConstraintName|Routine|File)\b|OnNotice|OnNotification|OnPgError`)
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if fields.MatchString(line) {
				if found++; !regexp.MustCompile(`server\.(Code|ConstraintName|Where)`).MatchString(line) || file != "connect.go" {
					t.Errorf("%s: %s", file, line)
				}
			}
		}
	}
	if found != 3 {
		t.Errorf("%d places read a server's error, want the two of code and the one that compares", found)
	}
}
