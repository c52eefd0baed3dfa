package plan

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// drawPeriod draws from few values, so that equal, ordered and incomparable windows all come up.
func drawPeriod(t *rapid.T, label string) *v1alpha1.Period {
	return rapid.SampledFrom([]*v1alpha1.Period{days(1), days(28), days(30), days(31), days(90), days(366), months(1), months(3), months(12), years(1), years(7)}).Draw(t, label)
}

func drawOverrides(t *rapid.T, label string) []v1alpha1.TenantOverride {
	var out []v1alpha1.TenantOverride
	for _, n := range tenantNames {
		if rapid.Bool().Draw(t, label+n) {
			out = append(out, override(n, drawPeriod(t, label+n+"-window")))
		}
	}
	return out
}

// identifiers that tenants have, had or never had, and one of no tenant that anybody knows.
var identifiers = []string{"a-1", "a-2", "g-1", "i-1", "n-1", "unknown"}

var tenantNames = []string{"acme", "globex", "initech"}

// drawTenants gives each identifier to one tenant, to two, or to nobody; some stay with whom they were before.
func drawTenants(t *rapid.T, label string, before []v1alpha1.Tenant) []v1alpha1.Tenant {
	ids := map[string][]string{}
	for _, id := range identifiers[:len(identifiers)-1] {
		if before != nil && rapid.Bool().Draw(t, label+id+" stays") {
			for _, owner := range owners(before, id) {
				ids[owner] = append(ids[owner], id)
			}
			continue
		}
		for _, owner := range rapid.SampledFrom([][]string{{"acme"}, {"globex"}, {"initech"}, {"acme"}, {"globex"}, {"acme", "initech"}, nil}).Draw(t, label+id) {
			ids[owner] = append(ids[owner], id)
		}
	}
	var out []v1alpha1.Tenant
	for _, name := range tenantNames {
		out = append(out, makeTenant(name, ids[name]...))
	}
	return out
}

// drawInput draws a Shared store with up to three policies and a random approval, given when the tenants were perhaps
// called otherwise than now.
func drawInput(t *rapid.T) Input {
	var policies []v1alpha1.DataRetentionPolicy
	for i, n := 0, rapid.IntRange(1, 3).Draw(t, "policies"); i < n; i++ {
		name := string(rune('a' + i))
		mode := rapid.SampledFrom([]v1alpha1.PolicyMode{v1alpha1.PolicyEnforce, v1alpha1.PolicyEnforce, v1alpha1.PolicyAudit}).Draw(t, "mode")
		policies = append(policies, makePolicy(name, mode, makeRule("Conversations", drawPeriod(t, name), drawOverrides(t, name)...)))
	}
	in := shared(policies...)
	in.Tenants = drawTenants(t, "then ", nil)
	switch rapid.IntRange(0, 4).Draw(t, "approval") {
	case 0:
	case 1, 2: // what a person agreed to, whatever the rules are now
		w := v1alpha1.ApprovedWindow{Dataset: "messages", PlaceDigest: PlaceOf(&in.Store.Spec.Datasets[1]).Digest(), RetainFor: drawPeriod(t, "approved")}
		for _, o := range drawOverrides(t, "approved-") {
			a := v1alpha1.ApprovedTenantWindow{Tenant: o.Tenant, RetainFor: o.RetainFor}
			for _, id := range in.Tenants[slices.Index(tenantNames, o.Tenant)].Spec.ExternalIDs {
				a.ExternalIDs = append(a.ExternalIDs, id.Value)
			}
			w.Tenants = append(w.Tenants, a)
		}
		if rapid.IntRange(0, 2).Draw(t, "bound") > 0 {
			w.AnyTenant = &v1alpha1.ApprovedBound{NotBelow: drawPeriod(t, "approved bound")}
		}
		in.Store.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Tenancy: v1alpha1.TenancyShared,
			Windows: []v1alpha1.ApprovedWindow{w}}
	default: // the rules as they are
		propose(t, &in)
	}
	in.Tenants = drawTenants(t, "now ", in.Tenants)
	return in
}

// goes is what may go from a dataset.
type goes struct {
	*Deletion
	overrides []Override
}

// deletion of the dataset messages, nil when it is only measured.
func deletion(in Input) *goes {
	p := Compile(in).Plan
	for _, d := range p.Datasets {
		if d.Name == "messages" && d.Delete != nil {
			return &goes{d.Delete, p.Overrides(d.Delete.Own)}
		}
	}
	return nil
}

