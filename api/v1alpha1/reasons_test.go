package v1alpha1

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parsed are the reasons that the sources have, by name: their values, their comments, and how often the table has a
// row for each.
func parsed(t *testing.T) (values, comments map[string]string, rows map[string]int) {
	t.Helper()
	values, comments, rows = map[string]string{}, map[string]string{}, map[string]int{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) == 0 {
				return true
			}
			switch value := spec.Values[0].(type) {
			case *ast.BasicLit:
				if name := spec.Names[0].Name; strings.HasPrefix(name, "Reason") && value.Kind == token.STRING {
					if !strings.HasPrefix(path, "reasons") {
						t.Errorf("%s stands in %s, and not in reasons.go", name, path)
					}
					values[name], _ = strconv.Unquote(value.Value)
					comments[name] = spec.Doc.Text()
				}
			case *ast.CompositeLit:
				for _, row := range value.Elts {
					if pair, ok := row.(*ast.KeyValueExpr); ok && spec.Names[0].Name == "reasonFacts" {
						rows[pair.Key.(*ast.Ident).Name]++
					}
				}
			}
			return true
		})
	}
	return values, comments, rows
}

// TestEveryReasonHasItsRow: in the table of facts, which has no other, and in the order of the constants; and a
// comment that says when it is used.
func TestEveryReasonHasItsRow(t *testing.T) {
	values, comments, rows := parsed(t)
	if len(values) < 180 {
		t.Errorf("%d reasons only", len(values))
	}
	by := map[string]string{}
	for name, value := range values {
		if other := by[value]; other != "" {
			t.Errorf("%s and %s are the same reason, %s", name, other, value)
		}
		if by[value] = name; rows[name] != 1 {
			t.Errorf("%s has %d rows in reasonFacts: say there whether the store was reached, whether a person must act and whether it is tried again", name, rows[name])
		}
		if text, ok := strings.CutPrefix(comments[name], name+": "); !ok || len(text) < 10 {
			t.Errorf("%s has no comment that begins with %q and says when it is used", name, name+":")
		}
	}
	for name := range rows {
		if values[name] == "" {
			t.Errorf("reasonFacts has a row for %s, which is no reason", name)
		}
	}
	if got := Reasons(); len(got) != len(values) || !slices.IsSorted(got) {
		t.Errorf("%d reasons for %d constants", len(got), len(values))
	}
}

// TestFactsAgree: what one column says does not contradict another.
func TestFactsAgree(t *testing.T) {
	for _, reason := range Reasons() {
		f := FactsOf(reason)
		if (f.Pod.Image || f.Pod.Ended) && !f.Pod.Fails || f.Pod.Image && f.Pod.Ended {
			t.Errorf("%s: %+v", reason, f.Pod)
		}
		if f.Pod.Fails && (!f.NeedsPerson || f.Pod.Step == PodStepNone) {
			t.Errorf("%s: a bot that fails needs a person, at the step that it has come to: %+v", reason, f)
		}
		if f.Reached == TruthNo && !f.NeedsPerson && !f.Retry {
			t.Errorf("%s: a store that was not reached comes right by nothing", reason)
		}
	}
	if f := FactsOf("Unheard"); f != (ReasonFacts{}) || f.IsFinal() {
		t.Errorf("a reason of another version tells %+v", f)
	}
}

// TestWhatTheKeyserverSaysForGood: by these words the manager stops to ask at once; by all others of a call of its
// own it asks again soon.
func TestWhatTheKeyserverSaysForGood(t *testing.T) {
	for reason, want := range map[string]bool{
		ReasonKeyMissing: true, ReasonKeysChoice: true, ReasonKeysAltered: true, ReasonKeysRolledBack: true, ReasonRevoked: true, ReasonForbidden: true, ReasonBadRequest: true,
		ReasonUnauthenticated: false, ReasonNotFound: false, ReasonNoTenant: false, ReasonNoUIDRange: false, ReasonKEKUnavailable: false, ReasonPodMismatch: false, ReasonInUse: false,
		ReasonNotReady: false, ReasonSuspended: false, ReasonForeignSecret: false, ReasonNotIsolated: false, ReasonForeignVolume: false, ReasonPlanChanged: false, ReasonInternal: false,
	} {
		if FactsOf(reason).IsFinal() != want {
			t.Errorf("%s is for good: %v", reason, !want)
		}
	}
}
