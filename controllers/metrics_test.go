package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestConditionsAreShownFromTheFirstMoment: no controller has seen these objects.
func TestConditionsAreShownFromTheFirstMoment(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: "support"}, Spec: v1alpha1.BotDeploymentSpec{Image: "registry.example/bot:1"}}
	b.Must(b.Env.Client.Create(t.Context(), bot))
	t.Cleanup(func() { b.Must(b.Env.Client.Delete(context.Background(), bot)) })
	all := operator.Gathered(t, controllers.ObjectCollector{Cache: b.Env.Client, Deleted: b.Deleted})
	for kind, name := range map[string]string{resources.KindTenant: b.Tenant, resources.KindBotDeployment: "support", resources.KindDataStore: "chat",
		resources.KindDataRetentionPolicy: p.Name} {
		for _, condition := range controllers.ConditionTypes[kind] {
			// What the API server itself puts into a new object's status is shown as it stands there.
			if got := valuesOf(all, kind, name, condition); !strings.Contains(got, "unknown=") || strings.Count(got, "=1") != 1 || strings.Count(got, "=0") != 2 {
				t.Errorf("%s %s of %s: %q", kind, condition, name, got)
			}
		}
	}
	if got := valuesOf(all, resources.KindDataStore, "chat", v1alpha1.ConditionCompliant); got != "false=0 true=0 unknown=1" {
		t.Errorf("Compliant of a store that nobody has looked at: %q", got)
	}
	if got, want := b.StoreSeries(), []string{"lethe_store_approval_pending chat / 0", "lethe_store_braked_datasets chat / 0", "lethe_store_measured chat / 0",
		"lethe_store_measured_timestamp_seconds chat / 0", "lethe_store_report_refused chat / 0"}; !slices.Equal(got, want) {
		t.Errorf("of a store that was never measured: %q", got)
	}
	b.Settle(s)
	all = operator.Gathered(t, controllers.ObjectCollector{Cache: b.Env.Client, Deleted: b.Deleted})
	for condition, want := range map[string]string{v1alpha1.ConditionCredentialsReady: "false=0 true=1 unknown=0", v1alpha1.ConditionStalled: "false=1 true=0 unknown=0"} {
		if got := valuesOf(all, resources.KindDataStore, "chat", condition); got != want {
			t.Errorf("%s after a pass: %q", condition, got)
		}
	}

	t.Run("a rule that waits is pending where a policy enforces", func(t *testing.T) {
		pending := func() string { return b.StoreSeries()[0] }
		if got := pending(); got != "lethe_store_approval_pending chat / 0" {
			t.Errorf("in Audit: %s", got)
		}
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Mode = v1alpha1.PolicyEnforce })
		b.Settle(s)
		if got := pending(); got != "lethe_store_approval_pending chat / 1" {
			t.Errorf("in Enforce: %s", got)
		}
	})
}

// manyTenants is a cache of nothing but Tenants.
type manyTenants struct {
	client.Reader
	tenants []v1alpha1.Tenant
}

func (m manyTenants) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if tenants, ok := list.(*v1alpha1.TenantList); ok {
		tenants.Items = m.tenants
	}
	return nil
}

// TestAScrapeTakesLittleMemory: a scrape has all series in memory at once, and there are two dozen for each Tenant.
func TestAScrapeTakesLittleMemory(t *testing.T) {
	cache := manyTenants{tenants: make([]v1alpha1.Tenant, 200)}
	for i := range cache.tenants {
		cache.tenants[i].Name = fmt.Sprint("tenant-", i)
	}
	series := make(chan prometheus.Metric, 10000)
	count := 0
	allocated := testing.AllocsPerRun(5, func() {
		controllers.ObjectCollector{Cache: cache}.Collect(series)
		count = len(series)
		for range count {
			<-series
		}
	})
	if count < 200*20 || allocated > float64(count) {
		t.Errorf("%d series take %g allocations, want less than one for each", count, allocated)
	}
}

// valuesOf a condition, by status.
func valuesOf(all []operator.Series, kind, name, condition string) string {
	var values []string
	for _, s := range all {
		if s.Name == "lethe_status_condition" && s.Labels["kind"] == kind && s.Labels["name"] == name && s.Labels["condition"] == condition {
			values = append(values, fmt.Sprintf("%s=%g", s.Labels["status"], s.Value))
		}
	}
	slices.Sort(values)
	return strings.Join(values, " ")
}

