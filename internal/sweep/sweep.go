// Package sweep runs one sweep over one store: lease, lock, identity, catalogue, brake, deletion, verification,
// measurement, report. However it ends, there is a report.
package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
)

// Options of one sweep.
type Options struct {
	Plan   plan.Plan
	Hash   string
	Leaser Leaser
	// Engines that this program has: the plan's store needs one of them.
	Engines stores.Engines
	// Budget of time after which no batch begins any more. What was deleted by then is measured and reported.
	Budget time.Duration
	// Stop, when closed, ends the sweep after the current batch.
	Stop  <-chan struct{}
	Clock func() time.Time
	Log   *slog.Logger
}

const (
	maxSkew = time.Minute
	// measureWithin bounds the last measurement after the budget has ended, measureTerminated after SIGTERM, and
	// stopWithin everything after it: a pod has half a minute then.
	measureWithin     = 5 * time.Minute
	measureTerminated = 10 * time.Second
	stopWithin        = 15 * time.Second

	lockWithin = 3 * time.Second
	lockAgain  = 50 * time.Millisecond

	shortestTurn = 2 * time.Second
	longestTurn  = time.Minute

	maxMessage = 400
)

var (
	errTerminated = errors.New("terminated")
	errBudget     = errors.New("the time budget has ended")
)

// run is the state of one sweep.
type run struct {
	Options
	r       report.Report
	started time.Time
	engine  stores.Engine
	session stores.Session
	history stores.Historian // nil: the store cannot tell where in its life it is
	store   stores.Bound
	clocks  stores.Clocks
	keeper  *keeper

	knownDigest string // names those that are known, as the store was told; empty: Dedicated, or it must be told anew
	unread      string // why it is not known who is known; empty: it is, or nobody asked
	tooMany     bool   // asking again does not mend that
	askAgainAt  time.Time
	unlisted    []bool // by dataset: it waits for the list of known tenants alone

	deleting bool                // the database is the one that deletion was approved for
	another  bool                // it is not
	before   [][]report.Rule     // by dataset: what was measured before anything was deleted
	deleted  []stores.Deletion   // by dataset
	refused  []*v1alpha1.Problem // by dataset: the brake, or what came up while deleting
	finished []bool              // by dataset: everything that could go is gone
	returned []int64             // by dataset: rows that had gone and are there again
	backlogs []backlog           // by dataset
	begun    stores.Mark         // where in its life the store was when the sweep began
	placed   bool                // what this sweep sees of the store may be remembered
	point    *keyapi.Point       // where in its life the store is, as far as it may be remembered
}

// Run sweeps and reports. It returns a report whatever happens, a panic included.
func Run(ctx context.Context, o Options) (result report.Report) {
	s := &run{Options: o, started: o.Clock()}
	s.r = report.Report{Plan: o.Hash, Mode: string(o.Plan.Mode()), Started: s.started.Unix(), Outcome: report.Done}
	defer func() {
		if p := recover(); p != nil {
			o.Log.Error("Sweep panicked", "stack", string(debug.Stack()))
			s.end(report.Failed, v1alpha1.ReasonInternal, "a defect of the sweeper: its log has the place")
		}
		// By the store's clock, as far as it is known.
		s.r.Started, s.r.Finished = s.r.Started+s.r.SkewSeconds, o.Clock().Unix()+s.r.SkewSeconds
		result = s.r
	}()
	s.sweep(ctx)
	return s.r
}

// end notes how the sweep ends; what ended it first counts.
func (s *run) end(outcome report.Outcome, reason, format string, args ...any) {
	if s.r.Outcome != report.Done {
		return
	}
	s.r.Outcome, s.r.Reason, s.r.Message = outcome, reason, cut(fmt.Sprintf(format, args...))
}

