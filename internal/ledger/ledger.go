// Package ledger is the account that the keyserver keeps of one store's sweeps: how much of what was permitted has
// been used, where in its life the database was, and what complete sweeps have left. It lies beside the store's lease
// and is written in the same breath, so that no report, pod or Job that is lost renews anything. What the keyserver
// says and signs of their reports is here as well: statements, which make a chain. The package is pure.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
)

// Format of the document. In format 1 a point was PostgreSQL's.
const Format = 2

// skew is how far ahead the clock may be by which something was approved.
const skew = 5 * time.Minute

// Bounds of the document, which lies in an annotation.
const (
	maxUsed = 512
	maxText = 300
)

// Ledger is the document. Times are Unix seconds by the keyserver's clock, except those that were approved.
type Ledger struct {
	Format int   `json:"v"`
	Since  int64 `json:"since"` // what was approved before is taken for used up: nobody knows
	// Used by dataset.
	Used map[string]Used `json:"used,omitempty"`

	Point   *keyapi.Point `json:"point,omitempty"`
	PointAt int64         `json:"pointAt,omitempty"`
	// Restored is what the database was found to have lost, and RestoredAt when that was found.
	Restored   string `json:"restored,omitempty"`
	RestoredAt int64  `json:"restoredAt,omitempty"`
	// Approved is when a person last approved the database as it is, by the person's clock: each approval counts once.
	Approved int64 `json:"approved,omitempty"`

	Cleared map[string]Cleared `json:"cleared,omitempty"`
}

// Used is how much of a permit has been used.
type Used struct {
	ApprovedAt int64 `json:"at"`
	Granted    int64 `json:"rows"` // as it was first used
	Rows       int64 `json:"used"`
}

// Cleared is what a complete sweep left of a dataset.
type Cleared struct {
	PlaceDigest string `json:"def"`
	Cutoff      int64  `json:"cutoff"`
	Left        int64  `json:"left,omitempty"`
	At          int64  `json:"at"`
	ReturnedAt  int64  `json:"returnedAt,omitempty"` // since when more than that is there again
	SweptAt     int64  `json:"sweptAt,omitempty"`
	Windows     string `json:"windows,omitempty"`
	Due         int64  `json:"due,omitempty"`
}

// New is an account that begins now.
func New(now time.Time) *Ledger { return &Ledger{Format: Format, Since: now.Unix()} }

// ErrUnreadable says that a document is none.
var ErrUnreadable = errors.New("the account of the store's sweeps cannot be read")

// Decode reads a document.
func Decode(text string) (*Ledger, error) {
	var l Ledger
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return nil, fmt.Errorf("%w: it is no document", ErrUnreadable)
	}
	if l.Format != Format || l.Since <= 0 {
		return nil, fmt.Errorf("%w: format %d, this program reads %d", ErrUnreadable, l.Format, Format)
	}
	return &l, nil
}

// Encode writes the document.
func (l *Ledger) Encode() (string, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return "", fmt.Errorf("encode the account: %w", err)
	}
	return string(b), nil
}

// Void says why a permit is not good; empty: what is left of it is.
func (l *Ledger) void(dataset string, b plan.Backlog, now time.Time) string {
	at, used := b.ApprovedAt.Unix(), l.Used[dataset]
	switch {
	case !now.Before(b.Until):
		return "its time is over"
	case b.ApprovedAt.After(now.Add(skew)):
		return "it was approved at a time that has not come"
	case at < l.Since:
		return "it is older than the account of what was used, so it counts as used"
	case at < used.ApprovedAt:
		return "it is older than another that was used"
	default:
		return ""
	}
}

func (l *Ledger) permit(dataset string, b plan.Backlog, now time.Time) keyapi.Permit {
	out := keyapi.Permit{Dataset: dataset, Rows: b.Rows, Void: l.void(dataset, b, now)}
	if used := l.Used[dataset]; used.ApprovedAt == b.ApprovedAt.Unix() {
		out.Rows, out.Used = min(b.Rows, used.Granted), used.Rows
	}
	return out
}

func backlogOf(p plan.Plan, dataset string) *plan.Backlog {
	for _, d := range p.Datasets {
		if d.Name == dataset && d.Delete != nil {
			return d.Delete.Backlog
		}
	}
	return nil
}

// ErrSpent says that more is asked for than there is.
var ErrSpent = errors.New("more of the backlog is asked for than was approved and is left")

