package report

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestEncodeDecode(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	lines := func(n int) Report {
		r := Report{Plan: strings.Repeat("a", 64), Outcome: Done, Mode: "Enforce"}
		for i := range n {
			r.Datasets = append(r.Datasets, Dataset{
				Name: fmt.Sprintf("dataset-%03d-%s", i, strings.Repeat("x", 40)), Rows: random.Int64N(1 << 40), OldestAgeSeconds: random.Int64N(1 << 30),
				Rules: []Rule{{Policy: strings.Repeat("p", 40), Rule: "rule", Eligible: random.Int64N(1 << 30), KeptByChild: random.Int64N(1 << 20), OldestOverdueSeconds: int64(i)}},
			})
		}
		return r
	}
	tests := map[string]struct {
		give      Report
		wantLines []string
		wantCut   int
	}{
		"a report comes back as it went": {
			give:      Report{Plan: "h", Outcome: Done, Mode: "Audit", Datasets: []Dataset{{Name: "a", Rules: []Rule{{Eligible: 3}}}}},
			wantLines: []string{"a "},
		},
		"what was not measured stands first, then the longest overdue": {
			give: Report{Plan: "h", Outcome: Done, Mode: "Enforce", Datasets: []Dataset{
				{Name: "fine"}, {Name: "late", Rules: []Rule{{Rule: "a"}, {Rule: "b", OldestOverdueSeconds: 5, Overdue: 1}}},
				{Name: "later", Rules: []Rule{{OldestOverdueSeconds: 50, Overdue: 1}}}, {Name: "unknown", Problem: v1alpha1.Problem{Reason: "Timeout"}},
				{Name: "partly", Rules: []Rule{{Rule: "a"}, {Rule: "b", Problem: v1alpha1.Problem{Reason: "Timeout"}}}},
			}},
			wantLines: []string{"partly b a", "unknown", "later ", "late b a", "fine"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := Encode(tc.give)
			if err != nil {
				t.Fatalf("Encode: %v", err)
			}
			got, err := Decode(string(b))
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			var lines []string
			for _, d := range got.Datasets {
				line := d.Name
				for _, r := range d.Rules {
					line += " " + r.Rule
				}
				lines = append(lines, line)
			}
			if diff := cmp.Diff(tc.wantLines, lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("as many rules as a status holds fit", func(t *testing.T) {
		b, err := Encode(lines(64))
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		got, err := Decode(string(b))
		if err != nil || len(b) > MaxBytes || got.Truncated != 0 || Measurements(got.Datasets) != 64 {
			t.Errorf("%d bytes, %d lines and %d cut, %v", len(b), Measurements(got.Datasets), got.Truncated, err)
		}
	})

	t.Run("too many lines: the worst stay, the rest are counted", func(t *testing.T) {
		b, err := Encode(lines(640))
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		if len(b) > MaxBytes {
			t.Fatalf("%d bytes, at most %d", len(b), MaxBytes)
		}
		got, err := Decode(string(b))
		if err != nil {
			t.Fatalf("Decode: %v", err)
		}
		if got.Truncated == 0 || got.Truncated+Measurements(got.Datasets) != 640 {
			t.Errorf("%d lines and %d cut, want 640 together", Measurements(got.Datasets), got.Truncated)
		}
		if got.Datasets[0].Rules[0].OldestOverdueSeconds != 639 {
			t.Errorf("first line is overdue for %d s, want the worst", got.Datasets[0].Rules[0].OldestOverdueSeconds)
		}
	})

	t.Run("a message that is too long even without lines is an error, not a cut document", func(t *testing.T) {
		if _, err := Encode(Report{Plan: "h", Outcome: Failed, Message: strings.Repeat("m", MaxBytes)}); err == nil {
			t.Error("no error")
		}
	})
}

func TestDecodeRefusesWhatIsNotWhole(t *testing.T) {
	whole, err := Encode(Report{Plan: "h", Outcome: Done, Mode: "Audit"})
	if err != nil {
		t.Fatal(err)
	}
	long, err := pack(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string]string{
		"empty": "", "cut": string(whole[:len(whole)-1]), "no document": "OOMKilled",
		"another format": strings.Replace(string(whole), `"v":3`, `"v":1`, 1), "zeros": "{}",
		"a packed one that was cut": string(long[:len(long)-8]), "no packed one": packed + "!", "packed nothing": packed,
	} {
		if _, err := Decode(message); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: error %v, want ErrUnreadable", name, err)
		}
	}
}

func TestReadLooksWhosePlanItIs(t *testing.T) {
	b, err := Encode(Report{Plan: "mine", Outcome: Done, Mode: "Audit"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Read(string(b), "mine"); err != nil || r.Plan != "mine" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Read(string(b), "another"); !errors.Is(err, ErrUnreadable) || r.Plan != "" {
		t.Errorf("of another plan: %+v, %v", r, err)
	}
}

// Names that a person has to look at make room for measurements, and stay counted; rows that were deleted are counted
// whatever is left out.
func TestNamesGoBeforeLines(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	random := func() string { return fmt.Sprintf("%x%x", dice.Uint64(), dice.Uint64()) }
	r := Report{Plan: strings.Repeat("a", 64), Outcome: Done, Mode: "Enforce", UndeclaredCount: 40, PointerCount: 30, Deleted: 12345}
	for range MaxUndeclared {
		r.Undeclared = append(r.Undeclared, Relation{Table: "public." + random(), Column: random(), References: random()})
		r.Pointers = append(r.Pointers, random()+"."+random())
	}
	for lines, want := range map[int]string{1: "16 16 0", 60: "16 0 0", 75: "4 0 0"} {
		r.Datasets = nil
		for range lines {
			r.Datasets = append(r.Datasets, Dataset{Name: random(), Rows: dice.Int64()})
		}
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(string(b))
		if err != nil {
			t.Fatal(err)
		}
		if said := fmt.Sprint(len(got.Undeclared), len(got.Pointers), got.Truncated); said != want || got.UndeclaredCount != 40 || got.PointerCount != 30 || got.Deleted != 12345 {
			t.Errorf("%d lines: %s names and lines left out, want %s; %d, %d and %d counted", lines, said, want, got.UndeclaredCount, got.PointerCount, got.Deleted)
		}
	}
}

// TestWhoWasKnownIsADigest: a sweep of a Shared store names those that it knew in hex, and nothing else stands there.
func TestWhoWasKnownIsADigest(t *testing.T) {
	for name, tc := range map[string]struct {
		tenants string
		want    bool
	}{
		"none":                 {"", true},
		"digits first":         {"0123456789abcdef", true},
		"letters first":        {"fedcba9876543210", true},
		"a whole digest":       {strings.Repeat("a", 64), true},
		"longer than a digest": {strings.Repeat("a", 65), false},
		"a word":               {"Acme", false},
		"a line":               {"ab\ncd", false},
	} {
		b, err := Encode(Report{Plan: "h", Outcome: Done, Mode: "Audit", Tenants: tc.tenants})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Decode(string(b))
		if (err == nil) != tc.want || err == nil && got.Tenants != tc.tenants {
			t.Errorf("%s: %q, %v", name, got.Tenants, err)
		}
		if err != nil && !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
