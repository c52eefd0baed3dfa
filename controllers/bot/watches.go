package bot

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// SetupWithManager wakes a bot for its own changes, for those of its children, and for what its Tenant decides for it.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	m := botMapper{cache: mgr.GetCache()}
	bots := ctrl.NewControllerManagedBy(mgr)
	if r.DNS != nil {
		bots.WatchesRawSource(source.Channel(r.DNS.Events, &handler.EnqueueRequestForObject{}))
	}
	err := bots.
		For(&v1alpha1.BotDeployment{}, builder.WithPredicates(reconcile.OwnChange())).
		Owns(&corev1.ServiceAccount{}, builder.WithPredicates(reconcile.ChildChange())).
		Owns(&networkingv1.NetworkPolicy{}, builder.WithPredicates(reconcile.ChildChange())).
		Watches(&appsv1.StatefulSet{}, afterNewBots(), builder.WithPredicates(setChange())).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(botOfClaim), builder.WithPredicates(reconcile.ClaimChange())).
		Watches(&v1alpha1.Tenant{}, handler.EnqueueRequestsFromMapFunc(m.ofTenant), builder.WithPredicates(decisionsChange())).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(m.ofNamespace), builder.WithPredicates(reconcile.OnUpdate(reconcile.LabelMoved))).
		WatchesRawSource(source.Channel(r.Pace.wake, &handler.EnqueueRequestForObject{}, source.WithBufferSize[client.Object, ctrl.Request](wakeAtOnce))).
		WithOptions(options).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the BotDeployment controller: %w", err)
	}
	return nil
}

// afterNewBots wakes the owner of a StatefulSet. When many bots come up at once, the news that one is ready waits
// until the others have been set on their way: those take long, and it is only told.
func afterNewBots() handler.EventHandler {
	add := func(q workqueue.TypedRateLimitingInterface[ctrl.Request], set client.Object, priority int) {
		owner := metav1.GetControllerOf(set)
		if owner == nil || owner.Kind != resources.KindBotDeployment || owner.APIVersion != v1alpha1.GroupVersion.String() {
			return
		}
		bot := ctrl.Request{NamespacedName: client.ObjectKey{Namespace: set.GetNamespace(), Name: owner.Name}}
		if ordered, ok := q.(priorityqueue.PriorityQueue[ctrl.Request]); ok {
			ordered.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, bot)
			return
		}
		q.Add(bot)
	}
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[ctrl.Request]) {
			// A hand may have changed whose it is: whoever owned it before puts that right.
			if was := metav1.GetControllerOf(e.ObjectOld); !equality.Semantic.DeepEqual(was, metav1.GetControllerOf(e.ObjectNew)) {
				add(q, e.ObjectOld, 0)
			}
			add(q, e.ObjectNew, reconcile.LaterPriority)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[ctrl.Request]) {
			add(q, e.Object, 0)
		},
	}
}

// setChange lets a StatefulSet through when its spec has changed, or whether it is done. What its controller counts
// on the way there is no news.
func setChange() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			old, okOld := e.ObjectOld.(*appsv1.StatefulSet)
			now, okNow := e.ObjectNew.(*appsv1.StatefulSet)
			if !okOld || !okNow {
				return true
			}
			return !reconcile.IsResync(e) && (status.IsSetDone(old) != status.IsSetDone(now) || old.Generation != now.Generation ||
				!reconcile.SameMetadata(old, now))
		},
	}
}

// botOfClaim wakes the bot that a volume is on record for.
func botOfClaim(_ context.Context, claim client.Object) []ctrl.Request {
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: claim.GetNamespace(), Name: claim.GetAnnotations()[v1alpha1.AnnotationBot]}}}
}

// decisionsChange lets a Tenant through when something has changed that a bot depends on.
func decisionsChange() predicate.Predicate {
	return reconcile.OnUpdate(func(old, now *v1alpha1.Tenant) bool {
		return old.Spec.State != now.Spec.State || !equality.Semantic.DeepEqual(old.Spec.Quota, now.Spec.Quota) || old.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero() ||
			isInUse(old) != isInUse(now) || !equality.Semantic.DeepEqual(old.Spec.Placement, now.Spec.Placement) ||
			(errForeign(old) == nil) != (errForeign(now) == nil) ||
			!equality.Semantic.DeepEqual(old.Spec.EgressCeiling, now.Spec.EgressCeiling) || (len(old.Spec.Egress) == 0) != (len(now.Spec.Egress) == 0) ||
			!equality.Semantic.DeepEqual(old.Spec.ImagePullSecrets, now.Spec.ImagePullSecrets) || old.Spec.UserNamespaces != now.Spec.UserNamespaces || isUIDRangeTaken(old) != isUIDRangeTaken(now) ||
			!equality.Semantic.DeepEqual(old.Status.UIDRange, now.Status.UIDRange) ||
			!equality.Semantic.DeepEqual(old.Status.Namespaces, now.Status.Namespaces)
	})
}

// ofNamespace wakes the bots of a namespace that begins or ends to be a tenant's.
func (m botMapper) ofNamespace(ctx context.Context, object client.Object) []ctrl.Request {
	return m.in(ctx, object.GetName())
}

// botMapper finds the bots that an event concerns, in the cache as it is.
type botMapper struct{ cache cache.Cache }

func (m botMapper) ofTenant(ctx context.Context, object client.Object) []ctrl.Request {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	names := map[string]bool{}
	for _, namespace := range tenant.Spec.Namespaces {
		names[namespace.Name] = true
	}
	for _, namespace := range tenant.Status.Namespaces {
		names[namespace.Name] = true
	}
	var requests []ctrl.Request
	for name := range names {
		requests = append(requests, m.in(ctx, name)...)
	}
	return requests
}

// in are the bots of a namespace.
func (m botMapper) in(ctx context.Context, namespace string) []ctrl.Request {
	bots := &v1alpha1.BotDeploymentList{}
	if err := m.cache.List(ctx, bots, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing BotDeployments")
		return nil
	}
	var requests []ctrl.Request
	for i := range bots.Items {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&bots.Items[i])})
	}
	return requests
}
