package tenant

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// uidRangeChange lets a Tenant through when a hand has changed the range in its status, or when there are other keys
// to seal to.
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

// isRangeAsVerified says whether the status still names the range that the keyserver answered, as far as this process
// knows.
func isRangeAsVerified(tenant *v1alpha1.Tenant, verified reconcile.Response[v1alpha1.UIDRange]) bool {
	return tenant.Status.UIDRange != nil && (verified.Value == v1alpha1.UIDRange{} || verified.Value == *tenant.Status.UIDRange)
}

// takeUIDRange goes by the range that the keyserver has on record, and by now has put into the status. It wins over
// what the status said: it lies beside the keys, is backed up with them, and only the keyserver writes it.
func takeUIDRange(recorder events.EventRecorder, s *scope, answer keyapi.UIDRange) error {
	tenant := s.tenant
	recorded := v1alpha1.UIDRange(answer)
	if err := resources.CheckUIDRange(recorded); err != nil {
		return &reconcile.Problem{After: reconcile.KeyserverWait, Problem: status.Problem{
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
