package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

const (
	// conflictWait lets the cache catch up with another hand's write.
	conflictWait = 200 * time.Millisecond
	// strangerWait is how often we look whether a stranger's object is gone: it does not carry our label, so no watch tells.
	strangerWait = time.Minute
	// terminatingWait is for objects that the cache may not hold.
	terminatingWait = 15 * time.Second
)

// laterPriority is below that of a new or changed object, which is 0, and above that of a resync and of a restart's backlog.
const laterPriority = -10

// explain turns the error of a write into a problem of a condition. Messages are the same as long as the problem is.
func explain(kind string, err error) error {
	if err == nil || problemIn(err) != nil {
		return err
	}
	p := &problem{Problem: status.Problem{Condition: kind, Message: foreign.API(err)}}
	var foreign *kube.ForeignError
	var terminating *kube.TerminatingError
	switch {
	case errors.As(err, &foreign):
		p.Reason, p.Stalled, p.after = v1alpha1.ReasonNameTaken, true, strangerWait
	case errors.As(err, &terminating), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		p.Reason, p.after = v1alpha1.ReasonTerminating, terminatingWait
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		p.Reason, p.Message, p.after, p.quiet = v1alpha1.ReasonRetrying, "Another hand wrote at the same time.", conflictWait, true
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		p.Reason, p.Stalled = v1alpha1.ReasonRefused, true
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "status unknown for quota"):
		// A quota that was just made counts nothing until Kubernetes' controller has looked at the namespace.
		p.Reason, p.Message, p.after, p.quiet = v1alpha1.ReasonRetrying, "Kubernetes is still counting what the namespace holds.", rightsWait, true
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		p.Reason, p.Message, p.Stalled, p.after = v1alpha1.ReasonQuotaExceeded, status.NoRoom("", p.Message), true, strangerWait
	case apierrors.IsForbidden(err):
		p.Reason, p.cause = v1alpha1.ReasonForbidden, err
	default:
		p.Reason, p.Message, p.cause = v1alpha1.ReasonRetrying, "The API server did not answer as it should; it is asked again.", err
	}
	return p
}

// finish turns what stopped the phases into what controller-runtime understands.
func finish(wait time.Duration, err error) (ctrl.Result, error) {
	p := problemIn(err)
	switch {
	case err == nil:
		later := laterPriority
		return ctrl.Result{RequeueAfter: wait, Priority: &later}, nil
	case p == nil || p.cause != nil:
		return ctrl.Result{}, err
	default:
		return ctrl.Result{RequeueAfter: sooner(wait, p.after)}, nil
	}
}

// tenantOf returns the Tenant whose namespace it is, also while that is being deleted: its bots are stopped as suspended ones are.
// Otherwise the error is a *problem.
func tenantOf(ctx context.Context, c client.Reader, namespace string) (*v1alpha1.Tenant, error) {
	whose, err := tenancy.Read(ctx, c, namespace)
	if err != nil {
		return nil, err
	}
	p := &problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Message: sentence(whose.Why)}}
	switch whose.Standing {
	case tenancy.Held, tenancy.TenantEnding:
		return whose.Tenant, nil
	case tenancy.NamespaceEnding:
		p.Reason, p.after = v1alpha1.ReasonTerminating, terminatingWait
	case tenancy.NotWalledIn:
		p.Reason = v1alpha1.ReasonTenantNotReady
	default:
		p.Reason, p.Stalled = v1alpha1.ReasonNoTenant, true
	}
	return nil, p
}

// sentence makes one of a clause.
func sentence(clause string) string {
	if clause == "" {
		return ""
	}
	return strings.ToUpper(clause[:1]) + clause[1:] + "."
}

// ensureFinalizer adds the finalizer in a write of its own, before any status is set in memory.
func ensureFinalizer(ctx context.Context, c client.Client, object client.Object) error {
	return patchFinalizers(ctx, c, object, controllerutil.AddFinalizer)
}

// dropFinalizer lets the object go.
func dropFinalizer(ctx context.Context, c client.Client, object client.Object) error {
	return client.IgnoreNotFound(patchFinalizers(ctx, c, object, controllerutil.RemoveFinalizer))
}

