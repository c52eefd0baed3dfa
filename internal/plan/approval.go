package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// MaxMeasurements is how many measurements a status holds: one for each rule on each dataset.
const MaxMeasurements = 64

// MaxAwaitingApproval is how many lines about missing approval a status holds; MaxLine is the length of one.
const (
	MaxAwaitingApproval = 64
	MaxLine             = 256
)

// judge says what a deletion would take beyond spec.approvedPlan, one line for each window, and gives the part of it that may
// go: nil where nothing may. No lines: all of it is approved.
func (c *compiler) judge(d v1alpha1.Dataset, want *wanted) (missing []string, allowed *wanted) {
	approved := c.in.Store.Spec.ApprovedPlan
	if approved == nil {
		return lines(d.Name, want, "approved: nothing"), nil
	}
	if approved.Database != c.in.Store.Spec.Postgres.Database {
		return lines(d.Name, want, fmt.Sprintf("approved: database %s", approved.Database)), nil
	}
	if approved.Tenancy != c.in.Store.Spec.Tenancy {
		return lines(d.Name, want, fmt.Sprintf("approved: tenancy %s", approved.Tenancy)), nil
	}
	w := windowFor(approved, d.Name)
	switch {
	case w == nil || w.RetainFor == nil:
		return lines(d.Name, want, "approved: nothing"), nil
	case w.Definition != Definition(d.Table, c.res.Plan.declared(d.Name)...):
		return lines(d.Name, want, "approved: the same dataset with another table, other columns or other relations"), nil
	}
	v := c.verdict(w, want)
	enough := !v.stillLacks
	if w.Floor != nil && (d.Floor == nil || d.Floor.RetainFor == nil || !c.ord.atMost(*w.Floor, *d.Floor.RetainFor)) {
		missing, enough = append(missing, line(d.Name, "", want.RetainFor, "approved: with a floor of "+calendar.ISO(*w.Floor))), false
	}
	for _, l := range v.lacks {
		missing = append(missing, line(d.Name, l.tenant, l.window, l.approved))
	}
	// In a Dedicated store every row is one tenant's: an approval that names it has been asked already.
	dedicated := c.in.Store.Spec.Tenancy != v1alpha1.TenancyShared && names(w, c.in.StoreTenant.Name)
	if !dedicated && !c.ord.atMost(*w.RetainFor, want.RetainFor) {
		missing, enough = append(missing, line(d.Name, "", want.RetainFor, "approved: "+calendar.ISO(*w.RetainFor))), false
	}
	if !enough {
		return missing, nil
	}
	part := *want
	part.own = v.allowed
	return missing, &part
}

// verdict is what an approval says of the windows of single tenants. It is the same for all datasets for which the same was approved.
type verdict struct {
	lacks      []lacking
	allowed    *sheet
	stillLacks bool // that part of them is not approved either
}

// lacking is a window that was not approved, and what was.
type lacking struct {
	tenant   string
	window   v1alpha1.Period
	approved string
}

func (c *compiler) verdict(w *v1alpha1.ApprovedWindow, want *wanted) *verdict {
	var key strings.Builder
	fmt.Fprintf(&key, "%p %s %s %s\n", want.own, calendar.ISO(want.RetainFor), calendar.ISO(*w.RetainFor), boundOf(w))
	for _, t := range w.Tenants {
		fmt.Fprintf(&key, "%s %s %q\n", t.Tenant, isoOr(t.RetainFor), t.ExternalIDs)
	}
	v := c.verdicts[key.String()]
	if v == nil {
		ok := newApproval(c.ord, w)
		v = &verdict{lacks: ok.missing(w, want), allowed: ok.part(w, want)}
		part := *want
		part.own = v.allowed
		v.stillLacks = len(ok.missing(w, &part)) > 0
		c.verdicts[key.String()] = v
	}
	return v
}

func boundOf(w *v1alpha1.ApprovedWindow) string {
	if w.AnyTenant == nil {
		return "-"
	}
	return isoOr(w.AnyTenant.NotBelow)
}

