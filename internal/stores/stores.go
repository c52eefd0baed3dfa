// Package stores is the contract between a sweep and the kinds of store that it can work on. A sweep knows no engine
// by name: it opens a store, holds the plan's datasets against what is there, measures, and deletes in batches, all
// through the interfaces of this package. An engine for another kind of store is a package that fills them; who
// starts sweeps names the engines that there are ([Engines]).
//
// An engine must keep the promises of each method whatever the store is like. Where a store cannot do something at
// all (it has no transactions, keeps no history, has no lock of its own, counts only roughly), the contract says what
// the engine does instead, and always on the cautious side: a row that is not surely due stays, and what was not
// surely counted is not called zero.
package stores

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/guess"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// Engine works on one kind of store.
type Engine interface {
	// Type is the kind of store, as spec.type of a DataStore says it.
	Type() v1alpha1.StoreType
	// CommitMargin is for how long a batch may still change the store after its permit was asked for the last time:
	// that much of a lease must be left then.
	CommitMargin() time.Duration
	// Credentials are those that Open needs, by the names under which a DataStore of the type has them, and what each
	// is for.
	Credentials() map[string]string
	// Open logs in. clock is the caller's, to compare the store's with. The credentials are those that the engine
	// needs, each one; they are not kept, and the caller wipes them. The error is an *Error.
	Open(ctx context.Context, where plan.Target, with Credentials, clock func() time.Time) (Session, error)
	// Describe tells an error of this engine's methods in words for people: never in words of the store's, which may
	// repeat what a record holds.
	Describe(err error) string
}

// Credentials are the secrets that a store is opened with, by name.
type Credentials map[string][]byte

// String hides the values, so that a stray %v shows nothing.
func (c Credentials) String() string { return fmt.Sprintf("%d hidden credentials", len(c)) }

// GoString hides them from %#v.
func (c Credentials) GoString() string { return c.String() }

// Wipe overwrites them.
func (c Credentials) Wipe() {
	for _, value := range c {
		clear(value)
	}
}

// Check says whether they are those that an engine needs. The error names them, and no value.
func (c Credentials) Check(e Engine) error {
	needed := e.Credentials()
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if len(c[name]) == 0 {
			return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonPlanMismatch, Message: fmt.Sprintf(
				"the lease came without the store's credential %s (%s): see that keyserver and sweeper are of one version", name, needed[name])}}
		}
	}
	if len(c) != len(needed) {
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonPlanMismatch, Message: fmt.Sprintf(
			"the lease came with %d credentials, a store of type %s has %d: see that keyserver and sweeper are of one version", len(c), e.Type(), len(needed))}}
	}
	return nil
}

// Session is a store that is open. One goroutine uses it at a time.
type Session interface {
	// Identify reads which store this is. A store that cannot be swept at all is an *Error with
	// [report.ReasonUnsupportedServer].
	Identify(ctx context.Context) (Identity, error)
	// Lock keeps other sweepers out of the store, whoever started them, until the session ends.
	Lock(ctx context.Context) (Lock, error)
	// Now is the store's clock, and how far it is ahead of the caller's. A store without a clock that can be read
	// answers with the caller's.
	Now(ctx context.Context) (now time.Time, skew time.Duration, err error)
	// Bind holds datasets against what is in the store. What a dataset cannot be deleted from or measured for is its
	// Problem, no error.
	Bind(ctx context.Context, c Config) (Bound, error)
	// Closed says that the session is at an end, and the lock with it.
	Closed() bool
	// Close ends the session.
	Close(ctx context.Context) error
}

// Historian is a Session of a store that can tell where in its life it is, so that one which was put back to an
// earlier state is seen before anything is deleted from it. Without it, only records that have returned are seen.
type Historian interface {
	// Mark notes where the store is now. What was deleted before must be seen by whoever reaches the mark.
	Mark(ctx context.Context) (Mark, error)
	// Reach waits until nothing before a mark can be lost any more by a crash of the store, and returns the mark as a
	// point to be remembered: its kind is the engine's own, and its value what Back reads.
	Reach(ctx context.Context, m Mark) (v1alpha1.StorePoint, error)
	// Witness leaves so many traces in the history of the store by which Back tells this history from another, each of
	// 64 bytes at most. They change nothing that anybody sees.
	Witness(ctx context.Context, n int) ([]string, error)
	// Back says what shows that the store is now at an earlier point than last, or in a history that has not the
	// witnesses of last; empty: nothing does. What it cannot read of last, another version or a hand wrote: that
	// shows it too, since nothing shows the contrary.
	Back(ctx context.Context, last v1alpha1.StorePoint, witnesses []string, now v1alpha1.StorePoint) (string, error)
}

