package house

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// width is how many columns a line of prose may have. A tab counts as four.
const width = 120

// columns of a line.
func columns(line string) int {
	n := 0
	for _, r := range line {
		if r == '\t' {
			n += 4 - n%4
			continue
		}
		n++
	}
	return n
}

// breakable says whether a line of prose that is too long could be shorter: there is a blank in it, after its first
// word, that stands in no code span, no link and no other thing that has to stay on one line.
func breakable(text string) bool {
	text = unbroken.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("x", utf8.RuneCountInString(s)) })
	return strings.Contains(strings.TrimLeft(text, " \t-*+#/>0123456789."), " ")
}

var (
	unbroken = regexp.MustCompile("`[^`]*`|\\[[^\\]]*\\]\\([^)]*\\)|\\*\\*[^*]*\\*\\*|<[^>]*>")
	marker   = regexp.MustCompile(`^//(go:|line |nolint| \+| nolint|\t)`)
)

// wideComments finds lines that are a comment of Go alone, and too long.
func wideComments(name, content string) ([]string, error) {
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(content, "\n")
	var wrong []string
	for _, group := range tree.Comments {
		for _, comment := range group.List {
			number := files.Position(comment.Pos()).Line
			line := lines[number-1]
			if strings.TrimSpace(line) == strings.TrimSpace(comment.Text) && !marker.MatchString(comment.Text) && columns(line) > width && breakable(line) {
				wrong = append(wrong, tooWide(name, number, columns(line)))
			}
		}
	}
	return wrong, nil
}

// wideProse finds lines of Markdown that are prose, and too long. Tables, code, headings and comments of HTML have
// lines of their own.
func wideProse(name, content string) []string {
	var wrong []string
	fenced := false
	for i, line := range strings.Split(content, "\n") {
		text := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(text, "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(text, "|"), strings.HasPrefix(text, "#"), strings.HasPrefix(text, "<!--"):
		case columns(line) > width && breakable(line):
			wrong = append(wrong, tooWide(name, i+1, columns(line)))
		}
	}
	return wrong
}

func tooWide(name string, line, columns int) string {
	return fmt.Sprintf("%s:%d has %d columns, and prose has at most %d: break the line", name, line, columns, width)
}

// TestProseIsNarrow: comments and pages can be read beside each other on one screen.
func TestProseIsNarrow(t *testing.T) {
	root := "../.."
	seen := 0
	err := filepath.WalkDir(root, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			switch name := entry.Name(); {
			case rel == ".":
				return nil
			case strings.HasPrefix(name, "."), name == "testdata", rel == "bin", rel == "dist", rel == "docs/reference", rel == "hack/cluster", rel == "test/programs":
				return filepath.SkipDir // what is generated, and modules of their own
			}
			return nil
		}
		isGo := strings.HasSuffix(rel, ".go") && !strings.HasPrefix(entry.Name(), "zz_generated")
		if !isGo && !strings.HasSuffix(rel, ".md") {
			return nil
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		seen++
		wrong := wideProse(rel, string(content))
		if isGo {
			if wrong, err = wideComments(rel, string(content)); err != nil {
				return err
			}
		}
		for _, line := range wrong {
			t.Error(line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 400 {
		t.Fatalf("only %d files below %s: this test looks at the wrong place", seen, root)
	}
}

func TestWideProseIsFound(t *testing.T) {
	long := strings.Repeat("word ", 24) + "end of it"
	for name, test := range map[string]struct {
		content string
		isGo    bool
		want    int
	}{
		"a comment":                {"package p\n\n// F " + long + "\nfunc F() {}\n", true, 1},
		"a comment within":         {"package p\n\nfunc F() {\n\t// " + long + "\n}\n", true, 1},
		"tabs count":               {"package p\n\nfunc F() {\n\t\t// " + strings.Repeat("w ", 55) + "\n}\n", true, 1},
		"a marker":                 {"package p\n\n// +kubebuilder:" + long + "\ntype T int\n", true, 0},
		"code of a comment":        {"package p\n\n// T is so:\n//\n//\t" + long + "\ntype T int\n", true, 0},
		"a directive":              {"package p\n\n//nolint:gosec // " + long + "\ntype T int\n", true, 0},
		"code":                     {"package p\n\nvar t = \"" + long + "\"\n", true, 0},
		"text in quotes":           {"package p\n\nvar t = `\n// " + long + "\n`\n", true, 0},
		"an address":               {"package p\n\n// https://" + strings.Repeat("w", 130) + "\ntype T int\n", true, 0},
		"a short comment":          {"package p\n\n// T is short.\ntype T int\n", true, 0},
		"a paragraph":              {long, false, 1},
		"an item":                  {"- " + long, false, 1},
		"a row of a table":         {"| " + long + " |", false, 0},
		"code of a page":           {"```\n" + long + "\n```", false, 0},
		"after code of a page":     {"```\nx\n```\n" + long, false, 1},
		"a heading":                {"# " + long, false, 0},
		"a span that stays in one": {"- `" + long + "`", false, 0},
		"a comment of a page":      {"<!-- " + long + " -->", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := wideProse(name, test.content)
			if test.isGo {
				var err error
				if got, err = wideComments(name, test.content); err != nil {
					t.Fatal(err)
				}
			}
			if len(got) != test.want {
				t.Errorf("found %q, want %d", got, test.want)
			}
		})
	}
}
