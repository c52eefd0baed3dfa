package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodeRequirement asks for a label of a node.
//
// +kubebuilder:validation:XValidation:rule="self.key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the key of a node's label such as topology.kubernetes.io/zone (the value is not repeated here)",fieldPath=".key"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['In', 'NotIn']) || has(self.values)",message="are needed where operator is In or NotIn: name the label's values that are meant",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values)",message="must be left out where operator is Exists or DoesNotExist, which ask for no value",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^[0-9]{1,18}$'))",message="must be one whole number from 0 on, in quotes, where operator is Gt or Lt",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!has(self.values) || self.operator in ['Gt', 'Lt'] || self.values.all(v, v.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",message="must be values of a label: at most 63 letters, digits, dashes, dots and underscores each (the value is not repeated here)",fieldPath=".values"
type NodeRequirement struct {
	// key of the label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// operator is In or NotIn for a label with, or without, one of the values; Exists or DoesNotExist for one with
	// any value, or none; Gt or Lt for one that is a greater, or a lesser, number.
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist;Gt;Lt
	Operator corev1.NodeSelectorOperator `json:"operator,omitempty"`

	// values of the label, for In, NotIn, Gt and Lt.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=63
	Values []string `json:"values,omitempty"`
}

// NodeTerm is a node on which all of it holds.
type NodeTerm struct {
	// matchExpressions that a node's labels all fit.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=6
	MatchExpressions []NodeRequirement `json:"matchExpressions,omitempty"`
}

// NodeTerms are nodes on which one of the terms holds.
type NodeTerms struct {
	// nodeSelectorTerms of which a node fits one.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	NodeSelectorTerms []NodeTerm `json:"nodeSelectorTerms,omitempty"`
}

// PreferredNodes are nodes that are better than others.
type PreferredNodes struct {
	// weight beside that of other preferences.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight,omitempty"`

	// preference is which nodes.
	// +required
	Preference NodeTerm `json:"preference,omitzero"`
}

// NodeAffinity says by their labels which nodes pods run on.
//
// +kubebuilder:validation:XValidation:rule="has(self.requiredDuringSchedulingIgnoredDuringExecution) || has(self.preferredDuringSchedulingIgnoredDuringExecution)",message="says nothing: set requiredDuringSchedulingIgnoredDuringExecution or preferredDuringSchedulingIgnoredDuringExecution, or leave it out"
type NodeAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution are the only nodes that pods start on. One that runs stays where
	// it is.
	// +optional
	Required *NodeTerms `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`

	// preferredDuringSchedulingIgnoredDuringExecution are nodes that pods start on where they have room.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Preferred []PreferredNodes `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// PodRequirement asks for a label of a pod.
//
// +kubebuilder:validation:XValidation:rule="self.key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the key of a pod's label such as lethe.dev/bot (the value is not repeated here)",fieldPath=".key"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['In', 'NotIn']) || has(self.values)",message="are needed where operator is In or NotIn: name the label's values that are meant",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values)",message="must be left out where operator is Exists or DoesNotExist, which ask for no value",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!has(self.values) || self.values.all(v, v.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",message="must be values of a label: at most 63 letters, digits, dashes, dots and underscores each (the value is not repeated here)",fieldPath=".values"
type PodRequirement struct {
	// key of the label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// operator is In or NotIn for a label with, or without, one of the values, and Exists or DoesNotExist for one
	// with any value, or none.
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
	Operator metav1.LabelSelectorOperator `json:"operator,omitempty"`

	// values of the label, for In and NotIn.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=63
	Values []string `json:"values,omitempty"`
}

// PodSelector selects pods by their labels.
type PodSelector struct {
	// matchExpressions that a pod's labels all fit.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	MatchExpressions []PodRequirement `json:"matchExpressions,omitempty"`
}

// PodTerm is about pods in the same namespace, and in the same place. There is none about other namespaces: what runs
// there is another tenant's, or another copy of this one's. Sweeps are never meant.
//
// +kubebuilder:validation:XValidation:rule="self.topologyKey.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the key of a node's label such as topology.kubernetes.io/zone (the value is not repeated here)",fieldPath=".topologyKey"
type PodTerm struct {
	// topologyKey is the node's label by which places are told apart, for example kubernetes.io/hostname.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	TopologyKey string `json:"topologyKey,omitempty"`

	// labelSelector of the pods that are meant. Left out, the tenant's bots.
	// +optional
	LabelSelector *PodSelector `json:"labelSelector,omitempty"`
}

// PreferredPodTerm is a place that is better than others.
type PreferredPodTerm struct {
	// weight beside that of other preferences.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight,omitempty"`

	// podAffinityTerm is which pods, and how near.
	// +required
	PodAffinityTerm PodTerm `json:"podAffinityTerm,omitzero"`
}

// PodAffinity says which pods of their namespace bots run near, or far from.
//
// +kubebuilder:validation:XValidation:rule="has(self.requiredDuringSchedulingIgnoredDuringExecution) || has(self.preferredDuringSchedulingIgnoredDuringExecution)",message="says nothing: set requiredDuringSchedulingIgnoredDuringExecution or preferredDuringSchedulingIgnoredDuringExecution, or leave it out"
type PodAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution must all hold where a bot starts: one for which there is no such
	// place waits.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Required []PodTerm `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`

	// preferredDuringSchedulingIgnoredDuringExecution hold where a bot starts if there is such a place.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Preferred []PreferredPodTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// TenantAffinity says which nodes a tenant's pods run on, and which other pods its bots run near, or far from.
//
// +kubebuilder:validation:XValidation:rule="has(self.nodeAffinity) || has(self.podAffinity) || has(self.podAntiAffinity)",message="says nothing: set one of nodeAffinity, podAffinity and podAntiAffinity, or leave it out"
type TenantAffinity struct {
	// nodeAffinity of every pod of the tenant, beside nodeSelector.
	// +optional
	NodeAffinity *NodeAffinity `json:"nodeAffinity,omitempty"`

	// podAffinity of the tenant's bots: near which pods of their namespace they run. A sweep is alone.
	// +optional
	PodAffinity *PodAffinity `json:"podAffinity,omitempty"`

	// podAntiAffinity of the tenant's bots: from which pods of their namespace they keep away, and these from them.
	// +optional
	PodAntiAffinity *PodAffinity `json:"podAntiAffinity,omitempty"`
}
