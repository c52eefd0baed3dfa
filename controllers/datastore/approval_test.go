package datastore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestAnIdentifierThatWasNotApprovedWaits: the plan of an approved store does not take another customer's rows under a
// tenant's shorter window when somebody edits that Tenant.
func TestAnIdentifierThatWasNotApprovedWaits(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantPlatform)
	b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	acme := b.TenantWith("acme-"+b.Namespace, v1alpha1.TenantCustomer)
	own := b.Namespace + "-1"
	operator.Amend(b, acme, func(x *v1alpha1.Tenant) {
		x.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: own}}
		x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: operator.Period(30)}}
	})
	s := b.Store("chat", func(s *v1alpha1.DataStore) {
		makeShared(s)
		s.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Address: operator.AddressOf(s), Tenancy: v1alpha1.TenancyShared,
			Windows: []v1alpha1.ApprovedWindow{{Dataset: "messages", PlaceDigest: plan.PlaceOf(&s.Spec.Datasets[0]).Digest(), RetainFor: operator.Period(90),
				Tenants: []v1alpha1.ApprovedTenantWindow{{Tenant: acme.Name, RetainFor: operator.Period(30), ExternalIDs: []string{own}}}}}}
	})
	overrides := func() []plan.Override {
		p := b.Plan(b.Job())
		d := p.Datasets[0].Delete
		if d == nil {
			t.Fatal("the plan deletes nothing")
		}
		return p.Overrides(d.Own)
	}
	want := []plan.Override{{Tenant: acme.Name, ExternalIDs: []string{own}, RetainFor: calendar.Or(operator.Period(30))}}
	b.Settle(s)
	if diff := cmp.Diff(want, overrides(), cmpopts.EquateComparable(calendar.Window{})); diff != "" {
		t.Errorf("approved (-want +got):\n%s", diff)
	}
	b.Sweep(s, nil)
	b.Want(s, map[string]string{"Approved": "True Approved"})

	operator.Amend(b, acme, func(x *v1alpha1.Tenant) {
		x.Spec.ExternalIDs = append(x.Spec.ExternalIDs, v1alpha1.ExternalID{Type: "AccountID", Value: b.Namespace + "-nobodys"})
	})
	b.Settle(s)
	if diff := cmp.Diff(want, overrides(), cmpopts.EquateComparable(calendar.Window{})); diff != "" {
		t.Errorf("with an identifier more (-want +got):\n%s", diff)
	}
	b.Sweep(s, nil)
	b.Want(s, map[string]string{"Approved": "False AwaitingApproval", "Ready": "True AwaitingApproval"})
	b.Says(s, "Approved", "messages: rows of "+acme.Name+" older than P30D (approved: P30D, but not for 1 of its 2 externalIDs)")
	if strings.Contains(fmt.Sprint(s.Status), "nobodys") {
		t.Errorf("the status repeats an identifier: %+v", s.Status)
	}
}
