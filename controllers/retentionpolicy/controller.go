// Package retentionpolicy reconciles DataRetentionPolicies: it says whether a promise is kept in all the stores that
// it is about.
package retentionpolicy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups=lethe.dev,resources=dataretentionpolicies;datastores,verbs=list;watch
// +kubebuilder:rbac:groups=lethe.dev,resources=dataretentionpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// gatherFor is how long a policy waits for more of its stores to be measured before it sums them up: a thousand
// stores that are measured in one minute are not a thousand sums.
const gatherFor = time.Second

// Reconciler says whether a promise is kept in all the stores that it is about. It writes nothing but
// the policy's status: plans and sweeps are the stores' own.
type Reconciler struct {
	Writer   kube.Writer
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
}

// scope is one pass over a DataRetentionPolicy.
type scope struct {
	policy, before *v1alpha1.DataRetentionPolicy
	now            time.Time
	// stores are those that the policy selects, and others those that it does not; nothing is said before they are
	// known.
	stores, others []*v1alpha1.DataStore
	known          bool
}

// Reconcile sums up one policy.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	policy := &v1alpha1.DataRetentionPolicy{}
	if err := r.Writer.Client.Get(ctx, req.NamespacedName, policy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !policy.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	s := &scope{policy: policy, before: policy.DeepCopy(), now: r.Clock.Now()}
	defer func() { err = errors.Join(err, r.report(ctx, s)) }()
	return reconcile.ToResult(reconcile.RunPhases(ctx, s, []reconcile.Phase[*scope]{r.observeStores}))
}

// observeStores finds the stores that the policy is about.
func (r *Reconciler) observeStores(ctx context.Context, s *scope) (_ time.Duration, err error) {
	s.stores, s.others, err = r.selected(ctx, s.policy)
	s.known = err == nil
	return 0, err
}

// report computes the conditions and writes the status, if it differs.
func (r *Reconciler) report(ctx context.Context, s *scope) error {
	if !s.known {
		return nil
	}
	st := &s.policy.Status
	sums, conditions := status.Policy(status.PolicyObserved{Policy: s.before, Stores: s.stores, Others: s.others, Problems: plan.Check(s.before, s.stores)})
	sums.Conditions = st.Conditions
	sums.ObservedGeneration = s.policy.Generation
	*st = sums
	status.Apply(&st.Conditions, conditions, s.policy.Generation, metav1.NewTime(s.now))
	written, err := reconcile.WriteStatus(ctx, r.Writer.Client, s.before, s.policy, reconcile.SameStatus(s.before.Status, *st))
	if written {
		reconcile.EmitEvents(r.Recorder, s.policy, s.before.Status.Conditions, st.Conditions)
	}
	return err
}

// selected returns the stores that a policy selects, and the others, as far as they are not going away. They are the
// cache's own: read only.
func (r *Reconciler) selected(ctx context.Context, policy *v1alpha1.DataRetentionPolicy) (selected, others []*v1alpha1.DataStore, err error) {
	var list v1alpha1.DataStoreList
	if err := r.Writer.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
		return nil, nil, fmt.Errorf("list stores: %w", err)
	}
	selector := plan.Selector(policy)
	for i := range list.Items {
		s := &list.Items[i]
		switch {
		case !s.DeletionTimestamp.IsZero():
		case selector.Matches(labels.Set(s.Labels)):
			selected = append(selected, s)
		default:
			others = append(others, s)
		}
	}
	return selected, others, nil
}

// SetupWithManager wakes a policy for its own changes and for those of the stores that it selects or selected.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	err := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.DataRetentionPolicy{}, builder.WithPredicates(reconcile.OwnChange())).
		Watches(&v1alpha1.DataStore{}, r.wakePolicies(), builder.WithPredicates(storeMoved())).
		WithOptions(options).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the DataRetentionPolicy controller: %w", err)
	}
	return nil
}

// storeMoved lets a store through when something that a policy sums up, or judges by, has changed.
func storeMoved() predicate.Predicate {
	return reconcile.OnUpdate(func(old, now *v1alpha1.DataStore) bool {
		return old.Generation != now.Generation || !equality.Semantic.DeepEqual(old.Labels, now.Labels) ||
			!equality.Semantic.DeepEqual(old.Status.Conditions, now.Status.Conditions) ||
			!equality.Semantic.DeepEqual(old.Status.Promises, now.Status.Promises) ||
			!equality.Semantic.DeepEqual(old.Status.Datasets, now.Status.Datasets)
	})
}

func (r *Reconciler) wakePolicies() handler.EventHandler {
	wake := func(ctx context.Context, q reconcile.Queue, relabelled bool, objects ...client.Object) {
		var list v1alpha1.DataRetentionPolicyList
		if err := r.Writer.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
			log.FromContext(ctx).Error(err, "Listing DataRetentionPolicies")
			return
		}
		for i := range list.Items {
			selector := plan.Selector(&list.Items[i])
			for _, store := range objects {
				// One that selects none says which store is nearly selected.
				if relabelled && list.Items[i].Status.Matched == 0 || selector.Matches(labels.Set(store.GetLabels())) {
					q.AddAfter(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}, gatherFor)
					break
				}
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q reconcile.Queue) { wake(ctx, q, true, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q reconcile.Queue) {
			wake(ctx, q, !equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()), e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q reconcile.Queue) { wake(ctx, q, true, e.Object) },
	}
}
