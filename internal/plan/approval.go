package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/retention"
)

// MaxMeasurements is how many measurements a status holds: one for each rule on each dataset.
const MaxMeasurements = 64

// MaxAwaitingApproval is how many lines about missing approval a status holds; MaxLine is the length of one.
const (
	MaxAwaitingApproval = 64
	MaxLine             = 256
)

// missing says what a deletion would take beyond spec.approvedPlan, one line for each window. None: it is approved.
func (c *compiler) missing(d v1alpha1.Dataset, want *Deletion) []string {
	approved := c.in.Store.Spec.ApprovedPlan
	if approved == nil {
		return lines(d.Name, want, "approved: nothing")
	}
	if approved.Database != c.in.Store.Spec.Postgres.Database {
		return lines(d.Name, want, fmt.Sprintf("approved: database %s", approved.Database))
	}
	if approved.Tenancy != c.in.Store.Spec.Tenancy {
		return lines(d.Name, want, fmt.Sprintf("approved: tenancy %s", approved.Tenancy))
	}
	w := windowFor(approved, d.Name)
	switch {
	case w == nil || w.RetainFor == nil:
		return lines(d.Name, want, "approved: nothing")
	case w.Definition != Definition(d.Table, c.res.Plan.declared(d.Name)...):
		return lines(d.Name, want, "approved: the same dataset with another table, other columns or other relations")
	}

	// A tenant that is named in the approval needs a window at least as long as that, also when it is now under the base.
	ok := newApproval(c.ord, w)
	var out []string
	for _, t := range w.Tenants {
		o := overrideOf(want, t.Tenant)
		if o == nil {
			o = &Override{Tenant: t.Tenant, RetainFor: want.RetainFor}
		}
		if approved := ok.lacks(*o); approved != "" {
			out = append(out, line(d.Name, t.Tenant, o.RetainFor, approved))
		}
	}
	for _, o := range want.Overrides {
		if approved := ok.lacks(o); ok.tenants[o.Tenant] == nil && approved != "" {
			out = append(out, line(d.Name, o.Tenant, o.RetainFor, approved))
		}
	}
	// In a Dedicated store every row is one tenant's: an approval that names it has been asked already.
	dedicated := c.in.Store.Spec.Tenancy != v1alpha1.TenancyShared && ok.tenants[c.in.StoreTenant.Name] != nil
	if !dedicated && !c.ord.atMost(*w.RetainFor, want.RetainFor) {
		out = append(out, line(d.Name, "", want.RetainFor, "approved: "+retention.ISO(*w.RetainFor)))
	}
	return out
}

// approvedPart is a deletion without the windows of single tenants, and the identifiers of theirs, that nobody has approved
// yet: such rows stay as long as was approved for them, and everybody else's go on as before. The rest is for missing to judge.
func (c *compiler) approvedPart(d v1alpha1.Dataset, want *Deletion) *Deletion {
	approved := c.in.Store.Spec.ApprovedPlan
	if approved == nil {
		return want
	}
	w := windowFor(approved, d.Name)
	if w == nil || w.RetainFor == nil {
		return want
	}
	ok := newApproval(c.ord, w)
	out := *want
	out.Overrides = nil
	for _, o := range want.Overrides {
		allowed, named := w.RetainFor, false
		if t := ok.tenants[o.Tenant]; t != nil {
			allowed, named = t.RetainFor, true
		}
		switch {
		case allowed == nil:
			continue
		case c.ord.atMost(*allowed, o.RetainFor):
		case !named || !c.ord.atMost(o.RetainFor, *allowed) || !c.ord.atMost(*allowed, want.RetainFor):
			continue // the base window is for it, if that was approved
		default:
			o.RetainFor = *allowed
		}
		// Rows under an identifier that is dropped here go by the base window, as rows of unknown tenants do. No override
		// and no approval that missing lets pass is longer.
		if o.ExternalIDs = ok.covered(o); len(o.ExternalIDs) > 0 {
			out.Overrides = append(out.Overrides, o)
		}
	}
	return &out
}

// approval of one dataset, by tenant and by what the tenants were called.
type approval struct {
	ord     *ordering
	base    v1alpha1.Period
	tenants map[string]*v1alpha1.ApprovedTenantWindow
	listed  map[string][]*v1alpha1.ApprovedTenantWindow
}

func newApproval(ord *ordering, w *v1alpha1.ApprovedWindow) *approval {
	a := &approval{ord: ord, base: *w.RetainFor, tenants: map[string]*v1alpha1.ApprovedTenantWindow{}, listed: map[string][]*v1alpha1.ApprovedTenantWindow{}}
	for i := range w.Tenants {
		t := &w.Tenants[i]
		a.tenants[t.Tenant] = t
		for _, id := range t.ExternalIDs {
			a.listed[id] = append(a.listed[id], t)
		}
	}
	return a
}

// covered are the identifiers of an override that may have its window: those that were approved as this tenant's, and where
// the window is no shorter than the base, all but those that were approved for longer as another's. Otherwise whoever may edit
// a Tenant with a shorter window could write another customer's identifier into it, and have that customer's rows deleted.
func (a *approval) covered(o Override) []string {
	var out []string
	for _, id := range o.ExternalIDs {
		own, ok := false, a.ord.atMost(a.base, o.RetainFor)
		for _, t := range a.listed[id] {
			own = own || t.Tenant == o.Tenant
			ok = ok && t.RetainFor != nil && a.ord.atMost(*t.RetainFor, o.RetainFor)
		}
		if own || ok {
			out = append(out, id)
		}
	}
	return out
}

