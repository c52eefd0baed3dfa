package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestReferenceIsCurrent: what is committed is what the CRDs and the reasons make, so that the list of reasons has
// each constant and no other.
func TestReferenceIsCurrent(t *testing.T) {
	root, made := filepath.Join("..", ".."), t.TempDir()
	if err := run([]string{filepath.Join(root, "config", "crd", "bases"), filepath.Join(made, "api.md"), filepath.Join(root, "api", "v1alpha1", "reasons.go"), filepath.Join(made, "reasons.md")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api.md", "reasons.md"} {
		got, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(root, "docs", "reference", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("docs/reference/%s is not what `make manifests` makes (-committed +made):\n%s", name, diff)
		}
		if name == "reasons.md" {
			for _, reason := range v1alpha1.Reasons() {
				if strings.Count(string(got), "\n| `"+reason+"` |") != 1 {
					t.Errorf("%s has not one row in %s", reason, name)
				}
			}
			if rows := strings.Count(string(got), "\n| `"); rows != len(v1alpha1.Reasons()) {
				t.Errorf("%d rows for %d reasons", rows, len(v1alpha1.Reasons()))
			}
		}
	}
}
