// Package report is the document in which a sweep tells what it measured and did. It travels as the termination message
// of the sweeper's container, which the kubelet cuts at 4096 bytes, so names are short, a long report is packed, and
// the worst line comes first.
package report

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// MaxBytes is the most that a kubelet keeps of one container's termination message.
const MaxBytes = 4096

// format of the document. Up to format 1 each rule on each dataset had a line that repeated what was measured of the
// table, up to format 2 a store's identity and the place in its life were PostgreSQL's.
const format = 3

const (
	// packed begins a report that is too long as JSON: DEFLATE (RFC 1951) of the JSON, in base64 (RFC 4648).
	packed = "z1:"
	// maxUnpacked bounds what a packed report may grow to.
	maxUnpacked = 1 << 20
)

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
	// elsewhere. The first of each, and how many there are. For want of space they are left out before any line is.
	Undeclared      []Relation `json:"rel,omitempty"`
	UndeclaredCount int        `json:"relN,omitempty"`
	Pointers        []string   `json:"ptr,omitempty"` // dataset.column
	PointerCount    int        `json:"ptrN,omitempty"`

	Deleted   int64     `json:"del,omitempty"` // rows, those of measurements that were left out among them
	Datasets  []Dataset `json:"sets,omitempty"`
	Truncated int       `json:"cut,omitempty"` // measurements left out for space; those rules are Unknown
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

// Encode sorts datasets and their rules worst first. A document that does not fit MaxBytes is packed; if that is not
// enough, its last measurements are dropped until it fits, and counted. Names of columns that a person has to look at
// go before lines do, in a report of as many as there are counted all the same.
func Encode(r Report) ([]byte, error) {
	b, dropped, err := encodeFitting(r)
	for _, names := range []func(){func() { r.Pointers = nil }, func() { r.Undeclared = r.Undeclared[:min(len(r.Undeclared), 4)] }} {
		if err == nil && dropped == 0 {
			break
		}
		names()
		b, dropped, err = encodeFitting(r)
	}
	return b, err
}

func encodeFitting(r Report) ([]byte, int, error) {
	r.Format = format
	datasets := worstFirst(r.Datasets)
	all := Measurements(datasets)
	encode := func(drop int) ([]byte, error) {
		r.Datasets, r.Truncated = first(datasets, all-drop), drop
		b, err := json.Marshal(r)
		if err == nil && len(b) > MaxBytes && drop < all {
			b, err = pack(b)
		}
		if err != nil {
			return nil, fmt.Errorf("encode report: %w", err)
		}
		return b, nil
	}
	drop := sort.Search(all, func(drop int) bool {
		b, err := encode(drop)
		return err != nil || len(b) <= MaxBytes
	})
	b, err := encode(drop)
	if err == nil && len(b) > MaxBytes {
		err = fmt.Errorf("encode report: %d bytes without any measurement, at most %d fit", len(b), MaxBytes)
	}
	if err != nil {
		return nil, 0, err
	}
	return b, drop, nil
}

// ErrUnreadable says that a termination message is no report: empty, cut, or of another format.
var ErrUnreadable = errors.New("the sweep left no readable report")

// Read decodes the termination message of a sweep and looks whose plan it is about: the one place where both is done.
func Read(message, planHash string) (Report, error) {
	r, err := Decode(message)
	if err == nil && r.Plan != planHash {
		return Report{}, fmt.Errorf("%w: it is about another plan", ErrUnreadable)
	}
	return r, err
}

// Decode reads a termination message. A message that is not whole is ErrUnreadable, never a report of zeros.
func Decode(message string) (Report, error) {
	var r Report
	document, err := unpack(message)
	if err == nil {
		err = json.Unmarshal(document, &r)
	}
	if err != nil {
		return Report{}, fmt.Errorf("%w: %d bytes that are not a whole document", ErrUnreadable, len(message))
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

func pack(document []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(document)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack report: %w", err)
	}
	return append([]byte(packed), base64.StdEncoding.EncodeToString(b.Bytes())...), nil
}

func unpack(message string) ([]byte, error) {
	text, isPacked := strings.CutPrefix(message, packed)
	if !isPacked {
		return []byte(message), nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("unpack report: %w", err)
	}
	document, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxUnpacked))
	if err != nil {
		return nil, fmt.Errorf("unpack report: %w", err)
	}
	return document, nil
}
