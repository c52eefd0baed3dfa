// Package datastore reconciles DataStores: it plans their sweeps, makes them run, and says what they measured.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// +kubebuilder:rbac:groups=lethe.dev,resources=datastores,verbs=list;watch;patch
// +kubebuilder:rbac:groups=lethe.dev,resources=datastores/status,verbs=patch
// +kubebuilder:rbac:groups=lethe.dev,resources=dataretentionpolicies;tenants,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=namespaces;serviceaccounts;configmaps,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=batch,resources=cronjobs;jobs,verbs=list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=serviceaccounts,verbs=get;create;update
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=configmaps,verbs=get;create;update;delete
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=pods,verbs=list
// +kubebuilder:rbac:groups=networking.k8s.io,roleName=lethe-manager-tenant,resources=networkpolicies,verbs=get;create;update
// +kubebuilder:rbac:groups=batch,roleName=lethe-manager-tenant,resources=cronjobs,verbs=get;create;update
// +kubebuilder:rbac:groups=batch,roleName=lethe-manager-tenant,resources=jobs,verbs=get;create

// Reconciler plans a store's sweeps, makes them run, and says what they measured.
type Reconciler struct {
	Writer   kube.Writer
	Keys     reconcile.Keys
	Settings resources.Settings
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// Orphans is told where a store has gone.
	Orphans reconcile.Orphans
	// Doubts is told when the keyserver does not find a Tenant's keys as they were.
	Doubts *reconcile.KeyDoubts
	// Grace is how long what was applied together may take to come right by itself.
	Grace time.Duration
	// Deleted counts what sweeps report.
	Deleted *DeletedRows

	stored reconcile.ResponseCache[struct{}]
}

// scope is one pass over a DataStore.
type scope struct {
	store  *v1alpha1.DataStore      // as read
	status v1alpha1.DataStoreStatus // as it will be written
	now    time.Time

	tenant     *v1alpha1.Tenant
	refusal    *status.Problem
	result     *plan.Result
	hash       string
	planDigest string
	known      string // names the known tenants of a Shared store
	encoded    []byte

	credentials metav1.Condition
	retried     bool            // what is wrong with them comes right by itself
	jobs        []batchv1.Job   // of this store, oldest first
	swept       []sweptJob      // whose reports this pass has read
	unstarted   *status.Problem // why a sweep's pod does not run

	// problem is what stopped the pass, and leaving what a deletion waits for.
	problem, leaving *status.Problem
	// quiet says that the pass was cut short by something that passes by itself.
	quiet bool
}

// Reconcile brings one DataStore to what its spec, the policies and the tenants ask.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	store := &v1alpha1.DataStore{}
	if err := r.Writer.Client.Get(ctx, req.NamespacedName, store); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.Deleted.forget(req.Namespace, req.Name)
			r.stored.Forget(req.NamespacedName)
			r.Orphans.Soon(req.Namespace)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	phases := []reconcile.Phase[*scope]{
		r.compile, r.ensureFinalizer, r.ensureCredentials, r.ensureIsolation, r.ensurePlan, r.readReports, r.lookAtSweep, r.ensureCatchUp, r.cleanPlans,
	}
	if !store.DeletionTimestamp.IsZero() {
		phases = []reconcile.Phase[*scope]{r.stopSweeps, r.revokeKeys, r.removeFinalizer}
	}
	s := &scope{store: store, status: *store.Status.DeepCopy(), now: r.Clock.Now(), credentials: storedBefore(store)}
	defer func() { err = errors.Join(err, r.report(ctx, s)) }()

	wait, err := reconcile.RunPhases(ctx, s, phases)
	s.addProblem(err)
	return reconcile.ToResult(reconcile.MinNonZero(wait, s.nextLook()), err)
}

// addProblem keeps what stopped the pass for the status.
func (s *scope) addProblem(err error) {
	if p := reconcile.ProblemIn(err); p != nil {
		s.problem, s.quiet = &p.Problem, p.Quiet
	}
}

