package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestDecodeRefuses(t *testing.T) {
	b, err := Encode(Compile(shared()).Plan)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(b)
	for name, give := range map[string]string{
		"nothing":                        "",
		"a cut plan":                     whole[:len(whole)-1],
		"a field that it does not know":  strings.Replace(whole, `"format":1`, `"format":1,"onlyOnSundays":true`, 1),
		"another format":                 strings.Replace(whole, `"format":1`, `"format":2`, 1),
		"something that follows a plan":  whole + "{}",
		"a bracket that follows a plan":  whole + "]",
		"a plan of zeros without format": "{}",
	} {
		if _, err := Decode([]byte(give)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	in := shared()
	for i := range 10000 {
		in.Tenants = append(in.Tenants, makeTenant(fmt.Sprintf("tenant-%d", i), strings.Repeat("x", 100)+fmt.Sprint(i)))
	}
	if _, err := Encode(Compile(in).Plan); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func TestDefinitionTellsTablesApart(t *testing.T) {
	base := makeStore(v1alpha1.TenancyShared).Spec.Datasets[0].Table
	seen := map[string]string{Definition(base): "the table itself"}
	for name, change := range map[string]func(*v1alpha1.Table){
		"schema":     func(t *v1alpha1.Table) { t.Schema = "billing" },
		"name":       func(t *v1alpha1.Table) { t.Name = "invoices" },
		"key":        func(t *v1alpha1.Table) { t.Key = []v1alpha1.Identifier{"uid"} },
		"longer key": func(t *v1alpha1.Table) { t.Key = []v1alpha1.Identifier{"id", "part"} },
		"age column": func(t *v1alpha1.Table) { t.AgeColumn.Name = "updated_at" },
		"age type":   func(t *v1alpha1.Table) { t.AgeColumn.Type = v1alpha1.AgeDate },
		"age zone":   func(t *v1alpha1.Table) { t.AgeColumn.TimeZone = "Europe/Berlin" },
		"tenant":     func(t *v1alpha1.Table) { t.TenantColumn = "customer_id" },
	} {
		table := base
		change(&table)
		d := Definition(table)
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[d] = name
	}
	unset := base
	unset.Schema = ""
	if Definition(unset) != Definition(base) {
		t.Error("a schema that is left out is public")
	}
}

func TestValidity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uid := rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "uid")
		now := day0.Add(time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(t, "now")))
		until := ValidUntil(uid, now)
		if left := until.Sub(now); left <= week || left > 2*week {
			t.Fatalf("a plan made now is valid for %s, want between one and two weeks", left)
		}
		in := dedicated()
		in.Store.UID, in.Now = "u"+in.Store.UID, now
		made := Compile(in).Plan
		hash, err := Hash(made)
		if err != nil {
			t.Fatal(err)
		}
		later := now.Add(time.Duration(rapid.Int64Range(0, int64(3*week)).Draw(t, "later")))
		ok, err := Accepts(Compile(Input{Store: in.Store, StoreTenant: in.StoreTenant, Now: later}).Plan, hash, later)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !ok && later.Sub(now) <= week:
			t.Fatalf("a plan is refused %s after it was made", later.Sub(now))
		case ok && !later.Before(made.ValidUntil):
			t.Fatalf("a plan is accepted %s after its end", later.Sub(made.ValidUntil))
		}
		if ok, _ := Accepts(made, strings.Repeat("0", 64), now); ok {
			t.Fatal("any hash is accepted")
		}
	})
	renewed := Compile(dedicated()).Plan
	first, err := Content(renewed)
	if err != nil {
		t.Fatal(err)
	}
	renewed.ValidUntil = renewed.ValidUntil.Add(week)
	if second, _ := Content(renewed); second != first {
		t.Error("renewing a plan changes its content")
	}
	renewed.BrakePercent++
	if third, _ := Content(renewed); third == first {
		t.Error("another brake has the same content")
	}
}

func TestPropose(t *testing.T) {
	in := shared(
		makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)))),
		makePolicy("b", v1alpha1.PolicyAudit, makeRule("Contacts", months(6))))
	r := Compile(in)
	status := v1alpha1.DataStoreStatus{
		MeasuredAt: &metav1.Time{Time: day0}, Plan: v1alpha1.PlanStatus{SystemIdentifier: "7300"},
		Rules: []v1alpha1.RuleMeasurement{
			{Dataset: "messages", Policy: "a", Rule: "conversations", Rows: 300000, Eligible: 100001, Capped: true},
			{Dataset: "contacts", Policy: "b", Rule: "contacts", Rows: 100},
		},
	}
	until := metav1.NewTime(day0.AddDate(0, 0, 7))
	want := v1alpha1.ApprovedPlan{
		SystemIdentifier: "7300", Database: "chat", Tenancy: v1alpha1.TenancyShared, BacklogUntil: &until,
		Windows: []v1alpha1.ApprovedWindow{
			{Dataset: "contacts", Definition: Definition(in.Store.Spec.Datasets[2].Table), RetainFor: months(6)},
			{
				Dataset: "messages", Definition: Definition(in.Store.Spec.Datasets[1].Table), RetainFor: days(90), BacklogRows: 300000,
				Tenants: []v1alpha1.ApprovedTenantWindow{{Tenant: "acme", RetainFor: days(30), ExternalIDs: []string{"a-1", "a-2"}}},
			},
		},
	}
	got, err := Propose(r, status, day0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	unseen := status
	unseen.Rules = status.Rules[:1]
	for name, tc := range map[string]struct {
		status v1alpha1.DataStoreStatus
		result Result
		want   error
	}{
		"a store that was never measured":           {v1alpha1.DataStoreStatus{}, r, ErrNotMeasured},
		"a rule that was not measured":              {unseen, r, ErrNotMeasured},
		"no policy: there is nothing to agree to":   {status, Compile(shared()), ErrNothingToApprove},
		"only a rule that cannot be kept (floored)": {status, Compile(shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Payments", days(1))))), ErrNothingToApprove},
	} {
		if _, err := Propose(tc.result, tc.status, day0); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
}
