// Package reasons holds the code to one place for reasons: api/v1alpha1.
package reasons

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

var root = filepath.Join("..", "..")

// holders are the types that have a reason, and calls are the functions that are told one: by which argument.
var (
	holders = map[string]bool{"Condition": true, "Problem": true, "problem": true, "CredentialResult": true,
		"Report": true, "Dataset": true, "Rule": true, "DatasetMeasurement": true, "RuleMeasurement": true, "SweepStatus": true}
	calls = map[string]int{"Eventf": 3, "condition": 2, "Step": 3, "Summary": 2, "yes": 0, "no": 0, "unknown": 0, "on": 0, "trouble": 0, "refuse": 0, "later": 0, "Refuse": 0, "Later": 0, "refused": 1}
	// The calls of those packages alone have these names.
	callers = []string{"controllers/", "internal/reconcile/", "internal/dnscheck/", "internal/status/", "internal/keyserver/", "internal/keystore/", "internal/authority/"}
)

// found are the places of a file at which a reason stands as a string.
func found(set *token.FileSet, path string, file *ast.File) []string {
	var out []string
	at := func(n ast.Node, what string) {
		out = append(out, fmt.Sprintf("%s:%d: %s", path, set.Position(n.Pos()).Line, what))
	}
	isCaller := false
	for _, folder := range callers {
		isCaller = isCaller || strings.HasPrefix(path, folder)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if i < len(n.Values) && isReason(name.Name) && isText(n.Values[i]) {
					at(name, name.Name+" is declared here: it belongs into api/v1alpha1/reasons.go, with its row in reason_facts.go")
				}
			}
		case *ast.CompositeLit:
			of := []*ast.CompositeLit{n}
			kind := typeName(n.Type)
			if list, ok := n.Type.(*ast.ArrayType); ok {
				of, kind = nil, typeName(list.Elt)
				for _, element := range n.Elts {
					if one, ok := element.(*ast.CompositeLit); ok && one.Type == nil {
						of = append(of, one)
					}
				}
			}
			for _, one := range of {
				for _, element := range one.Elts {
					if pair, ok := element.(*ast.KeyValueExpr); ok && holders[kind] && typeName(pair.Key) == "Reason" && isText(pair.Value) {
						at(pair, "a "+kind+" has its reason as a string: take the constant of api/v1alpha1")
					}
				}
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if selector, ok := left.(*ast.SelectorExpr); ok && selector.Sel.Name == "Reason" && i < len(n.Rhs) && isText(n.Rhs[i]) {
					at(left, "a reason is set as a string: take the constant of api/v1alpha1")
				}
			}
		case *ast.CallExpr:
			if i, ok := calls[typeName(n.Fun)]; ok && isCaller && i < len(n.Args) && isText(n.Args[i]) {
				at(n, typeName(n.Fun)+" is told a reason as a string: take the constant of api/v1alpha1")
			}
		}
		return true
	})
	return out
}

func isReason(name string) bool {
	rest, ok := strings.CutPrefix(name, "Reason")
	return ok && rest != "" && rest[0] >= 'A' && rest[0] <= 'Z'
}

// isText says whether an expression is a string as it stands; the empty one is no reason.
func isText(e ast.Expr) bool {
	literal, ok := e.(*ast.BasicLit)
	return ok && literal.Kind == token.STRING && literal.Value != `""`
}

// typeName is the last word of a type, a function or a key.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	default:
		return ""
	}
}

// everyFile calls with each file of Lethe's own that is no test: the cluster tool and the tests' programs are no part
// of it.
func everyFile(t *testing.T, call func(set *token.FileSet, path string, file *ast.File)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		switch {
		case entry.IsDir() && (entry.Name() == "testdata" || relative == "hack/cluster" || relative == "test/programs" || strings.HasPrefix(relative, ".") && relative != "."):
			return filepath.SkipDir
		case entry.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		call(set, relative, file)
		return nil
	})
	if err != nil || files < 300 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestReasonsStandInOnePlace: no reason is declared, or given as a string, but in api/v1alpha1.
func TestReasonsStandInOnePlace(t *testing.T) {
	everyFile(t, func(set *token.FileSet, path string, file *ast.File) {
		if strings.HasPrefix(path, "api/v1alpha1/") {
			return
		}
		for _, place := range found(set, path, file) {
			t.Error(place)
		}
	})
}

// carriers are the types that may declare a reason with a message: what stands in the API, the problem of a condition,
// and what travels between programs. Whatever else has both is made of one of them.
var carriers = map[string]bool{
	"api/v1alpha1.Problem":             true,
	"api/v1alpha1.SweepStatus":         true,
	"internal/status.Problem":          true,
	"internal/report.Report":           true,
	"internal/keyapi.Error":            true,
	"internal/keyapi.CredentialResult": true,
}

// carriersIn are the struct types of a file that declare both.
func carriersIn(path string, file *ast.File) []string {
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		has := map[string]bool{}
		for _, field := range fields.Fields.List {
			for _, name := range field.Names {
				has[strings.ToLower(name.Name)] = true
			}
		}
		if has["reason"] && has["message"] {
			out = append(out, filepath.ToSlash(filepath.Dir(path))+"."+spec.Name.Name)
		}
		return true
	})
	return out
}

// TestAReasonWithItsMessageHasFewCarriers: a new type that declares both would be one more to turn into all others.
func TestAReasonWithItsMessageHasFewCarriers(t *testing.T) {
	seen := map[string]bool{}
	everyFile(t, func(_ *token.FileSet, path string, file *ast.File) {
		for _, name := range carriersIn(path, file) {
			seen[name] = true
			if !carriers[name] && !strings.HasPrefix(path, "test/") {
				t.Errorf("%s declares a reason and a message: embed v1alpha1.Problem", name)
			}
		}
	})
	for name := range carriers {
		if !seen[name] {
			t.Errorf("%s is no such type any more: take it off the list", name)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\ntype A struct{ Reason, Message string }\ntype B struct{ reason string; message string }\ntype C struct{ v1alpha1.Problem }", 0)
	if got := carriersIn("internal/x/x.go", file); err != nil || len(got) != 2 {
		t.Errorf("found %v, %v", got, err)
	}
}

// TestAReasonElsewhereIsFound: each of the ways to give one.
func TestAReasonElsewhereIsFound(t *testing.T) {
	for text, want := range map[string]int{
		`const ReasonNew = "New"`:                                           1,
		`const ReasonNew = v1alpha1.ReasonNew`:                              0,
		`const reasonable = "New"`:                                          0,
		`var c = []metav1.Condition{{Reason: "New"}, {Reason: "Other"}}`:    2,
		`var c = metav1.Condition{Type: "Ready", Reason: "New"}`:            1,
		`var p = &problem{Problem: status.Problem{Reason: "New"}}`:          1,
		`var c = metav1.Condition{Reason: v1alpha1.ReasonReady}`:            0,
		`var r = v1alpha1.Relation{Reason: "say why"}`:                      0,
		`func f() { p.Reason, p.Stalled = "New", true }`:                    1,
		`func f() { r.Recorder.Eventf(o, nil, kind, "New", "Sweep", "x") }`: 1,
		`func f() { return refuse("New", "why") }`:                          1,
		`func f() { return Summary(nil, true, "", "why") }`:                 0,
	} {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, "x.go", "package x\n"+text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := found(set, "controllers/x.go", file); len(got) != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
