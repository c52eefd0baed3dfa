package reconcile

import (
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/status"
)

const (
	// ConflictWait lets the cache catch up with a conflicting write.
	ConflictWait = 200 * time.Millisecond
	// ForeignObjectWait is how often we look whether a foreign object is gone: it does not carry our label, so no
	// watch tells.
	ForeignObjectWait = time.Minute
	// TerminatingWait is for objects that the cache may not hold.
	TerminatingWait = 15 * time.Second
)

// ProblemFromError turns the error of a write into a problem of a condition. Messages are the same as long as the
// problem is.
func ProblemFromError(kind string, err error) error {
	if err == nil || ProblemIn(err) != nil {
		return err
	}
	p := &Problem{Problem: status.Problem{Condition: kind, Message: foreign.API(err)}}
	var foreign *kube.ForeignError
	var terminating *kube.TerminatingError
	switch {
	case errors.As(err, &foreign):
		p.Reason, p.Stalled, p.After = v1alpha1.ReasonNameTaken, true, ForeignObjectWait
	case errors.As(err, &terminating), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		p.Reason, p.After = v1alpha1.ReasonTerminating, TerminatingWait
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		p.Reason, p.Message, p.After, p.Quiet = v1alpha1.ReasonRetrying, "A conflicting write came first; it is tried again.", ConflictWait, true
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		p.Reason, p.Stalled = v1alpha1.ReasonRefused, true
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "status unknown for quota"):
		// A quota that was just made counts nothing until Kubernetes' controller has looked at the namespace.
		p.Reason, p.Message, p.After, p.Quiet = v1alpha1.ReasonRetrying, "Kubernetes is still counting what the namespace holds.", RightsWait, true
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		p.Reason, p.Message, p.Stalled, p.After = v1alpha1.ReasonQuotaExceeded, status.NoRoom("", p.Message), true, ForeignObjectWait
	case apierrors.IsForbidden(err):
		p.Reason, p.Cause = v1alpha1.ReasonForbidden, err
	default:
		p.Reason, p.Message, p.Cause = v1alpha1.ReasonRetrying, "The API server did not answer as it should; it is asked again.", err
	}
	return p
}

// ToResult turns what stopped the phases into what controller-runtime understands.
func ToResult(wait time.Duration, err error) (ctrl.Result, error) {
	p := ProblemIn(err)
	switch {
	case err == nil:
		later := LaterPriority
		return ctrl.Result{RequeueAfter: wait, Priority: &later}, nil
	case p == nil || p.Cause != nil:
		return ctrl.Result{}, err
	default:
		return ctrl.Result{RequeueAfter: MinNonZero(wait, p.After)}, nil
	}
}

// RightsWait lets the API server notice a RoleBinding that was just made.
const RightsWait = 250 * time.Millisecond