// Spend debits. What it says no to is not debited.
func (l *Ledger) Spend(p plan.Plan, spend []keyapi.Spend, now time.Time) error {
	out := map[string]Used{}
	for _, s := range spend {
		b := backlogOf(p, s.Dataset)
		if b == nil || s.Used <= 0 {
			return ErrSpent
		}
		permit := l.permit(s.Dataset, *b, now)
		if permit.Void != "" || s.Used > permit.Rows {
			return ErrSpent
		}
		out[s.Dataset] = Used{ApprovedAt: b.ApprovedAt.Unix(), Granted: permit.Rows, Rows: max(permit.Used, s.Used)}
	}
	for name, used := range out {
		if _, known := l.Used[name]; !known && len(l.Used) >= maxUsed {
			// Of so many names that came and went none is remembered, and nothing that was approved until now is good
			// any more.
			l.Used, l.Since = nil, now.Unix()+1
			return ErrSpent
		}
		if l.Used == nil {
			l.Used = map[string]Used{}
		}
		l.Used[name] = used
	}
	return nil
}

// Account is what a sweep by a plan is told.
func (l *Ledger) Account(p plan.Plan, now time.Time) *keyapi.Account {
	out := &keyapi.Account{Point: l.Point, Restored: l.Restored}
	for _, d := range p.Datasets {
		if b := backlogOf(p, d.Name); b != nil {
			out.Permits = append(out.Permits, l.permit(d.Name, *b, now))
		}
		c, ok := l.Cleared[d.Name]
		if !ok || c.PlaceDigest != d.Digest() {
			continue
		}
		// Whoever has let the dataset go on since its rows were seen to have returned has seen them.
		if b := backlogOf(p, d.Name); b != nil && c.ReturnedAt != 0 && b.ApprovedAt.Unix() > c.ReturnedAt && l.permit(d.Name, *b, now).Void == "" {
			continue
		}
		out.Cleared = append(out.Cleared, keyapi.Cleared{Dataset: d.Name, PlaceDigest: c.PlaceDigest, Cutoff: c.Cutoff, Left: c.Left, SweptAt: c.SweptAt, Windows: c.Windows, Due: c.Due})
	}
	return out
}

// Approve takes note, once, of a point that a person has approved: what was seen before counts no more. Approvals are
// told apart by their time, of which each new one has a later; one of a time that has not come is none.
func (l *Ledger) Approve(point keyapi.Point, at, now time.Time) {
	seconds, first := at.Unix(), l.Approved == 0
	if at.After(now.Add(skew)) || seconds <= l.Approved {
		return
	}
	l.Approved = seconds
	if l.Restored != "" {
		// Of the first approval that this account knows it is not known whether it is new, but by its time.
		if first && seconds <= l.RestoredAt {
			return
		}
		l.Restored, l.RestoredAt, l.Point, l.PointAt, l.Cleared = "", 0, &point, now.Unix(), nil
		return
	}
	if seconds > l.PointAt {
		l.Point, l.PointAt = &point, seconds
	}
	for name, c := range l.Cleared {
		if c.At < seconds {
			delete(l.Cleared, name)
		}
	}
}

// Note takes down what a sweep by a plan has seen. While the database is known to have gone back, where it is now is
// no place to compare with.
func (l *Ledger) Note(p plan.Plan, req *keyapi.LeaseRequest, now time.Time) {
	if req.Restored != "" && l.Restored == "" {
		l.Restored, l.RestoredAt = req.Restored[:min(len(req.Restored), maxText)], now.Unix()
	}
	if req.Seen != nil && l.Restored == "" {
		seen := *req.Seen
		l.Point, l.PointAt = &seen, now.Unix()
	}
	for _, name := range req.Returned {
		if c, ok := l.Cleared[name]; ok && c.ReturnedAt == 0 {
			c.ReturnedAt = now.Unix()
			l.Cleared[name] = c
		}
	}
	if len(req.Cleared) == 0 {
		return
	}
	planned := map[string]string{}
	for _, d := range p.Datasets {
		planned[d.Name] = d.Digest()
	}
	if l.Cleared == nil {
		l.Cleared = map[string]Cleared{}
	}
	for _, c := range req.Cleared {
		if planned[c.Dataset] == c.PlaceDigest {
			l.Cleared[c.Dataset] = Cleared{PlaceDigest: c.PlaceDigest, Cutoff: c.Cutoff, Left: c.Left, At: now.Unix(), SweptAt: c.SweptAt, Windows: c.Windows, Due: c.Due}
		}
	}
	for name, c := range l.Cleared {
		if planned[name] != c.PlaceDigest {
			delete(l.Cleared, name)
		}
	}
}
