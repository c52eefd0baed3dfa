package datastore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

const (
	enforce = v1alpha1.PolicyEnforce
)

func TestAStoreIsPlannedAndMeasuredAtOnce(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)

	job := b.Job()
	want := []string{
		"*v1.ConfigMap/" + resources.PlanName("chat", s.Status.Plan.Hash), "*v1.CronJob/chat-sweep", "*v1.Job/" + job.Name,
		"*v1.NetworkPolicy/chat-sweeper", "*v1.ServiceAccount/chat-sweeper",
	}
	if diff := cmp.Diff(want, b.Children(s)); diff != "" {
		t.Errorf("children (-want +got):\n%s", diff)
	}
	if resources.PlanHashOf(job.Spec.Template.Spec) != s.Status.Plan.Hash {
		t.Errorf("the Job runs plan %s, in force is %s", resources.PlanHashOf(job.Spec.Template.Spec), s.Status.Plan.Hash)
	}
	b.Want(s, map[string]string{"Ready": "False NotMeasured", "Reconciling": "True NotMeasured",
		"CredentialsReady": "True Stored", "Reachable": "Unknown NotMeasured", "Compliant": "Unknown NotMeasured", "Approved": "False AwaitingApproval"})
	if s.Status.Tenant != b.Tenant {
		t.Errorf("tenant %q, want %q", s.Status.Tenant, b.Tenant)
	}

	b.Sweep(s, func(r *report.Report) {
		r.Datasets[0].Rows, r.Datasets[0].Rules[0].Eligible, r.Datasets[0].Rules[0].KeptByChild = 300, 40, 2
	})
	measured := []v1alpha1.DatasetMeasurement{{Name: "messages", Rows: 300, Rules: []v1alpha1.RuleMeasurement{{Policy: p.Name, Rule: "conversations", Window: "P90D", Eligible: 40, KeptByChild: 2}}}}
	if diff := cmp.Diff(measured, s.Status.Datasets); diff != "" {
		t.Errorf("datasets (-want +got):\n%s", diff)
	}
	b.Want(s, map[string]string{"Ready": "True Audit",
		"Reachable": "True Connected", "CoverageComplete": "True Complete", "Compliant": "True Compliant", "Approved": "False AwaitingApproval"})
	if n := len(b.Active()); n != 0 {
		t.Errorf("%d Jobs are active after the store was measured, want none", n)
	}
	if s.Status.Plan.Identity != (v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}) {
		t.Errorf("identity %+v", s.Status.Plan.Identity)
	}
}

