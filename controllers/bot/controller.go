// Package bot reconciles BotDeployments: each becomes one isolated pod.
package bot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups=lethe.dev,resources=botdeployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=lethe.dev,resources=botdeployments/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=list;watch
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=list;watch
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=serviceaccounts,verbs=get;create;update
// +kubebuilder:rbac:groups=apps,roleName=lethe-manager-tenant,resources=statefulsets,verbs=get;create;update
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=pods,verbs=get
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=events,verbs=list
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get

// Reconciler turns a BotDeployment into one isolated pod.
type Reconciler struct {
	Writer   kube.Writer
	Keys     reconcile.Keys
	Settings resources.Settings
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// Orphans is told where a bot has gone.
	Orphans reconcile.Orphans
	// StatusGracePeriod is how long a new generation may take before a status says that it is on its way. Until then
	// the status that the object was made with, or the generation that it speaks of, says so: one write saved for
	// each bot that comes up.
	StatusGracePeriod time.Duration
	// Grace is how long what was applied together may take to come right by itself.
	Grace time.Duration

	// Pace says when a ready bot may be restarted because of Lethe.
	Pace *Pacer

	// Doubts is told when the keyserver does not find a Tenant's keys as they were.
	Doubts *reconcile.KeyDoubts
	// DNS knows whether the walls let bots reach what answers DNS.
	DNS *dnscheck.Check

	stored           reconcile.ResponseCache[storedCredentials]
	generationSeenAt reconcile.ResponseCache[struct{}]
	files            reconcile.ResponseCache[[]string] // digests of contents, by their place in spec.files
}

// scope is one pass over a BotDeployment.
type scope struct {
	bot, before *v1alpha1.BotDeployment
	// sketch is the bot with what is known of the contents of its files.
	sketch *v1alpha1.BotDeployment
	// restart is what to say of a restart that somebody asked for, once it is under way.
	restart  string
	now      time.Time
	observed status.BotObserved
	tenant   *v1alpha1.Tenant
	// running is the StatefulSet before this pass, or nil.
	running *appsv1.StatefulSet
	// secret names the encrypted Secret that the pod is to use.
	secret string
	// generationSeenAt is when this generation was first worked on.
	generationSeenAt time.Time
	// anew: what kept the bot until now is over. The time that it may take begins now.
	anew bool
	// held is why what runs is not replaced by what is to run.
	held *heldBack
	// rolling says that the bot is on its way because of Lethe.
	rolling bool
	// quiet says that the pass was cut short by something that passes by itself, gone that the bot was let go.
	quiet, gone bool
}

// Reconcile does one pass.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	bot := &v1alpha1.BotDeployment{}
	if err := r.Writer.Client.Get(ctx, req.NamespacedName, bot); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.stored.Forget(req.NamespacedName)
			r.generationSeenAt.Forget(req.NamespacedName)
			r.files.Forget(req.NamespacedName)
			r.Pace.next(ctx, visit{bot: req.NamespacedName, tenant: reconcile.TenantOfNamespace(ctx, r.Writer.Client, req.Namespace), isGone: true})
			r.Orphans.Soon(req.Namespace)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	phases := []reconcile.Phase[*scope]{
		r.findTenant, r.stopSuspended, r.ensureFinalizer, r.ensureIsolation, r.ensureCredentials, r.ensureVolume, r.ensureFiles, r.ensureWorkload,
	}
	if !bot.DeletionTimestamp.IsZero() {
		phases = []reconcile.Phase[*scope]{r.stopForGood, r.revokeKeys, r.releaseVolumes, r.removeFinalizer}
	}
	s := &scope{bot: bot, before: bot.DeepCopy(), now: r.Clock.Now()}
	s.generationSeenAt = r.beginning(s)
	defer func() {
		err = errors.Join(err, r.report(ctx, s))
		wasRolling := s.running != nil && s.running.Annotations[v1alpha1.AnnotationRolling] != ""
		v := visit{bot: req.NamespacedName, tenant: reconcile.TenantOfNamespace(ctx, r.Writer.Client, req.Namespace), isRolling: wasRolling || s.rolling}
		if stopped, whose := r.Pace.next(ctx, v); stopped {
			r.tellStopped(bot, whose)
		}
	}()

	wait, err := reconcile.RunPhases(ctx, s, phases)
	s.addProblem(err)
	if bot.DeletionTimestamp.IsZero() {
		wait, err = r.observeStopped(ctx, s, wait, err)
	}
	if r.isSettling(s) {
		wait = reconcile.MinNonZero(wait, r.StatusGracePeriod-s.now.Sub(s.generationSeenAt)) // to tell what still keeps it then
	}
	return reconcile.ToResult(wait, err)
}

