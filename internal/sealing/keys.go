package sealing

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// Suite is the one suite there is, as Tenant.status.sealingKeys names it: X-Wing (ML-KEM-768 with X25519) as KEM,
// HKDF-SHA256, AES-256-GCM.
const Suite = "MLKEM768-X25519+HKDF-SHA256+AES-256-GCM"

// suiteToken is the same suite inside a sealed value, where a segment holds no plus sign.
const suiteToken = "xw"

// encSize and seedSize are the sizes in bytes of the suite's encapsulated key and of its private key.
const (
	encSize  = 1120
	seedSize = 32
)

// KID names a public key: the first 16 hex digits of the SHA-256 of its bytes.
func KID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

// PublicKey is a key to seal to. The zero value seals nothing.
type PublicKey struct {
	key hpke.PublicKey
	kid string
}

// ParsePublicKey reads a key as Tenant.status shows it: the name of the suite and base64url of the bytes.
func ParsePublicKey(suite, public string) (PublicKey, error) {
	if suite != Suite {
		return PublicKey{}, fmt.Errorf("%w: suite must be %s", ErrBadKey, Suite)
	}
	b, err := decode64(public)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: public key is not base64url", ErrBadKey)
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: public key of the wrong size or value", ErrBadKey)
	}
	return PublicKey{key: key, kid: KID(b)}, nil
}

// KID names the key.
func (p PublicKey) KID() string { return p.kid }

// Bytes of the key (1216 of them), nil for the zero value.
func (p PublicKey) Bytes() []byte {
	if p.key == nil {
		return nil
	}
	return p.key.Bytes()
}

// String is base64url of the bytes, as ParsePublicKey reads it.
func (p PublicKey) String() string { return b64.EncodeToString(p.Bytes()) }

// PrivateKey opens what was sealed to its public key.
type PrivateKey struct {
	key    hpke.PrivateKey
	public PublicKey
}

// GeneratePrivateKey makes a key from 32 bytes of random.
func GeneratePrivateKey(random io.Reader) (PrivateKey, error) {
	seed := make([]byte, seedSize)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return PrivateKey{}, fmt.Errorf("read randomness: %w", err)
	}
	return ParsePrivateKey(seed)
}

// ParsePrivateKey reads the 32 bytes that Bytes returns.
func ParsePrivateKey(seed []byte) (PrivateKey, error) {
	if len(seed) != seedSize {
		return PrivateKey{}, ErrBadKey
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil {
		return PrivateKey{}, ErrBadKey
	}
	pub := key.PublicKey()
	return PrivateKey{key: key, public: PublicKey{key: pub, kid: KID(pub.Bytes())}}, nil
}

// Public key that belongs to it.
func (k PrivateKey) Public() PublicKey { return k.public }

// Bytes of the key: 32, secret.
func (k PrivateKey) Bytes() ([]byte, error) {
	if k.key == nil {
		return nil, ErrBadKey
	}
	b, err := k.key.Bytes()
	if err != nil {
		return nil, ErrBadKey
	}
	return b, nil
}

// String hides the key from %v and %s.
func (k PrivateKey) String() string { return "<private key " + k.public.kid + ">" }

// GoString hides the key from %#v.
func (k PrivateKey) GoString() string { return k.String() }
