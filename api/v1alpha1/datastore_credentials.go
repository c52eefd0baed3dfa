package v1alpha1

import "slices"

// StoreCredential is one of the secrets that a store is opened with.
//
// +kubebuilder:object:generate=false
type StoreCredential struct {
	// Name under which it is sealed, stored and handed to the engine.
	Name string `json:"-"`
	// Field of a DataStore that holds it.
	Field string `json:"-"`
	// Sealed is what stands there.
	Sealed SealedValue `json:"-"`
}

// Credentials of a store, in the order of its spec; none: its type is not known, or its spec says nothing of that type.
// Which there are its engine decides: whoever stores, checks or hands them out takes the whole set.
func (s *DataStoreSpec) Credentials() []StoreCredential {
	if p := s.Postgres; s.Type == StorePostgres && p != nil {
		return []StoreCredential{{Name: "password", Field: "spec.postgres.password", Sealed: p.Password}}
	}
	return nil
}

// CredentialField is where a credential of the store stands; empty: it has none of that name.
func (s *DataStoreSpec) CredentialField(name string) string {
	all := s.Credentials()
	if i := slices.IndexFunc(all, func(c StoreCredential) bool { return c.Name == name }); i >= 0 {
		return all[i].Field
	}
	return ""
}

// DropCredentials takes the sealed values out of a spec that is kept in memory. What else holds the same spec keeps
// them.
func (s *DataStoreSpec) DropCredentials() {
	if s.Postgres != nil && s.Postgres.Password != "" {
		p := *s.Postgres
		p.Password = ""
		s.Postgres = &p
	}
}
