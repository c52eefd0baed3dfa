package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

const (
	// BacklogDays is how long an approval lets sweeps go beyond the brake.
	BacklogDays = 7
	// MaxApprovedTenants is how many tenants an approval names for one dataset.
	MaxApprovedTenants = 256
	// clockSkew is how far the clock may be ahead by which something was approved.
	clockSkew = 5 * time.Minute
)

// Asked is what a person asks to approve. Where it names nothing, it is the datasets that wait for approval.
type Asked struct {
	// Datasets whose windows are approved as they are now.
	Datasets []string
	// Brakes are the datasets whose brake has tripped, or whose rows have returned, and which may go on.
	Brakes []string
	// Database approves the database as it is: another server, another address, or an earlier state.
	Database bool
	// NotBelow approves the windows of the datasets' tenants by this bound, and by name only those that are shorter.
	NotBelow *calendar.Window
	// StaleAfter is how old a measurement may be.
	StaleAfter time.Duration
}

// Proposal is an approval, and which of its datasets it speaks of: the others are as they were.
type Proposal struct {
	Plan     v1alpha1.ApprovedPlan
	Datasets []string
	// Waiting is what was measured as waiting in each of them.
	Waiting map[string]Waiting
}

// Waiting is how many rows of a dataset would go now.
type Waiting struct {
	Rows int64
	// Returned is how many rows are there again that were gone; of those none may go now, and they are let go all the
	// same.
	Returned int64
	// AtLeast is set when the count stopped at its bound: the whole table is approved then.
	AtLeast bool
}

var (
	// ErrNotMeasured says that there is nothing yet to approve by: a person approves what an Audit measured.
	ErrNotMeasured = errors.New("the store has not been measured under its present plan; wait for the next sweep, which sets status.measuredAt and lists every rule in status.datasets")
	// ErrStale says that what was measured is too old to approve by.
	ErrStale = errors.New("the last measurement is too old to approve by; wait for the next sweep, or look at the store's Jobs")
	// ErrUnread says that a dataset could not be measured.
	ErrUnread = errors.New("it could not be measured, so nobody knows what would go")
	// ErrNothingToApprove says that nothing asks for a deletion that could be approved.
	ErrNothingToApprove = errors.New("nothing waits for approval")
	// ErrUnknownDataset says that a name is wrong.
	ErrUnknownDataset = errors.New("no rule that can be kept governs a dataset of that name in this store; look at its conditions")
	// ErrNotBraked says that a brake was named that has not tripped.
	ErrNotBraked = errors.New("its brake has not tripped and no rows of it have returned, by the last measurement: there is nothing to let go on")
	// ErrOtherDatabase says that what was measured is not what the other windows were approved for.
	ErrOtherDatabase = errors.New("this is not the database that was approved, or is an earlier state of it; look at the store's condition Approved, and say --database if it is right")
	// ErrUnnamed says that nothing is left of what was approved: an earlier Lethe wrote down otherwise what it was of.
	ErrUnnamed = errors.New("no window that was approved says by its placeDigest what it is of, so that none of them counts; approve windows beside the database, for example --database --dataset messages")
	// ErrTooManyTenants says that an approval cannot name them all.
	ErrTooManyTenants = errors.New("too many tenants with a window of their own to approve each by name; approve them by a bound, for example --any-tenant-not-below P30D")
)

