package plan

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// naive works out the window of one tenant under one rule from the objects alone: the shorter of the rule's own and
// of those that the rule and the Tenant give it, as far as they can be proved to be shorter.
func naive(t v1alpha1.Tenant, r v1alpha1.RetentionRule) calendar.Window {
	base := calendar.Or(r.RetainFor)
	var offered []calendar.Window
	for _, o := range r.TenantOverrides {
		if o.Tenant == t.Name && calendar.Or(o.RetainFor).AtMost(base) {
			offered = append(offered, calendar.Or(o.RetainFor))
		}
	}
	for _, o := range t.Spec.RetentionOverrides {
		if o.DataClass == r.DataClass && calendar.Or(o.RetainFor).AtMost(base) {
			offered = append(offered, calendar.Or(o.RetainFor))
		}
	}
	return naiveShortest(offered, base)
}

// naiveShortest of windows; otherwise where there are none, or where they cannot be ordered.
func naiveShortest(windows []calendar.Window, otherwise calendar.Window) calendar.Window {
	for _, w := range windows {
		if !slices.ContainsFunc(windows, func(v calendar.Window) bool { return !w.AtMost(v) }) {
			return w
		}
	}
	return otherwise
}

// alike are windows of one length, such as twelve months and a year.
func alike(a, b calendar.Window) bool { return a.AtMost(b) && b.AtMost(a) }

// under is the window of an identifier by a column of a plan.
func under(p Plan, column int, id string, base calendar.Window) calendar.Window {
	for _, o := range p.Overrides(column) {
		if slices.Contains(o.ExternalIDs, id) {
			return o.RetainFor
		}
	}
	return base
}

// TestTheTablesSayWhatEachTenantGets: whoever reads a plan by its tables finds, for each identifier, dataset and
// rule, the window that the objects give it, and the same for what is deleted where all of it was approved; also
// after the plan was written and read.
func TestTheTablesSayWhatEachTenantGets(t *testing.T) {
	own, deleted := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.Store = in.Store.DeepCopy()
		for i := range rapid.IntRange(0, 2).Draw(t, "more datasets") {
			d := in.Store.Spec.Datasets[1]
			d.Name, d.Table.Name = fmt.Sprintf("messages-%d", i), v1alpha1.Identifier(fmt.Sprintf("messages_%d", i))
			in.Store.Spec.Datasets = append(in.Store.Spec.Datasets, d)
		}
		for i := range in.Policies {
			in.Policies[i].Spec.Rules = append(in.Policies[i].Spec.Rules, makeRule("Contacts", drawPeriod(t, "contacts"), drawOverrides(t, "contacts ")...))
		}
		for i := range in.Tenants {
			for _, class := range []v1alpha1.DataClass{"Conversations", "Contacts"} {
				if rapid.Bool().Draw(t, in.Tenants[i].Name+string(class)) {
					in.Tenants[i].Spec.RetentionOverrides = append(in.Tenants[i].Spec.RetentionOverrides, v1alpha1.RetentionOverride{DataClass: class, RetainFor: drawPeriod(t, "own")})
				}
			}
		}
		all := proposeBy(t, &in, false)
		compiled := Compile(in)
		made := compiled.Plan
		b, err := Encode(made)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, p, byText); diff != "" {
			t.Fatalf("a plan does not come back as it went (-want +got):\n%s", diff)
		}
		tenants := map[string]v1alpha1.Tenant{}
		for _, x := range in.Tenants {
			tenants[x.Name] = x
		}
		for _, d := range p.Datasets {
			for _, id := range identifiers {
				whose, known := tenants[owner(in, id)]
				if known != slices.Contains(compiled.Known, id) {
					t.Fatalf("identifier %s is known: %t", id, !known)
				}
				var enforcing []calendar.Window
				for _, r := range d.Rules {
					policy := in.Policies[slices.IndexFunc(in.Policies, func(x v1alpha1.DataRetentionPolicy) bool { return x.Name == r.Policy })]
					rule := policy.Spec.Rules[slices.IndexFunc(policy.Spec.Rules, func(x v1alpha1.RetentionRule) bool { return x.Name == r.Rule })]
					want := calendar.Or(rule.RetainFor)
					if known {
						want = naive(whose, rule)
					}
					got := under(p, r.Own, id, r.RetainFor)
					if !alike(got, want) {
						t.Fatalf("%s, %s/%s: rows of %s go after %s, want %s", d.Name, r.Policy, r.Rule, id, got, want)
					}
					if !alike(want, r.RetainFor) {
						own++
					}
					if r.Mode == v1alpha1.PolicyEnforce {
						enforcing = append(enforcing, want)
					}
				}
				if all && d.Delete != nil {
					want := naiveShortest(enforcing, d.Delete.RetainFor)
					if got := under(p, d.Delete.Own, id, d.Delete.RetainFor); !alike(got, want) {
						t.Fatalf("%s: rows of %s are deleted after %s, want %s", d.Name, id, got, want)
					}
					deleted++
				}
			}
		}
	})
	if own == 0 || deleted == 0 {
		t.Errorf("%d windows of single tenants, %d of deletions: the property was not put to the test", own, deleted)
	}
}