// windowUnder is the window of the rows under one identifier, as the store's statements choose it: by the identifier
// alone. ok is false when none of them may go.
func windowUnder(d *goes, id string) (calendar.Window, bool) {
	if d == nil {
		return calendar.Window{}, false
	}
	for _, o := range d.overrides {
		if slices.Contains(o.ExternalIDs, id) {
			return o.RetainFor, true
		}
	}
	return d.RetainFor, true
}

// assertNoEarlier fails when a row under the identifier could go earlier under b than under a.
func assertNoEarlier(t *rapid.T, a, b *goes, id string) {
	t.Helper()
	wb, deletes := windowUnder(b, id)
	if !deletes {
		return
	}
	wa, deleted := windowUnder(a, id)
	if !deleted {
		t.Fatalf("rows of %s may now go after %s, and might not before", id, wb)
	}
	assertNotShorter(t, id, wa, wb)
}

// assertNotShorter asks the calendar, on dates where windows differ most, not the comparison that the plan itself uses.
func assertNotShorter(t *rapid.T, id string, before, after calendar.Window) {
	t.Helper()
	for _, age := range ages {
		if after.AddClamp(age).Before(before.AddClamp(age)) {
			t.Fatalf("a row of %s from %s may go after %s, before it was after %s", id, age, after, before)
		}
	}
}

var ages = func() []time.Time {
	var out []time.Time
	for d := time.Date(2023, 11, 1, 23, 0, 0, 0, time.UTC); d.Year() < 2025; d = d.AddDate(0, 0, 1) {
		out = append(out, d)
	}
	return out
}()

func TestAnOverrideTouchesNobodyElse(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		before := deletion(in)
		i := slices.IndexFunc(in.Tenants, func(x v1alpha1.Tenant) bool { return x.Name == "acme" })
		in.Tenants[i].Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: drawPeriod(t, "own")}}
		after := deletion(in)
		for _, id := range identifiers {
			if owner(in, id) != "acme" {
				assertNoEarlier(t, before, after, id)
			}
		}
		if after != nil {
			seen++
		}
	})
	if seen == 0 {
		t.Error("no drawn store deleted anything: the property was not put to the test")
	}
}

func TestAFloorNeverMakesMoreDeletable(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		before := deletion(in)
		floor := drawPeriod(t, "floor")
		in.Store.Spec.Datasets[1].Floor = &v1alpha1.Floor{RetainFor: floor, LegalBasis: "law"}
		after := deletion(in)
		for _, id := range identifiers {
			assertNoEarlier(t, before, after, id)
			w, deletes := windowUnder(after, id)
			if deletes {
				seen++
			}
			for _, age := range ages {
				if deletes && w.AddClamp(age).Before(calendar.Or(floor).AddClamp(age)) {
					t.Fatalf("a row of %s from %s goes under the floor %s", id, age, calendar.Or(floor))
				}
			}
		}
	})
	if seen == 0 {
		t.Error("no drawn store deleted anything: the property was not put to the test")
	}
}

// owners are the tenants that claim an identifier.
func owners(tenants []v1alpha1.Tenant, id string) []string {
	var out []string
	for _, x := range tenants {
		if slices.ContainsFunc(x.Spec.ExternalIDs, func(e v1alpha1.ExternalID) bool { return e.Value == id }) {
			out = append(out, x.Name)
		}
	}
	return out
}

// owner of an identifier, empty when nobody or more than one tenant claims it.
func owner(in Input, id string) string {
	if all := owners(in.Tenants, id); len(all) == 1 {
		return all[0]
	}
	return ""
}