// fail is end for an error, by what kind of error it is.
func (s *run) fail(err error) {
	var known *stores.Error
	switch {
	case errors.Is(err, errTerminated):
		s.end(report.Stopped, v1alpha1.ReasonTerminated, "the pod was asked to end; the next sweep goes on")
	case errors.Is(err, errBudget):
		s.end(report.Stopped, v1alpha1.ReasonTimeBudget, "%s were not enough; the next sweep goes on", s.Budget)
	case errors.Is(err, errLeaseLost):
		s.end(report.Stopped, v1alpha1.ReasonLeaseLost, "%s", err)
	case errors.As(err, &known) && (known.Reason == v1alpha1.ReasonUnreachable || known.Reason == v1alpha1.ReasonStoreError):
		s.end(report.Failed, known.Reason, "%s", known)
	case errors.As(err, &known):
		s.end(report.Refused, known.Reason, "%s", known)
	default:
		s.end(report.Failed, v1alpha1.ReasonStoreError, "%s", s.engine.Describe(err))
	}
}

func (s *run) sweep(ctx context.Context) {
	if !s.started.Before(s.Plan.ValidUntil) {
		s.end(report.Refused, v1alpha1.ReasonPlanExpired, "the plan was valid until %s: is the manager running?", s.Plan.ValidUntil.UTC().Format(time.RFC3339))
		return
	}
	if s.engine = s.Engines.For(s.Plan.Target.Type); s.engine == nil {
		s.end(report.Refused, v1alpha1.ReasonPlanMismatch, "this sweeper knows no store of type %q: is it of the same version as the manager?", s.Plan.Target.Type)
		return
	}
	// What is asked of the store ends with the lease: losing it cuts the connection, and with it whatever is not
	// committed.
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	go s.awaitStop(ctx, cut)
	with, err := s.lease(ctx)
	if err != nil {
		return
	}
	defer s.keeper.release(ctx)
	s.keeper.keep(ctx, cut)

	err = s.connect(ctx, with)
	with.Wipe()
	if err != nil {
		s.fail(s.cause(ctx, err))
		return
	}
	defer s.disconnect(ctx)
	if err := s.work(ctx); err != nil {
		s.fail(s.cause(ctx, err))
	}
	end, unmarked := s.markEnd(ctx)
	if err := s.measure(ctx); err != nil {
		s.fail(s.cause(ctx, err))
	}
	s.remember(ctx, end, unmarked)
	s.judge()
}

// work looks what is overdue, places the database in its life, and deletes where both allow it.
func (s *run) work(ctx context.Context) error {
	if s.deleting {
		if err := s.measureBefore(ctx); err != nil {
			return err
		}
	}
	if err := s.place(ctx); err != nil {
		return err
	}
	if !s.deleting {
		return nil
	}
	return s.delete(ctx)
}

// awaitStop cuts short what does not end by itself in time after the pod was asked to: the kubelet waits half a minute.
func (s *run) awaitStop(ctx context.Context, cut context.CancelCauseFunc) {
	select {
	case <-s.Stop:
	case <-ctx.Done():
		return
	}
	if pause(ctx, stopWithin) {
		cut(errTerminated)
	}
}

// cause prefers why the context was cut over the error that cutting it made.
func (s *run) cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && (errors.Is(why, errLeaseLost) || errors.Is(why, errTerminated)) {
		return why
	}
	return err
}

func (s *run) lease(ctx context.Context) (stores.Credentials, error) {
	// Nothing has been begun: a pod that is asked to end need not wait for a lease.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.Stop:
			cancel(errTerminated)
		case <-ctx.Done():
		}
	}()
	k, with, err := acquire(ctx, s.Leaser, s.Hash, s.Clock, s.engine.CommitMargin()+leaseMargin)
	if errors.Is(context.Cause(ctx), errTerminated) {
		s.fail(errTerminated)
		return nil, errTerminated
	}
	if err != nil {
		outcome := report.Refused
		if keyclient.ReasonOf(err) == "" {
			outcome = report.Failed
		}
		s.end(outcome, v1alpha1.ReasonLeaseRefused, "the keyserver gives no lease: %s", err)
		return nil, err
	}
	s.keeper = k
	s.Log.Info("Got lease")
	return with, nil
}

// connect opens the store: connection, lock, identity, clocks, catalogue.
func (s *run) connect(ctx context.Context, with stores.Credentials) error {
	if err := with.Check(s.engine); err != nil {
		return err
	}
	session, err := s.engine.Open(ctx, s.Plan.Target, with, s.Clock)
	if err != nil {
		return err
	}
	s.session = session
	s.history, _ = session.(stores.Historian)
	if err := s.open(ctx); err != nil {
		s.disconnect(ctx)
		return err
	}
	return nil
}

