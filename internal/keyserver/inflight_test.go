package keyserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/internal/protocol"
)

func arrived() error { return nil }

func from(address string) *http.Request { return &http.Request{RemoteAddr: address + ":4711"} }

// TestOneAddressHoldsUpNobodyElse: an address that asks without end gets its share, waits for more of it, and is turned away
// in the end; another one gets in at once all the while.
func TestOneAddressHoldsUpNobodyElse(t *testing.T) {
	f := newInFlight()
	var leave []func()
	enter := func(address string) {
		t.Helper()
		out, err := f.enter(t.Context(), from(address), arrived)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, out)
	}
	for range maxPerAddress {
		enter("10.0.0.1")
	}
	over, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, maxWaiting)
	for range maxWaiting {
		go func() {
			_, err := f.enter(over, from("10.0.0.1"), arrived)
			waiting <- err
		}()
	}
	for users := 0; users < maxPerAddress+maxWaiting; runtime.Gosched() {
		f.mu.Lock()
		users = f.addresses["10.0.0.1"].users
		f.mu.Unlock()
	}
	if _, err := f.enter(t.Context(), from("10.0.0.1"), arrived); err == nil || asRefusal(err).RetryAfter == 0 {
		t.Fatalf("beyond those that wait: %v", err)
	}
	enter("10.0.0.2")
	enter("fd00::1")

	cancel()
	for range maxWaiting {
		if r := asRefusal(<-waiting); r.Reason != protocol.ReasonInternal || r.RetryAfter == 0 {
			t.Errorf("one that waited was told %+v", r.answer)
		}
	}
	for _, out := range leave {
		out()
	}
	if len(f.addresses) != 0 || len(f.all) != 0 {
		t.Errorf("after all have left, %d addresses and %d requests are left", len(f.addresses), len(f.all))
	}
}

// TestAllAddressesTogetherAreBounded: whoever comes last waits, and gets in when somebody leaves.
func TestAllAddressesTogetherAreBounded(t *testing.T) {
	f := newInFlight()
	var leave func()
	for i := range maxInFlight {
		var err error
		if leave, err = f.enter(t.Context(), from(string(rune('a'+i%8))), arrived); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.enter(t.Context(), from("y"), func() error { return errors.New("cut off") }); err == nil || f.addresses["y"] != nil {
		t.Fatalf("a request that did not arrive: %v", err)
	}
	now, stop := context.WithCancel(t.Context())
	stop()
	if _, err := f.enter(now, from("z"), arrived); err == nil {
		t.Fatal("one more got in")
	}
	leave()
	if _, err := f.enter(t.Context(), from("z"), arrived); err != nil {
		t.Fatal(err)
	}
}

// TestSlowBodiesHoldUpNobodyElse: requests whose bodies do not arrive, of as many addresses as it takes to fill every place,
// take none of those that others need.
func TestSlowBodiesHoldUpNobodyElse(t *testing.T) {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Options: Options{Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Metrics: metrics}, inFlight: newInFlight()}
	server := httptest.NewServer(handle(s, protocol.PathLease,
		func(context.Context, string) (caller, error) { return caller{}, nil },
		func(context.Context, caller, *struct{}) (*struct{}, error) { return &struct{}{}, nil }))
	defer server.Close()
	to := server.Listener.Addr().String()
	for i := range maxInFlight {
		local := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/maxPerAddress))}}
		conn, err := local.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// The server asks for the body when it begins to read it.
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))); err != nil {
			t.Fatal(err)
		}
	}
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Post(server.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("answered %s", resp.Status)
	}
}
