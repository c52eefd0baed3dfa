package controllers

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

// TenantReconciler makes a Tenant's namespaces exist, walls them in, and has its keys made.
type TenantReconciler struct {
	Writer   kube.Writer
	Keys     Keys
	Settings resources.Settings
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// Foreign knows the network policies of other hands.
	Foreign *foreignPolicies
	// KeysNamespace can be no Tenant's, and the manager's own neither.
	KeysNamespace string
	// Orphans removes what has no owner any more.
	Orphans *OrphanSweep
	// Doubts are Tenants whose keys are to be asked about now.
	Doubts *keyDoubts

	verified  answers[v1alpha1.UIDRange] // and the range of user ids that was answered
	overruled answers[string]            // by namespace: a Pod Security label that another hand set
}

// tenantScope is one pass over a Tenant.
type tenantScope struct {
	tenant, before *v1alpha1.Tenant
	now            time.Time
	observed       status.TenantObserved
	// owned are the namespaces of the spec that are the tenant's, and dropped those that are no longer in the spec.
	owned, dropped []*corev1.Namespace
	// walled are the owned ones with everything in place.
	walled map[string]bool
	// strangers are objects of other hands from before the walls. suspect says that the Tenant was not isolated, or is not, and
	// no look has shown otherwise yet; suspicion is what there was.
	strangers []string
	suspect   bool
	suspicion string
	// waiting is what a deletion waits for.
	waiting string
	// held are objects that only somebody else's finalizer keeps, in words.
	held []string
	// quiet says that the pass was cut short by something that passes by itself, gone that the Tenant was let go: neither
	// is worth a status.
	quiet, gone bool
}

// newTenantScope begins with what was last known of the steps that a pass may not come to.
func newTenantScope(tenant *v1alpha1.Tenant, now time.Time) *tenantScope {
	s := &tenantScope{tenant: tenant, before: tenant.DeepCopy(), now: now, walled: map[string]bool{}}
	s.observed.InUse = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionInUse)
	s.observed.Paused = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionChangesPaused)
	s.observed.KeysOpen = meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	s.observed.KEKGrade = tenant.Status.KEKGrade
	s.suspect = !meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
	s.suspicion = suspicionOf(tenant)
	if known := tenant.Status.RetainedVolumes; known != nil && tenant.Spec.RetainedVolumes != v1alpha1.RetainedVolumesRelease {
		s.observed.Retained = namesOf(known.Items)
	}
	return s
}

