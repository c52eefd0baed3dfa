package whatsapp

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"sync"

	"github.com/coder/websocket"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/socket"
	"google.golang.org/protobuf/proto"
)

// wire carries frames over a websocket: three bytes of length, then the frame. The client's first has a header before it.
type wire struct {
	conn   *websocket.Conn
	began  bool
	unread []byte
}

func (w *wire) frame(ctx context.Context) ([]byte, error) {
	for {
		if !w.began && len(w.unread) >= len(socket.WAConnHeader) {
			if !bytes.HasPrefix(w.unread, socket.WAConnHeader) {
				return nil, errors.New("the client speaks another version")
			}
			w.began, w.unread = true, w.unread[len(socket.WAConnHeader):]
		}
		if w.began && len(w.unread) >= socket.FrameLengthSize {
			length := int(w.unread[0])<<16 | int(w.unread[1])<<8 | int(w.unread[2])
			if rest := w.unread[socket.FrameLengthSize:]; len(rest) >= length {
				w.unread = rest[length:]
				return rest[:length:length], nil
			}
		}
		_, more, err := w.conn.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("read from the client: %w", err)
		}
		w.unread = append(w.unread, more...)
	}
}

func (w *wire) send(ctx context.Context, data []byte) error {
	frame := append([]byte{byte(len(data) >> 16), byte(len(data) >> 8), byte(len(data))}, data...)
	if err := w.conn.Write(ctx, websocket.MessageBinary, frame); err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

func (w *wire) message(ctx context.Context) (*waWa6.HandshakeMessage, error) {
	frame, err := w.frame(ctx)
	if err != nil {
		return nil, err
	}
	m := &waWa6.HandshakeMessage{}
	if err := proto.Unmarshal(frame, m); err != nil {
		return nil, fmt.Errorf("read the handshake: %w", err)
	}
	return m, nil
}

// link carries nodes, sealed with the keys that the handshake gave. One goroutine receives.
type link struct {
	*wire
	from, to cipher.AEAD
	received uint32

	saying sync.Mutex
	sent   uint32
}

func (l *link) receive(ctx context.Context) (*waBinary.Node, error) {
	frame, err := l.frame(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := l.from.Open(nil, nonce(l.received), frame, nil)
	if err != nil {
		return nil, fmt.Errorf("open a frame: %w", err)
	}
	l.received++
	unpacked, err := waBinary.Unpack(plain)
	if err != nil {
		return nil, fmt.Errorf("unpack a frame: %w", err)
	}
	node, err := waBinary.Unmarshal(unpacked)
	if err != nil {
		return nil, fmt.Errorf("read a node: %w", err)
	}
	return node, nil
}

func (l *link) say(ctx context.Context, node waBinary.Node) error {
	plain, err := waBinary.Marshal(node)
	if err != nil {
		return fmt.Errorf("write a node: %w", err)
	}
	l.saying.Lock()
	defer l.saying.Unlock()
	l.sent++
	return l.send(ctx, l.to.Seal(nil, nonce(l.sent-1), plain, nil))
}
