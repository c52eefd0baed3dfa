package plan

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzPlan: bytes are refused, or are a plan that keeps its meaning: written, read and written again it has one hash.
func FuzzPlan(f *testing.F) {
	goldens, err := filepath.Glob("testdata/*.golden.json")
	if err != nil || len(goldens) == 0 {
		f.Fatalf("no golden plans: %v", err)
	}
	for _, golden := range goldens {
		b, err := os.ReadFile(golden)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		first, err := Encode(p)
		if errors.Is(err, ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatalf("a plan that was read cannot be written: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("a plan that was written cannot be read: %v", err)
		}
		second, err := Encode(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("two hashes for one plan: %v", err)
		}
		if p.Deletes() != again.Deletes() || p.Mode() != again.Mode() {
			t.Fatal("what it deletes has changed on the way")
		}
	})
}