func TestEnforceWaitsForApprovalAndThenDeletes(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, func(r *report.Report) {
		r.Datasets[0].Rules[0].Eligible, r.Datasets[0].Rules[0].Overdue, r.Datasets[0].Rules[0].OldestOverdueSeconds = 40, 30, 3600
	})
	b.Want(s, map[string]string{"Ready": "True AwaitingApproval", "Approved": "False AwaitingApproval", "Compliant": "False Overdue"})
	b.Says(s, "Approved", "messages: rows older than P90D (approved: nothing)")
	if diff := cmp.Diff([]v1alpha1.AwaitedApproval{{Dataset: "messages", Message: "rows older than P90D (approved: nothing)"}}, s.Status.Plan.AwaitingApproval); diff != "" {
		t.Errorf("awaiting approval (-want +got):\n%s", diff)
	}
	if events := strings.Join(b.EventsSeen(), "\n"); !strings.Contains(events, "AwaitingApproval") || !strings.Contains(events, "Overdue") {
		t.Errorf("events:\n%s\nwant AwaitingApproval and Overdue", events)
	}

	proposal, err := plan.Propose(plan.Compile(plan.Input{Store: s, StoreTenant: &v1alpha1.Tenant{}, Policies: []v1alpha1.DataRetentionPolicy{*p}, Now: b.Clock.Now()}), s, plan.Asked{StaleAfter: storecontroller.StaleAfter}, b.Clock.Now())
	b.Must(err)
	operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Spec.ApprovedPlan = &proposal.Plan })
	b.Settle(s)
	job := b.Job()
	if !b.Plan(job).Deletes() {
		t.Fatal("the plan deletes nothing although it is approved")
	}
	b.Want(s, map[string]string{"Approved": "True Approved", "Compliant": "Unknown PlanChanged"})
	b.Sweep(s, func(r *report.Report) { r.Datasets[0].Rules[0].Deleted = 40 })
	b.Want(s, map[string]string{"Ready": "True Ready", "Compliant": "True Compliant"})
	if events := strings.Join(b.EventsSeen(), "\n"); !strings.Contains(events, "SweepFinished deleted 40 row(s)") {
		t.Errorf("events:\n%s\nwant SweepFinished with the count", events)
	}

	t.Run("a shorter window waits again, and nothing is deleted meanwhile", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = operator.Period(30) })
		b.Settle(s)
		if b.Plan(b.Job()).Deletes() {
			t.Error("the plan deletes what was not approved")
		}
		b.Sweep(s, nil)
		b.Want(s, map[string]string{"Approved": "False AwaitingApproval", "Ready": "True AwaitingApproval"})
		b.Says(s, "Approved", "messages: rows older than P30D (approved: P90D)")
	})
	t.Run("put back to Audit, nothing is deleted", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) {
			p.Spec.Rules[0].RetainFor, p.Spec.Mode = operator.Period(90), operator.Audit
		})
		b.Settle(s)
		if b.Plan(b.Job()).Deletes() {
			t.Error("the plan deletes in Audit")
		}
	})
}

func TestAChangedPlanIsSweptAtOnceAndTheOldOneGoes(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	running := b.Job()
	first := s.Status.Plan.Hash

	operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = operator.Period(60) })
	b.Clock.SetTime(b.Clock.Now().Add(10 * time.Minute))
	b.Settle(s)
	second := s.Status.Plan.Hash
	if second == first {
		t.Fatal("another window has the same plan")
	}
	if got := b.Job(); got.UID != running.UID {
		t.Fatal("a second Job was made while the first was active")
	}
	var cron batchv1.CronJob
	b.Must(b.Env.Client.Get(t.Context(), client.ObjectKey{Namespace: b.Namespace, Name: "chat-sweep"}, &cron))
	if got := resources.PlanHashOf(cron.Spec.JobTemplate.Spec.Template.Spec); got != second {
		t.Errorf("the CronJob runs plan %s, want %s", got, second)
	}
	plans := func() (names []string) {
		for _, c := range b.Children(s) {
			if strings.HasPrefix(c, "*v1.ConfigMap/") {
				names = append(names, strings.TrimPrefix(c, "*v1.ConfigMap/"))
			}
		}
		return names
	}
	both := []string{resources.PlanName("chat", first), resources.PlanName("chat", second)}
	slices.Sort(both)
	if diff := cmp.Diff(both, plans()); diff != "" {
		t.Errorf("the plan of a Job that runs must stay (-want +got):\n%s", diff)
	}

	// The old sweep loses its lease and ends; the new plan is swept at once.
	b.Clock.SetTime(time.Now().Truncate(time.Second))
	b.Finish(running, b.Told(running, nil))
	b.Settle(s)
	b.Want(s, map[string]string{"Compliant": "Unknown NotMeasured"})
	if got := resources.PlanHashOf(b.Job().Spec.Template.Spec); got != second {
		t.Errorf("the sweep out of turn runs plan %s, want %s", got, second)
	}
	b.Sweep(s, nil)
	b.Want(s, map[string]string{"Compliant": "True Compliant"})

	// The CronJob's controller may still be making a Job of the old plan: it stays for a moment.
	if diff := cmp.Diff(both, plans()); diff != "" {
		t.Errorf("just replaced (-want +got):\n%s", diff)
	}
	b.Clock.SetTime(time.Now().Add(storecontroller.OldPlanGrace + 2*time.Second))
	b.Settle(s)
	if diff := cmp.Diff([]string{resources.PlanName("chat", second)}, plans()); diff != "" {
		t.Errorf("after the grace (-want +got):\n%s", diff)
	}
}

