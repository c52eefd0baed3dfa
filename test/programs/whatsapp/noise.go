package whatsapp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/whatsmeow/proto/waCert"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/util/keys"
	"google.golang.org/protobuf/proto"
)

// noise is the server's side of Noise_XX_25519_AESGCM_SHA256, as WhatsApp speaks it.
type noise struct {
	hash, salt []byte
	key        cipher.AEAD
	counter    uint32
}

func newNoise() (*noise, error) {
	start := []byte(socket.NoiseStartPattern)
	if len(start) != sha256.Size {
		return nil, fmt.Errorf("the pattern has %d bytes", len(start))
	}
	key, err := aead(start)
	if err != nil {
		return nil, err
	}
	n := &noise{hash: start, salt: start, key: key}
	n.authenticate(socket.WAConnHeader)
	return n, nil
}

func (n *noise) authenticate(data []byte) {
	sum := sha256.Sum256(append(append([]byte(nil), n.hash...), data...))
	n.hash = sum[:]
}

// mix takes what a private and a public key have in common into the key.
func (n *noise) mix(private *[32]byte, public []byte) error {
	ours, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return fmt.Errorf("read our key: %w", err)
	}
	theirs, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("read their key: %w", err)
	}
	shared, err := ours.ECDH(theirs)
	if err != nil {
		return fmt.Errorf("agree: %w", err)
	}
	first, second, err := n.expand(shared)
	if err != nil {
		return err
	}
	n.salt, n.counter = first, 0
	n.key, err = aead(second)
	return err
}

func (n *noise) expand(secret []byte) (first, second []byte, err error) {
	both, err := hkdf.Key(sha256.New, secret, n.salt, "", 64)
	if err != nil {
		return nil, nil, fmt.Errorf("derive keys: %w", err)
	}
	return both[:32], both[32:], nil
}

func (n *noise) seal(plain []byte) []byte {
	sealed := n.key.Seal(nil, nonce(n.counter), plain, n.hash)
	n.counter++
	n.authenticate(sealed)
	return sealed
}

func (n *noise) open(sealed []byte) ([]byte, error) {
	plain, err := n.key.Open(nil, nonce(n.counter), sealed, n.hash)
	if err != nil {
		return nil, fmt.Errorf("open a part of the handshake: %w", err)
	}
	n.counter++
	n.authenticate(sealed)
	return plain, nil
}

// ends are the keys for what the client sends, and for what it gets.
func (n *noise) ends() (from, to cipher.AEAD, err error) {
	first, second, err := n.expand(nil)
	if err != nil {
		return nil, nil, err
	}
	from, errFrom := aead(first)
	to, errTo := aead(second)
	return from, to, errors.Join(errFrom, errTo)
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	sealer, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	return sealer, nil
}

func nonce(counter uint32) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 8), counter)
}

// chain certifies a static key, by an intermediate, under a root.
func chain(root, static *keys.KeyPair, now time.Time) ([]byte, error) {
	middle := keys.NewKeyPair()
	from, to := proto.Uint64(uint64(now.Add(-time.Hour).Unix())), proto.Uint64(uint64(now.AddDate(1, 0, 0).Unix()))
	certify := func(by *keys.KeyPair, issuer, serial uint32, key *keys.KeyPair) (*waCert.CertChain_NoiseCertificate, error) {
		details, err := proto.Marshal(&waCert.CertChain_NoiseCertificate_Details{
			Serial: proto.Uint32(serial), IssuerSerial: proto.Uint32(issuer), Key: key.Pub[:], NotBefore: from, NotAfter: to,
		})
		if err != nil {
			return nil, fmt.Errorf("write a certificate: %w", err)
		}
		signature := sign(by, details)
		return &waCert.CertChain_NoiseCertificate{Details: details, Signature: signature}, nil
	}
	intermediate, err := certify(root, 0, 1, middle)
	if err != nil {
		return nil, err
	}
	leaf, err := certify(middle, 1, 2, static)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&waCert.CertChain{Leaf: leaf, Intermediate: intermediate})
}

func sign(by *keys.KeyPair, message []byte) []byte {
	signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*by.Priv), message)
	return signature[:]
}
