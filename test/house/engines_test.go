package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Files that may name an engine: the unions that have a member for each, and the programs that choose one. A new
// engine is its own folder, and a line in each of these.
var (
	unions   = []string{"internal/plan/target.go", "internal/sealing/place.go"}
	choosers = []string{"api", "cmd/sweeper", "cmd/kubectl-lethe", "test", "hack"}
)

// enginesOf are the engines that a listing has: the folders below internal/stores.
func enginesOf(files []file) []string {
	var out []string
	for _, f := range files {
		if folder := f.folder(); path.Dir(folder) == "internal/stores" && !slices.Contains(out, path.Base(folder)) {
			out = append(out, path.Base(folder))
		}
	}
	slices.Sort(out)
	return out
}

// namesEngines finds the names and the texts of a file that name an engine where nobody may.
func namesEngines(engines []string, name, content string) ([]string, error) {
	folder := path.Dir(name)
	if slices.Contains(unions, name) || strings.HasSuffix(name, "_test.go") || within(folder, choosers) {
		return nil, nil
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, content, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var wrong []string
	look := func(text string, at token.Pos) {
		for _, e := range engines {
			if folder != "internal/stores/"+e && strings.Contains(strings.ToLower(text), e) {
				wrong = append(wrong, fmt.Sprintf("%s:%d names the engine %s: ask the contract (internal/stores), or a method of the union that has a member for it", name, set.Position(at).Line, e))
			}
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			look(n.Name, n.Pos())
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				look(n.Value, n.Pos())
			}
		}
		return true
	})
	return wrong, nil
}

func TestOnlyItsOwnNameAnEngine(t *testing.T) {
	files := listing(t, root)
	engines := enginesOf(files)
	if len(engines) == 0 {
		t.Fatal("there is no engine: this test looks at the wrong place")
	}
	for _, f := range files {
		if f.tool {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		wrong, err := namesEngines(engines, f.path, string(content))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wrong {
			t.Error(w)
		}
	}
}

func TestAnEngineThatIsNamedIsFound(t *testing.T) {
	engines := enginesOf([]file{{path: "internal/stores/stores.go"}, {path: "internal/stores/postgres/engine.go"}, {path: "internal/stores/redis/engine.go"}})
	if !slices.Equal(engines, []string{"postgres", "redis"}) {
		t.Fatalf("engines: %q", engines)
	}
	for name, test := range map[string]struct {
		path, content string
		want          int
	}{
		"a field":                   {"internal/sweep/a.go", "package sweep\n\nvar p = spec.Postgres\n", 1},
		"a constant":                {"controllers/datastore/a.go", "package datastore\n\nvar p = v1alpha1.StorePostgres\n", 1},
		"a text":                    {"internal/status/a.go", "package status\n\nvar p = \"spec.postgres.password: \"\n", 1},
		"an import":                 {"internal/keyserver/a.go", "package keyserver\n\nimport _ \"example.com/redis\"\n", 1},
		"an engine of another":      {"internal/stores/redis/a.go", "package redis\n\nvar p = postgres.Engine{}\n", 1},
		"the contract":              {"internal/stores/stores.go", "package stores\n\nvar redis = 1\n", 1},
		"a comment":                 {"internal/sweep/a.go", "// Package sweep is for PostgreSQL, too.\npackage sweep\n", 0},
		"the engine itself":         {"internal/stores/postgres/a.go", "package postgres\n\nvar p = PostgresPoint\n", 0},
		"the union":                 {"internal/plan/target.go", "package plan\n\nvar p = spec.Postgres\n", 0},
		"another file of its room":  {"internal/plan/plan.go", "package plan\n\nvar p = spec.Postgres\n", 1},
		"who chooses one":           {"cmd/sweeper/main.go", "package main\n\nvar p = postgres.Engine{}\n", 0},
		"the keyserver's own start": {"cmd/keyserver/main.go", "package main\n\nvar p = postgres.Engine{}\n", 1},
		"a test":                    {"internal/sweep/a_test.go", "package sweep\n\nvar p = postgres.Engine{}\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := namesEngines(engines, test.path, test.content)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != test.want {
				t.Errorf("found %q, want %d", got, test.want)
			}
		})
	}
}