// Reconcile does one pass.
func (r *TenantReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	tenant := &v1alpha1.Tenant{}
	if err := r.Writer.Client.Get(ctx, req.NamespacedName, tenant); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.verified.forget(req.NamespacedName)
			r.Doubts.forget(req.Name)
			r.Orphans.SoonOf(ctx, req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	phases := []phase[*tenantScope]{
		r.ensureFinalizer, r.settleDoubt, r.observeUse, r.observeVolumes, r.observeForeign, r.observeClaims, r.checkClasses, r.ensureNamespaces, r.ensureBindings, r.ensureIsolation, r.releaseDropped, r.ensureKeys,
	}
	if !tenant.DeletionTimestamp.IsZero() {
		if !hasFinalizer(tenant) {
			return ctrl.Result{}, nil
		}
		phases = []phase[*tenantScope]{r.stopPods, r.lookForUse, r.observeVolumes, r.revokeKeys, r.removeNamespaces, r.letGo}
	}
	s := newTenantScope(tenant, r.Clock.Now())
	defer func() { err = errors.Join(err, r.report(ctx, s)) }()

	wait, err := runPhases(ctx, s, phases)
	s.note(err)
	return finish(wait, err)
}

func (r *TenantReconciler) ensureFinalizer(ctx context.Context, s *tenantScope) (time.Duration, error) {
	if err := ensureFinalizer(ctx, r.Writer.Client, s.tenant); err != nil {
		return 0, explain(v1alpha1.ConditionReady, err)
	}
	s.before = s.tenant.DeepCopy()
	return 0, nil
}

// settleDoubt asks the keyserver about keys that may not be those of the status any more. It comes before the other steps, none of which
// has to do with it, and keeps none of them from being taken.
func (r *TenantReconciler) settleDoubt(ctx context.Context, s *tenantScope) (time.Duration, error) {
	doubted := r.Doubts.take(s.tenant)
	if !s.observed.KeysOpen {
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
	answer, err := r.Keys.Tenant(ctx, refTo(resources.KindTenant, s.tenant))
	if err != nil {
		s.observed.KeysOpen = false
		s.note(keyProblem(v1alpha1.ConditionKeysReady, err))
		return 0, nil
	}
	r.verified.put(s.tenant, s.now, v1alpha1.UIDRange(answer.UIDRange))
	return 0, nil
}

// ensureKeys copies the keyserver's CA bundle to where pods mount it, and has the tenant's keys made or found.
func (r *TenantReconciler) ensureKeys(ctx context.Context, s *tenantScope) (time.Duration, error) {
	const condition = v1alpha1.ConditionKeysReady
	open := s.observed.KeysOpen
	s.observed.KeysOpen = false
	bundle := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: r.Settings.Namespace, Name: resources.CABundleName}
	if err := r.Writer.Client.Get(ctx, key, bundle); client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read the keyserver's CA bundle: %w", err)
	}
	if bundle.Data[resources.CABundleKey] == "" {
		return 0, &problem{Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonKeyserverUnavailable,
			Message: fmt.Sprintf("ConfigMap %s is not there yet: the keyserver writes it when it starts.", key)}}
	}
	for _, namespace := range s.owned {
		copied := resources.TenantCABundle(s.tenant, namespace.Name, bundle.Data[resources.CABundleKey], bundle.Data[resources.AddressesKey])
		if _, _, err := kube.Ensure(ctx, r.Writer, copied); err != nil {
			return 0, explain(condition, err)
		}
	}
	verified, known := r.verified.get(s.tenant)
	if !known && open {
		verified.at = s.now.Add(-spread(s.tenant.UID, verifyEvery))
		r.verified.put(s.tenant, verified.at, v1alpha1.UIDRange{})
	}
	if due := verified.at.Add(verifyEvery); open && s.now.Before(due) && isRangeAsVerified(s.tenant, verified) {
		s.observed.KeysOpen = true
		if err := r.showSealingKey(ctx, s, s.tenant.Status.SealingKeys); err != nil {
			return 0, err
		}
		return due.Sub(s.now), checkUIDRange(ctx, r.Writer.Client, s.tenant, condition)
	}
	answer, err := r.Keys.Tenant(ctx, refTo(resources.KindTenant, s.tenant))
	if err != nil {
		return 0, keyProblem(condition, err)
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
	s.observed.KeysOpen, s.observed.KEKGrade = true, answer.KEKGrade
	r.verified.put(s.tenant, s.now, *s.tenant.Status.UIDRange)
	return verifyEvery, checkUIDRange(ctx, r.Writer.Client, s.tenant, condition)
}

// showSealingKey copies the key to seal to into each namespace: the tenant's people may not read the Tenant.
func (r *TenantReconciler) showSealingKey(ctx context.Context, s *tenantScope, keys []v1alpha1.SealingKey) error {
	if len(keys) == 0 {
		return nil
	}
	for _, namespace := range s.owned {
		if err := ensureChild(ctx, r.Writer, resources.TenantSealingKey(s.tenant, namespace.Name, keys[0])); err != nil {
			return explain(v1alpha1.ConditionKeysReady, err)
		}
	}
	return nil
}

// report computes the conditions and writes the status, if it differs.
func (r *TenantReconciler) report(ctx context.Context, s *tenantScope) error {
	if s.gone || s.quiet {
		return nil
	}
	s.noteSuspicion()
	s.observed.WalledIn = len(s.walled) == len(s.tenant.Spec.Namespaces)
	st := &s.tenant.Status
	status.Apply(&st.Conditions, status.Tenant(s.observed), s.tenant.Generation, metav1.NewTime(s.now))
	st.ObservedGeneration = s.tenant.Generation
	written, err := writeStatus(ctx, r.Writer.Client, s.before, s.tenant, sameStatus(s.before.Status, *st))
	if written {
		tell(r.Recorder, s.tenant, s.before.Status.Conditions, st.Conditions)
		was, now := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionReady), meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
		if s.observed.Contested != "" && (was == nil || now == nil || was.Message != now.Message) {
			r.Recorder.Eventf(s.tenant, nil, corev1.EventTypeWarning, v1alpha1.ReasonExternalIDContested, "Reconcile", "%s", s.observed.Contested)
		}
	}
	return err
}

// note keeps a problem for the status. Quiet ones pass by themselves.
func (s *tenantScope) note(err error) {
	p := problemIn(err)
	if p == nil {
		s.quiet = s.quiet || err != nil // a read failed: nothing was learnt that a status could tell
		return
	}
	s.observed.Problems = append(s.observed.Problems, p.Problem)
	s.quiet = s.quiet || p.quiet
}
