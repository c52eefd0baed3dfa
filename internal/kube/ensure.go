// Package kube writes the objects that Lethe owns, and only when something about them is not as it should be.
//
// An object is compared with what a builder says first; equal means no request at all. A missing one is created. One
// that differs is written whole, at the version that was compared: what a foreign hand added to a field of ours goes
// away too, which server-side apply would leave, since it takes back only what it once set itself. What the cluster's
// own admission makes of a pod template in the same moment is told from that, and not written again and again. An
// object that another controller owns, or nobody, is refused: never adopted, overwritten or deleted. A child of ours
// that was orphaned is told from those by the record that it carries, and by a look at its owner past the cache.
package kube

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/internal/orphans"
)

// FieldOwner is the name under which everything is written.
const FieldOwner = client.FieldOwner("lethe")

// Outcome of Ensure.
type Outcome string

const (
	// Unchanged: the object was as it should be, and nothing was sent.
	Unchanged Outcome = "Unchanged"
	// Created: the object was missing.
	Created Outcome = "Created"
	// Updated: the object differed.
	Updated Outcome = "Updated"
)

// ForeignError says that an object of the name we need exists and is not ours.
type ForeignError struct {
	Kind string
	Key  types.NamespacedName
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s %s exists and belongs to somebody else: remove or rename it", e.Kind, e.Key)
}

// TerminatingError says that an object we need is on its way out, and must be gone before it can be made again.
type TerminatingError struct {
	Kind string
	Key  types.NamespacedName
}

func (e *TerminatingError) Error() string {
	return fmt.Sprintf("%s %s is being deleted; it is made again when it is gone", e.Kind, e.Key)
}

// Writer makes objects be as builders say.
type Writer struct {
	// Client reads from a cache that shows our own writes, and writes.
	Client client.Client
	// Live reads past the cache. It is asked when the cache knows no object of a name that is taken, and before an
	// update.
	Live client.Reader
	// Strip, where it is set, is what the cache does to each object to keep it small. What differs in the cache is
	// then read live before it is written.
	Strip func(client.Object)
	// Admission, where it is set, tells what the cluster's admission makes of a StatefulSet or CronJob from a hand's
	// doing.
	Admission *Admission
}

// Ensure makes the child of an owner be as desired says, and returns it as it is then, or as the cache has it. The
// child must name the owner as its controller.
func Ensure[T client.Object](ctx context.Context, w Writer, desired T) (T, Outcome, error) {
	return EnsureRendered(ctx, w, desired, func(context.Context) (T, error) { return desired, nil })
}

// EnsureRendered is Ensure for a child that is made of what the cache does not hold. The sketch is made of what it
// does hold: as long as that is the same as the cached child nothing else is read.
func EnsureRendered[T client.Object](ctx context.Context, w Writer, sketch T, render func(context.Context) (T, error)) (T, Outcome, error) {
	owner := metav1.GetControllerOf(sketch)
	if owner == nil {
		return sketch, Unchanged, fmt.Errorf("ensure %T %s: it names no controller", sketch, sketch.GetName())
	}
	return ensure(ctx, w, sketch, render, func(live T) bool {
		controller := metav1.GetControllerOf(live)
		return controller != nil && controller.UID == owner.UID
	})
}

// EnsureWhere is Ensure for an object that has no controller: mine decides whether one that exists may be written.
func EnsureWhere[T client.Object](ctx context.Context, w Writer, desired T, mine func(T) bool) (T, Outcome, error) {
	return ensure(ctx, w, desired, func(context.Context) (T, error) { return desired, nil }, mine)
}

