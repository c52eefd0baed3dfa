package plan

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

var update = flag.Bool("update", false, "write golden files")

var day0 = time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC)

func days(n int32) *v1alpha1.Period   { return &v1alpha1.Period{Days: &n} }
func months(n int32) *v1alpha1.Period { return &v1alpha1.Period{Months: &n} }
func years(n int32) *v1alpha1.Period  { return &v1alpha1.Period{Years: &n} }

// makeStore is a chat product's database with three tables.
func makeStore(tenancy v1alpha1.StoreTenancy) *v1alpha1.DataStore {
	table := func(name string) v1alpha1.Table {
		t := v1alpha1.Table{
			Schema: "public", Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz},
		}
		if tenancy == v1alpha1.TenancyShared {
			t.TenantColumn = "account_id"
		}
		return t
	}
	s := &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "platform", Name: "chat", UID: "5f2c", Labels: map[string]string{"data": "chat"}},
		Spec: v1alpha1.DataStoreSpec{
			Type: v1alpha1.StorePostgres, Tenancy: tenancy,
			Postgres: &v1alpha1.PostgresStore{Host: "db.example", Port: 5432, Database: "chat", Username: "lethe", CABundle: "PEM", Password: "seal.v1.x"},
			Datasets: []v1alpha1.Dataset{
				{Name: "payments", DataClass: "Payments", Table: table("payments"), Floor: &v1alpha1.Floor{RetainFor: years(7), LegalBasis: "bookkeeping"}},
				{Name: "messages", DataClass: "Conversations", Table: table("messages")},
				{Name: "contacts", DataClass: "Contacts", Table: table("contacts")},
			},
			Exempt: []v1alpha1.Exemption{{Table: "schema_migrations", Reason: "no data"}, {Schema: "public", Table: "plans", Reason: "prices"}},
			Brake:  v1alpha1.Brake{MaxPercentOfTable: 20},
		},
	}
	if tenancy == v1alpha1.TenancyShared {
		s.Spec.TenantIDType = "AccountID"
	}
	return s
}

func makeTenant(name string, ids ...string) v1alpha1.Tenant {
	t := v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, id := range ids {
		t.Spec.ExternalIDs = append(t.Spec.ExternalIDs, v1alpha1.ExternalID{Type: "AccountID", Value: id})
	}
	return t
}

func makePolicy(name string, mode v1alpha1.PolicyMode, rules ...v1alpha1.RetentionRule) v1alpha1.DataRetentionPolicy {
	return v1alpha1.DataRetentionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"data": "chat"}}, Mode: mode, Rules: rules,
		},
	}
}

func makeRule(class string, window *v1alpha1.Period, overrides ...v1alpha1.TenantOverride) v1alpha1.RetentionRule {
	hours := int32(48)
	return v1alpha1.RetentionRule{
		Name: strings.ToLower(class), DataClass: v1alpha1.DataClass(class), Basis: v1alpha1.BasisRecordAge, RetainFor: window,
		DeleteWithin: &v1alpha1.Slack{Hours: &hours}, Action: v1alpha1.ActionDelete, TenantOverrides: overrides,
	}
}

func override(tenant string, window *v1alpha1.Period) v1alpha1.TenantOverride {
	return v1alpha1.TenantOverride{Tenant: tenant, RetainFor: window}
}

// approveAll gives a store the approval that Propose writes for its present rules.
func approveAll(t *testing.T, in Input) {
	t.Helper()
	p, err := Propose(Compile(in), measured(t, in, 300), anyAge, in.Now)
	if err != nil {
		t.Fatalf("Propose: %v", err)
	}
	in.Store.Spec.ApprovedPlan = &p.Plan
}

func shared(policies ...v1alpha1.DataRetentionPolicy) Input {
	platform := makeTenant("platform")
	platform.Spec.Class = v1alpha1.TenantPlatform
	return Input{
		Store: makeStore(v1alpha1.TenancyShared), StoreTenant: &platform, Policies: policies, Now: day0,
		Tenants: []v1alpha1.Tenant{makeTenant("globex", "g-1"), makeTenant("acme", "a-2", "a-1"), platform},
	}
}

