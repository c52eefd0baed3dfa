package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// relations are what spec.relations says, sorted. What cannot be kept of it is a problem, and keeps the dataset that
// it speaks of from being deleted from.
func (c *compiler) relations() []Relation {
	c.unkept = map[string]string{}
	datasets := map[string]v1alpha1.Dataset{}
	for _, d := range c.in.Store.Spec.Datasets {
		datasets[d.Name] = d
	}
	said := map[Relation]v1alpha1.RelationState{}
	var out []Relation
	for _, r := range c.in.Store.Spec.Relations {
		at := fmt.Sprintf("spec.relations[%s.%s.%s]", schemaOf(r.Schema), r.Table, r.Column)
		d, known := datasets[r.References]
		if !known {
			c.problem("", "", "", "%s.references: there is no dataset %s; name one of spec.datasets, or take the entry away", at, r.References)
			continue
		}
		about := Relation{Schema: schemaOf(r.Schema), Table: r.Table, Column: r.Column, References: r.References}
		if before, ok := said[about]; ok {
			if before != r.State {
				c.unkept[d.Name] = c.problem(d.Name, "", "", "%s: one entry declares that it refers to dataset %s and another denies it, so nothing of that dataset is deleted; leave one", at, d.Name)
			}
			continue
		}
		said[about] = r.State
		to := r.ReferencesColumn
		if r.State == v1alpha1.RelationDeclared && to == "" {
			if len(PlaceOf(&d).key()) != 1 {
				c.unkept[d.Name] = c.problem(d.Name, "", "", "%s: the key of dataset %s has %d columns, so nothing of it is deleted until referencesColumn names the one that is meant", at, d.Name, len(PlaceOf(&d).key()))
				continue
			}
			to = PlaceOf(&d).key()[0]
		}
		about.State = r.State
		if r.State == v1alpha1.RelationDeclared {
			about.ReferencesColumn = to
		}
		out = append(out, about)
	}
	slices.SortFunc(out, func(a, b Relation) int {
		return cmp.Or(cmp.Compare(a.References, b.References), cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// declared are the relations that keep rows of a dataset.
func (p Plan) declared(dataset string) []Relation {
	var out []Relation
	for _, r := range p.Relations {
		if r.References == dataset && r.State == v1alpha1.RelationDeclared {
			out = append(out, r)
		}
	}
	return out
}
