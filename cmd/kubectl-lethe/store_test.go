package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// makeWorld is a shared store of two customers, one policy in Audit, and a measurement that is ten minutes old.
func makeWorld(t *testing.T) *v1alpha1.DataStore {
	t.Helper()
	priv := ensurePlatform(t)
	store, policy := &v1alpha1.DataStore{}, &v1alpha1.DataRetentionPolicy{}
	decodeFrom(t, "testdata/store-world.yaml", "DataStore", store)
	decodeFrom(t, "testdata/store-world.yaml", "DataRetentionPolicy", policy)
	sealed, err := sealing.Seal(priv.Public(), sealing.Place{Realm: testRealm, Tenant: "platform", Namespace: "platform", Kind: sealing.KindDataStore,
		Name: "chat", Key: sealing.PasswordKey, Version: 1, Destination: sealing.DestinationOf(&store.Spec)}, []byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	store.Spec.Postgres.Password = v1alpha1.SealedValue(sealed)
	for _, name := range []string{"acme", "globex"} {
		create(t, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{
			Namespaces:  []v1alpha1.TenantNamespace{{Name: name}},
			ExternalIDs: []v1alpha1.ExternalID{{Type: "AccountID", Value: "account-of-" + name}}}})
	}
	create(t, store, policy)
	setStatus(t, store, "chat measured", func(s *v1alpha1.DataStoreStatus) {})
	return store
}

// decodeFrom reads the one object of a kind out of a file.
func decodeFrom(t *testing.T, file, kind string, into any) {
	t.Helper()
	docs, err := (&shell{}).readManifest("-f", file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := pick(docs, "-f", kind, "", "")
	if err == nil {
		err = d.decode(into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ensurePlatform makes the Platform tenant once: its namespace cannot be made again where nothing finishes removing it.
func ensurePlatform(t *testing.T) sealing.PrivateKey {
	t.Helper()
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), clientKey("", "platform"), &tenant); err == nil {
		priv, err := sealing.GeneratePrivateKey(random('p'))
		if err != nil {
			t.Fatal(err)
		}
		return priv
	}
	return makePlatform(t)
}

// setStatus writes what a sweep that ended ten minutes ago would have left, changed as a test wants it.
func setStatus(t *testing.T, store *v1alpha1.DataStore, message string, change func(*v1alpha1.DataStoreStatus)) {
	t.Helper()
	measured := metav1.NewTime(day0.Add(-10 * time.Minute))
	var live v1alpha1.DataStore
	if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(store), &live); err != nil {
		t.Fatal(err)
	}
	compiled, err := planner.Store(t.Context(), testEnv.Client, &live, day0)
	if err != nil {
		t.Fatal(err)
	}
	content, err := plan.Digest(compiled.Plan)
	if err != nil {
		t.Fatal(err)
	}
	store.Status = v1alpha1.DataStoreStatus{
		ObservedGeneration: store.Generation,
		MeasuredAt:         &measured,
		MeasuredPlanDigest: content,
		LastSweep:          &v1alpha1.SweepStatus{JobUID: "job", PlanDigest: content, Outcome: v1alpha1.SweepDone},
		Point:              &v1alpha1.StorePoint{Kind: "PostgresPoint", Value: "oid=16384,timeline=1,position=0/16B3748,transactions=740"},
		Plan:               v1alpha1.PlanStatus{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7301"}},
		Datasets: []v1alpha1.DatasetMeasurement{
			{Name: "messages", Rows: 300000, UnknownAge: 3, UnknownTenant: 7,
				Rules: []v1alpha1.RuleMeasurement{{Policy: "published-promise", Rule: "conversations", Window: "P90D", Eligible: 75000, KeptByChild: 12}}},
			{Name: "payments", Rows: 900, Rules: []v1alpha1.RuleMeasurement{{Policy: "published-promise", Rule: "payments", Window: "P2Y", KeptByFloor: 40}}},
		},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionCompliant, Status: metav1.ConditionTrue, Reason: "Measured", Message: message,
			ObservedGeneration: store.Generation, LastTransitionTime: metav1.NewTime(day0)}},
	}
	change(&store.Status)
	if err := testEnv.Client.Status().Update(t.Context(), store); err != nil {
		t.Fatal(err)
	}
}

func TestExplain(t *testing.T) {
	makeWorld(t)
	c := newCaller(t)
	golden(t, "explain.txt", c.ok("", "explain", "platform/chat").out)
	golden(t, "explain-changed.txt", c.ok("", "explain", "platform/chat", "-f", "testdata/policy-enforce.yaml").out)
	c.fails("", []string{"explain", "platform/other"}, "DataStore platform/other does not exist", "-f")
	c.fails("", []string{"explain"}, "takes one argument, the store")
	if o := c.ok("", "explain", "platform/chat", "-f", "testdata/store-world.yaml"); strings.Contains(o.out, "SEALED") {
		t.Error("a field that may hold a plaintext is shown")
	}
}

