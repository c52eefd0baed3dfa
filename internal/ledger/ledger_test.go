package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func planWith(b *plan.Backlog) plan.Plan {
	return plan.Plan{Datasets: []plan.Dataset{
		{Name: "messages", Place: plan.Place{Table: &v1alpha1.Table{Name: "messages"}}, Delete: &plan.Deletion{Backlog: b}},
		{Name: "notes", Place: plan.Place{Table: &v1alpha1.Table{Name: "notes"}}, Delete: &plan.Deletion{}},
	}}
}

func approved(rows int64, at time.Time) *plan.Backlog {
	return &plan.Backlog{Rows: rows, ApprovedAt: at, Until: at.AddDate(0, 0, 7)}
}

// again is the account as the next call reads it.
func again(t *testing.T, l *Ledger) *Ledger {
	t.Helper()
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func spend(t *testing.T, l *Ledger, p plan.Plan, used int64, now time.Time) error {
	t.Helper()
	return l.Spend(p, []keyapi.Spend{{Dataset: "messages", Used: used}}, now)
}

func TestAPermitIsUsedOnce(t *testing.T) {
	l := New(noon.Add(-time.Hour))
	p := planWith(approved(100, noon.Add(-time.Minute)))
	for _, used := range []int64{40, 40, 30, 100} { // repeated, and late: nothing is given back
		if err := spend(t, l, p, used, noon); err != nil {
			t.Fatalf("up to %d: %v", used, err)
		}
		l = again(t, l)
	}
	permit := l.Account(p, noon).Permits[0]
	if diff := cmp.Diff(keyapi.Permit{Dataset: "messages", Rows: 100, Used: 100}, permit); diff != "" || permit.Left() != 0 {
		t.Errorf("%d left, (-want +got):\n%s", permit.Left(), diff)
	}
	if err := spend(t, l, p, 101, noon); !errors.Is(err, ErrSpent) {
		t.Errorf("one more: %v", err)
	}
	// More rows under the same approval are not more rows.
	more := planWith(approved(1000, noon.Add(-time.Minute)))
	if err := spend(t, l, more, 101, noon); !errors.Is(err, ErrSpent) || l.Account(more, noon).Permits[0].Left() != 0 {
		t.Errorf("stretched: %v, %+v", err, l.Account(more, noon))
	}
	// A new approval is another permit; the one before does not come back with it gone.
	newer := planWith(approved(10, noon))
	if err := spend(t, l, newer, 10, noon); err != nil {
		t.Errorf("approved again: %v", err)
	}
	if got := l.Account(p, noon).Permits[0]; got.Left() != 0 || !strings.Contains(got.Void, "older than another") {
		t.Errorf("the earlier one is good again: %+v", got)
	}
}

func TestWhatIsNotGood(t *testing.T) {
	for name, tc := range map[string]struct {
		backlog *plan.Backlog
		says    string
	}{
		"over":                          {&plan.Backlog{Rows: 5, ApprovedAt: noon.Add(-time.Minute), Until: noon}, "its time is over"},
		"of tomorrow":                   {approved(5, noon.AddDate(0, 0, 1)), "a time that has not come"},
		"older than the account":        {approved(5, noon.Add(-2*time.Hour)), "older than the account"},
		"of a clock that is a bit fast": {approved(5, noon.Add(time.Minute)), ""},
	} {
		l, p := New(noon.Add(-time.Hour)), planWith(tc.backlog)
		got := l.Account(p, noon).Permits[0]
		if (got.Void == "") != (tc.says == "") || !strings.Contains(got.Void, tc.says) || (got.Left() > 0) != (tc.says == "") {
			t.Errorf("%s: %+v", name, got)
		}
		if err := spend(t, l, p, 1, noon); (err == nil) != (tc.says == "") {
			t.Errorf("%s: spending: %v", name, err)
		}
	}
	l := New(noon.Add(-time.Hour))
	for name, s := range map[string]keyapi.Spend{"nothing approved": {Dataset: "notes", Used: 1}, "no dataset": {Dataset: "nobody", Used: 1}, "nothing": {Dataset: "messages"}, "less than nothing": {Dataset: "messages", Used: -5}} {
		if err := l.Spend(planWith(approved(5, noon)), []keyapi.Spend{{Dataset: "messages", Used: 1}, s}, noon); !errors.Is(err, ErrSpent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(l.Used) > 0 {
		t.Errorf("of what was refused a part was debited: %+v", l.Used)
	}
}

// Names that come and go do not make the account grow for ever, nor forget what was used.
func TestTheAccountIsBounded(t *testing.T) {
	l := New(noon.Add(-time.Hour))
	old := planWith(approved(5, noon.Add(-time.Minute)))
	if err := spend(t, l, old, 5, noon); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for n := range maxUsed + 2 {
		p := planWith(approved(5, noon))
		p.Datasets[0].Name = fmt.Sprint("d", n)
		if err := l.Spend(p, []keyapi.Spend{{Dataset: p.Datasets[0].Name, Used: 1}}, noon); err != nil {
			refused++
		}
	}
	if len(l.Used) > maxUsed || refused == 0 {
		t.Errorf("%d names, %d refused", len(l.Used), refused)
	}
	if left := l.Account(old, noon).Permits[0].Left(); left != 0 {
		t.Errorf("%d rows are good again", left)
	}
}

func TestWhereTheDatabaseWas(t *testing.T) {
	l, p := New(noon), planWith(nil)
	at := func(position uint64) *keyapi.Point {
		return &keyapi.Point{Of: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7"}, StorePoint: v1alpha1.StorePoint{Kind: "Counted", Value: strconv.FormatUint(position, 10)}}
	}
	l.Note(p, &keyapi.LeaseRequest{Seen: at(10)}, noon)
	// Gone back: where it was stays, however far it goes on, and so does that it has gone back.
	l.Note(p, &keyapi.LeaseRequest{Seen: at(3), Restored: "its position is 3"}, noon.Add(time.Minute))
	l.Note(p, &keyapi.LeaseRequest{Seen: at(30), Restored: "again"}, noon.Add(time.Hour))
	l = again(t, l)
	if got := l.Account(p, noon); got.Restored != "its position is 3" || got.Point.Value != "10" {
		t.Fatalf("%+v", got)
	}
	// What was approved before it was found out approves nothing, nor does a repetition.
	l.Approve(*at(4), noon.Add(30*time.Second), noon.Add(90*time.Minute))
	if got := l.Account(p, noon); got.Restored == "" || got.Point.Value != "10" {
		t.Errorf("approved before: %+v", got)
	}
	l.Approve(*at(40), noon.Add(2*time.Hour), noon.Add(2*time.Hour))
	if got := l.Account(p, noon); got.Restored != "" || got.Point.Value != "40" {
		t.Errorf("approved: %+v", got)
	}
	l.Note(p, &keyapi.LeaseRequest{Seen: at(50)}, noon.Add(3*time.Hour))
	l.Approve(*at(40), noon.Add(2*time.Hour), noon.Add(2*time.Hour))
	if got := l.Account(p, noon); got.Point.Value != "50" {
		t.Errorf("an approval of before takes the place of what was seen since: %+v", got)
	}
}

// An approval counts once, whoever's clock it bears: ahead it is none, behind it is one all the same.
func TestApprovalsByWrongClocks(t *testing.T) {
	at := func(position uint64) *keyapi.Point {
		return &keyapi.Point{Of: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7"}, StorePoint: v1alpha1.StorePoint{Kind: "Counted", Value: strconv.FormatUint(position, 10)}}
	}
	l, p := New(noon), planWith(nil)
	c := keyapi.Cleared{Dataset: "messages", PlaceDigest: p.Datasets[0].Digest(), Cutoff: 1}
	future := noon.AddDate(50, 0, 0)
	l.Approve(*at(10), future, noon)
	l.Note(p, &keyapi.LeaseRequest{Seen: at(1000), Cleared: []keyapi.Cleared{c}}, noon.Add(time.Hour))
	l = again(t, l)
	l.Approve(*at(10), future, noon.Add(2*time.Hour))
	if a := l.Account(p, noon.Add(2*time.Hour)); a.Point.Value != "1000" || len(a.Cleared) != 1 {
		t.Errorf("a time that has not come: %+v", a)
	}
	l.Note(p, &keyapi.LeaseRequest{Seen: at(500), Restored: "its position is 500"}, noon.Add(2*time.Hour))
	l = again(t, l)
	l.Approve(*at(10), future, noon.Add(3*time.Hour))
	if a := l.Account(p, noon.Add(3*time.Hour)); a.Restored == "" {
		t.Error("a time that has not come makes a restored database good")
	}

	l = New(noon)
	l.Approve(*at(10), noon.Add(-2*time.Hour), noon)
	l.Note(p, &keyapi.LeaseRequest{Seen: at(3), Restored: "its position is 3"}, noon.Add(time.Hour))
	l.Approve(*at(10), noon.Add(-2*time.Hour), noon.Add(2*time.Hour))
	if a := l.Account(p, noon.Add(2*time.Hour)); a.Restored == "" {
		t.Error("the approval of before makes a restored database good")
	}
	l.Approve(*at(4), noon.Add(-time.Hour), noon.Add(2*time.Hour)) // by a clock that is three hours slow
	if a := l.Account(p, noon.Add(2*time.Hour)); a.Restored != "" || a.Point.Value != "4" {
		t.Errorf("an approval by a slow clock is none: %+v", a)
	}
}

func TestWhatWasLeft(t *testing.T) {
	l := New(noon.Add(-time.Hour))
	p := planWith(nil)
	c := keyapi.Cleared{Dataset: "messages", PlaceDigest: p.Datasets[0].Digest(), Cutoff: 1, Left: 2}
	l.Note(p, &keyapi.LeaseRequest{Cleared: []keyapi.Cleared{c, {Dataset: "nobody"}, {Dataset: "notes", PlaceDigest: "another table"}}}, noon)
	if diff := cmp.Diff([]keyapi.Cleared{c}, l.Account(p, noon).Cleared); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	other := planWith(nil)
	other.Datasets[0].Table.Name = "letters"
	if got := l.Account(other, noon).Cleared; len(got) > 0 {
		t.Errorf("it is held against another table: %+v", got)
	}
	before := planWith(approved(5, noon.Add(time.Minute)))
	l.Note(p, &keyapi.LeaseRequest{Returned: []string{"messages", "nobody"}}, noon.Add(2*time.Minute))
	l.Note(p, &keyapi.LeaseRequest{Returned: []string{"messages"}}, noon.Add(time.Hour))
	if got := l.Account(before, noon.Add(time.Hour)).Cleared; len(got) != 1 {
		t.Error("a backlog from before lets returned rows go")
	}
	after := planWith(approved(5, noon.Add(3*time.Minute)))
	if got := again(t, l).Account(after, noon.Add(time.Hour)).Cleared; len(got) != 0 {
		t.Errorf("approved since they returned: %+v", got)
	}
	if got := l.Account(after, noon.AddDate(0, 0, 8)).Cleared; len(got) != 1 {
		t.Error("a backlog whose time is over lets returned rows go")
	}
	l.Approve(keyapi.Point{}, noon.AddDate(0, 1, 0), noon.AddDate(0, 1, 0))
	if got := l.Account(p, noon).Cleared; len(got) != 0 {
		t.Errorf("with the database approved as it is, it is held against it: %+v", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{"", "x", "{}", `{"v":1,"since":1}`, `{"v":2}`, `[]`, `{"v":2,"since":-1}`} {
		if _, err := Decode(text); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
