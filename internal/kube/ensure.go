// Package kube writes the objects that Lethe owns, and only when something about them is not as it should be.
//
// An object is compared with what a builder says first; equal means no request at all. A missing one is created. One that
// differs is written whole, at the version that was compared: what a foreign hand added to a field of ours goes away too,
// which server-side apply would leave, since it takes back only what it once set itself. An object that another controller
// owns, or nobody, is refused: never adopted, overwritten or deleted.
package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
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
	// Live reads past the cache. It is asked only when the cache knows no object of a name that is taken.
	Live client.Reader
}

// Ensure makes the child of an owner be as desired says. The child must name the owner as its controller.
func (w Writer) Ensure(ctx context.Context, desired client.Object) (Outcome, error) {
	owner := metav1.GetControllerOf(desired)
	if owner == nil {
		return Unchanged, fmt.Errorf("ensure %T %s: it names no controller", desired, desired.GetName())
	}
	mine := func(live client.Object) bool {
		controller := metav1.GetControllerOf(live)
		return controller != nil && controller.UID == owner.UID
	}
	return w.ensure(ctx, desired, mine)
}

// EnsureNamespace makes a namespace carry the labels and annotations that desired says. mine decides whether one that
// exists may be written.
func (w Writer) EnsureNamespace(ctx context.Context, desired *corev1.Namespace, mine func(client.Object) bool) (Outcome, error) {
	return w.ensure(ctx, desired, mine)
}

func (w Writer) ensure(ctx context.Context, desired client.Object, mine func(client.Object) bool) (Outcome, error) {
	kind, err := w.kindOf(desired)
	if err != nil {
		return Unchanged, err
	}
	live, err := w.read(ctx, w.Client, desired)
	if err != nil {
		return Unchanged, fmt.Errorf("read %s %s: %w", kind, desired.GetName(), err)
	}
	if live == nil {
		err := w.create(ctx, kind, desired)
		if !apierrors.IsAlreadyExists(err) {
			return Created, err
		}
		// The cache holds only what carries our label, so this is a stranger, or a child that lost its label.
		live, err = w.read(ctx, w.Live, desired)
		if err != nil {
			return Unchanged, fmt.Errorf("read %s %s: %w", kind, desired.GetName(), err)
		}
		if live == nil {
			return Unchanged, apierrors.NewConflict(w.resource(kind), desired.GetName(), errors.New("it appeared and went away"))
		}
	}
	key := client.ObjectKeyFromObject(desired)
	if !mine(live) {
		return Unchanged, &ForeignError{Kind: kind, Key: key}
	}
	if live.GetDeletionTimestamp() != nil {
		return Unchanged, &TerminatingError{Kind: kind, Key: key}
	}
	return w.repair(ctx, kind, desired, live)
}

func (w Writer) repair(ctx context.Context, kind string, desired, live client.Object) (Outcome, error) {
	field := Drift(desired, live)
	if field == "" {
		return Unchanged, nil
	}
	if _, isBinding := desired.(*rbacv1.RoleBinding); isBinding && strings.HasPrefix(field, "roleRef") {
		// A binding's role can never be changed, so this one was made anew by another hand.
		if err := w.Delete(ctx, live); err != nil {
			return Unchanged, err
		}
		return Created, w.create(ctx, kind, desired)
	}
	merged, err := merge(desired, live)
	if err != nil {
		return Unchanged, err
	}
	if err := w.Client.Update(ctx, merged, FieldOwner); err != nil {
		return Unchanged, fmt.Errorf("update %s %s: %w", kind, desired.GetName(), err)
	}
	log.FromContext(ctx).Info("Updated "+kind, "object", client.ObjectKeyFromObject(desired), "field", field)
	return Updated, nil
}

func (w Writer) create(ctx context.Context, kind string, desired client.Object) error {
	object, err := copyOf(desired)
	if err != nil {
		return err
	}
	if err := w.Client.Create(ctx, object, FieldOwner); err != nil {
		return fmt.Errorf("create %s %s: %w", kind, desired.GetName(), err)
	}
	log.FromContext(ctx).Info("Created "+kind, "object", client.ObjectKeyFromObject(desired))
	return nil
}

// Delete removes an object as it was read: not one that was made anew under its name, and not one that has changed since.
// An object that is gone already is no error.
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

// DeleteOwned removes the object of desired's kind and name where it exists and the same controller owns it.
func (w Writer) DeleteOwned(ctx context.Context, desired client.Object) error {
	owner := metav1.GetControllerOf(desired)
	live, err := w.read(ctx, w.Client, desired)
	if err != nil || live == nil || owner == nil {
		return err
	}
	controller := metav1.GetControllerOf(live)
	if controller == nil || controller.UID != owner.UID || live.GetDeletionTimestamp() != nil {
		return nil
	}
	return w.Delete(ctx, live)
}

// read returns nil when there is no such object. Any other failure is an error, never "absent".
func (w Writer) read(ctx context.Context, from client.Reader, like client.Object) (client.Object, error) {
	object, err := copyOf(like)
	if err != nil {
		return nil, err
	}
	err = from.Get(ctx, client.ObjectKeyFromObject(like), object)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // absent is an answer here
	}
	if err != nil {
		return nil, err
	}
	return object, nil
}

func (w Writer) kindOf(object client.Object) (string, error) {
	gvk, err := apiutil.GVKForObject(object, w.Client.Scheme())
	if err != nil {
		return "", fmt.Errorf("find the kind of %T: %w", object, err)
	}
	return gvk.Kind, nil
}

func copyOf(object client.Object) (client.Object, error) {
	duplicate, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("copy %T: the copy is of another type", object)
	}
	return duplicate, nil
}
