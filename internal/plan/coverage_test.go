package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// leaves calls visit for every value that is no list and no object, with a function that replaces it.
func leaves(path string, v any, set func(any), visit func(path string, v any, set func(any))) {
	switch x := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			leaves(path+"."+k, x[k], func(n any) { x[k] = n }, visit)
		}
	case []any:
		for i := range x {
			leaves(fmt.Sprintf("%s[%d]", path, i), x[i], func(n any) { x[i] = n }, visit)
		}
	default:
		visit(path, v, set)
	}
}

// variations changes each leaf of a spec in turn and returns the paths that look does not notice.
func variations[S any](t *testing.T, spec S, look func(S) string) []string {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	before := look(spec)
	var unnoticed []string
	visited := 0
	leaves("spec", tree, nil, func(path string, v any, set func(any)) {
		visited++
		switch x := v.(type) {
		case string:
			if _, err := time.Parse(time.RFC3339, x); err == nil {
				set("2027-01-01T00:00:00Z")
			} else {
				set(x + "x")
			}
		case float64:
			set(x + 1)
		default:
			t.Fatalf("%s: %T", path, v)
		}
		var changed S
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &changed); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		set(v)
		if look(changed) == before {
			unnoticed = append(unnoticed, path)
		}
	})
	if visited < 10 {
		t.Fatalf("%d fields were changed: the spec is too poor", visited)
	}
	return unnoticed
}

// unset lists the optional fields of a spec that an example leaves empty, so that the example stays as rich as the
// kind.
func unset(path string, v reflect.Value) []string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return []string{path}
		}
		return unset(path, v.Elem())
	case reflect.Struct:
		switch v.Interface().(type) {
		case metav1.Time, metav1.LabelSelector, v1alpha1.Period, v1alpha1.Slack:
			return nil
		}
		var out []string
		for i := range v.NumField() {
			out = append(out, unset(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
		return out
	case reflect.Slice:
		if v.Len() == 0 {
			return []string{path}
		}
		return unset(path+"[0]", v.Index(0))
	default:
		if v.IsZero() {
			return []string{path}
		}
		return nil
	}
}

// world is what a plan makes visible: its hash, what it asks for, and what is wrong with it.
func world(in Input) string {
	r := Compile(in)
	hash, err := Hash(r.Plan)
	if err != nil {
		return err.Error()
	}
	return strings.Join(append([]string{hash, fmt.Sprint(r.Problems), fmt.Sprint(r.Governed)}, r.Awaiting()...), "\n")
}

func richInput(t *testing.T) Input {
	in := shared(makePolicy("privacy", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)), override("globex", days(60))), makeRule("Payments", years(7))))
	first := &in.Store.Spec.Datasets[0]
	first.Table.AgeColumn.Type, first.Table.AgeColumn.TimeZone = v1alpha1.AgeDate, "Etc/UTC"
	in.Store.Spec.Exempt[0].Schema = "public"
	in.Store.Spec.Datasets = in.Store.Spec.Datasets[:2]
	in.Store.Spec.Relations = []v1alpha1.Relation{{Schema: "public", Table: "files", Column: "message_id", References: "messages", ReferencesColumn: "id",
		State: v1alpha1.RelationDeclared, Reason: "a file belongs to its message"}}
	in.Store.Spec.Datasets[1].Floor = &v1alpha1.Floor{RetainFor: days(1), LegalBasis: "a day"}
	approveAll(t, in)
	// A list's first element is the example: let it be the one with everything.
	w := in.Store.Spec.ApprovedPlan.Windows
	if len(w[0].Tenants) == 0 {
		w[0], w[1] = w[1], w[0]
	}
	// globex is approved by the bound.
	w[0].Tenants, w[0].AnyTenant = w[0].Tenants[:1], &v1alpha1.ApprovedBound{NotBelow: days(60)}
	return in
}

func TestEveryFieldOfAStoreMatters(t *testing.T) {
	in := richInput(t)
	if missing := unset("spec", reflect.ValueOf(in.Store.Spec)); len(missing) > 0 {
		t.Errorf("the example says nothing for %v", missing)
	}
	got := variations(t, in.Store.Spec, func(spec v1alpha1.DataStoreSpec) string {
		changed := in
		changed.Store = in.Store.DeepCopy()
		changed.Store.Spec = spec
		return world(changed)
	})
	// The password reaches sweeps through the keyserver, and a reason is for the person who audits the store.
	// Where in its life the database was is what the keyserver compares with; when that was approved makes another
	// plan.
	want := []string{"spec.approvedPlan.seen.point.kind", "spec.approvedPlan.seen.point.value",
		"spec.exempt[0].reason", "spec.exempt[1].reason", "spec.postgres.password", "spec.relations[0].reason"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields that change nothing in a plan (-want +got):\n%s", diff)
	}
}

func TestEveryFieldOfAPolicyMatters(t *testing.T) {
	in := richInput(t)
	if missing := unset("spec", reflect.ValueOf(in.Policies[0].Spec)); len(missing) > 0 {
		t.Errorf("the example says nothing for %v", missing)
	}
	got := variations(t, in.Policies[0].Spec, func(spec v1alpha1.DataRetentionPolicySpec) string {
		changed := in
		changed.Policies = []v1alpha1.DataRetentionPolicy{*in.Policies[0].DeepCopy()}
		changed.Policies[0].Spec = spec
		return world(changed)
	})
	// One basis and one action exist so far: the API server takes no other value.
	want := []string{"spec.rules[0].action", "spec.rules[0].basis", "spec.rules[1].action", "spec.rules[1].basis"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields that change nothing in a plan (-want +got):\n%s", diff)
	}
}
