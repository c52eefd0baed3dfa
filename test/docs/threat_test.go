package docs

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testNames = regexp.MustCompile(`<!--((?:,? (?:Test|Fuzz)\w+)+) -->`)
	testFuncs = regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+|Benchmark\w+)\(`)
)

// TestTheThreatModelIsTested: every row of its tables, every item of its lists and every paragraph names, in a
// comment, the tests that hold it, and those tests exist.
func TestTheThreatModelIsTested(t *testing.T) {
	exists := everyTest(t)
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

// statements are the rows, items and paragraphs of a page, without its headings, its tables' heads and its numbered
// list of what is protected.
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

// everyTest that the repository has, by name.
func everyTest(t *testing.T) map[string]bool {
	t.Helper()
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
	return exists
}

var (
	fenced     = regexp.MustCompile("(?s)```.*?```")
	testsNamed = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+…?`)
)

// TestPagesNameTestsThatExist: a decision that says what holds it is held by that. Names stand in the text of a page
// or in its comments.
func TestPagesNameTestsThatExist(t *testing.T) {
	exists := everyTest(t)
	named := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "docs/runbooks/*.md", "examples/*.md", "hack/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range testsNamed.FindAllString(fenced.ReplaceAllString(string(content), ""), -1) {
				named++
				// With an ellipsis it is how the names of several begin.
				prefix, several := strings.CutSuffix(name, "…")
				if !exists[name] && !(several && slices.ContainsFunc(slices.Collect(maps.Keys(exists)), func(test string) bool { return strings.HasPrefix(test, prefix) })) {
					t.Errorf("%s names %s, which does not exist", filepath.Base(file), name)
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("found %d names only", named)
	}
}
