package v1alpha1

import "regexp"

// StoreIdentity is what proves that the store behind an address is the one that was approved: it is made where the
// store's own storage is, and stays with the data. Two are of one store where kind and value are the same; what they
// are made of only the engine of the store knows.
//
// +kubebuilder:validation:XValidation:rule="self.kind.matches('^[A-Z][A-Za-z0-9]*$')",message="must be the word that status.plan.identity shows (the value is not repeated here)",fieldPath=".kind"
// +kubebuilder:validation:XValidation:rule="self.value.matches('^[A-Za-z0-9][-A-Za-z0-9._:]*$')",message="must be the value that status.plan.identity shows (it is not repeated here)",fieldPath=".value"
type StoreIdentity struct {
	// kind of identity. PostgreSQL has PostgresSystemIdentifier, the number that pg_control_system tells.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Kind string `json:"kind,omitempty"`

	// value of that kind.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Value string `json:"value,omitempty"`
}

// IsValid says whether an identity has the form that its schema asks for.
func (i StoreIdentity) IsValid() bool {
	return kindForm.MatchString(i.Kind) && identityForm.MatchString(i.Value)
}

// StorePoint is a place in the life of a store, in its engine's own words. Whoever else has it keeps it as it is: only
// the engine can say whether a store that is at one point now has gone back from another.
//
// +kubebuilder:validation:XValidation:rule="self.kind.matches('^[A-Z][A-Za-z0-9]*$')",message="must be the word that status.point shows (the value is not repeated here)",fieldPath=".kind"
// +kubebuilder:validation:XValidation:rule="self.value.matches('^[A-Za-z0-9][-A-Za-z0-9._:/=,]*$')",message="must be the value that status.point shows (it is not repeated here)",fieldPath=".value"
type StorePoint struct {
	// kind of point. PostgreSQL has PostgresPoint.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Kind string `json:"kind,omitempty"`

	// value of that kind. A PostgresPoint has the object identifier of the database, the timeline of its server, the
	// position in the write-ahead log, and the number of the next transaction with its epoch, such as
	// oid=16384,timeline=1,position=0/16B3748,transactions=740.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Value string `json:"value,omitempty"`
}

// IsValid says whether a point has the form that its schema asks for.
func (p StorePoint) IsValid() bool {
	return kindForm.MatchString(p.Kind) && pointForm.MatchString(p.Value)
}

// Forms of identities and points, as their schemas have them.
var (
	kindForm     = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)
	identityForm = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._:]{0,127}$`)
	pointForm    = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._:/=,]{0,255}$`)
)
