package retentionpolicy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/operator"
)

func TestAPolicySumsUp(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	b.Sum(p)
	b.Want(p, map[string]string{"Ready": "True NoStore", "Compliant": "Unknown NoStore"})

	good, late := b.Store("good", nil), b.Store("late", nil)
	other := b.Store("other", func(s *v1alpha1.DataStore) { s.Labels = map[string]string{"bench": "another"} })
	for _, s := range []*v1alpha1.DataStore{good, late, other} {
		b.Settle(s)
	}
	b.Sum(p)
	b.Want(p, map[string]string{"Ready": "True NotVerified", "Compliant": "Unknown NotVerified"})

	jobs := map[string]func(*report.Report){
		"good": nil, "other": nil,
		"late": func(r *report.Report) {
			r.Datasets[0].Rules[0].Overdue, r.Datasets[0].Rules[0].OldestOverdueSeconds = 12, 7200
		},
	}
	b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
	for _, job := range b.Active() {
		b.Finish(&job, b.Told(&job, jobs[job.Labels[v1alpha1.LabelStore]]))
	}
	for _, s := range []*v1alpha1.DataStore{good, late, other} {
		b.Settle(s)
	}
	b.Sum(p)
	b.Want(p, map[string]string{"Ready": "True Overdue", "Compliant": "False Overdue"})
	got := p.Status
	got.Conditions = nil
	want := v1alpha1.DataRetentionPolicyStatus{ObservedGeneration: p.Generation, Matched: 2, Compliant: 1, Overdue: 12, OverdueRows: "12", OldestOverdueSeconds: 7200, WorstStore: b.Namespace + "/late"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	t.Run("an override that is longer stalls it, with field and remedy", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) {
			p.Spec.Rules[0].TenantOverrides = []v1alpha1.TenantOverride{{Tenant: "acme", RetainFor: operator.Period(120)}}
		})
		b.Sum(p)
		b.Want(p, map[string]string{"Ready": "False RuleRefused", "Stalled": "True RuleRefused", "Compliant": "Unknown NotVerified"}) // nobody has measured it yet
		if text := mustMessage(p.Status.Conditions, "Ready"); !strings.Contains(text, "spec.rules[conversations].tenantOverrides[acme].retainFor: P120D is longer than P90D") {
			t.Errorf("says %q", text)
		}
	})
	t.Run("so does a window under a floor", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].TenantOverrides = nil })
		operator.Amend(b, good, func(s *v1alpha1.DataStore) {
			s.Spec.Datasets[0].Floor = &v1alpha1.Floor{RetainFor: operator.Period(365), LegalBasis: "law"}
		})
		b.Sum(p)
		b.Want(p, map[string]string{"Stalled": "True RuleRefused"})
		if text := mustMessage(p.Status.Conditions, "Ready"); !strings.Contains(text, "spec.datasets[messages].floor.retainFor (P365D) of DataStore "+b.Namespace+"/good") {
			t.Errorf("says %q", text)
		}
	})
	t.Run("a policy that is deleted while its store is swept takes the permission with it", func(t *testing.T) {
		hash := late.Status.Plan.Hash
		b.Must(b.Env.Client.Delete(t.Context(), p))
		b.Settle(late)
		if late.Status.Plan.Hash == hash {
			t.Error("the plan is still the one with the policy: its lease would be renewed")
		}
		b.Want(late, map[string]string{"Compliant": "Unknown Ungoverned", "CoverageComplete": "False Ungoverned"})
	})
}

func mustMessage(conditions []metav1.Condition, kind string) string {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}

