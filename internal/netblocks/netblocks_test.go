package netblocks

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// forms are all the ways to write an IPv4 address inside an IPv6 one.
var forms = map[string]func([4]byte) netip.Addr{
	"mapped":           func(v [4]byte) netip.Addr { return at("::ffff:0:0", 12, v) },
	"compatible":       func(v [4]byte) netip.Addr { return at("::", 12, v) },
	"translated":       func(v [4]byte) netip.Addr { return at("::ffff:0:0:0", 12, v) },
	"NAT64":            func(v [4]byte) netip.Addr { return at("64:ff9b::", 12, v) },
	"NAT64, local, 96": func(v [4]byte) netip.Addr { return at("64:ff9b:1:2:3:4::", 12, v) },
	"NAT64, local, 48": func(v [4]byte) netip.Addr {
		b := netip.MustParseAddr("64:ff9b:1::").As16()
		b[6], b[7], b[9], b[10] = v[0], v[1], v[2], v[3]
		return netip.AddrFrom16(b)
	},
	"6to4":              func(v [4]byte) netip.Addr { return at("2002::1", 2, v) },
	"Teredo server":     func(v [4]byte) netip.Addr { return at("2001::", 4, v) },
	"Teredo client":     func(v [4]byte) netip.Addr { return at("2001::", 12, [4]byte{^v[0], ^v[1], ^v[2], ^v[3]}) },
	"ISATAP":            func(v [4]byte) netip.Addr { return at("2a00:1450::5efe:0:0", 12, v) },
	"ISATAP, universal": func(v [4]byte) netip.Addr { return at("2a00:1450::200:5efe:0:0", 12, v) },
}

func at(base string, offset int, v [4]byte) netip.Addr {
	b := netip.MustParseAddr(base).As16()
	copy(b[offset:], v[:])
	return netip.AddrFrom16(b)
}

// TestWhatAnAddressCarriesCountsInEveryForm: no form of IPv6 opens an IPv4 address that is closed by itself.
func TestWhatAnAddressCarriesCountsInEveryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v [4]byte
		if rapid.Bool().Draw(t, "any") {
			v = [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4"))
		} else { // one that is closed
			row := rapid.SampledFrom(table).Filter(func(b Block) bool { return b.Prefix.Addr().Is4() }).Draw(t, "row")
			v = row.Prefix.Addr().As4()
			v[3] |= byte(rapid.IntRange(0, 255).Draw(t, "low") & (1<<min(8, 32-row.Prefix.Bits()) - 1))
		}
		inner := netip.AddrFrom4(v)
		for name, form := range forms {
			outer := form(v)
			if Never(inner) && !Never(outer) {
				t.Errorf("%s as %s (%s) may be reached", inner, outer, name)
			}
			if Private(inner) && !Private(outer) {
				t.Errorf("%s as %s (%s) is public", inner, outer, name)
			}
		}
	})
}

func TestNeverAndPrivate(t *testing.T) {
	tests := map[string]Opens{
		"8.8.8.8": Anyone, "149.154.167.220": Anyone, "2606:4700::1111": Anyone, "192.175.48.1": Anyone, "2620:4f:8000::1": Anyone,
		"10.1.2.3": Platform, "100.64.0.1": Platform, "198.18.0.1": Platform, "203.0.113.7": Platform, "240.0.0.1": Platform, "192.88.99.1": Platform,
		"fd12::1": Platform, "fec0::1": Platform, "2001:10::1": Platform, "2001:20::1": Platform, "2001:db8::1": Platform, "100::1": Platform, "3fff::1": Platform,
		"5f00::1": Platform, "64:ff9b::808:808": Platform, "ff02::1": Platform, "1::1": Platform, "4000::1": Platform, "a000::1": Platform,
		"127.0.0.1": Nobody, "169.254.169.254": Nobody, "168.63.129.16": Nobody, "100.100.100.200": Nobody, "192.0.0.192": Nobody, "0.0.0.0": Nobody,
		"255.255.255.255": Nobody, "::": Nobody, "::1": Nobody, "fe80::1": Nobody, "fe80::1%eth0": Nobody, "fd00:ec2::254": Nobody, "fd00:ec2::23": Nobody,
		"fd20:ce::254": Nobody, "::ffff:8.8.8.8": Nobody, "::8.8.8.8": Nobody, "2001:0:1::1": Nobody, "2002:808:808::1": Nobody, "64:ff9b:1::1": Nobody,
		"64:ff9b::a9fe:a9fe": Nobody, "64:ff9b::7f00:1": Nobody, "2a00::5efe:7f00:1": Nobody,
	}
	for text, want := range tests {
		address := netip.MustParseAddr(text)
		if got := Never(address); got != (want == Nobody) {
			t.Errorf("Never(%s) = %t", text, got)
		}
		if got := Private(address); got != (want != Anyone) {
			t.Errorf("Private(%s) = %t", text, got)
		}
	}
}

func TestTableIsInOrder(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for _, row := range Table() {
		if seen[row.Prefix] || row.Prefix != row.Prefix.Masked() {
			t.Errorf("%s stands twice, or has bits after its length", row.Prefix)
		}
		seen[row.Prefix] = true
		if row.Name == "" || row.Source == "" || row.Opens == "" {
			t.Errorf("%s says too little", row.Prefix)
		}
		// A row that anyone may open must be open in the end: no other row may cover it.
		for _, address := range []netip.Addr{row.Prefix.Addr(), last(row.Prefix)} {
			if (row.Opens == Nobody) && !Never(address) || (row.Opens != Anyone) && !Private(address) || row.Opens == Anyone && Private(address) {
				t.Errorf("%s: %s is not %s", row.Prefix, address, row.Opens)
			}
		}
	}
	for _, list := range [][]netip.Prefix{ClosedToBots(), ClosedToAll()} {
		for i, a := range list {
			for j, b := range list {
				if i != j && Within(a, b) {
					t.Errorf("%s lies in %s and stands beside it", a, b)
				}
			}
			// Kubernetes takes no IPv4-mapped block in a policy.
			if a.Addr().Is4In6() || strings.Contains(a.String(), ".") && !a.Addr().Is4() {
				t.Errorf("a NetworkPolicy cannot name %s", a)
			}
		}
	}
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	address, _ := netip.AddrFromSlice(b)
	return address
}
