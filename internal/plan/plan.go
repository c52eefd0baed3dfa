// Package plan compiles what a DataStore, the policies that select it and the tenants whose rows it holds say together
// into one document: what a sweep measures and what it may delete. The package is pure; the manager and the keyserver
// both call it, and a sweep goes on only while both get the same hash.
package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// Format is the version of the document that this package writes and reads. Format 1 repeated the windows of single
// tenants in each rule of each dataset, up to format 2 all known tenants stood in a plan, up to format 3 a window was
// written as the API has it and not as ISO 8601 does, up to format 4 a store's identity was PostgreSQL's number, and
// up to format 5 a dataset was a table.
const Format = 6

// MaxBytes is the largest plan: what fits a ConfigMap with room for its metadata.
const MaxBytes = 900 << 10

// Plan is what one sweep of one store measures and may delete. Every list is sorted by name, so that equal plans have
// equal bytes.
type Plan struct {
	Format int    `json:"format"`
	Store  Store  `json:"store"`
	Target Target `json:"target"`

	Tenancy v1alpha1.StoreTenancy `json:"tenancy"`
	// Periods are the windows of single tenants of a Shared store, each once. Classes name them by place, counted
	// from 1.
	Periods []calendar.Window `json:"periods,omitempty"`
	// Classes are the tenants that have a window of their own, by the windows that they have.
	Classes []Class `json:"classes,omitempty"`
	// Disputed values are claimed by more than one tenant and so an unknown one's, sorted. The store keeps what its
	// column takes for one of them from going by a tenant's own window. Who else is known comes with the lease: see
	// Result.Known.
	Disputed []string `json:"disputed,omitempty"`

	// Database is the database that deletion was approved for. Empty fields: nothing is approved, and nothing is
	// deleted.
	Database Database `json:"database"`

	Datasets []Dataset `json:"datasets"`
	// Exempt places hold nothing to delete.
	Exempt []Exemption `json:"exempt,omitempty"`
	// Relations that a person has declared or denied.
	Relations []Relation `json:"relations,omitempty"`

	// BrakePercent of a table's rows is the most that one sweep deletes from it.
	BrakePercent int32 `json:"brakePercent"`
	// ValidUntil ends the plan: a sweep that finds it in the past does nothing.
	ValidUntil time.Time `json:"validUntil"`
}

// Store names the DataStore by its UID, too: one made again under the same name is another.
type Store struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Database is the store that was approved: what proves that it is the one, what it is called, and where it is.
type Database struct {
	// Identity of what is behind the address: only the same kind and value are the same.
	Identity v1alpha1.StoreIdentity `json:"identity,omitzero"`
	Name     string                 `json:"name,omitempty"`
	// Address of its server, host:port.
	Address string `json:"address,omitempty"`
	// Seen is when a person last approved where in its life it is, in Unix seconds.
	Seen int64 `json:"seen,omitempty"`
}

// Dataset is a set of records: what is measured in it and what may be deleted from it.
type Dataset struct {
	Name      string             `json:"name"`
	DataClass v1alpha1.DataClass `json:"dataClass"`
	// Place of the records.
	Place `json:"place"`
	// Floor under every window; nil: none. A row younger than it never goes, nor does a row that it refers to.
	Floor      *calendar.Window `json:"floor,omitempty"`
	LegalBasis string           `json:"legalBasis,omitempty"`
	// Rules that govern the dataset; each is measured for itself. Empty: no rule does, which is not green.
	Rules []Rule `json:"rules,omitempty"`
	// Delete is what may be deleted; nil: the dataset is only measured.
	Delete *Deletion `json:"delete,omitempty"`
	// Problem that keeps Delete from being set although a rule asks for it, with its remedy.
	Problem string `json:"problem,omitempty"`
}

// Rule is one rule of one policy on one dataset, with the windows that really apply.
type Rule struct {
	Policy string              `json:"policy"`
	Rule   string              `json:"rule"`
	Mode   v1alpha1.PolicyMode `json:"mode"`
	// RetainFor is the base window: of every row in a Dedicated store (its tenant's override already applied), in a
	// Shared one of the rows of every tenant that has none of its own here, and of unknown tenants.
	RetainFor calendar.Window `json:"retainFor"`
	// DeleteWithin this much clock time after RetainFor a row is overdue.
	DeleteWithin calendar.Slack `json:"deleteWithin"`
	// Own is the column of the plan's classes that holds the windows of single tenants, counted from 1. 0: none has
	// one here.
	Own int `json:"own,omitempty"`
	// Problem of the rule on this dataset, with its remedy.
	Problem string `json:"problem,omitempty"`
}

// Deletion is permission to delete what is older than a window.
type Deletion struct {
	// Policy and Rule whose base window it is.
	Policy    string          `json:"policy"`
	Rule      string          `json:"rule"`
	RetainFor calendar.Window `json:"retainFor"`
	// Own is the column of single tenants' windows, as of a Rule: those that were approved.
	Own int `json:"own,omitempty"`
	// Backlog may be deleted beyond the brake; nil: the brake alone decides.
	Backlog *Backlog `json:"backlog,omitempty"`
}

