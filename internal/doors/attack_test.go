package doors_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/test/attack"
)

var (
	limits = doors.Limits{Anonymous: 96, PerSource: 64, Known: 32, PerName: 8, Reserved: 8,
		Starts: doors.Pace{PerSecond: 200, Burst: 200}, Waiting: 128, WaitingPerSource: 96, Wire: 32 << 10}
	rules = doors.Rules{Method: http.MethodPost, Paths: []string{"/call"}, Body: 8 << 10, Head: 8 << 10}
)

// house is a server behind a door: whoever has the token "known NAME" is known.
type house struct {
	address  string
	roots    *x509.CertPool
	registry *prometheus.Registry
}

func open(t *testing.T, plain bool) *house {
	t.Helper()
	h := &house{registry: prometheus.NewRegistry()}
	metrics, err := doors.NewMetrics("test", h.registry)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = raw.Addr().String()
	listener := doors.Listen(raw, "calls", limits, clock.RealClock{}, metrics)
	var config *tls.Config
	if !plain {
		borrowed := httptest.NewTLSServer(nil)
		config = &tls.Config{Certificates: borrowed.TLS.Certificates}
		h.roots = x509.NewCertPool()
		h.roots.AddCert(borrowed.Certificate())
		borrowed.Close()
	}
	server := doors.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		conn := doors.Of(r.Context())
		if name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer known "); ok {
			conn.Prove(name, name == "manager")
		}
		if conn.Name() == "" {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusNoContent)
	}), rules, config, slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if plain {
			_ = server.Serve(listener)
		} else {
			_ = server.ServeTLS(listener, "", "")
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return h
}

// metric is the sum of a metric's series that have these values among their labels.
func (h *house) metric(t *testing.T, name string, values ...string) float64 {
	t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasAll(m, values) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func hasAll(m *dto.Metric, values []string) bool {
	for _, v := range values {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetValue() == v
		}
		if !found {
			return false
		}
	}
	return true
}

// dial makes a TLS connection from an address of loopback.
func (h *house) dial(t *testing.T, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	config.RootCAs, config.ServerName = h.roots, "example.com"
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	c := tls.Client(raw, config)
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	return c, c.HandshakeContext(t.Context())
}

// client is an honest one. It keeps its connections.
func (h *house) client(from string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext:     (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext,
		TLSClientConfig: &tls.Config{RootCAs: h.roots, ServerName: "example.com"}}}
}

