package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Problem is why something is not as it should be. Both fields are empty where nothing is wrong.
type Problem struct {
	// reason in CamelCase: one word for programs, which docs/reference/reasons.md explains.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message to the reason for people, with what to do about it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// DatasetMeasurement is what was measured of one dataset: what is its table's once, and beneath it each rule that
// governs it.
type DatasetMeasurement struct {
	// name of the dataset.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// rows in the table, as the planner estimates them.
	// +optional
	Rows int64 `json:"rows,omitempty"`

	// unknownAge rows have no age that can be believed: NULL, infinite, in the future, before 1990. They are never
	// deleted.
	// +optional
	UnknownAge int64 `json:"unknownAge,omitempty"`

	// unknownTenant rows name no tenant that is known. They fall under the base window.
	// +optional
	UnknownTenant int64 `json:"unknownTenant,omitempty"`

	// returned rows are older than those that the last complete sweep had left: they are there again. Nothing of the
	// dataset is deleted until that is approved.
	// +optional
	Returned int64 `json:"returned,omitempty"`

	// backlogLeft is how many rows of the approved backlog were left when the last sweep ended.
	// +optional
	BacklogLeft int64 `json:"backlogLeft,omitempty"`

	// capped is set when unknownAge or unknownTenant stopped at the bound of a count and the true one is larger.
	// +optional
	Capped bool `json:"capped,omitempty"`

	// reason and message say why the dataset was not measured or not deleted from. They hold for each of its rules
	// that has none of its own.
	Problem `json:",inline"`

	// notice is worth knowing and no problem, for example that triggers run when rows go.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Notice string `json:"notice,omitempty"`

	// rules that govern the dataset, worst first. None: no rule does, and nothing is promised of it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Rules []RuleMeasurement `json:"rules,omitempty"`
}

// RuleMeasurement is what was measured for one rule on one dataset.
type RuleMeasurement struct {
	// policy and rule that govern it.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy,omitempty"`
	// rule of the policy.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Rule string `json:"rule,omitempty"`

	// window in ISO 8601, for example P90D; the base window where tenants have shorter ones.
	// +required
	// +kubebuilder:validation:MaxLength=16
	Window string `json:"window,omitempty"`

	// eligible rows are past their window and could be deleted now (in Audit: would be).
	// +optional
	Eligible int64 `json:"eligible,omitempty"`

	// overdue rows are past their window and their slack, and still there.
	// +optional
	Overdue int64 `json:"overdue,omitempty"`

	// oldestOverdueSeconds is how long the worst of them has been overdue.
	// +optional
	OldestOverdueSeconds int64 `json:"oldestOverdueSeconds,omitempty"`

	// keptByFloor rows are past their window, and stay since a floor (their own or a child's) holds them.
	// +optional
	KeptByFloor int64 `json:"keptByFloor,omitempty"`

	// keptByChild rows are past their window, and stay since a row that is not expired refers to them.
	// +optional
	KeptByChild int64 `json:"keptByChild,omitempty"`

	// unknownTenantLate rows name no known tenant, and are older than the shortest window that any tenant has under
	// this rule, and slack: they may be that tenant's.
	// +optional
	UnknownTenantLate int64 `json:"unknownTenantLate,omitempty"`

	// deleted rows in the last sweep, by this rule.
	// +optional
	Deleted int64 `json:"deleted,omitempty"`

	// capped is set when a count of this rule stopped at its bound and the true one is larger.
	// +optional
	Capped bool `json:"capped,omitempty"`

	// worstOverdueSeconds is the longest that a row was seen to be overdue, before a sweep or after it, since the
	// rule governs the dataset with this window.
	// +optional
	WorstOverdueSeconds int64 `json:"worstOverdueSeconds,omitempty"`

	// worstOverdueAt is when that was seen.
	// +optional
	WorstOverdueAt *metav1.Time `json:"worstOverdueAt,omitempty"`

	// reason and message say why this rule was not measured, or why nothing was deleted by it, where that is not the
	// whole dataset's.
	Problem `json:",inline"`
}

// OmittedMeasurements counts what status.datasets has no room for. What is left out is the least bad.
type OmittedMeasurements struct {
	// rules whose measurement is not there, each rule on each dataset counted. They count as unknown.
	// +optional
	Rules int32 `json:"rules,omitempty"`

	// texts are messages and notices that are not there; the reasons are.
	// +optional
	Texts int32 `json:"texts,omitempty"`

	// worstOverdueSeconds is the longest that a row of one of these rules was ever seen to be overdue.
	// +optional
	WorstOverdueSeconds int64 `json:"worstOverdueSeconds,omitempty"`

	// worstOverdueAt is when that was seen.
	// +optional
	WorstOverdueAt *metav1.Time `json:"worstOverdueAt,omitempty"`
}

// PlanStatus is the plan that is in force.
type PlanStatus struct {
	// hash of the plan; its ConfigMap is named by it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash,omitempty"`

	// identity of the store, as last seen.
	// +optional
	Identity StoreIdentity `json:"identity,omitzero"`

	// awaitingApproval lists what the plan could delete beyond spec.approvedPlan, one entry for each window (the
	// first 64).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	AwaitingApproval []AwaitedApproval `json:"awaitingApproval,omitempty"`

	// awaitingApprovalCount is how many there are in all.
	// +optional
	AwaitingApprovalCount int32 `json:"awaitingApprovalCount,omitempty"`

	// approval says whether deletion waits for a person: Pending, Audit or None. It is not set while there is no plan.
	// +optional
	Approval ApprovalState `json:"approval,omitempty"`
}

// AwaitedApproval is a deletion that spec.approvedPlan does not cover.
type AwaitedApproval struct {
	// dataset whose rows would go.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Dataset string `json:"dataset,omitempty"`

	// message says which rows, and what was approved of them.
	// +required
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// ApprovalState says what of a plan waits for a person.
// +kubebuilder:validation:Enum=Pending;Audit;None
type ApprovalState string

const (
	// ApprovalPending: rules that enforce would delete what spec.approvedPlan does not cover, and delete nothing of
	// it meanwhile.
	ApprovalPending ApprovalState = "Pending"
	// ApprovalAudit: only rules in Audit would, so that nothing waits yet.
	ApprovalAudit ApprovalState = "Audit"
	// ApprovalNone: spec.approvedPlan covers all that the rules would delete.
	ApprovalNone ApprovalState = "None"
)

// PromiseState says how a store keeps a policy.
// +kubebuilder:validation:Enum=Kept;Overdue;NotVerified
type PromiseState string

const (
	// PromiseKept: each rule of the policy was measured on each of its datasets, and nothing is overdue.
	PromiseKept PromiseState = "Kept"
	// PromiseOverdue: rows are past window and slack, and still there.
	PromiseOverdue PromiseState = "Overdue"
	// PromiseNotVerified: the measurements do not show which of the two it is.
	PromiseNotVerified PromiseState = "NotVerified"
)

// StorePromise is how the store keeps one DataRetentionPolicy, by the last measurement.
type StorePromise struct {
	// policy that governs a dataset of the store.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy,omitempty"`

	// generation of the policy's spec that the state speaks of.
	// +required
	Generation int64 `json:"generation,omitempty"`

	// state is Kept, Overdue or NotVerified.
	// +required
	State PromiseState `json:"state,omitempty"`
}

// UndeclaredRelation is a column that is named after a dataset and that nothing ties to it: no foreign key, and no
// entry of spec.relations.
type UndeclaredRelation struct {
	// table whose column it is, as schema.table.
	// +required
	// +kubebuilder:validation:MaxLength=128
	Table string `json:"table,omitempty"`

	// column of the table.
	// +required
	// +kubebuilder:validation:MaxLength=128
	Column string `json:"column,omitempty"`

	// references is the dataset that it is named after.
	// +required
	// +kubebuilder:validation:MaxLength=63
	References string `json:"references,omitempty"`
}

// StoreConflict is a table that another DataStore maps as well.
type StoreConflict struct {
	// dataset of this store.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Dataset string `json:"dataset,omitempty"`

	// store that maps the same table, as namespace/name.
	// +required
	// +kubebuilder:validation:MaxLength=320
	Store string `json:"store,omitempty"`

	// otherDataset is what it calls the table.
	// +required
	// +kubebuilder:validation:MaxLength=63
	OtherDataset string `json:"otherDataset,omitempty"`
}

// SweepOutcome says how a sweep ended.
// +kubebuilder:validation:Enum=Done;Stopped;Refused;Failed;Lost
type SweepOutcome string

const (
	// SweepDone deleted everything that it could.
	SweepDone SweepOutcome = "Done"
	// SweepStopped ended early, with its time or its lease; the next one goes on.
	SweepStopped SweepOutcome = "Stopped"
	// SweepRefused deleted nothing, for a reason that a person must mend.
	SweepRefused SweepOutcome = "Refused"
	// SweepFailed broke off on an error.
	SweepFailed SweepOutcome = "Failed"
	// SweepLost left no report that can be read, or that counts.
	SweepLost SweepOutcome = "Lost"
)

// SweepStatus is how a sweep ended.
type SweepStatus struct {
	// jobUID of the Job that ran the sweep. Its report is read once.
	// +required
	// +kubebuilder:validation:MaxLength=63
	JobUID string `json:"jobUID,omitempty"`

	// sequence is the number, among the reports of the store, of the last one that was read, as the keyserver signed
	// it. An earlier one is never believed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sequence int64 `json:"sequence,omitempty"`

	// planDigest of the plan that it ran by: its hash without the date until which it is valid.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PlanDigest string `json:"planDigest,omitempty"`

	// outcome of the sweep.
	// +required
	Outcome SweepOutcome `json:"outcome,omitempty"`

	// reason in one word, when it did not end as it should.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message for people.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`

	// finishedAt is when the Job ended.
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`

	// attempt counts sweeps in a row that did not measure the store; 0 when this one did.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`

	// deleted rows.
	// +optional
	Deleted int64 `json:"deleted,omitempty"`
}

// DataStoreStatus is what was observed and measured.
type DataStoreStatus struct {
	// observedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Reconciling, Stalled, CredentialsReady, Reachable, CoverageComplete, Approved, Compliant.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// tenant that the store's namespace belongs to.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Tenant string `json:"tenant,omitempty"`

	// credentialsSecret names the encrypted Secret that sweeps use.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	CredentialsSecret string `json:"credentialsSecret,omitempty"`

	// credentialsGeneration is how often the keyserver had written the data key's document when it was last seen. One
	// that was written less often is an earlier copy, and is refused.
	// +optional
	// +kubebuilder:validation:Minimum=1
	CredentialsGeneration int64 `json:"credentialsGeneration,omitempty"`

	// plan in force.
	// +optional
	Plan PlanStatus `json:"plan,omitzero"`

	// point is where in its life the database was when a sweep last looked at it.
	// +optional
	Point *StorePoint `json:"point,omitempty"`

	// lastSweep is how the last sweep ended.
	// +optional
	LastSweep *SweepStatus `json:"lastSweep,omitempty"`

	// measuredAt is when rules were last measured. Two sweep intervals later they count as unknown.
	// +optional
	MeasuredAt *metav1.Time `json:"measuredAt,omitempty"`

	// measuredPlanDigest names the plan that was measured then: its hash without the date until which it is valid.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	MeasuredPlanDigest string `json:"measuredPlanDigest,omitempty"`

	// measuredTenants names the identifiers of known tenants by which a Shared store was measured then. Once others
	// are known it is swept out of turn.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	MeasuredTenants string `json:"measuredTenants,omitempty"`

	// uncovered tables are neither dataset nor exempt (the first 32).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=128
	Uncovered []string `json:"uncovered,omitempty"`

	// uncoveredCount is how many tables are uncovered in all.
	// +optional
	UncoveredCount int32 `json:"uncoveredCount,omitempty"`

	// undeclaredRelations keep their datasets from being deleted from until spec.relations declares or denies them
	// (the first 32).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	UndeclaredRelations []UndeclaredRelation `json:"undeclaredRelations,omitempty"`

	// undeclaredRelationCount is how many there are in all.
	// +optional
	UndeclaredRelationCount int32 `json:"undeclaredRelationCount,omitempty"`

	// filePointers are columns, as dataset.column, that may hold the only pointer to a file or an object elsewhere
	// (the first 32). Lethe deletes the row and not what it points to.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=128
	FilePointers []string `json:"filePointers,omitempty"`

	// filePointerCount is how many there are in all.
	// +optional
	FilePointerCount int32 `json:"filePointerCount,omitempty"`

	// conflicts are tables that another DataStore maps as well: nothing is deleted from them. Where there are more
	// than 512, the first of each dataset.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	Conflicts []StoreConflict `json:"conflicts,omitempty"`

	// conflictCount is how many there are in all.
	// +optional
	ConflictCount int32 `json:"conflictCount,omitempty"`

	// datasets as measured, with their rules beneath: worst first, a dataset by its worst rule. All of them are here
	// up to 512 KiB.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	Datasets []DatasetMeasurement `json:"datasets,omitempty"`

	// omitted counts what datasets has no room for; left out, it has room for all.
	// +optional
	Omitted *OmittedMeasurements `json:"omitted,omitempty"`

	// promises are the policies that govern datasets of the store, and how it keeps each, by name (the first 256; a
	// policy that is not here is not shown to be kept).
	// +optional
	// +listType=map
	// +listMapKey=policy
	// +kubebuilder:validation:MaxItems=256
	Promises []StorePromise `json:"promises,omitempty"`

	// promiseCount is how many there are in all.
	// +optional
	PromiseCount int32 `json:"promiseCount,omitempty"`

	// overdue rows over all rules.
	// +optional
	Overdue int64 `json:"overdue,omitempty"`

	// overdueRows is overdue in a word for the column OVERDUE: the number, 0 where a measurement shows that none is,
	// or unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=20
	OverdueRows string `json:"overdueRows,omitempty"`

	// oldestOverdueSeconds is how long the worst row of all rules has been overdue.
	// +optional
	OldestOverdueSeconds int64 `json:"oldestOverdueSeconds,omitempty"`
}
