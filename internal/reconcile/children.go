package reconcile

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Class is a RuntimeClass or PriorityClass that a spec names.
type Class struct {
	name, field string
	kind        schema.GroupVersionKind
}

// MissingClasses says which of them the cluster does not have, in words; empty when it has all.
func MissingClasses(ctx context.Context, live client.Reader, classes ...Class) (string, error) {
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

// ClassesOf are those that a Tenant's placement names, after a prefix that says whose spec it is.
func ClassesOf(placement *v1alpha1.TenantPlacement, whose string) []Class {
	if placement == nil {
		return nil
	}
	return []Class{
		{placement.RuntimeClassName, whose + "spec.placement.runtimeClassName", nodev1.SchemeGroupVersion.WithKind("RuntimeClass")},
		{placement.PriorityClassName, whose + "spec.placement.priorityClassName", schedulingv1.SchemeGroupVersion.WithKind("PriorityClass")},
	}
}

// ClaimsIn are the claims of ours in a namespace.
func ClaimsIn(ctx context.Context, c client.Reader, namespace string) ([]corev1.PersistentVolumeClaim, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := c.List(ctx, claims, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the volumes of namespace %s: %w", namespace, err)
	}
	return claims.Items, nil
}

// NotEnded selects pods that still run, or will.
var NotEnded = fields.AndSelectors(fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)))

// Kinds of what runs for a bot or a store.
const (
	KindJob = "Job"
	KindPod = "Pod"
)

// StaleReadOK is for reads that need not wait until the cache has seen our own writes: none of those could change them.
const StaleReadOK = client.DisableReadYourWritesConsistency

// WholeOnly refuses to write an object back that came out of the cache, where most of it is missing. Patches are made
// of differences, and lose nothing.
type WholeOnly struct{ client.Client }

// Update is that of the client.
func (c WholeOnly) Update(ctx context.Context, object client.Object, options ...client.UpdateOption) error {
	if bulk.IsStripped(object) {
		return fmt.Errorf("%T %s comes out of the cache, which holds only a part of it: read it live before it is written", object, object.GetName())
	}
	return c.Client.Update(ctx, object, options...) //nolint:wrapcheck // it stands for the client
}

// LookInto says whether bots or stores that count are in a namespace, and names those that only somebody else's
// finalizer keeps. It is handed the API server to be sure, and the cache to be quick.
func LookInto(ctx context.Context, from client.Reader, namespace string) (used bool, held []string, err error) {
	bots, stores := &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}
	for _, list := range []client.ObjectList{bots, stores} {
		if err := from.List(ctx, list, client.InNamespace(namespace), StaleReadOK); err != nil {
			return false, nil, fmt.Errorf("look into namespace %s: %w", namespace, err)
		}
	}
	see := func(kind string, object client.Object) {
		if !IsHeld(object) {
			used = true
		} else if others := ForeignFinalizers(object); len(others) > 0 {
			held = append(held, fmt.Sprintf("%s %s/%s by %s", kind, namespace, object.GetName(), finalizersText(others)))
		}
	}
	for i := range bots.Items {
		see(resources.KindBotDeployment, &bots.Items[i])
	}
	for i := range stores.Items {
		see(resources.KindDataStore, &stores.Items[i])
	}
	return used, held, nil
}

// EnsureChild makes a child as a builder made it.
func EnsureChild(ctx context.Context, w kube.Writer, child client.Object) error {
	_, _, err := kube.Ensure(ctx, w, child)
	return err
}
