package plan

import (
	"errors"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// A store of a type that this program does not know is measured by nobody and deleted from by nobody, whatever was
// approved, and it says so.
func TestAStoreOfAnUnknownType(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.DataStoreSpec){
		"unknown":                        func(s *v1alpha1.DataStoreSpec) { s.Type, s.Postgres = "Punchcards", nil },
		"unknown, with another's member": func(s *v1alpha1.DataStoreSpec) { s.Type = "Punchcards" },
		"PostgreSQL without a member":    func(s *v1alpha1.DataStoreSpec) { s.Postgres = nil },
		"none":                           func(s *v1alpha1.DataStoreSpec) { s.Type = "" },
	} {
		in := shared(makePolicy("p", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)), makeRule("Payments", years(7))))
		approveAll(t, in)
		if !Compile(in).Plan.Deletes() {
			t.Fatal("the store is not deleted from before it changes")
		}
		change(&in.Store.Spec)
		// Also what an approval without name and address would agree with.
		in.Store.Spec.ApprovedPlan.Database, in.Store.Spec.ApprovedPlan.Address = "", ""
		r := Compile(in)
		if r.Plan.Deletes() || r.Plan.Target.Postgres != nil || r.Plan.Target.Address() != "" || len(r.Plan.Target.Endpoints()) > 0 {
			t.Errorf("%s: %+v", name, r.Plan.Target)
		}
		said := 0
		for _, p := range r.Problems {
			if strings.Contains(p.Message, "knows no store of type") {
				said++
			}
		}
		if said != 1 {
			t.Errorf("%s: said %d times in %+v", name, said, r.Problems)
		}
		if got := conflicts(in.Store, "platform", []v1alpha1.DataStore{*in.Store.DeepCopy()}); len(got) > 0 || len(Places(in.Store)) > 0 {
			t.Errorf("%s: conflicts %v, places %v", name, got, Places(in.Store))
		}
		if _, err := Propose(r, in.Store, Asked{}, in.Now); err == nil {
			t.Errorf("%s: an approval was proposed", name)
		}
	}
}

// A plan whose target is not of its type is none: no engine has to look.
func TestATargetOfAnotherTypeIsRefused(t *testing.T) {
	p := Compile(shared()).Plan
	for name, target := range map[string]Target{
		"PostgreSQL without a member": {Type: v1alpha1.StorePostgres},
		"another's member":            {Type: "Punchcards", Postgres: p.Target.Postgres},
	} {
		p.Target = target
		b, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
