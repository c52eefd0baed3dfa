package keyserver

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/lethe-dev/lethe/internal/protocol"
)

const (
	// maxInFlight is how many requests are worked on at a time, and maxPerAddress how many of one caller's: a pod that asks
	// without end must not keep the others' leases and credentials waiting. The manager's workers fit.
	maxInFlight   = 64
	maxPerAddress = 16
	// maxWaiting of one address; what comes on top is turned away at once.
	maxWaiting = 256
)

// inFlight bounds the requests that are worked on, for each address and altogether.
type inFlight struct {
	all chan struct{}

	mu        sync.Mutex
	addresses map[string]*addressGate
}

// addressGate is one address's share. It exists as long as somebody of that address is inside or waits.
type addressGate struct {
	slots chan struct{}
	users int
}

func newInFlight() *inFlight {
	return &inFlight{all: make(chan struct{}, maxInFlight), addresses: map[string]*addressGate{}}
}

// enter waits until a request may be worked on. leave must be called when that is done. The request arrives while it takes up
// nothing but its own address's share: a body that never comes is waited for at nobody else's expense.
func (f *inFlight) enter(ctx context.Context, r *http.Request, arrive func() error) (leave func(), err error) {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	gate := f.gate(address)
	if gate == nil {
		return nil, later(protocol.ReasonInternal, 2, "too many requests of this address at a time")
	}
	if err := take(ctx, gate.slots); err != nil {
		f.forget(address, gate)
		return nil, err
	}
	if err = arrive(); err == nil {
		err = take(ctx, f.all)
	}
	if err != nil {
		<-gate.slots
		f.forget(address, gate)
		return nil, err
	}
	return func() {
		<-f.all
		<-gate.slots
		f.forget(address, gate)
	}, nil
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return later(protocol.ReasonInternal, 2, "too many requests at a time")
	}
}

// gate of an address, or nil when too many of it wait already.
func (f *inFlight) gate(address string) *addressGate {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate, ok := f.addresses[address]
	if !ok {
		gate = &addressGate{slots: make(chan struct{}, maxPerAddress)}
		f.addresses[address] = gate
	}
	if gate.users >= maxPerAddress+maxWaiting {
		return nil
	}
	gate.users++
	return gate
}

func (f *inFlight) forget(address string, gate *addressGate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gate.users--; gate.users == 0 {
		delete(f.addresses, address)
	}
}