func (r *Reconciler) findTenant(ctx context.Context, s *scope) (time.Duration, error) {
	s.bot.Status.Tenant = ""
	tenant, err := tenantOf(ctx, r.Writer.Client, s.bot.Namespace)
	switch p := reconcile.ProblemIn(err); {
	case p == nil:
	case p.Reason == v1alpha1.ReasonNoTenant:
		if left := reconcile.GraceLeft(s.bot, s.bot.Status.Conditions, s.now, r.Grace); left > 0 {
			p.Stalled, p.After = false, left
		}
		if err := r.stopNobodys(ctx, s); err != nil {
			return 0, err
		}
	case p.Reason == v1alpha1.ReasonTerminating:
		// Kubernetes may have taken our rights there already: it stops what runs itself then.
		if err := reconcile.WithoutRights(r.stopNobodys(ctx, s)); err != nil {
			return 0, err
		}
	}
	if err != nil {
		return 0, err
	}
	s.tenant = tenant
	s.bot.Status.Tenant = tenant.Name
	return 0, nil
}

// ensureFinalizer makes sure that the keyserver is told when a bot goes that it holds keys for, and that a volume
// goes that is to go with its bot.
func (r *Reconciler) ensureFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	goes := s.bot.Spec.Storage != nil && resources.ReclaimPolicyOf(s.bot) == resources.ReclaimDelete
	if (len(s.bot.Spec.Credentials) == 0 && !goes) || reconcile.HasFinalizer(s.bot) {
		return 0, nil
	}
	if err := reconcile.EnsureFinalizer(ctx, r.Writer.Client, s.bot); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionCredentialsReady, err)
	}
	s.before = s.bot.DeepCopy() // the answer to the patch
	s.bot.Status.Tenant = s.tenant.Name
	return 0, nil
}

// ensureIsolation comes before anything runs.
func (r *Reconciler) ensureIsolation(ctx context.Context, s *scope) (time.Duration, error) {
	for _, child := range []client.Object{resources.BotNetworkPolicy(r.Settings, s.bot, s.tenant), resources.BotServiceAccount(s.bot)} {
		if err := reconcile.EnsureChild(ctx, r.Writer, child); err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionIsolationReady, err)
		}
	}
	s.observed.Isolated = true
	if beyond := resources.BeyondCeiling(s.bot, s.tenant); len(beyond) > 0 {
		s.observed.Isolated = false
		s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: v1alpha1.ReasonEgressBeyondCeiling, Stalled: true,
			Message: fmt.Sprintf("%s asks for more than the Tenant's egressCeiling lets through; only what lies within is open. Narrow it, or have the Tenant's egressCeiling widened.",
				strings.Join(beyond, ", "))}})
	}
	if refused := r.Settings.RefusedAnnotations(s.bot); len(refused) > 0 {
		s.observed.Isolated = false
		s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: v1alpha1.ReasonAnnotationNotAllowed, Stalled: true,
			Message: fmt.Sprintf("spec.podAnnotations[%s] is not one that this installation lets bots have, and is left out. Take it out of the spec, or have it allowed (chart: pods.botAnnotations).",
				strings.Join(refused, ", "))}})
	}
	if closed := r.DNS.Closed(); closed != "" && resources.HasDNS(r.Settings, s.bot, s.tenant) && !resources.IsSuspended(s.bot, s.tenant) {
		s.observed.Isolated = false
		s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: v1alpha1.ReasonDNSOutOfReach, Message: "The bot cannot look up names: " + closed}})
	}
	// Stopping a bot needs nobody's leave.
	if err := errForeign(s.tenant); err != nil && !resources.IsSuspended(s.bot, s.tenant) {
		s.observed.Isolated = false
		return 0, err
	}
	return 0, r.findKeyserver(ctx, s)
}

// findKeyserver makes sure that a bot without DNS is told where the keyserver is: nothing would start, and nothing
// say why.
func (r *Reconciler) findKeyserver(ctx context.Context, s *scope) error {
	if len(s.bot.Spec.Credentials) == 0 || resources.HasDNS(r.Settings, s.bot, s.tenant) || resources.IsSuspended(s.bot, s.tenant) {
		return nil
	}
	bundle := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: s.bot.Namespace, Name: resources.CABundleName}
	if err := r.Writer.Client.Get(ctx, key, bundle); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read the keyserver's addresses: %w", err)
	}
	if bundle.Data[resources.AddressesKey] != "" {
		return nil
	}
	return &reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{Condition: v1alpha1.ConditionCredentialsReady, Reason: v1alpha1.ReasonKeyserverAddressUnknown,
		Message: fmt.Sprintf("The bot has no egress, so it has no DNS, and it cannot be told an address of the keyserver: Service %s in %s must be one with a cluster IP.",
			resources.ServiceKeyserver, r.Settings.Namespace)}}
}

