package tenant

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups=node.k8s.io,resources=runtimeclasses,verbs=get
// +kubebuilder:rbac:groups=scheduling.k8s.io,resources=priorityclasses,verbs=get

// checkClasses says of a placement that names a class which is not there: Kubernetes would refuse each pod, in the
// events of a StatefulSet. It looks when the spec has changed, and while one was missing; nothing is watched for it.
func (r *Reconciler) checkClasses(ctx context.Context, s *scope) (time.Duration, error) {
	placement := s.tenant.Spec.Placement
	if placement == nil || (s.tenant.Status.ObservedGeneration == s.tenant.Generation && !missedClass(s.tenant)) {
		return 0, nil
	}
	missing, err := reconcile.MissingClasses(ctx, r.Writer.Live, reconcile.ClassesOf(placement, "")...)
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	if missing == "" {
		return 0, nil
	}
	s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonClassMissing, Stalled: true,
		Message: missing + ". No new pod of the tenant can be made, and those that run are kept: make it, or name one that kubectl get runtimeclasses,priorityclasses shows."}})
	return reconcile.ForeignObjectWait, nil
}

func missedClass(tenant *v1alpha1.Tenant) bool {
	ready := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonClassMissing
}