func TestWhatASweepSaysAboutTheStore(t *testing.T) {
	broken := func(reason string) func(*report.Report) {
		return func(r *report.Report) {
			*r = report.Report{Plan: r.Plan, Outcome: report.Refused, Reason: reason, Message: "do something about " + reason, Mode: r.Mode}
		}
	}
	tests := map[string]struct {
		edit   func(*report.Report)
		raw    func(string) string // what really arrives
		want   map[string]string
		says   string // Ready
		within time.Duration
	}{
		"unreachable": {edit: broken(v1alpha1.ReasonUnreachable), says: "do something about Unreachable", within: time.Minute,
			want: map[string]string{"Ready": "False Unreachable", "Reconciling": "True Unreachable", "Reachable": "False Unreachable", "Compliant": "Unknown Unreachable"}},
		"wrong password": {edit: broken(v1alpha1.ReasonWrongPassword), within: time.Minute,
			want: map[string]string{"Ready": "False WrongPassword", "Stalled": "True WrongPassword", "Reachable": "False WrongPassword", "Compliant": "Unknown WrongPassword"}},
		"untrusted certificate": {edit: broken(v1alpha1.ReasonUntrustedCertificate), within: time.Minute,
			want: map[string]string{"Ready": "False UntrustedCertificate", "Reachable": "False UntrustedCertificate", "Compliant": "Unknown UntrustedCertificate"}},
		"no such database": {edit: broken(v1alpha1.ReasonNoSuchDatabase), within: time.Minute,
			want: map[string]string{"Reachable": "False NoSuchDatabase"}},
		"no lease": {edit: broken(v1alpha1.ReasonLeaseRefused), within: time.Minute,
			want: map[string]string{"Ready": "False LeaseRefused", "Reachable": "Unknown LeaseRefused", "Compliant": "Unknown LeaseRefused"}},
		"no message": {raw: func(string) string { return "" }, within: time.Minute,
			want: map[string]string{"Ready": "False ReportLost", "Reachable": "Unknown ReportLost", "Compliant": "Unknown ReportLost"}},
		"a cut message": {raw: func(s string) string { return s[:len(s)/2] }, within: time.Minute,
			want: map[string]string{"Ready": "False ReportLost", "Compliant": "Unknown ReportLost"}},
		"not a message of ours": {raw: func(string) string { return "OOMKilled" }, within: time.Minute,
			want: map[string]string{"Compliant": "Unknown ReportLost"}},
		"another plan than the Job's": {edit: func(r *report.Report) { r.Plan = strings.Repeat("0", 64) }, within: time.Minute,
			want: map[string]string{"Compliant": "Unknown ReportLost"}},
		"a missing column": {edit: func(r *report.Report) {
			r.Reason, r.Outcome = v1alpha1.ReasonDatasetsRefused, report.Refused
			r.Datasets[0].Reason, r.Datasets[0].Message = v1alpha1.ReasonMissingColumn, "public.messages has no column created_at"
		}, says: "public.messages has no column created_at",
			want: map[string]string{"Ready": "False MissingColumn", "Stalled": "True MissingColumn", "Reachable": "True Connected", "Compliant": "Unknown NotMeasured"}},
		"a dataset of which it says nothing": {edit: func(r *report.Report) { r.Datasets = []report.Dataset{{Name: "other"}} }, says: "messages",
			want: map[string]string{"Ready": "True NotMeasured", "Compliant": "Unknown NotMeasured"}},
		"more measurements than a report holds": {edit: func(r *report.Report) {
			*r = report.Report{Plan: r.Plan, Outcome: report.Failed, Reason: v1alpha1.ReasonLimitReached, Message: "split the datasets", Mode: r.Mode, Identity: r.Identity}
		}, says: "split the datasets", within: time.Minute,
			want: map[string]string{"Ready": "False LimitReached", "Reachable": "True Connected", "Compliant": "Unknown LimitReached"}},
		"uncovered tables": {edit: func(r *report.Report) { r.Uncovered, r.UncoveredCount = []string{"public.drafts"}, 1 }, says: "public.drafts",
			want: map[string]string{"Ready": "True UncoveredTable", "CoverageComplete": "False UncoveredTable", "Compliant": "Unknown UncoveredTable"}},
		"rows without an age": {edit: func(r *report.Report) { r.Datasets[0].UnknownAge = 3 }, says: "3 row(s)",
			want: map[string]string{"Ready": "True UnknownAge", "Compliant": "Unknown UnknownAge"}},
		"a brake that has tripped": {edit: func(r *report.Report) {
			r.Reason, r.Outcome = v1alpha1.ReasonDatasetsRefused, report.Refused
			r.Datasets[0].Reason, r.Datasets[0].Message, r.Datasets[0].Rules[0].Overdue = v1alpha1.ReasonBrakeTripped, "45 % of the table", 9
		}, says: "45 % of the table", want: map[string]string{"Ready": "True Overdue", "Compliant": "False Overdue"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
			b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
			s := b.Store("chat", nil)
			b.Settle(s)
			job := b.Job()
			text := b.Told(job, tc.edit)
			if tc.raw != nil {
				text = tc.raw(text)
			}
			b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
			b.Finish(job, text)
			b.Settle(s)
			b.Want(s, tc.want)
			b.Says(s, v1alpha1.ConditionReady, tc.says)
			if tc.within == 0 {
				return
			}
			if n := len(b.Active()); n != 0 {
				t.Fatalf("%d Jobs at once after a sweep that measured nothing, want to wait", n)
			}
			b.Clock.SetTime(b.Clock.Now().Add(tc.within))
			b.Settle(s)
			again := b.Job()
			if again.Name == job.Name {
				t.Error("the repetition has the name of the first")
			}
			b.Sweep(s, nil)
			b.Want(s, map[string]string{"Ready": "True Audit", "Reachable": "True Connected", "Compliant": "True Compliant"})
		})
	}
}

