package plan

import (
	"fmt"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// MaxAwaitingApproval is how many deletions that wait for approval a status names; MaxLine is the length of what is
// said of one.
const (
	MaxAwaitingApproval = 64
	MaxLine             = 256
)

// Awaiting are the deletions that wait for approval in words, one line each.
func (r *Result) Awaiting() []string {
	var out []string
	for _, a := range r.AwaitingApproval {
		out = append(out, a.Dataset+": "+a.Message)
	}
	return out
}

// judge says what a deletion would take beyond spec.approvedPlan, one line for each window, and gives the part of it
// that may go: nil where nothing may. No lines: all of it is approved.
func (c *compiler) judge(d v1alpha1.Dataset, want *wanted) (missing []v1alpha1.AwaitedApproval, allowed *wanted) {
	approved := c.in.Store.Spec.ApprovedPlan
	if approved == nil {
		return lines(d.Name, want, "approved: nothing"), nil
	}
	if approved.Database != c.res.Plan.Target.Name() {
		return lines(d.Name, want, fmt.Sprintf("approved: database %s", approved.Database)), nil
	}
	if approved.Tenancy != c.in.Store.Spec.Tenancy {
		return lines(d.Name, want, fmt.Sprintf("approved: tenancy %s", approved.Tenancy)), nil
	}
	w := c.approved(d.Name)
	switch {
	case w == nil || w.base.IsZero():
		return lines(d.Name, want, "approved: nothing"), nil
	case w.PlaceDigest != PlaceOf(&d).Digest(c.res.Plan.declared(d.Name)...):
		return lines(d.Name, want, "approved: the same dataset with another table, other columns or other relations"), nil
	}
	v := c.verdict(w, want)
	enough := !v.stillLacks
	if w.floor != nil && (d.Floor == nil || !c.ord.atMost(*w.floor, calendar.Or(d.Floor.RetainFor))) {
		missing, enough = append(missing, line(d.Name, "", want.RetainFor, "approved: with a floor of "+w.floor.String())), false
	}
	for _, l := range v.lacks {
		missing = append(missing, line(d.Name, l.tenant, l.window, l.approved))
	}
	// In a Dedicated store every row is one tenant's: an approval that names it has been asked already.
	dedicated := c.in.Store.Spec.Tenancy != v1alpha1.TenancyShared && w.tenants[c.in.StoreTenant.Name] != nil
	if !dedicated && !c.ord.atMost(w.base, want.RetainFor) {
		missing, enough = append(missing, line(d.Name, "", want.RetainFor, "approved: "+w.base.String())), false
	}
	if !enough {
		return missing, nil
	}
	part := *want
	part.own = v.allowed
	return missing, &part
}

// verdict is what an approval says of the windows of single tenants. It is the same for all datasets for which the
// same was approved.
type verdict struct {
	lacks      []lacking
	allowed    *sheet
	stillLacks bool // that part of them is not approved either
}

// lacking is a window that was not approved, and what was.
type lacking struct {
	tenant   string
	window   calendar.Window
	approved string
}

func (c *compiler) verdict(w *approval, want *wanted) *verdict {
	var key strings.Builder
	bound := "-"
	if w.bound != nil {
		bound = w.bound.String()
	}
	fmt.Fprintf(&key, "%p %s %s %s\n", want.own, want.RetainFor, w.base, bound)
	for _, t := range w.named {
		fmt.Fprintf(&key, "%s %s %q\n", t.Tenant, t.window, t.ExternalIDs)
	}
	v := c.verdicts[key.String()]
	if v == nil {
		v = &verdict{lacks: w.missing(want), allowed: w.part(want)}
		part := *want
		part.own = v.allowed
		v.stillLacks = len(w.missing(&part)) > 0
		c.verdicts[key.String()] = v
	}
	return v
}

// missing are the windows of single tenants that were not approved. A tenant that is named in the approval needs a
// window at least as long as that, also when it is now under the base.
func (a *approval) missing(want *wanted) []lacking {
	var out []lacking
	for _, t := range a.named {
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

// part is the windows of single tenants, and the identifiers of theirs, that were approved: other rows stay as long
// as was approved for them, and everybody else's go on as before. The rest is for judge.
func (a *approval) part(want *wanted) *sheet {
	out := make([]Override, 0, len(want.own.overrides))
	for _, o := range want.own.overrides {
		allowed, named := a.base, false
		if t := a.tenants[o.Tenant]; t != nil {
			allowed, named = t.window, true
		} else if a.bound != nil {
			allowed, named = *a.bound, true
		}
		switch {
		case a.ord.atMost(allowed, o.RetainFor):
		case !named || !a.ord.atMost(o.RetainFor, allowed) || !a.ord.atMost(allowed, want.RetainFor):
			continue // the base window is for it, if that was approved
		default:
			o.RetainFor = allowed
		}
		// Rows under an identifier that is dropped here go by the base window, as rows of unknown tenants do. No
		// override and no approval that judge lets pass is longer.
		if o.ExternalIDs = a.covered(o); len(o.ExternalIDs) > 0 {
			out = append(out, o)
		}
	}
	return newSheet(out)
}

// approval of one dataset with its windows, by tenant and by what the tenants were called.
type approval struct {
	*v1alpha1.ApprovedWindow
	ord     *ordering
	base    calendar.Window
	floor   *calendar.Window // nil: it was approved without one
	bound   *calendar.Window // of any tenant that is not named; nil: the base
	named   []*approvedTenant
	tenants map[string]*approvedTenant
	listed  map[string][]*approvedTenant
}

// approvedTenant is the window of one tenant that an approval names; the zero window: none of its rows may go.
type approvedTenant struct {
	*v1alpha1.ApprovedTenantWindow
	window calendar.Window
}

// approved is what spec.approvedPlan says of a dataset; nil: nothing.
func (c *compiler) approved(dataset string) *approval {
	w := windowFor(c.in.Store.Spec.ApprovedPlan, dataset)
	if w == nil {
		return nil
	}
	a := &approval{ApprovedWindow: w, ord: c.ord, base: calendar.Or(w.RetainFor), tenants: map[string]*approvedTenant{}, listed: map[string][]*approvedTenant{}}
	if w.Floor != nil {
		a.floor = new(calendar.Or(w.Floor))
	}
	if w.AnyTenant != nil && w.AnyTenant.NotBelow != nil {
		a.bound = new(calendar.Or(w.AnyTenant.NotBelow))
	}
	for i := range w.Tenants {
		t := &approvedTenant{&w.Tenants[i], calendar.Or(w.Tenants[i].RetainFor)}
		a.named = append(a.named, t)
		a.tenants[t.Tenant] = t
		for _, id := range t.ExternalIDs {
			a.listed[id] = append(a.listed[id], t)
		}
	}
	return a
}

// covered are the identifiers of an override that may have its window: those that were approved as this tenant's, and
// where the window is no shorter than the base, or for a tenant that the approval does not name than what it allows
// any, all but those that were approved for longer as another's. Otherwise whoever may edit a Tenant with a shorter
// window could write another customer's identifier into it, and have that customer's rows deleted.
func (a *approval) covered(o Override) []string {
	var out []string
	for _, id := range o.ExternalIDs {
		own, ok := false, a.ord.atMost(a.base, o.RetainFor) || a.bound != nil && a.tenants[o.Tenant] == nil && a.ord.atMost(*a.bound, o.RetainFor)
		for _, t := range a.listed[id] {
			own = own || t.Tenant == o.Tenant
			ok = ok && a.ord.atMost(t.window, o.RetainFor)
		}
		if own || ok {
			out = append(out, id)
		}
	}
	return out
}

// lacks says what of an override was approved when that is not all of it. It counts identifiers and does not repeat
// them.
func (a *approval) lacks(o Override) string {
	allowed, t, bound := a.base, a.tenants[o.Tenant], ""
	if t != nil {
		allowed = t.window
	} else if a.bound != nil {
		allowed, bound = *a.bound, "for any tenant not below "
	}
	long := a.ord.atMost(allowed, o.RetainFor)
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

// approve gives a deletion the backlog that was approved with it. A backlog was counted for one window, and is good
// for no other.
func (c *compiler) approve(dataset string, allowed *wanted) *Deletion {
	out := &Deletion{Policy: allowed.Policy, Rule: allowed.Rule, RetainFor: allowed.RetainFor, Own: c.bound.column(allowed.own)}
	w := windowFor(c.in.Store.Spec.ApprovedPlan, dataset)
	if b := w.Backlog; b != nil && calendar.Or(w.RetainFor) == allowed.RetainFor {
		out.Backlog = &Backlog{Rows: b.Rows, ApprovedAt: b.ApprovedAt.UTC(), Until: b.Until.UTC()}
	}
	return out
}

// identity of the database that was approved.
func identity(a *v1alpha1.ApprovedPlan) Database {
	out := Database{Identity: a.Identity, Name: a.Database, Address: a.Address}
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
func lines(dataset string, want *wanted, approved string) []v1alpha1.AwaitedApproval {
	out := []v1alpha1.AwaitedApproval{line(dataset, "", want.RetainFor, approved)}
	for _, o := range want.own.overrides {
		out = append(out, line(dataset, o.Tenant, o.RetainFor, approved))
	}
	return out
}

func line(dataset, tenant string, window calendar.Window, approved string) v1alpha1.AwaitedApproval {
	rows := "rows"
	if tenant != "" {
		rows = "rows of " + tenant
	}
	s := rows + " older than " + window.String() + " (" + approved + ")"
	if len(s) > MaxLine {
		s = s[:MaxLine]
	}
	return v1alpha1.AwaitedApproval{Dataset: dataset, Message: s}
}

func isoOr(w calendar.Window) string {
	if w.IsZero() {
		return "nothing"
	}
	return w.String()
}
