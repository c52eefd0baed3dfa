package resources

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
)

// telegramRanges are the blocks that Telegram publishes at https://core.telegram.org/resources/cidr.txt.
var telegramRanges = []string{
	"91.105.192.0/23", "91.108.4.0/22", "91.108.8.0/22", "91.108.12.0/22", "91.108.16.0/22", "91.108.20.0/22",
	"91.108.56.0/22", "149.154.160.0/20", "185.76.151.0/24",
	"2001:67c:4e8::/48", "2001:b28:f23c::/48", "2001:b28:f23d::/48", "2001:b28:f23f::/48", "2a0a:f280::/32",
}

// egressRules turn a spec's rules into a policy's, without the ranges in except: netblocks.ClosedToBots for what a
// bot opens by itself, netblocks.ClosedToAll for what its Tenant opens. Blocks that do not parse open nothing: the
// API server has refused them.
func egressRules(rules []v1alpha1.EgressRule, except []netip.Prefix) []networkingv1.NetworkPolicyEgressRule {
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
func liesIn(block netip.Prefix, ranges []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return netblocks.Within(block, r) })
}

// within returns the ranges that lie inside a block.
func within(block netip.Prefix, ranges []netip.Prefix) []string {
	var inside []string
	for _, r := range ranges {
		if r.Bits() > block.Bits() && netblocks.Within(r, block) {
			inside = append(inside, r.String())
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