// stopNobodys stops a bot whose namespace is no tenant's any more, or is being deleted. The cache may be behind, so
// it is asked live first.
func (r *Reconciler) stopNobodys(ctx context.Context, s *scope) error {
	set, err := setOfBot(ctx, r.Writer.Client, s.bot)
	if err != nil || set == nil || !reconcile.RunsPods(set) {
		return reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	nobodys, err := reconcile.IsNobodys(ctx, r.Writer.Live, s.bot.Namespace)
	if err != nil || !nobodys {
		return reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	err = reconcile.ScaleToNothing(ctx, r.Writer, set)
	if apierrors.IsForbidden(err) {
		err = r.Orphans.Regain(ctx, s.bot.Namespace, err)
	}
	return reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
}

// stopSuspended comes before every step that could fail: suspending a bot needs nobody's leave.
func (r *Reconciler) stopSuspended(ctx context.Context, s *scope) (time.Duration, error) {
	if !resources.IsSuspended(s.bot, s.tenant) {
		return 0, nil
	}
	set, err := setOfBot(ctx, r.Writer.Client, s.bot)
	if err == nil && set != nil {
		err = reconcile.ScaleToNothing(ctx, r.Writer, set)
	}
	return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
}

// stop takes the bot's pod and leaves everything else of its StatefulSet as it is.
func (r *Reconciler) stop(ctx context.Context, s *scope) error {
	if s.running == nil {
		return nil
	}
	return reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, reconcile.ScaleToNothing(ctx, r.Writer, s.running))
}

// stopForGood comes before anything else when a bot goes: garbage collection would take its StatefulSet only after
// the bot itself is gone, and somebody's finalizer may keep that.
func (r *Reconciler) stopForGood(ctx context.Context, s *scope) (time.Duration, error) {
	s.observed.Deleting = "Stopping the bot."
	set, err := setOfBot(ctx, r.Writer.Client, s.bot)
	if err == nil && set != nil && set.DeletionTimestamp == nil {
		err = reconcile.WithoutRights(r.Writer.Delete(ctx, set))
	}
	return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
}

// revokeKeys comes before anything slower: without its keys the bot's pod cannot start again.
func (r *Reconciler) revokeKeys(ctx context.Context, s *scope) (time.Duration, error) {
	if !reconcile.HasFinalizer(s.bot) {
		return 0, nil
	}
	s.observed.Deleting = "Destroying the bot's keys."
	if err := reconcile.Revoke(ctx, r.Keys, reconcile.RefTo(resources.KindBotDeployment, s.bot)); err != nil {
		return 0, reconcile.KeyProblem(v1alpha1.ConditionCredentialsReady, err)
	}
	return 0, nil
}

// removeFinalizer drops the finalizer. Garbage collection removes the children, which the bot owns. A bot that
// somebody else's finalizer keeps says so.
func (r *Reconciler) removeFinalizer(ctx context.Context, s *scope) (time.Duration, error) {
	others := reconcile.ForeignFinalizers(s.bot)
	if !reconcile.HasFinalizer(s.bot) {
		if s.gone = len(others) == 0; !s.gone {
			s.observed.Deleting = reconcile.HeldMessage(others)
		}
		return 0, nil
	}
	if err := reconcile.RemoveFinalizer(ctx, r.Writer.Client, s.bot); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionReady, err)
	}
	s.gone = true
	return 0, nil
}

// beginning is when this process first saw the present generation.
func (r *Reconciler) beginning(s *scope) time.Time {
	known, ok := r.generationSeenAt.Get(s.bot)
	if ok && known.Generation == s.bot.Generation {
		return known.At
	}
	r.generationSeenAt.Put(s.bot, s.now, struct{}{})
	return s.now
}

// report computes the conditions and writes the status, if it differs and is worth it.
func (r *Reconciler) report(ctx context.Context, s *scope) error {
	if s.gone || s.quiet || r.isSettling(s) {
		return nil
	}
	st := &s.bot.Status
	if s.anew {
		meta.RemoveStatusCondition(&st.Conditions, v1alpha1.ConditionReconciling) // it begins to, now
	}
	status.Apply(&st.Conditions, status.Bot(s.observed), s.bot.Generation, metav1.NewTime(s.now))
	st.ObservedGeneration = s.bot.Generation
	written, err := reconcile.WriteStatus(ctx, r.Writer.Client, s.before, s.bot, reconcile.SameStatus(s.before.Status, *st))
	if written {
		reconcile.EmitEvents(r.Recorder, s.bot, s.before.Status.Conditions, st.Conditions)
	}
	return err
}

// isSettling says that a new generation is on its way and nothing is wrong with it so far.
func (r *Reconciler) isSettling(s *scope) bool {
	o := s.observed
	return o.Deleting == "" && isNew(s.bot) && s.now.Sub(s.generationSeenAt) < r.StatusGracePeriod &&
		(o.Problem == nil || !o.Problem.Stalled) && (o.Workload == nil || !o.Workload.Done && !o.Workload.Trouble)
}

// isNew says that no status speaks of the present generation yet.
func isNew(bot *v1alpha1.BotDeployment) bool { return bot.Status.ObservedGeneration != bot.Generation }

// addProblem keeps the first problem for the status.
func (s *scope) addProblem(err error) {
	p := reconcile.ProblemIn(err)
	if p == nil {
		s.quiet = s.quiet || err != nil // a read failed: nothing was learnt that a status could tell
		return
	}
	s.quiet = s.quiet || p.Quiet
	if s.observed.Problem == nil {
		s.observed.Problem = &p.Problem
	}
}
