package resources

import (
	"flag"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/podspec"
)

func placedTenant() *v1alpha1.Tenant {
	seconds := int64(60)
	tenant := richTenant()
	tenant.Spec.Placement = &v1alpha1.TenantPlacement{
		NodeSelector: map[string]string{"pool": "bots"},
		Tolerations: []v1alpha1.Toleration{
			{Key: "example.com/pool", Value: "bots", Effect: corev1.TaintEffectNoSchedule},
			{Key: "example.com/any", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds},
			{}, // the API server refuses it
		},
		RuntimeClassName: "gvisor", PriorityClassName: "bots",
		TopologySpread: []v1alpha1.TopologySpread{{TopologyKey: "topology.kubernetes.io/zone"},
			{TopologyKey: "kubernetes.io/hostname", MaxSkew: 3, WhenUnsatisfiable: corev1.DoNotSchedule}},
		Affinity: everyAffinity(),
	}
	return tenant
}

// TestPlacement: what a Tenant says of where its pods run is on bots and on sweeps, but for the priority and the
// spread, which are bots' alone.
func TestPlacement(t *testing.T) {
	seconds := int64(60)
	bot := BotPodTemplate(testSettings(), richBot(), placedTenant(), "set").Spec
	sweep := SweepPodTemplate(testSettings(), makeSweepStore("db.example"), placedTenant(), sweepHash).Spec
	for name, pod := range map[string]corev1.PodSpec{"bot": bot, "sweep": sweep} {
		want := []corev1.Toleration{{Key: "example.com/pool", Operator: corev1.TolerationOpEqual, Value: "bots", Effect: corev1.TaintEffectNoSchedule},
			{Key: "example.com/any", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds}}
		if diff := cmp.Diff(want, pod.Tolerations); diff != "" {
			t.Errorf("%s: tolerations (-want +got):\n%s", name, diff)
		}
		if pod.NodeSelector["pool"] != "bots" || pod.RuntimeClassName == nil || *pod.RuntimeClassName != "gvisor" {
			t.Errorf("%s: nodeSelector %v, runtime class %v", name, pod.NodeSelector, pod.RuntimeClassName)
		}
	}
	if bot.PriorityClassName != "bots" || sweep.PriorityClassName != PriorityClassSweeper {
		t.Errorf("priority of the bot %q, of the sweep %q: no quota counts Lethe's own class", bot.PriorityClassName, sweep.PriorityClassName)
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{v1alpha1.LabelComponent: ComponentBot, v1alpha1.LabelTenant: "acme"}}
	want := []corev1.TopologySpreadConstraint{
		{MaxSkew: 1, TopologyKey: "topology.kubernetes.io/zone", WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: selector},
		{MaxSkew: 3, TopologyKey: "kubernetes.io/hostname", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector},
	}
	if diff := cmp.Diff(want, bot.TopologySpreadConstraints); diff != "" || len(sweep.TopologySpreadConstraints) > 0 {
		t.Errorf("spread of the bot (-want +got):\n%s; of the sweep: %v", diff, sweep.TopologySpreadConstraints)
	}
	labels := BotPodTemplate(testSettings(), richBot(), placedTenant(), "set").Labels
	for key, value := range selector.MatchLabels {
		if labels[key] != value {
			t.Errorf("the spread selects by %s=%s, which the bot's own pod does not have", key, value)
		}
	}
}

