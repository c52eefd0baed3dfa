package house

import (
	"slices"
	"strings"
	"testing"
)

// house is a small module that keeps every rule. Each case below breaks it in one place.
func house() []file {
	return []file{
		{path: "main.go", name: "main", doc: "Command manager is the operator.\n", imports: []string{"controllers"}},
		{path: "api/v1alpha1/types.go", name: "v1alpha1", doc: "Package v1alpha1 holds the kinds.\n", imports: []string{"k8s.io/api/core/v1"}},
		{path: "controllers/setup.go", name: "controllers", doc: "Package controllers wires one reconciler for each kind.\n", imports: []string{"controllers/bot", "controllers/tenant"}},
		{path: "controllers/bot/controller.go", name: "bot", doc: "Package bot reconciles one kind.\n", imports: []string{"internal/plan"}},
		{path: "controllers/tenant/controller.go", name: "tenant", doc: "Package tenant reconciles another kind.\n", imports: []string{"internal/plan"}},
		{path: "controllers/tenant/controller_test.go", name: "tenant_test", imports: []string{"controllers", "controllers/bot"}},
		{path: "controllers/setup_test.go", name: "controllers", imports: []string{"testing", "test/env"}},
		{path: "cmd/sweeper/main.go", name: "main", doc: "Command sweeper deletes what its plan allows.\n", imports: []string{"internal/sweep", "internal/stores/postgres"}},
		{path: "cmd/kubectl-lethe/main.go", name: "main", doc: "Command kubectl-lethe is what people use.\n", imports: []string{"internal/plan", "internal/keystore"}},
		{path: "internal/plan/plan.go", name: "plan", doc: "Package plan compiles what a sweep may delete.\n", imports: []string{"api/v1alpha1"}},
		{path: "internal/sweep/sweep.go", name: "sweep", doc: "Package sweep runs one sweep: all of it.\n", imports: []string{"internal/plan"}},
		{path: "internal/stores/postgres/store.go", name: "postgres", doc: "Package postgres deletes rows in PostgreSQL.\n", imports: []string{pgx + "/v5"}},
		{path: "internal/keyserver/server.go", name: "keyserver", doc: "Package keyserver owns the keys.\n", imports: []string{"internal/keystore", "internal/authority"}},
		{path: "internal/authority/authority.go", name: "authority", doc: "Package authority signs what the keyserver shows.\n", imports: []string{"internal/keystore"}},
		{path: "internal/keystore/store.go", name: "keystore", doc: "Package keystore holds the documents.\n"},
		{path: "test/env/env.go", name: "env", doc: "Package env starts an API server for tests.\n", imports: []string{"testing"}},
		{path: "test/docs/docs_test.go", name: "docs_test", doc: "Package docs holds the pages against the code.\n", imports: []string{"testing"}},
		{path: "hack/demo/main.go", name: "main", doc: "Command demo plays the whole of Lethe.\n", imports: []string{"test/env"}},
		{path: "hack/cluster/main.go", name: "main", imports: []string{"hack/cluster/internal/node"}, tool: true},
	}
}

const wholePage = `# The house
## Rooms
| package | pure? | what |
|---|---|---|
| ¬main.go¬ | no | It is the operator. |
| ¬api/v1alpha1¬ | yes | The kinds are here. |
| ¬controllers¬ | no | Wires one reconciler per kind. |
| ¬controllers/bot¬ | no | One of them. |
| ¬controllers/tenant¬ | no | Another of them. |
| ¬cmd/sweeper¬ | no | It sweeps one store. |
| ¬cmd/kubectl-lethe¬ | no | What people use. |
| ¬internal/plan¬ | yes | It compiles the plan. |
| ¬internal/sweep¬ | no | One run over a store. |
| ¬internal/stores/postgres¬ | no | PostgreSQL's rows and statements. |
| ¬internal/keyserver¬ | no | It owns the keys. |
| ¬internal/authority¬ | no | It signs certificates. |
| ¬internal/keystore¬ | no | The documents of keys. |

| test package | what |
|---|---|
| ¬test/env¬ | An API server for tests. |
| ¬test/docs¬ | Holds the pages. |
| ¬hack/demo¬ | Plays all of it. |

## Where something new goes
| what | where |
|---|---|
| An engine | ¬internal/stores/<engine>¬ |
| A channel | ¬internal/resources/egress.go¬ |
| A kind | ¬controllers/<kind>/controller.go¬ and ¬api/v1alpha1/<kind>_types.go¬ |
| A basis of a rule | ¬internal/plan/compile.go¬ |

## Flows
`