// lacks says what of an override was approved when that is not all of it. It counts identifiers and does not repeat them.
func (a *approval) lacks(o Override) string {
	allowed, t := &a.base, a.tenants[o.Tenant]
	if t != nil {
		allowed = t.RetainFor
	}
	long := allowed != nil && a.ord.atMost(*allowed, o.RetainFor)
	n := len(o.ExternalIDs) - len(a.covered(o))
	switch said := "approved: " + isoOr(allowed); {
	case n > 0 && (long || t != nil):
		return fmt.Sprintf("%s, but not for %d of its %d externalIDs", said, n, len(o.ExternalIDs))
	case !long:
		return said
	default:
		return ""
	}
}

func overrideOf(want *Deletion, tenant string) *Override {
	for i := range want.Overrides {
		if want.Overrides[i].Tenant == tenant {
			return &want.Overrides[i]
		}
	}
	return nil
}

// approve gives a deletion the backlog that was approved with it.
func (c *compiler) approve(dataset string, want *Deletion) *Deletion {
	out := *want
	approved := c.in.Store.Spec.ApprovedPlan
	if w := windowFor(approved, dataset); w.BacklogRows > 0 && approved.BacklogUntil != nil {
		until := approved.BacklogUntil.UTC()
		out.BacklogRows, out.BacklogUntil = w.BacklogRows, &until
	}
	return &out
}

func windowFor(a *v1alpha1.ApprovedPlan, dataset string) *v1alpha1.ApprovedWindow {
	for i := range a.Windows {
		if a.Windows[i].Dataset == dataset {
			return &a.Windows[i]
		}
	}
	return nil
}

// lines says of every window of a deletion the same thing.
func lines(dataset string, want *Deletion, approved string) []string {
	out := []string{line(dataset, "", want.RetainFor, approved)}
	for _, o := range want.Overrides {
		out = append(out, line(dataset, o.Tenant, o.RetainFor, approved))
	}
	return out
}

func line(dataset, tenant string, window v1alpha1.Period, approved string) string {
	rows := "rows"
	if tenant != "" {
		rows = "rows of " + tenant
	}
	s := fmt.Sprintf("%s: %s older than %s (%s)", dataset, rows, retention.ISO(window), approved)
	if len(s) > MaxLine {
		s = s[:MaxLine]
	}
	return s
}

func isoOr(p *v1alpha1.Period) string {
	if p == nil {
		return "nothing"
	}
	return retention.ISO(*p)
}

// BacklogDays is how long an approval lets sweeps go beyond the brake.
const BacklogDays = 7

// ErrNotMeasured says that there is nothing yet to approve by: a person approves what an Audit measured.
var ErrNotMeasured = errors.New("the store has not been measured under its present plan; wait for status.measuredAt to be set and status.rules to list every rule")

// ErrNothingToApprove says that no rule asks for a deletion that could be approved.
var ErrNothingToApprove = errors.New("no rule that can be kept governs any dataset of this store; look at its conditions")

// Propose writes the approval that covers everything the rules would delete, as it was last measured: the database's
// identity, each window, what tenants with a window of their own are called, and as many rows beyond the brake as wait now.
func Propose(r Result, status v1alpha1.DataStoreStatus, now time.Time) (v1alpha1.ApprovedPlan, error) {
	if status.MeasuredAt == nil || status.Plan.SystemIdentifier == "" {
		return v1alpha1.ApprovedPlan{}, ErrNotMeasured
	}
	out := v1alpha1.ApprovedPlan{
		SystemIdentifier: status.Plan.SystemIdentifier,
		Database:         r.Plan.Connection.Database,
		Tenancy:          r.Plan.Tenancy,
	}
	for _, d := range r.Plan.Datasets {
		want := r.wanted[d.Name]
		if want == nil {
			continue
		}
		measured := measurement(status.Rules, d.Name, want)
		if measured == nil {
			return v1alpha1.ApprovedPlan{}, fmt.Errorf("dataset %s: %w", d.Name, ErrNotMeasured)
		}
		base := want.RetainFor
		w := v1alpha1.ApprovedWindow{
			Dataset: d.Name, Definition: Definition(d.Table, r.Plan.declared(d.Name)...), RetainFor: &base, BacklogRows: backlog(status.Rules, d.Name),
		}
		for _, o := range want.Overrides {
			own := o.RetainFor
			w.Tenants = append(w.Tenants, v1alpha1.ApprovedTenantWindow{
				Tenant: o.Tenant, RetainFor: &own, ExternalIDs: slices.Clone(o.ExternalIDs),
			})
		}
		if w.BacklogRows > 0 {
			until := metav1.NewTime(now.UTC().Truncate(time.Second).AddDate(0, 0, BacklogDays))
			out.BacklogUntil = &until
		}
		out.Windows = append(out.Windows, w)
	}
	if len(out.Windows) == 0 {
		return v1alpha1.ApprovedPlan{}, ErrNothingToApprove
	}
	return out, nil
}

// measurement of the rule whose window a deletion has.
func measurement(rules []v1alpha1.RuleMeasurement, dataset string, want *Deletion) *v1alpha1.RuleMeasurement {
	for i := range rules {
		if rules[i].Dataset == dataset && rules[i].Policy == want.Policy && rules[i].Rule == want.Rule {
			return &rules[i]
		}
	}
	return nil
}

// backlog is the most that any rule of a dataset found waiting. A count that stopped at its bound says too little: the
// table's own size bounds it then.
func backlog(rules []v1alpha1.RuleMeasurement, dataset string) int64 {
	var most int64
	for _, r := range rules {
		if r.Dataset != dataset {
			continue
		}
		n := r.Eligible
		if r.Capped {
			n = max(n, r.Rows)
		}
		most = max(most, n)
	}
	return most
}
