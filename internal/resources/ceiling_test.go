package resources

import (
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
)

// blocks draws blocks that often have something to do with each other.
func blocks(t *rapid.T, label string) netip.Prefix {
	if rapid.IntRange(0, 4).Draw(t, label+" v6") == 0 {
		address := [16]byte{0x20, 0x01, 0x04, byte(rapid.IntRange(0, 3).Draw(t, label))}
		return netip.PrefixFrom(netip.AddrFrom16(address), rapid.IntRange(0, 48).Draw(t, label+" bits"))
	}
	address := [4]byte{byte(rapid.SampledFrom([]int{8, 9, 10, 149}).Draw(t, label)), byte(rapid.IntRange(0, 3).Draw(t, label)), byte(rapid.IntRange(0, 255).Draw(t, label)), 0}
	return netip.PrefixFrom(netip.AddrFrom4(address), rapid.IntRange(0, 32).Draw(t, label+" bits"))
}

// TestBotsNeverReachBeyondTheCeiling: whatever is asked, what is opened is what was asked for, under the ceiling, and
// never private; and what is named as cut is cut.
func TestBotsNeverReachBeyondTheCeiling(t *testing.T) {
	ports := rapid.Int32Range(1, 6)
	rapid.Check(t, func(t *rapid.T) {
		tenant := &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{EgressCeiling: &v1alpha1.EgressCeiling{}}}
		for range rapid.IntRange(0, 4).Draw(t, "limits") {
			first := ports.Draw(t, "first")
			limit := v1alpha1.EgressLimit{CIDR: blocks(t, "limit").String(), Ports: []v1alpha1.EgressPortRange{{Port: first}}}
			if rapid.Bool().Draw(t, "range") {
				limit.Ports[0].EndPort = first + rapid.Int32Range(0, 3).Draw(t, "more")
			}
			tenant.Spec.EgressCeiling.Allow = append(tenant.Spec.EgressCeiling.Allow, limit)
		}
		bot := &v1alpha1.BotDeployment{}
		for range rapid.IntRange(1, 3).Draw(t, "rules") {
			bot.Spec.Egress = append(bot.Spec.Egress, v1alpha1.EgressRule{CIDR: blocks(t, "rule").String(), Ports: []v1alpha1.EgressPort{{Port: ports.Draw(t, "port")}}})
		}
		policy := BotNetworkPolicy(testSettings(), bot, tenant)
		beyond := BeyondCeiling(bot, tenant)
		for range 20 {
			address, port := blocks(t, "address").Addr(), ports.Draw(t, "to port")
			asked, allowed := false, false
			for i, rule := range bot.Spec.Egress {
				wants := netip.MustParsePrefix(rule.CIDR).Masked().Contains(address) && rule.Ports[0].Port == port
				asked = asked || wants
				if wants && !netblocks.Private(address) && !lets(tenant, address, port) && !slices.Contains(beyond, wantedEgress(bot)[i].element) {
					t.Fatalf("%s is cut and not named: %v", rule.CIDR, beyond)
				}
			}
			allowed = lets(tenant, address, port)
			want := asked && allowed && !liesIn(netip.PrefixFrom(address, address.BitLen()), netblocks.ClosedToBots())
			if got := reachesPort(policy, address, port); got != want {
				t.Fatalf("%s port %d is reached: %t; asked %t, under the ceiling %t", address, port, got, asked, allowed)
			}
		}
	})
}

func lets(tenant *v1alpha1.Tenant, address netip.Addr, port int32) bool {
	return slices.ContainsFunc(tenant.Spec.EgressCeiling.Allow, func(l v1alpha1.EgressLimit) bool {
		return netip.MustParsePrefix(l.CIDR).Masked().Contains(address) && l.Ports[0].Port <= port && port <= max(l.Ports[0].EndPort, l.Ports[0].Port)
	})
}

func reachesPort(policy *networkingv1.NetworkPolicy, address netip.Addr, port int32) bool {
	only := policy.DeepCopy()
	only.Spec.Egress = slices.DeleteFunc(only.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
		return !slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port })
	})
	return reaches(only, address)
}