// TestPlacedPodsAreRecognised: what admission does to a pod that is placed, and what a RuntimeClass adds, is no other
// pod; another place is.
func TestPlacedPodsAreRecognised(t *testing.T) {
	want := BotPodTemplate(testSettings(), richBot(), placedTenant(), "set")
	live := func(change func(*corev1.PodSpec)) *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: *want.ObjectMeta.DeepCopy(), Spec: *want.Spec.DeepCopy()}
		change(&pod.Spec)
		return pod
	}
	for name, change := range map[string]func(*corev1.PodSpec){
		"as it is": func(*corev1.PodSpec) {},
		"taints of nodes that end": func(p *corev1.PodSpec) {
			p.Tolerations = append(p.Tolerations, corev1.Toleration{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
		},
		"the nodes of the RuntimeClass":   func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{"pool": "bots", "sandbox": "gvisor"} },
		"PodNodeSelector of a namespace":  func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{"pool": "bots", "region": "eu"} },
		"the value of the priority class": func(p *corev1.PodSpec) { value := int32(7); p.Priority = &value },
		"another secret for its image":    func(p *corev1.PodSpec) { p.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "by-the-account"}} },
	} {
		if err := podspec.Match(want, live(change), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for field, change := range map[string]func(*corev1.PodSpec){
		"spec.nodeSelector":              func(p *corev1.PodSpec) { p.NodeSelector = nil },
		"spec.tolerations":               func(p *corev1.PodSpec) { p.Tolerations = nil },
		"spec.runtimeClassName":          func(p *corev1.PodSpec) { p.RuntimeClassName = nil },
		"spec.priorityClassName":         func(p *corev1.PodSpec) { p.PriorityClassName = "" },
		"spec.topologySpreadConstraints": func(p *corev1.PodSpec) { p.TopologySpreadConstraints = nil },
		"spec.affinity":                  func(p *corev1.PodSpec) { p.Affinity = nil },
		"spec.affinity.nodeAffinity":     func(p *corev1.PodSpec) { p.Affinity.NodeAffinity = nil },
		"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution": func(p *corev1.PodSpec) {
			p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0].Values[0] = "us"
		},
		"spec.affinity.podAffinity": func(p *corev1.PodSpec) {
			p.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].Namespaces = []string{"another"}
		},
		"spec.affinity.podAntiAffinity": func(p *corev1.PodSpec) {
			p.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.NamespaceSelector = &metav1.LabelSelector{}
		},
	} {
		if err := podspec.Match(want, live(change), nil); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s taken away: %v", field, err)
		}
	}
}

// TestPullSecrets: bots and sweeps are pulled with what the bot, the Tenant and the installation name, each once, the
// bot's first; the accounts name none.
func TestPullSecrets(t *testing.T) {
	s, tenant, bot, store := testSettings(), richTenant(), richBot(), makeSweepStore("db.example")
	if pod := BotPodTemplate(s, bot, tenant, "set").Spec; len(pod.ImagePullSecrets) > 0 {
		t.Errorf("nobody names one: %v", pod.ImagePullSecrets)
	}
	s.ImagePullSecrets = []string{"lethe", "shared"}
	tenant.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "acme"}, {Name: "shared"}}
	bot.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "mine"}, {Name: "acme"}}
	names := func(references []corev1.LocalObjectReference) string {
		var names []string
		for _, r := range references {
			names = append(names, r.Name)
		}
		return strings.Join(names, " ")
	}
	template := BotPodTemplate(s, bot, tenant, "set")
	if got := names(template.Spec.ImagePullSecrets); got != "mine acme shared lethe" {
		t.Errorf("the bot is pulled with %q", got)
	}
	if got := names(SweepPodTemplate(s, store, tenant, sweepHash).Spec.ImagePullSecrets); got != "acme shared lethe" {
		t.Errorf("the sweep is pulled with %q", got)
	}
	if accounts := len(BotServiceAccount(bot).ImagePullSecrets) + len(SweeperServiceAccount(store).ImagePullSecrets); accounts > 0 {
		t.Errorf("the accounts name %d Secrets", accounts)
	}
	// A name is all that Lethe knows of one: it is mounted nowhere and in no variable.
	for _, volume := range template.Spec.Volumes {
		if volume.Secret != nil {
			t.Errorf("volume %s mounts a Secret", volume.Name)
		}
	}
}

func parseSettings(arguments ...string) (Settings, error) {
	var s Settings
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	s.AddFlags(flags)
	err := flags.Parse(append([]string{"--image=lethe:v1"}, arguments...))
	return s, err
}

