package resources

import (
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
)

func testSettings() Settings {
	s := DefaultSettings()
	s.Image = "registry.example/lethe:v1"
	return s
}

func richTenant() *v1alpha1.Tenant {
	pods := int32(7)
	cpu := resource.MustParse("3")
	return &v1alpha1.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "11111111-1111-4111-8111-111111111111"},
		Spec: v1alpha1.TenantSpec{
			State:     v1alpha1.TenantActive,
			Quota:     &v1alpha1.TenantQuota{Pods: &pods, CPU: &cpu},
			Placement: &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"topology.kubernetes.io/region": "eu-central-1"}, Affinity: everyAffinity()},
			Egress: []v1alpha1.EgressRule{
				{CIDR: "10.20.1.2/16", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: 5432}}},
				{CIDR: "0.0.0.0/0", Ports: []v1alpha1.EgressPort{{Protocol: "UDP", Port: 123}}},
			},
			Access: []v1alpha1.TenantAccess{{Group: "acme:readers", Role: v1alpha1.AccessView}, {Group: "acme:makers", Role: v1alpha1.AccessOperate}},
		},
		Status: v1alpha1.TenantStatus{UIDRange: &v1alpha1.UIDRange{First: 1_000_003_000, Size: 1000}},
	}
}

func richBot() *v1alpha1.BotDeployment {
	class := "fast"
	probe := func(path string) *v1alpha1.Probe {
		return &v1alpha1.Probe{Path: path, Port: "health", PeriodSeconds: 7, FailureThreshold: 4}
	}
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "acme-bots", Name: "helper", UID: "22222222-2222-4222-8222-222222222222",
			Labels: map[string]string{"example.com/mine": "not copied"}},
		Spec: v1alpha1.BotDeploymentSpec{
			Image:    "registry.example/bot:v1",
			Command:  []string{"/bot", "$(HOME)"},
			Args:     []string{"--cost=$5"},
			Env:      []v1alpha1.EnvVar{{Name: "GREETING", Value: "$(USER)"}, {Name: "MODEL_KEY", Value: "a credential of this name wins"}},
			Ports:    []v1alpha1.ContainerPort{{Name: "health", ContainerPort: 8080}},
			Scratch:  []v1alpha1.BotScratch{{Path: "/cache", Size: resource.MustParse("2Gi")}, {Path: "/dev/shm", Medium: v1alpha1.ScratchMemory}},
			Files:    []v1alpha1.BotFile{{Path: "/etc/bot/config.yaml", Content: "token: ${credential:telegram}\nprice: $5\n"}},
			TimeZone: "Europe/Berlin", RestartedAt: metav1.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC),
			Helpers: []v1alpha1.BotHelper{{Name: "browser", Image: "registry.example/browser:v1", Args: []string{"--port=9222"},
				Env: []v1alpha1.EnvVar{{Name: "HOME", Value: "/cache"}}, Ports: []v1alpha1.ContainerPort{{Name: "devtools", ContainerPort: 9222}},
				Probes:      &v1alpha1.Probes{Liveness: &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "devtools", InitialDelaySeconds: 3}},
				Resources:   &v1alpha1.BotResources{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}},
				Credentials: []string{"model.key", "telegram"}, Mounts: []v1alpha1.HelperMount{v1alpha1.MountScratch, v1alpha1.MountStorage}}},
			Probes: &v1alpha1.Probes{Startup: probe("/startup"), Liveness: probe("/live"), Readiness: probe("/ready")},
			Resources: &v1alpha1.BotResources{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			},
			Channels: []v1alpha1.Channel{{Name: "main", Type: v1alpha1.ChannelTelegram,
				Telegram: &v1alpha1.TelegramChannel{Credential: "telegram", APIURL: "http://10.20.0.9:8081"}}},
			Credentials: []v1alpha1.Credential{
				{Name: "telegram", Sealed: "seal.v1.a.b.c.d.e", Delivery: v1alpha1.DeliveryFile},
				{Name: "model.key", Sealed: "seal.v1.a.b.c.d.e", Delivery: v1alpha1.DeliveryEnv, EnvName: "MODEL_KEY"},
			},
			Egress:  []v1alpha1.EgressRule{{CIDR: "0.0.0.0/0", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: 443}}}},
			Storage: &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), StorageClassName: &class, MountPath: "/data", ReclaimPolicy: "Delete"},
			Rollout: v1alpha1.BotRollout{TerminationGracePeriodSeconds: 45, ProgressDeadlineSeconds: 60},
		},
	}
}