func TestAReportIsReadOnce(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, nil)
	b.Want(s, map[string]string{"Ready": "True Audit"})

	// The pod goes with its time; the measurement stays, also for a manager that has just started.
	b.Must(b.Cluster.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(b.Namespace), client.GracePeriodSeconds(0)))
	b.Use(nil)
	before := time.Now()
	b.Settle(s)
	b.Want(s, map[string]string{"Ready": "True Audit"})
	if writes := b.Writes(before); len(writes) > 0 {
		t.Errorf("writes: %v", writes)
	}
}

func TestAMeasurementGrowsStaleAndIsRepeated(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, nil)
	result := b.Settle(s)
	if left := s.Status.MeasuredAt.Add(storecontroller.StaleAfter).Sub(b.Clock.Now()); result.RequeueAfter <= 0 || result.RequeueAfter > left {
		t.Fatalf("looks again after %s, the measurement is stale in %s", result.RequeueAfter, left)
	}
	b.Clock.SetTime(s.Status.MeasuredAt.Add(storecontroller.StaleAfter - time.Second))
	b.Settle(s)
	b.Want(s, map[string]string{"Compliant": "True Compliant"})
	b.Clock.SetTime(s.Status.MeasuredAt.Add(storecontroller.StaleAfter))
	b.EventsSeen()
	b.Settle(s)
	b.Want(s, map[string]string{"Ready": "True Stale", "Compliant": "Unknown Stale"})
	if events := strings.Join(b.EventsSeen(), "\n"); !strings.Contains(events, "Warning Stale") {
		t.Errorf("events:\n%s\nwant a warning", events)
	}
	job := b.Job()
	for range 5 {
		b.Clock.SetTime(b.Clock.Now().Add(time.Hour))
		b.Settle(s)
		if got := b.Job(); got.UID != job.UID {
			t.Fatal("another Job was made while one is active")
		}
	}
	// A hand that suspends it does not stop measuring for good.
	operator.Amend(b, job, func(j *batchv1.Job) { j.Spec.Suspend = new(true) })
	b.Must(b.Cluster.Delete(t.Context(), job, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	b.Settle(s)
	if b.Job().UID == job.UID {
		t.Error("no other Job was made")
	}
}

func TestAStoreThatMayHaveNoPlan(t *testing.T) {
	t.Run("a namespace that is no tenant's", func(t *testing.T) {
		b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
		b.Namespace = b.Env.Namespace(t, "nobodys", nil).Name
		s := b.Store("chat", nil)
		b.Settle(s)
		b.Want(s, map[string]string{"Ready": "False NoTenant", "Stalled": "True NoTenant", "Compliant": "Unknown NotPlanned"})
		b.Says(s, v1alpha1.ConditionReady, "spec.namespaces")
		if got := b.Children(s); len(got) > 0 || len(s.Finalizers) > 0 {
			t.Errorf("children %v, finalizers %v, want none", got, s.Finalizers)
		}
	})
	t.Run("a namespace that only says it is a tenant's", func(t *testing.T) {
		b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
		b.Namespace = b.Env.Namespace(t, "claimed", map[string]string{v1alpha1.LabelTenant: b.Tenant}).Name
		s := b.Store("chat", nil)
		b.Settle(s)
		b.Want(s, map[string]string{"Ready": "False NoTenant"})
		if got := b.Children(s); len(got) > 0 {
			t.Errorf("children %v, want none", got)
		}
	})
	t.Run("a Shared store in a Customer's namespace", func(t *testing.T) {
		b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
		b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
		s := b.Store("chat", makeShared)
		b.Settle(s)
		b.Want(s, map[string]string{"Ready": "False SharedRefused", "Stalled": "True SharedRefused"})
		b.Says(s, v1alpha1.ConditionReady, "class Platform")
		if got := b.Children(s); len(got) > 0 {
			t.Errorf("children %v, want none", got)
		}
	})
	t.Run("in a Platform's it is planned, with every tenant's rows", func(t *testing.T) {
		b := operator.NewStoreBench(t, v1alpha1.TenantPlatform)
		b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
		acme := b.TenantWith("acme-"+b.Namespace, v1alpha1.TenantCustomer)
		operator.Amend(b, acme, func(x *v1alpha1.Tenant) {
			x.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}}
			x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: operator.Period(30)}}
		})
		s := b.Store("chat", makeShared)
		b.Settle(s)
		p := b.Plan(b.Job())
		got := p.Overrides(p.Datasets[0].Rules[0].Own)
		if diff := cmp.Diff([]plan.Override{{Tenant: acme.Name, ExternalIDs: []string{"42"}, RetainFor: calendar.Or(operator.Period(30))}}, got, cmpopts.EquateComparable(calendar.Window{})); diff != "" {
			t.Errorf("overrides (-want +got):\n%s", diff)
		}
	})
}

