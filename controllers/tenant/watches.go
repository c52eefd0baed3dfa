package tenant

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// SetupWithManager wakes a Tenant for its own changes, for those of its children and namespaces, for a new CA bundle
// of the keyserver, for the first bot or store in it and the last one out, and for a Tenant that claims the same
// identifiers.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	m := tenantMapper{cache: mgr.GetCache(), bundle: client.ObjectKey{Namespace: r.Settings.Namespace, Name: resources.CABundleName}}
	comesOrGoes := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return reconcile.IsHeld(e.ObjectOld) != reconcile.IsHeld(e.ObjectNew) || (e.ObjectOld.GetDeletionTimestamp() == nil) != (e.ObjectNew.GetDeletionTimestamp() == nil)
	}})
	err := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.Tenant{}, builder.WithPredicates(predicate.Or(reconcile.OwnChange(), uidRangeChange(), keysChoice()))).
		Owns(&rbacv1.RoleBinding{}, builder.WithPredicates(reconcile.ChildChange())).
		Owns(&networkingv1.NetworkPolicy{}, builder.WithPredicates(reconcile.ChildChange())).
		Owns(&corev1.ResourceQuota{}, builder.WithPredicates(reconcile.ChildChange())).
		Owns(&corev1.LimitRange{}, builder.WithPredicates(reconcile.ChildChange())).
		Owns(&corev1.ConfigMap{}, builder.WithPredicates(reconcile.ChildChange())).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(m.ofBundle)).
		// A foreign object that carries our label: the Tenant says so. Those that are ours wake whom they belong to.
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(m.ofPolicy), builder.WithPredicates(foreignPolicyChange())).
		WatchesRawSource(source.Channel(r.Foreign.events, handler.EnqueueRequestsFromMapFunc(m.ofPolicy))).
		WatchesRawSource(source.Channel(r.Doubts.Events, &handler.EnqueueRequestForObject{})).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(m.ofNamespace)).
		Watches(&v1alpha1.BotDeployment{}, handler.EnqueueRequestsFromMapFunc(m.ofUse), comesOrGoes).
		Watches(&v1alpha1.BotDeployment{}, handler.EnqueueRequestsFromMapFunc(m.ofHome), builder.WithPredicates(botWithVolumeGoes())).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(m.ofHome), builder.WithPredicates(reconcile.ClaimChange())).
		Watches(&v1alpha1.DataStore{}, handler.EnqueueRequestsFromMapFunc(m.ofUse), comesOrGoes).
		Watches(&v1alpha1.Tenant{}, handler.EnqueueRequestsFromMapFunc(m.ofClaims), builder.WithPredicates(claimsChange())).
		WithOptions(options).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the Tenant controller: %w", err)
	}
	return nil
}

// keysChoice lets a Tenant through for which somebody has chosen whose keys it gets: the keyserver is asked again.
func keysChoice() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetAnnotations()[v1alpha1.AnnotationKeys] != e.ObjectNew.GetAnnotations()[v1alpha1.AnnotationKeys]
	}}
}

// tenantMapper finds the Tenants that an event concerns. It reads the cache as it is: an event must never wait for
// another.
type tenantMapper struct {
	cache  cache.Cache
	bundle client.ObjectKey
}

func (m tenantMapper) ofBundle(ctx context.Context, object client.Object) []ctrl.Request {
	if client.ObjectKeyFromObject(object) != m.bundle {
		return nil
	}
	return m.list(ctx)
}

// ofNamespace wakes the Tenant that the label names, and those that list the namespace.
func (m tenantMapper) ofNamespace(ctx context.Context, object client.Object) []ctrl.Request {
	requests := m.list(ctx, client.MatchingFields{reconcile.IndexNamespace: object.GetName()})
	return append(requests, request(object.GetLabels()[v1alpha1.LabelTenant]))
}

// foreignPolicyChange lets a policy through that is, or was until now, not ours: also one that was put right.
func foreignPolicyChange() predicate.Predicate {
	foreign := predicate.NewPredicateFuncs(func(object client.Object) bool { return !isOurPolicy(object) })
	return predicate.Funcs{CreateFunc: foreign.Create, DeleteFunc: foreign.Delete, GenericFunc: foreign.Generic,
		UpdateFunc: func(e event.UpdateEvent) bool { return !isOurPolicy(e.ObjectOld) || !isOurPolicy(e.ObjectNew) }}
}