// the rules without what is owed today: the small house owes nothing.
func paid() []rule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].owed = nil
	}
	return out
}

// check runs all checks over a small house, as the tests run each over the real one.
func check(rules []rule, files []file, page string) []string {
	page = strings.ReplaceAll(page, "¬", "`")
	there := []string{"internal/stores", "internal/resources/egress.go", "controllers", "api/v1alpha1", "internal/plan/compile.go"}
	return slices.Concat(undocumented(files), tooLong(files), unlisted(files, page), broken(rules, files),
		unplaced(page, func(name string) bool { return slices.Contains(there, name) }))
}

func TestAWholeHouseIsWhole(t *testing.T) {
	if wrong := check(paid(), house(), wholePage); len(wrong) > 0 {
		t.Fatalf("nothing is broken here:\n%s", strings.Join(wrong, "\n"))
	}
}

func TestWhatIsBrokenIsNamed(t *testing.T) {
	// with is the house in which a file imports something more.
	with := func(path string, imports ...string) []file {
		h := house()
		i := slices.IndexFunc(h, func(f file) bool { return f.path == path })
		if i < 0 {
			return append(h, file{path: path, name: "x", imports: imports}) // in a package that is there
		}
		h[i].imports = append(h[i].imports, imports...)
		return h
	}
	change := func(path string, change func(*file)) []file {
		h := house()
		change(&h[slices.IndexFunc(h, func(f file) bool { return f.path == path })])
		return h
	}
	doc := func(path, doc string) []file { return change(path, func(f *file) { f.doc = doc }) }
	for name, broken := range map[string]struct {
		files []file
		page  string
		says  string // of the only finding
	}{
		"a test imports hack":                     {files: with("test/docs/docs_test.go", "hack/demo/stage"), says: "test/docs/docs_test.go imports hack/demo/stage"},
		"a test helper imports hack":              {files: with("test/env/env.go", "hack/demo"), says: "test/env/env.go imports hack/demo"},
		"a program's test imports hack":           {files: with("controllers/setup_test.go", "hack/image"), says: "controllers/setup_test.go imports hack/image"},
		"a program imports a helper of the tests": {files: with("internal/keyserver/server.go", "test/env"), says: "imports test/env"},
		"a program imports testing":               {files: with("internal/keyserver/server.go", "testing"), says: "imports testing"},
		"api imports a room":                      {files: with("api/v1alpha1/types.go", "internal/stores/postgres"), says: "api/v1alpha1/types.go imports internal/stores/postgres"},
		"api imports a client":                    {files: with("api/v1alpha1/types.go", clientGo+"/rest"), says: "imports k8s.io/client-go/rest"},
		"plan imports a store":                    {files: with("internal/plan/plan.go", "internal/stores/postgres"), says: "imports internal/stores/postgres"},
		"plan reads files":                        {files: with("internal/plan/plan.go", "os"), says: "imports os"},
		"sweep imports an engine":                 {files: with("internal/sweep/sweep.go", "internal/stores/postgres"), says: "imports internal/stores/postgres"},
		"sweep imports a driver":                  {files: with("internal/sweep/sweep.go", pgx+"/v5/pgconn"), says: "imports github.com/jackc/pgx/v5/pgconn"},
		"the manager imports a driver":            {files: with("main.go", pgx+"/v5"), says: "main.go imports github.com/jackc/pgx/v5"},
		"the keyserver imports an engine":         {files: with("internal/keyserver/server.go", "internal/stores/postgres"), says: "imports internal/stores/postgres"},
		"the command line imports the keyserver":  {files: with("cmd/kubectl-lethe/main.go", "internal/keyserver"), says: "cmd/kubectl-lethe/main.go imports internal/keyserver"},
		"the command line imports the authority":  {files: with("cmd/kubectl-lethe/main.go", "internal/authority"), says: "cmd/kubectl-lethe/main.go imports internal/authority"},
		"the manager imports the keystore":        {files: with("main.go", "internal/keystore"), says: "main.go imports internal/keystore"},
		"the keystore imports the keyserver":      {files: with("internal/keystore/store.go", "internal/keyserver"), says: "internal/keystore/store.go imports internal/keyserver"},
		"the keystore imports the authority":      {files: with("internal/keystore/store.go", "internal/authority"), says: "internal/keystore/store.go imports internal/authority"},
		"the keystore imports the controllers":    {files: with("internal/keystore/store.go", "controllers"), says: "internal/keystore/store.go imports controllers"},
		"the authority imports the keyserver":     {files: with("internal/authority/authority.go", "internal/keyserver"), says: "internal/authority/authority.go imports internal/keyserver"},
		"a room imports the controllers":          {files: with("internal/sweep/sweep.go", "controllers"), says: "imports controllers"},
		"a room imports a kind's controller":      {files: with("internal/sweep/sweep.go", "controllers/bot"), says: "imports controllers/bot"},
		"the manager wires a kind itself":         {files: with("main.go", "controllers/bot"), says: "main.go imports controllers/bot"},
		"a kind imports another":                  {files: with("controllers/bot/controller.go", "controllers/tenant"), says: "controllers/bot/controller.go imports controllers/tenant"},
		"a kind imports what wires it":            {files: with("controllers/bot/controller.go", "controllers"), says: "controllers/bot/controller.go imports controllers:"},
		"the sweeper can call the API server":     {files: with("cmd/sweeper/main.go", clientGo+"/kubernetes"), says: "cmd/sweeper/main.go imports k8s.io/client-go/kubernetes"},
		"the sweeper can through another room": {files: with("internal/sweep/sweep.go", controllerRuntime+"/pkg/client"),
			says: "cmd/sweeper/main.go imports sigs.k8s.io/controller-runtime/pkg/client"},

		"a package without a comment":                {files: doc("internal/plan/plan.go", ""), says: "internal/plan: "},
		"a comment that does not begin as they do":   {files: doc("internal/plan/plan.go", "Compiles what a sweep may delete.\n"), says: "“Package plan ….”"},
		"a comment of another package":               {files: doc("internal/plan/plan.go", "Package plans compiles what may go.\n"), says: "internal/plan: "},
		"a comment that says nothing":                {files: doc("internal/plan/plan.go", "Package plan plans.\n"), says: "internal/plan: "},
		"a comment without an end":                   {files: doc("internal/plan/plan.go", "Package plan compiles what a sweep may delete\n"), says: "internal/plan: "},
		"a program that calls itself a package":      {files: doc("cmd/sweeper/main.go", "Package main is what deletes.\n"), says: "cmd/sweeper: "},
		"a package of tests alone without a comment": {files: doc("test/docs/docs_test.go", ""), says: "“Package docs ….”"},
		"a file that is too long":                    {files: change("internal/plan/plan.go", func(f *file) { f.lines = 601 }), says: "internal/plan/plan.go has 601 lines"},
		"a file of a tool that is too long":          {files: change("hack/cluster/main.go", func(f *file) { f.lines = 601 }), says: "hack/cluster/main.go has 601 lines"},
		"a package that the page does not know":      {page: strings.Replace(wholePage, "| ¬test/env¬ | An API server for tests. |\n", "", 1), says: "what test/env is for"},
		"a line whose package is gone":               {page: strings.Replace(wholePage, "| ¬test/env¬ |", "| ¬internal/gone¬ | no | It was here. |\n| ¬test/env¬ |", 1), says: "lists internal/gone"},
		"a line without a sentence":                  {page: strings.Replace(wholePage, "It owns the keys.", "keys", 1), says: "internal/keyserver` has no sentence"},
		"a line twice":                               {page: strings.Replace(wholePage, "| ¬test/env¬ |", "| ¬test/docs¬ | Holds the pages. |\n| ¬test/env¬ |", 1), says: "lists test/docs twice"},
		"a room that the page calls pure":            {page: strings.Replace(wholePage, "| ¬internal/sweep¬ | no |", "| ¬internal/sweep¬ | yes |", 1), says: "the same of internal/sweep"},
		"a room that the page does not call pure":    {page: strings.Replace(wholePage, "| ¬internal/plan¬ | yes |", "| ¬internal/plan¬ | no |", 1), says: "the same of internal/plan"},
		"the page does not say where an engine goes": {page: strings.Replace(wholePage, "| An engine |", "| A store |", 1), says: "An engine"},
		"the page names no place for a channel":      {page: strings.Replace(wholePage, "¬internal/resources/egress.go¬", "somewhere", 1), says: "no path for “A channel”"},
		"the page names a file that is gone":         {page: strings.Replace(wholePage, "resources/egress.go", "channels/telegram.go", 1), says: "internal/channels/telegram.go"},
		"the folder of a new part is gone":           {page: strings.Replace(wholePage, "¬internal/stores/<engine>¬", "¬internal/engines/<engine>¬", 1), says: "internal/engines"},
	} {
		t.Run(name, func(t *testing.T) {
			if broken.files == nil {
				broken.files = house()
			}
			if broken.page == "" {
				broken.page = wholePage
			}
			wrong := check(paid(), broken.files, broken.page)
			if !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, broken.says) }) {
				t.Fatalf("nothing says %q; it says:\n%s", broken.says, strings.Join(wrong, "\n"))
			}
		})
	}
}

