package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// result is what was heard of one package.
type result struct {
	name  string
	own   []string // lines that belong to no test
	tests []*test  // in the order in which they began
}

type test struct {
	name   string
	lines  []string
	action string // pass, fail, skip; nothing: it began and never ended
}

func (t *test) top() bool { return !strings.Contains(t.name, "/") }

// printer says of the events what go test says without -json: of a package that passed its one line, of one that
// failed what its failed tests wrote.
type printer struct {
	out      io.Writer
	packages map[string]*result
	ran      int // top-level tests that passed or failed
	failed   bool
}

func newPrinter(out io.Writer) *printer { return &printer{out: out, packages: map[string]*result{}} }

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }

func (p *printer) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		p.printf("%s", line) // not everything that go says is JSON
		return
	}
	if e.Action == "build-output" {
		p.printf("%s", e.Output)
		return
	}
	if e.Package == "" {
		return // build-fail: the package's own line says so
	}
	r := p.packages[e.Package]
	if r == nil {
		r = &result{name: e.Package}
		p.packages[e.Package] = r
	}
	switch {
	case e.Action == "output" && e.Test == "":
		r.own = append(r.own, e.Output)
	case e.Action == "output":
		t := r.test(e.Test)
		t.lines = append(t.lines, e.Output)
	case e.Action == "run":
		r.test(e.Test)
	case e.Action != "pass" && e.Action != "fail" && e.Action != "skip":
	case e.Test != "":
		t := r.test(e.Test)
		if t.action = e.Action; t.top() && e.Action != "skip" {
			p.ran++
		}
	default:
		p.end(r, e.Action)
		delete(p.packages, e.Package)
	}
}

func (r *result) test(name string) *test {
	for _, t := range r.tests {
		if t.name == name {
			return t
		}
	}
	r.tests = append(r.tests, &test{name: name})
	return r.tests[len(r.tests)-1]
}

// end prints a package that is through.
func (p *printer) end(r *result, action string) {
	if action == "fail" {
		p.failed = true
		p.failure(r)
		return
	}
	hidden := r.hidden(action)
	for _, line := range r.own {
		// go test's own line of the package. The third form is that of a package without tests whose coverage is
		// asked for.
		passed := strings.HasPrefix(line, "ok  \t"+r.name+"\t")
		if passed && hidden == "" || strings.HasPrefix(line, "?   \t"+r.name+"\t") || strings.HasPrefix(line, "\t"+r.name+"\t") {
			p.printf("%s", line)
		}
	}
	if hidden != "" {
		p.failed = true
		for _, t := range r.tests {
			if t.action != "pass" {
				p.test(t)
			}
		}
		p.printf("FAIL\t%s\t[%s]\n", r.name, hidden)
	}
}

// hidden says what a package that passed passes over. One without test files (go says "skip" of it) has nothing to
// pass over.
func (r *result) hidden(action string) string {
	var skipped, lost []string
	for _, t := range r.tests {
		switch t.action {
		case "skip":
			skipped = append(skipped, t.name)
		case "":
			lost = append(lost, t.name)
		}
	}
	switch {
	case action == "skip":
		return ""
	case !slices.ContainsFunc(r.tests, (*test).top):
		return "it has test files, and no test of it ran"
	case len(skipped) > 0:
		return "skipped: " + strings.Join(skipped, ", ")
	case len(lost) > 0:
		return "began and never ended: " + strings.Join(lost, ", ")
	}
	return ""
}

// noise is what test binaries print on the way for whoever watches each test.
var noise = regexp.MustCompile(`^\s*=== (RUN|PAUSE|CONT|NAME|ATTR)\s`)

// failure prints what the tests wrote that did not pass, and all that belongs to none of them: a panic, a race, what
// does not compile.
func (p *printer) failure(r *result) {
	for _, t := range r.tests {
		if t.action != "pass" {
			p.test(t)
		}
	}
	for _, line := range r.own {
		if line != "PASS\n" && !noise.MatchString(line) {
			p.printf("%s", line)
		}
	}
}

// verdict is the line of a test's own end.
var verdict = regexp.MustCompile(`^\s*--- (FAIL|SKIP|PASS|BENCH): `)

// test prints a test's verdict above what it wrote, and parts of a test further in, as go test does.
func (p *printer) test(t *test) {
	further := strings.Repeat("    ", strings.Count(t.name, "/"))
	for _, wanted := range []bool{true, false} {
		for _, line := range t.lines {
			switch {
			case verdict.MatchString(line) != wanted || noise.MatchString(line):
			case wanted || strings.HasPrefix(line, "    "):
				p.printf("%s%s", further, line)
			default:
				p.printf("%s", line)
			}
		}
	}
}