func (s *run) open(ctx context.Context) error {
	id, err := s.session.Identify(ctx)
	if err != nil {
		return err
	}
	s.r.Identity, s.r.Database = id.Of, id.Database
	lock, err := s.session.Lock(ctx)
	// The server may still be busy ending the session of a sweep that was killed.
	for end := s.Clock().Add(lockWithin); err == nil && lock == stores.LockBusy && s.Clock().Before(end) && s.mayContinue() == nil && pause(ctx, lockAgain); {
		lock, err = s.session.Lock(ctx)
	}
	if err != nil {
		return err
	}
	if lock == stores.LockBusy {
		return &stores.Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonStoreBusy, Message: "another sweep of this database is under way, perhaps from another DataStore or cluster"}}
	}
	if err := s.readClocks(ctx); err != nil {
		return err
	}
	c := config(s.Plan)
	if s.Plan.Tenancy == v1alpha1.TenancyShared {
		k, err := s.whoIsKnown(ctx)
		if err != nil {
			return err
		}
		c.Tenants, c.TenantsUnread, s.knownDigest = k.ids, k.unread, k.digest
	}
	if s.store, err = s.session.Bind(ctx, c); err != nil {
		return err
	}
	uncovered := s.store.Uncovered()
	s.r.UncoveredCount, s.r.Uncovered = len(uncovered), uncovered[:min(len(uncovered), report.MaxUncovered)]
	s.nameGuesses()
	s.refused, s.unlisted = make([]*v1alpha1.Problem, len(s.Plan.Datasets)), make([]bool, len(s.Plan.Datasets))
	n := len(s.Plan.Datasets)
	s.deleted, s.finished, s.returned, s.backlogs = make([]stores.Deletion, n), make([]bool, n), make([]int64, n), s.openBacklogs()

	approved, address := s.Plan.Database, s.Plan.Target.Address()
	s.deleting = s.Plan.Deletes() && id.Of != v1alpha1.StoreIdentity{} && id.Of == approved.Identity && id.Database == approved.Name && address == approved.Address
	if s.another = s.Plan.Deletes() && !s.deleting; s.another {
		s.end(report.Refused, v1alpha1.ReasonIdentityChanged, "deletion was approved for %q of %s at %s, this is %q of %s at %s: it was only measured; if it is the right one, approve it: kubectl lethe approve %s/%s --database",
			approved.Name, named(approved.Identity), approved.Address, id.Database, named(id.Of), address, s.Plan.Store.Namespace, s.Plan.Store.Name)
	}
	if s.history != nil {
		if s.begun, err = s.history.Mark(ctx); err != nil {
			return err
		}
	}
	s.Log.Info("Opened store", "identity", id.Of.Kind+" "+id.Of.Value, "serverVersion", id.Version, "skew", s.r.SkewSeconds,
		"uncovered", s.r.UncoveredCount, "deleting", s.deleting)
	return nil
}

func (s *run) readClocks(ctx context.Context) error {
	now, skew, err := s.session.Now(ctx)
	if err != nil {
		return err
	}
	s.r.SkewSeconds = int64(skew / time.Second)
	if skew > maxSkew || skew < -maxSkew {
		return &stores.Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonClockSkew, Message: fmt.Sprintf(
			"the store's clock and the pod's differ by %s, more than %s, so no age can be believed: set both by NTP", skew.Round(time.Second), maxSkew)}}
	}
	s.clocks = stores.Clocks{Early: now, Late: now}
	if skew > 0 {
		s.clocks.Early = now.Add(-skew)
	} else {
		s.clocks.Late = now.Add(-skew)
	}
	return nil
}

// measureBefore looks what is overdue before it is deleted: a promise that was broken between two sweeps shows.
func (s *run) measureBefore(ctx context.Context) error {
	for i := range s.Plan.Datasets {
		if err := s.mayContinue(); err != nil {
			return err
		}
		if s.Clock().Sub(s.started) > s.Budget/8 {
			return nil // of the rest it is seen after deleting only
		}
		rules, err := s.store.Overdue(ctx, i, s.clocks)
		if err != nil {
			return err
		}
		s.before = append(s.before, rules)
	}
	return nil
}