// Mark is a place in the life of a store. It means something to the session that made it, and to nobody else.
type Mark any

// Lock is what came of asking for a store's lock.
type Lock int

const (
	// LockBusy: another sweeper has it.
	LockBusy Lock = iota
	// LockHeld: no other sweeper can have it until the session ends.
	LockHeld
	// LockNone: the store has nothing of the kind, and the keyserver's lease alone keeps two sweepers apart. What an
	// engine deletes must then be right beside another sweeper too.
	LockNone
)

// Bound is a store whose datasets have been found, or found wanting. Datasets are indexed as in the Config.
//
// The reasons of problems are those of api/v1alpha1. An error of any method is about the session, the context, the
// permit, or [ErrPaused]; what one dataset ran into is a *v1alpha1.Problem.
type Bound interface {
	// Order lists the datasets so that what refers comes before what is referred to.
	Order() []int
	// Waits says whether records of a dataset may be kept by records of one of those for which open holds.
	Waits(i int, open func(child int) bool) bool
	// Know tells the store anew which tenants are known: all of them, or why that is not known ([Config]). What was
	// refused since an earlier list showed that tenants cannot be told apart stays refused; what was refused since
	// there was no list is not any more once there is one.
	Know(ctx context.Context, tenants []string, unread string) error
	// Unclear says that a tenant with a window of its own cannot be told from others in a dataset: nothing of it may
	// go any more.
	Unclear(i int) bool
	// Problem keeps a dataset from being deleted from; nil: nothing does.
	Problem(i int) *v1alpha1.Problem
	// Notice is what is worth knowing about a dataset and stops nothing; empty: nothing.
	Notice(i int) string
	// Uncovered names what the store holds that is neither a dataset nor exempt, sorted.
	Uncovered() []string
	// Undeclared are ties between datasets that a person has to declare or deny; Pointers may be the only way to data
	// elsewhere.
	Undeclared() []guess.Relation
	Pointers() []string

	// Measure counts what a dataset holds, and for each of its rules, in their order, what is past its window,
	// overdue and kept, and why. It changes nothing. What has a Reason was not, or not wholly, measured: a rule's
	// own, or the dataset's, which holds for all. An engine that cannot count exactly says no less than there may be.
	Measure(ctx context.Context, i int, at Clocks) (report.Dataset, error)
	// Overdue is Measure of the rules as far as it is about what is overdue.
	Overdue(ctx context.Context, i int, at Clocks) ([]report.Rule, error)

	// Expired counts what has expired, no less than Delete would take, and the dataset's records, those no further
	// than most, which is told the former.
	Expired(ctx context.Context, i int, at time.Time, most func(expired int64) int64) (expired, records int64, problem *v1alpha1.Problem, err error)
	// Planned is Expired of what Delete would take, exactly or rather too much.
	Planned(ctx context.Context, i int, at time.Time, most func(planned int64) int64) (planned, records int64, problem *v1alpha1.Problem, err error)
	// Delete takes from a dataset what had expired before at, batch by batch, until nothing is left that can go, or a
	// turn is over ([ErrPaused]). Whatever went is in the Deletion, which counts all turns of the dataset, also
	// beside an error. A record is looked at again at the moment at which it goes: one that has become younger,
	// another tenant's, or referred to meanwhile stays.
	Delete(ctx context.Context, i int, at time.Time, permit Permit) (Deletion, error)

	// Older counts the records whose age lies at or before a cutoff, as far as ages are believed, up to [CountCap].
	Older(ctx context.Context, i int, cutoff time.Time) (int64, *v1alpha1.Problem, error)
	// Due counts, of tenants whose window is shorter than the others', the records past it at a time, up to
	// [CountCap]; -1: that could not be counted.
	Due(ctx context.Context, i int, at time.Time) (int64, error)
}

