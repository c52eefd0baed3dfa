package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// table is the one that Script replaces.
const table = "inet lethe_policies"

// State is everything that the rules are made of, by UID.
type State struct {
	Pods       map[string]Pod
	Namespaces map[string]Namespace
	Policies   map[string]Policy
}

// Script is the rules as nft reads them; it replaces those from before as one transaction. A pod that no policy of a
// direction selects is open in that direction; any other is open to what one of its policies allows. What is not allowed
// is refused at once instead of being dropped: whoever looks for the reason need not wait for a timeout.
//
// Source of the rules: the documentation of networking.k8s.io/v1 NetworkPolicy. Answers to connections that were let
// through are let through, and so is what the node itself sends to its pods. There is IPv4 only, as in the cluster: every link
// has an IPv6 address of its own accord, by which pods would reach the node past all walls, so that is closed.
func Script(s State) string {
	var jumps, chains strings.Builder
	for i, pod := range s.sortedPods() {
		var egress, ingress []Policy
		for _, policy := range s.sortedPolicies() {
			if policy.Metadata.Namespace != pod.Metadata.Namespace || !policy.Spec.PodSelector.matches(pod.Metadata.Labels) {
				continue
			}
			if slices.Contains(policy.Spec.PolicyTypes, "Egress") {
				egress = append(egress, policy)
			}
			if slices.Contains(policy.Spec.PolicyTypes, "Ingress") {
				ingress = append(ingress, policy)
			}
		}
		what := pod.Metadata.Namespace + "/" + pod.Metadata.Name
		if len(egress) > 0 {
			fmt.Fprintf(&jumps, "\t\tip saddr %s jump from_%d\n", pod.address(), i)
			fmt.Fprintf(&chains, "\tchain from_%d { # %s\n%s\t\treject with icmpx type admin-prohibited\n\t}\n", i, what, s.allowed("daddr", egress, pod))
		}
		if len(ingress) > 0 {
			fmt.Fprintf(&jumps, "\t\tip daddr %s jump to_%d\n", pod.address(), i)
			fmt.Fprintf(&chains, "\tchain to_%d { # %s\n%s\t\treject with icmpx type admin-prohibited\n\t}\n", i, what, s.allowed("saddr", ingress, pod))
		}
	}
	hooks := ""
	for _, hook := range []string{"forward", "input"} {
		hooks += fmt.Sprintf("\tchain %s {\n\t\ttype filter hook %s priority 10; policy accept;\n\t\tct state established,related accept\n"+
			"\t\tmeta nfproto ipv6 iifname != \"lo\" drop\n%s\t}\n", hook, hook, jumps.String())
	}
	return fmt.Sprintf("table %s {}\ndelete table %s\ntable %s {\n%s%s}\n", table, table, table, chains.String(), hooks)
}

// allowed are the rules that let a packet go on, for one pod and one direction: daddr looks at where packets go, saddr at
// where they come from.
func (s State) allowed(side string, policies []Policy, pod Pod) string {
	var out strings.Builder
	for _, policy := range policies {
		rules := policy.Spec.Egress
		if side == "saddr" {
			rules = policy.Spec.Ingress
		}
		for _, rule := range rules {
			peers := rule.To
			if side == "saddr" {
				peers = rule.From
			}
			for _, peer := range s.peers(side, peers, policy.Metadata.Namespace) {
				// The ports of a connection are those of the pod that it goes to.
				target := &pod
				if side == "daddr" {
					target = peer.pod
				}
				for _, port := range ports(rule.Ports, target) {
					out.WriteString("\t\t" + strings.Join(slices.DeleteFunc([]string{peer.match, port, "return"}, func(s string) bool { return s == "" }), " ") + "\n")
				}
			}
		}
	}
	return out.String()
}

// peer is a match of addresses, empty for all, and the pod when it is one.
type peer struct {
	match string
	pod   *Pod
}

func (s State) peers(side string, peers []Peer, namespace string) []peer {
	if len(peers) == 0 {
		return []peer{{}}
	}
	var out []peer
	for _, p := range peers {
		if p.IPBlock != nil {
			if match := blockMatch(side, *p.IPBlock); match != "" {
				out = append(out, peer{match: match})
			}
			continue
		}
		for _, pod := range s.sortedPods() {
			inNamespace := pod.Metadata.Namespace == namespace
			if p.NamespaceSelector != nil {
				inNamespace = s.namespaceMatches(pod.Metadata.Namespace, *p.NamespaceSelector)
			}
			if inNamespace && (p.PodSelector == nil || p.PodSelector.matches(pod.Metadata.Labels)) {
				out = append(out, peer{match: fmt.Sprintf("ip %s %s", side, pod.address()), pod: &pod})
			}
		}
	}
	return out
}

func (s State) namespaceMatches(name string, selector Selector) bool {
	for _, namespace := range s.Namespaces {
		if namespace.Metadata.Name == name {
			return selector.matches(namespace.Metadata.Labels)
		}
	}
	return false
}

// blockMatch is empty for a block of another family, and for one that cannot be read: it then allows nothing.
func blockMatch(side string, block IPBlock) string {
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !prefix.Addr().Is4() {
		return ""
	}
	match := fmt.Sprintf("ip %s %s", side, prefix.Masked())
	for _, text := range block.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil || !except.Addr().Is4() {
			return ""
		}
		match += fmt.Sprintf(" ip %s != %s", side, except.Masked())
	}
	return match
}

// ports are matches of a rule's ports; one empty match where it names none. A name counts where the target is a pod that
// has a port of that name.
func ports(ports []Port, target *Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var out []string
	for _, p := range ports {
		protocol := strings.ToLower(p.Protocol)
		switch protocol {
		case "":
			protocol = "tcp"
		case "tcp", "udp", "sctp":
		default:
			continue
		}
		var number int
		switch port := p.Port.(type) {
		case nil:
			out = append(out, "meta l4proto "+protocol)
			continue
		case float64:
			number = int(port)
		case string:
			if target == nil {
				continue
			}
			number = target.port(port, p.Protocol)
		}
		switch {
		case number < 1 || number > 65535:
		case p.EndPort > number:
			out = append(out, fmt.Sprintf("%s dport %d-%d", protocol, number, p.EndPort))
		default:
			out = append(out, protocol+" dport "+strconv.Itoa(number))
		}
	}
	return out
}
