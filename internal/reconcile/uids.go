package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// CheckUIDRange is a problem while a bot of the tenant must not run: its range is not known, or another Tenant shares
// an id with it.
func CheckUIDRange(ctx context.Context, c client.Reader, tenant *v1alpha1.Tenant, condition string) error {
	if tenant.Status.UIDRange == nil || resources.CheckUIDRange(*tenant.Status.UIDRange) != nil {
		return &Problem{Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonTenantNotReady,
			Message: fmt.Sprintf("Tenant %s has no range of user ids yet: see the Tenant's conditions.", tenant.Name)}}
	}
	var others []string
	for _, block := range UIDBlocksOf(tenant) {
		tenants := &v1alpha1.TenantList{}
		if err := c.List(ctx, tenants, client.MatchingFields{IndexUIDBlock: block}, StaleReadOK, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list the Tenants that share user ids: %w", err)
		}
		for i := range tenants.Items {
			other := &tenants.Items[i]
			if other.UID != tenant.UID && resources.SharesUID(*other.Status.UIDRange, *tenant.Status.UIDRange) {
				others = append(others, other.Name)
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	return &Problem{After: ForeignObjectWait, Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonUIDRangeTaken, Stalled: true,
		Message: fmt.Sprintf("Tenants %s and %s have user ids in common, and no bot of theirs is started: restore the newest backup of the keyserver's keys, "+
			"or delete all but one of these Tenants and make them anew.", tenant.Name, strings.Join(slices.Compact(others), ", "))}}
}