// A generated file may be as long as it likes, a test may do what a program may not, and hack/ may take from test/.
func TestWhatIsAllowed(t *testing.T) {
	h := append(house(),
		file{path: "api/v1alpha1/zz_generated.deepcopy.go", name: "v1alpha1", lines: 5000},
		file{path: "internal/plan/plan_test.go", name: "plan", imports: []string{"os", "testing", "internal/stores/postgres", "test/env"}},
		file{path: "hack/demo/step.go", name: "main", imports: []string{"test/env", pgx + "/v5", "internal/keyserver"}},
		file{path: "internal/plan/more.go", name: "plan", lines: mostLines})
	if wrong := check(paid(), h, wholePage); len(wrong) > 0 {
		t.Fatalf("all of this is allowed:\n%s", strings.Join(wrong, "\n"))
	}
}

// What a rule still owes is let through there and nowhere else, and its line has to go with it.
func TestWhatIsOwed(t *testing.T) {
	owing := paid()
	i := slices.IndexFunc(owing, func(r rule) bool { return r.name == "keyserver" })
	owing[i].owed = []owed{{from: "cmd/kubectl-lethe", imports: "internal/keyserver", until: "it is mended"}}
	h := house()
	if wrong := check(owing, h, wholePage); len(wrong) != 1 || !strings.Contains(wrong[0], "take that exception out") {
		t.Fatalf("an exception that nothing needs is not named: %q", wrong)
	}
	cli := slices.IndexFunc(h, func(f file) bool { return f.path == "cmd/kubectl-lethe/main.go" })
	h[cli].imports = append(h[cli].imports, "internal/keyserver")
	if wrong := check(owing, h, wholePage); len(wrong) != 0 {
		t.Fatalf("what is owed is let through: %q", wrong)
	}
	sweeper := slices.IndexFunc(h, func(f file) bool { return f.path == "internal/sweep/sweep.go" })
	h[sweeper].imports = append(h[sweeper].imports, "internal/keyserver")
	if wrong := check(owing, h, wholePage); len(wrong) != 1 || !strings.Contains(wrong[0], "internal/sweep/sweep.go imports internal/keyserver") {
		t.Fatalf("what one owes the others may not: %q", wrong)
	}
}