// TestSettingsOfOtherClusters reads the flags that the chart renders, and refuses what opens more than DNS or lets
// bots choose their walls.
func TestSettingsOfOtherClusters(t *testing.T) {
	s, err := parseSettings("--dns-namespace=openshift-dns", "--dns-ports=5353,53", "--dns-blocks=169.254.20.10, 10.96.0.10/32,fd00:1::a/128",
		"--image-pull-secrets=regcred,other", "--bot-annotations=cluster-autoscaler.kubernetes.io/safe-to-evict,example.com/*")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.DNSPorts, []int32{53, 5353}) || !slices.Equal(s.ImagePullSecrets, []string{"regcred", "other"}) ||
		!slices.Equal(s.DNSBlocks, []netip.Prefix{netip.MustParsePrefix("10.96.0.10/32"), netip.MustParsePrefix("169.254.20.10/32"), netip.MustParsePrefix("fd00:1::a/128")}) {
		t.Errorf("read as %+v", s)
	}
	if s, _ := parseSettings(); !slices.Equal(s.DNSPorts, []int32{53}) {
		t.Errorf("without flags DNS is on %v", s.DNSPorts)
	}
	for _, bad := range []string{
		"--dns-ports=", "--dns-ports=0", "--dns-ports=65536", "--dns-ports=x", "--dns-ports=443", "--dns-ports=53,6443", "--dns-ports=80", "--dns-ports=10250",
		"--dns-blocks=x", "--dns-blocks=10.0.0.0/8", "--dns-blocks=0.0.0.0/0", "--dns-blocks=fd00::/8", "--dns-blocks=::/0",
		"--image-pull-secrets=A", "--image-pull-secrets=a/b", "--image-pull-secrets=a,b,c,d,e,f,g,h,i",
		"--bot-annotations=*", "--bot-annotations=lethe.dev/x", "--bot-annotations=lethe.dev/*", "--bot-annotations=k8s.v1.cni.cncf.io/*", "--bot-annotations=k8s.v1.cni.cncf.io/networks",
		"--bot-annotations=cdi.k8s.io/gpu", "--bot-annotations=container.apparmor.security.beta.kubernetes.io/bot", "--bot-annotations=io.kubernetes.cri-o.userns-mode", "--bot-annotations=io.kubernetes.cri-o*",
		"--pod-annotations=io.kubernetes.cri-o*",
	} {
		if _, err := parseSettings(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestDNSOfOtherClusters: policies of bots and sweeps open the DNS pods and blocks on DNS' ports, and on nothing else.
func TestDNSOfOtherClusters(t *testing.T) {
	s, err := parseSettings("--dns-namespace=openshift-dns", "--dns-pod-labels=dns=default", "--dns-ports=5353", "--dns-blocks=169.254.20.10")
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, port := corev1.ProtocolUDP, corev1.ProtocolTCP, intstr.FromInt32(5353)
	want := networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{
			{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "openshift-dns"}},
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"dns": "default"}}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "169.254.20.10/32"}},
		},
		Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}, {Protocol: &tcp, Port: &port}},
	}
	bot := BotNetworkPolicy(s, richBot(), richTenant()).Spec.Egress
	sweep := SweeperNetworkPolicy(s, makeSweepStore("db.example"), richTenant()).Spec.Egress
	for name, rules := range map[string][]networkingv1.NetworkPolicyEgressRule{"bot": bot, "sweep": sweep} {
		if diff := cmp.Diff(want, rules[len(rules)-1]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for _, rule := range rules[:len(rules)-1] {
			for _, to := range rule.To {
				if to.IPBlock != nil && strings.HasPrefix(to.IPBlock.CIDR, "169.254.") {
					t.Errorf("%s: %s is opened on %v too", name, to.IPBlock.CIDR, rule.Ports)
				}
			}
		}
	}
}