// TestWindowsThatTheAPIServerRefuses sends what a person might write, as GitOps tools send it: with strict validation.
func TestWindowsThatTheAPIServerRefuses(t *testing.T) {
	const policy = `{apiVersion: lethe.dev/v1alpha1, kind: DataRetentionPolicy, metadata: {name: bad}, spec: {storeSelector: {matchLabels: {a: b}}, rules: [{name: r, dataClass: Conversations, %s}]}}`
	const store = `{apiVersion: lethe.dev/v1alpha1, kind: DataStore, metadata: {name: bad, namespace: %s}, spec: {type: Postgres,
  postgres: {host: db.example, database: chat, username: lethe, password: %s}, %s
  datasets: [{name: messages, dataClass: Conversations, table: {name: %s, key: [id], ageColumn: {name: created_at, type: %s}%s}}]}}`
	const approved = `approvedPlan: {identity: {kind: PostgresSystemIdentifier, value: "7300"}, database: chat, address: "db:5432", tenancy: %[1]s, windows: [{dataset: messages, placeDigest: d, retainFor: {days: 90},
    tenants: [{tenant: acme, retainFor: {days: 30}, externalIDs: %[3]s}]}]}, tenancy: %[1]s%[2]s,`
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	ds := func(password, more, table, age, tenant string) string {
		return fmt.Sprintf(store, b.Namespace, password, more, table, age, tenant)
	}
	shared := func(ids string) string {
		return ds("seal.v1.a.b.c.d.e", fmt.Sprintf(approved, "Shared", ", tenantIDType: AccountID", ids), "messages", "Timestamptz", ", tenantColumn: account_id")
	}
	const sealed = "seal.v1.a.b.c.d.e"
	many := ""
	for n := range 32 {
		many += fmt.Sprintf(", a-%d", n)
	}
	tests := map[string]struct {
		give string
		says []string // empty: it is accepted
		not  string   // must not be repeated
	}{
		"a window":                   {give: fmt.Sprintf(policy, "retainFor: {days: 90}")},
		"no window":                  {give: fmt.Sprintf(policy, "deleteWithin: {hours: 1}"), says: []string{"retainFor is required"}},
		"an empty window":            {give: fmt.Sprintf(policy, "retainFor: {}"), says: []string{"retainFor", "exactly one unit", "for example days: 90"}},
		"a window of zero":           {give: fmt.Sprintf(policy, "retainFor: {days: 0}"), says: []string{"retainFor.days", "greater than or equal to 1"}},
		"a negative window":          {give: fmt.Sprintf(policy, "retainFor: {days: -1}"), says: []string{"retainFor.days"}},
		"a window in two units":      {give: fmt.Sprintf(policy, "retainFor: {months: 1, days: 2}"), says: []string{"retainFor", "exactly one unit", "for example days: 90"}},
		"a unit that is misspelt":    {give: fmt.Sprintf(policy, "retainFor: {day: 90}"), says: []string{`unknown field "spec.rules[0].retainFor.day"`}},
		"a field that is misspelt":   {give: fmt.Sprintf(policy, "retainfor: {days: 90}"), says: []string{`unknown field "spec.rules[0].retainfor"`}},
		"a window in words":          {give: fmt.Sprintf(policy, "retainFor: 90d"), says: []string{"retainFor"}},
		"slack in two units":         {give: fmt.Sprintf(policy, "retainFor: {days: 90}, deleteWithin: {hours: 1, days: 1}"), says: []string{"deleteWithin", "exactly one unit"}},
		"slack in months":            {give: fmt.Sprintf(policy, "retainFor: {days: 90}, deleteWithin: {months: 1}"), says: []string{`unknown field "spec.rules[0].deleteWithin.months"`}},
		"an override without one":    {give: fmt.Sprintf(policy, "retainFor: {days: 90}, tenantOverrides: [{tenant: acme}]"), says: []string{"tenantOverrides[0].retainFor"}},
		"a store":                    {give: ds(sealed, "", "messages", "Timestamptz", "")},
		"SQL in a table's name":      {give: ds(sealed, "", `"messages; drop table x"`, "Timestamptz", ""), says: []string{"table.name"}},
		"quotes in a table's name":   {give: ds(sealed, "", `"a\"b"`, "Timestamptz", ""), says: []string{"table.name"}},
		"a timestamp without a zone": {give: ds(sealed, "", "messages", "Timestamp", ""), says: []string{"timeZone must be set"}},
		"a plaintext password":       {give: ds("hunter2-plain", "", "messages", "Timestamptz", ""), says: []string{"spec.postgres", "kubectl lethe seal"}, not: "hunter2"},
		"Shared without a column":    {give: ds(sealed, "tenancy: Shared, tenantIDType: AccountID,", "messages", "Timestamptz", ""), says: []string{"tenantColumn is required in a Shared store"}},
		"Dedicated with a column":    {give: ds(sealed, "", "messages", "Timestamptz", ", tenantColumn: account_id"), says: []string{"tenantColumn is refused in a Dedicated store"}},
		"Shared without an id type":  {give: ds(sealed, "tenancy: Shared,", "messages", "Timestamptz", ", tenantColumn: account_id"), says: []string{"tenantIDType is required"}},
		"two rules for one class": {give: `{apiVersion: lethe.dev/v1alpha1, kind: DataRetentionPolicy, metadata: {name: bad}, spec: {storeSelector: {matchLabels: {a: b}},
  rules: [{name: r, dataClass: Conversations, retainFor: {days: 1}}, {name: s, dataClass: Conversations, retainFor: {days: 2}}]}}`, says: []string{"names the dataClass of another rule"}},
		"identifiers approved":                  {give: shared("[a-1, a-2]")},
		"an identifier that is approved twice":  {give: shared("[a-1, a-1]"), says: []string{"externalIDs[1]", "Duplicate value"}},
		"an identifier of nothing":              {give: shared(`[""]`), says: []string{"externalIDs[0]"}},
		"more identifiers than a Tenant has":    {give: shared("[b" + many + "]"), says: []string{"externalIDs", "32"}},
		"identifiers in a Dedicated's approval": {give: ds(sealed, fmt.Sprintf(approved, "Dedicated", "", "[a-1]"), "messages", "Timestamptz", ""), says: []string{"windows[0].tenants[0].externalIDs are refused unless tenancy is Shared"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			object := &unstructured.Unstructured{}
			b.Must(yaml.Unmarshal([]byte(tc.give), &object.Object))
			err := b.Env.Client.Create(t.Context(), object, client.FieldValidation("Strict"), client.DryRunAll)
			if (err != nil) != (len(tc.says) > 0) {
				t.Fatalf("error %v", err)
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("says %q, want %q in it", err, text)
				}
			}
			if tc.not != "" && strings.Contains(err.Error(), tc.not) {
				t.Errorf("repeats the value: %v", err)
			}
		})
	}
}