func TestBotGolden(t *testing.T) {
	const secret = "helper-cred-0123456789"
	golden(t, "bot-statefulset", BotStatefulSet(testSettings(), richBot(), richTenant(), secret))
	golden(t, "bot-claim", BotClaim(richBot(), richTenant()))
	golden(t, "bot-serviceaccount", BotServiceAccount(richBot()))
	bot := richBot()
	bot.Spec.Channels[0].Telegram.APIURL = "" // Telegram's own addresses
	golden(t, "bot-networkpolicy", BotNetworkPolicy(testSettings(), bot, richTenant()))
}

func TestTenantGolden(t *testing.T) {
	const namespace = "acme-bots"
	tenant := richTenant()
	golden(t, "tenant-namespace", Namespace(tenant, namespace, true))
	golden(t, "tenant-rolebindings", anys(TenantRoleBindings(testSettings(), tenant, namespace))...)
	golden(t, "tenant-resourcequotas", anys(TenantResourceQuotas(tenant, namespace))...)
	golden(t, "tenant-limitrange", TenantLimitRange(tenant, namespace))
	golden(t, "tenant-networkpolicies", anys(TenantNetworkPolicies(testSettings(), tenant, namespace))...)
	golden(t, "tenant-cabundle", TenantCABundle(tenant, namespace, "-----BEGIN CERTIFICATE-----\n", "10.96.0.7\n"))
}

func anys[T any](objects []T) []any {
	var result []any
	for _, object := range objects {
		result = append(result, object)
	}
	return result
}

func TestEgressNeverOpensAPrivateAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		block := rapid.Custom(func(t *rapid.T) netip.Prefix {
			if rapid.Bool().Draw(t, "v6") {
				return netip.PrefixFrom(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))), rapid.IntRange(0, 128).Draw(t, "bits"))
			}
			return netip.PrefixFrom(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr"))), rapid.IntRange(0, 32).Draw(t, "bits"))
		}).Draw(t, "block")
		bot := richBot()
		bot.Spec.Channels = nil
		bot.Spec.Egress = []v1alpha1.EgressRule{{CIDR: block.String(), Ports: []v1alpha1.EgressPort{{Port: 443}}}}
		network := BotNetworkPolicy(testSettings(), bot, &v1alpha1.Tenant{})
		tenant := &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{Egress: bot.Spec.Egress}}
		platform := TenantNetworkPolicies(testSettings(), tenant, "n")[2]
		inside := block.Addr().AsSlice()
		for i := block.Bits(); i < len(inside)*8; i++ {
			inside[i/8] ^= byte(rapid.IntRange(0, 1).Draw(t, "bit")) << (7 - i%8)
		}
		address, _ := netip.AddrFromSlice(inside)
		addresses := []netip.Addr{block.Addr(), address}
		for _, row := range netblocks.Table() {
			addresses = append(addresses, row.Prefix.Addr())
		}
		for _, address := range addresses {
			// An ISATAP address lies under any prefix, so that no policy can name it; only netblocks.Never knows.
			if inner, ok := netblocks.Carried(address); ok && !liesIn(netip.PrefixFrom(address, 128), netblocks.ClosedToBots()) && netblocks.Private(inner) {
				continue
			}
			if netblocks.Private(address) && reaches(network, address) {
				t.Errorf("%s of a bot opens %s", block, address)
			}
			if netblocks.Never(address) && reaches(platform, address) {
				t.Errorf("%s of a Tenant opens %s", block, address)
			}
		}
	})
}

