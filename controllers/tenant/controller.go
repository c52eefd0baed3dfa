// Package tenant reconciles Tenants: namespaces, their isolation and quotas, keys, and who may claim what.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups=lethe.dev,resources=tenants,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=lethe.dev,resources=tenants/status,verbs=patch
// +kubebuilder:rbac:groups=lethe.dev,resources=botdeployments;datastores,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,verbs=bind,resourceNames=lethe-manager-tenant;lethe-keyserver-tenant;lethe-tenant-view;lethe-tenant-operate
// +kubebuilder:rbac:groups="",resources=resourcequotas;limitranges;configmaps,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=resourcequotas;limitranges;configmaps,verbs=get;create;update;delete
// +kubebuilder:rbac:groups=networking.k8s.io,roleName=lethe-manager-tenant,resources=networkpolicies,verbs=get;create;update;delete

// Reconciler makes a Tenant's namespaces exist, walls them in, and has its keys made.
type Reconciler struct {
	Writer   kube.Writer
	Keys     reconcile.Keys
	Settings resources.Settings
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// Foreign knows foreign network policies.
	Foreign *ForeignPolicies
	// KeysNamespace can be no Tenant's, and the manager's own neither.
	KeysNamespace string
	// Orphans removes what has no owner any more.
	Orphans reconcile.Orphans
	// Doubts are Tenants whose keys are to be asked about now.
	Doubts *reconcile.KeyDoubts

	verified  reconcile.ResponseCache[v1alpha1.UIDRange] // and the range of user ids that was answered
	overruled reconcile.ResponseCache[string]            // by namespace: a Pod Security label that somebody else set
}

// scope is one pass over a Tenant.
type scope struct {
	tenant, before *v1alpha1.Tenant
	now            time.Time
	observed       status.TenantObserved
	// owned are the namespaces of the spec that are the tenant's, and dropped those that are no longer in the spec.
	owned, dropped []*corev1.Namespace
	// isolated are the owned ones with everything in place.
	isolated map[string]bool
	// foreign are foreign objects from before the walls. suspect says that the Tenant was not isolated, or is not, and
	// no look has shown otherwise yet; suspicion is what there was.
	foreign   []string
	suspect   bool
	suspicion string
	// waiting is what a deletion waits for.
	waiting string
	// held are objects that only somebody else's finalizer keeps, in words.
	held []string
	// quiet says that the pass was cut short by something that passes by itself, gone that the Tenant was let go:
	// neither is worth a status.
	quiet, gone bool
}

// newTenantScope begins with what was last known of the steps that a pass may not come to.
func newTenantScope(tenant *v1alpha1.Tenant, now time.Time) *scope {
	s := &scope{tenant: tenant, before: tenant.DeepCopy(), now: now, isolated: map[string]bool{}}
	s.observed.InUse = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionInUse)
	s.observed.Paused = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionChangesPaused)
	s.observed.KeysAvailable = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	s.observed.KEKGrade = tenant.Status.KEKGrade
	s.suspect = !meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
	s.suspicion = suspicionOf(tenant)
	if known := tenant.Status.RetainedVolumes; known != nil && tenant.Spec.RetainedVolumes != v1alpha1.RetainedVolumesRelease {
		s.observed.Retained = namesOf(known.Items)
	}
	return s
}

// Reconcile does one pass.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	tenant := &v1alpha1.Tenant{}
	if err := r.Writer.Client.Get(ctx, req.NamespacedName, tenant); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.verified.Forget(req.NamespacedName)
			r.Doubts.Forget(req.Name)
			r.Orphans.SoonOf(ctx, req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	phases := []reconcile.Phase[*scope]{
		r.ensureFinalizer, r.settleDoubt, r.observeUse, r.observeVolumes, r.observeForeign, r.observeClaims, r.checkClasses, r.ensureNamespaces, r.ensureBindings, r.ensureIsolation, r.releaseDropped, r.ensureKeys,
	}
	if !tenant.DeletionTimestamp.IsZero() {
		if !reconcile.HasFinalizer(tenant) {
			return ctrl.Result{}, nil
		}
		phases = []reconcile.Phase[*scope]{r.stopPods, r.lookForUse, r.observeVolumes, r.revokeKeys, r.removeNamespaces, r.removeFinalizer}
	}
	s := newTenantScope(tenant, r.Clock.Now())
	defer func() { err = errors.Join(err, r.report(ctx, s)) }()

	wait, err := reconcile.RunPhases(ctx, s, phases)
	s.addProblem(err)
	return reconcile.ToResult(wait, err)
}

func (r *Reconciler) ensureFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	if err := reconcile.EnsureFinalizer(ctx, r.Writer.Client, s.tenant); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	s.before = s.tenant.DeepCopy()
	return 0, nil
}

// settleDoubt asks the keyserver about keys that may not be those of the status any more. It comes before the other
// steps, none of which has to do with it, and keeps none of them from being taken.
func (r *Reconciler) settleDoubt(ctx context.Context, s *scope) (time.Duration, error) {
	doubted := r.Doubts.Take(s.tenant)
	if !s.observed.KeysAvailable {
		return 0, nil // asked anyway
	}
	if !doubted {
		bundle := &corev1.ConfigMap{}
		key := client.ObjectKey{Namespace: r.Settings.Namespace, Name: resources.CABundleName}
		if err := r.Writer.Client.Get(ctx, key, bundle); client.IgnoreNotFound(err) != nil {
			return 0, fmt.Errorf("read the keyserver's CA bundle: %w", err)
		}
		if !resources.KeysDiffer(bundle, s.tenant.UID) {
			return 0, nil
		}
	}
	answer, err := r.Keys.Tenant(ctx, reconcile.RefTo(resources.KindTenant, s.tenant))
	if err != nil {
		s.observed.KeysAvailable = false
		s.addProblem(reconcile.KeyProblem(v1alpha1.ConditionKeysReady, err))
		return 0, nil
	}
	r.verified.Put(s.tenant, s.now, v1alpha1.UIDRange(answer.UIDRange))
	return 0, nil
}

