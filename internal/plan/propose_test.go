package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// measured is the store of an input as a sweep has just measured it: so many rows wait in each dataset.
func measured(t interface{ Fatal(...any) }, in Input, eligible int64) *v1alpha1.DataStore {
	r := Compile(in)
	digest, err := Digest(r.Plan)
	if err != nil {
		t.Fatal(err)
	}
	store := in.Store.DeepCopy()
	store.Status = v1alpha1.DataStoreStatus{
		MeasuredAt: &metav1.Time{Time: in.Now.Add(-time.Minute)}, Plan: v1alpha1.PlanStatus{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}},
		LastSweep: &v1alpha1.SweepStatus{JobUID: "job", PlanDigest: digest, Outcome: v1alpha1.SweepDone},
		Point:     &v1alpha1.StorePoint{Kind: "PostgresPoint", Value: "oid=16384,timeline=1,position=0/16B3748,transactions=740"},
	}
	for _, d := range r.Plan.Datasets {
		m := v1alpha1.DatasetMeasurement{Name: d.Name, Rows: 3 * eligible}
		for _, rule := range d.Rules {
			m.Rules = append(m.Rules, v1alpha1.RuleMeasurement{Policy: rule.Policy, Rule: rule.Rule, Window: rule.RetainFor.String(), Eligible: eligible})
		}
		store.Status.Datasets = append(store.Status.Datasets, m)
	}
	return store
}

var anyAge = Asked{StaleAfter: 2 * time.Hour}

// ruleOf is what was measured in a dataset by its first rule.
func ruleOf(t *testing.T, s *v1alpha1.DataStore, dataset string) *v1alpha1.RuleMeasurement {
	t.Helper()
	for d, m := range s.Status.Lines {
		if d.Name == dataset {
			return m
		}
	}
	t.Fatalf("no rule of %s was measured", dataset)
	return nil
}

func backlogAt(at time.Time, rows int64) *v1alpha1.ApprovedBacklog {
	return &v1alpha1.ApprovedBacklog{Rows: rows, ApprovedAt: metav1.NewTime(at), Until: metav1.NewTime(at.AddDate(0, 0, BacklogDays))}
}

func TestPropose(t *testing.T) {
	in := shared(
		makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)))),
		makePolicy("b", v1alpha1.PolicyAudit, makeRule("Contacts", months(6))),
		// A rule in Audit beside one that enforces finds more: that is not what would go.
		makePolicy("c", v1alpha1.PolicyAudit, makeRule("Conversations", days(1))))
	store := measured(t, in, 0)
	for _, m := range store.Status.Lines {
		switch m.Policy {
		case "a":
			m.Eligible = 5000
		case "c":
			m.Eligible = 90000
		}
	}
	want := v1alpha1.ApprovedPlan{
		Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Address: addressOf(in.Store), Tenancy: v1alpha1.TenancyShared,
		Seen: &v1alpha1.ApprovedPoint{Point: *store.Status.Point, ApprovedAt: metav1.NewTime(day0)},
		Windows: []v1alpha1.ApprovedWindow{
			{Dataset: "contacts", PlaceDigest: PlaceOf(&in.Store.Spec.Datasets[2]).Digest(), RetainFor: months(6)},
			{
				Dataset: "messages", PlaceDigest: PlaceOf(&in.Store.Spec.Datasets[1]).Digest(), RetainFor: days(90), Backlog: backlogAt(day0, 5000),
				Tenants: []v1alpha1.ApprovedTenantWindow{{Tenant: "acme", RetainFor: days(30), ExternalIDs: []string{"a-1", "a-2"}}},
			},
		},
	}
	got, err := Propose(Compile(in), store, anyAge, day0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Plan); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A count that stopped at its bound says too little: the table's own size bounds it, and the person is told so.
	d, m := store.Status.Measurement("messages", "a", "conversations")
	m.Capped, d.Rows = true, 300000
	got, err = Propose(Compile(in), store, anyAge, day0)
	if err != nil || got.Plan.Windows[1].Backlog.Rows != 300000 || !got.Waiting["messages"].AtLeast {
		t.Errorf("capped: %+v, %v", got, err)
	}
}

