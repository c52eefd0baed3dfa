package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestRelationsOfASpec(t *testing.T) {
	relation := func(column, to string, state v1alpha1.RelationState) v1alpha1.Relation {
		return v1alpha1.Relation{Table: "files", Column: v1alpha1.Identifier(column), References: to, State: state, Reason: "said so"}
	}
	tests := map[string]struct {
		change  func(*v1alpha1.DataStoreSpec)
		want    []string
		problem string // and then nothing is deleted from messages
		deletes bool
	}{
		"declared: the key is what is compared": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Relations = []v1alpha1.Relation{relation("message_id", "messages", v1alpha1.RelationDeclared)}
			}, []string{"public.files.message_id Declared messages.id"}, "", true,
		},
		"denied": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Relations = []v1alpha1.Relation{relation("message_id", "messages", v1alpha1.RelationDenied)}
			}, []string{"public.files.message_id Denied messages."}, "", true,
		},
		"a key of two columns": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Datasets[1].Table.Key = []v1alpha1.Identifier{"account_id", "id"}
				s.Relations = []v1alpha1.Relation{relation("message_id", "messages", v1alpha1.RelationDeclared)}
			}, nil, "referencesColumn names the one that is meant", false,
		},
		"a key of two columns, and the one that is meant": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Datasets[1].Table.Key = []v1alpha1.Identifier{"account_id", "id"}
				s.Relations = []v1alpha1.Relation{relation("message_id", "messages", v1alpha1.RelationDeclared)}
				s.Relations[0].ReferencesColumn = "id"
			}, []string{"public.files.message_id Declared messages.id"}, "", true,
		},
		"declared and denied": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Relations = []v1alpha1.Relation{relation("message_id", "messages", v1alpha1.RelationDeclared), relation("message_id", "messages", v1alpha1.RelationDenied)}
				s.Relations[1].Schema = "public"
			}, []string{"public.files.message_id Declared messages.id"}, "leave one", false,
		},
		"a dataset that is not there": {
			func(s *v1alpha1.DataStoreSpec) {
				s.Relations = []v1alpha1.Relation{relation("mail_id", "mails", v1alpha1.RelationDeclared)}
			}, nil, "there is no dataset mails", true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in := dedicated(makePolicy("privacy", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
			tc.change(&in.Store.Spec)
			if tc.deletes {
				approveAll(t, in)
			}
			r := Compile(in)
			var got []string
			for _, k := range r.Plan.Relations {
				got = append(got, fmt.Sprintf("%s.%s.%s %s %s.%s", k.Schema, k.Table, k.Column, k.State, k.References, k.ReferencesColumn))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("relations (-want +got):\n%s", diff)
			}
			if said := fmt.Sprint(r.Problems); tc.problem == "" && len(r.Problems) > 0 || !strings.Contains(said, tc.problem) {
				t.Errorf("problems %s, want %q", said, tc.problem)
			}
			if r.Plan.Deletes() != tc.deletes {
				t.Errorf("deletes: %t", r.Plan.Deletes())
			}
		})
	}
}

// Without a declared relation more would go than was approved, so that taking it away, or denying it, waits for a
// person.
func TestADeclaredRelationIsPartOfWhatIsApproved(t *testing.T) {
	in := dedicated(makePolicy("privacy", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
	in.Store.Spec.Relations = []v1alpha1.Relation{{Table: "files", Column: "message_id", References: "messages", State: v1alpha1.RelationDeclared, Reason: "said so"}}
	approveAll(t, in)
	if !Compile(in).Plan.Deletes() {
		t.Fatal("what was approved is not deleted")
	}
	for name, change := range map[string]func(*v1alpha1.DataStoreSpec){
		"denied":         func(s *v1alpha1.DataStoreSpec) { s.Relations[0].State = v1alpha1.RelationDenied },
		"taken away":     func(s *v1alpha1.DataStoreSpec) { s.Relations = nil },
		"another column": func(s *v1alpha1.DataStoreSpec) { s.Relations[0].Column = "mail_id" },
	} {
		changed := in
		changed.Store = in.Store.DeepCopy()
		change(&changed.Store.Spec)
		if r := Compile(changed); r.Plan.Deletes() || !r.Waiting || !strings.Contains(strings.Join(r.Awaiting(), ""), "other relations") {
			t.Errorf("%s: deletes %t, awaiting %v", name, r.Plan.Deletes(), r.AwaitingApproval)
		}
	}
}
