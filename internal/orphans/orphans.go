// Package orphans tells whether what Lethe made still has the object that it was made for.
//
// A child records its owner's UID in an annotation, beside the owner reference: orphaning (`--cascade=orphan`) takes
// the reference away and leaves the record. A UID never comes back, so an owner that a consistent list does not hold,
// taken after the child was read, is gone for good. The lists here are the API server's own; a cache is never asked.
package orphans

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Owner is whom a child was made for.
type Owner struct {
	Kind string // resources.KindTenant, KindBotDeployment or KindDataStore
	// Namespace that the owner is in: the child's own. Empty for a Tenant.
	Namespace string
	UID       types.UID
}

// State of an owner.
type State string

const (
	// Lives: the owner exists and is not being deleted.
	Lives State = "Lives"
	// Ending: the owner exists and is being deleted. Nothing may run for it any more.
	Ending State = "Ending"
	// Gone: there is no object with that UID, and there never will be again.
	Gone State = "Gone"
)

// OwnerOf returns whom a child of Lethe's was made for. It is not ok where that cannot be told: the object does not
// carry our label, records nobody, or somebody else controls it.
func OwnerOf(child client.Object) (Owner, bool) {
	if child.GetLabels()[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByLethe {
		return Owner{}, false
	}
	owner := Owner{Namespace: child.GetNamespace(), UID: types.UID(child.GetAnnotations()[v1alpha1.AnnotationOwnerUID])}
	switch child.GetLabels()[v1alpha1.LabelComponent] {
	case resources.ComponentBot:
		owner.Kind = resources.KindBotDeployment
	case resources.ComponentSweeper, resources.ComponentPlan:
		owner.Kind = resources.KindDataStore
	case resources.ComponentIsolation:
		owner.Kind, owner.Namespace = resources.KindTenant, ""
	default:
		return Owner{}, false
	}
	if controller := metav1.GetControllerOf(child); controller != nil {
		if controller.APIVersion != v1alpha1.GroupVersion.String() || controller.Kind != owner.Kind {
			return Owner{}, false
		}
		owner.UID = controller.UID // the reference is what Kubernetes goes by
	}
	if owner.UID == "" {
		return Owner{}, false
	}
	return owner, true
}

// Owners are the objects of one kind that exist in a namespace, or all Tenants.
type Owners map[types.UID]State

// Of says how an owner is.
func (o Owners) Of(owner Owner) State {
	if state, ok := o[owner.UID]; ok {
		return state
	}
	return Gone
}

// Among are the owners in a list, which the caller knows to be as fresh as it needs.
func Among(list client.ObjectList) (Owners, error) {
	owners := Owners{}
	err := meta.EachListItem(list, func(item runtime.Object) error {
		object, ok := item.(client.Object)
		if !ok {
			return fmt.Errorf("%T is no object", item)
		}
		owners[object.GetUID()] = stateOf(object)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read a list of owners: %w", err)
	}
	return owners, nil
}

// pageSize bounds one answer of the API server.
const pageSize = 500

// List reads the objects of a kind in a namespace (empty for Tenants) past every cache. A failure to read is an
// error, never an empty list.
func List(ctx context.Context, live client.Reader, kind, namespace string) (Owners, error) {
	owners := Owners{}
	page := &metav1.PartialObjectMetadataList{}
	for {
		next := page.Continue
		page = &metav1.PartialObjectMetadataList{}
		gvk := resources.GroupVersionKind(kind)
		gvk.Kind += "List"
		page.SetGroupVersionKind(gvk)
		if err := live.List(ctx, page, client.InNamespace(namespace), client.Limit(pageSize), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("list every %s in namespace %q: %w", kind, namespace, err)
		}
		for i := range page.Items {
			owners[page.Items[i].UID] = stateOf(&page.Items[i])
		}
		if page.Continue == "" {
			return owners, nil
		}
	}
}

// Look says how one owner is. Whoever asks about many lists once.
func Look(ctx context.Context, live client.Reader, owner Owner) (State, error) {
	owners, err := List(ctx, live, owner.Kind, owner.Namespace)
	if err != nil {
		return "", err
	}
	return owners.Of(owner), nil
}

func stateOf(object client.Object) State {
	if object.GetDeletionTimestamp() != nil {
		return Ending
	}
	return Lives
}