// TestDNSWall compares what pods ask with what the settings open, for the clusters of docs/platforms.md.
func TestDNSWall(t *testing.T) {
	service := func(namespace, name, ip string, selector map[string]string) corev1.Service {
		return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Selector: selector}}
	}
	slice := func(service string, port int32, addresses ...string) discoveryv1.EndpointSlice {
		name, metricsName, metrics := "dns", "metrics", int32(9153)
		return discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}},
			Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port}, {Name: &metricsName, Port: &metrics}}}
	}
	kubeDNS := map[string]string{"k8s-app": "kube-dns"}
	openshiftDNS := map[string]string{"dns.operator.openshift.io/daemonset-dns": "default"}
	for name, tc := range map[string]struct {
		flags      []string
		resolvConf string
		services   []corev1.Service
		slices     []discoveryv1.EndpointSlice
		want       string // part of the wall; empty for none
	}{
		"CoreDNS as everywhere": {resolvConf: "search a\nnameserver 10.96.0.10\noptions ndots:5\n", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", kubeDNS)},
			slices: []discoveryv1.EndpointSlice{slice("kube-dns", 53, "10.244.0.2")}},
		"CoreDNS on 5353": {resolvConf: "nameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", kubeDNS)},
			slices: []discoveryv1.EndpointSlice{slice("kube-dns", 5353, "10.244.0.2")}, want: "kube-system/kube-dns), which is answered on port 5353, and dns.ports opens 53"},
		"OpenShift by the defaults": {resolvConf: "nameserver 172.30.0.10", want: "172.30.0.10, which is no Service of namespace kube-system (dns.namespace) and in none of dns.blocks"},
		"OpenShift": {flags: []string{"--dns-namespace=openshift-dns", "--dns-pod-labels=dns.operator.openshift.io/daemonset-dns=default", "--dns-ports=5353"}, resolvConf: "nameserver 172.30.0.10",
			services: []corev1.Service{service("openshift-dns", "dns-default", "172.30.0.10", openshiftDNS)}, slices: []discoveryv1.EndpointSlice{slice("dns-default", 5353, "10.128.0.4")}},
		"other labels": {resolvConf: "nameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "coredns", "10.96.0.10", map[string]string{"app": "coredns"})},
			slices: []discoveryv1.EndpointSlice{slice("coredns", 53, "10.244.0.2")}, want: "whose pods are those with app=coredns, and dns.podLabels opens those with k8s-app=kube-dns"},
		"a cache on the node by the defaults": {resolvConf: "nameserver 169.254.20.10", want: "169.254.20.10, which is no Service"},
		"a cache on the node":                 {flags: []string{"--dns-blocks=169.254.20.10"}, resolvConf: "nameserver 169.254.20.10"},
		"a cache at the Service's own address": {flags: []string{"--dns-blocks=10.96.0.10"}, resolvConf: "nameserver 10.96.0.10",
			services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", kubeDNS)}, slices: []discoveryv1.EndpointSlice{slice("kube-dns", 5353, "10.244.0.2")}},
		"a block on another port": {flags: []string{"--dns-blocks=169.254.20.10", "--dns-ports=5353"}, resolvConf: "nameserver 169.254.20.10", want: "on port 53, and dns.ports opens 5353"},
		"a Service without pods": {resolvConf: "nameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", nil)},
			slices: []discoveryv1.EndpointSlice{slice("kube-dns", 53, "192.0.2.7")}, want: "answered by 192.0.2.7, in none of dns.blocks"},
		"a Service without pods, in a block": {flags: []string{"--dns-blocks=192.0.2.0/24"}, resolvConf: "nameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", nil)},
			slices: []discoveryv1.EndpointSlice{slice("kube-dns", 53, "192.0.2.7")}},
		"nothing answers at the moment": {resolvConf: "nameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", map[string]string{"x": "y"})}},
		"one of two is in reach": {resolvConf: "nameserver 169.254.20.10\nnameserver 10.96.0.10", services: []corev1.Service{service("kube-system", "kube-dns", "10.96.0.10", kubeDNS)},
			slices: []discoveryv1.EndpointSlice{slice("kube-dns", 53, "10.244.0.2")}},
		"no nameserver": {resolvConf: "# nothing\n"},
	} {
		s, err := parseSettings(tc.flags...)
		if err != nil {
			t.Fatal(err)
		}
		got := DNSWall(s, Nameservers(tc.resolvConf), tc.services, tc.slices)
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if got != "" && !strings.Contains(got, "docs/platforms.md") {
			t.Errorf("%s: no way on: %q", name, got)
		}
	}
}

// TestBotAnnotations: a bot gets the annotations that the installation allows, and no other, and never one in the
// place of Lethe's.
func TestBotAnnotations(t *testing.T) {
	s, err := parseSettings("--bot-annotations=cluster-autoscaler.kubernetes.io/safe-to-evict,example.com/*")
	if err != nil {
		t.Fatal(err)
	}
	bot := richBot()
	bot.Spec.PodAnnotations = map[string]string{
		"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "example.com/team": "support", "example.com/": "x", "example.org/team": "x",
		v1alpha1.AnnotationCredentials: "evil", v1alpha1.AnnotationOwnerUID: "evil", "k8s.v1.cni.cncf.io/networks": "host",
	}
	plain := BotPodTemplate(s, richBot(), richTenant(), "set").Annotations
	got := BotPodTemplate(s, bot, richTenant(), "set").Annotations
	plain["cluster-autoscaler.kubernetes.io/safe-to-evict"], plain["example.com/team"] = "false", "support"
	if diff := cmp.Diff(plain, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	want := []string{"example.com/", "example.org/team", "k8s.v1.cni.cncf.io/networks", v1alpha1.AnnotationCredentials, v1alpha1.AnnotationOwnerUID}
	slices.Sort(want)
	if refused := s.RefusedAnnotations(bot); !slices.Equal(refused, want) {
		t.Errorf("refused are %v, want %v", refused, want)
	}
}
