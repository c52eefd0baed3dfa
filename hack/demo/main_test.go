package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/hack/demo/stage"
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
	numbers := map[where]string{}
	for _, s := range d.steps() {
		if s.run == nil || len(s.title) < 4 {
			t.Errorf("step %+v", s)
		}
		numbers[s.where] += s.title[:1]
		if s.where == anywhere {
			numbers[realNode] += s.title[:1]
			numbers[pretended] += s.title[:1]
		}
	}
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		if !strings.Contains(numbers[realNode], n) {
			t.Errorf("no step %s on a real node", n)
		}
	}
	if !strings.Contains(numbers[pretended], "2") {
		t.Errorf("simulated nodes are shown %s", numbers[pretended])
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

// TestTheFirstWordsComeBeforeAnyBuild: who starts the demo reads at once what it does and how long the first build may take.
func TestTheFirstWordsComeBeforeAnyBuild(t *testing.T) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, recipe, ok := strings.Cut(string(makefile), "\ndemo: ")
	before, _, built := strings.Cut(recipe, "go run ./hack/demo up")
	if !ok || !built || !strings.Contains(before, "make demo-down removes all of it") || !strings.Contains(before, "minutes on two processors") {
		t.Errorf("before anything is built make demo says: %s", before)
	}
}

func TestWrongWordsAreRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"sideways"}, {"up", "now"}, {"up", "--fast"}} {
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
