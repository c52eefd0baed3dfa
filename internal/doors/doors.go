// Package doors lets connections in: how many, whose, for how long, and what may be said over them. It knows nothing of
// what is asked: the keyserver and the manager put their handlers behind it (docs/design/0006-doors.md).
//
// A connection is anonymous until a request over it has shown by a token who asks. Anonymous ones are many and cost
// little: they are counted from accept on, before TLS, and when there are too many, one that has done the least is
// closed for the newcomer. Those that are known have places of their own, which no anonymous one can take.
package doors

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Limits of a door. The product of the number of connections and of what one may hold is the memory that it can cost.
type Limits struct {
	// Anonymous is how many connections there may be that have not shown who they are, PerSource how many from one
	// address.
	Anonymous, PerSource int
	// Known is how many there may be that have, PerName how many of one name.
	Known, PerName int
	// Reserved is how many more there may be of the names that are reserved: nobody else can take these places.
	Reserved int
	// Starts is how many new connections are let in in a second, before TLS: a handshake costs processor time. Those
	// that are too early wait, not one byte of theirs read, and their addresses take turns. Waiting is how many may
	// wait, WaitingPerSource how many of one address.
	Starts                    Pace
	Waiting, WaitingPerSource int
	// Wire is how many bytes are read from a connection, TLS included, until a request over it has been answered.
	Wire int64
}

// Connections is how many there can be in all.
func (l Limits) Connections() int { return l.Anonymous + l.Known + l.Reserved }

// What the kernel holds for one connection: it takes twice of what it is asked for.
const (
	receiveBuffer = 16 << 10
	sendBuffer    = 64 << 10
)

// Why connections are closed or turned away, as metrics have it.
const (
	CauseSource = "Source" // its address had its share
	CauseFull   = "Full"   // there were too many anonymous connections
	CauseName   = "Name"   // its name had its share
	CauseKnown  = "Known"  // there were too many that are known
	CauseWire   = "Wire"   // it sent more than a request can have
	CausePace   = "Pace"   // too many came at a time, and its turn did not come
)

// patience is how long a new connection waits for its turn. Our clients give a handshake 5 s.
const patience = 3 * time.Second

// Listener lets connections in by its limits.
type Listener struct {
	net.Listener
	door    string
	limits  Limits
	clock   clock.PassiveClock
	metrics *Metrics

	starts   *Queue
	starting sync.Once
	arrivals chan arrival
	closing  context.Context //nolint:containedctx // the listener's own life, which no caller of net.Listener can give
	end      context.CancelFunc

	mu    sync.Mutex
	table table
}

// arrival is what Accept returns.
type arrival struct {
	conn *Conn
	err  error
}

// Listen puts limits on a listener. door is its name in the metrics.
func Listen(l net.Listener, door string, limits Limits, c clock.WithDelayedExecution, m *Metrics) *Listener {
	starts := QueueLimits{Places: limits.Connections() + limits.Waiting, PerName: limits.Connections() + limits.Waiting,
		Waiting: limits.Waiting, WaitingPerName: limits.WaitingPerSource, Pace: limits.Starts}
	closing, end := context.WithCancel(context.Background())
	return &Listener{Listener: l, door: door, limits: limits, clock: c, metrics: m, table: newTable(limits), starts: NewQueue(starts, c),
		arrivals: make(chan arrival), closing: closing, end: end}
}

// Accept returns the next connection that may come in.
func (l *Listener) Accept() (net.Conn, error) {
	l.starting.Do(func() { go l.receive() })
	select {
	case a := <-l.arrivals:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-l.closing.Done():
		return nil, net.ErrClosed
	}
}

// Close turns away those that wait, too.
func (l *Listener) Close() error {
	l.end()
	return l.Listener.Close() //nolint:wrapcheck // a net.Listener's
}

// receive takes what the kernel has, and lets each wait for its turn. An error is told before the next try: http.Server
// pauses after one that passes.
func (l *Listener) receive() {
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			go l.let(raw)
			continue
		}
		select {
		case l.arrivals <- arrival{err: err}:
		case <-l.closing.Done():
			return
		}
	}
}