// TestNothingGoesThatWasNotApproved holds for each identifier, whoever has it now: it goes by the window of a tenant
// only where it was approved as that tenant's, and else after the one for everybody, and not before any that it was
// approved for.
func TestNothingGoesThatWasNotApproved(t *testing.T) {
	seen, own, moved, bound := 0, 0, 0, 0
	once := func(t *rapid.T) {
		in := drawInput(t)
		got := deletion(in)
		approved := in.Store.Spec.ApprovedPlan
		if got == nil {
			return
		}
		if approved == nil {
			t.Fatal("deletes without approval")
		}
		seen++
		for _, id := range identifiers {
			w, _ := windowUnder(got, id)
			asOwners, asOthers := false, false
			for _, a := range approved.Windows[0].Tenants {
				if !slices.Contains(a.ExternalIDs, id) {
					continue
				}
				if a.Tenant == owner(in, id) {
					asOwners = true
					assertNotShorter(t, id, calendar.Or(a.RetainFor), w)
				} else {
					asOthers = true
				}
			}
			if asOwners {
				own++
				continue
			}
			if b := approved.Windows[0].AnyTenant; b != nil && owner(in, id) != "" && !named(approved, owner(in, id)) && !calendar.Or(approved.Windows[0].RetainFor).AtMost(w) {
				bound++
				assertNotShorter(t, id, calendar.Or(b.NotBelow), w)
			} else {
				assertNotShorter(t, id, calendar.Or(approved.Windows[0].RetainFor), w)
			}
			for _, a := range approved.Windows[0].Tenants {
				if slices.Contains(a.ExternalIDs, id) {
					assertNotShorter(t, id, calendar.Or(a.RetainFor), w)
				}
			}
			if asOthers {
				moved++
			}
		}
	}
	for tries := 0; tries < 20 && !t.Failed() && (seen == 0 || own == 0 || moved == 0 || bound == 0); tries++ {
		rapid.Check(t, once)
	}
	if seen == 0 || own == 0 || moved == 0 || bound == 0 {
		t.Errorf("%d drawn stores deleted anything, %d identifiers by a tenant's own window, %d that had another's, %d by a bound: the property was not put to the test", seen, own, moved, bound)
	}
}

func named(a *v1alpha1.ApprovedPlan, tenant string) bool {
	return slices.ContainsFunc(a.Windows[0].Tenants, func(t v1alpha1.ApprovedTenantWindow) bool { return t.Tenant == tenant })
}

// TestMovingAnIdentifierMakesNothingMoreDeletable: under one approval that names tenants and no bound, whoever may
// edit Tenants, and nothing else, brings no row under a shorter window than the one for everybody that was not under
// that already when it was approved.
func TestMovingAnIdentifierMakesNothingMoreDeletable(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		if !proposeBy(t, &in, false) {
			return
		}
		before := deletion(in)
		in.Tenants = drawTenants(t, "later ", in.Tenants)
		after := deletion(in)
		if after == nil {
			return
		}
		seen++
		for _, id := range identifiers {
			assertNoEarlier(t, before, after, id)
		}
	})
	if seen == 0 {
		t.Error("no drawn store deleted anything: the property was not put to the test")
	}
}

// propose gives a store the approval that Propose writes; false where there is nothing to approve.
func propose(t *rapid.T, in *Input) bool { return proposeBy(t, in, rapid.Bool().Draw(t, "by bound")) }

func proposeBy(t *rapid.T, in *Input, bound bool) bool {
	in.Store.Spec.ApprovedPlan = nil
	r := Compile(*in)
	asked := anyAge
	if bound {
		asked.NotBelow = new(calendar.Or(drawPeriod(t, "not below")))
	}
	p, err := Propose(r, measured(t, *in, 0), asked, day0)
	if err != nil {
		if len(r.AwaitingApproval) > 0 {
			t.Fatalf("something waits for approval, and none can be proposed: %v", err)
		}
		return false
	}
	in.Store.Spec.ApprovedPlan = &p.Plan
	return true
}

func TestWhatIsProposedIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		if !propose(t, &in) {
			return
		}
		if again := Compile(in); len(again.AwaitingApproval) > 0 {
			t.Fatalf("after the proposed approval still waiting: %v", again.AwaitingApproval)
		}
	})
}

// TestTakingIdentifiersAwayNeedsNoApproval: nor does a tenant that goes away.
func TestTakingIdentifiersAwayNeedsNoApproval(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		if !propose(t, &in) {
			return
		}
		in.Tenants = slices.Clone(in.Tenants)
		i := rapid.IntRange(0, len(in.Tenants)-1).Draw(t, "who")
		// What two claimed may come to be one's when the other lets go of it: that is giving, not taking.
		for _, id := range in.Tenants[i].Spec.ExternalIDs {
			if owner(in, id.Value) == "" {
				return
			}
		}
		if rapid.Bool().Draw(t, "all of it") {
			in.Tenants = slices.Delete(in.Tenants, i, i+1)
		} else if ids := in.Tenants[i].Spec.ExternalIDs; len(ids) > 0 {
			in.Tenants[i].Spec.ExternalIDs = ids[1:]
		}
		if again := Compile(in); len(again.AwaitingApproval) > 0 {
			t.Fatalf("waiting: %v", again.AwaitingApproval)
		}
		seen++
	})
	if seen == 0 {
		t.Error("nothing was taken away from any drawn tenant: the property was not put to the test")
	}
}
