// Package house holds the shape of the module: which package is for what, which way imports point, and how long a
// file may be. It parses the files and compiles nothing. The checks are pure functions over a listing, so that a
// table of broken listings shows that each of them can fail.
package house

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	module = "github.com/lethe-dev/lethe"
	page   = "docs/design/0001-the-house.md"
)

// file is one Go file of the repository, as far as the checks look at it.
type file struct {
	path    string   // from the root, with slashes
	name    string   // of its package
	doc     string   // the comment above the package clause
	imports []string // packages of the module by their folder ("main.go" is the root), all others by their import path
	lines   int
	tests   int  // functions that go test runs
	tool    bool // it belongs to a module of its own: hack/cluster, test/programs, hack/tools
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// folder of the file's package. The root, which has no name of its own there, is called by its only program.
func (f file) folder() string {
	if d := path.Dir(f.path); d != "." {
		return d
	}
	return "main.go"
}

// listing reads every Go file below root.
func listing(t *testing.T, root string) []file {
	t.Helper()
	var files []file
	tools := map[string]bool{}
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
			if rel == "." {
				return nil
			}
			// What the go command leaves out as well, and the outputs of make.
			if name := entry.Name(); strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || rel == "bin" || rel == "dist" {
				return filepath.SkipDir
			}
			_, err := os.Stat(filepath.Join(full, "go.mod"))
			tools[rel] = err == nil || tools[path.Dir(rel)]
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		f, err := parse(rel, content)
		f.tool = tools[path.Dir(rel)]
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 400 {
		t.Fatalf("only %d Go files below %s: these tests look at the wrong place", len(files), root)
	}
	return files
}

func parse(name string, content []byte) (file, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), name, content, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return file{}, err
	}
	out := file{path: name, name: tree.Name.Name, lines: strings.Count(string(content), "\n")}
	if out.isTest() {
		out.tests = len(testFunction.FindAll(content, -1)) - len(testMain.FindAll(content, -1))
	}
	if tree.Doc != nil {
		out.doc = tree.Doc.Text()
	}
	for _, i := range tree.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return file{}, err
		}
		if p == module {
			p = "main.go"
		}
		out.imports = append(out.imports, strings.TrimPrefix(p, module+"/"))
	}
	return out, nil
}

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test|Fuzz|Example)[A-Z]\w*\(`)
	testMain     = regexp.MustCompile(`(?m)^func TestMain\(`)
)

// packages of the module itself, by their folder.
func packages(files []file) map[string][]file {
	out := map[string][]file{}
	for _, f := range files {
		if !f.tool {
			out[f.folder()] = append(out[f.folder()], f)
		}
	}
	return out
}

// sentence is the first sentence of a package's comment: what its page on pkg.go.dev, and `go doc`, begin with.
var sentence = regexp.MustCompile(`(?s)^(Package|Command) (\S+) (.*?[^\s.])[.:](\s|$)`)

// undocumented names the packages whose comment does not say in its first sentence what they are.
func undocumented(files []file) []string {
	var out []string
	for folder, in := range packages(files) {
		name := strings.TrimSuffix(in[0].name, "_test")
		documented := slices.ContainsFunc(in, func(f file) bool {
			m := sentence.FindStringSubmatch(f.doc)
			switch {
			case m == nil || len(strings.Fields(m[3])) < 2:
				return false
			case name == "main":
				return m[1] == "Command"
			}
			return m[1] == "Package" && m[2] == name
		})
		if !documented {
			out = append(out, folder+": the comment above the package clause begins with "+
				"“Package "+name+" ….” (a program: “Command …”) and says in that sentence what it is")
		}
	}
	slices.Sort(out)
	return out
}

const mostLines = 600

// tooLong names the files that nobody reads to their end. Generated ones are read by nobody.
func tooLong(files []file) []string {
	var out []string
	for _, f := range files {
		if f.lines > mostLines && !strings.HasPrefix(path.Base(f.path), "zz_generated") {
			out = append(out, f.path+" has "+strconv.Itoa(f.lines)+" lines, "+strconv.Itoa(mostLines)+" are the most: a part of it wants a file of its own")
		}
	}
	return out
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	report(t, undocumented(listing(t, root)))
}

func TestNoFileIsTooLong(t *testing.T) {
	report(t, tooLong(listing(t, root)))
}

// farFloor says when the number of tests that hack/test.sh asks for is so far below what the files hold that whole
// packages could be lost unseen, or above it. Some of what the files hold needs a tag and is not in the run.
func farFloor(files []file, floor int) []string {
	tests := 0
	for _, f := range files {
		tests += f.tests
	}
	if floor < tests*4/5 || floor > tests {
		return []string{fmt.Sprintf("hack/tests.floor says %d and the files hold %d tests: it is to be from %d to %d", floor, tests, tests*4/5, tests)}
	}
	return nil
}

func TestTheFloorIsNear(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "hack", "tests.floor"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	floor, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	report(t, farFloor(listing(t, root), floor))
}

func TestThePageListsEveryPackage(t *testing.T) {
	report(t, unlisted(listing(t, root), text(t)))
}

func TestThePageSaysWhereNewPartsGo(t *testing.T) {
	report(t, unplaced(text(t), func(name string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err == nil
	}))
}

func TestImportsPointOneWay(t *testing.T) {
	report(t, broken(rules, listing(t, root)))
}

// TestTheLinterHoldsTheSame: who has an editor with a linter hears of a wrong import while typing it.
func TestTheLinterHoldsTheSame(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Deny []struct{ Pkg string }
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.reaches {
			continue // what is reached through others is not in any one file
		}
		if _, there := config.Linters.Settings.Depguard.Rules[r.name]; !there {
			t.Errorf("depguard in .golangci.yml has no rule %q, rules_test.go has", r.name)
		}
	}
	for name := range config.Linters.Settings.Depguard.Rules {
		if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == name }) {
			t.Errorf("rules_test.go has no rule %q, depguard in .golangci.yml has", name)
		}
	}
}

var root = filepath.Join("..", "..")

func text(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Error(w)
	}
}
