package ports

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// What is given out is different, can be listened on, and lies where Linux puts no outgoing connection.
func TestFree(t *testing.T) {
	found, err := Free("127.0.0.1", 50)
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	lowest, err := strconv.Atoi(strings.Fields(string(ephemeral))[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range found {
		if port >= lowest {
			t.Errorf("port %d may be taken by an outgoing connection, which get ports from %d", port, lowest)
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("port %d, given out as free: %v", port, err) // also where it was given out twice: the first is still held
		}
		defer l.Close()
	}
}

func TestNoPortOfAnAddressThatIsNotOurs(t *testing.T) {
	if found, err := Free("192.0.2.1", 1); err == nil {
		t.Errorf("ports %v of an address that no machine has", found)
	}
}
