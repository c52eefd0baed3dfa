package resources

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Components: the value of v1alpha1.LabelComponent.
const (
	ComponentBot         = "bot"
	ComponentSweeper     = "sweeper"
	ComponentIsolation   = "isolation"
	ComponentPlan        = "plan"
	ComponentCredentials = "credentials"
	ComponentKeyserver   = "keyserver"
)

const (
	// LabelName with the value NameLethe is on Lethe's own pods in the system namespace.
	LabelName = "app.kubernetes.io/name"
	NameLethe = "lethe"

	// AnnotationCreatedFor on a Namespace holds the UID of the Tenant that the manager made it for. It decides
	// whether the namespace goes with the Tenant. It is not an owner reference, because a Tenant that is restored
	// from a backup has another UID, and garbage collection would then take the namespace and its volumes.
	AnnotationCreatedFor = "lethe.dev/created-for"
)

// Labels of a child: who manages it and what it is for.
func Labels(component string) map[string]string {
	return map[string]string{
		v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe,
		v1alpha1.LabelComponent: component,
	}
}

// BotLabels are the labels of everything that belongs to a bot.
func BotLabels(bot string) map[string]string {
	labels := Labels(ComponentBot)
	labels[v1alpha1.LabelBot] = LabelValue(bot)
	return labels
}

// StoreLabels are the labels of what belongs to a store.
func StoreLabels(store, component string) map[string]string {
	labels := Labels(component)
	labels[v1alpha1.LabelStore] = LabelValue(store)
	return labels
}

// OwnerReference makes an object a child of owner, which garbage collection removes after it. It does not block the
// owner's deletion: that would need a right of its own on the owner's finalizers, and buys nothing here.
func OwnerReference(owner metav1.Object, kind string) []metav1.OwnerReference {
	controller := true
	return []metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(),
		Kind:       kind,
		Name:       owner.GetName(),
		UID:        owner.GetUID(),
		Controller: &controller,
	}}
}

// Kinds as owner references and requests name them.
const (
	KindTenant              = "Tenant"
	KindBotDeployment       = "BotDeployment"
	KindDataStore           = "DataStore"
	KindDataRetentionPolicy = "DataRetentionPolicy"
)

// GroupVersionKind of a kind of ours.
func GroupVersionKind(kind string) schema.GroupVersionKind {
	return v1alpha1.GroupVersion.WithKind(kind)
}

func meta(namespace, name string, labels map[string]string, owner []metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, OwnerReferences: owner,
		Annotations: ownedBy(owner[0].UID)}
}

// ownedBy records whose an object is where orphaning cannot take it away.
func ownedBy(uid types.UID) map[string]string {
	return map[string]string{v1alpha1.AnnotationOwnerUID: string(uid)}
}
