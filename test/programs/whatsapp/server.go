// Package whatsapp is a stand-in for WhatsApp's web server, behind a proxy that wants a password: as much of both as a program on
// go.mau.fi/whatsmeow needs to be paired, to log in, to log in again out of its store, and to talk with one friend in text, sealed from
// end to end. It knows a device again by its key. It has no groups, media, history or app state, and is no server for anything but tests.
package whatsapp

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	"google.golang.org/protobuf/proto"
)

// The device that every pairing gives: the second of one account.
var (
	jid = types.JID{User: "4915550100", Device: 2, Server: types.DefaultUserServer}
	lid = types.JID{User: "100000000000001", Device: 2, Server: types.HiddenUserServer}
)

// ErrUnknownCode says that no client waits with such a pairing code.
var ErrUnknownCode = errors.New("nobody waits with such a pairing code")

// Stats counts what happened.
type Stats struct {
	TurnedAway int `json:"turnedAway"` // by the proxy: no or a wrong password, or another host
	Hellos     int `json:"hellos"`     // handshakes that began
	Paired     int `json:"paired"`
	Logins     int `json:"logins"` // of the device that was paired, by its key
	Strangers  int `json:"strangers"`
	Sent       int `json:"sent"`     // messages of the friend
	Begun      int `json:"begun"`    // of these, such as begin a session
	Opened     int `json:"opened"`   // of these, such as the device says it has opened
	Answered   int `json:"answered"` // messages of the device, which the friend could open
}

// Server is the stand-in. ServeHTTP is the websocket.
type Server struct {
	root, static, account *keys.KeyPair
	chain                 []byte
	friend                *friend

	asking sync.Mutex // one question at a time
	heard  chan heard

	mu       sync.Mutex
	waiting  map[string]chan<- scanned // by the first part of a pairing code
	device   []byte                    // the paired device's public key
	uploaded *uploaded                 // its keys, for those who write to it
	active   *link                     // to it, once it wants messages
	mail     []string                  // for it, until then
	stats    Stats
}

// scanned is what a phone reads from a pairing code.
type scanned struct{ identity, secret []byte }

// New returns a server that nobody is paired with.
func New(now time.Time) (*Server, error) {
	s := &Server{root: keys.NewKeyPair(), static: keys.NewKeyPair(), account: keys.NewKeyPair(), waiting: map[string]chan<- scanned{}, friend: newFriend(), heard: make(chan heard, 8)}
	var err error
	s.chain, err = chain(s.root, s.static, now)
	return s, err
}

// Root is the key that signs the server's own, in hex.
func (s *Server) Root() string { return hex.EncodeToString(s.root.Pub[:]) }

// Stats returns what was counted.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Server) count(what func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what(&s.stats)
}

