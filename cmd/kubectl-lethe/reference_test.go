package main

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// TestReferenceIsCurrent: the page of all commands is what the program says of itself.
func TestReferenceIsCurrent(t *testing.T) {
	got := reference(newRoot(&shell{config: genericclioptions.NewConfigFlags(true)}))
	if diff := cmp.Diff(read(t, filepath.Join("..", "..", "docs", "reference", "cli.md")), got); diff != "" {
		t.Errorf("docs/reference/cli.md is not what `make reference` makes (-committed +made):\n%s", diff)
	}
}

// TestOldWordsAreGone: keys are in one place.
func TestOldWordsAreGone(t *testing.T) {
	c := newCaller(t)
	for _, word := range []string{"key", "kek"} {
		c.fails("", []string{word, "acme"}, "no such command")
	}
	c.fails("", []string{"keys", "public", "--keys-namespace", "x"}, "there is no flag --keys-namespace")
}
