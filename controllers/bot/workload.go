package bot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

const (
	// looksPerSecond bounds the looks at all unready bots together.
	looksPerSecond = 20
	// mostEvents that are read about one pod: Kubernetes counts repetitions and does not repeat them.
	mostEvents = 100
	// turnEvery is how often a bot looks for its turn by itself, in case that nobody calls.
	turnEvery = 5 * time.Minute
)

// ensureWorkload runs the bot, and finds out how it is.
func (r *Reconciler) ensureWorkload(ctx context.Context, s *scope) (time.Duration, error) {
	s.observed.Suspended = suspension(s.bot, s.tenant)
	if err := reconcile.CheckUIDRange(ctx, r.Writer.Client, s.tenant, v1alpha1.ConditionWorkloadReady); err != nil {
		return 0, err
	}
	if s.running == nil && s.observed.Suspended == status.NotSuspended && !isInUse(s.tenant) {
		// Admission refuses to delete a Tenant that says that it is in use, so it says so before anything runs for it.
		return 0, &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonTenantNotReady,
			Message: fmt.Sprintf("Tenant %s does not say yet that it is in use: see its condition InUse.", s.tenant.Name)}}
	}
	set, turn, err := r.ensureSet(ctx, s, false)
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	r.tellRestart(s)
	s.rolling = set.Annotations[v1alpha1.AnnotationRolling] != ""
	if !status.IsSetDone(set) {
		return r.observeUnready(ctx, s, set)
	}
	if wait, err := r.observeUnsteady(ctx, s, set); wait > 0 || err != nil {
		return wait, err
	}
	s.observed.Workload = &status.Workload{Done: true, Update: turn}
	if s.held != nil {
		s.observed.Workload.Message = s.held.missing
	}
	r.generationSeenAt.Forget(client.ObjectKeyFromObject(s.bot))
	wait, err := r.prove(ctx, s, set, turn)
	switch turn {
	case status.UpToDate:
	case status.UpdateHeld:
		wait = reconcile.MinNonZero(wait, reconcile.ForeignObjectWait)
	default:
		wait = reconcile.MinNonZero(wait, turnEvery)
	}
	return wait, err
}

// whole is the bot as the API server has it, of the generation that this pass is about: the cache holds no arguments
// and no values of variables. The contents of its files are in place.
func (r *Reconciler) whole(ctx context.Context, s *scope) (*v1alpha1.BotDeployment, error) {
	if !bulk.IsStripped(s.bot) {
		s.noteRestart(s.bot)
		return r.withFiles(ctx, s.bot) // it is the answer to a patch of this pass
	}
	bot := &v1alpha1.BotDeployment{}
	if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(s.bot), bot); err != nil {
		return nil, fmt.Errorf("read the bot live: %w", err)
	}
	if bot.UID != s.bot.UID || bot.Generation != s.bot.Generation {
		return nil, apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("botdeployments").GroupResource(), bot.Name,
			errors.New("it has changed since this pass began"))
	}
	s.noteRestart(bot)
	return r.withFiles(ctx, bot)
}

// lookAfter is when to look at an unready pod again: soon, and all bots together not too often.
func (r *Reconciler) lookAfter(least time.Duration) time.Duration {
	return max(least, time.Duration(r.generationSeenAt.Len())*time.Second/looksPerSecond)
}

// observeUnready says what a pod waits for. Within the time that a new generation has to settle, only what will not
// come right by waiting is told.
func (r *Reconciler) observeUnready(ctx context.Context, s *scope, set *appsv1.StatefulSet) (time.Duration, error) {
	if age := s.now.Sub(s.generationSeenAt); isNew(s.bot) && age < min(r.StatusGracePeriod, reconcile.LookEvery) {
		s.observed.Workload = &status.Workload{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonProgressing, Message: "Waiting for the pod of the present revision."}}
		return min(r.StatusGracePeriod, reconcile.LookEvery) - age, nil
	}
	o, err := r.observePod(ctx, s, set)
	if err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	w := status.Unready(o)
	if w.Reason == v1alpha1.ReasonCredentialsNotFetched {
		if w.Trouble {
			r.stored.Forget(client.ObjectKeyFromObject(s.bot)) // what the keyserver stored may be gone: the next look asks it
		}
		if s.held == nil {
			if err := r.explainMismatch(ctx, s, o.Pod, &w); err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
			}
		}
	}
	if status.IsPull(w.Reason) {
		if r.helper(s, false) != r.Settings.Helper() && waitsForHelper(o.Pod) {
			// What the pod was made with cannot be had any more, or never could: it gets what there is now.
			if _, _, err := r.ensureSet(ctx, s, true); err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
			}
		}
		r.explainPull(ctx, s, &w)
	}
	left := s.timeLeft(o, w.Reason)
	w.Overdue = left <= 0
	s.observed.Workload = &w
	if w.Overdue {
		return r.lookAfter(reconcile.LookEvery), nil
	}
	return min(r.lookAfter(reconcile.LookEvery), left), nil
}

