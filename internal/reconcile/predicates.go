package reconcile

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// ClaimChange lets a volume through when whose it is, its size or its end has changed, or when it is gone. That it
// was made is no news, and what Kubernetes binds and counts neither.
func ClaimChange() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			old, okOld := e.ObjectOld.(*corev1.PersistentVolumeClaim)
			now, okNow := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			if !okOld || !okNow {
				return true
			}
			return !equality.Semantic.DeepEqual(recordOf(old), recordOf(now)) || !old.DeletionTimestamp.Equal(now.DeletionTimestamp) ||
				!equality.Semantic.DeepEqual(old.Spec.Resources, now.Spec.Resources)
		},
	}
}

// recordOf is what of a volume's metadata is ours.
func recordOf(claim *corev1.PersistentVolumeClaim) []string {
	var record []string
	for _, key := range []string{v1alpha1.AnnotationTenantUID, v1alpha1.AnnotationBotUID, v1alpha1.AnnotationBot, v1alpha1.AnnotationReclaimPolicy, v1alpha1.AnnotationAdopt} {
		record = append(record, claim.Annotations[key])
	}
	for _, key := range []string{v1alpha1.LabelManagedBy, v1alpha1.LabelComponent, v1alpha1.LabelBot, v1alpha1.LabelTenant} {
		record = append(record, claim.Labels[key])
	}
	return record
}

// Queue is what event handlers put requests into.
type Queue = workqueue.TypedRateLimitingInterface[ctrl.Request]

// LaterPriority is below that of a new or changed object, which is 0, and above that of a resync and of a restart's
// backlog.
const LaterPriority = -10

// LabelMoved lets a namespace through when it begins or ends to be a tenant's: the cache holds those with the label
// only.
func LabelMoved(old, now *corev1.Namespace) bool {
	return old.Labels[v1alpha1.LabelTenant] != now.Labels[v1alpha1.LabelTenant]
}

// OwnChange lets an object of ours through when its spec has changed (which a deletion counts as), when a hand took our
// finalizer off it, and on a resync.
func OwnChange() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || IsResync(e) ||
			(HasFinalizer(e.ObjectOld) && !HasFinalizer(e.ObjectNew))
	}}
}

// OnUpdate lets an update through when it is one that matters, and every other event.
func OnUpdate[T client.Object](matters func(old, now T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		old, okOld := e.ObjectOld.(T)
		now, okNow := e.ObjectNew.(T)
		return !okOld || !okNow || matters(old, now)
	}}
}

// IsResync says whether an update only repeats what the cache has.
func IsResync(e event.UpdateEvent) bool {
	return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion()
}

// ChildChange lets a child through when anything but its status has changed, or when it is gone. That it was made is no
// news: we made it. A resync of the owner covers its children.
func ChildChange() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return !IsResync(e) && !sameButStatus(e.ObjectOld, e.ObjectNew) },
	}
}

// sameButStatus compares what a builder decides.
func sameButStatus(a, b client.Object) bool {
	if !SameMetadata(a, b) {
		return false
	}
	switch a := a.(type) {
	case *corev1.ResourceQuota: // its status changes with every pod
		b, ok := b.(*corev1.ResourceQuota)
		return ok && equality.Semantic.DeepEqual(a.Spec, b.Spec)
	case *batchv1.CronJob: // its status changes with every Job
		return a.GetGeneration() == b.GetGeneration()
	default:
		return false
	}
}

// SameMetadata compares what of metadata is ours to write.
func SameMetadata(a, b client.Object) bool {
	return equality.Semantic.DeepEqual(a.GetLabels(), b.GetLabels()) && equality.Semantic.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) &&
		equality.Semantic.DeepEqual(a.GetOwnerReferences(), b.GetOwnerReferences()) && a.GetDeletionTimestamp().Equal(b.GetDeletionTimestamp())
}