func ensure[T client.Object](ctx context.Context, w Writer, sketch T, render func(context.Context) (T, error), mine func(T) bool) (T, Outcome, error) {
	kind, err := w.kindOf(sketch)
	if err != nil {
		return sketch, Unchanged, err
	}
	cached, found, err := read(ctx, w.Client, sketch)
	if err != nil {
		return sketch, Unchanged, err
	}
	if found {
		if err := w.refusal(ctx, kind, sketch, cached, func() bool { return mine(cached) }); err != nil {
			return cached, Unchanged, err
		}
		if small := w.stripped(sketch); Drift(small, cached) == "" || w.isAdmitted(small, cached) {
			return cached, Unchanged, nil
		}
	}
	desired, err := render(ctx)
	if err != nil {
		return sketch, Unchanged, err
	}
	live := cached
	if !found {
		created, err := create(ctx, w, kind, desired)
		if !apierrors.IsAlreadyExists(err) {
			return created, Created, err
		}
	}
	if !found || w.Strip != nil {
		// The cache holds only what carries our label, so this may be a stranger, or a child that lost its label.
		if live, found, err = read(ctx, w.Live, desired); err != nil {
			return desired, Unchanged, err
		}
		if !found {
			gone := apierrors.NewConflict(schema.GroupResource{Resource: kind}, desired.GetName(), errors.New("it appeared and went away"))
			return desired, Unchanged, gone
		}
		if err := w.refusal(ctx, kind, sketch, live, func() bool { return mine(live) }); err != nil {
			return live, Unchanged, err
		}
	}
	return repair(ctx, w, kind, desired, live)
}

// stripped is what the cache would hold of an object.
func (w Writer) stripped(object client.Object) client.Object {
	if w.Strip == nil {
		return object
	}
	small := copyOf(object)
	w.Strip(small)
	return small
}

// refusal says why an object must not be written.
func (w Writer) refusal(ctx context.Context, kind string, desired, object client.Object, mine func() bool) error {
	key := client.ObjectKeyFromObject(object)
	if !mine() {
		if err := w.takeOver(ctx, desired, object, &ForeignError{Kind: kind, Key: key}); err != nil {
			return err
		}
	}
	if object.GetDeletionTimestamp() != nil {
		return &TerminatingError{Kind: kind, Key: key}
	}
	return nil
}

// takeOver says whether a child that its present owner does not control may be written for it: one of the owner's own
// that lost its owner reference, or one that nobody controls and whose owner is gone. What runs, or is still
// controlled by an owner that is gone, is not taken over but removed, and made anew.
func (w Writer) takeOver(ctx context.Context, desired, live client.Object, foreign error) error {
	wanted, ok := orphans.OwnerOf(desired)
	was, known := orphans.OwnerOf(live)
	if !ok || !known || was.Kind != wanted.Kind {
		return foreign
	}
	if was.UID == wanted.UID {
		return nil
	}
	state, err := orphans.Look(ctx, w.Live, was)
	switch {
	case err != nil:
		return err
	case state != orphans.Gone:
		return foreign
	case metav1.GetControllerOf(live) == nil && !Runs(live):
		return nil
	}
	if live.GetDeletionTimestamp() == nil {
		if err := w.Delete(ctx, live); err != nil {
			return err
		}
	}
	return apierrors.NewConflict(schema.GroupResource{Resource: fmt.Sprintf("%T", live)}, live.GetName(),
		errors.New("what a gone owner left under this name is being removed"))
}

// Runs says whether an object is, or makes, something that runs.
func Runs(object client.Object) bool {
	switch o := object.(type) {
	case *appsv1.StatefulSet, *batchv1.CronJob, *batchv1.Job, *corev1.Pod:
		return true
	case *metav1.PartialObjectMetadata:
		return o.Kind == "Pod" && o.APIVersion == "v1"
	default:
		return false
	}
}