// stopSweeps comes before anything else when a store goes: garbage collection takes the children only when the store
// itself is gone, and somebody's finalizer may keep that. It needs nothing in the namespace, which may be going away
// too.
func (r *Reconciler) stopSweeps(ctx context.Context, s *scope) (time.Duration, error) {
	return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, reconcile.WithoutRights(reconcile.StopSweeps(ctx, r.Writer, s.store)))
}

// revokeKeys comes before the store is let go: with its keys destroyed no sweep gets another lease, and one that runs
// now stops within 30 seconds.
func (r *Reconciler) revokeKeys(ctx context.Context, s *scope) (time.Duration, error) {
	if !reconcile.HasFinalizer(s.store) {
		return 0, nil
	}
	if err := reconcile.Revoke(ctx, r.Keys, reconcile.RefTo(resources.KindDataStore, s.store)); err != nil {
		waiting := reconcile.ProblemIn(reconcile.KeyProblem(v1alpha1.ConditionReady, err))
		waiting.Message = "Its deletion waits until its keys are destroyed: " + waiting.Message
		s.leaving = &waiting.Problem
		return 0, waiting
	}
	r.Deleted.forget(s.store.Namespace, s.store.Name)
	return 0, nil
}

// removeFinalizer lets the store go. One that somebody else's finalizer keeps says so.
func (r *Reconciler) removeFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	if err := reconcile.RemoveFinalizer(ctx, r.Writer.Client, s.store); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	if others := reconcile.ForeignFinalizers(s.store); len(others) > 0 {
		s.leaving = &status.Problem{Reason: v1alpha1.ReasonDeleting, Message: reconcile.HeldMessage(others)}
	}
	return 0, nil
}

// compile makes the plan out of the live objects.
func (r *Reconciler) compile(ctx context.Context, s *scope) (time.Duration, error) {
	if err := r.findConflicts(ctx, s); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	compiled, err := planner.Store(ctx, r.Writer.Client, s.seen(), s.now)
	if refusal, ok := planner.IsRefusal(err); ok {
		s.refuse(refusal.Reason, refusal.Message, v1alpha1.FactsOf(refusal.Reason).NeedsPerson)
		left := reconcile.GraceLeft(s.store, s.status.Conditions, s.now, r.Grace)
		if s.refusal.Reason == v1alpha1.ReasonNoTenant && left > 0 {
			s.refusal.Stalled = false
		}
		if err := r.stopNobodys(ctx, s); err != nil {
			return 0, err
		}
		return left, s.refused()
	}
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	s.tenant, s.result = compiled.Tenant, &compiled.Result
	s.status.Tenant = s.tenant.Name
	if s.encoded, err = plan.Encode(s.result.Plan); err != nil {
		s.refuse(v1alpha1.ReasonPlanTooLarge, err.Error()+"; split the datasets over several DataStores", true)
		return 0, s.refused()
	}
	s.hash = plan.HashBytes(s.encoded)
	if s.planDigest, err = plan.Digest(s.result.Plan); err != nil {
		return 0, fmt.Errorf("hash the plan: %w", err)
	}
	if s.result.Plan.Tenancy == v1alpha1.TenancyShared {
		s.known = plan.KnownName(plan.DigestOf(s.result.Known))
	}
	s.status.Plan.Hash = s.hash
	awaiting := s.result.AwaitingApproval
	s.status.Plan.AwaitingApproval = awaiting[:min(len(awaiting), plan.MaxAwaitingApproval)]
	s.status.Plan.AwaitingApprovalCount, s.status.Plan.Approval = int32(min(len(awaiting), math.MaxInt32)), s.result.Approval()
	return 0, nil
}

// findConflicts looks for other stores on the same tables. What it finds stands in the status before anything runs,
// where the keyserver reads it, too.
func (r *Reconciler) findConflicts(ctx context.Context, s *scope) error {
	var all v1alpha1.DataStoreList
	if err := r.Writer.Client.List(ctx, &all, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("list DataStores: %w", err)
	}
	owner := ""
	whose, err := tenancy.Read(ctx, r.Writer.Client, s.store.Namespace)
	if err != nil {
		return err
	}
	if whose.Standing == tenancy.Held || whose.Standing == tenancy.TenantEnding {
		owner = whose.Tenant.Name
	}
	s.status.Conflicts, s.status.ConflictCount = plan.Conflicts(s.store, owner, all.Items)
	return nil
}

