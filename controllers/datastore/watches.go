package datastore

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// SetupWithManager wakes a store for its own changes, for those of its children, of the policies that select or
// selected it, and of the tenants that its plan is made of.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	own := builder.WithPredicates(predicate.Or(reconcile.OwnChange(), predicate.LabelChangedPredicate{})) // policies select by labels
	child := builder.WithPredicates(reconcile.ChildChange())
	err := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.DataStore{}, own).
		Watches(&v1alpha1.DataStore{}, r.wakeNeighbours(), builder.WithPredicates(reconcile.OnUpdate(placeMoved))).
		Owns(&corev1.ServiceAccount{}, child).
		Owns(&corev1.ConfigMap{}, child).
		Owns(&networkingv1.NetworkPolicy{}, child).
		Owns(&batchv1.CronJob{}, child).
		Watches(&batchv1.Job{}, handler.EnqueueRequestsFromMapFunc(r.storeOfJob), builder.WithPredicates(jobMoved())).
		Watches(&v1alpha1.DataRetentionPolicy{}, r.wakeSelected(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Tenant{}, handler.EnqueueRequestsFromMapFunc(r.storesOfTenant), builder.WithPredicates(tenantMoved())).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.storesInNamespace), builder.WithPredicates(reconcile.OnUpdate(reconcile.LabelMoved))).
		WithOptions(options).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the DataStore controller: %w", err)
	}
	return nil
}

// jobMoved lets a Job through when it appears, ends, is suspended or goes away.
func jobMoved() predicate.Predicate {
	return reconcile.OnUpdate(func(old, now *batchv1.Job) bool {
		_, ended := reconcile.FinishedAt(old)
		_, ends := reconcile.FinishedAt(now)
		return ended != ends || isActive(old) != isActive(now)
	})
}

// storeOfJob is the store that owns a Job, itself or through its CronJob.
func (r *Reconciler) storeOfJob(ctx context.Context, job client.Object) []ctrl.Request {
	owner := metav1.GetControllerOf(job)
	if owner != nil && owner.Kind == "CronJob" {
		var cron batchv1.CronJob
		if err := r.Writer.Client.Get(ctx, client.ObjectKey{Namespace: job.GetNamespace(), Name: owner.Name}, &cron, reconcile.StaleReadOK); err != nil {
			return nil
		}
		owner = metav1.GetControllerOf(&cron)
	}
	if owner == nil || owner.Kind != resources.KindDataStore {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: job.GetNamespace(), Name: owner.Name}}}
}

// tenantMoved lets a Tenant through when something that a plan is made of has changed.
func tenantMoved() predicate.Predicate {
	return reconcile.OnUpdate(func(old, now *v1alpha1.Tenant) bool {
		return old.Generation != now.Generation || old.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero() || !equality.Semantic.DeepEqual(old.Status.Namespaces, now.Status.Namespaces)
	})
}

// storesOfTenant are the stores in a tenant's namespaces and every Shared one: its rows may be in any of those.
func (r *Reconciler) storesOfTenant(ctx context.Context, object client.Object) []ctrl.Request {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	return r.storesWhere(ctx, func(s *v1alpha1.DataStore) bool {
		return s.Spec.Tenancy == v1alpha1.TenancyShared || s.Status.Tenant == tenant.Name ||
			tenancy.Mentions(tenant, s.Namespace)
	})
}

// placeMoved says whether a store became, or ceased to be, one of the same tables as another.
func placeMoved(old, now *v1alpha1.DataStore) bool {
	return old.Generation != now.Generation || old.Status.Plan.Identity != now.Status.Plan.Identity || old.Status.Tenant != now.Status.Tenant ||
		old.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero()
}

// wakeNeighbours wakes the other stores of the same database, by its address or by its server, and those that have
// found a conflict with the store. What is there at the start is looked at anyway.
func (r *Reconciler) wakeNeighbours() handler.EventHandler {
	wake := func(ctx context.Context, q reconcile.Queue, objects ...client.Object) {
		places, names := map[string]bool{}, map[string]bool{}
		for _, object := range objects {
			if s, ok := object.(*v1alpha1.DataStore); ok {
				names[s.Namespace+"/"+s.Name] = true
				for _, place := range plan.Places(s) {
					places[place] = true
				}
			}
		}
		for _, request := range r.storesWhere(ctx, func(s *v1alpha1.DataStore) bool {
			return !names[s.Namespace+"/"+s.Name] && (slices.ContainsFunc(plan.Places(s), func(place string) bool { return places[place] }) ||
				slices.ContainsFunc(s.Status.Conflicts, func(c v1alpha1.StoreConflict) bool { return names[c.Store] }))
		}) {
			q.Add(request)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q reconcile.Queue) {
			if !e.IsInInitialList {
				wake(ctx, q, e.Object)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q reconcile.Queue) {
			wake(ctx, q, e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q reconcile.Queue) { wake(ctx, q, e.Object) },
	}
}

// storesInNamespace are the stores of a namespace that begins or ends to be a tenant's.
func (r *Reconciler) storesInNamespace(ctx context.Context, namespace client.Object) []ctrl.Request {
	return r.storesWhere(ctx, func(s *v1alpha1.DataStore) bool { return s.Namespace == namespace.GetName() })
}

// wakeSelected wakes the stores that a policy selects, and those that it selected until now.
func (r *Reconciler) wakeSelected() handler.EventHandler {
	wake := func(ctx context.Context, q reconcile.Queue, objects ...client.Object) {
		var selectors []labels.Selector
		for _, object := range objects {
			if p, ok := object.(*v1alpha1.DataRetentionPolicy); ok {
				selectors = append(selectors, plan.Selector(p))
			}
		}
		for _, request := range r.storesWhere(ctx, func(s *v1alpha1.DataStore) bool {
			for _, selector := range selectors {
				if selector.Matches(labels.Set(s.Labels)) {
					return true
				}
			}
			return false
		}) {
			q.Add(request)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q reconcile.Queue) { wake(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q reconcile.Queue) {
			wake(ctx, q, e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q reconcile.Queue) { wake(ctx, q, e.Object) },
	}
}

func (r *Reconciler) storesWhere(ctx context.Context, wanted func(*v1alpha1.DataStore) bool) []ctrl.Request {
	var list v1alpha1.DataStoreList
	if err := r.Writer.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
		log.FromContext(ctx).Error(err, "Listing DataStores")
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
