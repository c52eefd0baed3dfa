package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

const (
	// lookEvery is between two looks at a pod that does not become ready, for a message that is true.
	lookEvery = time.Minute
	// stalledLookEvery is the same once the bot is stalled.
	stalledLookEvery = 5 * time.Minute
)

// ensureWorkload runs the bot, and finds out how it is.
func (r *BotDeploymentReconciler) ensureWorkload(ctx context.Context, s *botScope) (time.Duration, error) {
	s.observed.Suspended = suspension(s.bot, s.tenant)
	if err := checkUIDRange(ctx, r.Writer.Client, s.tenant, v1alpha1.ConditionWorkloadReady); err != nil {
		return 0, err
	}
	if s.running == nil && s.observed.Suspended == status.NotSuspended && !isInUse(s.tenant) {
		// Admission refuses to delete a Tenant that says that it is in use, so it says so before anything runs for it.
		return 0, &problem{Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: ReasonTenantNotReady,
			Message: fmt.Sprintf("Tenant %s does not say yet that it is in use: see its condition InUse.", s.tenant.Name)}}
	}
	set, _, err := kube.EnsureRendered(ctx, r.Writer, resources.BotStatefulSet(r.Settings, s.bot, s.tenant, s.secret),
		func(ctx context.Context) (*appsv1.StatefulSet, error) {
			whole, err := r.whole(ctx, s)
			if err != nil {
				return nil, err
			}
			return resources.BotStatefulSet(r.Settings, whole, s.tenant, s.secret), nil
		})
	if err != nil {
		return 0, explain(v1alpha1.ConditionWorkloadReady, err)
	}
	if status.IsSetDone(set) {
		s.observed.Workload = &status.Workload{Done: true}
		r.begun.forget(client.ObjectKeyFromObject(s.bot))
		return 0, nil
	}
	return r.observeUnready(ctx, s, set)
}

// whole is the bot as the API server has it, of the generation that this pass is about: the cache holds no arguments and no
// values of variables.
func (r *BotDeploymentReconciler) whole(ctx context.Context, s *botScope) (*v1alpha1.BotDeployment, error) {
	if !bulk.IsStripped(s.bot) {
		return s.bot, nil // it is the answer to a patch of this pass
	}
	bot := &v1alpha1.BotDeployment{}
	if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(s.bot), bot); err != nil {
		return nil, fmt.Errorf("read the bot live: %w", err)
	}
	if bot.UID != s.bot.UID || bot.Generation != s.bot.Generation {
		return nil, apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("botdeployments").GroupResource(), bot.Name,
			errors.New("it has changed since this pass began"))
	}
	return bot, nil
}

// observeUnready says what a pod waits for. Within the time that a new generation has to settle nobody asks.
func (r *BotDeploymentReconciler) observeUnready(ctx context.Context, s *botScope, set *appsv1.StatefulSet) (time.Duration, error) {
	if age := s.now.Sub(s.begun); isNew(s.bot) && age < r.Settle {
		s.observed.Workload = &status.Workload{Reason: status.ReasonProgressing, Message: "Waiting for the pod of the present revision."}
		return r.Settle - age, nil
	}
	pod := &corev1.Pod{}
	err := r.Writer.Live.Get(ctx, client.ObjectKey{Namespace: s.bot.Namespace, Name: resources.BotPodName(s.bot.Name)}, pod)
	switch {
	case apierrors.IsNotFound(err):
		pod = nil
	case err != nil:
		return 0, explain(v1alpha1.ConditionWorkloadReady, fmt.Errorf("read the bot's pod: %w", err))
	case pod.Labels[appsv1.ControllerRevisionHashLabelKey] == set.Status.UpdateRevision && pod.CreationTimestamp.Time.Before(s.begun):
		s.begun = pod.CreationTimestamp.Time // it began before this process did
	}
	quota := &corev1.ResourceQuota{}
	key := client.ObjectKey{Namespace: s.bot.Namespace, Name: resources.QuotaName}
	if err := r.Writer.Client.Get(ctx, key, quota); client.IgnoreNotFound(err) != nil {
		return 0, explain(v1alpha1.ConditionWorkloadReady, fmt.Errorf("read the quota: %w", err))
	}
	w := status.Unready(set, pod, quota)
	if w.Reason == status.ReasonCredentialsNotFetched {
		r.explainMismatch(s, pod, &w)
	}
	left := time.Duration(s.bot.Spec.Rollout.ProgressDeadlineSeconds)*time.Second - s.now.Sub(s.begun)
	w.Overdue = left <= 0 || wasOverdue(s.bot)
	s.observed.Workload = &w
	if w.Reason == status.ReasonCredentialsNotFetched {
		r.stored.forget(client.ObjectKeyFromObject(s.bot)) // what the keyserver stored may be gone: the next look asks it
	}
	if w.Overdue {
		return stalledLookEvery, nil
	}
	return min(lookEvery, left), nil
}

// explainMismatch says why the keyserver gives a pod nothing: something in the cluster has changed it. The keyserver decides
// by the same comparison; this one finds the words.
func (r *BotDeploymentReconciler) explainMismatch(s *botScope, pod *corev1.Pod, w *status.Workload) {
	rendered := resources.BotPodTemplate(r.Settings, s.bot, s.tenant, s.secret)
	if err := podspec.Match(rendered, pod, r.Settings.PodAnnotations); err != nil {
		w.Reason = protocol.ReasonPodMismatch
		w.Message = fmt.Sprintf("Something in this cluster changed the pod: %s from what Lethe made. The keyserver gives such a pod no credentials. "+
			"Exempt this namespace from the webhook or policy that does it.", err)
	}
}

// wasOverdue remembers, in the status itself, that the deadline of this generation has passed.
func wasOverdue(bot *v1alpha1.BotDeployment) bool {
	stalled := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionStalled)
	workload := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	return stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.ObservedGeneration == bot.Generation &&
		workload != nil && workload.Status == metav1.ConditionFalse && workload.Reason == stalled.Reason
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