// TestEgressInsideAPrivateRangeOpensNothing: an object that was stored before a range came onto the list is not asked
// again by the API server.
func TestEgressInsideAPrivateRangeOpensNothing(t *testing.T) {
	for _, cidr := range []string{"10.0.0.0/8", "10.1.2.3/32", "10.1.0.0/16", "169.254.169.254/32", "198.18.0.1/32", "192.0.0.192/32", "240.1.0.0/16", "fd00:ec2::254/128", "fc00::/7",
		"2001::/32", "::8.8.8.8/128", "fec0::/10", "2001:db8::/32", "64:ff9b::808:808/128", "203.0.113.0/24"} {
		bot := richBot()
		bot.Spec.Channels = nil
		bot.Spec.Egress = []v1alpha1.EgressRule{{CIDR: cidr, Ports: []v1alpha1.EgressPort{{Port: 443}}}}
		if rules := BotNetworkPolicy(testSettings(), bot, &v1alpha1.Tenant{}).Spec.Egress; len(rules) != 0 {
			t.Errorf("%s opens %v", cidr, rules)
		}
	}
	for _, cidr := range []string{"169.254.169.254/32", "127.0.0.0/8", "2001::/32", "::8.8.8.8/128", "fe80::/64", "64:ff9b::a9fe:a9fe/128", "fd00:ec2::254/128", "2002:a9fe:a9fe::/48"} {
		tenant := &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{Egress: []v1alpha1.EgressRule{{CIDR: cidr, Ports: []v1alpha1.EgressPort{{Port: 80}}}}}}
		if rules := TenantNetworkPolicies(testSettings(), tenant, "n")[2].Spec.Egress; len(rules) != 0 {
			t.Errorf("a Tenant's %s opens %v", cidr, rules)
		}
	}
}

func reaches(policy *networkingv1.NetworkPolicy, address netip.Addr) bool {
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock == nil || !netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address) {
				continue
			}
			excepted := false
			for _, except := range peer.IPBlock.Except {
				excepted = excepted || netip.MustParsePrefix(except).Contains(address)
			}
			if !excepted {
				return true
			}
		}
	}
	return false
}

// TestRefusedRangesAreTheExceptions: the rules that the API server checks and the exceptions that a builder makes are
// one table.
func TestRefusedRangesAreTheExceptions(t *testing.T) {
	for file, want := range map[string][]netip.Prefix{
		"api/v1alpha1/botdeployment_types.go": netblocks.ClosedToBots(), "api/v1alpha1/tenant_types.go": netblocks.ClosedToAll(),
		"api/v1alpha1/datastore_types.go": netblocks.ClosedToAll(), "config/admission/fields.yaml": netblocks.ClosedToAll(),
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		rule := regexp.MustCompile(`\[('0[.]0[^\]]*')\]`).FindSubmatch(text)
		if rule == nil {
			t.Fatalf("%s: the rule was not found", file)
		}
		var refused []string
		for _, r := range want {
			refused = append(refused, "'"+r.String()+"'")
		}
		if diff := cmp.Diff(strings.Join(refused, ","), strings.ReplaceAll(string(rule[1]), " ", "")); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 253)
	for name, owner := range map[string]string{"short": "b", "253 characters": long, "with dots": "a.b.c", "cut at a dash": strings.Repeat("a", 36) + "-" + long[:100]} {
		t.Run(name, func(t *testing.T) {
			for _, child := range []string{BotName(owner), BotPodName(owner), SweeperName(owner), SweepName(owner), CatchUpName(owner, "0123456789abcdef")} {
				if problems := validation.IsDNS1123Label(child); len(problems) > 0 {
					t.Errorf("%s: %v", child, problems)
				}
			}
			for _, child := range []string{BotName(owner), SweepName(owner)} {
				if len(child) > 52 {
					t.Errorf("%s has %d characters: its revisions and Jobs would not fit into a label", child, len(child))
				}
			}
			for _, child := range []string{PlanName(owner, "0123456789abcdef"), CredentialsName(owner, "0123456789abcdef")} {
				if problems := validation.IsDNS1123Subdomain(child); len(problems) > 0 {
					t.Errorf("%s: %v", child, problems)
				}
			}
			if problems := validation.IsValidLabelValue(LabelValue(owner)); len(problems) > 0 {
				t.Errorf("%s: %v", LabelValue(owner), problems)
			}
		})
	}
	if a, b := BotName(long), BotName(long[:252]+"b"); a == b {
		t.Errorf("two bots share the name %s", a)
	}
	if a, b := BotName("a.b"), BotName("a-b"); a == b {
		t.Errorf("two bots share the name %s", a)
	}
	if got := BotName("helper"); got != "helper-bot" {
		t.Errorf("BotName(helper) = %s", got)
	}
}

