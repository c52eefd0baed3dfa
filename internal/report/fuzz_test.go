package report

import (
	"reflect"
	"testing"

	"github.com/lethe-dev/lethe/test/fuzz"
)

// FuzzReport: a text is refused without being repeated, or is a report that can be written and read again, within its
// bounds.
func FuzzReport(f *testing.F) {
	whole, err := Encode(Report{Outcome: "Swept", Plan: "p", Datasets: []Dataset{{Name: "messages", Rules: []Rule{{Policy: "p", Rule: "r"}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(whole))
	f.Fuzz(func(t *testing.T, message string) {
		r, err := Decode(message)
		if piece := fuzz.Repeated(err, message); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err != nil {
			return
		}
		b, err := Encode(r)
		if err != nil {
			return // longer than a report
		}
		if len(b) > MaxBytes {
			t.Fatalf("%d bytes", len(b))
		}
		first, err := Decode(string(b))
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		again, err := Encode(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Decode(string(again))
		if err != nil || !reflect.DeepEqual(first.Datasets, second.Datasets) {
			t.Fatalf("what was read and written is another report: %v", err)
		}
	})
}

// FuzzMessage: a termination message is refused without being repeated, or can be written and read again.
func FuzzMessage(f *testing.F) {
	f.Add(`{"v":3,"report":"abababababababababababababababababababababababababababababababab","why":"KeyMissing","msg":"m"}`)
	f.Fuzz(func(t *testing.T, message string) {
		m, err := DecodeMessage(message)
		if piece := fuzz.Repeated(err, message); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err != nil {
			return
		}
		b, err := m.Encode()
		if err != nil || len(b) > 4096 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if again, err := DecodeMessage(string(b)); err != nil || again != m {
			t.Fatalf("what was written is read as another message: %+v, %v", again, err)
		}
	})
}
