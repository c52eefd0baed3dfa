package resources

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

var sweepHash = strings.Repeat("0123456789abcdef", 4)

func makeSweepSettings() Settings {
	s := DefaultSettings()
	s.Image = "example.test/lethe:v1"
	return s
}

func makeSweepStore(host string) *v1alpha1.DataStore {
	return &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "chat", UID: "5f2c0f5e-0000-4000-8000-000000000001"},
		Spec: v1alpha1.DataStoreSpec{
			Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
			Postgres: &v1alpha1.PostgresStore{Host: host, Port: 5432, Database: "chat", Username: "lethe"},
		},
	}
}

func makeSweepTenant(egress ...v1alpha1.EgressRule) *v1alpha1.Tenant {
	return &v1alpha1.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec: v1alpha1.TenantSpec{
			Placement: &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"topology.kubernetes.io/region": "eu-central-1"}, Affinity: everyAffinity()},
			Egress:    egress,
		},
	}
}

func TestSweepGoldens(t *testing.T) {
	s, store, tenant := makeSweepSettings(), makeSweepStore("db.example"), makeSweepTenant()
	golden(t, "sweep-serviceaccount", SweeperServiceAccount(store))
	golden(t, "sweep-networkpolicy", SweeperNetworkPolicy(testSettings(), store, tenant))
	golden(t, "sweep-plan", PlanConfigMap(store, sweepHash, []byte(`{"format":1}`)))
	golden(t, "sweep-cronjob", SweepCronJob(s, store, tenant, sweepHash))
	golden(t, "sweep-catchup", CatchUpJob(s, store, tenant, sweepHash, CatchUpName(store.Name, "feedfacefeed")))
}

