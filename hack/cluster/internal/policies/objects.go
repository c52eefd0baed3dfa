package policies

import (
	"cmp"
	"net/netip"
	"slices"
)

// Metadata is what the rules need of every object.
type Metadata struct {
	Namespace, Name, UID string
	Labels               map[string]string
}

// Namespace is a Kubernetes Namespace.
type Namespace struct{ Metadata Metadata }

// Pod is a Kubernetes Pod.
type Pod struct {
	Metadata Metadata
	Spec     struct {
		HostNetwork bool
		Containers  []struct {
			Ports []struct {
				Name, Protocol string
				ContainerPort  int
			}
		}
	}
	Status struct{ Phase, PodIP string }
}

// Policy is a Kubernetes NetworkPolicy.
type Policy struct {
	Metadata Metadata
	Spec     struct {
		PodSelector     Selector
		PolicyTypes     []string
		Ingress, Egress []Rule
	}
}

// Rule allows something in one direction.
type Rule struct {
	From, To []Peer
	Ports    []Port
}

// Peer is another side of connections.
type Peer struct {
	PodSelector, NamespaceSelector *Selector
	IPBlock                        *IPBlock
}

// IPBlock is addresses.
type IPBlock struct {
	CIDR   string
	Except []string
}

// Port is one or a range; Port is a number or the name of a container's port.
type Port struct {
	Protocol string
	Port     any
	EndPort  int
}

// Selector is a Kubernetes LabelSelector.
type Selector struct {
	MatchLabels      map[string]string
	MatchExpressions []struct {
		Key, Operator string
		Values        []string
	}
}

func (s Selector) matches(labels map[string]string) bool {
	for key, value := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		value, has := labels[e.Key]
		in := has && slices.Contains(e.Values, value)
		ok := map[string]bool{"In": in, "NotIn": !in, "Exists": has, "DoesNotExist": !has}[e.Operator]
		if !ok {
			return false
		}
	}
	return true
}

// address of a pod that is on the pod network and has not ended, or the zero one.
func (p Pod) address() netip.Addr {
	address, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil || !address.Is4() || p.Spec.HostNetwork || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return netip.Addr{}
	}
	return address
}

// port of a name and protocol, 0 when the pod has none.
func (p Pod) port(name, protocol string) int {
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && cmp.Or(port.Protocol, "TCP") == cmp.Or(protocol, "TCP") {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// sortedPods are those that have an address.
func (s State) sortedPods() []Pod {
	var out []Pod
	for _, pod := range s.Pods {
		if pod.address().IsValid() {
			out = append(out, pod)
		}
	}
	slices.SortFunc(out, func(a, b Pod) int { return cmp.Compare(a.Metadata.UID, b.Metadata.UID) })
	return out
}

func (s State) sortedPolicies() []Policy {
	var out []Policy
	for _, policy := range s.Policies {
		out = append(out, policy)
	}
	slices.SortFunc(out, func(a, b Policy) int { return cmp.Compare(a.Metadata.UID, b.Metadata.UID) })
	return out
}
