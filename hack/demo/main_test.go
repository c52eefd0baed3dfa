package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/test/stage"
)

func TestAMachineThatCannotIsToldWhatItCan(t *testing.T) {
	for name, tc := range map[string]struct {
		simulated bool
		goos      string
		euid      int
		want      string
	}{
		"root on Linux":              {false, "linux", 0, ""},
		"a user on Linux":            {false, "linux", 1000, "needs root"},
		"a Mac":                      {false, "darwin", 501, "needs Linux"},
		"simulated, a user on Linux": {true, "linux", 1000, ""},
		"simulated, somewhere else":  {true, "darwin", 501, ""},
	} {
		err := machineCan(tc.simulated, tc.goos, tc.euid)
		switch {
		case (err == nil) != (tc.want == ""):
			t.Errorf("%s: %v", name, err)
		case err != nil && (!strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "--simulated")):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryStepIsPlayedSomewhere(t *testing.T) {
	d := &demo{}
	titles := map[where]string{}
	for _, s := range d.steps() {
		if s.run == nil || len(s.title) < 4 || s.where == 0 {
			t.Errorf("step %+v", s)
		}
		for _, w := range []where{realNode, pretended, theirsAlone} {
			if s.where&w != 0 {
				titles[w] += s.title + "\n"
			}
		}
	}
	for w, acts := range map[where]string{realNode: "12345", theirsAlone: "12345", pretended: "1235"} {
		for _, n := range acts {
			if !strings.Contains("\n"+titles[w], "\n"+string(n)+"  ") {
				t.Errorf("%d: no step %c:\n%s", w, n, titles[w])
			}
		}
	}
	// On a cluster that is somebody's every outcome is checked that the demo checks on its own node.
	if mine, other := strings.Count(titles[realNode], "\n"), strings.Count(titles[theirsAlone], "\n"); other < mine {
		t.Errorf("%d steps on the demo's own node, %d on somebody's cluster:\n%s", mine, other, titles[theirsAlone])
	}
}

func TestARunIsPlayedInOnePlace(t *testing.T) {
	for want, d := range map[where]*demo{realNode: {}, pretended: {simulated: true}, theirsAlone: {theirs: &theirs{}}} {
		if got := d.where(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

func TestTablesAndNumbersReadWell(t *testing.T) {
	var out bytes.Buffer
	d := &demo{Stage: &stage.Stage{}, out: &out}
	if err := d.table([]string{"TABLE", "ROWS"}, [][]string{{"messages", thousands(300000)}, {"payments", thousands(12)}}); err != nil {
		t.Fatal(err)
	}
	want := "   TABLE      ROWS\n   messages   300 000\n   payments   12\n"
	if out.String() != want {
		t.Errorf("%q", out.String())
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567", -1000: "-1 000", -999: "-999"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	if days(0) != "-" || days(86400*3/2) != "1.5 days" {
		t.Error(days(0), days(86400*3/2))
	}
}

// TestTheFirstWordsComeBeforeAnyBuild: who starts the demo reads at once what it does and how long the first build
// may take.
func TestTheFirstWordsComeBeforeAnyBuild(t *testing.T) {
	for cluster, want := range map[string][]string{
		"":        {"A cluster of one node on this machine", "make demo-down removes all of it", "minutes on two processors"},
		"current": {"nothing is touched before you agree", "make demo-down CLUSTER=current removes all of it", "minutes on two processors"},
	} {
		recipe := dryRun(t, "demo", "CLUSTER="+cluster)
		before, _, built := strings.Cut(recipe, "go run ./hack/demo up")
		if !built {
			t.Fatalf("CLUSTER=%s: %s", cluster, recipe)
		}
		for _, w := range want {
			if !strings.Contains(before, w) {
				t.Errorf("CLUSTER=%s: before anything is built make demo says %s, and not %q", cluster, before, w)
			}
		}
	}
}

// dryRun is what make would do.
func dryRun(t *testing.T, args ...string) string {
	t.Helper()
	return dryRunWith(t, slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains([]string{"IMAGE", "LOAD", "CLUSTER", "CONTEXT", "POSTGRES", "STORAGE_CLASS", "VALUES", "YES"}, name)
	}), args...)
}

func dryRunWith(t *testing.T, env []string, args ...string) string {
	t.Helper()
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"--dry-run", "-C", root}, args...)...)
	// What this test was itself started with by make is not said again.
	cmd.Env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}, name)
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	return string(out)
}