func TestStoreEgress(t *testing.T) {
	open := func(cidr, protocol string, port int32) v1alpha1.EgressRule {
		return v1alpha1.EgressRule{CIDR: cidr, Ports: []v1alpha1.EgressPort{{Protocol: protocol, Port: port}}}
	}
	tests := map[string]struct {
		host   string
		egress []v1alpha1.EgressRule
		want   []string // cidr, and how many exceptions
	}{
		"a public address is opened alone":                       {host: "140.82.112.7", want: []string{"140.82.112.7/32 0"}},
		"a public address of IPv6, too":                          {host: "2a00:1450::7", want: []string{"2a00:1450::7/128 0"}},
		"a private address is not opened by a store":             {host: "10.1.2.3"},
		"nor the address of a cloud's metadata":                  {host: "169.254.169.254"},
		"nor where the tenant opens it":                          {host: "169.254.169.254", egress: []v1alpha1.EgressRule{open("169.254.0.0/16", "TCP", 5432)}},
		"nor one that hides in IPv6":                             {host: "::ffff:10.1.2.3"},
		"a private address that the tenant opens":                {host: "10.1.2.3", egress: []v1alpha1.EgressRule{open("10.1.0.0/16", "TCP", 5432)}, want: []string{"10.1.2.3/32 0"}},
		"another port of it":                                     {host: "10.1.2.3", egress: []v1alpha1.EgressRule{open("10.1.0.0/16", "TCP", 443)}},
		"another protocol of it":                                 {host: "10.1.2.3", egress: []v1alpha1.EgressRule{open("10.1.0.0/16", "UDP", 5432)}},
		"a name is any public address, and never a private one":  {host: "db.example", want: []string{"0.0.0.0/0 16", "::/0 7"}},
		"a name with the tenant's egress: that has its own rule": {host: "db.example", egress: []v1alpha1.EgressRule{open("10.1.0.0/16", "TCP", 5432)}, want: []string{"0.0.0.0/0 16", "::/0 7"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			policy := SweeperNetworkPolicy(testSettings(), makeSweepStore(tc.host), makeSweepTenant(tc.egress...))
			var got []string
			for _, rule := range policy.Spec.Egress[:len(policy.Spec.Egress)-1] {
				if len(rule.Ports) != 1 || rule.Ports[0].Port.IntVal != 5432 || *rule.Ports[0].Protocol != corev1.ProtocolTCP {
					t.Errorf("ports %v, want the store's alone", rule.Ports)
				}
				for _, to := range rule.To {
					got = append(got, fmt.Sprintf("%s %d", to.IPBlock.CIDR, len(to.IPBlock.Except)))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestASweepEndsBeforeItsDeadlineAndItsPodIsKept(t *testing.T) {
	job := SweepCronJob(makeSweepSettings(), makeSweepStore("db.example"), makeSweepTenant(), sweepHash).Spec.JobTemplate.Spec
	args := job.Template.Spec.Containers[0].Args
	i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "--time-budget=") })
	if i < 0 {
		t.Fatalf("no --time-budget in %v", args)
	}
	budget, err := time.ParseDuration(strings.TrimPrefix(args[i], "--time-budget="))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Duration(*job.ActiveDeadlineSeconds) * time.Second
	if deadline < budget+5*time.Minute {
		t.Errorf("deadline %s, budget %s: the deadline deletes the pod and its report", deadline, budget)
	}
	if deadline > SweepInterval {
		t.Errorf("deadline %s is later than the next sweep", deadline)
	}
	if *job.TTLSecondsAfterFinished < 600 {
		t.Errorf("a finished Job is kept for %d s: too short for a manager that restarts to read its report", *job.TTLSecondsAfterFinished)
	}
}

func TestSweepsAreSpreadOverTheHour(t *testing.T) {
	const stores = 6000
	perMinute := map[int]int{}
	for i := range stores {
		store := makeSweepStore("db.example")
		store.UID = types.UID(fmt.Sprintf("5f2c0f5e-0000-4000-8000-%012d", i))
		perMinute[SweepMinute(store)]++
	}
	for minute, n := range perMinute {
		if n > 2*stores/60 {
			t.Errorf("minute %d has %d sweeps, the mean is %d", minute, n, stores/60)
		}
	}
	if len(perMinute) != 60 {
		t.Errorf("%d minutes are used, want 60", len(perMinute))
	}
}

func TestNamesOfALongStoreFit(t *testing.T) {
	store := makeSweepStore("db.example")
	store.Name = strings.Repeat("a", 253)
	cron := SweepCronJob(makeSweepSettings(), store, makeSweepTenant(), sweepHash)
	job := CatchUpJob(makeSweepSettings(), store, makeSweepTenant(), sweepHash, CatchUpName(store.Name, sweepHash))
	if len(cron.Name) > 52 || len(job.Name) > 63 {
		t.Errorf("CronJob name has %d characters (52 fit), Job name %d (63 fit)", len(cron.Name), len(job.Name))
	}
	for key, value := range cron.Spec.JobTemplate.Spec.Template.Labels {
		if len(value) > 63 {
			t.Errorf("label %s has %d characters", key, len(value))
		}
	}
}

func TestSweepPodIsRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
	template := SweepPodTemplate(makeSweepSettings(), makeSweepStore("db.example"), makeSweepTenant(), sweepHash)
	if got := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec)); !got.Allowed {
		t.Errorf("refused: %s", got.ForbiddenDetail())
	}
	template.Spec.HostNetwork = true
	if got := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec)); got.Allowed {
		t.Error("a pod in the node's network is allowed too: the check checks nothing")
	}
}

// A sweep of a store whose type is not known gets no way anywhere but to the keyserver and the DNS, as it had no store.
func TestAnUnknownTypeOpensNothing(t *testing.T) {
	known := SweeperNetworkPolicy(makeSweepSettings(), makeSweepStore("db.example"), makeSweepTenant())
	for name, change := range map[string]func(*v1alpha1.DataStoreSpec){
		"unknown":                     func(s *v1alpha1.DataStoreSpec) { s.Type, s.Postgres = "Punchcards", nil },
		"another's member":            func(s *v1alpha1.DataStoreSpec) { s.Type = "Punchcards" },
		"PostgreSQL without a member": func(s *v1alpha1.DataStoreSpec) { s.Postgres = nil },
	} {
		store := makeSweepStore("db.example")
		change(&store.Spec)
		policy := SweeperNetworkPolicy(makeSweepSettings(), store, makeSweepTenant())
		if len(policy.Spec.Egress) >= len(known.Spec.Egress) {
			t.Errorf("%s: %d rules, for a known one %d", name, len(policy.Spec.Egress), len(known.Spec.Egress))
		}
		for _, rule := range policy.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock != nil {
					t.Errorf("%s: opens %s", name, peer.IPBlock.CIDR)
				}
			}
		}
	}
}