func makeShared(s *v1alpha1.DataStore) {
	s.Spec.Tenancy, s.Spec.TenantIDType = v1alpha1.TenancyShared, "AccountID"
	for i := range s.Spec.Datasets {
		s.Spec.Datasets[i].Table.TenantColumn = "account_id"
	}
}

func TestRulesThatCannotBeKept(t *testing.T) {
	tests := map[string]struct {
		rule    v1alpha1.RetentionRule
		own     *v1alpha1.Period // the tenant's override
		floor   *v1alpha1.Period
		says    []string
		deletes string // window, empty: nothing
	}{
		"a window shorter than the floor": {rule: operator.Rule("Conversations", operator.Period(90)), floor: operator.Period(365),
			says: []string{"retainFor (P90D)", "spec.datasets[messages].floor.retainFor (P365D)"}},
		"a window that cannot be compared with the floor": {rule: operator.Rule("Conversations", operator.Period(365)), floor: &v1alpha1.Period{Years: new(int32(1))},
			says: []string{"floor.retainFor (P1Y)"}},
		"an override that is longer": {rule: operator.Rule("Conversations", operator.Period(90)), own: operator.Period(120),
			says: []string{"spec.retentionOverrides[Conversations].retainFor", "P120D is longer than P90D"}, deletes: "P90D"},
		"an override that cannot be compared": {rule: operator.Rule("Conversations", &v1alpha1.Period{Months: new(int32(1))}), own: operator.Period(30),
			says: []string{"P30D is not provably shorter than P1M", "use the same unit"}, deletes: "P1M"},
		"an override under the floor": {rule: operator.Rule("Conversations", operator.Period(90)), own: operator.Period(30), floor: operator.Period(60),
			says: []string{"retainFor (P30D)", "P60D"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
			b.Policy("privacy", enforce, tc.rule)
			tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: b.Tenant}}
			if tc.own != nil {
				operator.Amend(b, tenant, func(x *v1alpha1.Tenant) {
					x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: tc.own}}
				})
			}
			s := b.Store("chat", func(s *v1alpha1.DataStore) {
				if tc.floor != nil {
					s.Spec.Datasets[0].Floor = &v1alpha1.Floor{RetainFor: tc.floor, LegalBasis: "law"}
				}
				window := tc.rule.RetainFor
				if tc.own != nil && tc.floor != nil {
					window = tc.own
				}
				s.Spec.ApprovedPlan = &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Address: operator.AddressOf(s), Tenancy: v1alpha1.TenancyDedicated,
					Windows: []v1alpha1.ApprovedWindow{{Dataset: "messages", PlaceDigest: plan.PlaceOf(&s.Spec.Datasets[0]).Digest(), RetainFor: window}}}
			})
			b.Settle(s)
			got := ""
			if d := b.Plan(b.Job()).Datasets[0].Delete; d != nil {
				got = d.RetainFor.String()
			}
			if got != tc.deletes {
				t.Errorf("deletes after %q, want %q", got, tc.deletes)
			}
			b.Sweep(s, nil)
			b.Want(s, map[string]string{"Ready": "False PlanProblem", "Stalled": "True PlanProblem"})
			for _, text := range tc.says {
				b.Says(s, v1alpha1.ConditionReady, text)
			}
		})
	}
}