func TestPlan(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	golden(t, "plan.txt", c.ok("", "plan", "platform/chat").out)
	golden(t, "plan-changed.txt", c.ok("", "plan", "platform/chat", "-f", "testdata/policy-enforce.yaml").out)
	o := c.ok("", "plan", "platform/chat", "-o", "json")
	if !strings.Contains(o.out, `"kind": "StorePlan"`) || !strings.Contains(o.out, fmt.Sprintf(`"format": %d,`, plan.Format)) || strings.Contains(o.out, string(store.Spec.Postgres.Password)) {
		t.Errorf("not a plan, or one with the password:\n%s", o.out)
	}
	c.fails("", []string{"plan", "platform/chat", "-o", "xml"}, "-o: say json or yaml or name")
	if o := c.ok("", "plan", "platform/chat", "-o", "name"); o.out != "datastore.lethe.dev/chat\n" {
		t.Errorf("by name: %q", o.out)
	}
}

func TestApprove(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	reload := func() *v1alpha1.ApprovedPlan {
		t.Helper()
		if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(store), store); err != nil {
			t.Fatal(err)
		}
		return store.Spec.ApprovedPlan
	}
	c.fails("", []string{"approve", "platform/chat"}, "nothing was changed", "--yes", "-o yaml")
	c.terminal = true
	c.fails("yes\n", []string{"approve", "platform/chat"}, "nothing was changed: the answer was another")
	if reload() != nil {
		t.Fatal("something was approved")
	}
	c.terminal = false
	patch := c.ok("", "approve", "platform/chat", "-o", "yaml")
	golden(t, "approve.yaml", patch.out)
	golden(t, "approve.txt", patch.errOut)
	if reload() != nil {
		t.Fatal("-o yaml changed the store")
	}

	c.terminal = true
	c.ok("platform/chat\n", "approve", "platform/chat")
	approved := reload()
	if approved == nil || approved.Identity.Value != "7301" || len(approved.Windows) != 1 || approved.Windows[0].Backlog == nil || approved.Windows[0].Backlog.Rows != 75000 {
		t.Fatalf("what was approved: %+v", approved)
	}
	// What is approved is approved once: asking again renews nothing.
	c.fails("", []string{"approve", "platform/chat", "--yes"}, "nothing waits for approval")
	setStatus(t, store, "braked", func(s *v1alpha1.DataStoreStatus) {
		s.Datasets[0].Reason, s.Datasets[0].Message = "BrakeTripped", "75000 of 300000 rows would go"
	})
	c.fails("", []string{"approve", "platform/chat", "--yes"}, "nothing waits for approval", "--brake messages")
	c.fails("", []string{"approve", "platform/chat", "--yes", "--brake", "payments"}, "dataset payments")
	c.ok("", "approve", "platform/chat", "--yes", "--brake", "messages")
	if again := reload().Windows[0].Backlog; again == nil || !again.ApprovedAt.After(approved.Windows[0].Backlog.ApprovedAt.Time) {
		t.Errorf("the brake was not let go: %+v", again)
	}
	// Another server is asked for by its own name, and takes no backlog with it.
	setStatus(t, store, "restored", func(s *v1alpha1.DataStoreStatus) { s.Plan.Identity.Value = "9000" })
	c.fails("", []string{"approve", "platform/chat", "--yes", "--dataset", "messages"}, "not the database that was approved", "--database")
	c.ok("", "approve", "platform/chat", "--yes", "--database")
	if again := reload(); again.Identity.Value != "9000" || again.Windows[0].Backlog != nil || again.Seen == nil || again.Seen.Point.Value != "oid=16384,timeline=1,position=0/16B3748,transactions=740" {
		t.Errorf("the database was not approved, or a backlog with it: %+v", again)
	}
	c.ok("", "approve", "platform/chat", "--yes", "--dataset", "messages", "--any-tenant-not-below", "P7D")
	if w := reload().Windows[0]; w.AnyTenant == nil || *w.AnyTenant.NotBelow.Days != 7 || len(w.Tenants) != 0 {
		t.Errorf("not approved by its bound: %+v", w)
	}
	c.fails("", []string{"approve", "platform/chat", "--any-tenant-not-below", "30 days"}, "--any-tenant-not-below", "P90D")
	c.fails("", []string{"approve", "platform/chat", "--yes", "-o", "yaml"}, "give one of them")
}