// delete brakes, and deletes children first.
func (s *run) delete(ctx context.Context) error {
	order := s.order()
	turn := s.turn(len(order))
	done, looked := make([]bool, len(order)), make([]bool, len(order))
	for again := true; again; {
		again = false
		for _, i := range order {
			if !looked[i] {
				if err := s.mayDelete(ctx, i); err != nil {
					return err
				}
				looked[i] = !s.unlisted[i]
			}
			if s.refused[i] != nil || done[i] {
				continue
			}
			end := s.Clock().Add(turn)
			finished, err := s.deleteFrom(ctx, i, func() bool { return !s.Clock().Before(end) })
			if err != nil {
				return err
			}
			// While rows may still go that refer to rows of this dataset, it is not done.
			s.finished[i] = finished
			done[i] = finished && !s.unlisted[i] && !s.store.Waits(i, func(child int) bool { return !done[child] && s.refused[child] == nil })
			again = again || !done[i] && !s.unlisted[i]
		}
		if !again {
			var err error
			if again, err = s.listed(ctx); err != nil {
				return err
			}
			if again {
				clear(done) // what has its turn now kept rows of others
			}
		}
	}
	return nil
}

// order is children first, and before all others, in that order, what no sweep has come to the end of for longest.
func (s *run) order() []int {
	out := s.store.Order()
	swept := func(i int) int64 {
		if c := s.cleared(i); c != nil {
			return c.SweptAt
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(swept(a), swept(b)) })
	return out
}

// mayDelete asks the brakes before the first turn of a dataset: what they count takes its time, and others have their
// turns meanwhile.
func (s *run) mayDelete(ctx context.Context, i int) error {
	if err := s.mayContinue(); err != nil {
		return err
	}
	if err := s.tellApart(ctx, i); errors.Is(err, errUnclear) {
		s.refused[i] = s.store.Problem(i)
		return nil
	} else if err != nil {
		return err
	}
	if s.unlisted[i] {
		s.unlisted[i], s.refused[i] = false, nil
	}
	if err := s.comeBack(ctx, i); err != nil {
		return err
	}
	if s.refused[i] == nil {
		return s.brake(ctx, i)
	}
	if s.returned[i] > 0 {
		return s.keeper.tell(ctx, keyapi.LeaseRequest{Returned: []string{s.Plan.Datasets[i].Name}})
	}
	return nil
}

// turn is how long one dataset is deleted from while others wait: each comes to its turn several times in the budget.
func (s *run) turn(datasets int) time.Duration {
	return min(longestTurn, max(shortestTurn, s.Budget/time.Duration(4*max(1, datasets))))
}

// deleteFrom takes one turn of a dataset; finished: nothing more can go from it now.
func (s *run) deleteFrom(ctx context.Context, i int, over func() bool) (finished bool, err error) {
	if s.store.Unclear(i) { // since its last turn: what it lost until then stays counted
		s.refused[i], s.unlisted[i] = s.store.Problem(i), s.unread != ""
		return true, nil
	}
	permit := stores.Permit{Pause: over, Begin: func(rows int64) error {
		if err := s.mayContinue(); err != nil {
			return err
		}
		if err := s.tellApart(ctx, i); err != nil {
			return err
		}
		if err := s.draw(ctx, i, rows); err != nil {
			return err
		}
		return s.keeper.await(ctx)
	}, Commit: func(rows int64) error {
		if err := s.commit(ctx, i, rows); err != nil {
			return err
		}
		return s.keeper.valid()
	}}
	before := s.Clock()
	d, err := s.store.Delete(ctx, i, s.clocks.Early, permit)
	s.deleted[i], s.refused[i] = d, d.Problem
	if d.Batches > 0 || d.Problem != nil {
		s.Log.Info("Deleted", "dataset", s.Plan.Datasets[i].Name, "rows", d.Rows, "batches", d.Batches, "rollbacks", d.Rollbacks, "skipped", d.Skipped,
			"longestTransaction", d.Longest.String(), "took", s.Clock().Sub(before).String())
	}
	if errors.Is(err, errUnclear) {
		s.refused[i] = s.store.Problem(i)
		return true, nil
	}
	if keyclient.ReasonOf(err) == v1alpha1.ReasonBacklogSpent {
		s.refused[i] = s.spent(i)
		return true, nil
	}
	if errors.Is(err, stores.ErrPaused) {
		s.refused[i] = nil // what was skipped in this turn is looked at again in the next
		return false, nil
	}
	return true, err
}