// Each identifier stands in a plan once, however many datasets and rules there are, and so does each set of windows.
func TestNothingStandsTwice(t *testing.T) {
	in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)), override("globex", days(30))), makeRule("Contacts", days(90))),
		makePolicy("b", v1alpha1.PolicyEnforce, makeRule("Conversations", days(60))))
	approveAll(t, in)
	p := Compile(in).Plan
	want := []Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"a-1", "a-2"}, "globex": {"g-1"}}}}
	if diff := cmp.Diff(want, p.Classes); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
	if len(p.Periods) != 1 {
		t.Errorf("periods %v", p.Periods)
	}
	for _, d := range p.Datasets {
		if d.Name == "messages" && (d.Rules[0].Own != 1 || d.Rules[1].Own != 0 || d.Delete.Own != 1) || d.Name == "contacts" && d.Rules[0].Own != 0 {
			t.Errorf("%s: %+v", d.Name, d)
		}
	}
}

// A customer that comes, goes or is called otherwise changes no plan while it has no window of its own. One that
// claims what another has does.
func TestANewTenantChangesNoPlan(t *testing.T) {
	in := shared(makePolicy("p", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)))))
	approveAll(t, in)
	before := Compile(in)
	for name, tc := range map[string]struct {
		tenants []v1alpha1.Tenant
		changes bool
	}{
		"one more":                         {append(slices.Clone(in.Tenants), makeTenant("initech", "i-1")), false},
		"one less":                         {in.Tenants[1:], false},
		"another name":                     {[]v1alpha1.Tenant{makeTenant("globex", "g-2"), in.Tenants[1], in.Tenants[2]}, false},
		"one that claims a short window's": {append(slices.Clone(in.Tenants), makeTenant("initech", "a-1")), true},
		"one that claims another's":        {append(slices.Clone(in.Tenants), makeTenant("initech", "g-1")), true},
		"one with a window less":           {[]v1alpha1.Tenant{in.Tenants[0], in.Tenants[2]}, true},
	} {
		changed := in
		changed.Tenants = tc.tenants
		after := Compile(changed)
		one, err := Hash(before.Plan)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := Hash(after.Plan); err != nil || (one != two) != tc.changes {
			t.Errorf("%s: another plan: %t, %v", name, one != two, err)
		}
		if DigestOf(before.Known) == DigestOf(after.Known) {
			t.Errorf("%s: the same tenants are known", name)
		}
		if tc.changes && Covers(after.Plan, before.Plan) {
			t.Errorf("%s: a sweep goes on", name)
		}
	}
}

func TestDigestsOfNames(t *testing.T) {
	seen := map[string][]string{}
	for _, known := range [][]string{nil, {""}, {"a"}, {"a", "b"}, {"ab"}, {"a\nb"}, {"a", ""}, {"1\na"}} {
		d := DigestOf(known)
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", other, known)
		}
		seen[d] = known
	}
}