// CountCap ends a count: what is more is reported as Capped.
const CountCap = 1_000_001

// Identity of a store, which a person approves.
type Identity struct {
	// Of what is made where the store's storage is, and stays with the data. It is not an address, and never empty.
	Of v1alpha1.StoreIdentity
	// Database within it.
	Database string
	// Version of the server, as a number of the engine's own.
	Version int
}

// Config says what a store holds.
type Config struct {
	Datasets []Dataset
	// Exempt places hold nothing to delete.
	Exempt []plan.Exemption
	// Tenants are all identifiers of tenants that are known; nil: no dataset is shared.
	Tenants []string
	// TenantsUnread says why Tenants are not known; empty: they are. Nothing is deleted then where a tenant has a
	// window of its own, and whose the records are is not called measured.
	TenantsUnread string
	// Disputed are identifiers that more than one tenant claims: records of unknown tenants.
	Disputed []string
	// Relations that a person has declared or denied.
	Relations []Relation
}

// Dataset is a set of records, with what is to be measured in it and what may be deleted from it.
type Dataset struct {
	Name string
	// Place of the records. One of a kind that the engine has not is a dataset with a Problem.
	plan.Place
	Floor *calendar.Window
	Rules []Rule
	// Delete is what may be deleted; nil: nothing.
	Delete *Windows
}

// Rule is measured for itself.
type Rule struct {
	Policy, Rule string
	Windows      Windows
	DeleteWithin calendar.Slack
}

// Windows say after how long records expire.
type Windows struct {
	RetainFor calendar.Window // of every record that no override is for
	Overrides []Override
}

// Override is the window of the records of these tenants.
type Override struct {
	IDs       []string
	RetainFor calendar.Window
}

// Relation is what a person said about a column that no foreign key ties to the dataset that it may name.
type Relation struct {
	Schema, Table, Column string
	// References is the dataset's name, and To the column of its table that is compared.
	References, To string
	// Declared relations have the force of a foreign key; the others were denied.
	Declared bool
}

// String names a relation as spec.relations does.
func (r Relation) String() string { return r.Schema + "." + r.Table + "." + r.Column }

// Clocks are the times that a sweep reckons with. Deleting uses the earlier of the store's and the pod's clock,
// accusing the later.
type Clocks struct {
	Early, Late time.Time
}

// Error is a problem of the whole store: what is wrong and what to do. It holds no value of a record.
type Error struct {
	v1alpha1.Problem
	Cause error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Permit is asked whether to go on. An error ends the deletion and comes back from Delete.
type Permit struct {
	// Begin is asked before each batch, which is meant to take so many records.
	Begin func(records int64) error
	// Commit is asked when it is known how many records a batch takes, and before it cannot be taken back any more:
	// in a store with transactions right before COMMIT, in one without before the first record goes. An error keeps
	// all of the batch. After one that is ErrRepeat the batch begins anew, with Begin.
	Commit func(records int64) error
	// Pause is asked between batches; true ends the turn of this dataset: Delete says ErrPaused and, called again,
	// goes on from there. nil: never.
	Pause func() bool
}

// ErrRepeat is what Permit.Commit says when the batch is to be kept and deleted again.
var ErrRepeat = errors.New("the batch is to be deleted again")

// ErrPaused says that Permit.Pause ended a turn, and that there may be more to delete.
var ErrPaused = errors.New("the turn of this dataset is over")

// Deletion is what deleting from a dataset came to.
type Deletion struct {
	Rows    int64
	Batches int
	// Longest transaction, from its beginning to its end.
	Longest time.Duration
	// Rollbacks is how many transactions failed.
	Rollbacks int
	// Skipped batches whose records others held, or that the store would not delete; Problem says why. The rest is
	// gone.
	Skipped int
	Problem *v1alpha1.Problem
}

// Engines are those that a program has.
type Engines []Engine

// For finds the engine for a kind of store; nil: there is none.
func (all Engines) For(kind v1alpha1.StoreType) Engine {
	for _, e := range all {
		if e.Type() == kind {
			return e
		}
	}
	return nil
}
