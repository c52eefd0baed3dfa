package plan

import (
	"fmt"

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
	if w.Floor != nil && (d.Floor == nil || d.Floor.RetainFor == nil || !c.ord.atMost(*w.Floor, *d.Floor.RetainFor)) {
		out = append(out, line(d.Name, "", want.RetainFor, "approved: with a floor of "+retention.ISO(*w.Floor)))
	}
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
		} else if ok.bound != nil {
			allowed, named = ok.bound, true
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
	bound   *v1alpha1.Period // of any tenant that is not named
	tenants map[string]*v1alpha1.ApprovedTenantWindow
	listed  map[string][]*v1alpha1.ApprovedTenantWindow
}

func newApproval(ord *ordering, w *v1alpha1.ApprovedWindow) *approval {
	a := &approval{ord: ord, base: *w.RetainFor, tenants: map[string]*v1alpha1.ApprovedTenantWindow{}, listed: map[string][]*v1alpha1.ApprovedTenantWindow{}}
	if w.AnyTenant != nil {
		a.bound = w.AnyTenant.NotBelow
	}
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
// the window is no shorter than the base, or for a tenant that the approval does not name than what it allows any, all but those that were approved for longer as another's. Otherwise whoever may edit
// a Tenant with a shorter window could write another customer's identifier into it, and have that customer's rows deleted.
func (a *approval) covered(o Override) []string {
	var out []string
	for _, id := range o.ExternalIDs {
		own, ok := false, a.ord.atMost(a.base, o.RetainFor) || a.bound != nil && a.tenants[o.Tenant] == nil && a.ord.atMost(*a.bound, o.RetainFor)
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
	allowed, t, bound := &a.base, a.tenants[o.Tenant], ""
	if t != nil {
		allowed = t.RetainFor
	} else if a.bound != nil {
		allowed, bound = a.bound, "for any tenant not below "
	}
	long := allowed != nil && a.ord.atMost(*allowed, o.RetainFor)
	n := len(o.ExternalIDs) - len(a.covered(o))
	switch said := "approved: " + bound + isoOr(allowed); {
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

// approve gives a deletion the backlog that was approved with it. A backlog was counted for one window, and is good for no other.
func (c *compiler) approve(dataset string, want, allowed *Deletion) *Deletion {
	out := *allowed
	w := windowFor(c.in.Store.Spec.ApprovedPlan, dataset)
	if b := w.Backlog; b != nil && retention.ISO(*w.RetainFor) == retention.ISO(want.RetainFor) {
		out.Backlog = &Backlog{Rows: b.Rows, ApprovedAt: b.ApprovedAt.UTC(), Until: b.Until.UTC()}
	}
	return &out
}

// identity of the database that was approved.
func identity(a *v1alpha1.ApprovedPlan) Database {
	out := Database{SystemIdentifier: a.SystemIdentifier, Name: a.Database, Address: a.Address}
	if a.Seen != nil {
		out.Seen = a.Seen.ApprovedAt.Unix()
	}
	return out
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