// Propose writes the approval that covers what a person asks for, as it was last measured, and leaves everything else
// as it was approved before: another dataset's backlog is not renewed, nor a brake let go that nobody named.
func Propose(r Result, store *v1alpha1.DataStore, a Asked, now time.Time) (Proposal, error) {
	status, before := store.Status, store.Spec.ApprovedPlan
	if err := measuredUnder(r, status, a, now); err != nil {
		return Proposal{}, err
	}
	named := len(a.Datasets) > 0 || len(a.Brakes) > 0 || a.Database
	if !named {
		a.Datasets = r.AwaitingDatasets
	}
	p := &proposer{r: r, status: status, asked: a, now: now.UTC().Truncate(time.Second), out: Proposal{Waiting: map[string]Waiting{}}}
	out := &p.out.Plan
	switch {
	case before == nil:
		*out = present(r, status, p.now)
	case a.Database:
		*out = present(r, status, p.now)
		p.later(before.Seen)
		for _, w := range before.Windows {
			w.Backlog = nil // it was counted in the database before
			out.Windows = append(out.Windows, w)
		}
		if out.Windows = withPlace(out.Windows); len(out.Windows) == 0 && len(a.Datasets) == 0 {
			return Proposal{}, ErrUnnamed
		}
	case before.Identity != status.Plan.Identity || before.Database != r.Plan.Target.Name() || before.Address != r.Plan.Target.Address() ||
		before.Tenancy != r.Plan.Tenancy || status.LastSweep.Reason == v1alpha1.ReasonRestoredFrom:
		return Proposal{}, ErrOtherDatabase
	default:
		before.DeepCopyInto(out)
		out.Windows = withPlace(out.Windows)
	}
	for _, name := range a.Datasets {
		if err := p.window(name); err != nil {
			return Proposal{}, fmt.Errorf("dataset %s: %w", name, err)
		}
	}
	for _, name := range a.Brakes {
		if err := p.brake(name); err != nil {
			return Proposal{}, fmt.Errorf("dataset %s: %w", name, err)
		}
	}
	if len(p.out.Datasets) == 0 && !a.Database {
		return Proposal{}, p.nothing()
	}
	if len(out.Windows) == 0 {
		return Proposal{}, ErrNothingToApprove
	}
	slices.Sort(p.out.Datasets)
	p.out.Datasets = slices.Compact(p.out.Datasets)
	slices.SortFunc(out.Windows, func(a, b v1alpha1.ApprovedWindow) int { return strings.Compare(a.Dataset, b.Dataset) })
	return p.out, nil
}

// withPlace leaves out windows that do not say what they are of: they approve nothing, and the API server takes none.
func withPlace(windows []v1alpha1.ApprovedWindow) []v1alpha1.ApprovedWindow {
	return slices.DeleteFunc(windows, func(w v1alpha1.ApprovedWindow) bool { return w.PlaceDigest == "" })
}

// measuredUnder says whether the last sweep measured the store, lately, and under the plan that is in force.
func measuredUnder(r Result, status v1alpha1.DataStoreStatus, a Asked, now time.Time) error {
	last := status.LastSweep
	switch {
	case status.MeasuredAt == nil, status.Plan.Identity == v1alpha1.StoreIdentity{}, last == nil:
		return ErrNotMeasured
	case last.Outcome == v1alpha1.SweepLost, last.Attempt > 0:
		return fmt.Errorf("%w (the last sweep: %s)", ErrNotMeasured, strings.TrimSpace(last.Reason+" "+last.Message))
	case !now.Before(status.MeasuredAt.Add(a.StaleAfter)):
		return ErrStale
	}
	digest, err := Digest(r.Plan)
	if err != nil {
		return err
	}
	if last.PlanDigest != digest {
		return ErrNotMeasured
	}
	return nil
}

// present identity of the database, as it was measured.
func present(r Result, status v1alpha1.DataStoreStatus, now time.Time) v1alpha1.ApprovedPlan {
	out := v1alpha1.ApprovedPlan{
		Identity: status.Plan.Identity, Database: r.Plan.Target.Name(), Address: r.Plan.Target.Address(), Tenancy: r.Plan.Tenancy,
	}
	if status.Point != nil {
		out.Seen = &v1alpha1.ApprovedPoint{Point: *status.Point, ApprovedAt: metav1.NewTime(now)}
	}
	return out
}