// TestConditionTypesAreThoseOfTheAPI: what a kind's schema says of its conditions is what is shown before there are
// any.
func TestConditionTypesAreThoseOfTheAPI(t *testing.T) {
	for kind, types := range controllers.ConditionTypes {
		file := map[string]string{resources.KindTenant: "tenants", resources.KindBotDeployment: "botdeployments", resources.KindDataStore: "datastores",
			resources.KindDataRetentionPolicy: "dataretentionpolicies"}[kind]
		content, err := os.ReadFile(filepath.Join("..", "config", "crd", "bases", "lethe.dev_"+file+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		description := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties["conditions"].Description
		said := strings.Split(strings.TrimSuffix(strings.TrimPrefix(strings.Join(strings.Fields(description), " "), "conditions are "), "."), ", ")
		if diff := cmp.Diff(slices.Sorted(slices.Values(types)), slices.Sorted(slices.Values(said))); diff != "" {
			t.Errorf("%s (-shown +said by the schema):\n%s", kind, diff)
		}
	}
}

// TestOnlyTheLeaderShowsTheFleet: two managers of one installation, as the chart runs them. What is said of objects
// is said once.
func TestOnlyTheLeaderShowsTheFleet(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Store("chat", nil)
	start := func() (registry *prometheus.Registry, elected <-chan struct{}, stop func()) {
		cfg := rest.CopyConfig(operator.TestEnv.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager))
		options, err := controllers.ManagerOptions(cfg, 2, nil)
		b.Must(err)
		options.Scheme, options.Metrics = b.Env.Scheme, metricsserver.Options{BindAddress: "0"}
		options.Controller.SkipNameValidation = new(true)
		options.LeaderElection, options.LeaderElectionID, options.LeaderElectionNamespace = true, "lethe-metrics", env.SystemNamespace
		options.LeaderElectionReleaseOnCancel = true
		mgr, err := ctrl.NewManager(cfg, options)
		b.Must(err)
		registry = prometheus.NewRegistry()
		ctx, cancel := context.WithCancel(context.Background())
		b.Must(controllers.Setup(ctx, mgr, controllers.Options{Settings: operator.TestSettings(), Keys: b.Keys, KeysNamespace: env.KeysNamespace, Metrics: registry}))
		ended := make(chan error, 1)
		go func() { ended <- mgr.Start(ctx) }()
		stopped := false
		stop = func() {
			if !stopped {
				stopped = true
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("the manager ended with: %v", err)
				}
			}
		}
		t.Cleanup(stop)
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			t.Fatal("the cache was not filled")
		}
		return registry, mgr.Elected(), stop
	}
	first, leads, stop := start()
	b.Until("the first leads", func() error { return closed(leads) })
	second, leadsToo, _ := start()
	if closed(leadsToo) == nil {
		t.Fatal("both lead")
	}
	if got := operator.Scraped(t, second); len(got) != 1 || got[0].String() != "lethe_manager_leader 0" {
		t.Errorf("the one that waits shows %q", got)
	}
	shows := func(registry *prometheus.Registry) error {
		all := operator.Scraped(t, registry)
		text := fmt.Sprint(all)
		for _, want := range []string{"lethe_manager_leader 1", "lethe_store_measured namespace=" + b.Namespace + " store=chat 0", "lethe_objects kind=DataStore state=progressing",
			"lethe_queue_depth controller=tenant", "lethe_orphans_left", "lethe_changes_paused_tenants"} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %s in %s", want, text)
			}
		}
		return nil
	}
	b.Until("the first shows the fleet", func() error { return shows(first) })
	stop()
	b.Until("the second leads", func() error { return closed(leadsToo) })
	b.Until("the second shows the fleet", func() error { return shows(second) })
}

func closed(c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	default:
		return errors.New("not yet")
	}
}

// TestAFailedReadIsAFailedScrape: half of an answer would look like objects that are gone.
func TestAFailedReadIsAFailedScrape(t *testing.T) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(controllers.ObjectCollector{Cache: brokenReader{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Gather(); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("gathered with %v", err)
	}
}

type brokenReader struct{ client.Reader }

func (brokenReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if _, policies := list.(*v1alpha1.DataRetentionPolicyList); policies {
		return errors.New("it cannot be read")
	}
	return nil
}

// TestLabelsAreNames: of a bot that is full of other people's words only its names are shown.
func TestLabelsAreNames(t *testing.T) {
	const canary = "canary-in-a-label"
	reader := fixedReader{bot: v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "support", Labels: map[string]string{"a": canary}},
		Spec:   v1alpha1.BotDeploymentSpec{Image: canary, Env: []v1alpha1.EnvVar{{Name: canary, Value: canary}}},
		Status: v1alpha1.BotDeploymentStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "False", Reason: canary, Message: canary}}}}}
	all := operator.Gathered(t, controllers.ObjectCollector{Cache: reader})
	if text := fmt.Sprint(all); strings.Contains(text, canary) || valuesOf(all, resources.KindBotDeployment, "support", "Ready") != "false=1 true=0 unknown=0" {
		t.Error(text)
	}
}

type fixedReader struct {
	client.Reader
	bot v1alpha1.BotDeployment
}

func (r fixedReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if bots, ok := list.(*v1alpha1.BotDeploymentList); ok {
		bots.Items = []v1alpha1.BotDeployment{r.bot}
	}
	return nil
}

// BenchmarkScrape is the cost of a scrape beside a thousand bots.
func BenchmarkScrape(b *testing.B) {
	reader := manyReader{}
	registry := prometheus.NewRegistry()
	if err := registry.Register(controllers.ObjectCollector{Cache: reader}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

type manyReader struct{ client.Reader }

func (manyReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if bots, ok := list.(*v1alpha1.BotDeploymentList); ok {
		for i := range 1000 {
			bots.Items = append(bots.Items, v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: fmt.Sprintf("bot-%d", i)}})
		}
	}
	return nil
}