// Scan is the phone: it reads a pairing code, and the client that shows it is paired.
func (s *Server) Scan(code string) error {
	code = strings.TrimSpace(code)
	fields := strings.Split(code[strings.LastIndexByte(code, '#')+1:], ",") // some versions put a link before it
	if len(fields) < 4 {
		return errors.New("that is no pairing code")
	}
	identity, errIdentity := base64.StdEncoding.DecodeString(fields[2])
	secret, errSecret := base64.StdEncoding.DecodeString(fields[3])
	if err := errors.Join(errIdentity, errSecret); err != nil {
		return errors.New("that is no pairing code")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	phone := s.waiting[fields[0]]
	if phone == nil {
		return ErrUnknownCode
	}
	delete(s.waiting, fields[0])
	phone <- scanned{identity, secret}
	return nil
}

// ServeHTTP is /ws/chat.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/ws/chat" {
		http.NotFound(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer func() { _ = conn.CloseNow() }() // the client may have gone before
	conn.SetReadLimit(1 << 20)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// A client that goes away or says something strange has its connection closed, as there.
	_ = s.session(ctx, &wire{conn: conn})
}

func (s *Server) session(ctx context.Context, w *wire) error {
	l, client, who, err := s.handshake(ctx, w)
	if err != nil {
		return err
	}
	if who.GetUsername() == 0 {
		return s.pair(ctx, l, client)
	}
	s.mu.Lock()
	known := s.device != nil && hmac.Equal(s.device, client) && who.GetUsername() == jid.UserInt() && who.GetDevice() == uint32(jid.Device)
	s.mu.Unlock()
	if !known {
		s.count(func(st *Stats) { st.Strangers++ })
		if err := l.say(ctx, waBinary.Node{Tag: "failure", Attrs: waBinary.Attrs{"reason": "401"}}); err != nil {
			return err
		}
	} else {
		s.count(func(st *Stats) { st.Logins++ })
		if err := l.say(ctx, waBinary.Node{Tag: "success", Attrs: waBinary.Attrs{"t": fmt.Sprint(time.Now().Unix()), "lid": lid}}); err != nil {
			return err
		}
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.active == l {
			s.active = nil
		}
	}()
	for {
		node, err := l.receive(ctx)
		if err != nil {
			return err
		}
		if known && node.Tag == "message" {
			err = s.hear(ctx, l, node)
		} else if known && node.Tag == "receipt" {
			s.receipt(node)
		} else if err = s.answer(ctx, l, node); err == nil && known && wantsMessages(node) {
			s.mu.Lock()
			s.active = l
			s.mu.Unlock()
			err = s.deliver(ctx, l)
		}
		if err != nil {
			return err
		}
	}
}

func wantsMessages(node *waBinary.Node) bool {
	_, ok := node.GetOptionalChildByTag("active")
	return ok && node.Attrs["xmlns"] == "passive"
}

// handshake ends with the client's own key, and what it says it is.
func (s *Server) handshake(ctx context.Context, w *wire) (*link, []byte, *waWa6.ClientPayload, error) {
	n, err := newNoise()
	if err != nil {
		return nil, nil, nil, err
	}
	hello, err := w.message(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	s.count(func(st *Stats) { st.Hellos++ })
	theirs, ours := hello.GetClientHello().GetEphemeral(), keys.NewKeyPair()
	n.authenticate(theirs)
	n.authenticate(ours.Pub[:])
	if err := n.mix(ours.Priv, theirs); err != nil {
		return nil, nil, nil, err
	}
	static := n.seal(s.static.Pub[:])
	if err := n.mix(s.static.Priv, theirs); err != nil {
		return nil, nil, nil, err
	}
	answer, err := proto.Marshal(&waWa6.HandshakeMessage{ServerHello: &waWa6.HandshakeMessage_ServerHello{
		Ephemeral: ours.Pub[:], Static: static, Payload: n.seal(s.chain),
	}})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("write the handshake: %w", err)
	}
	if err := w.send(ctx, answer); err != nil {
		return nil, nil, nil, err
	}
	finish, err := w.message(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := n.open(finish.GetClientFinish().GetStatic())
	if err != nil {
		return nil, nil, nil, err
	}
	if err := n.mix(ours.Priv, client); err != nil {
		return nil, nil, nil, err
	}
	payload, err := n.open(finish.GetClientFinish().GetPayload())
	if err != nil {
		return nil, nil, nil, err
	}
	who := &waWa6.ClientPayload{}
	if err := proto.Unmarshal(payload, who); err != nil {
		return nil, nil, nil, fmt.Errorf("read who the client is: %w", err)
	}
	from, to, err := n.ends()
	return &link{wire: w, from: from, to: to}, client, who, err
}

// answer answers what a client that has logged in asks for.
func (s *Server) answer(ctx context.Context, l *link, node *waBinary.Node) error {
	if kind := node.Attrs["type"]; node.Tag != "iq" || (kind != "get" && kind != "set") {
		return nil
	}
	answer := waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"id": node.Attrs["id"], "from": types.ServerJID, "type": "result"}}
	if _, ok := node.GetOptionalChildByTag("count"); ok {
		answer.Content = []waBinary.Node{{Tag: "count", Attrs: waBinary.Attrs{"value": fmt.Sprint(s.left())}}}
	} else if usync, ok := node.GetOptionalChildByTag("usync"); ok {
		answer.Content = []waBinary.Node{devices(usync)}
	} else if key, ok := node.GetOptionalChildByTag("key"); ok {
		answer.Content = []waBinary.Node{s.bundles(key)}
	} else if _, ok := node.GetOptionalChildByTag("skey"); ok {
		s.keep(node)
	}
	return l.say(ctx, answer)
}

