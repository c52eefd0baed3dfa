package status

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/kstatus"
)

// TestPromises: what a store says of each policy follows from that policy's own rules alone, and from all of them.
func TestPromises(t *testing.T) {
	const messages, contacts = 0, 1 // in status.datasets
	// Beside privacy, which governs both datasets, another policy governs messages.
	two := func() StoreObserved {
		o := makeObserved()
		other := plan.Rule{Policy: "other", Rule: "r", Mode: v1alpha1.PolicyAudit, RetainFor: storeDays(30)}
		o.Result.Plan.Datasets[1].Rules = append([]plan.Rule{other}, o.Result.Plan.Datasets[1].Rules...)
		o.Result.Governed, o.Result.Generations = []string{"empty", "other", "privacy"}, map[string]int64{"empty": 9, "other": 1, "privacy": 3}
		of := &o.Measured.Datasets[messages]
		of.Rules = append(of.Rules, v1alpha1.RuleMeasurement{Policy: "other", Rule: "r", Window: "P30D"})
		return o
	}
	tests := map[string]struct {
		change         func(*StoreObserved)
		other, privacy v1alpha1.PromiseState
	}{
		"kept":             {func(*StoreObserved) {}, "Kept", "Kept"},
		"late":             {func(o *StoreObserved) { o.Measured.Datasets[messages].Rules[0].Overdue = 1 }, "Kept", "Overdue"},
		"the other's late": {func(o *StoreObserved) { o.Measured.Datasets[messages].Rules[1].Overdue = 1 }, "Overdue", "Kept"},
		"late by the other, and a measurement of this one had no room": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue, o.Measured.Omitted = 1, &v1alpha1.OmittedMeasurements{Rules: 1}
			o.Measured.Datasets = slices.Delete(o.Measured.Datasets, contacts, contacts+1)
		}, "Overdue", "NotVerified"},
		"late by the other, and a measurement of this one is missing": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue = 1
			o.Measured.Datasets = slices.Delete(o.Measured.Datasets, contacts, contacts+1)
		}, "Overdue", "NotVerified"},
		"late by the other, and of this one only the worst is known": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue = 1
			o.Measured.Datasets[contacts].Reason = v1alpha1.ReasonLeftOut
		}, "Overdue", "NotVerified"},
		"late by the other, and rows that may be of a tenant with a shorter window": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue, o.Measured.Datasets[contacts].UnknownTenant, o.Result.Unidentified = 1, 4, []string{"acme"}
		}, "Overdue", "NotVerified"},
		"late by the other, and rows without an age": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue, o.Measured.Datasets[contacts].UnknownAge = 1, 1
		}, "Overdue", "NotVerified"},
		"late by the other, and late rows of no known tenant": {func(o *StoreObserved) {
			o.Measured.Datasets[messages].Rules[1].Overdue, o.Measured.Datasets[contacts].Rules[0].UnknownTenantLate = 1, 1
		}, "Overdue", "NotVerified"},
		"measured under another window": {func(o *StoreObserved) { o.Measured.Datasets[contacts].Rules[0].Window = "P30D" }, "Kept", "NotVerified"},
		"a trigger of the other's dataset": {func(o *StoreObserved) {
			o.Measured.Datasets[contacts].Reason = v1alpha1.ReasonGuarded
		}, "Kept", "NotVerified"},
		"the plan has changed": {func(o *StoreObserved) { o.PlanDigest = "another" }, "NotVerified", "NotVerified"},
		"late, and the plan has changed": {func(o *StoreObserved) {
			o.PlanDigest, o.Measured.Datasets[messages].Rules[0].Overdue = "another", 1
		}, "NotVerified", "NotVerified"},
		"the measurement is old":           {func(o *StoreObserved) { o.Now = o.Measured.MeasuredAt.Add(o.StaleAfter) }, "NotVerified", "NotVerified"},
		"the report is lost":               {func(o *StoreObserved) { o.Measured.LastSweep.Outcome = v1alpha1.SweepLost }, "NotVerified", "NotVerified"},
		"never measured":                   {func(o *StoreObserved) { o.Measured = v1alpha1.DataStoreStatus{} }, "NotVerified", "NotVerified"},
		"another database":                 {func(o *StoreObserved) { o.Measured.LastSweep.Reason = v1alpha1.ReasonIdentityChanged }, "NotVerified", "NotVerified"},
		"a dataset that no rule governs":   {func(o *StoreObserved) { o.Result.Ungoverned = []string{"files"} }, "Kept", "Kept"},
		"a table that is not on the map":   {func(o *StoreObserved) { o.Measured.Uncovered = []string{"public.drafts"} }, "Kept", "Kept"},
		"a password that opens no longer":  {func(o *StoreObserved) { o.Credentials = no("DoesNotOpen", "seal it again") }, "Kept", "Kept"},
		"something of ours cannot be made": {func(o *StoreObserved) { o.Problem = &Problem{Reason: "NameTaken", Stalled: true} }, "Kept", "Kept"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := two()
			tc.change(&o)
			want := []v1alpha1.StorePromise{{Policy: "other", Generation: 1, State: tc.other}, {Policy: "privacy", Generation: 3, State: tc.privacy}}
			got, all := Promises(o)
			if diff := cmp.Diff(want, got); diff != "" || int(all) != len(want) {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// A store that is compliant keeps each of its policies.
			if strings.HasPrefix(states(Store(o))["Compliant"], "True") && (tc.other != "Kept" || tc.privacy != "Kept") {
				t.Error("the store is compliant")
			}
		})
	}
	t.Run("no plan", func(t *testing.T) {
		o := two()
		o.Refusal, o.Result = &Problem{Reason: "NoTenant", Stalled: true}, nil
		if got, all := Promises(o); got != nil || all != 0 {
			t.Errorf("promises %v", got)
		}
	})
}

