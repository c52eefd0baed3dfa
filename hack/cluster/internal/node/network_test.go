package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestChooseNetwork(t *testing.T) {
	free, err := ChooseNetwork("lethe", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ChooseNetwork("lethe", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.168.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	if free != again {
		t.Errorf("the same name got %v and then %v though nothing was in the way", free.Block, again.Block)
	}
	for _, taken := range []netip.Prefix{
		free.Block,
		netip.PrefixFrom(free.HostIP, 32),
		netip.PrefixFrom(free.PodCIDR.Addr(), 26),
		netip.PrefixFrom(free.Block.Addr(), 15).Masked(),
	} {
		got, err := ChooseNetwork("lethe", []netip.Prefix{taken})
		if err != nil {
			t.Errorf("%s taken: %v", taken, err)
		} else if got.Block.Overlaps(taken) {
			t.Errorf("%s taken: chose %s", taken, got.Block)
		}
	}
	if got, err := ChooseNetwork("lethe", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Errorf("all taken: chose %s", got.Block)
	}
}

// As many clusters as there are blocks live side by side, whatever their names hash to.
func TestNetworksDiffer(t *testing.T) {
	var taken []netip.Prefix
	var links []string
	for i := range blocks {
		n, err := ChooseNetwork("same", taken)
		if err != nil {
			t.Fatalf("cluster %d: %v", i, err)
		}
		if overlapsAny(n.Block, taken) || slices.Contains(links, n.HostLink) {
			t.Fatalf("cluster %d: %s or link %s is taken", i, n.Block, n.HostLink)
		}
		taken, links = append(taken, n.Block), append(links, n.HostLink)
	}
	if _, err := ChooseNetwork("same", taken); err == nil {
		t.Error("one more than there are blocks got one")
	}
}

func TestNetworkFitsItsBlock(t *testing.T) {
	n, err := ChooseNetwork("x", nil)
	if err != nil {
		t.Fatal(err)
	}
	link := netip.PrefixFrom(n.HostIP, linkBits).Masked()
	if !link.Contains(n.NodeIP) || n.HostIP == n.NodeIP {
		t.Errorf("the link's ends %s and %s are not two addresses of one network", n.HostIP, n.NodeIP)
	}
	if !n.ServiceCIDR.Contains(n.DNSIP) || !n.ServiceCIDR.Contains(n.APIServiceIP) {
		t.Errorf("services %s do not contain %s and %s", n.ServiceCIDR, n.DNSIP, n.APIServiceIP)
	}
	inside := []netip.Prefix{link, n.PodCIDR, n.ServiceCIDR}
	for i, p := range inside {
		if !n.Block.Contains(p.Addr()) || p.Bits() < n.Block.Bits() {
			t.Errorf("%s is not within %s", p, n.Block)
		}
		if overlapsAny(p, inside[i+1:]) {
			t.Errorf("%s overlaps another of %v", p, inside)
		}
	}
	if len(n.HostLink) > 15 {
		t.Errorf("link name %q is longer than the kernel takes", n.HostLink)
	}
}

func TestParseRoutes(t *testing.T) {
	const table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"tun0\t0000A00A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n"
	got, err := parseRoutes(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.160.0.0/12"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := parseRoutes(strings.NewReader("head\neth0 zz 0 0 0 0 0 00000000\n")); err == nil {
		t.Error("a destination that is no number was read")
	}
}
