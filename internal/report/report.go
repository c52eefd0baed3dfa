// Package report is the document in which a sweep tells what it measured and did, and the termination message that
// names it. The keyserver takes, signs and keeps the document's canonical bytes, in which the worst dataset comes
// first.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// MaxBytes is the longest report: internal/protocol carries no longer one.
const MaxBytes = 1 << 20

// format of the document. Up to format 1 each rule on each dataset had a line that repeated what was measured of the
// table, up to format 2 a store's identity and the place in its life were PostgreSQL's.
const format = 3

// Outcome says how a sweep ended.
type Outcome string

const (
	// Done: everything that could be deleted is gone, and was looked for once more from the start.
	Done Outcome = "Done"
	// Stopped: the lease or the time budget ended first; the next sweep goes on.
	Stopped Outcome = "Stopped"
	// Refused: the store was measured, or could not be, and nothing was deleted for a reason that a person must mend.
	Refused Outcome = "Refused"
	// Failed: the sweep broke off on an error.
	Failed Outcome = "Failed"
)

// Report is what one sweep tells. Times are Unix seconds by the store's clock.
type Report struct {
	Format   int     `json:"v"`    // 3
	Plan     string  `json:"plan"` // hash of the plan that was run
	Started  int64   `json:"start"`
	Finished int64   `json:"end"`
	Outcome  Outcome `json:"out"`
	Reason   string  `json:"why,omitempty"` // one of api/v1alpha1's reasons
	Message  string  `json:"msg,omitempty"` // for people; never a value out of the store
	Mode     string  `json:"mode"`          // Audit or Enforce: whether any rule could delete

	Identity    v1alpha1.StoreIdentity `json:"of,omitzero"` // of the database cluster
	Database    string                 `json:"db,omitempty"`
	Tenants     string                 `json:"who,omitempty"`  // names those that were known to a Shared store, hex
	SkewSeconds int64                  `json:"skew,omitempty"` // store's clock minus the pod's
	Point       *v1alpha1.StorePoint   `json:"pt,omitempty"`   // where in its life the database is

	Uncovered      []string `json:"unc,omitempty"`  // schema.table; the first 16
	UncoveredCount int      `json:"uncN,omitempty"` // all of them

	// Undeclared are columns that are named after a dataset and that nothing ties to it; Pointers may lead to files
	// elsewhere. The first of each, and how many there are.
	Undeclared      []Relation `json:"rel,omitempty"`
	UndeclaredCount int        `json:"relN,omitempty"`
	Pointers        []string   `json:"ptr,omitempty"` // dataset.column
	PointerCount    int        `json:"ptrN,omitempty"`

	Deleted  int64     `json:"del,omitempty"` // rows, in all
	Datasets []Dataset `json:"sets,omitempty"`
}

// Most names that a report has of each kind; the rest are counted.
const (
	MaxUncovered  = 16
	MaxUndeclared = 16
	MaxPointers   = 16
)

// Relation is a column that is named after a dataset and that nothing ties to it.
type Relation struct {
	Table      string `json:"t"` // schema.table
	Column     string `json:"c"`
	References string `json:"d"` // dataset
}

// Encode makes a report's canonical bytes: datasets and their rules stand worst first, and nothing is left out. A
// report that is longer than MaxBytes is an error.
func Encode(r Report) ([]byte, error) {
	r.Format, r.Datasets = format, worstFirst(r.Datasets)
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("encode report: %d bytes, at most %d fit", len(b), MaxBytes)
	}
	return b, nil
}

// ErrUnreadable says that a text is no report, or no termination message: empty, not whole, or of another format.
var ErrUnreadable = errors.New("the sweep left no readable report")

// Read decodes a sweep's report and looks whose plan it is about: the one place where both is done.
func Read(canonical, planHash string) (Report, error) {
	r, err := Decode(canonical)
	if err == nil && r.Plan != planHash {
		return Report{}, fmt.Errorf("%w: it is about another plan", ErrUnreadable)
	}
	return r, err
}

// Decode reads a report. One that is not whole is ErrUnreadable, never a report of zeros.
func Decode(canonical string) (Report, error) {
	var r Report
	if err := json.Unmarshal([]byte(canonical), &r); err != nil {
		return Report{}, fmt.Errorf("%w: %d bytes that are not a whole document", ErrUnreadable, len(canonical))
	}
	if r.Format != format || r.Outcome == "" || r.Plan == "" {
		return Report{}, fmt.Errorf("%w: format %d", ErrUnreadable, r.Format)
	}
	// The pod that wrote it had a database's own words, and may be broken into.
	if !isWord(r.Reason) || !isDigest(r.Tenants) || !isStore(r.Identity, r.Point) {
		return Report{}, fmt.Errorf("%w: a field is not of its form", ErrUnreadable)
	}
	r.Message, r.Database = foreign.Text(r.Message), foreign.Name(r.Database)
	for i := range r.Uncovered {
		r.Uncovered[i] = foreign.Name(r.Uncovered[i])
	}
	for i, u := range r.Undeclared {
		r.Undeclared[i] = Relation{Table: foreign.Name(u.Table), Column: foreign.Name(u.Column), References: foreign.Name(u.References)}
	}
	for i := range r.Pointers {
		r.Pointers[i] = foreign.Name(r.Pointers[i])
	}
	for i := range r.Datasets {
		if !r.Datasets[i].clean() {
			return Report{}, fmt.Errorf("%w: a dataset is not of its form", ErrUnreadable)
		}
	}
	r.Datasets = worstFirst(r.Datasets)
	return r, nil
}

func isWord(text string) bool { return text == "" || foreign.Word(text) == text }

// isDigest says whether a text is the name of a list, in hex.
func isDigest(text string) bool {
	return len(text) <= 64 && !strings.ContainsFunc(text, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// isStore says whether a store and a place in its life are told as a DataStore's status takes them, or not at all.
func isStore(i v1alpha1.StoreIdentity, p *v1alpha1.StorePoint) bool {
	return (i == v1alpha1.StoreIdentity{} || i.IsValid()) && (p == nil || p.IsValid())
}
