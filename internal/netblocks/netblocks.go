// Package netblocks is the one table of the blocks of addresses that are not the public internet, and of who may open
// them. The rules of admission on spec.egress, the NetworkPolicies and whatever connects on a bot's behalf read it.
// It is pure: it resolves no name.
//
// The rows follow IANA's registries of special-purpose addresses (RFC 6890; iana-ipv4-special-registry and
// iana-ipv6-special-registry), and add what these leave out: multicast, the deprecated forms that carry an IPv4
// address inside, and the addresses of cloud metadata services.
package netblocks

import (
	"net/netip"
	"slices"
	"sync"
)

// Opens says who may open a block.
type Opens string

const (
	// Anyone may open it: it is special, and a part of the public internet all the same.
	Anyone Opens = "Anyone"
	// Platform may open it: only the Tenant's egress, never a bot's own.
	Platform Opens = "Platform"
	// Nobody may open it: the node itself, metadata services, and forms of IPv6 that hide an IPv4 address.
	Nobody Opens = "Nobody"
)

// Block is a row of the table.
type Block struct {
	Prefix netip.Prefix
	Opens  Opens
	Name   string
	Source string // the RFC, or who publishes it
}

func block(prefix string, opens Opens, name, source string) Block {
	return Block{Prefix: netip.MustParsePrefix(prefix), Opens: opens, Name: name, Source: source}
}

// table holds each block once. Where two overlap, the stricter one counts.
var table = []Block{
	// IPv4, in the order of the registry.
	block("0.0.0.0/8", Nobody, "this network; many systems take 0.0.0.0 for themselves", "RFC 791, RFC 1122"),
	block("10.0.0.0/8", Platform, "private use", "RFC 1918"),
	block("100.64.0.0/10", Platform, "shared address space, carrier-grade NAT", "RFC 6598"),
	block("127.0.0.0/8", Nobody, "loopback", "RFC 1122"),
	block("169.254.0.0/16", Nobody, "link-local, metadata services", "RFC 3927"),
	block("172.16.0.0/12", Platform, "private use", "RFC 1918"),
	block("192.0.0.0/24", Platform, "IETF protocol assignments", "RFC 6890"),
	block("192.0.0.0/29", Platform, "IPv4 service continuity prefix", "RFC 7335"),
	block("192.0.0.8/32", Platform, "dummy address", "RFC 7600"),
	block("192.0.0.9/32", Platform, "port control protocol anycast", "RFC 7723"),
	block("192.0.0.10/32", Platform, "TURN anycast", "RFC 8155"),
	block("192.0.0.170/31", Platform, "discovery of NAT64 and DNS64", "RFC 7050, RFC 8880"),
	block("192.0.0.192/32", Nobody, "metadata service", "Oracle Cloud"),
	block("192.0.2.0/24", Platform, "documentation", "RFC 5737"),
	block("192.31.196.0/24", Anyone, "AS112", "RFC 7535"),
	block("192.52.193.0/24", Anyone, "automatic multicast tunnelling", "RFC 7450"),
	block("192.88.99.0/24", Platform, "6to4 relays, deprecated", "RFC 7526"),
	block("192.168.0.0/16", Platform, "private use", "RFC 1918"),
	block("192.175.48.0/24", Anyone, "AS112, direct delegation", "RFC 7534"),
	block("198.18.0.0/15", Platform, "benchmarks; some clouds give it to pods", "RFC 2544"),
	block("198.51.100.0/24", Platform, "documentation", "RFC 5737"),
	block("203.0.113.0/24", Platform, "documentation", "RFC 5737"),
	block("224.0.0.0/4", Platform, "multicast", "RFC 5771"),
	block("240.0.0.0/4", Platform, "reserved; some clouds give it to pods", "RFC 1112"),
	block("255.255.255.255/32", Nobody, "limited broadcast", "RFC 919, RFC 8190"),
	block("100.100.100.200/32", Nobody, "metadata service", "Alibaba Cloud"),
	block("168.63.129.16/32", Nobody, "metadata and wire service", "Azure"),

	// IPv6. Only 2000::/3 is given out as global unicast (RFC 4291, RFC 3513); the three blocks around it leave
	// nothing between the rows.
	block("::/3", Platform, "not global unicast", "RFC 4291"),
	block("4000::/2", Platform, "not global unicast", "RFC 4291"),
	block("8000::/1", Platform, "not global unicast", "RFC 4291"),
	block("::/64", Nobody, "the unspecified address and every form below that carries IPv4", "RFC 4291"),
	block("::/128", Nobody, "unspecified address", "RFC 4291"),
	block("::1/128", Nobody, "loopback", "RFC 4291"),
	block("::/96", Nobody, "IPv4-compatible, deprecated", "RFC 4291"),
	block("::ffff:0:0/96", Nobody, "IPv4-mapped", "RFC 4291"),
	block("::ffff:0:0:0/96", Nobody, "IPv4-translated", "RFC 2765, RFC 7915"),
	block("64:ff9b::/96", Platform, "NAT64: what it carries counts, see Carried", "RFC 6052"),
	block("64:ff9b:1::/48", Nobody, "NAT64 for local use: where the IPv4 address lies is each network's own choice", "RFC 8215"),
	block("100::/64", Platform, "discard only", "RFC 6666"),
	block("100:0:0:1::/64", Platform, "dummy prefix", "RFC 9780"),
	block("2001::/23", Platform, "IETF protocol assignments", "RFC 2928"),
	block("2001::/32", Nobody, "Teredo", "RFC 4380"),
	block("2001:1::1/128", Platform, "port control protocol anycast", "RFC 7723"),
	block("2001:1::2/128", Platform, "TURN anycast", "RFC 8155"),
	block("2001:1::3/128", Platform, "DNS-SD service registration anycast", "RFC 9665"),
	block("2001:2::/48", Platform, "benchmarks", "RFC 5180"),
	block("2001:3::/32", Platform, "automatic multicast tunnelling", "RFC 7450"),
	block("2001:4:112::/48", Platform, "AS112", "RFC 7535"),
	block("2001:10::/28", Platform, "ORCHID, deprecated", "RFC 4843"),
	block("2001:20::/28", Platform, "ORCHIDv2", "RFC 7343"),
	block("2001:30::/28", Platform, "drone remote identification", "RFC 9374"),
	block("2001:db8::/32", Platform, "documentation", "RFC 3849"),
	block("2002::/16", Nobody, "6to4", "RFC 3056, RFC 7526"),
	block("2620:4f:8000::/48", Anyone, "AS112, direct delegation", "RFC 7534"),
	block("3fff::/20", Platform, "documentation", "RFC 9637"),
	block("5f00::/16", Platform, "segment routing identifiers", "RFC 9602"),
	block("fc00::/7", Platform, "unique local", "RFC 4193"),
	block("fd00:ec2::/32", Nobody, "metadata service and the services beside it", "Amazon"),
	block("fd20:ce::254/128", Nobody, "metadata service", "Google Cloud"),
	block("fd00:42::42/128", Nobody, "metadata service", "Scaleway"),
	block("fe80::/10", Nobody, "link-local", "RFC 4291"),
	block("fec0::/10", Platform, "site-local, deprecated", "RFC 3879"),
	block("ff00::/8", Platform, "multicast", "RFC 4291"),
}

