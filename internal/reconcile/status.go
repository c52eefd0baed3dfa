package reconcile

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
)

// WriteStatus sends the status if it differs from what was read, and says whether it did. Both objects are the same
// but for their status. One controller writes one status, so no lock is needed: a newer spec only makes
// observedGeneration old.
func WriteStatus(ctx context.Context, c client.Client, before, after client.Object, same bool) (bool, error) {
	if same {
		return false, nil
	}
	err := c.Status().Patch(ctx, after, client.MergeFrom(before), kube.FieldOwner)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("write the status of %s: %w", after.GetName(), err)
	}
	return err == nil, nil
}

// SameStatus compares statuses as the API server would: what is empty is as what is not there.
func SameStatus[S any](before, after S) bool { return equality.Semantic.DeepEqual(before, after) }

// ApplyGrace is how long a bot or a store may be without its Tenant before that is said to need a person: what is
// applied together comes in any order.
const ApplyGrace = 2 * time.Minute

// GraceLeft is how much of the grace is left to an object that was made, or was ready, a while ago.
func GraceLeft(object client.Object, conditions []metav1.Condition, now time.Time, grace time.Duration) time.Duration {
	since := object.GetCreationTimestamp().Time
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		if ready.Status == metav1.ConditionTrue {
			return grace
		}
		if ready.LastTransitionTime.After(since) {
			since = ready.LastTransitionTime.Time
		}
	}
	return max(0, grace-now.Sub(since))
}
