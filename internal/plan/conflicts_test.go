package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestTwoStoresOnOneTable: the pairs are looked at from both sides.
func TestTwoStoresOnOneTable(t *testing.T) {
	const acme, globex = "acme", "globex"
	tests := map[string]struct {
		a, b         func(*v1alpha1.DataStore)
		tenants      [2]string
		wantA, wantB bool // whether a finds b, and b finds a
	}{
		"the same address": {tenants: [2]string{acme, acme}, wantA: true, wantB: true},
		"the same address, written otherwise": {
			b: func(s *v1alpha1.DataStore) { s.Spec.Postgres.Host = "DB.Example." }, tenants: [2]string{acme, acme}, wantA: true, wantB: true,
		},
		"another host name, and the same server": {
			a:       func(s *v1alpha1.DataStore) { s.Status.Plan.Identity.Value = "7300" },
			b:       func(s *v1alpha1.DataStore) { s.Spec.Postgres.Host, s.Status.Plan.Identity.Value = "10.1.2.3", "7300" },
			tenants: [2]string{acme, acme}, wantA: true, wantB: true,
		},
		"another host name, and a value of another kind": {
			a: func(s *v1alpha1.DataStore) { s.Status.Plan.Identity = v1alpha1.StoreIdentity{Kind: "A", Value: "7300"} },
			b: func(s *v1alpha1.DataStore) {
				s.Spec.Postgres.Host, s.Status.Plan.Identity = "10.1.2.3", v1alpha1.StoreIdentity{Kind: "B", Value: "7300"}
			},
			tenants: [2]string{acme, acme},
		},
		"another host name, and nobody knows the server yet": {
			b: func(s *v1alpha1.DataStore) { s.Spec.Postgres.Host = "10.1.2.3" }, tenants: [2]string{acme, acme},
		},
		"another port":     {b: func(s *v1alpha1.DataStore) { s.Spec.Postgres.Port = 5433 }, tenants: [2]string{acme, acme}},
		"another database": {b: func(s *v1alpha1.DataStore) { s.Spec.Postgres.Database = "crm" }, tenants: [2]string{acme, acme}},
		"other tables": {b: func(s *v1alpha1.DataStore) {
			for i := range s.Spec.Datasets {
				s.Spec.Datasets[i].Table.Schema = "crm"
			}
		}, tenants: [2]string{acme, acme}},
		"one that is being deleted": {
			b: func(s *v1alpha1.DataStore) { s.DeletionTimestamp = &metav1.Time{Time: day0} }, tenants: [2]string{acme, acme}, wantB: true,
		},
		"a name that means another host in each namespace": {
			a: func(s *v1alpha1.DataStore) { s.Spec.Postgres.Host = "db" },
			b: func(s *v1alpha1.DataStore) { s.Namespace, s.Spec.Postgres.Host = "elsewhere", "db" }, tenants: [2]string{acme, acme},
		},
		"two tenants that name one address: the younger waits": {
			b: func(s *v1alpha1.DataStore) { s.Namespace = "globex" }, tenants: [2]string{acme, globex}, wantB: true,
		},
		"two tenants of whom one claims the other's server: the younger waits": {
			a: func(s *v1alpha1.DataStore) { s.Status.Plan.Identity.Value = "7300" },
			b: func(s *v1alpha1.DataStore) {
				s.Namespace, s.Spec.Postgres.Host, s.Status.Plan.Identity.Value = "globex", "mine.example", "7300"
			}, tenants: [2]string{acme, globex}, wantB: true,
		},
		"two tenants who have both logged in there": {
			a:       func(s *v1alpha1.DataStore) { s.Status.Plan.Identity.Value = "7300" },
			b:       func(s *v1alpha1.DataStore) { s.Namespace, s.Status.Plan.Identity.Value = "globex", "7300" },
			tenants: [2]string{acme, globex}, wantA: true, wantB: true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := makeStore(v1alpha1.TenancyDedicated), makeStore(v1alpha1.TenancyDedicated)
			a.CreationTimestamp, b.CreationTimestamp = metav1.NewTime(day0), metav1.NewTime(day0.Add(time.Hour))
			b.UID, b.Name, b.Spec.Datasets = types.UID("6a1d"), "archive", b.Spec.Datasets[1:2]
			b.Spec.Datasets[0].Name = "old-messages"
			a.Status.Tenant, b.Status.Tenant = tc.tenants[0], tc.tenants[1]
			for s, change := range map[*v1alpha1.DataStore]func(*v1alpha1.DataStore){a: tc.a, b: tc.b} {
				if change != nil {
					change(s)
				}
			}
			both := []v1alpha1.DataStore{*a, *b}
			var wantA, wantB []v1alpha1.StoreConflict
			if tc.wantA {
				wantA = []v1alpha1.StoreConflict{{Dataset: "messages", Store: b.Namespace + "/archive", OtherDataset: "old-messages"}}
			}
			if tc.wantB {
				wantB = []v1alpha1.StoreConflict{{Dataset: "old-messages", Store: "platform/chat", OtherDataset: "messages"}}
			}
			if diff := cmp.Diff([][]v1alpha1.StoreConflict{wantA, wantB}, [][]v1alpha1.StoreConflict{conflicts(a, tc.tenants[0], both), conflicts(b, tc.tenants[1], both)}); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

// A table with a floor in one store, and without it in another, is deleted from by neither.
func TestAConflictKeepsTheDatasetFromBeingDeletedFrom(t *testing.T) {
	in := dedicated(makePolicy("privacy", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)), makeRule("Contacts", days(90))))
	approveAll(t, in)
	if n := deleting(Compile(in)); n != 2 {
		t.Fatalf("%d datasets are deleted from", n)
	}
	in.Store.Status.Conflicts = []v1alpha1.StoreConflict{{Dataset: "messages", Store: "acme/archive", OtherDataset: "old-messages"}}
	r := Compile(in)
	if n := deleting(r); n != 1 {
		t.Errorf("%d datasets are deleted from, want the other one alone", n)
	}
	if len(r.Problems) != 1 || r.Problems[0].Dataset != "messages" || !strings.Contains(r.Problems[0].Message, "dataset old-messages of DataStore acme/archive") {
		t.Errorf("problems: %+v", r.Problems)
	}
}

func deleting(r Result) int {
	n := 0
	for _, d := range r.Plan.Datasets {
		if d.Delete != nil {
			n++
		}
	}
	return n
}

// A slack that is shorter than the interval, of an object from before it was refused, is a problem of policy and
// store, and stops no deletion.
func TestASlackShorterThanTheInterval(t *testing.T) {
	for minutes, wrong := range map[int32]bool{5: true, 59: true, 60: false, 90: false} {
		rule := makeRule("Conversations", days(90))
		rule.DeleteWithin = &v1alpha1.Slack{Minutes: &minutes}
		policy := makePolicy("privacy", v1alpha1.PolicyEnforce, rule)
		in := dedicated(policy)
		approveAll(t, in)
		r := Compile(in)
		for of, problems := range map[string][]Problem{"store": r.Problems, "policy": Check(&policy, nil)} {
			if said := len(problems) == 1 && strings.Contains(problems[0].Message, "once in an hour"); said != wrong || !wrong && len(problems) > 0 {
				t.Errorf("%d minutes, problems of the %s: %v", minutes, of, problems)
			}
		}
		if !r.Plan.Deletes() {
			t.Errorf("%d minutes: nothing is deleted", minutes)
		}
	}
}

// A slack that is none, of an object from before it was refused, is a problem of policy and store, and deletes
// nothing: by when the rows must be gone is not known.
func TestASlackThatIsNone(t *testing.T) {
	for name, none := range map[string]*v1alpha1.Slack{"nothing": {}, "two units": {Hours: new(int32(1)), Days: new(int32(1))}, "a minus": {Hours: new(int32(-1))}} {
		rule := makeRule("Conversations", days(90))
		policy := makePolicy("privacy", v1alpha1.PolicyEnforce, rule)
		in := dedicated(policy)
		approveAll(t, in)
		policy.Spec.Rules[0].DeleteWithin = none
		in.Policies = []v1alpha1.DataRetentionPolicy{policy}
		r := Compile(in)
		for of, problems := range map[string][]Problem{"store": r.Problems, "policy": Check(&policy, nil)} {
			if len(problems) != 1 || !strings.Contains(problems[0].Message, "spec.rules[conversations].deleteWithin: ") {
				t.Errorf("%s, problems of the %s: %v", name, of, problems)
			}
		}
		if r.Plan.Deletes() {
			t.Errorf("%s: something is deleted", name)
		}
	}
}

func conflicts(store *v1alpha1.DataStore, tenant string, others []v1alpha1.DataStore) []v1alpha1.StoreConflict {
	named, _ := Conflicts(store, tenant, others)
	return named
}
