package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

// sayRelations tells what a person said of columns that the database ties to nothing, and which ones nobody has
// spoken of.
func (s *compiledStore) sayRelations(say func(string, ...any)) {
	if said := s.store.Spec.Relations; len(said) > 0 {
		say("\nReferences that the database does not know:")
		for _, r := range said {
			schema := r.Schema
			if schema == "" {
				schema = "public"
			}
			what := "does not keep records of"
			if r.State == v1alpha1.RelationDeclared {
				what = "keeps the records that it names of"
			}
			say("  %s.%s.%s %s %s: %s", schema, r.Table, r.Column, what, r.References, r.Reason)
		}
	}
	s.sayUndeclared(say)
	if names := s.store.Status.FilePointers; !s.changed && s.pointers() > 0 {
		say("\nMay hold the only pointer to a file or an object elsewhere, which nobody deletes with the record: %s.", counted(names, s.pointers()))
	}
}

// sayUndeclared names the columns that wait for a person, with what to write.
func (s *compiledStore) sayUndeclared(say func(string, ...any)) {
	var open []v1alpha1.Relation
	for _, u := range s.store.Status.UndeclaredRelations {
		schema, table, _ := strings.Cut(u.Table, ".")
		r := v1alpha1.Relation{Schema: v1alpha1.Identifier(schema), Table: v1alpha1.Identifier(table), Column: v1alpha1.Identifier(u.Column), References: u.References,
			State: v1alpha1.RelationDeclared, Reason: "say why, or write state: Denied"}
		if !s.said(r) {
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		return
	}
	say("\nColumns that are named after a dataset, while no foreign key says whether they refer to it. Nothing is deleted from either until spec.relations says so, with your reason.")
	if n := int(s.store.Status.UndeclaredRelationCount) - len(s.store.Status.UndeclaredRelations); n > 0 {
		say("These are the first; %d more will be shown when they are said.", n)
	}
	b, err := yaml.Marshal(map[string]any{"spec": map[string]any{"relations": append(append([]v1alpha1.Relation(nil), s.store.Spec.Relations...), open...)}})
	if err != nil {
		return // what was decoded from YAML encodes
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		text := strings.TrimLeft(line, " ")
		say(strings.Repeat(" ", 2+len(line)-len(text))+"%s", text) // what is put in loses the spaces around it
	}
}

// guessed says whether a dataset waits for a person to say what a column refers to.
func (s *compiledStore) guessed(d plan.Dataset) bool {
	return slices.ContainsFunc(s.store.Status.UndeclaredRelations, func(u v1alpha1.UndeclaredRelation) bool {
		schema, table, _ := strings.Cut(u.Table, ".")
		return (u.References == d.Name || u.Table == d.Place.Name()) &&
			!s.said(v1alpha1.Relation{Schema: v1alpha1.Identifier(schema), Table: v1alpha1.Identifier(table), Column: v1alpha1.Identifier(u.Column), References: u.References})
	})
}

func (s *compiledStore) said(r v1alpha1.Relation) bool {
	for _, p := range s.compiled.Plan.Relations {
		if p.Schema == r.Schema && p.Table == r.Table && p.Column == r.Column && p.References == r.References {
			return true
		}
	}
	return false
}

func (s *compiledStore) pointers() int {
	return max(len(s.store.Status.FilePointers), int(s.store.Status.FilePointerCount))
}

// counted names what there is room for and counts the rest.
func counted(names []string, total int) string {
	switch {
	case len(names) == 0:
		return many(total, "column")
	case total > len(names):
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), total-len(names))
	default:
		return strings.Join(names, ", ")
	}
}

// errFiles says that files would be left behind, and nobody has said that they may be.
var errFiles = errors.New("nothing was changed: rows hold the only pointer to a file or an object, which Lethe does not delete; see to the files first, or agree with --leave-files")
