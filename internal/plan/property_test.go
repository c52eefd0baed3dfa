package plan

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/retention"
)

// drawPeriod draws from few values, so that equal, ordered and incomparable windows all come up.
func drawPeriod(t *rapid.T, label string) *v1alpha1.Period {
	return rapid.SampledFrom([]*v1alpha1.Period{days(1), days(28), days(30), days(31), days(90), days(366), months(1), months(3), months(12), years(1), years(7)}).Draw(t, label)
}

func drawOverrides(t *rapid.T, label string) []v1alpha1.TenantOverride {
	var out []v1alpha1.TenantOverride
	for _, n := range []string{"acme", "globex", "initech"} {
		if rapid.Bool().Draw(t, label+n) {
			out = append(out, override(n, drawPeriod(t, label+n+"-window")))
		}
	}
	return out
}

// drawInput draws a Shared store with up to three policies and a random approval.
func drawInput(t *rapid.T) Input {
	var policies []v1alpha1.DataRetentionPolicy
	for i, n := 0, rapid.IntRange(1, 3).Draw(t, "policies"); i < n; i++ {
		name := string(rune('a' + i))
		mode := rapid.SampledFrom([]v1alpha1.PolicyMode{v1alpha1.PolicyEnforce, v1alpha1.PolicyEnforce, v1alpha1.PolicyAudit}).Draw(t, "mode")
		policies = append(policies, makePolicy(name, mode, makeRule("Conversations", drawPeriod(t, name), drawOverrides(t, name)...)))
	}
	in := shared(policies...)
	in.Tenants = append(in.Tenants, makeTenant("initech", "i-1"))
	approved := &v1alpha1.ApprovedPlan{SystemIdentifier: "7300", Database: "chat", Tenancy: v1alpha1.TenancyShared}
	w := v1alpha1.ApprovedWindow{Dataset: "messages", Definition: Definition(in.Store.Spec.Datasets[1].Table), RetainFor: drawPeriod(t, "approved")}
	for _, o := range drawOverrides(t, "approved-") {
		w.Tenants = append(w.Tenants, v1alpha1.ApprovedTenantWindow(o))
	}
	approved.Windows = []v1alpha1.ApprovedWindow{w}
	if rapid.IntRange(0, 4).Draw(t, "unapproved") > 0 {
		in.Store.Spec.ApprovedPlan = approved
	}
	return in
}

// deletion of the dataset messages, nil when it is only measured.
func deletion(in Input) *Deletion {
	for _, d := range Compile(in).Plan.Datasets {
		if d.Name == "messages" {
			return d.Delete
		}
	}
	return nil
}

// windowUnder is the window of one tenant; ok is false when none of its rows may go.
func windowUnder(d *Deletion, tenant string) (v1alpha1.Period, bool) {
	if d == nil {
		return v1alpha1.Period{}, false
	}
	return Rule{RetainFor: d.RetainFor, Overrides: d.Overrides}.windowOf(tenant), true
}

var everybody = []string{"acme", "globex", "initech", "somebody unknown"}

// assertNoEarlier fails when a row of the tenant could go earlier under b than under a. It asks the calendar, on dates
// where windows differ most, not the comparison that the plan itself uses.
func assertNoEarlier(t *rapid.T, a, b *Deletion, tenant string) {
	t.Helper()
	wb, deletes := windowUnder(b, tenant)
	if !deletes {
		return
	}
	wa, deleted := windowUnder(a, tenant)
	if !deleted {
		t.Fatalf("rows of %s may now go after %s, and might not before", tenant, retention.ISO(wb))
	}
	for _, age := range ages {
		if retention.AddClamp(age, wb).Before(retention.AddClamp(age, wa)) {
			t.Fatalf("a row of %s from %s may go after %s, before it was after %s", tenant, age, retention.ISO(wb), retention.ISO(wa))
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
		for _, name := range everybody[1:] {
			assertNoEarlier(t, before, after, name)
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
		for _, name := range everybody {
			assertNoEarlier(t, before, after, name)
			w, deletes := windowUnder(after, name)
			if deletes {
				seen++
			}
			for _, age := range ages {
				if deletes && retention.AddClamp(age, w).Before(retention.AddClamp(age, *floor)) {
					t.Fatalf("a row of %s from %s goes under the floor %s", name, age, retention.ISO(*floor))
				}
			}
		}
	})
	if seen == 0 {
		t.Error("no drawn store deleted anything: the property was not put to the test")
	}
}

func TestNothingGoesThatWasNotApproved(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		got := deletion(in)
		approved := in.Store.Spec.ApprovedPlan
		if approved == nil {
			if got != nil {
				t.Fatal("deletes without approval")
			}
			return
		}
		allowed := &Deletion{RetainFor: *approved.Windows[0].RetainFor}
		for _, w := range approved.Windows[0].Tenants {
			allowed.Overrides = append(allowed.Overrides, Override{Tenant: w.Tenant, RetainFor: *w.RetainFor})
		}
		for _, name := range everybody {
			assertNoEarlier(t, allowed, got, name)
		}
		if got != nil {
			seen++
		}
	})
	if seen == 0 {
		t.Error("no drawn store deleted anything: the property was not put to the test")
	}
}

func TestWhatIsProposedIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.Store.Spec.ApprovedPlan = nil
		r := Compile(in)
		status := v1alpha1.DataStoreStatus{MeasuredAt: &metav1.Time{Time: day0}, Plan: v1alpha1.PlanStatus{SystemIdentifier: "7300"}}
		for _, d := range r.Plan.Datasets {
			for _, rule := range d.Rules {
				status.Rules = append(status.Rules, v1alpha1.RuleMeasurement{Dataset: d.Name, Policy: rule.Policy, Rule: rule.Rule})
			}
		}
		a, err := Propose(r, status, day0)
		if err != nil {
			if len(r.AwaitingApproval) > 0 {
				t.Fatalf("something waits for approval, and none can be proposed: %v", err)
			}
			return
		}
		in.Store.Spec.ApprovedPlan = &a
		if again := Compile(in); len(again.AwaitingApproval) > 0 {
			t.Fatalf("after the proposed approval still waiting: %v", again.AwaitingApproval)
		}
	})
}
