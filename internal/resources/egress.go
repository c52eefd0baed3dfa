package resources

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// privateRanges can be opened by a Tenant's egress only. The rule on spec.egress of BotDeployments refuses blocks that lie
// in one of them; blocks that contain one get it as an exception here. Beside the usual private, local and multicast
// blocks they hold carrier-grade NAT, the block for benchmarks and the reserved one (which some clouds give to pods and to
// their metadata service), metadata addresses outside any private block, and the forms of IPv6 that carry an IPv4 address inside. The IPv4-mapped form (::ffff:0:0/96) is
// not here: Kubernetes refuses it in a policy, since no packet carries it.
var privateRanges = []string{
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"168.63.129.16/32", "192.0.0.0/24", "198.18.0.0/15", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4",
	"fc00::/7", "fe80::/10", "::1/128", "ff00::/8", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
}

// telegramRanges are the blocks that Telegram publishes at https://core.telegram.org/resources/cidr.txt.
var telegramRanges = []string{
	"91.105.192.0/23", "91.108.4.0/22", "91.108.8.0/22", "91.108.12.0/22", "91.108.16.0/22", "91.108.20.0/22",
	"91.108.56.0/22", "149.154.160.0/20", "185.76.151.0/24",
	"2001:67c:4e8::/48", "2001:b28:f23c::/48", "2001:b28:f23d::/48", "2001:b28:f23f::/48", "2a0a:f280::/32",
}

// telegramEgress opens Telegram's published addresses on port 443.
func telegramEgress() networkingv1.NetworkPolicyEgressRule {
	rule := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{policyPort(corev1.ProtocolTCP, 443)}}
	for _, block := range telegramRanges {
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: block}})
	}
	return rule
}

// egressRules turn a spec's rules into a policy's, without the ranges in except. Blocks that do not parse open nothing: the
// API server has refused them.
func egressRules(rules []v1alpha1.EgressRule, except []string) []networkingv1.NetworkPolicyEgressRule {
	var result []networkingv1.NetworkPolicyEgressRule
	for _, rule := range rules {
		block, err := netip.ParsePrefix(rule.CIDR)
		if err != nil {
			continue
		}
		block = block.Masked()
		if liesIn(block, except) {
			continue // the API server refuses it too, but not in an object that is older than its rule
		}
		var ports []networkingv1.NetworkPolicyPort
		for _, port := range rule.Ports {
			ports = append(ports, policyPort(corev1.Protocol(port.Protocol), port.Port))
		}
		if len(ports) == 0 {
			continue // no ports means every port in a NetworkPolicy
		}
		result = append(result, networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: block.String(), Except: within(block, except)}}},
			Ports: ports,
		})
	}
	return result
}

// liesIn says whether all of a block is in one of the ranges.
func liesIn(block netip.Prefix, ranges []string) bool {
	for _, text := range ranges {
		if r := netip.MustParsePrefix(text); r.Bits() <= block.Bits() && r.Contains(block.Addr()) {
			return true
		}
	}
	return false
}

// within returns the ranges that lie inside a block. Addresses of IPv4 inside IPv6 cannot be named in a policy, and need not
// be: what is sent to one leaves as IPv4, under the rules for that.
func within(block netip.Prefix, ranges []string) []string {
	var inside []string
	for _, text := range ranges {
		r := netip.MustParsePrefix(text)
		if r.Addr().Is4In6() {
			continue
		}
		if r.Addr().BitLen() == block.Addr().BitLen() && r.Bits() > block.Bits() && block.Contains(r.Addr()) {
			inside = append(inside, text)
		}
	}
	return inside
}

func policyPort(protocol corev1.Protocol, port int32) networkingv1.NetworkPolicyPort {
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	number := intstr.FromInt32(port)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &number}
}