// TestWhatIsSaidToMakeReachesTheDemo: each word is an option, and IMAGE, which has a default for other targets, only
// when somebody said it.
func TestWhatIsSaidToMakeReachesTheDemo(t *testing.T) {
	out := dryRun(t, "demo", "CLUSTER=current", "CONTEXT=kind-a", "IMAGE=r.example.com/a", "LOAD=k3d x", "POSTGRES=r.example.com/p", "STORAGE_CLASS=fast", "VALUES=v.yaml", "YES=kind-a")
	for _, want := range []string{
		`--cluster "current"`, `--context "kind-a"`, `--image "r.example.com/a"`, `--load "k3d x"`, `--postgres "r.example.com/p"`, `--storage-class "fast"`, `--values "v.yaml"`, `--yes "kind-a"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
	if out := dryRun(t, "demo", "CLUSTER=current"); strings.Contains(out, "--image") || strings.Contains(out, "--yes") {
		t.Errorf("said by nobody:\n%s", out)
	}
	if out := dryRun(t, "demo"); !strings.Contains(out, "go run ./hack/demo up\n") {
		t.Errorf("the demo on a cluster of its own:\n%s", out)
	}
	// What is in somebody's environment for other programs says nothing here.
	for _, name := range []string{"CLUSTER", "CONTEXT", "IMAGE", "LOAD", "POSTGRES", "STORAGE_CLASS", "VALUES", "YES"} {
		t.Setenv(name, "exported")
	}
	if out := dryRunWith(t, os.Environ(), "demo"); !strings.Contains(out, "go run ./hack/demo up\n") {
		t.Errorf("exported variables reach the demo on a cluster of its own:\n%s", out)
	}
	if out := dryRunWith(t, os.Environ(), "demo", "CLUSTER=current"); !strings.Contains(out, "go run ./hack/demo up --cluster \"current\"\n") {
		t.Errorf("exported variables reach the demo:\n%s", out)
	}
	if out := dryRun(t, "test-e2e", "CLUSTER=current", "LOAD=kind"); !strings.Contains(out, `go run ./hack/demo test --cluster "current" --load "kind"`) || strings.Contains(out, "cluster.sh") {
		t.Errorf("test-e2e:\n%s", out)
	}
	if out := dryRun(t, "test-e2e"); !strings.Contains(out, "./test/e2e/...") || strings.Contains(out, "hack/demo test") {
		t.Errorf("test-e2e on a cluster of its own:\n%s", out)
	}
	if out := dryRun(t, "demo-down", "CLUSTER=current", "CONTEXT=kind-a", "YES=kind-a"); !strings.Contains(out, `down --cluster "current" --context "kind-a" --yes "kind-a"`) {
		t.Errorf("demo-down:\n%s", out)
	}
}

func TestOptionsThatDoNotGoTogether(t *testing.T) {
	for want, o := range map[string]options{
		"CLUSTER=prod is not known":      {cluster: "prod"},
		"say one of them":                {cluster: "current", simulated: true},
		"say CLUSTER=current as well":    {image: "registry.example.com/a"},
		"for a cluster of yours: say CL": {yes: "shop"},
	} {
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	for _, o := range []options{{}, {simulated: true}, {cluster: "current"}, {cluster: "current", image: "r.example.com/a", yes: "shop"}} {
		if err := o.check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestWrongWordsAreRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"sideways"}, {"up", "now"}, {"up", "--fast"}, {"up", "--cluster", "prod"}, {"down", "--load", "kind"}, {"test"}, {"test", "--simulated"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestTheExamplesAreReadStrictly(t *testing.T) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	d := &demo{Stage: &stage.Stage{Root: root}}
	policy, err := d.policy("Enforce")
	if err != nil || policy.Spec.Mode != "Enforce" || len(policy.Spec.Rules) != 3 {
		t.Errorf("%+v %v", policy, err)
	}
}
