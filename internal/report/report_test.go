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

	t.Run("as many rules as a store can have fit, and nothing is left out", func(t *testing.T) {
		r := lines(512)
		for i := range r.Datasets {
			of := r.Datasets[i].Rules[0]
			for n := range 3 {
				of.Rule, of.OldestOverdueSeconds = fmt.Sprintf("rule-%d", n), of.OldestOverdueSeconds+random.Int64N(1000)
				r.Datasets[i].Rules = append(r.Datasets[i].Rules, of)
			}
		}
		b, err := Encode(r)
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		got, err := Decode(string(b))
		rules := 0
		for _, d := range got.Datasets {
			rules += len(d.Rules)
		}
		if err != nil || len(got.Datasets) != 512 || rules != 2048 {
			t.Fatalf("%d bytes, %d datasets, %d rules, %v", len(b), len(got.Datasets), rules, err)
		}
		if again, err := Encode(got); err != nil || string(again) != string(b) {
			t.Errorf("written again it is another document: %v", err)
		}
	})

	t.Run("one that is too long is an error, not a cut document", func(t *testing.T) {
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
	for name, message := range map[string]string{
		"empty": "", "cut": string(whole[:len(whole)-1]), "no document": "OOMKilled",
		"another format": strings.Replace(string(whole), `"v":3`, `"v":1`, 1), "zeros": "{}",
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