// nat64 is the one prefix that carries an IPv4 address in a place that everybody knows, and that a cluster without
// IPv4 needs.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// carriers are the other blocks whose addresses carry one of IPv4.
var carriers = struct{ low, sixToFour, teredo netip.Prefix }{
	low:       netip.MustParsePrefix("::/64"),
	sixToFour: netip.MustParsePrefix("2002::/16"),
	teredo:    netip.MustParsePrefix("2001::/32"),
}

// Table returns every row.
func Table() []Block { return slices.Clone(table) }

// ClosedToBots returns the blocks that no bot's own egress may open, without one that lies in another.
func ClosedToBots() []netip.Prefix { return slices.Clone(lists().bots) }

// ClosedToAll returns the blocks that nobody may open, the Tenant's egress neither, without one that lies in another.
func ClosedToAll() []netip.Prefix { return slices.Clone(lists().all) }

type folded struct{ bots, all []netip.Prefix }

var lists = sync.OnceValue(func() folded {
	var bots, all []netip.Prefix
	for _, row := range table {
		if row.Opens == Anyone {
			continue
		}
		bots = append(bots, row.Prefix)
		if row.Opens != Nobody {
			continue
		}
		all = append(all, row.Prefix)
		if row.Prefix.Addr().Is4() { // the same, as NAT64 carries it
			all = append(all, carry(nat64, row.Prefix))
		}
	}
	return folded{bots: fold(bots), all: fold(all)}
})

// fold drops what lies in another block and sorts the rest.
func fold(blocks []netip.Prefix) []netip.Prefix {
	var result []netip.Prefix
	for _, b := range blocks {
		if !slices.ContainsFunc(blocks, func(o netip.Prefix) bool { return o != b && Within(b, o) }) && !slices.Contains(result, b) {
			result = append(result, b)
		}
	}
	slices.SortFunc(result, func(a, b netip.Prefix) int { return a.Compare(b) })
	return result
}

// Within says whether all of a block lies in another one.
func Within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Never says whether an address is one that nobody may reach through Lethe, whatever form it is written in.
func Never(address netip.Addr) bool { return in(address, lists().all) }

// Private says whether an address is one that a bot may never open by itself. Every address that Never names is one.
func Private(address netip.Addr) bool { return Never(address) || in(address, lists().bots) }

// in looks an address up, and what it carries.
func in(address netip.Addr, blocks []netip.Prefix) bool {
	address = address.WithZone("")
	for _, b := range blocks {
		if b.Contains(address) {
			return true
		}
	}
	inner, ok := Carried(address)
	return ok && in(inner, blocks)
}

// Carried returns the IPv4 address that an IPv6 address carries inside, in every form that is written down:
// IPv4-mapped, -compatible and -translated, NAT64, 6to4, Teredo (the client's), and ISATAP under any prefix. A NAT64
// prefix that a network chose for itself cannot be told from any other block: whoever opens it opens IPv4 through it.
func Carried(address netip.Addr) (netip.Addr, bool) {
	if !address.Is6() {
		return netip.Addr{}, false
	}
	b := address.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case address.Is4In6(), carriers.low.Contains(address), nat64.Contains(address):
		return last, true
	case carriers.sixToFour.Contains(address):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case carriers.teredo.Contains(address):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	case b[8]&^0x03 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // 0000:5efe or 0200:5efe
		return last, true
	}
	return netip.Addr{}, false
}

// carry puts a block of IPv4 under a prefix of 96 bits.
func carry(under, inner netip.Prefix) netip.Prefix {
	b := under.Addr().As16()
	four := inner.Addr().As4()
	copy(b[12:], four[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 96+inner.Bits())
}