// later gives an approval of the database a later time than the one before, which tells them apart, also where this
// person's clock is behind. One of a time that has not come is none, and counts for nothing.
func (p *proposer) later(old *v1alpha1.ApprovedPoint) {
	seen, latest := p.out.Plan.Seen, p.now
	if at := p.status.MeasuredAt; at.After(latest) {
		latest = at.Time
	}
	if old == nil || seen == nil || seen.ApprovedAt.After(old.ApprovedAt.Time) || old.ApprovedAt.After(latest.Add(clockSkew)) {
		return
	}
	seen.ApprovedAt = metav1.NewTime(old.ApprovedAt.UTC().Add(time.Second))
}

// proposer puts one approval together.
type proposer struct {
	r      Result
	status v1alpha1.DataStoreStatus
	asked  Asked
	now    time.Time
	out    Proposal
}

// nothing says that nothing waits, and of what does wait and has to be asked for by name.
func (p *proposer) nothing() error {
	var braked []string
	for d, m := range p.status.Lines {
		if IsBraked(d.ProblemOf(m).Reason) && !slices.Contains(braked, d.Name) {
			braked = append(braked, d.Name)
		}
	}
	if len(braked) == 0 {
		return ErrNothingToApprove
	}
	return fmt.Errorf("%w, but sweeps of these datasets are braked: %s; look at them, and let each go on by its name: --brake %s",
		ErrNothingToApprove, strings.Join(braked, ", "), braked[0])
}

// IsBraked says of a dataset's reason that its sweep was braked: nothing of it goes until a person lets it.
func IsBraked(reason string) bool {
	return reason == v1alpha1.ReasonBrakeTripped || reason == v1alpha1.ReasonReturned
}

// window approves the windows of one dataset, and the rows that wait now. Where the brake has tripped, the latter is
// asked for by itself.
func (p *proposer) window(name string) error {
	want, dataset := p.r.wanted[name], p.dataset(name)
	if want == nil || dataset == nil {
		return ErrUnknownDataset
	}
	waiting, braked, err := p.waiting(name)
	if err != nil {
		return err
	}
	base := want.RetainFor.Period()
	w := v1alpha1.ApprovedWindow{Dataset: name, PlaceDigest: dataset.Digest(p.r.Plan.declared(name)...), RetainFor: &base}
	if dataset.Floor != nil {
		w.Floor = new(dataset.Floor.Period())
	}
	ord := newOrdering()
	if p.asked.NotBelow != nil {
		w.AnyTenant = &v1alpha1.ApprovedBound{NotBelow: new(p.asked.NotBelow.Period())}
	}
	for _, o := range want.own.overrides {
		if p.asked.NotBelow != nil && ord.atMost(*p.asked.NotBelow, o.RetainFor) {
			continue
		}
		own := o.RetainFor.Period()
		w.Tenants = append(w.Tenants, v1alpha1.ApprovedTenantWindow{Tenant: o.Tenant, RetainFor: &own, ExternalIDs: slices.Clone(o.ExternalIDs)})
	}
	if len(w.Tenants) > MaxApprovedTenants {
		return fmt.Errorf("%w (%d, at most %d)", ErrTooManyTenants, len(w.Tenants), MaxApprovedTenants)
	}
	old := p.put(w)
	p.out.Waiting[name] = waiting
	if braked {
		p.at(name).Backlog = old // as it was: see brake
	} else {
		p.permit(name, old, waiting)
	}
	return nil
}

// brake lets a dataset go on whose brake has tripped, for the rows that wait now and no more.
func (p *proposer) brake(name string) error {
	waiting, braked, err := p.waiting(name)
	switch w := p.at(name); {
	case p.dataset(name) == nil:
		return ErrUnknownDataset
	case err != nil:
		return err
	case w == nil:
		return fmt.Errorf("%w: approve its window first (--dataset %s)", ErrNotBraked, name)
	case !braked:
		return ErrNotBraked
	default:
		p.permit(name, w.Backlog, waiting)
		return nil
	}
}

