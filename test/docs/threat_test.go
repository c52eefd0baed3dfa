package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testNames = regexp.MustCompile(`<!--((?:,? (?:Test|Fuzz)\w+)+) -->`)
	testFuncs = regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
)

// TestTheThreatModelIsTested: every row of its tables, every item of its lists and every paragraph names, in a comment, the
// tests that hold it, and those tests exist.
func TestTheThreatModelIsTested(t *testing.T) {
	exists := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for _, match := range testFuncs.FindAllSubmatch(content, -1) {
			exists[string(match[1])] = true
		}
		return err
	})
	if err != nil || len(exists) < 300 {
		t.Fatalf("found %d tests: %v", len(exists), err)
	}
	said := 0
	for _, statement := range statements(read(t, "docs", "threat-model.md")) {
		said++
		named := testNames.FindAllStringSubmatch(statement, -1)
		if named == nil {
			t.Errorf("no test is named for: %.100s", statement)
		}
		for _, names := range named {
			for _, name := range strings.FieldsFunc(names[1], func(r rune) bool { return r == ' ' || r == ',' }) {
				if !exists[name] {
					t.Errorf("%s does not exist, for: %.100s", name, statement)
				}
			}
		}
	}
	if said < 25 {
		t.Errorf("found %d statements only", said)
	}
}

// statements are the rows, items and paragraphs of a page, without its headings, its tables' heads and its numbered list of
// what is protected.
func statements(page string) []string {
	var out []string
	begins := regexp.MustCompile(`^(\| |- |[A-Z])`)
	inParagraph := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "", strings.HasPrefix(line, "#"), regexp.MustCompile(`^\d+\. `).MatchString(line):
			inParagraph = false
		case strings.HasPrefix(line, "|---"):
			out = out[:len(out)-1] // the line before was the table's head
		case inParagraph && !strings.HasPrefix(line, "- ") && !strings.HasPrefix(line, "| "):
			out[len(out)-1] += " " + strings.TrimSpace(line)
		case begins.MatchString(line):
			out = append(out, line)
			inParagraph = !strings.HasPrefix(line, "| ")
		}
	}
	return out
}
