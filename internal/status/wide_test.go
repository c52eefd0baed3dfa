package status

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// wideStore is a store of as many datasets as there may be, under four policies, and the report of a sweep that
// measured all of it.
func wideStore(t *testing.T) (StoreObserved, report.Report) {
	t.Helper()
	r := wide(t, plan.MaxDatasets, func(in *plan.Input) {
		for _, name := range []string{"three", "four"} {
			p := in.Policies[0].DeepCopy()
			p.Name = name
			in.Policies = append(in.Policies, *p)
		}
	})
	o := makeObserved()
	o.Result, o.PlanDigest = &r, "digest"
	if b, err := plan.Encode(r.Plan); err != nil {
		t.Fatalf("the plan does not fit: %d bytes, %v", len(b), err)
	}
	return o, measuredAll(r.Plan, "")
}

// TestEveryLineOf512Datasets: what was measured of each of 2048 rules on datasets is in the status, it is green where
// all of them are, and one that is late makes it red and stands first.
func TestEveryLineOf512Datasets(t *testing.T) {
	o, r := wideStore(t)
	swept(&o, r)
	lines := 0
	for range o.Measured.Lines {
		lines++
	}
	if lines != 2048 || len(o.Measured.Datasets) != 512 || o.Measured.Omitted != nil {
		t.Errorf("%d measurements of %d datasets, left out %+v", lines, len(o.Measured.Datasets), o.Measured.Omitted)
	}
	o.Now = storeNow.Add(time.Minute)
	if got := states(Store(o)); got["Compliant"] != "True Compliant" || got["Ready"] != "True Audit" {
		t.Errorf("all is well, and it says %v", got)
	}
	promised := func() string {
		var out []string
		named, _ := Promises(o)
		for _, p := range named {
			out = append(out, p.Policy+" "+string(p.State))
		}
		return strings.Join(out, ", ")
	}
	if got := promised(); got != "four Kept, one Kept, three Kept, two Kept" {
		t.Errorf("promises: %s", got)
	}

	late := &r.Datasets[400]
	late.Rules[3].Overdue, late.Rules[3].OldestOverdueSeconds = 1, 60
	of := late.Rules[3].Policy
	r.Plan, r.Outcome = "hash", report.Done
	b, err := report.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = report.Read(string(b), "hash"); err != nil {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	swept(&o, r)
	if first := o.Measured.Datasets[0]; first.Name != late.Name || first.Rules[0].Policy != of || first.Rules[0].Overdue != 1 {
		t.Errorf("%+v stands first", first)
	}
	if got := states(Store(o)); got["Compliant"] != "False Overdue" {
		t.Errorf("one is late, and it says %v", got)
	}
	want := strings.Replace("four Kept, one Kept, three Kept, two Kept", of+" Kept", of+" Overdue", 1)
	if got := promised(); got != want {
		t.Errorf("promises: %s, want %s", got, want)
	}
	o.Measured.Datasets[511].Rules = o.Measured.Datasets[511].Rules[:3]
	o.Measured.Datasets[0].Rules[0].Overdue = 0
	if got := states(Store(o)); got["Compliant"] != "Unknown NotMeasured" {
		t.Errorf("one was not measured, and it says %v", got)
	}
}

// TestAStatusHasItsSize: whatever was measured and said, the datasets of a status stay under their bound; what went
// is counted; a reason is never lost where its dataset is there, and the worst that was seen is kept, if need be for
// all that has no room together. With everything else at its bound, a status is under 1000 KiB.
func TestAStatusHasItsSize(t *testing.T) {
	dice := rand.New(rand.NewPCG(5, 6))
	when := metav1.NewTime(storeNow)
	for range 60 {
		words, policy := strings.Repeat("<", dice.IntN(512)), strings.Repeat("p", 1+dice.IntN(250))
		datasets := make([]v1alpha1.DatasetMeasurement, dice.IntN(plan.MaxDatasets+1))
		rules, texts, worst := 0, 0, int64(0)
		for i := range datasets {
			d := &datasets[i]
			d.Name, d.Rows, d.Notice = fmt.Sprintf("dataset-%03d", i), dice.Int64(), words
			if i < len(datasets)/2 {
				d.Reason, d.Message = v1alpha1.ReasonGuarded, words
			}
			for n := range dice.IntN(6) {
				m := v1alpha1.RuleMeasurement{Policy: policy, Rule: fmt.Sprint(n), Window: "P90D", Eligible: dice.Int64()}
				if dice.IntN(3) == 0 {
					m.WorstOverdueSeconds, m.WorstOverdueAt = dice.Int64(), &when
				}
				worst = max(worst, m.WorstOverdueSeconds)
				d.Rules = append(d.Rules, m)
				rules++
			}
			if len(d.Rules) == 0 {
				rules++ // it counts as one
			}
			for _, text := range []string{d.Notice, d.Message} {
				if text != "" {
					texts++
				}
			}
		}
		most := 1000 + dice.IntN(maxDatasetBytes)
		out, omitted := fit(datasets, most, nil)
		b, err := json.Marshal(out)
		if err != nil || len(b) > most {
			t.Fatalf("%d bytes, at most %d: %v", len(b), most, err)
		}
		if omitted == nil {
			omitted = &v1alpha1.OmittedMeasurements{}
		}
		leftRules, leftTexts, leftWorst := 0, 0, omitted.WorstOverdueSeconds
		for i, d := range out {
			if wasFailing := d.Name < fmt.Sprintf("dataset-%03d", len(datasets)/2); wasFailing != (d.Reason != "") || i > 0 && d.Name < out[i-1].Name {
				t.Fatalf("%+v lost its reason or its place", d)
			}
			leftRules += max(1, len(d.Rules))
			for _, m := range d.Rules {
				leftWorst = max(leftWorst, m.WorstOverdueSeconds)
			}
			for _, text := range []string{d.Notice, d.Message} {
				if text != "" {
					leftTexts++
				}
			}
		}
		if leftRules+int(omitted.Rules) != rules || leftTexts+int(omitted.Texts) != texts || leftWorst != worst {
			t.Fatalf("%d rules, %d texts and %d s are left of %d, %d and %d; left out %+v", leftRules, leftTexts, leftWorst, rules, texts, worst, omitted)
		}
	}

	rest := v1alpha1.DataStoreStatus{LastSweep: &v1alpha1.SweepStatus{Message: strings.Repeat("<", 512)}}
	for range 16 {
		rest.Conditions = append(rest.Conditions, condition("CredentialsReady", metav1.ConditionUnknown, strings.Repeat("R", 64), strings.Repeat("é", messageLimit)))
	}
	for range plan.MaxConflicts {
		rest.Conflicts = append(rest.Conflicts, v1alpha1.StoreConflict{Dataset: strings.Repeat("d", 63), Store: strings.Repeat("s", 317), OtherDataset: strings.Repeat("d", 63)})
	}
	for range maxPromises {
		rest.Promises = append(rest.Promises, v1alpha1.StorePromise{Policy: strings.Repeat("p", 253), Generation: 1 << 40, State: v1alpha1.PromiseNotVerified})
	}
	for range plan.MaxAwaitingApproval {
		rest.Plan.AwaitingApproval = append(rest.Plan.AwaitingApproval, v1alpha1.AwaitedApproval{Dataset: strings.Repeat("d", 63), Message: strings.Repeat("m", plan.MaxLine)})
	}
	for range maxUncovered {
		name := strings.Repeat("<", 128)
		rest.Uncovered, rest.FilePointers = append(rest.Uncovered, name), append(rest.FilePointers, name)
		rest.UndeclaredRelations = append(rest.UndeclaredRelations, v1alpha1.UndeclaredRelation{Table: name, Column: name, References: strings.Repeat("r", 63)})
	}
	b, err := json.Marshal(rest)
	if err != nil || len(b)+maxDatasetBytes > 1000<<10 {
		t.Errorf("everything but the datasets takes %d bytes, at most %d: %v", len(b), 1000<<10-maxDatasetBytes, err)
	}
}

// TestTheWorstOfWhatHasNoRoomIsKept from one measurement to the next under the same plan, and not under another.
func TestTheWorstOfWhatHasNoRoomIsKept(t *testing.T) {
	datasets := func(worst int64) []v1alpha1.DatasetMeasurement {
		var out []v1alpha1.DatasetMeasurement
		for i := range 9 {
			out = append(out, v1alpha1.DatasetMeasurement{Name: fmt.Sprintf("d-%d", i), Rules: []v1alpha1.RuleMeasurement{{Policy: "p", Rule: "r", Window: "P90D", WorstOverdueSeconds: worst}}})
		}
		return out
	}
	_, first := fit(datasets(700), 400, nil)
	if first == nil || first.Rules == 0 || first.WorstOverdueSeconds != 700 {
		t.Fatalf("%+v", first)
	}
	if _, then := fit(datasets(0), 400, first); then == nil || then.WorstOverdueSeconds != 700 {
		t.Errorf("the next time %+v", then)
	}
	if _, room := fit(datasets(0), maxDatasetBytes, first); room == nil || room.Rules != 0 || room.WorstOverdueSeconds != 700 {
		t.Errorf("with room for all %+v", room)
	}
}

// TestADatasetWithoutRulesIsNotLeftOutSilently: what is not measured stays longer than what is well, and counts as one
// where it has no room.
func TestADatasetWithoutRulesIsNotLeftOutSilently(t *testing.T) {
	var all []v1alpha1.DatasetMeasurement
	for i := range 8 {
		all = append(all, v1alpha1.DatasetMeasurement{Name: fmt.Sprintf("ungoverned-%d", i), Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUngoverned}})
	}
	for i := range 8 {
		all = append(all, v1alpha1.DatasetMeasurement{Name: fmt.Sprintf("well-%d", i), Rules: []v1alpha1.RuleMeasurement{{Policy: "p", Rule: "r", Window: "P90D"}}})
	}
	left, out := fit(slices.Clone(all), 600, nil)
	if out == nil || len(left)+int(out.Rules) != len(all) {
		t.Fatalf("%d of %d are left, and %+v", len(left), len(all), out)
	}
	for _, d := range left[:min(len(left), 8)] {
		if len(d.Rules) > 0 && len(left) < 9 {
			t.Errorf("%s is left before one that is not measured", d.Name)
		}
	}
	if left, out = fit(slices.Clone(all), 120, nil); out == nil || len(left)+int(out.Rules) != len(all) {
		t.Errorf("%d of %d are left, and %+v", len(left), len(all), out)
	}
}
