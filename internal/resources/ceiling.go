package resources

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
)

// wanted is an element of a bot's spec that opens addresses.
type wanted struct {
	element string // its path in the BotDeployment
	rules   []v1alpha1.EgressRule
}

// wantedEgress is what a bot asks for: its channels that bring their own addresses, and spec.egress.
func wantedEgress(bot *v1alpha1.BotDeployment) []wanted {
	var all []wanted
	for _, channel := range bot.Spec.Channels {
		if channel.Telegram == nil || channel.Telegram.APIURL != "" {
			continue
		}
		w := wanted{element: fmt.Sprintf("spec.channels[%s]", channel.Name)}
		for _, block := range telegramRanges {
			w.rules = append(w.rules, v1alpha1.EgressRule{CIDR: block, Ports: []v1alpha1.EgressPort{{Protocol: string(corev1.ProtocolTCP), Port: 443}}})
		}
		all = append(all, w)
	}
	for i, rule := range bot.Spec.Egress {
		all = append(all, wanted{element: fmt.Sprintf("spec.egress[%d]", i), rules: []v1alpha1.EgressRule{rule}})
	}
	return all
}

// BeyondCeiling names the elements of a bot's spec that ask for more than its Tenant's egressCeiling lets through.
// What is inside is opened all the same.
func BeyondCeiling(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) []string {
	if tenant.Spec.EgressCeiling == nil {
		return nil
	}
	var beyond []string
	for _, w := range wantedEgress(bot) {
		if slices.ContainsFunc(w.rules, func(rule v1alpha1.EgressRule) bool { return !isUnder(tenant.Spec.EgressCeiling, rule) }) {
			beyond = append(beyond, w.element)
		}
	}
	return beyond
}

// underCeiling cuts rules down to what a ceiling lets through: each block with each block of the ceiling, of which
// one always holds the other or they have nothing in common, and of the ports those in its ranges.
func underCeiling(ceiling *v1alpha1.EgressCeiling, rules []v1alpha1.EgressRule) []v1alpha1.EgressRule {
	if ceiling == nil {
		return rules
	}
	var result []v1alpha1.EgressRule
	for _, rule := range rules {
		block, err := netip.ParsePrefix(rule.CIDR)
		if err != nil {
			continue
		}
		for _, limit := range ceiling.Allow {
			allowed, err := netip.ParsePrefix(limit.CIDR)
			if err != nil || !allowed.Masked().Overlaps(block.Masked()) {
				continue
			}
			narrower := block.Masked()
			if allowed.Bits() > narrower.Bits() {
				narrower = allowed.Masked()
			}
			cut := v1alpha1.EgressRule{CIDR: narrower.String()}
			for _, port := range rule.Ports {
				if allowsPort(limit, port) {
					cut.Ports = append(cut.Ports, port)
				}
			}
			same := func(r v1alpha1.EgressRule) bool { return r.CIDR == cut.CIDR && slices.Equal(r.Ports, cut.Ports) }
			if len(cut.Ports) > 0 && !slices.ContainsFunc(result, same) {
				result = append(result, cut)
			}
		}
	}
	return result
}

// isUnder says whether a ceiling lets all of a rule through. What no bot may open in any case counts as let through:
// it is not the ceiling that closes it.
func isUnder(ceiling *v1alpha1.EgressCeiling, rule v1alpha1.EgressRule) bool {
	block, err := netip.ParsePrefix(rule.CIDR)
	if err != nil {
		return true
	}
	for _, port := range rule.Ports {
		allowed := netblocks.ClosedToBots()
		for _, limit := range ceiling.Allow {
			if prefix, err := netip.ParsePrefix(limit.CIDR); err == nil && allowsPort(limit, port) {
				allowed = append(slices.Clip(allowed), prefix.Masked())
			}
		}
		if !covered(block.Masked(), allowed) {
			return false
		}
	}
	return true
}

// covered says whether the blocks together hold every address of one. It halves it only while a block lies inside.
func covered(block netip.Prefix, by []netip.Prefix) bool {
	var inside []netip.Prefix
	for _, b := range by {
		switch {
		case !b.Overlaps(block):
		case b.Bits() <= block.Bits():
			return true
		default:
			inside = append(inside, b)
		}
	}
	if len(inside) == 0 {
		return false
	}
	half := netip.PrefixFrom(block.Addr(), block.Bits()+1)
	upper := block.Addr().AsSlice()
	upper[block.Bits()/8] |= 0x80 >> (block.Bits() % 8)
	address, _ := netip.AddrFromSlice(upper)
	return covered(half, inside) && covered(netip.PrefixFrom(address, block.Bits()+1), inside)
}

func allowsPort(limit v1alpha1.EgressLimit, port v1alpha1.EgressPort) bool {
	return slices.ContainsFunc(limit.Ports, func(r v1alpha1.EgressPortRange) bool {
		last := max(r.EndPort, r.Port)
		return protocolOf(r.Protocol) == protocolOf(port.Protocol) && r.Port <= port.Port && port.Port <= last
	})
}

func protocolOf(text string) string {
	if text == "" {
		return string(corev1.ProtocolTCP)
	}
	return text
}

// HasDNS says whether a bot may look up names: one that reaches nothing has nothing to look up, and DNS is a way out.
func HasDNS(s Settings, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) bool {
	return len(botEgress(s, bot, tenant)) > 0 || len(egressRules(tenant.Spec.Egress, s.closed(netblocks.ClosedToAll()))) > 0
}

// botEgress is what a bot opens by itself: under its Tenant's ceiling, and without any private address, nor one that
// this cluster closes.
func botEgress(s Settings, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) []networkingv1.NetworkPolicyEgressRule {
	var rules []networkingv1.NetworkPolicyEgressRule
	for _, w := range wantedEgress(bot) {
		rules = append(rules, joined(egressRules(underCeiling(tenant.Spec.EgressCeiling, w.rules), s.closed(netblocks.ClosedToBots())))...)
	}
	return rules
}

// joined puts the addresses of neighbouring rules with the same ports into one rule.
func joined(rules []networkingv1.NetworkPolicyEgressRule) []networkingv1.NetworkPolicyEgressRule {
	var result []networkingv1.NetworkPolicyEgressRule
	for _, rule := range rules {
		if last := len(result) - 1; last >= 0 && samePorts(result[last].Ports, rule.Ports) {
			result[last].To = append(result[last].To, rule.To...)
			continue
		}
		result = append(result, rule)
	}
	return result
}

func samePorts(a, b []networkingv1.NetworkPolicyPort) bool {
	return slices.EqualFunc(a, b, func(x, y networkingv1.NetworkPolicyPort) bool {
		return *x.Protocol == *y.Protocol && *x.Port == *y.Port
	})
}