// Backlog is permission for so many rows. The keyserver's account says what is left of it.
type Backlog struct {
	Rows       int64     `json:"rows"`
	ApprovedAt time.Time `json:"approvedAt"`
	Until      time.Time `json:"until"`
}

// Relation between a column and a dataset that the database does not know, and what a person said of it.
type Relation struct {
	Schema     v1alpha1.Identifier `json:"schema"`
	Table      v1alpha1.Identifier `json:"table"`
	Column     v1alpha1.Identifier `json:"column"`
	References string              `json:"references"`
	// ReferencesColumn of the dataset's table; of one that is declared it is always set.
	ReferencesColumn v1alpha1.Identifier    `json:"referencesColumn,omitempty"`
	State            v1alpha1.RelationState `json:"state"`
}

// Deletes says whether any dataset may be deleted from.
func (p Plan) Deletes() bool {
	for _, d := range p.Datasets {
		if d.Delete != nil {
			return true
		}
	}
	return false
}

// Mode of the plan as reports tell it: Enforce when a sweep by it may delete anything, else Audit.
func (p Plan) Mode() v1alpha1.PolicyMode {
	if p.Deletes() {
		return v1alpha1.PolicyEnforce
	}
	return v1alpha1.PolicyAudit
}

// Encode gives the canonical bytes of a plan.
func Encode(p Plan) ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d fit", ErrTooLarge, len(b), MaxBytes)
	}
	return b, nil
}

// ErrTooLarge says that a plan does not fit a ConfigMap.
var ErrTooLarge = errors.New("the plan is too large")

// ErrMalformed says that bytes are no plan of this format.
var ErrMalformed = errors.New("not a plan")

// ErrFormat says that a plan is of another format than this program reads. The manager writes each store's plan anew
// as soon as it runs; a sweep that was begun by the old one ends, and the next is of the new.
var ErrFormat = fmt.Errorf("%w of this version of Lethe", ErrMalformed)

// Decode reads canonical bytes. A field it does not know is an error: it might be a restraint. A plan of another
// format is not read at all: what a field means in one need not be what it means in the other.
func Decode(b []byte) (Plan, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err == nil && head.Format != Format {
		return Plan{}, fmt.Errorf("%w: it is of format %d, this program reads %d: wait for the manager to write a new one, and see that manager, keyserver and sweeper are of one version",
			ErrFormat, head.Format, Format)
	}
	var p Plan
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Plan{}, fmt.Errorf("%w: something follows it", ErrMalformed)
	}
	if p.Format != Format {
		return Plan{}, fmt.Errorf("%w: format %d, this program reads %d", ErrFormat, p.Format, Format)
	}
	if err := p.Target.check(); err != nil {
		return Plan{}, err
	}
	if err := p.checkPlaces(); err != nil {
		return Plan{}, err
	}
	if err := p.checkTables(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// Hash names a plan: 64 hex digits of the SHA-256 of its canonical bytes. HashBytes does the same for bytes at hand.
func Hash(p Plan) (string, error) {
	b, err := Encode(p)
	if err != nil {
		return "", err
	}
	return HashBytes(b), nil
}

// HashBytes names the plan whose canonical bytes these are.
func HashBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Digest names what a plan says apart from how long it is valid: it stays the same when a plan is only renewed.
func Digest(p Plan) (string, error) {
	p.ValidUntil = time.Time{}
	return Hash(p)
}

// DigestOf names a list of known identifiers, which is sorted: 64 hex digits.
func DigestOf(known []string) string {
	h := sha256.New()
	for _, id := range known {
		fmt.Fprintf(h, "%d\n%s", len(id), id)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// KnownName is a digest of DigestOf as reports and statuses have it, 16 hex digits: it tells one list from another,
// and is no proof.
func KnownName(digest string) string { return digest[:min(len(digest), 16)] }

const week = 7 * 24 * time.Hour

// ValidUntil is the end of a plan that is compiled now: between one and two weeks ahead, and the same for a whole week,
// so that a plan's hash changes once a week when nothing else does. The week of each store begins at another time, so
// that not every store gets a new plan in the same minute.
func ValidUntil(storeUID string, now time.Time) time.Time {
	shift := offset(storeUID)
	return now.UTC().Add(-shift).Truncate(week).Add(shift + 2*week)
}

// Candidates are the ends of the plans that are in force now: the present week's and the one before it, whose CronJob
// may not have been rewritten yet. Each is after now.
func Candidates(storeUID string, now time.Time) []time.Time {
	until := ValidUntil(storeUID, now)
	return []time.Time{until, until.Add(-week)}
}

// Accepts says whether a hash names the plan, compiled now or within the week before.
func Accepts(p Plan, hash string, now time.Time) (bool, error) {
	for _, until := range Candidates(p.Store.UID, now) {
		p.ValidUntil = until
		got, err := Hash(p)
		if err != nil {
			return false, err
		}
		if got == hash {
			return true, nil
		}
	}
	return false, nil
}

// offset of a store into the week, in whole minutes.
func offset(storeUID string) time.Duration {
	sum := sha256.Sum256([]byte(storeUID))
	n := uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])
	return time.Duration(n%uint32(week/time.Minute)) * time.Minute
}
