package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestDecodeRefuses(t *testing.T) {
	b, err := Encode(Compile(shared()).Plan)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(b)
	in := shared(makePolicy("p", v1alpha1.PolicyAudit, makeRule("Conversations", days(90), override("acme", days(30)))))
	if b, err = Encode(Compile(in).Plan); err != nil {
		t.Fatal(err)
	}
	windows := string(b)
	if _, err := Decode(b); err != nil {
		t.Fatal(err)
	}
	for name, give := range map[string]string{
		"nothing":                        "",
		"a cut plan":                     whole[:len(whole)-1],
		"a field that it does not know":  strings.Replace(whole, `"format":6`, `"format":6,"onlyOnSundays":true`, 1),
		"another format":                 strings.Replace(whole, `"format":6`, `"format":7`, 1),
		"a window that is none":          strings.Replace(windows, `"retainFor":"P90D"`, `"retainFor":""`, 1),
		"a window by another spelling":   strings.Replace(windows, `"retainFor":"P90D"`, `"retainFor":"P090D"`, 1),
		"a slack as the API has it":      strings.Replace(windows, `"deleteWithin":"PT48H"`, `"deleteWithin":{"hours":24}`, 1),
		"a rule of no column":            strings.Replace(windows, `"own":1`, `"own":2`, 1),
		"a class of no period":           strings.Replace(windows, `"windows":[1]`, `"windows":[2]`, 1),
		"a class without its windows":    strings.Replace(windows, `"windows":[1]`, `"windows":[]`, 1),
		"one identifier of two tenants":  strings.Replace(windows, `{"acme":["a-1","a-2"]}`, `{"acme":["a-1","a-2"],"globex":["a-1"]}`, 1),
		"something that follows a plan":  whole + "{}",
		"a bracket that follows a plan":  whole + "]",
		"a plan of zeros without format": "{}",
	} {
		if _, err := Decode([]byte(give)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

// A plan of the format before is not read by this one's meaning, and it says what to do.
func TestAnOldFormatIsRefusedAloud(t *testing.T) {
	for format, old := range map[int]string{
		1: `{"format":1,"store":{"namespace":"platform","name":"chat","uid":"5f2c"},"tenancy":"Shared","tenants":[{"name":"acme","externalIDs":["a-1"]}],"datasets":[]}`,
		3: `{"format":3,"store":{"namespace":"platform","name":"chat","uid":"5f2c"},"tenancy":"Shared","periods":[{"days":30}],"datasets":[]}`,
		4: `{"format":4,"store":{"namespace":"platform","name":"chat","uid":"5f2c"},"tenancy":"Shared","database":{"systemIdentifier":"7300"},"datasets":[]}`,
		2: `{"format":2,"store":{"namespace":"platform","name":"chat","uid":"5f2c"},"tenancy":"Shared","others":["a-1"],"datasets":[]}`,
	} {
		_, err := Decode([]byte(old))
		if !errors.Is(err, ErrFormat) || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), fmt.Sprintf("format %d, this program reads 6: wait for the manager", format)) {
			t.Errorf("error %v", err)
		}
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	in := shared(makePolicy("p", v1alpha1.PolicyAudit, makeRule("Conversations", days(90))))
	for i := range 10000 {
		x := makeTenant(fmt.Sprintf("tenant-%d", i), strings.Repeat("x", 100)+fmt.Sprint(i))
		x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(30)}}
		in.Tenants = append(in.Tenants, x)
	}
	if _, err := Encode(Compile(in).Plan); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func TestDigestTellsTablesApart(t *testing.T) {
	base := makeStore(v1alpha1.TenancyShared).Spec.Datasets[0].Table
	digest := func(t v1alpha1.Table) string { return Place{Table: &t}.Digest() }
	seen := map[string]string{digest(base): "the table itself"}
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
		d := digest(table)
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[d] = name
	}
	unset := base
	unset.Schema = ""
	if digest(unset) != digest(base) {
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
	first, err := Digest(renewed)
	if err != nil {
		t.Fatal(err)
	}
	renewed.ValidUntil = renewed.ValidUntil.Add(week)
	if second, _ := Digest(renewed); second != first {
		t.Error("renewing a plan changes its digest")
	}
	renewed.BrakePercent++
	if third, _ := Digest(renewed); third == first {
		t.Error("another brake has the same digest")
	}
}