// observePod reads the pod, and what tells why it is not ready.
func (r *Reconciler) observePod(ctx context.Context, s *scope, set *appsv1.StatefulSet) (status.PodObserved, error) {
	o := status.PodObserved{Set: set, Now: s.now, UnreadySince: s.now, Pod: &corev1.Pod{}, Quota: &corev1.ResourceQuota{}}
	if c := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionWorkloadReady); c != nil && c.Status == metav1.ConditionFalse {
		o.UnreadySince = c.LastTransitionTime.Time
	}
	err := r.Writer.Live.Get(ctx, client.ObjectKey{Namespace: s.bot.Namespace, Name: resources.BotPodName(s.bot.Name)}, o.Pod)
	switch {
	case apierrors.IsNotFound(err):
		o.Pod = nil
	case err != nil:
		return o, fmt.Errorf("read the bot's pod: %w", err)
	}
	if o.Pod == nil {
		key := client.ObjectKey{Namespace: s.bot.Namespace, Name: resources.QuotaName}
		if err := r.Writer.Client.Get(ctx, key, o.Quota); client.IgnoreNotFound(err) != nil {
			return o, fmt.Errorf("read the quota: %w", err)
		}
	}
	look := status.Looks(o)
	if look.EventsOf != "" {
		list := &corev1.EventList{}
		if err := r.Writer.Live.List(ctx, list, client.InNamespace(s.bot.Namespace), client.MatchingFields{"involvedObject.uid": look.EventsOf}, client.Limit(mostEvents)); err != nil {
			return o, fmt.Errorf("list the events of the bot's pod: %w", err)
		}
		o.Events = list.Items
	}
	if look.Before {
		list := &corev1.EventList{}
		if err := r.Writer.Live.List(ctx, list, client.InNamespace(s.bot.Namespace), client.MatchingFields{"involvedObject.name": resources.BotPodName(s.bot.Name)},
			client.Limit(mostEvents)); err != nil {
			return o, fmt.Errorf("list the events of the bot's pods: %w", err)
		}
		o.EventsBefore = list.Items
	}
	if o.HasNode = look.Node != ""; o.HasNode {
		if o.Node, err = r.node(ctx, look.Node); err != nil {
			return o, err
		}
	}
	before := status.NodeBefore(o)
	if o.HasNodeBefore = before != ""; o.HasNodeBefore {
		if o.NodeBefore, err = r.node(ctx, before); err != nil {
			return o, err
		}
	}
	return o, nil
}

// node reads one; nil where there is none.
func (r *Reconciler) node(ctx context.Context, name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	err := r.Writer.Live.Get(ctx, client.ObjectKey{Name: name}, node)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // that there is none is what was asked
	case err != nil:
		return nil, fmt.Errorf("read the node of the bot's pod: %w", err)
	default:
		return node, nil
	}
}

// waitsForHelper says whether it is Lethe's own image that a pod's start waits for.
func waitsForHelper(pod *corev1.Pod) bool {
	return pod != nil && slices.ContainsFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == resources.ContainerUnseal && c.State.Waiting != nil
	})
}

// explainMismatch says why the keyserver gives a pod nothing: something in the cluster has changed it. The keyserver
// decides by the same comparison; this one finds the words. Where there is nothing to be seen and the pod is of an
// earlier Lethe, of which the keyserver may have no record, it is made anew: it gets nothing as it is.
func (r *Reconciler) explainMismatch(ctx context.Context, s *scope, pod *corev1.Pod, w *status.Workload) error {
	whole, err := r.whole(ctx, s)
	if err != nil {
		return err
	}
	helper := r.helper(s, false)
	if s.running != nil && filesDiffer(resources.BotStatefulSet(r.Settings.With(helper), whole, s.tenant, s.secret), s.running) {
		r.files.Forget(client.ObjectKeyFromObject(s.bot)) // the next look renders what is in them now
		w.Reason, w.Trouble, w.Message = v1alpha1.ReasonProgressing, false, "A ConfigMap that the bot's files come from has changed: the pod is made anew."
		return nil
	}
	want := resources.BotPodTemplate(r.Settings.With(helper), whole, s.tenant, s.secret)
	what, mismatch := "the pod", podspec.Match(want, pod, r.Settings.PodAnnotations)
	if mismatch == nil && s.running != nil {
		live := &appsv1.StatefulSet{}
		if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(s.running), live); err != nil {
			return fmt.Errorf("read the bot's StatefulSet: %w", err)
		}
		what, mismatch = "the StatefulSet", podspec.MatchTemplate(want, live.Spec.Template, r.Settings.PodAnnotations)
	}
	if mismatch != nil {
		w.Reason, w.Trouble = v1alpha1.ReasonPodMismatch, true
		w.Message = fmt.Sprintf("Something in this cluster changed %s: %s from what Lethe made. The keyserver gives such a pod no credentials. "+
			"Exempt this namespace from the webhook or policy that does it.", what, mismatch)
		return nil
	}
	if helper == r.Settings.Helper() || !w.Trouble {
		return nil
	}
	_, _, err = r.ensureSet(ctx, s, true)
	return err
}

// isInUse says whether a Tenant's status protects it from being deleted.
func isInUse(tenant *v1alpha1.Tenant) bool {
	return meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionInUse)
}

func suspension(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) status.Suspension {
	switch {
	case tenant.DeletionTimestamp != nil:
		return status.StoppedWithTenant
	case tenant.Spec.State == v1alpha1.TenantSuspended:
		return status.SuspendedByTenant
	case bot.Spec.OperatingMode == v1alpha1.ModeSuspended:
		return status.SuspendedBySpec
	default:
		return status.NotSuspended
	}
}