// permit gives a dataset a backlog that is newer than the one before.
func (p *proposer) permit(name string, old *v1alpha1.ApprovedBacklog, waiting Waiting) {
	p.out.Datasets = append(p.out.Datasets, name)
	p.out.Waiting[name] = waiting
	w := p.at(name)
	w.Backlog = nil
	rows := max(waiting.Rows, waiting.Returned)
	if rows == 0 {
		return
	}
	at := p.now
	if old != nil && !old.ApprovedAt.Time.Before(at) {
		at = old.ApprovedAt.UTC().Add(time.Second)
	}
	w.Backlog = &v1alpha1.ApprovedBacklog{Rows: rows, ApprovedAt: metav1.NewTime(at), Until: metav1.NewTime(at.AddDate(0, 0, BacklogDays))}
}

// put takes a window in place of the one that is there, and returns that one's backlog.
func (p *proposer) put(w v1alpha1.ApprovedWindow) *v1alpha1.ApprovedBacklog {
	p.out.Datasets = append(p.out.Datasets, w.Dataset)
	if old := p.at(w.Dataset); old != nil {
		backlog := old.Backlog
		*old = w
		return backlog
	}
	p.out.Plan.Windows = append(p.out.Plan.Windows, w)
	return nil
}

func (p *proposer) at(name string) *v1alpha1.ApprovedWindow { return windowFor(&p.out.Plan, name) }

func (p *proposer) dataset(name string) *Dataset {
	for i := range p.r.Plan.Datasets {
		if p.r.Plan.Datasets[i].Name == name {
			return &p.r.Plan.Datasets[i]
		}
	}
	return nil
}

// waiting is the most that any rule found waiting that would delete: one in Audit does not count beside one that
// enforces. A count that stopped at its bound says too little: the table's own size bounds it then. What was not
// measured is no number.
func (p *proposer) waiting(name string) (out Waiting, braked bool, err error) {
	dataset := p.dataset(name)
	if dataset == nil {
		return out, false, ErrUnknownDataset
	}
	enforced := slices.ContainsFunc(dataset.Rules, func(r Rule) bool { return r.Mode == v1alpha1.PolicyEnforce })
	seen := false
	for _, r := range dataset.Rules {
		of, m := p.status.Measurement(name, r.Policy, r.Rule)
		switch {
		case enforced && r.Mode != v1alpha1.PolicyEnforce:
			continue
		case m == nil:
			return out, false, fmt.Errorf("%w: no measurement of rule %s/%s is in the last report, which may have been cut", ErrUnread, r.Policy, r.Rule)
		case !counted(of.ProblemOf(m).Reason):
			why := of.ProblemOf(m)
			return out, false, fmt.Errorf("%w: %s, %s", ErrUnread, why.Reason, why.Message)
		case m.Window != r.RetainFor.String():
			return out, false, ErrNotMeasured
		}
		seen, braked = true, braked || IsBraked(of.ProblemOf(m).Reason)
		rows := m.Eligible
		if m.Capped {
			rows = max(rows, of.Rows)
		}
		out.Rows, out.AtLeast, out.Returned = max(out.Rows, rows), out.AtLeast || m.Capped, max(out.Returned, of.Returned)
	}
	if !seen {
		return out, false, ErrUnknownDataset
	}
	return out, braked, nil
}

// counted says whether the numbers of a measurement with this reason hold: what came up was about deleting.
func counted(reason string) bool {
	switch reason {
	case "", v1alpha1.ReasonBrakeTripped, v1alpha1.ReasonReturned, v1alpha1.ReasonGuarded, v1alpha1.ReasonReplicaIdentity, v1alpha1.ReasonSideEffect, v1alpha1.ReasonContradiction,
		v1alpha1.ReasonUnindexedForeignKey, v1alpha1.ReasonUndeclaredRelation:
		return true
	default:
		return false
	}
}