func (s *Server) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploaded == nil {
		return 0
	}
	return len(s.uploaded.once)
}

// pair hands out pairing codes, waits for one to be scanned, and makes the client a device of the account.
func (s *Server) pair(ctx context.Context, l *link, client []byte) error {
	phone := make(chan scanned, 1)
	var refs []waBinary.Node
	s.mu.Lock()
	for range 6 {
		ref := rand.Text()
		s.waiting[ref] = phone
		refs = append(refs, waBinary.Node{Tag: "ref", Content: []byte(ref)})
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, ref := range refs {
			delete(s.waiting, string(ref.Content.([]byte)))
		}
	}()
	iq := func(id string, content waBinary.Node) waBinary.Node {
		return waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "set", "id": id, "xmlns": "md", "t": fmt.Sprint(time.Now().Unix())},
			Content: []waBinary.Node{content}}
	}
	if err := l.say(ctx, iq("1", waBinary.Node{Tag: "pair-device", Content: refs})); err != nil {
		return err
	}
	nodes, failed := make(chan *waBinary.Node), make(chan error, 1)
	go func() {
		for {
			node, err := l.receive(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case nodes <- node:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case read := <-phone:
			content, err := s.success(read)
			if err != nil {
				return err
			}
			if err := l.say(ctx, iq("2", content)); err != nil {
				return err
			}
		case node := <-nodes:
			if _, ok := node.GetOptionalChildByTag("pair-device-sign"); !ok {
				if err := s.answer(ctx, l, node); err != nil {
					return err
				}
				continue
			}
			s.mu.Lock()
			s.device, s.uploaded = client, nil
			s.stats.Paired++
			s.mu.Unlock()
			// The device logs in with a connection of its own, after it has closed this one.
			if err := l.say(ctx, waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{"code": "515"}}); err != nil {
				return err
			}
		}
	}
}

// success is what makes the client whose code was scanned a device: signed by the account, and with the code's own secret.
func (s *Server) success(read scanned) (waBinary.Node, error) {
	details, err := proto.Marshal(&waAdv.ADVDeviceIdentity{RawID: proto.Uint32(1), Timestamp: proto.Uint64(uint64(time.Now().Unix())), KeyIndex: proto.Uint32(1)})
	if err != nil {
		return waBinary.Node{}, fmt.Errorf("write the device: %w", err)
	}
	signed, err := proto.Marshal(&waAdv.ADVSignedDeviceIdentity{
		Details: details, AccountSignatureKey: s.account.Pub[:],
		AccountSignature: sign(s.account, append(append([]byte{6, 0}, details...), read.identity...)),
	})
	if err != nil {
		return waBinary.Node{}, fmt.Errorf("write the device: %w", err)
	}
	mac := hmac.New(sha256.New, read.secret)
	mac.Write(signed)
	identity, err := proto.Marshal(&waAdv.ADVSignedDeviceIdentityHMAC{Details: signed, HMAC: mac.Sum(nil)})
	if err != nil {
		return waBinary.Node{}, fmt.Errorf("write the device: %w", err)
	}
	return waBinary.Node{Tag: "pair-success", Content: []waBinary.Node{
		{Tag: "device-identity", Content: identity},
		{Tag: "device", Attrs: waBinary.Attrs{"jid": jid, "lid": lid}},
		{Tag: "platform", Attrs: waBinary.Attrs{"name": "android"}},
	}}, nil
}
