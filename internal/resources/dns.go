package resources

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// dnsPort is the port that resolvers ask, before a Service translates it.
const dnsPort = 53

// DNSWall says why what answers DNS in this cluster lies behind the walls that the settings make: what pods ask,
// compared with what policies open. It is empty where one of the nameservers is in reach, or where nobody can tell.
// services and endpoints are those of the settings' DNS namespace.
func DNSWall(s Settings, nameservers []netip.Addr, services []corev1.Service, endpoints []discoveryv1.EndpointSlice) string {
	var walls []string
	for _, server := range nameservers {
		wall := wallBefore(s, server.Unmap(), services, endpoints)
		if wall == "" {
			return ""
		}
		walls = append(walls, wall)
	}
	if len(walls) == 0 {
		return ""
	}
	return strings.Join(walls, "; ") + ". Set the chart's dns.* to what answers in this cluster (docs/platforms.md)."
}

func wallBefore(s Settings, server netip.Addr, services []corev1.Service, endpoints []discoveryv1.EndpointSlice) string {
	if inBlocks(s, server) {
		if slices.Contains(s.DNSPorts, dnsPort) {
			return ""
		}
		return fmt.Sprintf("pods ask %s on port %d, and dns.ports opens %s", server, dnsPort, portsText(s.DNSPorts))
	}
	i := slices.IndexFunc(services, func(service corev1.Service) bool {
		return slices.ContainsFunc(append(slices.Clone(service.Spec.ClusterIPs), service.Spec.ClusterIP), func(text string) bool {
			address, err := netip.ParseAddr(text)
			return err == nil && address.Unmap() == server
		})
	})
	if i < 0 {
		return fmt.Sprintf("pods ask %s, which is no Service of namespace %s (dns.namespace) and in none of dns.blocks", server, s.DNSNamespace)
	}
	service := services[i]
	name := service.Namespace + "/" + service.Name
	ports, addresses := answering(service.Name, endpoints)
	if len(addresses) == 0 {
		return "" // nothing answers there now: that is no wall
	}
	for _, port := range ports {
		if !slices.Contains(s.DNSPorts, port) {
			return fmt.Sprintf("pods ask %s (Service %s), which is answered on port %d, and dns.ports opens %s", server, name, port, portsText(s.DNSPorts))
		}
	}
	if !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !inBlocks(s, a) }) {
		return ""
	}
	if len(service.Spec.Selector) == 0 {
		return fmt.Sprintf("pods ask %s (Service %s), which is answered by %s, in none of dns.blocks", server, name, addresses[0])
	}
	for key, value := range s.DNSPodLabels {
		if service.Spec.Selector[key] != value {
			return fmt.Sprintf("pods ask %s (Service %s), whose pods are those with %s, and dns.podLabels opens those with %s", server, name,
				labelsText(service.Spec.Selector), labelsText(s.DNSPodLabels))
		}
	}
	return ""
}

// answering are the ports for DNS and the addresses of a Service's endpoints.
func answering(service string, endpoints []discoveryv1.EndpointSlice) (ports []int32, addresses []netip.Addr) {
	for i := range endpoints {
		slice := &endpoints[i]
		if slice.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
				continue
			}
			for _, text := range endpoint.Addresses {
				if address, err := netip.ParseAddr(text); err == nil {
					addresses = append(addresses, address.Unmap())
				}
			}
		}
		for _, port := range slice.Ports {
			if port.Port != nil && port.Name != nil && strings.HasPrefix(*port.Name, "dns") && !slices.Contains(ports, *port.Port) {
				ports = append(ports, *port.Port)
			}
		}
	}
	slices.Sort(ports)
	slices.SortFunc(addresses, netip.Addr.Compare)
	return ports, addresses
}

func inBlocks(s Settings, address netip.Addr) bool {
	return slices.ContainsFunc(s.DNSBlocks, func(block netip.Prefix) bool { return block.Contains(address) })
}

func portsText(ports []int32) string {
	var texts []string
	for _, port := range ports {
		texts = append(texts, fmt.Sprint(port))
	}
	return strings.Join(texts, ", ")
}

func labelsText(labels map[string]string) string {
	var texts []string
	for key, value := range labels {
		texts = append(texts, key+"="+value)
	}
	slices.Sort(texts)
	return strings.Join(texts, ",")
}

// Nameservers reads the addresses out of a resolv.conf.
func Nameservers(resolvConf string) []netip.Addr {
	var servers []netip.Addr
	for line := range strings.Lines(resolvConf) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if address, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, address.WithZone(""))
		}
	}
	return servers
}
