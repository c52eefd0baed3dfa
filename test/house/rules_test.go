package house

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// rule says what some packages do not import. Names of packages stand for the package and all below it, with /* at
// the end for all below it.
type rule struct {
	name    string   // as in .golangci.yml
	from    []string // nothing: every package
	except  []string
	not     []string // what is not imported; "*" is every package of the module
	tests   bool     // its _test.go files keep it as well
	reaches bool     // also not through other packages of the module
	owed    []owed
}

// owed is an import that breaks a rule today, and what takes it away. Once it is away, its line has to go: it would
// let it come back.
type owed struct{ from, imports, until string }

const (
	pgx               = "github.com/jackc/pgx"
	controllerRuntime = "sigs.k8s.io/controller-runtime"
	clientGo          = "k8s.io/client-go"
)

// Rooms that take the time, the randomness and the objects as arguments.
var pure = []string{
	"internal/budget", "internal/foreign", "internal/guess", "internal/ledger", "internal/near", "internal/netblocks", "internal/plan", "internal/podspec",
	"internal/keyapi", "internal/report", "internal/resources", "internal/calendar", "internal/rollout", "internal/sealing", "internal/status",
}

var rules = []rule{
	// What people run from a checkout is no library.
	{name: "hack", except: []string{"hack"}, not: []string{"hack"}, tests: true},
	// What only tests, benches and the demo use stays out of the programs.
	{name: "tests", except: []string{"test", "hack"}, not: []string{"test", "testing"}},
	{name: "api", from: []string{"api"}, not: []string{"*", controllerRuntime, clientGo, pgx}, tests: true},
	{name: "pure", from: pure, not: []string{controllerRuntime, "k8s.io/client-go/kubernetes", "k8s.io/client-go/rest", "os", "net/http", pgx, "controllers",
		"internal/kube", "internal/planner", "internal/keyserver", "internal/keyclient", "internal/sweep", "internal/stores"}},
	{name: "bottom", from: []string{"internal/calendar", "internal/sealing", "internal/report", "internal/keyapi", "internal/foreign", "internal/netblocks"},
		not: []string{"internal/plan", "internal/resources", "internal/status"}},
	// Only main.go wires the controllers.
	{name: "controllers", except: []string{"main.go", "controllers", "test", "hack"}, not: []string{"controllers"}},
	// A kind's package imports no other kind's: what several need is in internal/reconcile. Only package controllers
	// imports them.
	{name: "kinds", from: []string{"controllers/*"}, not: []string{"controllers"}},
	{name: "wired-once", except: []string{"controllers", "test", "hack"}, not: []string{"controllers/*"}},
	// Whoever else needs keys asks over the protocol.
	{name: "keyserver", except: []string{"cmd/keyserver", "internal/keyserver", "test", "hack"}, not: []string{"internal/keyserver"}},
	// What lies in the keys' namespace is the keyserver's and the command line's, which backs it up and brings it
	// back. It knows neither.
	{name: "keystore", except: []string{"cmd/keyserver", "cmd/kubectl-lethe", "internal/keystore", "internal/authority", "internal/keyserver", "test", "hack"},
		not: []string{"internal/keystore"}},
	{name: "authority", except: []string{"internal/authority", "internal/keyserver", "test", "hack"}, not: []string{"internal/authority"}},
	// The database is for the sweeper, and for what prints its grants.
	{name: "stores", except: []string{"cmd/sweeper", "cmd/kubectl-lethe", "internal/stores", "test", "hack"}, not: []string{"internal/stores/postgres", pgx}},
	// A sweep is the same on every engine; the statements are the engine's.
	{name: "sweep", from: []string{"internal/sweep"}, not: []string{"internal/stores/postgres", pgx}},
	// A sweeper and a bot's init container have no token for the API server, and no client that could use one.
	{name: "no API server", from: []string{"cmd/sweeper", "cmd/unseal"}, not: []string{controllerRuntime, clientGo}, reaches: true},
}

func within(name string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		below, only := strings.CutSuffix(f, "/*")
		return name == below && !only || strings.HasPrefix(name, below+"/")
	})
}

func (r rule) concerns(f file) bool {
	return !f.tool && (r.tests || !f.isTest()) && (r.from == nil || within(f.folder(), r.from)) && !within(f.folder(), r.except)
}

func (r rule) refuses(from file, imported string, ours map[string][]file) bool {
	if within(imported, r.not) {
		return true
	}
	_, there := ours[imported]
	return there && slices.Contains(r.not, "*") && imported != from.folder()
}