func TestPolicy(t *testing.T) {
	promise := func(policy string, generation int64, state v1alpha1.PromiseState) v1alpha1.StorePromise {
		return v1alpha1.StorePromise{Policy: policy, Generation: generation, State: state}
	}
	store := func(name string, state v1alpha1.PromiseState, overdue, oldest int64, more ...v1alpha1.StorePromise) *v1alpha1.DataStore {
		return &v1alpha1.DataStore{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Generation: 4},
			Spec:       v1alpha1.DataStoreSpec{Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations"}}},
			Status: v1alpha1.DataStoreStatus{
				ObservedGeneration: 4, Promises: append([]v1alpha1.StorePromise{promise("p", 2, state)}, more...),
				Datasets: []v1alpha1.DatasetMeasurement{{Name: "messages", Rules: []v1alpha1.RuleMeasurement{{Policy: "other", Rule: "r", Overdue: 900, OldestOverdueSeconds: 9000},
					{Policy: "p", Rule: "r", Overdue: overdue, OldestOverdueSeconds: oldest}}}},
			},
		}
	}
	kept := func(name string) *v1alpha1.DataStore { return store(name, "Kept", 0, 0) }
	changed := func(s *v1alpha1.DataStore, change func(*v1alpha1.DataStore)) *v1alpha1.DataStore {
		change(s)
		return s
	}
	unproven := map[string]string{"Compliant": "Unknown NotVerified", "Ready": "True NotVerified"}
	tests := map[string]struct {
		rules    []v1alpha1.RetentionRule // besides that of Conversations
		stores   []*v1alpha1.DataStore
		problems []plan.Problem
		want     v1alpha1.DataRetentionPolicyStatus
		rows     string // status.overdueRows
		states   map[string]string
		says     string // in Compliant's message
	}{
		"no store is not green": {
			rows:   "unknown",
			states: map[string]string{"Compliant": "Unknown NoStore", "Ready": "True NoStore"},
			says:   "label a DataStore",
		},
		"kept everywhere": {
			rows:   "0",
			stores: []*v1alpha1.DataStore{kept("a"), kept("b")},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"the worst store is the one that is overdue longest": {
			rows:   "11",
			stores: []*v1alpha1.DataStore{kept("a"), store("b", "Overdue", 9, 60), store("c", "Overdue", 2, 3600), store("d", "NotVerified", 0, 0)},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 4, Compliant: 1, Overdue: 11, OldestOverdueSeconds: 3600, WorstStore: "ns/c"},
			states: map[string]string{"Compliant": "False Overdue", "Ready": "True Overdue"},
			says:   "not shown by a measurement of: ns/d",
		},
		"a store that has not shown it is not green": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), store("b", "NotVerified", 0, 0)},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 1, WorstStore: "ns/b"},
			states: unproven, says: "ns/b",
		},
		"another policy's overdue rows are not this one's": {
			rows:   "0",
			stores: []*v1alpha1.DataStore{store("a", "Kept", 0, 0, promise("other", 2, "Overdue"))},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, Compliant: 1},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"a store without data of its classes proves nothing": {
			rows: "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), changed(kept("b"), func(s *v1alpha1.DataStore) {
				s.Status.Promises = []v1alpha1.StorePromise{promise("other", 2, "Kept")}
			})},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 1, WorstStore: "ns/b"},
			states: unproven,
		},
		"nor does what was measured under another spec of the policy": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{changed(kept("a"), func(s *v1alpha1.DataStore) { s.Status.Promises[0].Generation = 1 })},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, WorstStore: "ns/a"},
			states: unproven,
		},
		"nor under another spec of the store": {
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{changed(kept("a"), func(s *v1alpha1.DataStore) { s.Generation++ })},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 1, WorstStore: "ns/a"},
			states: unproven,
		},
		"a rule whose class no dataset has": {
			rules:  []v1alpha1.RetentionRule{{Name: "payments", DataClass: "Paymnets"}},
			rows:   "unknown",
			stores: []*v1alpha1.DataStore{kept("a"), kept("b")},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: unproven, says: "spec.rules[payments] (Paymnets); correct dataClass",
		},
		"a rule whose class one of its stores has": {
			rules: []v1alpha1.RetentionRule{{Name: "payments", DataClass: "Payments"}},
			rows:  "0",
			stores: []*v1alpha1.DataStore{kept("a"), changed(kept("b"), func(s *v1alpha1.DataStore) {
				s.Spec.Datasets = append(s.Spec.Datasets, v1alpha1.Dataset{Name: "payments", DataClass: "Payments"})
			})},
			want:   v1alpha1.DataRetentionPolicyStatus{Matched: 2, Compliant: 2},
			states: map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"},
		},
		"a refused rule waits for a person": {
			rows:     "0",
			stores:   []*v1alpha1.DataStore{kept("a")},
			problems: []plan.Problem{{Message: "longer"}},
			want:     v1alpha1.DataRetentionPolicyStatus{Matched: 1, Compliant: 1},
			states:   map[string]string{"Compliant": "True Compliant", "Ready": "False RuleRefused", "Stalled": "True RuleRefused"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 2}, Spec: v1alpha1.DataRetentionPolicySpec{
				Rules: append([]v1alpha1.RetentionRule{{Name: "r", DataClass: "Conversations"}}, tc.rules...)}}
			got, conditions := Policy(PolicyObserved{Policy: p, Stores: tc.stores, Problems: tc.problems})
			tc.want.OverdueRows = tc.rows
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("sums (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.states, states(conditions)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			p.Status, p.Status.ObservedGeneration = got, 2
			Apply(&p.Status.Conditions, conditions, 2, metav1.Now())
			if said := messagesOf(p.Status.Conditions); !strings.Contains(said, tc.says) {
				t.Errorf("it says %q, want %q in it", said, tc.says)
			}
			kstatus.Check(t, p)
		})
	}
}