func TestAPasswordThatDoesNotOpen(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	b.Keys.Answer = &keyapi.CredentialsResponse{Items: []keyapi.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonWrongPlace, Message: "sealed for another host"}}}
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Want(s, map[string]string{"Ready": "False WrongPlace", "Stalled": "True WrongPlace", "CredentialsReady": "False WrongPlace"})
	b.Says(s, v1alpha1.ConditionReady, "spec.postgres.password: sealed for another host")
	if diff := cmp.Diff([]string{"*v1.NetworkPolicy/chat-sweeper", "*v1.ServiceAccount/chat-sweeper"}, b.Children(s)); diff != "" {
		t.Errorf("children (-want +got):\n%s", diff)
	}

	b.Keys.Answer = nil
	b.Settle(s)
	b.Sweep(s, nil)
	b.Want(s, map[string]string{"Ready": "True Audit", "CredentialsReady": "True Stored"})

	t.Run("a lower version keeps the newer one in use and says so", func(t *testing.T) {
		b.Keys.Answer = &keyapi.CredentialsResponse{Secret: s.Status.CredentialsSecret,
			Items: []keyapi.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonRolledBack, Message: "version 1 is older than 2, which stays in use", Version: 2}}}
		operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Spec.Postgres.Password = "seal.v1.a.b.c.d.older" })
		b.Settle(s)
		b.Want(s, map[string]string{"CredentialsReady": "True RolledBack", "Ready": "True Audit"})
	})
	t.Run("a keyserver that is gone stops no sweep of what is stored", func(t *testing.T) {
		b.Keys.Err = errors.New("connection refused")
		operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Spec.Brake.MaxPercentOfTable = 30 })
		result := b.Settle(s)
		b.Want(s, map[string]string{"CredentialsReady": "False KeyserverUnavailable"})
		if result.RequeueAfter <= 0 || result.RequeueAfter > time.Minute {
			t.Errorf("asks again after %s", result.RequeueAfter)
		}
		if got := resources.PlanHashOf(b.Job().Spec.Template.Spec); got != s.Status.Plan.Hash {
			t.Error("the changed plan is not swept")
		}
		b.Keys.Err = nil
	})
}

