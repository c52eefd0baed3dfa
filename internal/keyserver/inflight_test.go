package keyserver

import (
	"context"
	"net/http"
	"runtime"
	"testing"

	"github.com/lethe-dev/lethe/internal/protocol"
)

func from(address string) *http.Request { return &http.Request{RemoteAddr: address + ":4711"} }

// TestOneAddressHoldsUpNobodyElse: an address that asks without end gets its share, waits for more of it, and is turned away
// in the end; another one gets in at once all the while.
func TestOneAddressHoldsUpNobodyElse(t *testing.T) {
	f := newInFlight()
	var leave []func()
	enter := func(address string) {
		t.Helper()
		out, err := f.enter(t.Context(), from(address))
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
			_, err := f.enter(over, from("10.0.0.1"))
			waiting <- err
		}()
	}
	for users := 0; users < maxPerAddress+maxWaiting; runtime.Gosched() {
		f.mu.Lock()
		users = f.addresses["10.0.0.1"].users
		f.mu.Unlock()
	}
	if _, err := f.enter(t.Context(), from("10.0.0.1")); err == nil || asRefusal(err).RetryAfter == 0 {
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
		if leave, err = f.enter(t.Context(), from(string(rune('a'+i%8)))); err != nil {
			t.Fatal(err)
		}
	}
	now, stop := context.WithCancel(t.Context())
	stop()
	if _, err := f.enter(now, from("z")); err == nil {
		t.Fatal("one more got in")
	}
	leave()
	if _, err := f.enter(t.Context(), from("z")); err != nil {
		t.Fatal(err)
	}
}
