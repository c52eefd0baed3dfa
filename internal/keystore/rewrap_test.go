package keystore

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// formatText is a format of documents.
var formatText = regexp.MustCompile(`^"lethe\.dev/[a-z-]+/v[0-9]+"$`)

// TestEveryKindOfDocumentIsRewrapped holds the list of kinds against the formats that the code knows: a new kind
// cannot be forgotten when the key-encryption key is changed.
func TestEveryKindOfDocumentIsRewrapped(t *testing.T) {
	elsewhere := map[string]string{
		FormatTenant: "its key is rewrapped with the tenant's document", FormatObject: "nothing in it is under the KEK", formatBackup: "a file, not a Secret",
	}
	var files []string
	for _, room := range []string{".", "../keyserver", "../authority"} {
		in, err := filepath.Glob(room + "/*.go")
		if err != nil || len(in) == 0 {
			t.Fatalf("no files in %s: %v", room, err)
		}
		files = append(files, in...)
	}
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && formatText.MatchString(lit.Value) {
				found[strings.Trim(lit.Value, `"`)] = true
			}
			return true
		})
	}
	if len(found) < 4 {
		t.Fatalf("found %v", found)
	}
	for format := range found {
		if _, ok := kekKinds[format]; !ok && elsewhere[format] == "" && !notUnderKEK[format] {
			t.Errorf("format %s is in no list: say in kekKinds how it is brought under another key-encryption key", format)
		}
	}
	for format, kind := range kekKinds {
		if !found[format] {
			t.Errorf("format %s is in the list and nowhere else", format)
		}
		document, wrapped := kind.fresh()
		if b, err := json.Marshal(document); err != nil || len(b) < 3 || wrapped == nil {
			t.Errorf("format %s: %v", format, err)
		}
	}
}