func dedicated(policies ...v1alpha1.DataRetentionPolicy) Input {
	acme := makeTenant("acme")
	return Input{Store: makeStore(v1alpha1.TenancyDedicated), StoreTenant: &acme, Policies: policies, Now: day0}
}

func TestGolden(t *testing.T) {
	conversations := makePolicy("privacy", v1alpha1.PolicyEnforce,
		makeRule("Conversations", days(90), override("acme", days(30))), makeRule("Payments", years(7)), makeRule("Contacts", months(24)))
	approved := shared(conversations)
	approveAll(t, approved)
	for name, in := range map[string]Input{"shared-approved": approved, "shared-waiting": shared(conversations), "dedicated-audit": dedicated(makePolicy("privacy", v1alpha1.PolicyAudit, makeRule("Conversations", days(90))))} {
		t.Run(name, func(t *testing.T) {
			r := Compile(in)
			b, err := Encode(r.Plan)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".golden.json")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(b)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			back, err := Decode(b)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if diff := cmp.Diff(r.Plan, back, byText); diff != "" {
				t.Errorf("a plan does not come back as it went (-want +got):\n%s", diff)
			}
		})
	}
}

// outcome is what a table below looks at.
type outcome struct {
	Deletes   []string // dataset window[ tenant=window[ of some identifiers only]]…
	Problems  []string // beginnings of messages, "…" for the rest
	Awaiting  []string
	Waiting   bool
	Unidentif []string
}

func look(r Result) outcome {
	out := outcome{Awaiting: r.Awaiting(), Waiting: r.Waiting, Unidentif: r.Unidentified}
	for _, d := range r.Plan.Datasets {
		if d.Delete != nil {
			s := d.Name + " " + iso(d.Delete.RetainFor)
			known := map[string]int{}
			for _, c := range r.Plan.Classes {
				for name, ids := range c.Tenants {
					known[name] += len(ids)
				}
			}
			for _, o := range r.Plan.Overrides(d.Delete.Own) {
				s += " " + o.Tenant + "=" + iso(o.RetainFor)
				if known[o.Tenant] != len(o.ExternalIDs) {
					s += " of " + strings.Join(o.ExternalIDs, "+")
				}
			}
			out.Deletes = append(out.Deletes, s)
		}
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, p.Message)
	}
	return out
}

// byText compares windows, which keep what they are to themselves.
var byText = cmpopts.EquateComparable(calendar.Window{}, calendar.Slack{})

func iso(w calendar.Window) string { return isoOr(w) }

