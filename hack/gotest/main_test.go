package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tree is a module whose packages end in every way that a package of tests can. Its name is no address: nothing is
// fetched.
var tree = map[string]string{
	"go.mod":             "module tree\n\ngo 1.26\n",
	"good/a_test.go":     "package good\nimport \"testing\"\nfunc TestOne(t *testing.T) { t.Log(\"a passing test's words\"); t.Run(\"sub\", func(*testing.T) {}) }\nfunc TestTwo(*testing.T) { println() }\n",
	"none/a.go":          "package none\n",
	"empty/a_test.go":    "package empty\n",
	"exits/a_test.go":    "package exits\nimport (\"os\"; \"testing\")\nfunc TestMain(*testing.M) { os.Exit(0) }\nfunc TestOne(*testing.T) {}\n",
	"skips/a_test.go":    "package skips\nimport \"testing\"\nfunc TestOne(*testing.T) {}\nfunc TestTwo(t *testing.T) { t.Skip(\"no cluster here\") }\n",
	"subskips/a_test.go": "package subskips\nimport \"testing\"\nfunc TestOne(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Skip(\"no node here\") }) }\n",
	"fails/a_test.go": "package fails\nimport (\"fmt\"; \"testing\")\nfunc TestGood(t *testing.T) { t.Log(\"quiet\") }\n" +
		"func TestBad(t *testing.T) { fmt.Println(\"said aloud\"); t.Run(\"part\", func(t *testing.T) { t.Error(\"wanted 1\") }); t.Run(\"other\", func(t *testing.T) { t.Log(\"quiet\") }) }\n",
	"panics/a_test.go": "package panics\nimport \"testing\"\nfunc TestGood(*testing.T) {}\nfunc TestBad(*testing.T) { panic(\"oh no\") }\nfunc TestLater(*testing.T) {}\n",
	"broken/a_test.go": "package broken\nimport \"testing\"\nfunc TestOne(*testing.T) { undefined() }\n",
}

// gotest runs the command in the tree.
func gotest(t *testing.T, dir string, args ...string) (code int, out string) {
	t.Helper()
	var b, errs bytes.Buffer // two: go's own words come from another goroutine
	code = run(append([]string{"-C", dir, "-tally", filepath.Join(dir, "tally")}, args...), &b, &errs)
	return code, regexp.MustCompile(`\d+\.\d+s`).ReplaceAllString(errs.String()+b.String(), "TIME")
}

func newTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range tree {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-buildvcs=false")
	t.Setenv("GOWORK", "off")
	return dir
}

// TestWhatIsPrinted: in each case the output is all that go test says, and what gotest adds to it.
func TestWhatIsPrinted(t *testing.T) {
	dir := newTree(t)
	for _, c := range []struct {
		name, pkg string
		code      int
		ran       int
		says      []string // in this order
		not       []string
	}{
		{name: "tests that pass", pkg: "./good", ran: 2, says: []string{"ok  \ttree/good\tTIME\n"}, not: []string{"passing test's words", "PASS", "RUN"}},
		{name: "tests that passed before, out of go's cache", pkg: "./good", ran: 2, says: []string{"ok  \ttree/good\t(cached)\n"}},
		{name: "a package without test files is named, and is no fault", pkg: "./good ./none", ran: 2, says: []string{"tree/none\t[no test files]\n"}, not: []string{"FAIL"}},
		{name: "a pattern that matches no test", pkg: "-run Nothing ./good", code: 1, says: []string{"FAIL\ttree/good\t[it has test files, and no test of it ran]\n", "FAIL\n"}, not: []string{"ok "}},
		{name: "a test file without tests", pkg: "./empty ./good", code: 1, ran: 2, says: []string{"FAIL\ttree/empty\t[it has test files, and no test of it ran]\n"}},
		{name: "a TestMain that runs none", pkg: "./exits", code: 1, says: []string{"FAIL\ttree/exits\t[it has test files, and no test of it ran]\n"}},
		{name: "a test that skips itself", pkg: "./skips", code: 1, ran: 1, says: []string{"--- SKIP: TestTwo (TIME)\n", "no cluster here", "FAIL\ttree/skips\t[skipped: TestTwo]\n"}, not: []string{"ok "}},
		{name: "a part of a test that skips itself", pkg: "./subskips", code: 1, ran: 1, says: []string{"no node here", "[skipped: TestOne/sub]\n"}},
		{name: "a test that fails", pkg: "./fails", code: 1, ran: 2,
			says: []string{"--- FAIL: TestBad (TIME)\n", "said aloud\n", "    --- FAIL: TestBad/part (TIME)\n", "wanted 1\n", "FAIL\n", "FAIL\ttree/fails\tTIME\n", "FAIL\n"},
			not:  []string{"quiet", "RUN"}},
		{name: "a test that panics", pkg: "./panics", code: 1, ran: 2, says: []string{"--- FAIL: TestBad", "panic: oh no", "FAIL\ttree/panics\tTIME\n"}, not: []string{"TestLater"}},
		{name: "a test that does not compile", pkg: "./broken", code: 1, says: []string{"undefined: undefined", "FAIL\ttree/broken [build failed]\n"}},
		{name: "a package that is not there", pkg: "./gone", code: 1, says: []string{"gone", "FAIL\n"}},
		{name: "no package at all", pkg: "./none", code: 1, says: []string{"no test ran at all"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = os.Remove(filepath.Join(dir, "tally"))
			code, out := gotest(t, dir, strings.Fields(c.pkg)...)
			if code != c.code {
				t.Errorf("the exit code is %d, wanted %d", code, c.code)
			}
			if ran, err := sum(filepath.Join(dir, "tally")); err != nil || ran != c.ran {
				t.Errorf("%d tests are counted (%v), wanted %d", ran, err, c.ran)
			}
			rest := out
			for _, s := range c.says {
				_, after, found := strings.Cut(rest, s)
				if !found {
					t.Fatalf("%q is not said, or not in its place:\n%s", s, out)
				}
				rest = after
			}
			for _, s := range c.not {
				if strings.Contains(out, s) {
					t.Errorf("%q is said:\n%s", s, out)
				}
			}
			if code == 0 && !strings.HasPrefix(out[strings.LastIndex(strings.TrimRight(out, "\n"), "\n")+1:], "ok") && !strings.Contains(out, "[no test files]") {
				t.Errorf("the last line is not go test's own:\n%s", out)
			}
		})
	}
}

func TestTheFloor(t *testing.T) {
	dir := t.TempDir()
	tally, floor := filepath.Join(dir, "tally"), filepath.Join(dir, "floor")
	for _, n := range []int{3, 0, 4} {
		if err := add(tally, n); err != nil {
			t.Fatal(err)
		}
	}
	for content, wrong := range map[string]string{
		"# tests\n7\n": "", "6\n": "", "8\n": "only 7 tests ran", "": "says no number", "seven\n": "is no number",
	} {
		if err := os.WriteFile(floor, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		code := run([]string{"-tally", tally, "-floor", floor}, &b, &b)
		if (code == 0) != (wrong == "") || !strings.Contains(b.String(), wrong) || (code == 0 && b.Len() > 0) {
			t.Errorf("with the floor %q: exit code %d, %q", content, code, b.String())
		}
	}
	var b bytes.Buffer
	if run([]string{"-tally", filepath.Join(dir, "nothing"), "-floor", floor}, &b, &b) == 0 {
		t.Error("a tally that is not there is no tally that is high enough")
	}
}