func (h *house) call(ctx context.Context, c *http.Client, token string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+h.address+"/call", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// TestOnlyWhatIsNeeded: everything that the calls do not need is refused, and ends the connection.
func TestOnlyWhatIsNeeded(t *testing.T) {
	h := open(t, false)
	const begin = "POST /call HTTP/1.1\r\nHost: x\r\n"
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"a call":                     {begin + "Content-Length: 2\r\n\r\n{}", 204},
		"HTTP/2 with its preface":    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505},
		"HTTP/1.0":                   {"POST /call HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 505},
		"another method":             {"GET /call HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		"CONNECT":                    {"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 404},
		"another path":               {"POST /debug/pprof HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404},
		"a path with dots":           {"POST /x/../call HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404},
		"a proxy's address":          {"POST http://elsewhere/call HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404},
		"chunks":                     {begin + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411},
		"trailers":                   {begin + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: y\r\n\r\n", 411},
		"waiting for leave to send":  {begin + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", 417},
		"a websocket":                {begin + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", 400},
		"HTTP/2 by upgrade":          {begin + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nContent-Length: 0\r\n\r\n", 400},
		"a body that is too long":    {begin + "Content-Length: 8193\r\n\r\n", 413},
		"a head that is too long":    {begin + "X: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", 431},
		"two lengths":                {begin + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"a length and chunks":        {begin + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
		"more than a request can be": {begin + "X: " + strings.Repeat("x", 64<<10), 0},
	} {
		start := time.Now()
		conn, err := h.dial(t, &tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		// The head that is too long may end the connection before all of it was sent.
		got, err := attack.Status(conn, c.text)
		if err != nil && c.want != 0 && c.want != 431 {
			t.Errorf("%s: %v", name, err)
		}
		if got != c.want && (c.want != 431 || got != 0) && (c.want != 0 || got != 431) {
			t.Errorf("%s: answered %d, want %d", name, got, c.want)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("%s: the connection was not closed", name)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: the connection was held for %s", name, took)
		}
	}
}

// TestOnlyNewTLS: TLS 1.3 and HTTP/1.1, whatever else is offered.
func TestOnlyNewTLS(t *testing.T) {
	h := open(t, false)
	if _, err := h.dial(t, &tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	if _, err := h.dial(t, &tls.Config{NextProtos: []string{"h2"}}); err == nil {
		t.Error("HTTP/2 alone was taken")
	}
	c, err := h.dial(t, &tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	if err != nil || c.ConnectionState().NegotiatedProtocol != "http/1.1" {
		t.Errorf("%v, %q was chosen", err, c.ConnectionState().NegotiatedProtocol)
	}
	plain := open(t, true)
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", plain.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if got, err := attack.Status(raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil || got != 505 {
		t.Errorf("HTTP/2 in clear: %d, %v", got, err)
	}
}

// TestAttacksFromTheVictimsAddress: each attack comes from the victims' own address, as behind one that many pods
// share. One that is known goes on at once; new ones get in.
func TestAttacksFromTheVictimsAddress(t *testing.T) {
	for _, kind := range attack.Kinds {
		t.Run(string(kind), func(t *testing.T) { underAttack(t, kind, 2*limits.PerSource, "127.0.0.1") })
	}
}

// TestAttackFromManyAddresses: one pod has one address; a tenant has many pods.
func TestAttackFromManyAddresses(t *testing.T) {
	var from []string
	for i := range 40 {
		from = append(from, fmt.Sprintf("127.0.1.%d", i+1))
	}
	for _, kind := range []attack.Kind{attack.Silent, attack.HalfHello, attack.Frames} {
		t.Run(string(kind), func(t *testing.T) { underAttack(t, kind, 10, from...) })
	}
}

func underAttack(t *testing.T, kind attack.Kind, connections int, from ...string) {
	h := open(t, false)
	known := h.client("127.0.0.1")
	if err := h.call(t.Context(), known, "known acme"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var stats attack.Stats
	var all sync.WaitGroup
	for _, f := range from {
		all.Go(func() {
			attack.Run(ctx, attack.Options{Kind: kind, Address: h.address, Path: "/call", Connections: connections, From: net.ParseIP(f), Pause: 250 * time.Millisecond}, &stats)
		})
	}
	defer func() {
		stop()
		all.Wait()
	}()
	deadline := time.After(20 * time.Second)
	for stats.Ended.Load() == 0 && h.metric(t, "test_connections_refused_total") == 0 {
		select {
		case <-deadline:
			t.Fatalf("after 20 s the door has turned nobody away: %s", &stats)
		case <-time.After(10 * time.Millisecond):
		}
	}
	var victims sync.WaitGroup
	for i := range 3 {
		if err := h.call(t.Context(), known, "known acme"); err != nil {
			t.Errorf("one that is known was refused: %v", err)
		}
		victims.Go(func() {
			if err := h.newcomer(t, fmt.Sprint("tenant-", i)); err != nil {
				t.Errorf("a new one did not get in: %v (%s)", err, &stats)
			}
		})
	}
	victims.Wait()
	if got := h.metric(t, "test_connections", "Anonymous"); got > float64(limits.Anonymous) {
		t.Errorf("%v anonymous are in", got)
	}
	t.Logf("%s; turned away %v", &stats, h.metric(t, "test_connections_refused_total"))
}

// newcomer tries as our clients do: again, for a while.
func (h *house) newcomer(t *testing.T, name string) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		c := h.client("127.0.0.1")
		err := h.call(t.Context(), c, "known "+name)
		c.CloseIdleConnections()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-t.Context().Done():
			return t.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestIdleConnectionsAreGivenUp: what an anonymous connection holds without a word ends by itself, and gives its
// place back.
func TestIdleConnectionsAreGivenUp(t *testing.T) {
	h := open(t, false)
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := raw.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("not closed: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for h.metric(t, "test_connections") > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the place was not given back")
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestKnownNamesAreBounded: a namespace that is known has its share of connections too, and idle ones give way.
func TestKnownNamesAreBounded(t *testing.T) {
	h := open(t, false)
	for range 3 * limits.PerName {
		if err := h.call(t.Context(), h.client("127.0.0.1"), "known acme"); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.metric(t, "test_connections", "Known"); got != float64(limits.PerName) {
		t.Errorf("%v connections of one name are open", got)
	}
	if got := h.metric(t, "test_connections_refused_total", doors.CauseName); got != float64(2*limits.PerName) {
		t.Errorf("%v were closed for others of that name", got)
	}
}