// mayContinue says whether another batch may begin as far as time and the pod's life are concerned.
func (s *run) mayContinue() error {
	select {
	case <-s.Stop:
		return errTerminated
	default:
	}
	if s.Clock().Sub(s.started) >= s.Budget {
		return errBudget
	}
	return nil
}

// measure fills the datasets of the report. What there was no time for says so.
func (s *run) measure(ctx context.Context) error {
	most := s.Budget - s.Clock().Sub(s.started) + measureWithin
	if s.r.Reason == v1alpha1.ReasonTerminated {
		most = measureTerminated
	}
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	late := s.clocks
	// Deleting reckoned with the time at the start; accusing reckons with now.
	late.Late = late.Late.Add(s.Clock().Sub(s.started))
	if s.unread == "" {
		s.r.Tenants = plan.KnownName(s.knownDigest)
	}
	err := s.measureAll(bounded, late)
	if ctx.Err() == nil && bounded.Err() != nil {
		s.end(report.Stopped, v1alpha1.ReasonTimeBudget, "the measurement did not end in time")
		err = nil
	}
	return err
}

// measureAll measures dataset by dataset. When the connection breaks, the rest is there as not reached.
func (s *run) measureAll(ctx context.Context, clocks stores.Clocks) error {
	var broken error
	for i, d := range s.Plan.Datasets {
		var measured report.Dataset
		if broken == nil {
			measured, broken = s.store.Measure(ctx, i, clocks)
		}
		if broken != nil {
			measured = notReached(d)
		}
		s.complete(&measured, i)
		s.r.Deleted += s.deleted[i].Rows
		s.r.Datasets = append(s.r.Datasets, measured)
	}
	return broken
}

func (s *run) disconnect(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = s.session.Close(bounded) // the server ends the session with the connection
}

// config is the plan in the store's words.
func config(p plan.Plan) stores.Config {
	var c stores.Config
	// What several rules have in common is read once.
	own := map[int][]stores.Override{}
	windows := func(base calendar.Window, column int) stores.Windows {
		if _, ok := own[column]; !ok {
			own[column] = overrides(p.Overrides(column))
		}
		return stores.Windows{RetainFor: base, Overrides: own[column]}
	}
	for _, d := range p.Datasets {
		out := stores.Dataset{Name: d.Name, Place: d.Place, Floor: d.Floor}
		for _, r := range d.Rules {
			out.Rules = append(out.Rules, stores.Rule{Policy: r.Policy, Rule: r.Rule, DeleteWithin: r.DeleteWithin, Windows: windows(r.RetainFor, r.Own)})
		}
		if d.Delete != nil {
			w := windows(d.Delete.RetainFor, d.Delete.Own)
			out.Delete = &w
		}
		c.Datasets = append(c.Datasets, out)
	}
	c.Exempt, c.Disputed = p.Exempt, p.Disputed
	for _, r := range p.Relations {
		c.Relations = append(c.Relations, stores.Relation{
			Schema: string(r.Schema), Table: string(r.Table), Column: string(r.Column), References: r.References, To: string(r.ReferencesColumn),
			Declared: r.State == v1alpha1.RelationDeclared,
		})
	}
	return c
}

func overrides(in []plan.Override) []stores.Override {
	var out []stores.Override
	for _, o := range in {
		out = append(out, stores.Override{IDs: o.ExternalIDs, RetainFor: o.RetainFor})
	}
	return out
}

// cut is the door of the report: names of tables and triggers are the database's own.
func cut(s string) string {
	return foreign.Line(s, maxMessage)
}

// named is an identity as a person reads it.
func named(i v1alpha1.StoreIdentity) string {
	if i == (v1alpha1.StoreIdentity{}) {
		return "no identity"
	}
	return i.Kind + " " + i.Value
}