// TestAnIdentifierThatWasNotApproved: a tenant with a shorter window is given another identifier after the approval.
func TestAnIdentifierThatWasNotApproved(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	measure := func() {
		t.Helper()
		if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(store), store); err != nil {
			t.Fatal(err)
		}
		setStatus(t, store, "measured", func(s *v1alpha1.DataStoreStatus) { s.Datasets = s.Datasets[:1] })
	}
	var policy v1alpha1.DataRetentionPolicy
	if err := testEnv.Client.Get(t.Context(), clientKey("", "published-promise"), &policy); err != nil {
		t.Fatal(err)
	}
	policy.Spec.Mode, policy.Spec.Rules = v1alpha1.PolicyEnforce, policy.Spec.Rules[:1]
	if err := testEnv.Client.Update(t.Context(), &policy); err != nil {
		t.Fatal(err)
	}
	// What was measured under other rules is nothing to approve by.
	c.fails("", []string{"approve", "platform/chat", "--yes"}, "has not been measured under its present plan")
	measure()
	c.ok("", "approve", "platform/chat", "--yes")
	if o := c.ok("", "plan", "platform/chat"); strings.Contains(o.out, "Beyond") || strings.Contains(o.out, "kept longer") {
		t.Fatalf("what was just approved waits:\n%s", o.out)
	}
	var acme v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), clientKey("", "acme"), &acme); err != nil {
		t.Fatal(err)
	}
	acme.Spec.ExternalIDs = append(acme.Spec.ExternalIDs, v1alpha1.ExternalID{Type: "AccountID", Value: "account-of-nobody"})
	if err := testEnv.Client.Update(t.Context(), &acme); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan-identifier.txt", c.ok("", "plan", "platform/chat").out)
	if o := c.ok("", "explain", "platform/chat"); !strings.Contains(o.out, "Records of acme: P30D; those under account-of-nobody are kept longer") {
		t.Errorf("explain does not say what is kept:\n%s", o.out)
	}
	measure()
	c.ok("", "approve", "platform/chat", "--yes")
	if o := c.ok("", "plan", "platform/chat"); strings.Contains(o.out, "Beyond") || strings.Contains(o.out, "kept longer") {
		t.Errorf("what was approved again waits:\n%s", o.out)
	}
}

func TestApproveNeedsAMeasurement(t *testing.T) {
	store := makeWorld(t)
	setStatus(t, store, "", func(s *v1alpha1.DataStoreStatus) { s.MeasuredAt = nil })
	newCaller(t).fails("", []string{"approve", "platform/chat", "--yes"}, "has not been measured")
}

func TestApproveRefusesASpecThatChangedMeanwhile(t *testing.T) {
	store := makeWorld(t)
	stale := store.DeepCopy()
	store.Spec.Brake.MaxPercentOfTable = 30
	if err := testEnv.Client.Update(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	ninety := int32(90)
	err := writeApproval(t.Context(), testEnv.Client, stale, v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "1"}, Database: "chat", Address: "db.example.org:5432", Tenancy: v1alpha1.TenancyShared,
		Windows: []v1alpha1.ApprovedWindow{{Dataset: "messages", PlaceDigest: "d", RetainFor: &v1alpha1.Period{Days: &ninety}}}})
	if err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Fatalf("err = %v", err)
	}
}

func TestApproveWarnsWhereGitOwnsTheStore(t *testing.T) {
	store := makeWorld(t)
	store.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "chat"}
	if err := testEnv.Client.Update(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if o := newCaller(t).ok("", "approve", "platform/chat", "--yes"); !strings.Contains(o.errOut, "Git owns this store") {
		t.Errorf("no warning:\n%s", o.errOut)
	}
}

func TestGrants(t *testing.T) {
	makeWorld(t)
	c := newCaller(t)
	live := c.ok("", "grants", "platform/chat").out
	if !strings.Contains(live, `GRANT DELETE, SELECT ("id", "paid_on", "account_id") ON "public"."payments" TO "lethe";`) {
		t.Errorf("no grants:\n%s", live)
	}
	c.kubeconfig = write(t, "none", "")
	if file := c.ok("", "grants", "-f", "testdata/store-world.yaml").out; file != live {
		t.Errorf("the manifest gives other grants (-live +file):\n%s", cmp.Diff(live, file))
	}
	c.fails("", []string{"grants"}, "name one store, or give its manifest")
	c.fails("", []string{"grants", "a/b", "-f", "testdata/store-world.yaml"}, "name one store, or give its manifest")
}