// What could not be measured is refused, and never 0.
func TestProposeRefusesWhatWasNotMeasured(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.DataStore)
		asked  Asked
		want   error
	}{
		"never measured":           {func(s *v1alpha1.DataStore) { s.Status = v1alpha1.DataStoreStatus{} }, anyAge, ErrNotMeasured},
		"too old":                  {func(s *v1alpha1.DataStore) { s.Status.MeasuredAt.Time = day0.Add(-2 * time.Hour) }, anyAge, ErrStale},
		"measured by another plan": {func(s *v1alpha1.DataStore) { s.Status.LastSweep.PlanDigest = "other" }, anyAge, ErrNotMeasured},
		"the last report is lost": {func(s *v1alpha1.DataStore) {
			s.Status.LastSweep.Outcome, s.Status.LastSweep.Attempt = v1alpha1.SweepLost, 1
		}, anyAge, ErrNotMeasured},
		"the last sweep did not come as far": {func(s *v1alpha1.DataStore) {
			s.Status.LastSweep.Attempt, s.Status.LastSweep.Reason = 1, v1alpha1.ReasonUnreachable
		}, anyAge, ErrNotMeasured},
		"the report was cut":             {func(s *v1alpha1.DataStore) { s.Status.Datasets = s.Status.Datasets[:1] }, anyAge, ErrUnread},
		"a dataset that cannot be read":  {func(s *v1alpha1.DataStore) { ruleOf(t, s, "messages").Reason = v1alpha1.ReasonMissingTable }, anyAge, ErrUnread},
		"a count that ran out of time":   {func(s *v1alpha1.DataStore) { ruleOf(t, s, "messages").Reason = v1alpha1.ReasonTimeout }, anyAge, ErrUnread},
		"one that was not reached":       {func(s *v1alpha1.DataStore) { ruleOf(t, s, "messages").Reason = v1alpha1.ReasonNotReached }, anyAge, ErrUnread},
		"a reason that nobody has heard": {func(s *v1alpha1.DataStore) { ruleOf(t, s, "messages").Reason = "Whatever" }, anyAge, ErrUnread},
		"another window":                 {func(s *v1alpha1.DataStore) { ruleOf(t, s, "messages").Window = "P1D" }, anyAge, ErrNotMeasured},
		"no such dataset":                {func(*v1alpha1.DataStore) {}, Asked{StaleAfter: time.Hour, Datasets: []string{"nobody"}}, ErrUnknownDataset},
		"one that no rule governs":       {func(*v1alpha1.DataStore) {}, Asked{StaleAfter: time.Hour, Datasets: []string{"payments"}}, ErrUnknownDataset},
		"a brake that has not tripped":   {func(*v1alpha1.DataStore) {}, Asked{StaleAfter: time.Hour, Brakes: []string{"messages"}}, ErrNotBraked},
		"a brake of nobody":              {func(*v1alpha1.DataStore) {}, Asked{StaleAfter: time.Hour, Brakes: []string{"nobody"}}, ErrUnknownDataset},
	} {
		in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)), makeRule("Contacts", days(90))))
		store := measured(t, in, 0)
		tc.change(store)
		if got, err := Propose(Compile(in), store, tc.asked, day0); !errors.Is(err, tc.want) || len(got.Plan.Windows) > 0 {
			t.Errorf("%s: error %v, want %v: %+v", name, err, tc.want, got)
		}
	}
	for name, in := range map[string]Input{
		"no policy: there is nothing to agree to":   shared(),
		"only a rule that cannot be kept (floored)": shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Payments", days(1)))),
	} {
		if _, err := Propose(Compile(in), measured(t, in, 5), anyAge, day0); !errors.Is(err, ErrNothingToApprove) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What can be measured is approved by its name while another dataset cannot.
	in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)), makeRule("Contacts", days(90))))
	store := measured(t, in, 5)
	ruleOf(t, store, "contacts").Reason = v1alpha1.ReasonTimeout
	got, err := Propose(Compile(in), store, Asked{StaleAfter: time.Hour, Datasets: []string{"messages"}}, day0)
	if err != nil || len(got.Plan.Windows) != 1 || got.Plan.Windows[0].Dataset != "messages" {
		t.Errorf("by name: %+v, %v", got, err)
	}
}

