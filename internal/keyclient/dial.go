package keyclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// dialTimeout is for one address; the next one, or the name, is tried after it.
const dialTimeout = 3 * time.Second

// errNoDNS is why a name could not be looked up, in words for who reads a pod's last message.
var errNoDNS = errors.New("this pod was told no address of the keyserver, and a bot without egress has no DNS: is the keyserver's Service one with a cluster IP?")

// dial connects to one of the addresses in AddressesFile, and to the name when none answers.
func (c *Client) dial(ctx context.Context, network, target string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	_, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("read the keyserver's port: %w", err)
	}
	addresses := c.addresses()
	var failed error
	for _, address := range addresses {
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(address.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	conn, err := d.DialContext(ctx, network, target)
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && c.o.AddressesFile != "" {
		if len(addresses) > 0 {
			return nil, failed // that the name is not known is no news, and hides why
		}
		return nil, errNoDNS
	}
	if err != nil {
		return nil, fmt.Errorf("connect by name: %w", err)
	}
	return conn, nil
}

// addresses are read anew for each connection: the Service may have been made again. What is no address is left out.
func (c *Client) addresses() []netip.Addr {
	if c.o.AddressesFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.o.AddressesFile)
	if err != nil {
		return nil
	}
	var addresses []netip.Addr
	for _, line := range strings.Fields(string(b)) {
		if a, err := netip.ParseAddr(line); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}