func repair[T client.Object](ctx context.Context, w Writer, kind string, desired, live T) (T, Outcome, error) {
	field := Drift(desired, live)
	if field == "" || w.isAdmitted(desired, live) {
		return live, Unchanged, nil
	}
	if _, isBinding := any(desired).(*rbacv1.RoleBinding); isBinding && strings.HasPrefix(field, "roleRef") {
		// A binding's role can never be changed, so this one was made anew by another client.
		if err := w.Delete(ctx, live); err != nil {
			return live, Unchanged, err
		}
		created, err := create(ctx, w, kind, desired)
		return created, Created, err
	}
	merged := merge(desired, live)
	if err := w.Client.Update(ctx, merged, FieldOwner); err != nil {
		return live, Unchanged, fmt.Errorf("update %s %s: %w", kind, desired.GetName(), err)
	}
	log.FromContext(ctx).Info("Updated "+kind, "object", client.ObjectKeyFromObject(desired), "field", field)
	merged, err := noteAdmission(ctx, w, kind, desired, merged)
	return merged, Updated, err
}

func create[T client.Object](ctx context.Context, w Writer, kind string, desired T) (T, error) {
	object := copyOf(desired)
	if err := w.Client.Create(ctx, object, FieldOwner); err != nil {
		return object, fmt.Errorf("create %s %s: %w", kind, desired.GetName(), err)
	}
	log.FromContext(ctx).Info("Created "+kind, "object", client.ObjectKeyFromObject(desired))
	return noteAdmission(ctx, w, kind, desired, object)
}

// Delete removes an object as it was read: not one that was made anew under its name, and not one that has changed
// since. An object that is gone already is no error.
func (w Writer) Delete(ctx context.Context, read client.Object) error {
	kind, err := w.kindOf(read)
	if err != nil {
		return err
	}
	uid, version := read.GetUID(), read.GetResourceVersion()
	preconditions := client.Preconditions{UID: &uid, ResourceVersion: &version}
	err = w.Client.Delete(ctx, read, preconditions, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s %s: %w", kind, read.GetName(), err)
	}
	if err == nil {
		log.FromContext(ctx).Info("Deleted "+kind, "object", client.ObjectKeyFromObject(read))
	}
	return nil
}

// DeleteOwned removes the object of desired's kind and name where it exists and the same controller owns it, or owned
// it before a hand took the reference away.
func (w Writer) DeleteOwned(ctx context.Context, desired client.Object) error {
	owner := metav1.GetControllerOf(desired)
	if owner == nil {
		return fmt.Errorf("delete %T %s: it names no controller", desired, desired.GetName())
	}
	live, found, err := read(ctx, w.Client, desired)
	if err != nil {
		return err
	}
	if !found || !IsOf(live, owner.UID) || live.GetDeletionTimestamp() != nil {
		return nil
	}
	return w.Delete(ctx, live)
}

// IsOf says whether an object is a child of the owner with that UID: it controls the object, or nobody does and the
// object records it.
func IsOf(object client.Object, owner types.UID) bool {
	if controller := metav1.GetControllerOf(object); controller != nil {
		return controller.UID == owner
	}
	was, known := orphans.OwnerOf(object)
	return known && was.UID == owner
}

// read says whether the object exists. Any failure but "not found" is an error, never "absent".
func read[T client.Object](ctx context.Context, from client.Reader, like T) (T, bool, error) {
	object := emptyLike(like)
	err := from.Get(ctx, client.ObjectKeyFromObject(like), object)
	if apierrors.IsNotFound(err) {
		return object, false, nil
	}
	if err != nil {
		return object, false, fmt.Errorf("read %T %s: %w", like, like.GetName(), err)
	}
	return object, true, nil
}

func (w Writer) kindOf(object client.Object) (string, error) {
	gvk, err := apiutil.GVKForObject(object, w.Client.Scheme())
	if err != nil {
		return "", fmt.Errorf("find the kind of %T: %w", object, err)
	}
	return gvk.Kind, nil
}

// copyOf relies on what generated code promises: a deep copy has the type of its original.
func copyOf[T client.Object](object T) T { return object.DeepCopyObject().(T) } //nolint:forcetypeassert // see above

// emptyLike is a new object of the same type: reading into a used one would leave what the answer does not mention.
func emptyLike[T client.Object](object T) T {
	return reflect.New(reflect.TypeOf(object).Elem()).Interface().(T) //nolint:forcetypeassert // of the type it was made from
}
