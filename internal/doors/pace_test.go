package doors_test

import (
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/lethe-dev/lethe/internal/doors"
)

// TestNewConnectionsArePaced: after the burst connections wait, nothing of them read, addresses take turns for each
// token, and what would wait too long is turned away; closing the door ends them all.
func TestNewConnectionsArePaced(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	h := &house{registry: prometheus.NewRegistry()}
	metrics, err := doors.NewMetrics("test", h.registry)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := doors.Listen(raw, "calls", doors.Limits{Anonymous: 64, PerSource: 64, Starts: doors.Pace{PerSecond: 1, Burst: 4}, Waiting: 8, WaitingPerSource: 6, Wire: 1 << 10}, c, metrics)
	in := make(chan net.Conn, 64)
	ended := make(chan error)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			in <- conn
		}
	}()
	try := func(from string) (net.Conn, error) {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", raw.Addr().String())
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		return conn, err
	}
	dial := func(from string) net.Conn {
		conn, err := try(from)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for range 4 {
		dial("127.0.0.2")
		<-in
	}
	for range 6 {
		dial("127.0.0.2")
	}
	// One more than may wait of this address: the newcomer goes at once, which its dialling may hear already.
	more, err := try("127.0.0.2")
	dial("127.0.0.3")
	if err == nil {
		_ = more.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err = more.Read(make([]byte, 1))
	}
	if err == nil || isTimeout(err) {
		t.Fatalf("one more than may wait: %v", err)
	}
	if got := h.metric(t, "test_connections_refused_total", doors.CausePace); got < 1 {
		t.Errorf("%v were counted as turned away", got)
	}
	sources := map[string]int{}
	for range 2 {
		c.Step(1001 * time.Millisecond)
		sources[(<-in).RemoteAddr().(*net.TCPAddr).IP.String()]++
	}
	if sources["127.0.0.3"] != 1 {
		t.Errorf("of the first two tokens: %v", sources)
	}
	waits := dial("127.0.0.3")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a closed door lets in")
	}
	_ = waits.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := waits.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("one that waited is held: %v", err)
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // as net returns it
	return ok && timeout.Timeout()
}