// An approval covers what it names: a new dataset's renews no backlog and lets no brake go.
func TestApprovingOneLeavesTheOthers(t *testing.T) {
	conversations := makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)))
	in := shared(conversations)
	store := measured(t, in, 5000)
	first, err := Propose(Compile(in), store, anyAge, day0)
	if err != nil {
		t.Fatal(err)
	}
	in.Store.Spec.ApprovedPlan = &first.Plan
	in.Policies = append(in.Policies, makePolicy("b", v1alpha1.PolicyEnforce, makeRule("Contacts", days(30))))
	in.Now = day0.Add(time.Hour)
	store = measured(t, in, 7000)
	m := ruleOf(t, store, "messages")
	m.Reason, m.Message = v1alpha1.ReasonBrakeTripped, "7000 of 21000 rows would go"
	before := *first.Plan.DeepCopy()

	second, err := Propose(Compile(in), store, anyAge, in.Now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"contacts"}, second.Datasets); diff != "" {
		t.Errorf("it speaks of (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Windows[0], second.Plan.Windows[1]); diff != "" {
		t.Errorf("what was approved of messages has changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(backlogAt(in.Now, 7000), second.Plan.Windows[0].Backlog); diff != "" {
		t.Errorf("the backlog of contacts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Seen, second.Plan.Seen); diff != "" {
		t.Errorf("the database was not named, and is approved anew:\n%s", diff)
	}

	// With nothing else to approve it says how the brake is let go on, and does not.
	in.Store.Spec.ApprovedPlan = &second.Plan
	store = measured(t, in, 7000)
	m = ruleOf(t, store, "messages")
	m.Reason, m.Message = v1alpha1.ReasonBrakeTripped, "7000 of 21000 rows would go"
	if _, err := Propose(Compile(in), store, anyAge, in.Now); !errors.Is(err, ErrNothingToApprove) || !strings.Contains(err.Error(), "--brake messages") {
		t.Errorf("error %v", err)
	}
	// By its own name, whatever else waits, and newer than the one before although the clock says the same.
	third, err := Propose(Compile(in), store, Asked{StaleAfter: time.Hour, Brakes: []string{"messages"}}, day0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(backlogAt(day0.Add(time.Second), 7000), third.Plan.Windows[1].Backlog); diff != "" {
		t.Errorf("the backlog of messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(second.Plan.Windows[0], third.Plan.Windows[0]); diff != "" {
		t.Errorf("contacts has changed:\n%s", diff)
	}
	// Approving its window again lets its brake go no more than before.
	fourth, err := Propose(Compile(in), store, Asked{StaleAfter: time.Hour, Datasets: []string{"messages"}}, in.Now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(second.Plan.Windows[1].Backlog, fourth.Plan.Windows[1].Backlog); diff != "" {
		t.Errorf("the brake was let go by approving the window:\n%s", diff)
	}
}

// Another database is approved by that name alone, and takes no backlog with it.
func TestApprovingAnotherDatabase(t *testing.T) {
	for name, change := range map[string]func(*Input, *v1alpha1.DataStore){
		"another system":   func(_ *Input, s *v1alpha1.DataStore) { s.Status.Plan.Identity.Value = "8000" },
		"another address":  func(in *Input, _ *v1alpha1.DataStore) { in.Store.Spec.Postgres.Port = 6543 },
		"another name":     func(in *Input, _ *v1alpha1.DataStore) { in.Store.Spec.Postgres.Database = "talk" },
		"an earlier state": func(_ *Input, s *v1alpha1.DataStore) { s.Status.LastSweep.Reason = v1alpha1.ReasonRestoredFrom },
	} {
		in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
		approveAll(t, in)
		change(&in, measured(t, in, 300))
		store := measured(t, in, 300)
		change(&in, store)
		in.Now = in.Now.Add(time.Minute)
		for _, asked := range []Asked{anyAge, {StaleAfter: time.Hour, Datasets: []string{"messages"}}} {
			if _, err := Propose(Compile(in), store, asked, in.Now); !errors.Is(err, ErrOtherDatabase) {
				t.Errorf("%s: error %v, want %v", name, err, ErrOtherDatabase)
			}
		}
		got, err := Propose(Compile(in), store, Asked{StaleAfter: time.Hour, Database: true}, in.Now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := got.Plan
		if p.Identity != store.Status.Plan.Identity || p.Address != addressOf(in.Store) || p.Database != in.Store.Spec.Postgres.Database ||
			p.Seen == nil || !p.Seen.ApprovedAt.Time.Equal(in.Now) || len(p.Windows) != 1 || p.Windows[0].Backlog != nil || *p.Windows[0].RetainFor.Days != 90 {
			t.Errorf("%s: %+v", name, p)
		}
		in.Store.Spec.ApprovedPlan = &p
		if r := Compile(in); len(r.AwaitingApproval) > 0 || r.Plan.Database.Address != p.Address || r.Plan.Database.Seen != in.Now.Unix() {
			t.Errorf("%s, approved: %v, %+v", name, r.AwaitingApproval, r.Plan.Database)
		}
	}
}

// An approval does not stretch when the window, the floor or the dataset changes.
func TestAnApprovalDoesNotStretch(t *testing.T) {
	long := int32(8)
	for name, tc := range map[string]struct {
		change func(*Input)
		awaits string // empty: nothing
		rows   int64  // of backlog that are left to it
	}{
		"as it was":        {func(*Input) {}, "", 300},
		"a longer window":  {func(in *Input) { in.Policies[0].Spec.Rules[0].RetainFor = years(9) }, "", 0},
		"a shorter window": {func(in *Input) { in.Policies[0].Spec.Rules[0].RetainFor = years(7) }, "(approved: P8Y)", 0},
		"a floor that is gone": {func(in *Input) {
			for i := range in.Store.Spec.Datasets {
				in.Store.Spec.Datasets[i].Floor = nil
			}
		}, "(approved: with a floor of P7Y)", 0},
		"a shorter floor": {func(in *Input) {
			for i := range in.Store.Spec.Datasets {
				if f := in.Store.Spec.Datasets[i].Floor; f != nil {
					f.RetainFor = years(1)
				}
			}
		}, "(approved: with a floor of P7Y)", 0},
		"a longer floor": {func(in *Input) {
			for i := range in.Store.Spec.Datasets {
				if f := in.Store.Spec.Datasets[i].Floor; f != nil {
					f.RetainFor = &v1alpha1.Period{Years: &long}
				}
			}
		}, "", 300},
		"another column": {func(in *Input) {
			for i := range in.Store.Spec.Datasets {
				in.Store.Spec.Datasets[i].Table.AgeColumn.Name = "updated_at"
			}
		}, "another table, other columns", 0},
		"another database": {func(in *Input) { in.Store.Spec.Postgres.Database = "talk" }, "approved: database chat", 0},
	} {
		in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Payments", years(8))))
		approveAll(t, in)
		tc.change(&in)
		r := Compile(in)
		if got := strings.Join(r.Awaiting(), "; "); (got == "") != (tc.awaits == "") || !strings.Contains(got, tc.awaits) {
			t.Errorf("%s: awaiting %q, want %q", name, got, tc.awaits)
		}
		var rows int64
		for _, d := range r.Plan.Datasets {
			if (d.Delete != nil) && tc.awaits != "" {
				t.Errorf("%s: deletes %+v", name, d.Delete)
			}
			if d.Delete != nil && d.Delete.Backlog != nil {
				rows = d.Delete.Backlog.Rows
			}
		}
		if rows != tc.rows {
			t.Errorf("%s: a backlog of %d rows, want %d", name, rows, tc.rows)
		}
	}
}

// 300 tenants with a window of their own are approved by a bound, and one that sets a shorter one later waits, and
// says so.
func TestApprovalByBound(t *testing.T) {
	in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
	for n := range 300 {
		x := makeTenant(fmt.Sprintf("t-%03d", n), fmt.Sprintf("x-%d", n))
		x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(int32(30 + n%30))}}
		in.Tenants = append(in.Tenants, x)
	}
	store := measured(t, in, 10)
	if _, err := Propose(Compile(in), store, anyAge, day0); !errors.Is(err, ErrTooManyTenants) || !strings.Contains(err.Error(), "--any-tenant-not-below P30D") {
		t.Fatalf("by name: %v", err)
	}
	got, err := Propose(Compile(in), store, Asked{StaleAfter: time.Hour, NotBelow: new(calendar.Or(days(30)))}, day0)
	if err != nil {
		t.Fatal(err)
	}
	if w := got.Plan.Windows[0]; len(w.Tenants) != 0 || w.AnyTenant == nil || *w.AnyTenant.NotBelow.Days != 30 {
		t.Fatalf("by bound: %+v", w)
	}
	in.Store.Spec.ApprovedPlan = &got.Plan
	r := Compile(in)
	if len(r.AwaitingApproval) > 0 || len(deletion(in).overrides) != 300 {
		t.Fatalf("approved: %v, %d overrides", r.AwaitingApproval, len(deletion(in).overrides))
	}
	// Another tenant comes with a window within the bound: covered, whatever it is called.
	in.Tenants = append(in.Tenants, makeTenant("later", "l-1", "l-2"))
	own := &in.Tenants[len(in.Tenants)-1].Spec
	own.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: days(45)}}
	if r := Compile(in); len(r.AwaitingApproval) > 0 {
		t.Errorf("within the bound: %v", r.AwaitingApproval)
	}
	if w, _ := windowUnder(deletion(in), "l-2"); w != calendar.Or(days(45)) {
		t.Errorf("within the bound its rows go after %s", w)
	}
	// It goes below: that waits, says so, and nobody else does; its rows go after the bound.
	own.RetentionOverrides[0].RetainFor = days(7)
	r = Compile(in)
	if diff := cmp.Diff([]string{"messages: rows of later older than P7D (approved: for any tenant not below P30D)"}, r.Awaiting()); diff != "" {
		t.Errorf("below the bound (-want +got):\n%s", diff)
	}
	if w, ok := windowUnder(deletion(in), "l-2"); !ok || w != calendar.Or(days(30)) {
		t.Errorf("below the bound its rows go after %s", w)
	}
	if w, ok := windowUnder(deletion(in), "x-29"); !ok || w != calendar.Or(days(59)) {
		t.Errorf("another tenant's rows go after %s", w)
	}
	if w, ok := windowUnder(deletion(in), "nobody"); !ok || w != calendar.Or(days(90)) {
		t.Errorf("an unknown tenant's rows go after %s", w)
	}
	// Approved by name beside the bound.
	got, err = Propose(Compile(in), measured(t, in, 10), Asked{StaleAfter: time.Hour, NotBelow: new(calendar.Or(days(30)))}, day0)
	if err != nil || len(got.Plan.Windows[0].Tenants) != 1 || got.Plan.Windows[0].Tenants[0].Tenant != "later" {
		t.Fatalf("by bound and name: %+v, %v", got.Plan.Windows, err)
	}
	in.Store.Spec.ApprovedPlan = &got.Plan
	if w, _ := windowUnder(deletion(in), "l-1"); len(Compile(in).AwaitingApproval) > 0 || w != calendar.Or(days(7)) {
		t.Errorf("by name its rows go after %s", w)
	}
	// It is named, so the bound is not for it: what it is called since waits, also under a window within the bound.
	own.RetentionOverrides[0].RetainFor = days(40)
	own.ExternalIDs = append(own.ExternalIDs, v1alpha1.ExternalID{Type: own.ExternalIDs[0].Type, Value: "l-3"})
	if w, _ := windowUnder(deletion(in), "l-3"); len(Compile(in).AwaitingApproval) != 1 || w != calendar.Or(days(90)) {
		t.Errorf("of a tenant that is named, rows of a new identifier go after %s; awaiting %v", w, Compile(in).AwaitingApproval)
	}
}

// Rows that are there again and of which none may go now are let go on all the same, or the brake would hold for ever.
func TestProposeLetsReturnedRowsGoOn(t *testing.T) {
	in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
	first, err := Propose(Compile(in), measured(t, in, 100), anyAge, day0)
	if err != nil {
		t.Fatal(err)
	}
	in.Store.Spec.ApprovedPlan = &first.Plan
	in.Now = day0.Add(time.Hour)
	store := measured(t, in, 0)
	d, m := store.Status.Measurement("messages", "a", "conversations")
	d.Reason, d.Returned, m.Overdue, m.KeptByChild = v1alpha1.ReasonReturned, 5, 5, 5
	got, err := Propose(Compile(in), store, Asked{StaleAfter: 2 * time.Hour, Brakes: []string{"messages"}}, in.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range got.Plan.Windows {
		if w.Dataset == "messages" && (w.Backlog == nil || w.Backlog.Rows != 5 || !w.Backlog.ApprovedAt.Time.Equal(in.Now)) {
			t.Errorf("%+v", w.Backlog)
		}
	}
}

// An approval of the database has a later time than the one before, by whoever's clock; one of a time that has not
// come counts for nothing.
func TestProposeATimeOfItsOwn(t *testing.T) {
	for name, tc := range map[string]struct{ before, want time.Duration }{
		"earlier":                         {-time.Hour, 0},
		"the same second":                 {0, time.Second},
		"by a clock that is a bit ahead":  {4 * time.Minute, 4*time.Minute + time.Second},
		"by a clock that is a year ahead": {365 * 24 * time.Hour, 0},
		"by this one, hours slow":         {3 * time.Hour, 3*time.Hour + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90))))
			first, err := Propose(Compile(in), measured(t, in, 100), anyAge, day0)
			if err != nil {
				t.Fatal(err)
			}
			first.Plan.Seen.ApprovedAt = metav1.NewTime(day0.Add(tc.before))
			in.Store.Spec.ApprovedPlan = &first.Plan
			store := measured(t, in, 100)
			if strings.Contains(name, "slow") {
				at := metav1.NewTime(day0.Add(3 * time.Hour))
				store.Status.MeasuredAt = &at
			}
			got, err := Propose(Compile(in), store, Asked{StaleAfter: 6 * time.Hour, Database: true}, day0)
			if err != nil {
				t.Fatal(err)
			}
			if at := got.Plan.Seen.ApprovedAt.Sub(day0); at != tc.want {
				t.Errorf("approved %s after, want %s", at, tc.want)
			}
		})
	}
}