// ofPolicy wakes the Tenant in whose namespace a foreign network policy came or went.
func (m tenantMapper) ofPolicy(ctx context.Context, object client.Object) []ctrl.Request {
	namespace := &corev1.Namespace{}
	if err := m.cache.Get(ctx, client.ObjectKey{Name: object.GetNamespace()}, namespace, client.UnsafeDisableDeepCopy); err != nil {
		return nil // not a tenant's
	}
	return []ctrl.Request{request(namespace.Labels[v1alpha1.LabelTenant])}
}

// ofUse wakes a Tenant when what it says about being in use is no longer so: not for each of a thousand bots. One
// that has taken the namespace off its list waits for each of them to go.
func (m tenantMapper) ofUse(ctx context.Context, object client.Object) []ctrl.Request {
	namespace := &corev1.Namespace{}
	if err := m.cache.Get(ctx, client.ObjectKey{Name: object.GetNamespace()}, namespace, client.UnsafeDisableDeepCopy); err != nil {
		return nil // not a tenant's
	}
	tenant := &v1alpha1.Tenant{}
	name := namespace.Labels[v1alpha1.LabelTenant]
	if err := m.cache.Get(ctx, client.ObjectKey{Name: name}, tenant, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	used, err := holdsOurs(ctx, m.cache, object.GetNamespace())
	said := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionInUse)
	listed := tenancy.Lists(tenant, object.GetNamespace())
	if err == nil && listed && used == (said != nil && said.Reason == v1alpha1.ReasonHoldsBots) && tenant.DeletionTimestamp.IsZero() {
		return nil
	}
	return []ctrl.Request{request(name)}
}

// botWithVolumeGoes lets a bot through that may leave a volume behind.
func botWithVolumeGoes() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		DeleteFunc: func(e event.DeleteEvent) bool {
			bot, ok := e.Object.(*v1alpha1.BotDeployment)
			return ok && bot.Spec.Storage != nil
		},
	}
}

// ofHome wakes the Tenant whose namespace an object is in.
func (m tenantMapper) ofHome(ctx context.Context, object client.Object) []ctrl.Request {
	namespace := &corev1.Namespace{}
	if err := m.cache.Get(ctx, client.ObjectKey{Name: object.GetNamespace()}, namespace, client.UnsafeDisableDeepCopy); err != nil {
		return nil // not a tenant's
	}
	return []ctrl.Request{request(namespace.Labels[v1alpha1.LabelTenant])}
}

// ofClaims wakes the other Tenants that claim an identifier of this one, or user ids.
func (m tenantMapper) ofClaims(ctx context.Context, object client.Object) []ctrl.Request {
	var others []ctrl.Request
	for _, key := range reconcile.ExternalIDsOf(object) {
		others = append(others, m.list(ctx, client.MatchingFields{reconcile.IndexExternalID: key})...)
	}
	for _, block := range reconcile.UIDBlocksOf(object) {
		others = append(others, m.list(ctx, client.MatchingFields{reconcile.IndexUIDBlock: block})...)
	}
	return slices.DeleteFunc(others, func(other ctrl.Request) bool { return other.Name == object.GetName() })
}

func (m tenantMapper) list(ctx context.Context, options ...client.ListOption) []ctrl.Request {
	tenants := &v1alpha1.TenantList{}
	if err := m.cache.List(ctx, tenants, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing Tenants")
		return nil
	}
	var requests []ctrl.Request
	for i := range tenants.Items {
		requests = append(requests, request(tenants.Items[i].Name))
	}
	return requests
}

func request(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Name: name}}
}

func claimsChange() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !slices.Equal(reconcile.ExternalIDsOf(e.ObjectOld), reconcile.ExternalIDsOf(e.ObjectNew)) || !slices.Equal(heldIDsOf(e.ObjectOld), heldIDsOf(e.ObjectNew)) ||
			!slices.Equal(reconcile.UIDBlocksOf(e.ObjectOld), reconcile.UIDBlocksOf(e.ObjectNew))
	}}
}