func TestAFloorThatIsFarIsNamed(t *testing.T) {
	files := []file{{path: "a_test.go", tests: 60}, {path: "b_test.go", tests: 40}}
	for floor, near := range map[int]bool{79: false, 80: true, 100: true, 101: false, 0: false} {
		if wrong := farFloor(files, floor); (len(wrong) == 0) != near {
			t.Errorf("of 100 tests, with the floor %d: %q", floor, wrong)
		}
	}
}

// The parser is the one thing between the checks and the tree.
func TestAFileIsReadAsItStands(t *testing.T) {
	f, err := parse("internal/x/x.go", []byte(`// Package x is a letter.
package x

import (
	pg "github.com/jackc/pgx/v5"
	_ "github.com/lethe-dev/lethe"
	. "github.com/lethe-dev/lethe/internal/plan"
)
`))
	if err != nil {
		t.Fatal(err)
	}
	if f.name != "x" || f.doc != "Package x is a letter.\n" || f.lines != 8 || f.folder() != "internal/x" ||
		!slices.Equal(f.imports, []string{pgx + "/v5", "main.go", "internal/plan"}) {
		t.Fatalf("it was read as %+v", f)
	}
	f, err = parse("internal/x/x_test.go", []byte("package x\nfunc TestMain(m *M) {}\nfunc TestOne(t *T) {}\nfunc FuzzTwo(f *F) {}\nfunc ExampleX() {}\nfunc helper() {}\n"))
	if err != nil || f.tests != 3 {
		t.Fatalf("%d tests were counted, there are three (%v)", f.tests, err)
	}
}
