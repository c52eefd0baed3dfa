package stage

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// AwaitCondition waits until an object's condition has a status and, unless it is empty, a reason, for the present
// spec.
func AwaitCondition(ctx context.Context, from client.Reader, o client.Object, kind string, status metav1.ConditionStatus, reason string, most time.Duration) error {
	wanted := fmt.Sprintf("%s=%s", kind, status)
	if reason != "" {
		wanted += "/" + reason
	}
	return Until(ctx, most, fmt.Sprintf("wait for %s of %s", wanted, o.GetName()), func(ctx context.Context) (string, error) {
		if err := from.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return "", err
		}
		c := meta.FindStatusCondition(conditionsOf(o), kind)
		switch {
		case c == nil:
			return "it is not set", nil
		case c.Status != status || c.ObservedGeneration != o.GetGeneration() || (reason != "" && c.Reason != reason):
			return fmt.Sprintf("it is %s (generation %d of %d): %s: %s", c.Status, c.ObservedGeneration, o.GetGeneration(), c.Reason, c.Message), nil
		}
		return "", nil
	})
}

// conditionsOf any of our kinds.
func conditionsOf(o client.Object) []metav1.Condition {
	switch o := o.(type) {
	case *v1alpha1.Tenant:
		return o.Status.Conditions
	case *v1alpha1.BotDeployment:
		return o.Status.Conditions
	case *v1alpha1.DataStore:
		return o.Status.Conditions
	case *v1alpha1.DataRetentionPolicy:
		return o.Status.Conditions
	default:
		return nil
	}
}
