// Package node makes the Linux surroundings of a cluster with a real node: a network namespace joined to the host by one
// link, a mount namespace, control groups, and the settings of the container runtime, all of them the cluster's alone.
package node

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"strings"
)

// Network is the addresses of one cluster: a /16 that no other cluster and nothing on the host uses.
type Network struct {
	// Block is all of it.
	Block netip.Prefix `json:"block"`
	// HostIP and NodeIP are the two ends of the link: the host's, which pods reach, and the node's, where the API serves.
	HostIP netip.Addr `json:"hostIP"`
	NodeIP netip.Addr `json:"nodeIP"`
	// PodCIDR has 254 pod addresses, ServiceCIDR the cluster IPs; APIServiceIP is the first of them and DNSIP the tenth.
	PodCIDR      netip.Prefix `json:"podCIDR"`
	ServiceCIDR  netip.Prefix `json:"serviceCIDR"`
	APIServiceIP netip.Addr   `json:"apiServiceIP"`
	DNSIP        netip.Addr   `json:"dnsIP"`
	// NetNS is the name of the network namespace, HostLink the name of the host's end of the link.
	NetNS    string `json:"netns"`
	HostLink string `json:"hostLink"`
}

// Candidate blocks are 10.160.0.0/16 to 10.223.0.0/16: private addresses that few networks use.
const firstBlock, blocks = 160, 64

// ChooseNetwork picks a free block for the cluster of that name: always the same one as long as it is free.
func ChooseNetwork(name string, taken []netip.Prefix) (Network, error) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	for i := range uint32(blocks) {
		octet := byte(firstBlock + (hash.Sum32()%blocks+i)%blocks)
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, octet, 0, 0}), 16)
		if !overlapsAny(block, taken) {
			return networkIn(block, name), nil
		}
	}
	return Network{}, fmt.Errorf("choose addresses: each of 10.%d.0.0/16 to 10.%d.0.0/16 overlaps an address, a route or another cluster of this machine",
		firstBlock, firstBlock+blocks-1)
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		// A default route covers everything and takes nothing.
		if t.Bits() > 0 && p.Overlaps(t) {
			return true
		}
	}
	return false
}

func networkIn(block netip.Prefix, name string) Network {
	octet := block.Addr().As4()[1]
	at := func(c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{10, octet, c, d}) }
	return Network{
		Block:        block,
		HostIP:       at(255, 253),
		NodeIP:       at(255, 254),
		PodCIDR:      netip.PrefixFrom(at(0, 0), 24),
		ServiceCIDR:  netip.PrefixFrom(at(128, 0), 20),
		APIServiceIP: at(128, 1),
		DNSIP:        at(128, 10),
		NetNS:        "lethe-" + name,
		// Interface names have at most 15 characters; the block is unique on the host.
		HostLink: fmt.Sprintf("lethe%d", octet),
	}
}

// linkBits is the size of the link's own network: a /30 has exactly two addresses to use.
const linkBits = 30

// parseRoutes reads the kernel's table of IPv4 routes: destination and mask are the second and eighth column, as
// little-endian hexadecimal numbers.
func parseRoutes(r io.Reader) ([]netip.Prefix, error) {
	var out []netip.Prefix
	lines := bufio.NewScanner(r)
	lines.Scan()
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		destination, err := hex.DecodeString(fields[1])
		if err != nil || len(destination) != 4 {
			return nil, fmt.Errorf("destination %q", fields[1])
		}
		mask, err := hex.DecodeString(fields[7])
		if err != nil || len(mask) != 4 {
			return nil, fmt.Errorf("mask %q", fields[7])
		}
		var addr, bits [4]byte
		binary.BigEndian.PutUint32(addr[:], binary.LittleEndian.Uint32(destination))
		binary.BigEndian.PutUint32(bits[:], binary.LittleEndian.Uint32(mask))
		ones, _ := net.IPMask(bits[:]).Size()
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(addr), ones))
	}
	return out, lines.Err()
}
