package keyclient

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddressesComeBeforeTheName: a pod without DNS finds the keyserver by the addresses that it was told; who
// answers there is whom the certificate names.
func TestAddressesComeBeforeTheName(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	file := filepath.Join(t.TempDir(), "addresses")
	c := &Client{o: Options{AddressesFile: file}}
	const unknown = "keyserver.invalid"
	for name, tc := range map[string]struct {
		content, host, says string
	}{
		"an address, and a name that nobody knows":     {"127.0.0.1\n", unknown, ""},
		"the second address":                           {"127.0.0.2\n127.0.0.1\n", unknown, ""},
		"rubbish beside an address":                    {"None\nx y\n127.0.0.1", unknown, ""},
		"an address that has gone, and a name":         {"127.0.0.2\n", "127.0.0.1", ""},
		"no address, and a name":                       {"", "127.0.0.1", ""},
		"no address, and a name that nobody knows":     {"", unknown, "cluster IP"},
		"an address that has gone, and no name either": {"127.0.0.2\n", unknown, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			conn, err := c.dial(t.Context(), "tcp", net.JoinHostPort(tc.host, port))
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}