func TestVerify(t *testing.T) {
	store := makeWorld(t)
	for name, tc := range map[string]struct {
		change func(*v1alpha1.DataStoreStatus)
		says   string // empty: compliant
	}{
		"measured, and nothing is overdue": {func(*v1alpha1.DataStoreStatus) {}, ""},
		"never looked at":                  {func(s *v1alpha1.DataStoreStatus) { s.Conditions = nil }, "NotLookedAt"},
		"not compliant":                    {func(s *v1alpha1.DataStoreStatus) { s.Conditions[0].Status = metav1.ConditionFalse }, "message"},
		"unknown":                          {func(s *v1alpha1.DataStoreStatus) { s.Conditions[0].Status = metav1.ConditionUnknown }, "message"},
		"a condition of an earlier spec":   {func(s *v1alpha1.DataStoreStatus) { s.Conditions[0].ObservedGeneration-- }, "SpecChanged"},
		"no measurement":                   {func(s *v1alpha1.DataStoreStatus) { s.MeasuredAt = nil }, "NotMeasured"},
		"a measurement that is too old": {func(s *v1alpha1.DataStoreStatus) {
			old := metav1.NewTime(day0.Add(-121 * time.Minute))
			s.MeasuredAt = &old
		}, "Stale"},
		"compliant by its condition, and overdue": {func(s *v1alpha1.DataStoreStatus) { s.Overdue, s.OldestOverdueSeconds = 3, 200000 }, "Overdue"},
	} {
		t.Run(name, func(t *testing.T) {
			setStatus(t, store, "message", tc.change)
			o := newCaller(t).run("", "verify", "platform/chat")
			if (o.code == 0) != (tc.says == "") || !strings.Contains(o.out, tc.says) {
				t.Errorf("exit code %d:\n%s%s", o.code, o.out, o.errOut)
			}
			if strings.Contains(o.out, "FAILING") != (tc.says != "") {
				t.Errorf("the table says something else than the exit code:\n%s", o.out)
			}
		})
	}
	c := newCaller(t)
	setStatus(t, store, "message", func(*v1alpha1.DataStoreStatus) {})
	golden(t, "verify.txt", c.ok("", "verify", "-n", "platform").out)
	c.ok("", "verify", "-A", "-l", "data=chat")
	c.ok("", "verify", "--policy", "published-promise")
	c.fails("", []string{"verify", "-n", "default"}, "no DataStore was found in namespace default (-A looks at all namespaces)")
	c.fails("", []string{"verify", "-A", "-l", "data=other"}, "no DataStore was found")
	c.fails("", []string{"verify", "platform/chat", "--max-age", "5m"}, "1 of 1 stores are failing")
	c.fails("", []string{"verify", "platform/chat", "-A"}, "not both")
	c.fails("", []string{"verify", "--policy", "none"}, "--policy")
	c.as = "nobody"
	c.fails("", []string{"verify", "-A"}, "forbidden")
	c.as = ""

	// No manager runs here: what the status says is as old as these changes are new.
	t.Run("the rules have changed since", func(t *testing.T) {
		policy := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "published-promise"}}
		tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}}
		days := int32(30)
		for name, tc := range map[string]struct {
			object client.Object
			change func()
		}{
			"a window": {policy, func() { policy.Spec.Rules[0].RetainFor = &v1alpha1.Period{Days: &days} }},
			"a slack":  {policy, func() { policy.Spec.Rules[0].DeleteWithin = &v1alpha1.Slack{Hours: new(int32(2))} }},
			"the tenant's window": {tenant, func() {
				tenant.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: &v1alpha1.Period{Days: new(int32(7))}}}
			}},
		} {
			if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(tc.object), tc.object); err != nil {
				t.Fatal(err)
			}
			before := tc.object.DeepCopyObject().(client.Object)
			tc.change()
			if err := testEnv.Client.Patch(t.Context(), tc.object, client.MergeFrom(before)); err != nil {
				t.Fatal(err)
			}
			if o := c.run("", "verify", "platform/chat"); o.code == 0 || !strings.Contains(o.out, "PlanChanged") {
				t.Errorf("%s: exit code %d:\n%s", name, o.code, o.out)
			}
			after := tc.object.DeepCopyObject().(client.Object)
			before.SetResourceVersion(after.GetResourceVersion())
			if err := testEnv.Client.Patch(t.Context(), before, client.MergeFrom(after)); err != nil {
				t.Fatal(err)
			}
			c.ok("", "verify", "platform/chat")
		}
	})
}

func TestVersion(t *testing.T) {
	if o := newCaller(t).ok("", "version"); strings.TrimSpace(o.out) == "" {
		t.Error("no version")
	}
}
