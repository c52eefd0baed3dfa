package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"time"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"

	"go.mau.fi/libsignal/keys/prekey"
)

// heard is what the device has said to its friend, or that it has opened what the friend wrote, or why neither can be.
type heard struct {
	text   string
	opened bool
	err    error
}

// Ask writes to the device as its friend does, and waits for the answer, and until the device has said that it is done with what was written.
// What is written while the device is away waits for it.
func (s *Server) Ask(ctx context.Context, text string) (string, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	for len(s.heard) > 0 {
		<-s.heard // nobody asked for it
	}
	s.mu.Lock()
	s.mail = append(s.mail, text)
	active := s.active
	s.mu.Unlock()
	if active != nil {
		if err := s.deliver(ctx, active); err != nil {
			return "", err
		}
	}
	var all heard
	for all.text == "" || !all.opened {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the device has answered %q, and opened the message: %v: %w", all.text, all.opened, ctx.Err())
		case h := <-s.heard:
			if h.err != nil {
				return "", h.err
			}
			all.text, all.opened = all.text+h.text, all.opened || h.opened
		}
	}
	return all.text, nil
}

// deliver sends what waits for the device. Whether it was opened, the device says by a receipt, and by its answer.
func (s *Server) deliver(ctx context.Context, l *link) error {
	s.mu.Lock()
	mail := s.mail
	s.mail = nil
	s.mu.Unlock()
	for _, text := range mail {
		kind, sealed, err := s.friend.write(ctx, text, func() (*prekey.Bundle, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.uploaded.take()
		})
		if err != nil {
			return err
		}
		var id string
		s.count(func(st *Stats) {
			st.Sent++
			if kind == "pkmsg" {
				st.Begun++
			}
			id = fmt.Sprintf("3EB0%016X", st.Sent)
		})
		if err := l.say(ctx, waBinary.Node{Tag: "message", Attrs: waBinary.Attrs{
			"from": friendJID, "sender_lid": friendLID, "id": id, "type": "text", "t": fmt.Sprint(time.Now().Unix()), "notify": "Friend",
		}, Content: []waBinary.Node{{Tag: "enc", Attrs: waBinary.Attrs{"v": "2", "type": kind}, Content: sealed}}}); err != nil {
			return err
		}
	}
	return nil
}

// hear takes a message of the device, for its friend.
func (s *Server) hear(ctx context.Context, l *link, node *waBinary.Node) error {
	to, a := node.Attrs["to"], heard{err: errors.New("the device has sent a message without a part for its friend")}
	participants := node.GetChildByTag("participants")
	for _, participant := range participants.GetChildren() {
		if participant.Attrs["jid"] == friendJID && to == friendJID {
			a.text, a.err = s.friend.read(ctx, participant.GetChildByTag("enc"))
		}
	}
	if a.err == nil {
		s.count(func(st *Stats) { st.Answered++ })
	}
	s.tell(a)
	return l.say(ctx, waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"class": "message", "id": node.Attrs["id"], "from": to, "t": fmt.Sprint(time.Now().Unix())}})
}

// receipt takes what the device says about a message that it was sent.
func (s *Server) receipt(node *waBinary.Node) {
	if node.Attrs["type"] == "retry" {
		s.tell(heard{err: errors.New("the device could not open the message")})
		return
	}
	s.count(func(st *Stats) { st.Opened++ })
	s.tell(heard{opened: true})
}

func (s *Server) tell(a heard) {
	select {
	case s.heard <- a:
	default: // nobody asks
	}
}

// keep keeps what a device leaves for those who want to write to it.
func (s *Server) keep(node *waBinary.Node) {
	raw := func(tag string) []byte {
		b, _ := node.GetChildByTag(tag).Content.([]byte) // take says what is missing
		return b
	}
	list := node.GetChildByTag("list")
	s.mu.Lock()
	defer s.mu.Unlock()
	left := &uploaded{registration: raw("registration"), identity: raw("identity"), signed: node.GetChildByTag("skey")}
	if s.uploaded != nil {
		left.once = s.uploaded.once
	}
	left.once = append(left.once, list.GetChildren()...)
	s.uploaded = left
}

// devices answers which devices the accounts have that are asked for: the account's own phone is left out, which gets copies of what its device says.
func devices(usync waBinary.Node) waBinary.Node {
	var users []waBinary.Node
	list := usync.GetChildByTag("list")
	for _, user := range list.GetChildren() {
		asked, ok := user.Attrs["jid"].(types.JID)
		if !ok {
			continue
		}
		device := "0"
		if asked.User == jid.User || asked.User == lid.User {
			device = fmt.Sprint(jid.Device)
		}
		users = append(users, waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{"jid": asked}, Content: []waBinary.Node{{Tag: "devices", Content: []waBinary.Node{
			{Tag: "device-list", Content: []waBinary.Node{{Tag: "device", Attrs: waBinary.Attrs{"id": device}}}},
		}}}})
	}
	return waBinary.Node{Tag: "usync", Content: []waBinary.Node{{Tag: "list", Content: users}}}
}

// bundles answers what devices have left for those who write to them. Whoever writes to all devices of the account asks for its own as well.
func (s *Server) bundles(key waBinary.Node) waBinary.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	var users []waBinary.Node
	for _, user := range key.GetChildren() {
		answer := waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{"jid": user.Attrs["jid"]}, Content: []waBinary.Node{{Tag: "error", Attrs: waBinary.Attrs{"code": "404"}}}}
		if asked, ok := user.Attrs["jid"].(types.JID); ok && s.uploaded != nil && (asked == jid || asked == lid) {
			answer.Content = []waBinary.Node{
				{Tag: "registration", Content: s.uploaded.registration}, {Tag: "identity", Content: s.uploaded.identity}, s.uploaded.signed,
			}
		}
		users = append(users, answer)
	}
	return waBinary.Node{Tag: "list", Content: users}
}