// let waits for a new connection's turn, and hands it over.
func (l *Listener) let(raw net.Conn) {
	if tcp, isTCP := raw.(*net.TCPConn); isTCP {
		// A kernel that does not do as it is asked keeps its own, larger ones.
		_ = errors.Join(tcp.SetReadBuffer(receiveBuffer), tcp.SetWriteBuffer(sendBuffer))
	}
	waits, cancel := context.WithTimeout(l.closing, patience)
	leave, err := l.starts.Enter(waits, source(raw.RemoteAddr()))
	cancel()
	if err != nil {
		if l.closing.Err() == nil {
			l.metrics.closed(l.door, CausePace)
		}
		drop(raw)
		return
	}
	leave()
	c := l.admit(raw)
	if c == nil {
		return
	}
	select {
	case l.arrivals <- arrival{conn: c}:
	case <-l.closing.Done():
		_ = c.Close() // nobody is left to tell
	}
}

// admit takes a connection in, at the expense of another one where that is fair, or turns it away.
func (l *Listener) admit(raw net.Conn) *Conn {
	c := &Conn{Conn: raw, listener: l, seat: &seat{source: source(raw.RemoteAddr()), since: l.clock.Now()}}
	c.left = l.limits.Wire
	c.seat.conn = c
	l.mu.Lock()
	out, reason, ok := l.table.admit(c.seat)
	l.observe()
	l.mu.Unlock()
	if out != nil {
		l.metrics.closed(l.door, reason)
		out.conn.abort()
	}
	if !ok {
		l.metrics.closed(l.door, reason)
		drop(raw)
		return nil
	}
	return c
}

// observe is called with the lock held.
func (l *Listener) observe() {
	l.metrics.open(l.door, "Anonymous", l.table.anonymous)
	l.metrics.open(l.door, "Known", l.table.known)
	l.metrics.open(l.door, "Reserved", l.table.reserved)
	_, waiting := l.starts.Load()
	l.metrics.open(l.door, "Waiting", waiting)
}

// Conn is a connection that was let in.
type Conn struct {
	net.Conn
	listener *Listener
	seat     *seat // under the listener's lock
	once     sync.Once

	mu   sync.Mutex
	left int64 // bytes that may still be read before a request is answered
}

var errWire = errors.New("more was sent than a request can have")

// Read is bounded: what a client announces or drips, in whatever layer, it never fills more memory than a request may.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	left := c.left
	c.mu.Unlock()
	if left <= 0 {
		c.listener.metrics.closed(c.listener.door, CauseWire)
		return 0, errWire
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), left)])
	c.mu.Lock()
	c.left -= int64(n)
	first := left == c.listener.limits.Wire && n > 0
	c.mu.Unlock()
	if first {
		c.rise(spoke)
	}
	return n, err //nolint:wrapcheck // an io.Reader's
}

// Widen lets so many bytes more be read before this request's answer.
func (c *Conn) Widen(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left += n
}

// Close gives the place back.
func (c *Conn) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close() //nolint:wrapcheck // a net.Conn's
}

func (c *Conn) leave() {
	c.listener.mu.Lock()
	c.listener.table.remove(c.seat)
	c.listener.observe()
	c.listener.mu.Unlock()
}

// abort closes without a farewell: nothing of the connection stays in the kernel. Its place is free already.
func (c *Conn) abort() {
	c.once.Do(func() {})
	drop(c.Conn)
}

func drop(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	// Nobody is left to tell that it failed.
	_ = c.Close()
}

// rise notes that the connection has got so far.
func (c *Conn) rise(to rank) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.seat.rank = max(c.seat.rank, to)
}

// begin notes a whole request, and end its answer: then the next one may be sent.
func (c *Conn) begin() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.seat.rank, c.seat.busy = asked, true
}

func (c *Conn) end() {
	c.mu.Lock()
	c.left = c.listener.limits.Wire
	c.mu.Unlock()
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.seat.rank, c.seat.busy, c.seat.used = spoke, false, c.listener.clock.Now()
}

// Source is the address that the connection came from, as it is counted.
func (c *Conn) Source() string { return c.seat.source }

// Name under which the connection is known, "" of an anonymous one.
func (c *Conn) Name() string {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	return c.seat.name
}

// Prove makes an anonymous connection known by the name that its token has shown. It is false where that name, or all
// together, have their share and are at work: the connection then stays anonymous.
func (c *Conn) Prove(name string, reserved bool) bool {
	l := c.listener
	l.mu.Lock()
	out, reason, ok := l.table.prove(c.seat, name, reserved)
	l.observe()
	l.mu.Unlock()
	if out != nil {
		l.metrics.closed(l.door, reason)
		out.conn.abort()
	}
	return ok
}

// age of the connection.
func (c *Conn) age() time.Duration { return c.listener.clock.Since(c.seat.since) }

// source counts an IPv6 address that maps an IPv4 one as that one.
func source(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return a.String()
	}
	return ip.Unmap().WithZone("").String()
}