func TestAStoreGoesAway(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	if !slices.Contains(s.Finalizers, v1alpha1.FinalizerKeys) {
		t.Fatalf("finalizers %v", s.Finalizers)
	}
	b.Keys.Err = errors.New("connection refused")
	b.Must(b.Env.Client.Delete(t.Context(), s))
	if result := b.Settle(s); result.RequeueAfter <= 0 || result.RequeueAfter > time.Minute {
		t.Errorf("looks again after %s", result.RequeueAfter)
	}
	b.Want(s, map[string]string{"Ready": "False KeyserverUnavailable"})
	b.Says(s, v1alpha1.ConditionReady, "deletion waits until its keys are destroyed")
	b.Keys.Err = nil
	if _, err := b.Pass(s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{string(s.UID)}, b.Keys.Revoked); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	if err := b.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the store is still there: %v", err)
	}
	if _, err := b.Pass(s); err != nil {
		t.Errorf("a pass over what is gone: %v", err)
	}
	if got := len(b.StoreSeries()); got != 0 {
		t.Errorf("%d series of the store are left", got)
	}
}

func TestForeignObjectsAreRefused(t *testing.T) {
	for name, stranger := range map[string]client.Object{
		"ServiceAccount": &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "chat-sweeper"}},
		"NetworkPolicy":  &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "chat-sweeper"}},
		"CronJob": &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "chat-sweep"}, Spec: batchv1.CronJobSpec{
			Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
			b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
			stranger.SetNamespace(b.Namespace)
			b.Must(b.Cluster.Create(t.Context(), stranger))
			s := b.Store("chat", nil)
			b.Settle(s)
			b.Want(s, map[string]string{"Ready": "False NameTaken", "Stalled": "True NameTaken"})
			b.Says(s, v1alpha1.ConditionReady, stranger.GetName())
			version := stranger.GetResourceVersion()
			b.Read(stranger)
			if stranger.GetResourceVersion() != version {
				t.Error("the foreign object was written")
			}
			if n := len(b.Active()); n != 0 {
				t.Errorf("%d Jobs run", n)
			}
			b.Must(b.Cluster.Delete(t.Context(), stranger))
			b.Settle(s)
			b.Want(s, map[string]string{"Ready": "False NotMeasured"})
		})
	}
	t.Run("a Job that looks like ours", func(t *testing.T) {
		b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
		b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
		s := b.Store("chat", nil)
		b.Settle(s)
		fake := b.Job().DeepCopy()
		b.Must(b.Cluster.Delete(t.Context(), b.Job(), client.PropagationPolicy(metav1.DeletePropagationBackground)))
		fake.ObjectMeta = metav1.ObjectMeta{Namespace: b.Namespace, Name: "forged", Labels: resources.StoreLabels("chat", resources.ComponentSweeper)}
		fake.Spec.Selector, fake.Spec.Template.Labels, fake.Status = nil, nil, batchv1.JobStatus{}
		b.Must(b.Cluster.Create(t.Context(), fake))
		b.Finish(fake, b.Told(fake, nil))
		b.Settle(s)
		b.Want(s, map[string]string{"Compliant": "Unknown NotMeasured"})
	})
}
