package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
)

// EnsureFinalizer adds the finalizer in a write of its own, before any status is set in memory.
func EnsureFinalizer(ctx context.Context, c client.Client, object client.Object) error {
	return patchFinalizers(ctx, c, object, controllerutil.AddFinalizer)
}

// RemoveFinalizer lets the object go.
func RemoveFinalizer(ctx context.Context, c client.Client, object client.Object) error {
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

// ForeignFinalizers of an object that is being deleted, but for those by which Kubernetes deletes.
func ForeignFinalizers(object client.Object) []string {
	if object.GetDeletionTimestamp() == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(object.GetFinalizers()), func(f string) bool {
		return f == v1alpha1.FinalizerKeys || f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
}

// IsHeld says that nothing of an object is left to do for us: its keys are destroyed, and somebody else's finalizer
// keeps it.
func IsHeld(object client.Object) bool {
	return object.GetDeletionTimestamp() != nil && !HasFinalizer(object)
}

// HeldMessage says who holds an object that we have let go.
func HeldMessage(finalizers []string) string {
	return fmt.Sprintf("Nothing of it runs, and its keys are destroyed. It is held by %s, which %s not Lethe's: whoever put %s there takes %s off.",
		finalizersText(finalizers), pick(finalizers, "is", "are"), pick(finalizers, "it", "them"), pick(finalizers, "it", "them"))
}

func finalizersText(finalizers []string) string {
	return pick(finalizers, "the finalizer ", "the finalizers ") + strings.Join(finalizers, ", ")
}

func pick(list []string, one, many string) string {
	if len(list) == 1 {
		return one
	}
	return many
}

// HasFinalizer says whether an object carries our finalizer.
func HasFinalizer(object client.Object) bool {
	return controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerKeys)
}