// broken names every import that a rule refuses, and every exception that nothing needs any more.
func broken(rules []rule, files []file) []string {
	ours := packages(files)
	reach := reached(ours)
	out := map[string]bool{}
	for _, r := range rules {
		needed := map[owed]bool{}
		for _, f := range files {
			if !r.concerns(f) {
				continue
			}
			imports := f.imports
			if r.reaches {
				imports = slices.Clone(imports)
				for _, i := range f.imports {
					imports = append(imports, reach[i]...)
				}
			}
			for _, i := range imports {
				if !r.refuses(f, i, ours) {
					continue
				}
				if n := slices.IndexFunc(r.owed, func(o owed) bool { return o.from == f.folder() && o.imports == i }); n >= 0 {
					needed[r.owed[n]] = true
					continue
				}
				out[f.path+" imports "+i+": the rule “"+r.name+"” in test/house refuses it"] = true
			}
		}
		for _, o := range r.owed {
			if !needed[o] {
				out["no file of "+o.from+" imports "+o.imports+" any more ("+o.until+"): take that exception out of the rule “"+r.name+"” in test/house, and out of .golangci.yml"] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// reached is what each package of the module imports, itself or through others of the module.
func reached(ours map[string][]file) map[string][]string {
	out := map[string][]string{}
	var visit func(string) []string
	visit = func(name string) []string {
		if known, done := out[name]; done {
			return known
		}
		out[name] = nil // Go knows no circles
		all := map[string]bool{}
		for _, f := range ours[name] {
			if f.isTest() {
				continue
			}
			for _, i := range f.imports {
				all[i] = true
				for _, further := range visit(i) {
					all[further] = true
				}
			}
		}
		out[name] = slices.Sorted(maps.Keys(all))
		return out[name]
	}
	for name := range ours {
		visit(name)
	}
	return out
}

// room is a line of the page's tables of packages.
type room struct {
	name, pure, says string
}

// rooms reads the lines of the tables below the heading: a name in backquotes, whether it is pure where that is said,
// one sentence.
func rooms(page string) (out []room, wrong []string) {
	for line := range strings.Lines(section(page, "## Rooms")) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		r := room{name: strings.Trim(cells[0], "`"), says: cells[len(cells)-1]}
		if len(cells) == 3 {
			r.pure = cells[1]
		}
		if strings.ContainsAny(r.name, "` ,") {
			wrong = append(wrong, "the line of "+cells[0]+" names more than one package: each has a line of its own")
		}
		if len(strings.Fields(r.says)) < 2 || !strings.HasSuffix(r.says, ".") {
			wrong = append(wrong, "the line of "+cells[0]+" has no sentence")
		}
		out = append(out, r)
	}
	return out, wrong
}

// section is what stands below a heading, up to the next one of its rank.
func section(page, heading string) string {
	_, after, found := strings.Cut("\n"+page, "\n"+heading)
	if !found {
		return ""
	}
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

// unlisted names the packages without a line on the page, the lines without a package, and where the page's "pure" is
// not the rule's.
func unlisted(files []file, text string) []string {
	listed, out := rooms(text)
	ours := packages(files)
	count := map[string]int{}
	for _, r := range listed {
		count[r.name]++
		switch _, there := ours[r.name]; {
		case !there:
			out = append(out, "the page lists "+r.name+", and there is no such package: take its line out of "+page)
		case count[r.name] == 2:
			out = append(out, "the page lists "+r.name+" twice")
		case strings.HasPrefix(r.name, "internal/") && (r.pure == "yes") != slices.Contains(pure, r.name):
			out = append(out, "the page and the rule “pure” in test/house do not say the same of "+r.name)
		}
	}
	for name := range ours {
		if count[name] == 0 {
			out = append(out, "the page does not say what "+name+" is for: give it a line with one sentence in "+page)
		}
	}
	slices.Sort(out)
	return out
}

// unplaced names what the page does not say of where new parts go, and the paths it names there that are not there.
func unplaced(text string, exists func(string) bool) []string {
	var out []string
	where := section(text, "## Where something new goes")
	for _, part := range []string{"An engine", "A channel", "A kind", "A basis of a rule"} {
		found := false
		for line := range strings.Lines(where) {
			if !strings.HasPrefix(line, "| "+part+" |") {
				continue
			}
			found = true
			paths := 0
			for i, quoted := range strings.Split(line, "`") {
				// Between backquotes. A name with a placeholder is one that is not there yet: its folder is.
				if i%2 == 0 || !strings.Contains(quoted, "/") {
					continue
				}
				paths++
				for strings.Contains(quoted, "<") {
					quoted = path.Dir(quoted)
				}
				if !exists(quoted) {
					out = append(out, "“"+part+"” goes to "+quoted+", says the page, and that is not there")
				}
			}
			if paths == 0 {
				out = append(out, "the page names no path for “"+part+"”")
			}
		}
		if !found {
			out = append(out, "the page does not say where this goes: "+part)
		}
	}
	return out
}
