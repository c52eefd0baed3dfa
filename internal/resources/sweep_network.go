package resources

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
	"github.com/lethe-dev/lethe/internal/plan"
)

// SweeperNetworkPolicy says what a store's sweeps reach beyond what the Tenant opens to all its pods: the store's
// port, on the store's address where the spec names one, else on any public address, since a policy knows no names. A
// private address is opened by the Tenant's egress and by nothing else, the node itself and metadata services by
// nothing at all. Nothing reaches a sweep.
func SweeperNetworkPolicy(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: meta(store.Namespace, SweeperName(store.Name), StoreLabels(store.Name, ComponentSweeper),
			OwnerReference(store, KindDataStore)),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{
				v1alpha1.LabelComponent: ComponentSweeper,
				v1alpha1.LabelStore:     LabelValue(store.Name),
			}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			// By name they find the keyserver, and most stores.
			Egress: append(storeEgress(s, store, tenant), dnsEgress(s)),
		},
	}
}

func storeEgress(s Settings, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant) []networkingv1.NetworkPolicyEgressRule {
	target, _ := plan.TargetOf(&store.Spec) // of a type that is not known there is nothing to open
	var out []networkingv1.NetworkPolicyEgressRule
	for _, e := range target.Endpoints() {
		out = append(out, endpointEgress(s, e, tenant)...)
	}
	return out
}

func endpointEgress(s Settings, e plan.Endpoint, tenant *v1alpha1.Tenant) []networkingv1.NetworkPolicyEgressRule {
	port := e.Port
	opened := []v1alpha1.EgressPort{{Protocol: string(corev1.ProtocolTCP), Port: port}}
	address, err := netip.ParseAddr(e.Host)
	if err != nil { // a name
		return egressRules([]v1alpha1.EgressRule{{CIDR: "0.0.0.0/0", Ports: opened}, {CIDR: "::/0", Ports: opened}}, s.closed(netblocks.ClosedToBots()))
	}
	address = address.Unmap()
	if netblocks.Never(address) || netblocks.Private(address) && !tenantOpens(tenant, address, port) {
		return nil
	}
	return egressRules([]v1alpha1.EgressRule{{CIDR: netip.PrefixFrom(address, address.BitLen()).String(), Ports: opened}}, s.closed(netblocks.ClosedToAll()))
}

// tenantOpens says whether the Tenant's egress opens a TCP port of an address.
func tenantOpens(tenant *v1alpha1.Tenant, address netip.Addr, port int32) bool {
	for _, rule := range tenant.Spec.Egress {
		block, err := netip.ParsePrefix(rule.CIDR)
		if err != nil || !block.Contains(address) {
			continue
		}
		for _, p := range rule.Ports {
			if p.Port == port && p.Protocol != string(corev1.ProtocolUDP) {
				return true
			}
		}
	}
	return false
}
