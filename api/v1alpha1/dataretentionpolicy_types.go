package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyMode says whether a policy deletes.
// +kubebuilder:validation:Enum=Audit;Enforce
type PolicyMode string

const (
	// PolicyAudit measures what would be deleted, and deletes nothing.
	PolicyAudit PolicyMode = "Audit"
	// PolicyEnforce deletes what spec.approvedPlan of each store covers.
	PolicyEnforce PolicyMode = "Enforce"
)

// RuleBasis says what starts the clock of a record.
// +kubebuilder:validation:Enum=RecordAge
type RuleBasis string

// BasisRecordAge starts at the time in the dataset's age column.
const BasisRecordAge RuleBasis = "RecordAge"

// RuleAction says what happens to an expired record.
// +kubebuilder:validation:Enum=Delete
type RuleAction string

// ActionDelete deletes the row.
const ActionDelete RuleAction = "Delete"

// TenantOverride shortens a rule's window for one tenant.
//
// +kubebuilder:validation:XValidation:rule="self.tenant.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of a Tenant (the value is not repeated here)",fieldPath=".tenant"
type TenantOverride struct {
	// tenant by name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Tenant string `json:"tenant,omitempty"`

	// retainFor that applies instead, provably shorter than the rule's.
	// +required
	RetainFor *Period `json:"retainFor,omitempty"`
}

// RetentionRule is one sentence of the privacy policy.
//
// +kubebuilder:validation:XValidation:rule="!has(self.deleteWithin) || !has(self.deleteWithin.minutes) || self.deleteWithin.minutes >= 60",message="a store is swept once in an hour, so that no shorter time can be promised: write hours: 1 or more, or minutes from 60 on",fieldPath=".deleteWithin.minutes"
// +kubebuilder:validation:XValidation:rule="(has(self.basis) && self.basis != 'RecordAge') || has(self.retainFor)",message="retainFor is required when basis is RecordAge"
// +kubebuilder:validation:XValidation:rule="self.dataClass.matches('^[A-Z][A-Za-z0-9]*$')",message="write a class as Conversations: letters and digits, a capital first (the value is not repeated here)",fieldPath=".dataClass"
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be lower-case letters, digits and dashes (the value is not repeated here)",fieldPath=".name"
type RetentionRule struct {
	// name of the rule.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// dataClass that the rule governs, in every store that storeSelector selects.
	// +required
	DataClass DataClass `json:"dataClass,omitempty"`

	// basis of the clock. Defaults to RecordAge.
	// +optional
	Basis RuleBasis `json:"basis,omitempty"`

	// retainFor this long; after it a record may go.
	// +optional
	RetainFor *Period `json:"retainFor,omitempty"`

	// deleteWithin this much clock time after retainFor; after it a record is overdue. At least an hour, which is how
	// often stores are swept. Defaults to 24 hours.
	// +optional
	DeleteWithin *Slack `json:"deleteWithin,omitempty"`

	// action on an expired record. Defaults to Delete.
	// +optional
	Action RuleAction `json:"action,omitempty"`

	// tenantOverrides shorten the window for single tenants; they can never lengthen it. Where a Tenant has an
	// override of its own for the same class, the shorter of the two applies.
	// +optional
	// +listType=map
	// +listMapKey=tenant
	// +kubebuilder:validation:MaxItems=256
	TenantOverrides []TenantOverride `json:"tenantOverrides,omitempty"`
}

// DataRetentionPolicySpec is a published promise.
//
// +kubebuilder:validation:XValidation:rule="(has(self.storeSelector.matchLabels) && self.storeSelector.matchLabels.size() > 0) || (has(self.storeSelector.matchExpressions) && self.storeSelector.matchExpressions.size() > 0)",message="selects nothing: name labels of the stores that the promise is about in matchLabels, such as retention: published",fieldPath=".storeSelector"
type DataRetentionPolicySpec struct {
	// storeSelector selects DataStores by label, in all namespaces. An empty one is refused.
	// +required
	StoreSelector metav1.LabelSelector `json:"storeSelector,omitzero"`

	// mode of the policy. Defaults to Audit: nothing is deleted until it says Enforce.
	// +optional
	// +kubebuilder:default=Audit
	Mode PolicyMode `json:"mode,omitempty"`

	// rules of the promise, one for each data class.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(r, self.filter(s, s.dataClass == r.dataClass).size() == 1)",message="names a dataClass twice: one promise for one class",messageExpression="'spec.rules[%d] names the dataClass of another rule: one promise for one class'.format([self.map(r, self.filter(s, s.dataClass == r.dataClass).size() == 1).lastIndexOf(false)])"
	Rules []RetentionRule `json:"rules,omitempty"`
}

// DataRetentionPolicyStatus sums up over the stores.
type DataRetentionPolicyStatus struct {
	// observedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Reconciling, Stalled, Compliant.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// matched stores.
	// +optional
	Matched int32 `json:"matched,omitempty"`

	// compliant stores of those.
	// +optional
	Compliant int32 `json:"compliant,omitempty"`

	// overdue rows over all stores.
	// +optional
	Overdue int64 `json:"overdue,omitempty"`

	// overdueRows is overdue in a word for the column OVERDUE: the number, 0 where measurements of all stores show
	// that none is, or unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=20
	OverdueRows string `json:"overdueRows,omitempty"`

	// oldestOverdueSeconds is how long the worst row has been overdue.
	// +optional
	OldestOverdueSeconds int64 `json:"oldestOverdueSeconds,omitempty"`

	// worstStore as namespace/name.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	WorstStore string `json:"worstStore,omitempty"`
}

// DataRetentionPolicy is one published promise about how long data is kept.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=dataretentionpolicies,shortName=drp,categories=lethe
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Stores",type=integer,JSONPath=`.status.matched`
// +kubebuilder:printcolumn:name="Compliant",type=string,JSONPath=`.status.conditions[?(@.type=="Compliant")].status`
// +kubebuilder:printcolumn:name="Overdue",type=string,JSONPath=`.status.overdueRows`
// +kubebuilder:printcolumn:name="Worst store",type=string,priority=1,JSONPath=`.status.worstStore`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DataRetentionPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	// +required
	Spec DataRetentionPolicySpec `json:"spec,omitzero"`

	// status is what was observed. An object begins with one that says that nobody has looked at it, so that nothing
	// takes it for ready, whether the manager runs or not.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1,"overdueRows":"unknown","conditions":{{"type":"Ready","status":"Unknown","reason":"Pending","message":"Waiting for the manager to look at it.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Reconciling","status":"True","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Compliant","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"}}}
	Status DataRetentionPolicyStatus `json:"status,omitzero"`
}

// DataRetentionPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type DataRetentionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataRetentionPolicy `json:"items"`
}
