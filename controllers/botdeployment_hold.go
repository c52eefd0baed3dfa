package controllers

import (
	"context"
	"fmt"
	"strings"

	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/status"
)

// heldBack ends the rendering of a StatefulSet whose pod could never start: the one that runs is kept.
type heldBack struct {
	missing string
	own     bool // it is the bot's own change
}

func (h *heldBack) Error() string { return h.missing }

// class is one that a spec names.
type class struct {
	name, field string
	kind        schema.GroupVersionKind
}

// missingClasses says which of them the cluster does not have, in words; empty when it has all.
func missingClasses(ctx context.Context, live client.Reader, classes ...class) (string, error) {
	var missing []string
	for _, c := range classes {
		if c.name == "" {
			continue
		}
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(c.kind)
		err := live.Get(ctx, client.ObjectKey{Name: c.name}, object)
		if apierrors.IsNotFound(err) {
			missing = append(missing, fmt.Sprintf("%s: there is no %s %s", c.field, c.kind.Kind, c.name))
		} else if err != nil {
			return "", fmt.Errorf("read the %s: %w", c.kind.Kind, err)
		}
	}
	return strings.Join(missing, "; "), nil
}

// classesOf are those that a Tenant's placement names, after a prefix that says whose spec it is.
func classesOf(placement *v1alpha1.TenantPlacement, whose string) []class {
	if placement == nil {
		return nil
	}
	return []class{
		{placement.RuntimeClassName, whose + "spec.placement.runtimeClassName", nodev1.SchemeGroupVersion.WithKind("RuntimeClass")},
		{placement.PriorityClassName, whose + "spec.placement.priorityClassName", schedulingv1.SchemeGroupVersion.WithKind("PriorityClass")},
	}
}

// mayStart refuses a template that names what the cluster does not have, before the pod that runs is thrown away for one that never
// can. It is asked only when a pod would be replaced. A StorageClass is none of it: a bot can get no other volume than it began with.
func (r *BotDeploymentReconciler) mayStart(ctx context.Context, s *botScope, own bool) error {
	missing, err := missingClasses(ctx, r.Writer.Live, classesOf(s.tenant.Spec.Placement, "the Tenant's ")...)
	if err != nil || missing == "" {
		return err
	}
	return &heldBack{missing: missing, own: own}
}

// keep says of a change that is held back why it is. One of the bot's own is not in force, and waits for a person.
func (s *botScope) keep(h *heldBack) {
	s.held = h
	if h.own {
		s.note(&problem{after: strangerWait, Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonClassMissing, Stalled: true,
			Message: h.missing + ". A pod with it could never start, so the one of before is kept: make it, or have the Tenant name one that kubectl get runtimeclasses,priorityclasses shows."}})
	}
}
