package datastore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/operator"
)

// value of a store's own series, or that it is not there.
func value(b *operator.StoreBench, name string) string {
	b.Helper()
	for _, series := range b.StoreSeries() {
		if rest, ok := strings.CutPrefix(series, name+" chat / "); ok {
			return rest
		}
	}
	return "not there"
}

// TestAnApprovalIsPendingWhereTheConditionSaysSo: what the alert looks at and what a person reads are one thing, in
// every state of a store with two datasets. The alert is on this series alone.
func TestAnApprovalIsPendingWhereTheConditionSaysSo(t *testing.T) {
	approve := func(datasets ...string) func(*v1alpha1.DataStore) {
		return func(s *v1alpha1.DataStore) {
			s.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Address: operator.AddressOf(s), Tenancy: v1alpha1.TenancyDedicated}
			for _, d := range s.Spec.Datasets {
				if slices.Contains(datasets, d.Name) {
					s.Spec.ApprovedPlan.Windows = append(s.Spec.ApprovedPlan.Windows, v1alpha1.ApprovedWindow{Dataset: d.Name, PlaceDigest: plan.PlaceOf(&d).Digest(), RetainFor: operator.Period(90)})
				}
			}
		}
	}
	conversations, payments := operator.Rule("Conversations", operator.Period(90)), operator.Rule("Payments", operator.Period(90))
	tests := map[string]struct {
		enforce, audit []v1alpha1.RetentionRule
		approved       func(*v1alpha1.DataStore)
		change         func(*operator.StoreBench, *v1alpha1.DataStore)
		pending        bool
		approval       string // Approved
	}{
		"no policy":                         {approval: "True NothingToApprove"},
		"in Audit":                          {audit: []v1alpha1.RetentionRule{conversations}, approval: "False AwaitingApproval"},
		"enforced, nothing approved":        {enforce: []v1alpha1.RetentionRule{conversations}, pending: true, approval: "False AwaitingApproval"},
		"enforced and approved":             {enforce: []v1alpha1.RetentionRule{conversations}, approved: approve("messages"), approval: "True Approved"},
		"both enforced, one of them waits":  {enforce: []v1alpha1.RetentionRule{conversations, payments}, approved: approve("messages"), pending: true, approval: "False AwaitingApproval"},
		"approved, and another in Audit":    {enforce: []v1alpha1.RetentionRule{conversations}, audit: []v1alpha1.RetentionRule{payments}, approved: approve("messages"), approval: "False AwaitingApproval"},
		"unapproved, and another in Audit":  {enforce: []v1alpha1.RetentionRule{conversations}, audit: []v1alpha1.RetentionRule{payments}, pending: true, approval: "False AwaitingApproval"},
		"in Audit and approved in advance":  {audit: []v1alpha1.RetentionRule{conversations}, approved: approve("messages"), approval: "True NothingToApprove"},
		"enforced on what no dataset holds": {enforce: []v1alpha1.RetentionRule{operator.Rule("Files", operator.Period(90))}, audit: []v1alpha1.RetentionRule{conversations}, approval: "False AwaitingApproval"},
		"in Audit, beside a policy that enforces and selects nothing": {audit: []v1alpha1.RetentionRule{conversations}, approval: "False AwaitingApproval",
			change: func(b *operator.StoreBench, _ *v1alpha1.DataStore) {
				p := &unstructured.Unstructured{}
				b.Must(yaml.Unmarshal([]byte(`{apiVersion: lethe.dev/v1alpha1, kind: DataRetentionPolicy, spec: {storeSelector: {matchLabels: {nobody: has-this}}, mode: Enforce,
  rules: [{name: conversations, dataClass: Conversations, retainFor: {days: 90}}]}}`), &p.Object))
				p.SetName("nothing-" + b.Namespace)
				b.Must(b.Env.Client.Create(b.Context(), p))
			}},
		"another database, approved": {enforce: []v1alpha1.RetentionRule{conversations}, approved: approve("messages"), approval: "False IdentityChanged",
			change: func(b *operator.StoreBench, s *v1alpha1.DataStore) {
				b.Settle(s)
				b.Sweep(s, func(r *report.Report) {
					r.Outcome, r.Reason, r.Message = report.Refused, v1alpha1.ReasonIdentityChanged, "approve --database"
				})
			}},
		"the namespace is nobody's any more": {enforce: []v1alpha1.RetentionRule{conversations}, approval: "Unknown NotPlanned",
			change: func(b *operator.StoreBench, s *v1alpha1.DataStore) {
				b.Settle(s)
				tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: b.Tenant}}
				b.Read(tenant)
				tenant.Status.Namespaces = nil
				b.Must(b.Env.Client.Status().Update(b.Context(), tenant))
				operator.Amend(b, tenant, func(tenant *v1alpha1.Tenant) {
					tenant.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: "other-" + b.Namespace}}
				})
			}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
			if tc.enforce != nil {
				b.Policy("enforce", enforce, tc.enforce...)
			}
			if tc.audit != nil {
				b.Policy("audit", operator.Audit, tc.audit...)
			}
			s := b.Store("chat", func(s *v1alpha1.DataStore) {
				s.Spec.Datasets = append(s.Spec.Datasets, operator.Dataset("payments", "Payments"))
				if tc.approved != nil {
					tc.approved(s)
				}
			})
			if tc.change != nil {
				tc.change(b, s)
			}
			b.Settle(s)
			want := map[bool]string{true: "1", false: "0"}[tc.pending]
			if got := value(b, "lethe_store_approval_pending"); got != want {
				t.Errorf("pending is %s, want %s", got, want)
			}
			b.Want(s, map[string]string{"Approved": tc.approval})
			c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionApproved)
			if waits := c.Reason == "AwaitingApproval" && !strings.HasPrefix(c.Message, "in Audit"); waits != tc.pending {
				t.Errorf("the condition says %q", c.Message)
			}
		})
	}
}

