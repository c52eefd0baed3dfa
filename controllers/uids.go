package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// uidBlock is how ranges are indexed: two that share an id share a block.
const uidBlock = 1000

// uidBlocksOf names the blocks that a Tenant's range touches.
func uidBlocksOf(object client.Object) []string {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok || tenant.Status.UIDRange == nil || resources.CheckUIDRange(*tenant.Status.UIDRange) != nil {
		return nil
	}
	r := *tenant.Status.UIDRange
	var blocks []string
	for block := r.First / uidBlock; block <= (r.First+r.Size-1)/uidBlock; block++ {
		blocks = append(blocks, strconv.FormatInt(block, 10))
	}
	return blocks
}

// isUIDRangeTaken says whether the Tenant's conditions tell of another Tenant in its range.
func isUIDRangeTaken(tenant *v1alpha1.Tenant) bool {
	keys := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	return keys != nil && keys.Reason == v1alpha1.ReasonUIDRangeTaken
}

// uidRangeChange lets a Tenant through when a hand has changed the range in its status, or when there are other keys to seal to.
func uidRangeChange() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			old, okOld := e.ObjectOld.(*v1alpha1.Tenant)
			now, okNow := e.ObjectNew.(*v1alpha1.Tenant)
			return okOld && okNow && (!equality.Semantic.DeepEqual(old.Status.UIDRange, now.Status.UIDRange) ||
				(len(old.Status.SealingKeys) > 0 && !equality.Semantic.DeepEqual(old.Status.SealingKeys, now.Status.SealingKeys)))
		},
	}
}

// isRangeAsVerified says whether the status still names the range that the keyserver answered, as far as this process knows.
func isRangeAsVerified(tenant *v1alpha1.Tenant, verified answer[v1alpha1.UIDRange]) bool {
	return tenant.Status.UIDRange != nil && (verified.value == v1alpha1.UIDRange{} || verified.value == *tenant.Status.UIDRange)
}

// takeUIDRange goes by the range that the keyserver has on record, and by now has put into the status. It wins over what the
// status said: it lies beside the keys, is backed up with them, and only the keyserver writes it.
func takeUIDRange(recorder events.EventRecorder, s *tenantScope, answer protocol.UIDRange) error {
	tenant := s.tenant
	recorded := v1alpha1.UIDRange(answer)
	if err := resources.CheckUIDRange(recorded); err != nil {
		return &problem{after: keyserverWait, Problem: status.Problem{
			Condition: v1alpha1.ConditionKeysReady, Reason: v1alpha1.ReasonNoUIDRange,
			Message: fmt.Sprintf("The keyserver's answer is of no use: %v. Run the manager and the keyserver in the same version.", err),
		}}
	}
	if known := tenant.Status.UIDRange; known != nil && *known != recorded {
		recorder.Eventf(tenant, nil, corev1.EventTypeWarning, v1alpha1.ReasonUIDRangeRestored, "Reconcile",
			"status.uidRange began at %d; the keyserver has %d on record, which it is again.", known.First, recorded.First)
	}
	tenant.Status.UIDRange, s.before.Status.UIDRange = &recorded, &recorded
	return nil
}

// checkUIDRange is a problem while a bot of the tenant must not run: its range is not known, or another Tenant shares an id
// with it.
func checkUIDRange(ctx context.Context, c client.Reader, tenant *v1alpha1.Tenant, condition string) error {
	if tenant.Status.UIDRange == nil || resources.CheckUIDRange(*tenant.Status.UIDRange) != nil {
		return &problem{Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonTenantNotReady,
			Message: fmt.Sprintf("Tenant %s has no range of user ids yet: see the Tenant's conditions.", tenant.Name)}}
	}
	var others []string
	for _, block := range uidBlocksOf(tenant) {
		tenants := &v1alpha1.TenantList{}
		if err := c.List(ctx, tenants, client.MatchingFields{indexUIDBlock: block}, unlocked, client.UnsafeDisableDeepCopy); err != nil {
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
	return &problem{after: strangerWait, Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonUIDRangeTaken, Stalled: true,
		Message: fmt.Sprintf("Tenants %s and %s have user ids in common, and no bot of theirs is started: restore the newest backup of the keyserver's keys, "+
			"or delete all but one of these Tenants and make them anew.", tenant.Name, strings.Join(slices.Compact(others), ", "))}}
}
