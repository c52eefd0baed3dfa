package v1alpha1

// Refused is a field of a Pod that a bot does not have, whatever its value. It is declared for the sake of the
// answer: the API server drops a field that a kind does not declare, without a word unless the client asks for strict
// validation, and then says no more than "unknown field" (docs/design/0030-refused-fields.md). A rule beside each
// such field refuses it; nothing reads one.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Refused struct{}

// UnmarshalJSON takes any value and keeps none.
func (*Refused) UnmarshalJSON([]byte) error { return nil }