// TestWhatIsCountedIsWhatIsThere: datasets and not measurements, tables and not the names that a report has room for,
// and no count of what nobody has counted.
func TestWhatIsCountedIsWhatIsThere(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	b.Policy("second", enforce, operator.Rule("Conversations", operator.Period(120)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, func(r *report.Report) {
		r.Datasets[0].Reason = v1alpha1.ReasonBrakeTripped
		for i := range r.Datasets[0].Rules {
			r.Datasets[0].Rules[i].OldestOverdueSeconds, r.Datasets[0].Rules[i].Overdue = 60, 1
		}
		for n := range report.MaxUncovered {
			r.Uncovered = append(r.Uncovered, fmt.Sprintf("public.t%d", n))
		}
		r.UncoveredCount = 500
	})
	if d := s.Status.Datasets; len(d) != 1 || len(d[0].Rules) != 2 {
		t.Fatalf("%+v, want two measurements of one dataset", d)
	}
	if got := value(b, "lethe_store_braked_datasets"); got != "1" {
		t.Errorf("%s datasets are braked, want 1", got)
	}
	events := strings.Join(b.EventsSeen(), "\n")
	if !strings.Contains(events, "BrakeTripped more would be deleted than spec.brake allows, so nothing of this is: messages") || strings.Contains(events, "messages, messages") {
		t.Errorf("events:\n%s", events)
	}
	if got := value(b, "lethe_store_uncovered_tables"); got != "500" {
		t.Errorf("%s tables are uncovered, want 500", got)
	}

	// The next report says nothing of one of the two.
	b.Clock.SetTime(b.Clock.Now().Add(storecontroller.StaleAfter + time.Minute))
	b.Settle(s)
	b.Sweep(s, func(r *report.Report) {
		d := &r.Datasets[0]
		d.Rules = slices.DeleteFunc(d.Rules, func(m report.Rule) bool { return m.Policy == p.Name })
	})
	all := strings.Join(b.StoreSeries(), "\n")
	if of := " chat " + p.Name + "/conversations "; strings.Contains(all, "overdue_rows"+of) || !strings.Contains(all, "lethe_store_worst_overdue_seconds"+of+"60") {
		t.Errorf("of what it says nothing of:\n%s", all)
	}
}

// TestAPolicyIsNotGreenUnderASpecThatNobodyMeasured: from the edit until each of its stores has measured the new
// window.
func TestAPolicyIsNotGreenUnderASpecThatNobodyMeasured(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, nil)
	b.Sum(p)
	b.Want(p, map[string]string{"Compliant": "True Compliant"})

	for name, edit := range map[string]func(*v1alpha1.DataRetentionPolicy){
		"a shorter window": func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = operator.Period(30) },
		"a shorter slack": func(p *v1alpha1.DataRetentionPolicy) {
			p.Spec.Rules[0].DeleteWithin = &v1alpha1.Slack{Hours: new(int32(2))}
		},
		"a rule more": func(p *v1alpha1.DataRetentionPolicy) {
			p.Spec.Rules = append(p.Spec.Rules, operator.Rule("Payments", operator.Period(30)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			was := p.DeepCopy()
			operator.Amend(b, p, edit)
			b.Sum(p) // before the store is
			b.Want(p, map[string]string{"Compliant": "Unknown NotVerified"})
			b.Settle(s)
			b.Sum(p)
			b.Want(p, map[string]string{"Compliant": "Unknown NotVerified"})
			operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec = was.Spec })
			b.Settle(s)
			b.Sum(p)
			b.Want(p, map[string]string{"Compliant": "True Compliant"})
		})
	}
	t.Run("the store's map has changed", func(t *testing.T) {
		operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Spec.Datasets[0].Table.Name = "another" })
		b.Sum(p)
		b.Want(p, map[string]string{"Compliant": "Unknown NotVerified"})
	})
}