func patchFinalizers(ctx context.Context, c client.Client, object client.Object, change func(client.Object, string) bool) error {
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %T", object)
	}
	if !change(object, v1alpha1.FinalizerKeys) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := c.Patch(ctx, object, patch, kube.FieldOwner); err != nil {
		return fmt.Errorf("patch the finalizers of %s: %w", object.GetName(), err)
	}
	return nil
}

// writeStatus sends the status if it differs from what was read, and says whether it did. Both objects are the same but for
// their status. One controller writes one status, so no lock is needed: a newer spec only makes observedGeneration old.
func writeStatus(ctx context.Context, c client.Client, before, after client.Object, same bool) (bool, error) {
	if same {
		return false, nil
	}
	err := c.Status().Patch(ctx, after, client.MergeFrom(before), kube.FieldOwner)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("write the status of %s: %w", after.GetName(), err)
	}
	return err == nil, nil
}

func sameStatus[S any](before, after S) bool { return equality.Semantic.DeepEqual(before, after) }

// ApplyGrace is how long a bot or a store may be without its Tenant before that is said to need a person: what is applied together
// comes in any order.
const ApplyGrace = 2 * time.Minute

// graceLeft is how much of the grace is left to an object that was made, or was ready, a while ago.
func graceLeft(object client.Object, conditions []metav1.Condition, now time.Time, grace time.Duration) time.Duration {
	since := object.GetCreationTimestamp().Time
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		if ready.Status == metav1.ConditionTrue {
			return grace
		}
		if ready.LastTransitionTime.After(since) {
			since = ready.LastTransitionTime.Time
		}
	}
	return max(0, grace-now.Sub(since))
}

// tell sends an event for each condition that went wrong or came right, once, after the status says so. A condition that is
// right from the start is no news.
func tell(recorder events.EventRecorder, object client.Object, before, after []metav1.Condition) {
	told := map[string]bool{}
	for _, was := range before {
		told[was.Reason] = told[was.Reason] || isBad(was) // one reason may speak through several conditions, one after the other
	}
	for _, now := range after {
		was := meta.FindStatusCondition(before, now.Type)
		if was != nil && was.Status == now.Status && was.Reason == now.Reason {
			continue
		}
		kind := corev1.EventTypeNormal
		switch {
		case isBad(now):
			kind = corev1.EventTypeWarning
		case now.Type != v1alpha1.ConditionReady || now.Status != metav1.ConditionTrue || was == nil || was.Status == metav1.ConditionUnknown:
			continue
		}
		if !told[now.Reason] {
			told[now.Reason] = true
			note := fmt.Sprintf("condition %s is %s, and says more", now.Type, now.Status)
			if about := status.See(after, now.Type); about != nil && about.Type != now.Type {
				note = fmt.Sprintf("condition %s is %s, and condition %s says more", now.Type, now.Status, about.Type)
			}
			recorder.Eventf(object, nil, kind, now.Reason, "Reconcile", "%s", note)
		}
	}
}

// expected are reasons for something not to be ready that nobody need look at.
var expected = map[string]bool{v1alpha1.ReasonProgressing: true, v1alpha1.ReasonSuspended: true, v1alpha1.ReasonStopping: true, v1alpha1.ReasonOldPodEnding: true}

// isBad says whether a condition tells of something that a person should look at.
func isBad(c metav1.Condition) bool {
	switch c.Type {
	case v1alpha1.ConditionStalled, v1alpha1.ConditionChangesPaused:
		return c.Status == metav1.ConditionTrue
	case v1alpha1.ConditionReconciling, v1alpha1.ConditionReady, v1alpha1.ConditionInUse:
		return false
	default:
		return (c.Status == metav1.ConditionFalse && !expected[c.Reason]) || c.Reason == v1alpha1.ReasonRolledBack || c.Reason == v1alpha1.ReasonPlaintextInSpec || c.Reason == v1alpha1.ReasonPodSecurityOverruled
	}
}
