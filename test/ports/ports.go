// Package ports finds TCP ports for the servers of tests, benchmarks and the demo.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports that are given out. They lie below those that Linux gives to outgoing connections and to listeners on
// port 0 (net.ipv4.ip_local_port_range, 32768 to 60999 by default): a port of that range that is free now, or whose
// server is being restarted, may belong to any connection of the machine a moment later.
const first, last = 20000, 29999

// Free gives n different TCP ports of host on which nobody listens now.
//
// Errors: host is no address of this machine, or no port is free.
func Free(host string, n int) ([]int, error) {
	var found []int
	var refused error
	for _, i := range rand.Perm(last - first + 1) {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+i)))
		if err != nil {
			refused = err
			continue
		}
		// Held until all are found, so that another process that looks for ports at this moment takes none of them.
		defer func() { _ = l.Close() }()
		if found = append(found, first+i); len(found) == n {
			return found, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports of %s from %d to %d: %w", n, host, first, last, refused)
}

// Address gives a loopback address, "127.0.0.1:<port>", on which nobody listens now.
func Address() (string, error) {
	found, err := Free("127.0.0.1", 1)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(found[0])), nil
}
