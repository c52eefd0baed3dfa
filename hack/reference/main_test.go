package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReferenceIsCurrent: what is committed is what the CRDs make.
func TestReferenceIsCurrent(t *testing.T) {
	made := filepath.Join(t.TempDir(), "api.md")
	if err := run([]string{filepath.Join("..", "..", "config", "crd", "bases"), made}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/reference/api.md is not what `make manifests` makes (-committed +made):\n%s", diff)
	}
}