func addressOf(s *v1alpha1.DataStore) string {
	t, _ := TargetOf(&s.Spec)
	return t.Address()
}

// TestProposeAfterAnEarlierFormat: windows that do not say what they are of count for nothing, and stand in no approval
// that is written.
func TestProposeAfterAnEarlierFormat(t *testing.T) {
	in := shared(makePolicy("a", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90)), makeRule("Contacts", days(90))))
	first, err := Propose(Compile(in), measured(t, in, 100), anyAge, day0)
	if err != nil || len(first.Plan.Windows) != 2 {
		t.Fatalf("%+v, %v", first.Plan.Windows, err)
	}
	for i := range first.Plan.Windows {
		first.Plan.Windows[i].PlaceDigest = ""
	}
	in.Store.Spec.ApprovedPlan = &first.Plan
	asked := func(change func(*Asked)) Asked {
		a := anyAge
		change(&a)
		return a
	}
	for name, tc := range map[string]struct {
		asked Asked
		want  []string
		err   error
	}{
		"all that waits":                {anyAge, []string{"contacts", "messages"}, nil},
		"one dataset":                   {asked(func(a *Asked) { a.Datasets = []string{"messages"} }), []string{"messages"}, nil},
		"the database alone":            {asked(func(a *Asked) { a.Database = true }), nil, ErrUnnamed},
		"the database with one dataset": {asked(func(a *Asked) { a.Database, a.Datasets = true, []string{"messages"} }), []string{"messages"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Propose(Compile(in), measured(t, in, 100), tc.asked, day0)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			var names []string
			for _, w := range got.Plan.Windows {
				names = append(names, w.Dataset)
				if w.PlaceDigest == "" {
					t.Errorf("%s does not say what it is of", w.Dataset)
				}
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("windows (-want +got):\n%s", diff)
			}
		})
	}
}
