package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/status"
)

// observeClaims looks for other Tenants that claim an external identifier of this one. Who was first keeps what it
// is: a mistake in one Tenant must not turn another one red. Retention believes neither (internal/plan), since who
// was first says nothing about whose the rows are.
func (r *Reconciler) observeClaims(ctx context.Context, s *scope) (time.Duration, error) {
	var held []v1alpha1.ExternalID
	var contested []string
	for _, id := range s.tenant.Spec.ExternalIDs {
		claimants := &v1alpha1.TenantList{}
		if err := r.Writer.Client.List(ctx, claimants, client.MatchingFields{reconcile.IndexExternalID: reconcile.ExternalIDKey(id)}, reconcile.StaleReadOK); err != nil {
			return 0, fmt.Errorf("list the Tenants that claim an external identifier: %w", err)
		}
		var before, after []string
		for i := range claimants.Items {
			switch other := &claimants.Items[i]; {
			case other.UID == s.tenant.UID:
			case claimedBefore(other, s.tenant, id):
				before = append(before, other.Name)
			default:
				after = append(after, other.Name)
			}
		}
		slices.Sort(before)
		slices.Sort(after)
		switch {
		case len(before) > 0:
			s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonExternalIDTaken, Stalled: true,
				Message: fmt.Sprintf("The external identifier %s %s is also claimed, and was before, by %s: until one claim is removed neither is believed, and the rows go by the base window.",
					id.Type, id.Value, strings.Join(before, ", "))}})
			continue
		case len(after) > 0:
			contested = append(contested, fmt.Sprintf("%s %s by %s", id.Type, id.Value, strings.Join(after, ", ")))
		}
		held = append(held, id)
	}
	s.tenant.Status.ExternalIDs = held
	if len(contested) > 0 {
		slices.Sort(contested)
		s.observed.Contested = "External identifiers are claimed by another Tenant too, later than by this one (" + reconcile.CutList(contested) +
			"): until those claims are removed neither is believed, and the rows go by the base window."
	}
	return 0, nil
}

// claimedBefore says whether other claimed an identifier before one did. The one whose status has it was the first;
// where that tells nothing apart, as at a first visit, the older Tenant was.
func claimedBefore(other, one *v1alpha1.Tenant, id v1alpha1.ExternalID) bool {
	theirs, ours := slices.Contains(other.Status.ExternalIDs, id), slices.Contains(one.Status.ExternalIDs, id)
	if theirs != ours {
		return theirs
	}
	if !other.CreationTimestamp.Equal(&one.CreationTimestamp) {
		return other.CreationTimestamp.Before(&one.CreationTimestamp)
	}
	return other.UID < one.UID
}

// heldIDsOf are the identifiers that a Tenant's status has.
func heldIDsOf(object client.Object) []v1alpha1.ExternalID {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	return tenant.Status.ExternalIDs
}