// seen is the store with the conflicts that this pass has found.
func (s *scope) seen() *v1alpha1.DataStore {
	out := *s.store
	out.Status.Conflicts = s.status.Conflicts
	return &out
}

// stopNobodys ends the sweeps of a store whose namespace is no tenant's any more, or that of one that is being
// deleted. The cache may be behind, so it is asked live first, where there is anything to stop.
func (r *Reconciler) stopNobodys(ctx context.Context, s *scope) error {
	cron := &batchv1.CronJob{}
	key := client.ObjectKey{Namespace: s.store.Namespace, Name: resources.SweepName(s.store.Name)}
	err := r.Writer.Client.Get(ctx, key, cron)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return reconcile.ProblemFromError(v1alpha1.ConditionReady, fmt.Errorf("read the CronJob: %w", err))
	}
	nobodys, err := reconcile.IsNobodys(ctx, r.Writer.Live, s.store.Namespace)
	if err == nil && nobodys {
		err = reconcile.WithoutRights(reconcile.StopSweeps(ctx, r.Writer, s.store))
	}
	return reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
}

func (s *scope) refuse(reason, message string, stalled bool) {
	s.status.Plan.AwaitingApproval, s.status.Plan.AwaitingApprovalCount, s.status.Plan.Approval = nil, 0, ""
	s.refusal = &status.Problem{Condition: v1alpha1.ConditionReady, Reason: reason, Message: message, Stalled: stalled}
}

// refused ends the phases: nothing can be done without a plan, and a watch tells when that changes.
func (s *scope) refused() error { return &reconcile.Problem{Problem: *s.refusal} }

// ensureFinalizer comes before the keyserver holds anything for the store.
func (r *Reconciler) ensureFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	if reconcile.HasFinalizer(s.store) {
		return 0, nil
	}
	return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, reconcile.EnsureFinalizer(ctx, r.Writer.Client, s.store))
}

// ensureIsolation makes the sweeps' identity and walls, before anything runs.
func (r *Reconciler) ensureIsolation(ctx context.Context, s *scope) (time.Duration, error) {
	for _, child := range []client.Object{
		resources.SweeperServiceAccount(s.store),
		resources.SweeperNetworkPolicy(r.Settings, s.store, s.tenant),
	} {
		if err := reconcile.EnsureChild(ctx, r.Writer, child); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
		}
	}
	return 0, nil
}

// ensurePlan writes the plan and the CronJob that runs it, once there is a credential to run it with.
func (r *Reconciler) ensurePlan(ctx context.Context, s *scope) (time.Duration, error) {
	if s.status.CredentialsSecret == "" {
		return 0, &reconcile.Problem{Problem: status.Problem{
			Condition: v1alpha1.ConditionCredentialsReady, Reason: s.credentials.Reason, Message: s.credentials.Message, Stalled: true,
		}}
	}
	for _, child := range []client.Object{
		resources.PlanConfigMap(s.store, s.hash, s.encoded),
		resources.SweepCronJob(r.Settings, s.store, s.tenant, s.hash),
	} {
		if err := reconcile.EnsureChild(ctx, r.Writer, child); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
		}
	}
	return 0, nil
}

// nextLook is when time alone changes something: the plan is renewed, or the measurement becomes stale.
func (s *scope) nextLook() time.Duration {
	var wait time.Duration
	if !s.store.DeletionTimestamp.IsZero() {
		return wait
	}
	if s.result != nil {
		wait = plan.ValidUntil(string(s.store.UID), s.now).Sub(s.now) - 7*24*time.Hour
	}
	if at := s.status.MeasuredAt; at != nil {
		if left := at.Add(staleAfter).Sub(s.now); left > 0 {
			wait = reconcile.MinNonZero(wait, left)
		}
	}
	return wait
}
