package postgres

import (
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestBack(t *testing.T) {
	last := Point{OID: 5, Timeline: 2, Position: 0x2_016B3748, Transactions: 1000}
	for name, tc := range map[string]struct {
		change func(*Point)
		says   string
	}{
		"the same":                         {func(*Point) {}, ""},
		"later":                            {func(p *Point) { p.Position, p.Transactions = p.Position+1, p.Transactions+1 }, ""},
		"failed over":                      {func(p *Point) { p.Timeline = 3 }, ""},
		"another database":                 {func(p *Point) { p.OID = 6 }, "object identifier 6, it was 5"},
		"an earlier timeline":              {func(p *Point) { p.Timeline, p.Position = 1, p.Position+1000 }, "timeline is 1"},
		"an earlier position":              {func(p *Point) { p.Position-- }, "is 2/16B3747, it was 2/16B3748"},
		"a later timeline, and earlier":    {func(p *Point) { p.Timeline, p.Position = 3, p.Position-1 }, "is 2/16B3747"},
		"fewer transactions":               {func(p *Point) { p.Transactions-- }, "999, it was 1000"},
		"a later position, fewer of those": {func(p *Point) { p.Position, p.Transactions = p.Position+1, 1 }, "its next transaction is 1"},
	} {
		now := last
		tc.change(&now)
		if got := back(last, now); (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
			t.Errorf("%s: %q, want %q", name, got, tc.says)
		}
	}
}

// Who holds a point may read it, and gets back what was written; another writing of it is none.
func TestPointsAreRead(t *testing.T) {
	p := Point{OID: 16384, Timeline: 1, Position: 0x16B3748, Transactions: 740}
	text := p.StorePoint()
	if want := "oid=16384,timeline=1,position=0/16B3748,transactions=740"; text.Value != want || !text.IsValid() {
		t.Errorf("%+v, want %s", text, want)
	}
	most := Point{OID: 1<<32 - 1, Timeline: 1<<32 - 1, Position: 1<<64 - 1, Transactions: 1<<64 - 1}
	for _, p := range []Point{p, most, {}} {
		if got, err := ParsePoint(p.StorePoint()); err != nil || got != p || !p.StorePoint().IsValid() {
			t.Errorf("%+v became %+v (%v)", p, got, err)
		}
	}
	for _, value := range []string{"", "x", text.Value + ",more=1", " " + text.Value, strings.Replace(text.Value, "16B", "16b", 1), strings.Replace(text.Value, "=1,", "=01,", 1),
		strings.Replace(text.Value, "740", "-1", 1), strings.Replace(text.Value, "16384", "4294967296", 1)} {
		if got, err := ParsePoint(v1alpha1.StorePoint{Kind: PointKind, Value: value}); err == nil {
			t.Errorf("%q is read as %+v", value, got)
		}
	}
	if got, err := ParsePoint(v1alpha1.StorePoint{Kind: "Another", Value: text.Value}); err == nil {
		t.Errorf("a point of another kind is read as %+v", got)
	}
	for name, last := range map[string]struct {
		point     v1alpha1.StorePoint
		witnesses []string
	}{"of another kind": {v1alpha1.StorePoint{Kind: "Another", Value: "1"}, nil}, "with other witnesses": {text, []string{"a"}}} {
		if why, err := (session{}).Back(t.Context(), last.point, last.witnesses, text); why == "" || err != nil {
			t.Errorf("%s: nothing is said (%v)", name, err)
		}
	}
}
