// Command tenants measures what a store of very many tenants costs: the size of its plan, and the processor time that
// compiling and writing one takes; then, against a real API server with the real manager and keyserver, what a
// renewal of its sweep's lease costs and what a customer does that comes meanwhile. It ends with lines for machines:
//
//	plan_bytes= compile_ms= plans_per_newcomer=   of the plan alone, which is a pure function of the objects
//	lease_api_calls= lease_read_bytes=            of a renewal on average, to and from the API server, at the pace of a
//	                                              sweeper
//	lease_calls_per_minute=                       of all that the keyserver asks while a sweep goes on, with the watches
//	lease_cpu_ratio=                              processor time of a renewal, against the same with ten tenants
//	watch_calls_per_minute=                       what the keyserver follows tenants by, for all sweeps together
//	onboarding_plan_writes=                       plans written because a customer came that has no window of its own
//	onboarding_stopped_sweeps=                    sweeps that ended for it
//	keyserver_rss_mib= manager_rss_mib=           the most memory that each ever had
//	took_s=
//
// Usage: tenants [-n N] [-datasets N] [-walled N] [-pure]
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

func main() {
	tenants := flag.Int("n", 10_000, "tenants, a tenth of which have a window of their own")
	datasets := flag.Int("datasets", 100, "datasets of the store")
	rounds := flag.Int("rounds", 10, "how often to compile")
	renewals := flag.Int("renewals", 24, "how often to renew a lease, at a sweeper's pace: about eight seconds each")
	walled := flag.Int("walled", 100, "tenants for which the manager makes a namespace with its walls; the others are known, and have none")
	pure := flag.Bool("pure", false, "only what needs no API server")
	flag.Parse()
	if *tenants < few || *renewals < 1 || *walled < 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(os.Stdout, *tenants, *datasets, *rounds)
	if err == nil && !*pure {
		err = onServer(ctx, os.Stdout, func(most int) plan.Input { return world(*tenants, min(*datasets, most)) }, *renewals, *walled)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tenants:", err)
		stop()
		os.Exit(1)
	}
}

func run(out io.Writer, tenants, datasets, rounds int) error {
	in := world(tenants, datasets)
	r := plan.Compile(in)
	b, err := plan.Encode(r.Plan)
	if err != nil {
		return err
	}
	if !r.Plan.Deletes() || len(r.AwaitingApproval) > 0 {
		return fmt.Errorf("the store should delete, and %d windows wait for approval", len(r.AwaitingApproval))
	}
	own := 0
	for _, c := range r.Plan.Classes {
		own += len(c.Tenants)
	}
	before, err := processor()
	if err != nil {
		return err
	}
	for range rounds {
		if _, err := plan.Hash(plan.Compile(in).Plan); err != nil {
			return err
		}
	}
	after, err := processor()
	if err != nil {
		return err
	}
	// A customer that comes and has no window of its own.
	in.Tenants = append(in.Tenants, tenant(tenants, "newcomer"))
	later, err := plan.Hash(plan.Compile(in).Plan)
	if err != nil {
		return err
	}
	changed := 0
	if later != plan.HashBytes(b) {
		changed = 1
	}
	fmt.Fprintf(out, "%d tenants, %d of them with a window of their own, %d datasets; compiled, written and hashed %d times\n", r.KnownTenants, own, datasets, rounds)
	fmt.Fprintf(out, "plan_bytes=%d\ncompile_ms=%.1f\nplans_per_newcomer=%d\n", len(b), float64(after-before)/float64(rounds)/float64(time.Millisecond), changed)
	return nil
}

// processor time of this process.
func processor() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// classes of data that the store holds, each in as many tables.
const classes = 10

// world is a Shared store whose rules enforce and are approved, also for any tenant down to a week.
func world(tenants, datasets int) plan.Input {
	period := func(days int) *v1alpha1.Period {
		n := int32(days)
		return &v1alpha1.Period{Days: &n}
	}
	class := func(i int) v1alpha1.DataClass { return v1alpha1.DataClass(fmt.Sprintf("Class%02d", i%classes)) }
	store := &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "platform", Name: "chat", UID: "0b9c8f5e-bench", Labels: map[string]string{"data": "chat"}},
		Spec: v1alpha1.DataStoreSpec{
			Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyShared, TenantIDType: "AccountID",
			Postgres:     &v1alpha1.PostgresStore{Host: "db.platform.svc", Port: 5432, Database: "chat", Username: "lethe"},
			Brake:        v1alpha1.Brake{MaxPercentOfTable: 20},
			ApprovedPlan: &v1alpha1.ApprovedPlan{Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300000000000000000"}, Database: "chat", Address: "db.platform.svc:5432", Tenancy: v1alpha1.TenancyShared},
		},
	}
	policy := v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "privacy"}, Spec: v1alpha1.DataRetentionPolicySpec{
		StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"data": "chat"}}, Mode: v1alpha1.PolicyEnforce}}
	for i := range classes {
		policy.Spec.Rules = append(policy.Spec.Rules, v1alpha1.RetentionRule{Name: fmt.Sprintf("class-%02d", i), DataClass: class(i), RetainFor: period(400)})
	}
	for i := range datasets {
		table := v1alpha1.Table{
			Schema: "public", Name: v1alpha1.Identifier(fmt.Sprintf("records_%03d", i)), Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}, TenantColumn: "account_id",
		}
		name := fmt.Sprintf("records-%03d", i)
		store.Spec.Datasets = append(store.Spec.Datasets, v1alpha1.Dataset{Name: name, DataClass: class(i), Table: table})
		store.Spec.ApprovedPlan.Windows = append(store.Spec.ApprovedPlan.Windows, v1alpha1.ApprovedWindow{
			Dataset: name, PlaceDigest: plan.PlaceOf(&v1alpha1.Dataset{Table: table}).Digest(), RetainFor: period(400), AnyTenant: &v1alpha1.ApprovedBound{NotBelow: period(7)}})
	}
	in := plan.Input{Store: store, StoreTenant: &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "platform"}},
		Policies: []v1alpha1.DataRetentionPolicy{policy}, Now: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)}
	for i := range tenants {
		t := tenant(i, "customer")
		// One in ten has windows of its own, in one, two or three classes, out of the twelve that the product offers.
		for n := range i % 10 / 9 * (1 + i/10%3) {
			t.Spec.RetentionOverrides = append(t.Spec.RetentionOverrides, v1alpha1.RetentionOverride{DataClass: class(i/10 + n), RetainFor: period(30 * (1 + i/10%12))})
		}
		in.Tenants = append(in.Tenants, t)
	}
	return in
}

// tenant with an identifier that looks like a UUID.
func tenant(i int, kind string) v1alpha1.Tenant {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s-%d", kind, i))
	id := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	return v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", kind, i)},
		Spec: v1alpha1.TenantSpec{ExternalIDs: []v1alpha1.ExternalID{{Type: "AccountID", Value: id}}}}
}