func TestCompile(t *testing.T) {
	const enforce, audit = v1alpha1.PolicyEnforce, v1alpha1.PolicyAudit
	tests := map[string]struct {
		in      Input
		change  func(in *Input) // after the approval of all that in asks for
		approve bool
		want    outcome
	}{
		"nothing is deleted without approval, and the lines say what waits": {
			in: shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			want: outcome{Waiting: true, Awaiting: []string{
				"messages: rows older than P90D (approved: nothing)", "messages: rows of acme older than P30D (approved: nothing)"}},
		},
		"in Audit the same lines are shown, and nothing waits": {
			in:   shared(makePolicy("p", audit, makeRule("Conversations", days(90)))),
			want: outcome{Awaiting: []string{"messages: rows older than P90D (approved: nothing)"}},
		},
		"what was approved is deleted": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			want:    outcome{Deletes: []string{"messages P90D acme=P30D"}},
		},
		"an approval from the Audit holds when the policy is switched to Enforce": {
			in:      shared(makePolicy("p", audit, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Policies[0].Spec.Mode = enforce },
			want:    outcome{Deletes: []string{"messages P90D"}},
		},
		"a longer window needs no new approval": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Policies[0].Spec.Rules[0].RetainFor = months(4) },
			want:    outcome{Deletes: []string{"messages P4M"}},
		},
		"a shorter one does": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Policies[0].Spec.Rules[0].RetainFor = days(60) },
			want:    outcome{Waiting: true, Awaiting: []string{"messages: rows older than P60D (approved: P90D)"}},
		},
		"so does one that is not provably as long": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Policies[0].Spec.Rules[0].RetainFor = months(3) },
			want:    outcome{Waiting: true, Awaiting: []string{"messages: rows older than P3M (approved: P90D)"}},
		},
		"a tenant's shorter window needs approval": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change: func(in *Input) {
				in.Tenants[1].Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
			},
			want: outcome{Deletes: []string{"messages P90D"}, Waiting: true, Awaiting: []string{"messages: rows of acme older than P30D (approved: P90D)"}},
		},
		"until then its rows go after the window that was approved for it": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(60)), override("globex", days(20))))),
			approve: true,
			change: func(in *Input) {
				in.Tenants[1].Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
			},
			want: outcome{Deletes: []string{"messages P90D acme=P60D globex=P20D"}, Waiting: true, Awaiting: []string{"messages: rows of acme older than P30D (approved: P60D)"}},
		},
		"windows of one tenant that cannot be ordered hold back nobody": {
			in: func() Input {
				return shared(makePolicy("p", enforce, makeRule("Conversations", days(366), override("acme", days(30)), override("globex", days(30)))),
					makePolicy("q", enforce, makeRule("Conversations", days(366), override("acme", months(1)))))
			}(),
			approve: true,
			want: outcome{Deletes: []string{"messages P366D globex=P30D"}, Problems: []string{
				"messages: the windows that p/conversations (P366D), q/conversations (P366D) give tenant acme cannot be ordered, so the one for everybody (P366D) holds for it; write them in one unit"}},
		},
		"a tenant that was approved for longer than the base holds back the dataset": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			change: func(in *Input) {
				in.Store.Spec.ApprovedPlan.Windows[0].Tenants[0].RetainFor = days(100)
			},
			want: outcome{Waiting: true, Awaiting: []string{"messages: rows of acme older than P30D (approved: P100D)"}},
		},
		"an identifier that is given to a tenant with a shorter window waits, and goes by the base until then": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			change:  func(in *Input) { in.Tenants[1] = makeTenant("acme", "a-2", "n-1", "a-1") },
			want: outcome{Deletes: []string{"messages P90D acme=P30D of a-1+a-2"}, Waiting: true,
				Awaiting: []string{"messages: rows of acme older than P30D (approved: P30D, but not for 1 of its 3 externalIDs)"}},
		},
		"so does one that both tenants' windows were approved for, each its own": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30)), override("globex", days(20))))),
			approve: true,
			change: func(in *Input) {
				in.Tenants[0], in.Tenants[1] = makeTenant("globex", "g-1", "a-1"), makeTenant("acme", "a-2")
			},
			want: outcome{Deletes: []string{"messages P90D acme=P30D globex=P20D of g-1"}, Waiting: true,
				Awaiting: []string{"messages: rows of globex older than P20D (approved: P20D, but not for 1 of its 2 externalIDs)"}},
		},
		"one that was approved for longer as another tenant's waits even where the base was approved for less": {
			in: shared(makePolicy("p", enforce, makeRule("Conversations", days(366), override("acme", days(95)), override("globex", days(120))))),
			change: func(in *Input) {
				approveAll(t, *in)
				w := &in.Store.Spec.ApprovedPlan.Windows[0]
				w.RetainFor, w.Tenants = days(90), []v1alpha1.ApprovedTenantWindow{{Tenant: "globex", RetainFor: days(100), ExternalIDs: []string{"g-1"}}}
				in.Tenants[0], in.Tenants[1] = makeTenant("globex", "g-2"), makeTenant("acme", "a-1", "g-1")
			},
			want: outcome{Deletes: []string{"messages P366D acme=P95D of a-1 globex=P120D"}, Waiting: true,
				Awaiting: []string{"messages: rows of acme older than P95D (approved: P90D, but not for 1 of its 2 externalIDs)"}},
		},
		"a shorter window and another identifier of one tenant are one line": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(60))))),
			approve: true,
			change: func(in *Input) {
				in.Tenants[1] = makeTenant("acme", "a-1", "a-2", "n-1")
				in.Tenants[1].Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
			},
			want: outcome{Deletes: []string{"messages P90D acme=P60D of a-1+a-2"}, Waiting: true,
				Awaiting: []string{"messages: rows of acme older than P30D (approved: P60D, but not for 1 of its 3 externalIDs)"}},
		},
		"an approval that lists no identifiers covers none": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			change:  func(in *Input) { in.Store.Spec.ApprovedPlan.Windows[0].Tenants[0].ExternalIDs = nil },
			want: outcome{Deletes: []string{"messages P90D"}, Waiting: true,
				Awaiting: []string{"messages: rows of acme older than P30D (approved: P30D, but not for 2 of its 2 externalIDs)"}},
		},
		"an identifier that is taken away needs none": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			change:  func(in *Input) { in.Tenants[1] = makeTenant("acme", "a-2") },
			want:    outcome{Deletes: []string{"messages P90D acme=P30D"}},
		},
		"nor one of another type, nor one of a tenant under the base window": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30))))),
			approve: true,
			change: func(in *Input) {
				in.Tenants[0] = makeTenant("globex", "g-1", "n-1")
				in.Tenants[1].Spec.ExternalIDs = append(in.Tenants[1].Spec.ExternalIDs, v1alpha1.ExternalID{Type: "PhoneID", Value: "n-2"})
			},
			want: outcome{Deletes: []string{"messages P90D acme=P30D"}},
		},
		"nor a tenant that goes away": {
			in: func() Input {
				in := shared(makePolicy("p", enforce, makeRule("Conversations", days(90))))
				in.Tenants[1].Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
				return in
			}(),
			approve: true,
			change:  func(in *Input) { in.Tenants = append(in.Tenants[:1:1], in.Tenants[2]) },
			want:    outcome{Deletes: []string{"messages P90D"}},
		},
		"in a Dedicated store it matters nothing what its tenant is called": {
			in: func() Input {
				in := dedicated(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30)))))
				in.Store.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Tenancy: v1alpha1.TenancyDedicated,
					Windows: []v1alpha1.ApprovedWindow{{Dataset: "messages", PlaceDigest: PlaceOf(&in.Store.Spec.Datasets[1]).Digest(), RetainFor: days(90),
						Tenants: []v1alpha1.ApprovedTenantWindow{{Tenant: "acme", RetainFor: days(30)}}}}}
				return in
			}(),
			change: func(in *Input) { *in.StoreTenant = makeTenant("acme", "a-1", "a-2") },
			want:   outcome{Deletes: []string{"messages P30D"}},
		},
		"a new tenant under the base window needs none": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Tenants = append(in.Tenants, makeTenant("initech", "i-1")) },
			want:    outcome{Deletes: []string{"messages P90D"}},
		},
		"another table under an approved name needs approval": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Store.Spec.Datasets[1].Table.AgeColumn.Name = "imported_at" },
			want:    outcome{Waiting: true, Awaiting: []string{"messages: rows older than P90D (approved: the same dataset with another table, other columns or other relations)"}},
		},
		"another database needs approval": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Store.Spec.Postgres.Database = "chat2" },
			want:    outcome{Waiting: true, Awaiting: []string{"messages: rows older than P90D (approved: database chat)"}},
		},
		"another tenancy needs approval": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change:  func(in *Input) { in.Store.Spec.ApprovedPlan.Tenancy = v1alpha1.TenancyDedicated },
			want:    outcome{Waiting: true, Awaiting: []string{"messages: rows older than P90D (approved: tenancy Dedicated)"}},
		},
		"a dataset that was not approved waits, the others go on": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90)))),
			approve: true,
			change: func(in *Input) {
				in.Policies[0].Spec.Rules = append(in.Policies[0].Spec.Rules, makeRule("Contacts", days(400)))
			},
			want: outcome{Deletes: []string{"messages P90D"}, Waiting: true, Awaiting: []string{"contacts: rows older than P400D (approved: nothing)"}},
		},
		"an override that is longer is refused, and the rule's window stays": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(120))))),
			approve: true,
			want: outcome{Deletes: []string{"messages P90D"}, Problems: []string{
				"DataRetentionPolicy p: spec.rules[conversations].tenantOverrides[acme].retainFor: P120D is longer than P90D, so the rule's own window stays; an override can only shorten"}},
		},
		"an override that cannot be compared is refused": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", months(1), override("acme", days(30))))),
			approve: true,
			want: outcome{Deletes: []string{"messages P1M"}, Problems: []string{
				"DataRetentionPolicy p: spec.rules[conversations].tenantOverrides[acme].retainFor: P30D is not provably shorter than P1M: the first can last 30 days, " +
					"the second can be over after 28 days; use the same unit for both, so the rule's own window stays; an override can only shorten"}},
		},
		"in a Dedicated store the tenant's own override is the window": {
			in: func() Input {
				in := dedicated(makePolicy("p", enforce, makeRule("Conversations", days(90), override("globex", days(10)))))
				in.StoreTenant.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
				return in
			}(),
			approve: true,
			want:    outcome{Deletes: []string{"messages P30D"}},
		},
		"of a rule's and a tenant's override the shorter holds": {
			in: func() Input {
				in := dedicated(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(20)))))
				in.StoreTenant.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
				return in
			}(),
			approve: true,
			want:    outcome{Deletes: []string{"messages P20D"}},
		},
		"two overrides that cannot be ordered: neither holds": {
			in: func() Input {
				in := dedicated(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30)))))
				in.StoreTenant.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: months(1)}}
				return in
			}(),
			approve: true,
			want: outcome{Deletes: []string{"messages P90D"}, Problems: []string{
				"Tenant acme: spec.retentionOverrides[Conversations].retainFor (P1M) and the override of DataRetentionPolicy p, rule conversations (P30D) cannot be ordered, so neither holds; write both in one unit"}},
		},
		"an identifier that two tenants claim is nobody's": {
			in: func() Input {
				in := shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acme", days(30)))))
				in.Tenants[1].Spec.ExternalIDs = in.Tenants[1].Spec.ExternalIDs[1:] // a-1 alone
				in.Tenants = append(in.Tenants, makeTenant("initech", "a-1"))
				return in
			}(),
			approve: true,
			want: outcome{Deletes: []string{"messages P90D"}, Unidentif: []string{"acme"}, Problems: []string{
				"Tenants acme, initech: 1 value(s) of type AccountID in spec.externalIDs are claimed by each of them, so their rows are treated as an unknown tenant's; leave each value with one Tenant"}},
		},
		"an override for a tenant that does not exist is named": {
			in:      shared(makePolicy("p", enforce, makeRule("Conversations", days(90), override("acmee", days(30))))),
			approve: true,
			want: outcome{Deletes: []string{"messages P90D"}, Problems: []string{
				"DataRetentionPolicy p: spec.rules[conversations].tenantOverrides[acmee]: there is no Tenant of that name; correct it or take it away"}},
		},
		"the shortest of several rules that enforce wins, for each tenant": {
			in: shared(
				makePolicy("a", enforce, makeRule("Conversations", days(90), override("acme", days(30)))),
				makePolicy("b", enforce, makeRule("Conversations", days(60), override("globex", days(45))))),
			approve: true,
			want:    outcome{Deletes: []string{"messages P60D acme=P30D globex=P45D"}},
		},
		"rules that cannot be ordered delete nothing": {
			in: shared(makePolicy("a", enforce, makeRule("Conversations", days(30))), makePolicy("b", enforce, makeRule("Conversations", months(1)))),
			want: outcome{Problems: []string{
				"messages: the windows of a/conversations (P30D), b/conversations (P1M) cannot be ordered, so nothing is deleted; write them in one unit"}},
		},
		"a rule in Audit never shortens what a rule that enforces deletes": {
			in:      shared(makePolicy("a", enforce, makeRule("Conversations", days(90))), makePolicy("b", audit, makeRule("Conversations", days(30)))),
			approve: true,
			want:    outcome{Deletes: []string{"messages P90D"}},
		},
		"a window under a floor deletes nothing": {
			in: shared(makePolicy("p", enforce, makeRule("Payments", years(6)))),
			want: outcome{Problems: []string{
				"DataRetentionPolicy p: spec.rules[payments].retainFor (P6Y) is not provably as long as spec.datasets[payments].floor.retainFor (P7Y), so nothing of this dataset is deleted; lengthen the window, in the floor's unit"}},
		},
		"a tenant's window under a floor deletes nothing of the dataset": {
			in: shared(makePolicy("p", enforce, makeRule("Payments", years(8), override("acme", years(6))))),
			want: outcome{Problems: []string{
				"DataRetentionPolicy p: spec.rules[payments]: the window of tenant acme (P6Y) is not provably as long as spec.datasets[payments].floor.retainFor (P7Y), so nothing of this dataset is deleted; take the override away"}},
		},
		"one table under two names deletes nothing": {
			in: func() Input {
				in := shared(makePolicy("p", enforce, makeRule("Contacts", days(1))))
				in.Store.Spec.Datasets[2].Table.Name = "payments"
				return in
			}(),
			want: outcome{Problems: []string{
				"spec.datasets: contacts, payments are all the table public.payments; name it once, so that one window and one floor hold for it",
				"spec.datasets: contacts, payments are all the table public.payments; name it once, so that one window and one floor hold for it"}},
		},
		"an empty selector selects nothing": {
			in: func() Input {
				in := shared(makePolicy("p", enforce, makeRule("Conversations", days(90))))
				in.Policies[0].Spec.StoreSelector = metav1.LabelSelector{}
				return in
			}(),
		},
		"a policy that is being deleted holds no more": {
			in: func() Input {
				in := shared(makePolicy("p", enforce, makeRule("Conversations", days(90))))
				in.Policies[0].DeletionTimestamp = &metav1.Time{Time: day0}
				return in
			}(),
		},
		"a rule without a window deletes nothing": {
			in: shared(makePolicy("p", enforce, makeRule("Conversations", nil))),
			want: outcome{Problems: []string{
				"DataRetentionPolicy p: spec.rules[conversations].retainFor: a window in exactly one unit is needed, for example days: 90"}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.approve {
				approveAll(t, tc.in)
			}
			if tc.change != nil {
				tc.change(&tc.in)
			}
			r := Compile(tc.in)
			if diff := cmp.Diff(tc.want, look(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r.Plan.Deletes() != (r.Plan.Database.Identity != (v1alpha1.StoreIdentity{})) {
				t.Errorf("deletes: %v, database %+v: they go together", r.Plan.Deletes(), r.Plan.Database)
			}
		})
	}
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	in := shared(makePolicy("b", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))), makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Contacts", days(30), override("acme", days(3)), override("globex", days(2)))))
	approveAll(t, in)
	want, err := Hash(Compile(in).Plan)
	if err != nil {
		t.Fatal(err)
	}
	other := in
	other.Policies = []v1alpha1.DataRetentionPolicy{in.Policies[1], in.Policies[0]}
	other.Tenants = []v1alpha1.Tenant{in.Tenants[2], in.Tenants[0], in.Tenants[1]}
	s := in.Store.DeepCopy()
	s.Spec.Datasets[0], s.Spec.Datasets[2] = s.Spec.Datasets[2], s.Spec.Datasets[0]
	s.Spec.Exempt[0], s.Spec.Exempt[1] = s.Spec.Exempt[1], s.Spec.Exempt[0]
	other.Store = s
	got, err := Hash(Compile(other).Plan)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Error("the same objects in another order give another hash")
	}
}

// TestDisputedIdentifiersAreInThePlan: they are no tenant's, and the store is told of them.
func TestDisputedIdentifiersAreInThePlan(t *testing.T) {
	in := shared()
	in.Tenants = []v1alpha1.Tenant{makeTenant("acme", "007", "9"), makeTenant("globex", "8", "7"), makeTenant("initech", "7", "9")}
	r := Compile(in)
	if diff := cmp.Diff([]string{"7", "9"}, r.Plan.Disputed); diff != "" {
		t.Errorf("disputed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"007", "8"}, r.Known); diff != "" {
		t.Errorf("known (-want +got):\n%s", diff)
	}
}