func names(w *v1alpha1.ApprovedWindow, tenant string) bool {
	return slices.ContainsFunc(w.Tenants, func(t v1alpha1.ApprovedTenantWindow) bool { return t.Tenant == tenant })
}

// missing are the windows of single tenants that were not approved. A tenant that is named in the approval needs a window at least
// as long as that, also when it is now under the base.
func (a *approval) missing(w *v1alpha1.ApprovedWindow, want *wanted) []lacking {
	var out []lacking
	for _, t := range w.Tenants {
		o := want.own.find(t.Tenant)
		if o == nil {
			o = &Override{Tenant: t.Tenant, RetainFor: want.RetainFor}
		}
		if approved := a.lacks(*o); approved != "" {
			out = append(out, lacking{t.Tenant, o.RetainFor, approved})
		}
	}
	for _, o := range want.own.overrides {
		if a.tenants[o.Tenant] != nil {
			continue
		}
		if approved := a.lacks(o); approved != "" {
			out = append(out, lacking{o.Tenant, o.RetainFor, approved})
		}
	}
	return out
}

// part is the windows of single tenants, and the identifiers of theirs, that were approved: other rows stay as long as was approved
// for them, and everybody else's go on as before. The rest is for judge.
func (a *approval) part(w *v1alpha1.ApprovedWindow, want *wanted) *sheet {
	out := make([]Override, 0, len(want.own.overrides))
	for _, o := range want.own.overrides {
		allowed, named := w.RetainFor, false
		if t := a.tenants[o.Tenant]; t != nil {
			allowed, named = t.RetainFor, true
		} else if a.bound != nil {
			allowed, named = a.bound, true
		}
		switch {
		case allowed == nil:
			continue
		case a.ord.atMost(*allowed, o.RetainFor):
		case !named || !a.ord.atMost(o.RetainFor, *allowed) || !a.ord.atMost(*allowed, want.RetainFor):
			continue // the base window is for it, if that was approved
		default:
			o.RetainFor = *allowed
		}
		// Rows under an identifier that is dropped here go by the base window, as rows of unknown tenants do. No override
		// and no approval that judge lets pass is longer.
		if o.ExternalIDs = a.covered(o); len(o.ExternalIDs) > 0 {
			out = append(out, o)
		}
	}
	return newSheet(out)
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
	switch {
	case n > 0 && (long || t != nil):
		return fmt.Sprintf("approved: %s%s, but not for %d of its %d externalIDs", bound, isoOr(allowed), n, len(o.ExternalIDs))
	case !long:
		return "approved: " + bound + isoOr(allowed)
	default:
		return ""
	}
}

// approve gives a deletion the backlog that was approved with it. A backlog was counted for one window, and is good for no other.
func (c *compiler) approve(dataset string, allowed *wanted) *Deletion {
	out := &Deletion{Policy: allowed.Policy, Rule: allowed.Rule, RetainFor: allowed.RetainFor, Own: c.bound.column(allowed.own)}
	w := windowFor(c.in.Store.Spec.ApprovedPlan, dataset)
	if b := w.Backlog; b != nil && calendar.ISO(*w.RetainFor) == calendar.ISO(allowed.RetainFor) {
		out.Backlog = &Backlog{Rows: b.Rows, ApprovedAt: b.ApprovedAt.UTC(), Until: b.Until.UTC()}
	}
	return out
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
func lines(dataset string, want *wanted, approved string) []string {
	out := []string{line(dataset, "", want.RetainFor, approved)}
	for _, o := range want.own.overrides {
		out = append(out, line(dataset, o.Tenant, o.RetainFor, approved))
	}
	return out
}

func line(dataset, tenant string, window v1alpha1.Period, approved string) string {
	rows := "rows"
	if tenant != "" {
		rows = "rows of " + tenant
	}
	s := dataset + ": " + rows + " older than " + calendar.ISO(window) + " (" + approved + ")"
	if len(s) > MaxLine {
		s = s[:MaxLine]
	}
	return s
}

func isoOr(p *v1alpha1.Period) string {
	if p == nil {
		return "nothing"
	}
	return calendar.ISO(*p)
}