// ensureKeys copies the keyserver's CA bundle to where pods mount it, and has the tenant's keys made or found.
func (r *Reconciler) ensureKeys(ctx context.Context, s *scope) (time.Duration, error) {
	const condition = v1alpha1.ConditionKeysReady
	open := s.observed.KeysAvailable
	s.observed.KeysAvailable = false
	bundle := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: r.Settings.Namespace, Name: resources.CABundleName}
	if err := r.Writer.Client.Get(ctx, key, bundle); client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read the keyserver's CA bundle: %w", err)
	}
	if bundle.Data[resources.CABundleKey] == "" {
		return 0, &reconcile.Problem{Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonKeyserverUnavailable,
			Message: fmt.Sprintf("ConfigMap %s is not there yet: the keyserver writes it when it starts.", key)}}
	}
	for _, namespace := range s.owned {
		copied := resources.TenantCABundle(s.tenant, namespace.Name, bundle.Data[resources.CABundleKey], bundle.Data[resources.AddressesKey])
		if _, _, err := kube.Ensure(ctx, r.Writer, copied); err != nil {
			return 0, reconcile.ProblemFromError(condition, err)
		}
	}
	verified, known := r.verified.Get(s.tenant)
	if !known && open {
		verified.At = s.now.Add(-reconcile.Jitter(s.tenant.UID, reconcile.VerifyEvery))
		r.verified.Put(s.tenant, verified.At, v1alpha1.UIDRange{})
	}
	if due := verified.At.Add(reconcile.VerifyEvery); open && s.now.Before(due) && isRangeAsVerified(s.tenant, verified) {
		s.observed.KeysAvailable = true
		if err := r.showSealingKey(ctx, s, s.tenant.Status.SealingKeys); err != nil {
			return 0, err
		}
		return due.Sub(s.now), reconcile.CheckUIDRange(ctx, r.Writer.Client, s.tenant, condition)
	}
	answer, err := r.Keys.Tenant(ctx, reconcile.RefTo(resources.KindTenant, s.tenant))
	if err != nil {
		return 0, reconcile.KeyProblem(condition, err)
	}
	// The keyserver puts keys, range and grade into the status itself: the manager may not.
	if err := takeUIDRange(r.Recorder, s, answer.UIDRange); err != nil {
		return 0, err
	}
	var keys []v1alpha1.SealingKey
	for _, k := range answer.SealingKeys {
		keys = append(keys, v1alpha1.SealingKey(k))
	}
	if err := r.showSealingKey(ctx, s, keys); err != nil {
		return 0, err
	}
	s.observed.KeysAvailable, s.observed.KEKGrade = true, answer.KEKGrade
	r.verified.Put(s.tenant, s.now, *s.tenant.Status.UIDRange)
	return reconcile.VerifyEvery, reconcile.CheckUIDRange(ctx, r.Writer.Client, s.tenant, condition)
}

// showSealingKey copies the key to seal to into each namespace: the tenant's people may not read the Tenant.
func (r *Reconciler) showSealingKey(ctx context.Context, s *scope, keys []v1alpha1.SealingKey) error {
	if len(keys) == 0 {
		return nil
	}
	for _, namespace := range s.owned {
		if err := reconcile.EnsureChild(ctx, r.Writer, resources.TenantSealingKey(s.tenant, namespace.Name, keys[0])); err != nil {
			return reconcile.ProblemFromError(v1alpha1.ConditionKeysReady, err)
		}
	}
	return nil
}

// report computes the conditions and writes the status, if it differs.
func (r *Reconciler) report(ctx context.Context, s *scope) error {
	if s.gone || s.quiet {
		return nil
	}
	s.noteSuspicion()
	s.observed.Isolated = len(s.isolated) == len(s.tenant.Spec.Namespaces)
	st := &s.tenant.Status
	status.Apply(&st.Conditions, status.Tenant(s.observed), s.tenant.Generation, metav1.NewTime(s.now))
	st.ObservedGeneration = s.tenant.Generation
	written, err := reconcile.WriteStatus(ctx, r.Writer.Client, s.before, s.tenant, reconcile.SameStatus(s.before.Status, *st))
	if written {
		reconcile.EmitEvents(r.Recorder, s.tenant, s.before.Status.Conditions, st.Conditions)
		was, now := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionReady), meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
		if s.observed.Contested != "" && (was == nil || now == nil || was.Message != now.Message) {
			r.Recorder.Eventf(s.tenant, nil, corev1.EventTypeWarning, v1alpha1.ReasonExternalIDContested, "Reconcile", "%s", s.observed.Contested)
		}
	}
	return err
}

// addProblem keeps a problem for the status. Quiet ones pass by themselves.
func (s *scope) addProblem(err error) {
	p := reconcile.ProblemIn(err)
	if p == nil {
		s.quiet = s.quiet || err != nil // a read failed: nothing was learnt that a status could tell
		return
	}
	s.observed.Problems = append(s.observed.Problems, p.Problem)
	s.quiet = s.quiet || p.Quiet
}