func TestBeyondCeiling(t *testing.T) {
	limit := func(cidr string, from, to int32) v1alpha1.EgressLimit {
		return v1alpha1.EgressLimit{CIDR: cidr, Ports: []v1alpha1.EgressPortRange{{Port: from, EndPort: to}}}
	}
	telegram := func(b *v1alpha1.BotDeployment) {
		b.Spec.Channels = []v1alpha1.Channel{{Name: "main", Type: v1alpha1.ChannelTelegram, Telegram: &v1alpha1.TelegramChannel{}}}
	}
	opens := func(rules ...string) func(*v1alpha1.BotDeployment) {
		return func(b *v1alpha1.BotDeployment) {
			for _, cidr := range rules {
				b.Spec.Egress = append(b.Spec.Egress, v1alpha1.EgressRule{CIDR: cidr, Ports: []v1alpha1.EgressPort{{Port: 443}}})
			}
		}
	}
	for name, tc := range map[string]struct {
		ceiling *v1alpha1.EgressCeiling
		bot     func(*v1alpha1.BotDeployment)
		beyond  []string
		opened  int
	}{
		"no ceiling":                     {nil, opens("0.0.0.0/0"), nil, 1},
		"nothing may be opened":          {&v1alpha1.EgressCeiling{}, opens("9.0.0.0/8"), []string{"spec.egress[0]"}, 0},
		"nothing is opened":              {&v1alpha1.EgressCeiling{}, func(*v1alpha1.BotDeployment) {}, nil, 0},
		"a channel beyond":               {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("9.0.0.0/8", 443, 443)}}, telegram, []string{"spec.channels[main]"}, 0},
		"a channel in part":              {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("149.154.160.0/20", 443, 443)}}, telegram, []string{"spec.channels[main]"}, 1},
		"a channel within":               {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("0.0.0.0/0", 1, 65535), limit("::/0", 443, 443)}}, telegram, nil, 1},
		"the second rule":                {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("9.0.0.0/8", 443, 443)}}, opens("9.1.0.0/16", "8.0.0.0/8"), []string{"spec.egress[1]"}, 1},
		"a wider block":                  {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("9.0.0.0/8", 443, 443)}}, opens("8.0.0.0/7"), []string{"spec.egress[0]"}, 1},
		"two halves":                     {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("8.0.0.0/8", 443, 443), limit("9.0.0.0/8", 443, 443)}}, opens("8.0.0.0/7"), nil, 1},
		"a port beyond the range":        {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("9.0.0.0/8", 1, 442)}}, opens("9.0.0.0/8"), []string{"spec.egress[0]"}, 0},
		"no private address by a way in": {&v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{limit("10.0.0.0/8", 1, 65535)}}, opens("10.0.0.0/8"), nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bot, tenant := &v1alpha1.BotDeployment{}, &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{EgressCeiling: tc.ceiling}}
			tc.bot(bot)
			if got := BeyondCeiling(bot, tenant); !slices.Equal(got, tc.beyond) {
				t.Errorf("names %v, want %v", got, tc.beyond)
			}
			if got := botEgress(Settings{}, bot, tenant); len(got) != tc.opened {
				t.Errorf("opens %v", got)
			}
			if dns := opensDNS(BotNetworkPolicy(testSettings(), bot, tenant)); dns != (tc.opened > 0) {
				t.Errorf("DNS is open: %t", dns)
			}
		})
	}
}

// TestNoDNSWithoutEgress: a name that is looked up leaves the cluster, and what stands in it with it.
func TestNoDNSWithoutEgress(t *testing.T) {
	bot, tenant := &v1alpha1.BotDeployment{}, &v1alpha1.Tenant{}
	if policy := BotNetworkPolicy(testSettings(), bot, tenant); len(policy.Spec.Egress) != 0 {
		t.Errorf("a bot without egress reaches %v", policy.Spec.Egress)
	}
	for _, policy := range TenantNetworkPolicies(testSettings(), tenant, "n") {
		if opensDNS(policy) {
			t.Errorf("%s opens DNS for all", policy.Name)
		}
	}
	tenant.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "10.1.0.0/16", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
	if !opensDNS(BotNetworkPolicy(testSettings(), bot, tenant)) {
		t.Error("a bot that its Tenant opens something for has no DNS")
	}
	if !opensDNS(SweeperNetworkPolicy(testSettings(), makeSweepStore("db.example"), tenant)) {
		t.Error("a sweep has no DNS")
	}
}

func opensDNS(policy *networkingv1.NetworkPolicy) bool {
	return slices.ContainsFunc(policy.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == 53 })
	})
}

// TestClosedAddressesAreNobodysToOpen: what a cluster closes, its API server first, neither a bot nor its Tenant nor
// a sweep opens, whether it asks for that very address or for a block around it.
func TestClosedAddressesAreNobodysToOpen(t *testing.T) {
	s := DefaultSettings()
	if err := s.setClosedAddresses("8.8.4.7, 2a00:1::/64,10.1.2.3/32"); err != nil {
		t.Fatal(err)
	}
	ports := []v1alpha1.EgressPort{{Port: 443}}
	var asks []v1alpha1.EgressRule
	for _, cidr := range []string{"8.8.4.7/32", "8.8.4.0/24", "0.0.0.0/0", "2a00:1::5/128", "2a00:1::/48", "10.1.2.0/24", "10.1.2.3/32"} {
		asks = append(asks, v1alpha1.EgressRule{CIDR: cidr, Ports: ports})
	}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}, Spec: v1alpha1.BotDeploymentSpec{Egress: asks}}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: v1alpha1.TenantSpec{Egress: asks}}
	policies := append(TenantNetworkPolicies(s, tenant, "a"), BotNetworkPolicy(s, bot, &v1alpha1.Tenant{}))
	for _, host := range []string{"db.example.com", "8.8.4.7", "10.1.2.3"} {
		store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Spec: v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{Host: host, Port: 443}}}
		policies = append(policies, SweeperNetworkPolicy(s, store, tenant))
	}
	opened := 0
	for _, policy := range policies {
		for _, rule := range policy.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock == nil {
					continue
				}
				opened++
				block := netip.MustParsePrefix(peer.IPBlock.CIDR)
				for _, closed := range []string{"8.8.4.7", "2a00:1::5", "10.1.2.3"} {
					address := netip.MustParseAddr(closed)
					excepted := slices.ContainsFunc(peer.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(address) })
					if block.Contains(address) && !excepted {
						t.Errorf("policy %s opens %s by %s", policy.Name, closed, block)
					}
				}
			}
		}
	}
	if opened < 8 {
		t.Errorf("only %d blocks are opened at all", opened)
	}
	for _, wrong := range []string{"0.0.0.0/0", "x", "8.8.4.7/33"} {
		if err := s.setClosedAddresses(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
