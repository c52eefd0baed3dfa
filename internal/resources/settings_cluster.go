package resources

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	maxPullSecrets = 8
	maxDNSPorts    = 8
	maxDNSBlocks   = 32
)

func (s *Settings) setImagePullSecrets(text string) error {
	s.ImagePullSecrets = nil
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			return fmt.Errorf("%q is not the name of a Secret", name)
		}
		s.ImagePullSecrets = append(s.ImagePullSecrets, name)
	}
	if len(s.ImagePullSecrets) > maxPullSecrets {
		return fmt.Errorf("more than %d names", maxPullSecrets)
	}
	return nil
}

// actedOn are the beginnings of annotations that container runtimes and network plugins act on: a bot that may set
// them chooses its own walls.
var actedOn = []string{
	"cdi.k8s.io/", "cni.projectcalico.org/", "dev.gvisor.", "k8s.ovn.org/", "org.systemd.property.", "ovn.kubernetes.io/", "policy.cilium.io/", "run.oci.", "container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/", "io.containerd.", "io.katacontainers.",
	"io.kubernetes.cri", "k8s.v1.cni.cncf.io/", "seccomp.security.alpha.kubernetes.io/", "v1.multus-cni.io/",
}

// ActedOn returns the beginnings of annotations that bots are never given.
func ActedOn() []string { return slices.Clone(actedOn) }

// setBotAnnotations takes none that a runtime or a network plugin is known to act on.
func (s *Settings) setBotAnnotations(text string) error {
	entries, err := annotationKeys(text)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		key := strings.TrimSuffix(entry, "*")
		if slices.ContainsFunc(actedOn, func(prefix string) bool {
			return strings.HasPrefix(key, prefix) || (key != entry && strings.HasPrefix(prefix, key))
		}) {
			return fmt.Errorf("%q would let bots set what container runtimes or network plugins act on", entry)
		}
	}
	s.BotAnnotations = entries
	return nil
}

// AllowsAnnotation says whether bots may have an annotation on their pods.
func (s *Settings) AllowsAnnotation(key string) bool {
	if strings.HasPrefix(key, "lethe.dev/") {
		return false
	}
	return slices.ContainsFunc(s.BotAnnotations, func(entry string) bool {
		prefix, isPrefix := strings.CutSuffix(entry, "*")
		return key == entry || (isPrefix && len(key) > len(prefix) && strings.HasPrefix(key, prefix))
	})
}

// RefusedAnnotations are those that a bot asks for and may not have, sorted.
func (s *Settings) RefusedAnnotations(bot *v1alpha1.BotDeployment) []string {
	var refused []string
	for key := range bot.Spec.PodAnnotations {
		if !s.AllowsAnnotation(key) {
			refused = append(refused, key)
		}
	}
	slices.Sort(refused)
	return refused
}

// allowedAnnotations are those that a bot asks for and may have.
func (s *Settings) allowedAnnotations(bot *v1alpha1.BotDeployment) map[string]string {
	allowed := map[string]string{}
	for key, value := range bot.Spec.PodAnnotations {
		if s.AllowsAnnotation(key) {
			allowed[key] = value
		}
	}
	return allowed
}

// notDNS are ports that API servers, kubelets, etcd and metadata services answer on: opening one of them for DNS
// opens those.
var notDNS = []int32{80, 443, 2379, 2380, 6443, 8443, 10250, 10255, 16443}

func (s *Settings) setDNSPorts(text string) error {
	s.DNSPorts = nil
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		number, err := strconv.ParseUint(entry, 10, 16)
		port := int32(number)
		switch {
		case err != nil || port < 1:
			return fmt.Errorf("%q is no port", entry)
		case slices.Contains(notDNS, port):
			return fmt.Errorf("port %d is not DNS', but one of API servers, kubelets or metadata services", port)
		case !slices.Contains(s.DNSPorts, port):
			s.DNSPorts = append(s.DNSPorts, port)
		}
	}
	slices.Sort(s.DNSPorts)
	if len(s.DNSPorts) == 0 || len(s.DNSPorts) > maxDNSPorts {
		return fmt.Errorf("1 to %d ports are needed", maxDNSPorts)
	}
	return nil
}

func (s *Settings) setDNSBlocks(text string) error {
	s.DNSBlocks = nil
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		block, err := parseBlock(entry)
		if err != nil {
			return err
		}
		if least := map[bool]int{true: 16, false: 32}[block.Addr().Is4()]; block.Bits() < least {
			return fmt.Errorf("%q is wider than /%d: name the addresses that answer DNS", entry, least)
		}
		if !slices.Contains(s.DNSBlocks, block) {
			s.DNSBlocks = append(s.DNSBlocks, block)
		}
	}
	slices.SortFunc(s.DNSBlocks, netip.Prefix.Compare)
	if len(s.DNSBlocks) > maxDNSBlocks {
		return fmt.Errorf("more than %d blocks", maxDNSBlocks)
	}
	return nil
}

// parseBlock reads a block of addresses, or one address.
func parseBlock(text string) (netip.Prefix, error) {
	block, err := netip.ParsePrefix(text)
	if address, failed := netip.ParseAddr(text); err != nil && failed == nil && address.Zone() == "" {
		block, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if err != nil || block.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no block of addresses such as 203.0.113.7/32", text)
	}
	if block != block.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its length: write %s for the block, or %s for the one address", text, block.Masked(), block.Addr())
	}
	block = netip.PrefixFrom(block.Addr().Unmap(), block.Bits()).Masked()
	if !block.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%q is a form of IPv6 that hides an IPv4 address: write that", text)
	}
	return block, nil
}

// dnsEgress opens what answers DNS: pods of one namespace by their labels, and addresses, on its ports and no others.
func dnsEgress(s Settings) networkingv1.NetworkPolicyEgressRule {
	rule := networkingv1.NetworkPolicyEgressRule{To: podsOf(s.DNSNamespace, s.DNSPodLabels)}
	for _, block := range s.DNSBlocks {
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: block.String()}})
	}
	for _, port := range s.DNSPorts {
		rule.Ports = append(rule.Ports, policyPort(corev1.ProtocolUDP, port), policyPort(corev1.ProtocolTCP, port))
	}
	return rule
}
