package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups=node.k8s.io,resources=runtimeclasses,verbs=get
// +kubebuilder:rbac:groups=scheduling.k8s.io,resources=priorityclasses,verbs=get

// ReasonClassMissing: spec.placement names a RuntimeClass or a PriorityClass that the cluster does not have.
const ReasonClassMissing = "ClassMissing"

// checkClasses says of a placement that names a class which is not there: Kubernetes would refuse each pod, in the events of a
// StatefulSet. It looks when the spec has changed, and while one was missing; nothing is watched for it.
func (r *TenantReconciler) checkClasses(ctx context.Context, s *tenantScope) (time.Duration, error) {
	placement := s.tenant.Spec.Placement
	if placement == nil || (s.tenant.Status.ObservedGeneration == s.tenant.Generation && !missedClass(s.tenant)) {
		return 0, nil
	}
	var missing []string
	for _, class := range []struct {
		name, field string
		kind        schema.GroupVersionKind
	}{
		{placement.RuntimeClassName, "spec.placement.runtimeClassName", nodev1.SchemeGroupVersion.WithKind("RuntimeClass")},
		{placement.PriorityClassName, "spec.placement.priorityClassName", schedulingv1.SchemeGroupVersion.WithKind("PriorityClass")},
	} {
		if class.name == "" {
			continue
		}
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(class.kind)
		err := r.Writer.Live.Get(ctx, client.ObjectKey{Name: class.name}, object)
		if apierrors.IsNotFound(err) {
			missing = append(missing, fmt.Sprintf("%s: there is no %s %s", class.field, class.kind.Kind, class.name))
		} else if err != nil {
			return 0, explain(v1alpha1.ConditionReady, fmt.Errorf("read the %s: %w", class.kind.Kind, err))
		}
	}
	if len(missing) == 0 {
		return 0, nil
	}
	s.note(&problem{Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: ReasonClassMissing, Stalled: true,
		Message: strings.Join(missing, "; ") + ". No pod of the tenant can be made: make it, or name one that kubectl get runtimeclasses,priorityclasses shows."}})
	return strangerWait, nil
}

func missedClass(tenant *v1alpha1.Tenant) bool {
	ready := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == ReasonClassMissing
}
