package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SealingKey is a public key that credentials of this tenant are sealed to.
type SealingKey struct {
	// kid names the key: the first 16 hex digits of the SHA-256 of its public bytes.
	// +required
	// +kubebuilder:validation:MaxLength=64
	KID string `json:"kid,omitempty"`

	// suite of the key: MLKEM768-X25519+HKDF-SHA256+AES-256-GCM.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Suite string `json:"suite,omitempty"`

	// public key, base64url without padding.
	// +required
	// +kubebuilder:validation:MaxLength=4096
	Public string `json:"public,omitempty"`

	// realm that is bound into every value sealed to this key.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Realm string `json:"realm,omitempty"`

	// state is Active for the key to seal to, and Retired for one that only goes on opening what was sealed to it
	// before.
	// +required
	// +kubebuilder:validation:Enum=Active;Retired
	State string `json:"state,omitempty"`
}

// States of a sealing key.
const (
	SealingKeyActive  = "Active"
	SealingKeyRetired = "Retired"
)

// TenantNamespaceStatus is a namespace that was found to be the tenant's.
type TenantNamespaceStatus struct {
	// name of the namespace.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// uid of the namespace. A namespace made again under the same name has another one.
	// +required
	// +kubebuilder:validation:MaxLength=63
	UID string `json:"uid,omitempty"`

	// origin is Created when the manager made the namespace (and removes it with the Tenant), Adopted when it was
	// there before.
	// +required
	// +kubebuilder:validation:Enum=Created;Adopted
	Origin string `json:"origin,omitempty"`
}

// UIDRange is a block of numeric user ids that belongs to one tenant.
type UIDRange struct {
	// first id of the range. Every bot of the tenant runs as this user and group.
	// +required
	// +kubebuilder:validation:Minimum=1000000000
	// +kubebuilder:validation:Maximum=2147483647
	First int64 `json:"first,omitempty"`

	// size of the range.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	Size int64 `json:"size,omitempty"`
}

// RetainedVolume is a volume whose bot is gone.
type RetainedVolume struct {
	// namespace of the PersistentVolumeClaim.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name of the PersistentVolumeClaim.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// RetainedVolumes are the volumes in a tenant's namespaces whose bots are gone.
type RetainedVolumes struct {
	// count of all of them.
	// +required
	Count int32 `json:"count,omitempty"`

	// items are the first of them by namespace and name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Items []RetainedVolume `json:"items,omitempty"`
}

// TenantStatus is what was observed.
type TenantStatus struct {
	// observedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Reconciling, Stalled, NamespacesReady, IsolationReady, KeysReady, InUse, ChangesPaused.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// namespaces that are the tenant's, by UID.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Namespaces []TenantNamespaceStatus `json:"namespaces,omitempty"`

	// externalIDs are those of the spec that this Tenant was the first to claim: a Tenant that claims one of them
	// later is the one that is Stalled.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	ExternalIDs []ExternalID `json:"externalIDs,omitempty"`

	// sealingKeys that open what was sealed to them; the first is the one to seal to, the others are retired. Only the
	// keyserver writes them.
	// +optional
	// +listType=map
	// +listMapKey=kid
	// +kubebuilder:validation:MaxItems=16
	SealingKeys []SealingKey `json:"sealingKeys,omitempty"`

	// uidRange is the tenant's block of user ids, as the keyserver recorded it. No two Tenants share one, and none
	// holds an id of Lethe's own programs. No bot is made before it is known.
	// +optional
	UIDRange *UIDRange `json:"uidRange,omitempty"`

	// retainedVolumes are the volumes in the namespaces whose bots are gone. Left out, there are none.
	// +optional
	RetainedVolumes *RetainedVolumes `json:"retainedVolumes,omitempty"`

	// kekGrade is Production, or Evaluation where the key-encryption key lies in a Secret of the same etcd.
	// +optional
	// +kubebuilder:validation:Enum=Production;Evaluation
	KEKGrade string `json:"kekGrade,omitempty"`

	// keysGeneration is how often the keyserver had written the Tenant's keys when they were last seen. Keys that were
	// written less often are an earlier copy, and are refused.
	// +optional
	// +kubebuilder:validation:Minimum=1
	KeysGeneration int64 `json:"keysGeneration,omitempty"`
}
