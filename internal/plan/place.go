package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Place says where the records of a dataset lie in a store, and what tells of each how old it is and whose: the one
// member that is set. A new kind of place, keys of a pattern or objects below a prefix, is a new member, and a case in
// each method.
//
// Whoever is not an engine asks the methods.
type Place struct {
	Table *v1alpha1.Table `json:"table,omitempty"`
}

// Exemption is a place that holds nothing to delete.
type Exemption struct {
	Table *TableName `json:"table,omitempty"`
}

// TableName is a table of a database.
type TableName struct {
	Schema v1alpha1.Identifier `json:"schema"`
	Name   v1alpha1.Identifier `json:"name"`
}

// PlaceOf reads the place out of a dataset of a store's spec, with the default that the API server would have filled
// in.
func PlaceOf(d *v1alpha1.Dataset) Place {
	t := d.Table
	t.Schema = schemaOf(t.Schema)
	return Place{Table: &t}
}

// exemptionOf reads one out of a store's spec.
func exemptionOf(e *v1alpha1.Exemption) Exemption {
	return Exemption{Table: &TableName{Schema: schemaOf(e.Schema), Name: e.Table}}
}

// Name of a place for people: two datasets of one would be two windows for the same records.
func (p Place) Name() string {
	if t := p.Table; t != nil {
		return string(schemaOf(t.Schema) + "." + t.Name)
	}
	return ""
}

// Name of the place, as that of a Place.
func (e Exemption) Name() string {
	if t := e.Table; t != nil {
		return string(t.Schema + "." + t.Name)
	}
	return ""
}

// Age names what tells how old a record is, for people.
func (p Place) Age() string {
	if t := p.Table; t != nil {
		return string(t.AgeColumn.Name)
	}
	return ""
}

// IsShared says whether the place tells whose a record is.
func (p Place) IsShared() bool { return p.Table != nil && p.Table.TenantColumn != "" }

// key is the columns that tell records apart, by one of which others may refer to them.
func (p Place) key() []v1alpha1.Identifier {
	if p.Table == nil {
		return nil
	}
	return p.Table.Key
}

// Digest is the digest that an approval names of a place, of what tells age and tenant in it, and of the declared
// relations that keep its records: 32 hex digits. Without one of those relations more could go than was approved.
func (p Place) Digest(declared ...Relation) string {
	var parts []string
	if t := p.Table; t != nil {
		parts = append(parts, string(schemaOf(t.Schema)), string(t.Name))
		for _, k := range t.Key {
			parts = append(parts, "key "+string(k))
		}
		parts = append(parts, "age "+string(t.AgeColumn.Name), "type "+string(t.AgeColumn.Type), "zone "+t.AgeColumn.TimeZone, "tenant "+string(t.TenantColumn))
	}
	for _, r := range declared {
		parts = append(parts, fmt.Sprintf("kept by %s %s %s %s", r.Schema, r.Table, r.Column, r.ReferencesColumn))
	}
	// No part can hold a line break: the schema of the kind allows none.
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:16])
}

// checkPlaces refuses a plan of which a dataset or an exemption lies nowhere: no engine could say which it is.
func (p Plan) checkPlaces() error {
	for _, d := range p.Datasets {
		if d.Table == nil {
			return fmt.Errorf("%w: dataset %q lies nowhere", ErrMalformed, d.Name)
		}
	}
	for _, e := range p.Exempt {
		if e.Table == nil {
			return fmt.Errorf("%w: an exemption of nothing", ErrMalformed)
		}
	}
	return nil
}

// schemaOf gives the default that the API server would have filled in.
func schemaOf(s v1alpha1.Identifier) v1alpha1.Identifier {
	if s == "" {
		return "public"
	}
	return s
}