// TestNoTwoOwnersShareAChild: whatever two bots or stores are called, none of their children have one name, and none
// of their labels one value, which the selectors of their policies rest on.
func TestNoTwoOwnersShareAChild(t *testing.T) {
	const hash, other = "0123456789abcdef", "fedcba9876543210"
	// By kind of object: the children of a bot, and of a store.
	kinds := map[string]struct{ bot, store func(string) []string }{
		"ServiceAccount, NetworkPolicy": {bot: func(n string) []string { return []string{BotName(n)} }, store: func(n string) []string { return []string{SweeperName(n)} }},
		"StatefulSet":                   {bot: func(n string) []string { return []string{BotName(n)} }},
		"CronJob":                       {store: func(n string) []string { return []string{SweepName(n)} }},
		"Job": {store: func(n string) []string {
			return []string{SweepName(n) + "-29384756", SweepName(n) + "-29384757", CatchUpName(n, hash), CatchUpName(n, other)}
		}},
		"Pod":              {bot: func(n string) []string { return []string{BotPodName(n)} }, store: func(n string) []string { return []string{SweepName(n) + "-29384756-abcde"} }},
		"ConfigMap":        {store: func(n string) []string { return []string{PlanName(n, hash), PlanName(n, other)} }},
		"Secret of a kind": {store: func(n string) []string { return []string{CredentialsName(n, hash), CredentialsName(n, other)} }},
		"label":            {bot: func(n string) []string { return []string{LabelValue(n)} }},
	}
	fixed := []string{ServiceAccountManager, ServiceAccountKeyserver, PolicyDefaultDeny, PolicyKeyserver, PolicyEgress, CABundleName, SealingKeyName, "default", "kube-root-ca.crt"}
	name := rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?`).Filter(func(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 })
	squat := rapid.Custom(func(t *rapid.T) string { // a name that is made to meet another one's child
		base := rapid.OneOf(name, rapid.SampledFrom([]string{"a", "s", "a.b", "a-b", strings.Repeat("a", 48), strings.Repeat("a", 63), strings.Repeat("a", 253), strings.Repeat("a.", 60) + "a"})).Draw(t, "base")
		for range rapid.IntRange(0, 2).Draw(t, "steps") {
			base = rapid.SampledFrom([]string{
				base, BotName(base), SweepName(base), SweeperName(base), PlanName(base, hash), CatchUpName(base, hash), CredentialsName(base, hash), strings.ToLower(strings.ReplaceAll(LabelValue(base), "_", "-")),
				strings.TrimSuffix(BotName(base), "-bot"), strings.TrimSuffix(SweepName(base), "-sweep"), strings.TrimSuffix(SweeperName(base), "-sweeper"),
				base + "-bot", base + "-sweep", base + "-sweep-29384756", base + "-0", base + "b", strings.ReplaceAll(base, ".", "-"),
			}).Draw(t, "step")
		}
		return base
	}).Filter(func(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 })
	rapid.Check(t, func(t *rapid.T) {
		a := squat.Draw(t, "a")
		b := rapid.OneOf(squat, rapid.Just(strings.TrimSuffix(BotName(a), "-bot")), rapid.Just(strings.TrimSuffix(SweepName(a), "-sweep")), rapid.Just(strings.ReplaceAll(a, ".", "-"))).Draw(t, "b")
		for kind, children := range kinds {
			seen := map[string]string{}
			for _, f := range fixed {
				seen[f] = "a fixed name"
			}
			add := func(owner string, of func(string) []string, names string) {
				if of == nil {
					return
				}
				for _, child := range of(names) {
					if before, taken := seen[child]; taken && kind != "label" {
						t.Errorf("%s %q belongs to %s and to %s", kind, child, before, owner)
					} else if taken && before != "a fixed name" {
						t.Errorf("%s %q belongs to %s and to %s", kind, child, before, owner)
					}
					seen[child] = owner
				}
			}
			add("bot "+a, children.bot, a)
			add("store "+a, children.store, a)
			if a != b {
				add("bot "+b, children.bot, b)
				add("store "+b, children.store, b)
			}
		}
	})
	// A name that is the cut form of another one: what the shorter hash once allowed.
	long := strings.Repeat("a", 70)
	if squatter := strings.ReplaceAll(LabelValue(long), "_", "-"); LabelValue(squatter) == LabelValue(long) {
		t.Errorf("%s and %s share a label", squatter, long)
	}
}

func TestSettings(t *testing.T) {
	var s Settings
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	s.AddFlags(flags)
	err := flags.Parse([]string{"--image=lethe:v1", "--image-pull-policy=Never", "--keyserver-url=https://k:1", "--namespace=n", "--dns-namespace=d", "--dns-pod-labels=a=b,c=d", "--pod-annotations=example.com/a, example.org/*"})
	want := Settings{Image: "lethe:v1", ImagePullPolicy: corev1.PullNever, KeyserverURL: "https://k:1", Namespace: "n", DNSNamespace: "d",
		DNSPodLabels: map[string]string{"a": "b", "c": "d"}, DNSPorts: []int32{53}, PodAnnotations: []string{"example.com/a", "example.org/*"}}
	if diff := cmp.Diff(want, s); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"*", "lethe.dev/credentials", "lethe.dev/*", "lethe*", "io*"} {
		var s Settings
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		s.AddFlags(flags)
		if err := flags.Parse([]string{"--pod-annotations=" + bad}); err == nil {
			t.Errorf("--pod-annotations=%s is taken: %v", bad, s.PodAnnotations)
		}
	}
	for flagName, bad := range map[string]Settings{
		"--image ":            {KeyserverURL: "https://k", Namespace: "n", DNSNamespace: "d", DNSPodLabels: s.DNSPodLabels, DNSPorts: s.DNSPorts},
		"--image-pull-policy": {Image: "i", ImagePullPolicy: "Sometimes", KeyserverURL: "https://k", Namespace: "n", DNSNamespace: "d", DNSPodLabels: s.DNSPodLabels, DNSPorts: s.DNSPorts},
		"--keyserver-url":     {Image: "i", KeyserverURL: "http://k", Namespace: "n", DNSNamespace: "d", DNSPodLabels: s.DNSPodLabels, DNSPorts: s.DNSPorts},
		"--dns-pod-labels":    {Image: "i", KeyserverURL: "https://k", Namespace: "n", DNSNamespace: "d", DNSPorts: s.DNSPorts},
		"--dns-ports":         {Image: "i", KeyserverURL: "https://k", Namespace: "n", DNSNamespace: "d", DNSPodLabels: s.DNSPodLabels},
	} {
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), flagName) {
			t.Errorf("%s: %v", flagName, err)
		}
	}
}

// TestPullPolicyIsHandedOn: what a bot says of pulling its image is what the kubelet is told; the threat model tells
// what that lets it run.
func TestPullPolicyIsHandedOn(t *testing.T) {
	for _, policy := range []corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever} {
		bot := richBot()
		bot.Spec.ImagePullPolicy = policy
		set := BotStatefulSet(testSettings(), bot, richTenant(), "set")
		if got := set.Spec.Template.Spec.Containers[0].ImagePullPolicy; got != policy {
			t.Errorf("%s is handed on as %s", policy, got)
		}
	}
}
