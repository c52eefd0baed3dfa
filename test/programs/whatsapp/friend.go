package whatsapp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/libsignal/keys/identity"
	"go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/protocol"
	"go.mau.fi/libsignal/session"
	"go.mau.fi/libsignal/util/optional"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	"google.golang.org/protobuf/proto"
)

// The account that writes to the device: it has a phone and nothing else.
var (
	friendJID = types.JID{User: "4915550199", Server: types.DefaultUserServer}
	friendLID = types.JID{User: "100000000000002", Server: types.HiddenUserServer}
)

// friend is a phone that writes to the device, with Signal's sessions, which the server cannot read into.
type friend struct {
	mu   sync.Mutex
	self *store.Device
}

func newFriend() *friend {
	kept := &memory{NoopStore: &store.NoopStore{}, identities: map[string][32]byte{}, sessions: map[string][]byte{}}
	return &friend{self: &store.Device{IdentityKey: keys.NewKeyPair(), RegistrationID: 1, Identities: kept, Sessions: kept, PreKeys: kept}}
}

func (f *friend) cipher() (*session.Builder, *session.Cipher) {
	builder := session.NewBuilderFromSignal(f.self, lid.SignalAddress(), store.SignalProtobufSerializer)
	return builder, session.NewCipher(builder, lid.SignalAddress())
}

// write seals a text for the device. Where there is no session yet it begins one with what the bundle function gives, once.
func (f *friend) write(ctx context.Context, text string, bundle func() (*prekey.Bundle, error)) (kind string, sealed []byte, err error) {
	plain, err := proto.Marshal(&waE2E.Message{Conversation: proto.String(text)})
	if err != nil {
		return "", nil, fmt.Errorf("write a message: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	builder, cipher := f.cipher()
	if known, err := f.self.ContainsSession(ctx, lid.SignalAddress()); err != nil {
		return "", nil, err
	} else if !known {
		theirs, err := bundle()
		if err != nil {
			return "", nil, err
		}
		if err := builder.ProcessBundle(ctx, theirs); err != nil {
			return "", nil, fmt.Errorf("begin a session: %w", err)
		}
	}
	message, err := cipher.Encrypt(ctx, append(plain, 1)) // one byte of padding
	if err != nil {
		return "", nil, fmt.Errorf("seal a message: %w", err)
	}
	if kind = "msg"; message.Type() == protocol.PREKEY_TYPE {
		kind = "pkmsg"
	}
	return kind, message.Serialize(), nil
}

// read opens what the device has sealed for this phone, in the session that the phone began.
func (f *friend) read(ctx context.Context, node waBinary.Node) (string, error) {
	sealed, ok := node.Content.([]byte)
	if !ok || node.Attrs["type"] != "msg" {
		return "", fmt.Errorf("the device has sent a %v where its friend began the session", node.Attrs["type"])
	}
	message, err := protocol.NewSignalMessageFromBytes(sealed, store.SignalProtobufSerializer.SignalMessage)
	if err != nil {
		return "", fmt.Errorf("read a message: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, cipher := f.cipher()
	plain, err := cipher.Decrypt(ctx, message)
	if err != nil {
		return "", fmt.Errorf("open a message: %w", err)
	}
	if len(plain) == 0 || int(plain[len(plain)-1]) > len(plain) {
		return "", errors.New("a message has no padding")
	}
	said := &waE2E.Message{}
	if err := proto.Unmarshal(plain[:len(plain)-int(plain[len(plain)-1])], said); err != nil {
		return "", fmt.Errorf("read a message: %w", err)
	}
	return said.GetConversation(), nil
}

// uploaded is what a device has left with the server, for those who want to write to it.
type uploaded struct {
	registration, identity []byte
	signed                 waBinary.Node
	once                   []waBinary.Node
}

// take makes a bundle with a key that nobody gets again.
func (u *uploaded) take() (*prekey.Bundle, error) {
	if u == nil || len(u.once) == 0 {
		return nil, errors.New("the device has left no keys")
	}
	id, key, err := public(u.once[0])
	if err != nil {
		return nil, err
	}
	u.once = u.once[1:]
	signedID, signed, err := public(u.signed)
	if err != nil {
		return nil, err
	}
	signature, ok := u.signed.GetChildByTag("signature").Content.([]byte)
	if !ok || len(signature) != 64 || len(u.registration) != 4 || len(u.identity) != 32 {
		return nil, errors.New("the device has left keys that are none")
	}
	return prekey.NewBundle(binary.BigEndian.Uint32(u.registration), uint32(lid.Device), optional.NewOptionalUint32(id), signedID, key, signed,
		[64]byte(signature), identity.NewKey(ecc.NewDjbECPublicKey([32]byte(u.identity)))), nil
}

func public(node waBinary.Node) (uint32, ecc.ECPublicKeyable, error) {
	id, okID := node.GetChildByTag("id").Content.([]byte)
	value, okValue := node.GetChildByTag("value").Content.([]byte)
	if !okID || !okValue || len(id) != 3 || len(value) != 32 {
		return 0, nil, errors.New("the device has left a key that is none")
	}
	return binary.BigEndian.Uint32(append([]byte{0}, id...)), ecc.NewDjbECPublicKey([32]byte(value)), nil
}

// memory keeps a phone's sessions, and whom it knows.
type memory struct {
	*store.NoopStore
	identities map[string][32]byte
	sessions   map[string][]byte
}

func (m *memory) PutIdentity(_ context.Context, address string, key [32]byte) error {
	m.identities[address] = key
	return nil
}

func (m *memory) IsTrustedIdentity(_ context.Context, address string, key [32]byte) (bool, error) {
	known, ok := m.identities[address]
	return !ok || bytes.Equal(known[:], key[:]), nil
}

func (m *memory) GetSession(_ context.Context, address string) ([]byte, error) {
	return m.sessions[address], nil
}

func (m *memory) HasSession(_ context.Context, address string) (bool, error) {
	return m.sessions[address] != nil, nil
}

func (m *memory) PutSession(_ context.Context, address string, session []byte) error {
	m.sessions[address] = session
	return nil
}
