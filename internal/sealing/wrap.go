package sealing

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	gcmNonce = 12
	gcmTag   = 16
	keySize  = 32
)

// wrapPrefix begins every wrapped key: wrap.v1.<kid of the wrapping key>.<kid of the wrapped key>.<nonce ||
// ciphertext>.
const wrapPrefix = "wrap.v1."

// Purpose says what a wrapped key is for. It is authenticated, so that no key can be taken for another.
type Purpose string

const (
	PurposeTenant  Purpose = "tenant"  // a tenant's key under the KEK; bound to realm, tenant, tenant UID
	PurposeSeal    Purpose = "seal"    // the private key that values are sealed to, under the tenant's; bound to the same
	PurposeData    Purpose = "data"    // an object's data key under the tenant's; bound to the same and the object's UID
	PurposeDigest  Purpose = "digest"  // a key that names an object's sets, under the tenant's; bound like a data key
	PurposeCA      Purpose = "ca"      // the private key of the keyserver's CA under the KEK; bound to the realm
	PurposeChannel Purpose = "channel" // the key that channels' identities are digested with, under the KEK; bound to the realm
	// PurposePending is a private key of a deleted tenant under the KEK; bound to realm, tenant, the earlier tenant's
	// UID.
	PurposePending Purpose = "pending"
	PurposeReport  Purpose = "report" // the seed of the key that statements about reports are signed with, under the KEK; bound to the realm
	PurposeCanary  Purpose = "canary" // a known text under the KEK, to tell a wrong KEK; bound to the realm
)

// Key is a symmetric key: the KEK, a tenant's key or an object's data key. Children are random, never derived from
// their parent: a derived key could not be destroyed alone.
type Key struct {
	kid    string
	secret []byte
}

// NewKey makes a random key with a random name.
func NewKey(random io.Reader) (Key, error) {
	b := make([]byte, 8+keySize)
	if _, err := io.ReadFull(random, b); err != nil {
		return Key{}, fmt.Errorf("read randomness: %w", err)
	}
	return Key{kid: hex.EncodeToString(b[:8]), secret: b[8:]}, nil
}

// ParseKEK reads a key-encryption key: 32 bytes in base64 (standard or base64url, with or without padding); white space
// around it does not count. Its name is a keyed fingerprint, so that a wrong KEK is recognised before anything is
// opened.
func ParseKEK(text []byte) (Key, error) {
	s := strings.TrimRight(strings.TrimSpace(string(text)), "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	secret, err := enc.Strict().DecodeString(s)
	if err != nil || len(secret) != keySize || strings.ContainsAny(s, "\r\n") {
		return Key{}, fmt.Errorf("%w: a key-encryption key is 32 random bytes in base64, as `kubectl lethe keys generate-kek` makes it", ErrBadKey)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("lethe/kek-id/v1"))
	return Key{kid: hex.EncodeToString(mac.Sum(nil)[:8]), secret: secret}, nil
}

// KID names the key: 16 hex digits.
func (k Key) KID() string { return k.kid }

// String hides the key from %v and %s.
func (k Key) String() string { return "<key " + k.kid + ">" }

// GoString hides the key from %#v.
func (k Key) GoString() string { return k.String() }

// Wrap encrypts another key under this one. ids are what the purpose is bound to.
func (k Key) Wrap(random io.Reader, child Key, purpose Purpose, ids ...string) (string, error) {
	return k.WrapBytes(random, child.kid, child.secret, purpose, ids...)
}

// Unwrap is the reverse of Wrap. ErrUnknownKey when the text was wrapped under another key.
func (k Key) Unwrap(wrapped string, purpose Purpose, ids ...string) (Key, error) {
	kid, secret, err := k.UnwrapBytes(wrapped, purpose, ids...)
	if err != nil {
		return Key{}, err
	}
	if len(secret) != keySize {
		return Key{}, ErrDoesNotOpen
	}
	return Key{kid: kid, secret: secret}, nil
}

// WrapBytes wraps a secret that is no Key, for example a private key. kid names it: letters, digits, minus, underscore.
func (k Key) WrapBytes(random io.Reader, kid string, secret []byte, purpose Purpose, ids ...string) (string, error) {
	if !isToken(kid) {
		return "", ErrBadKey
	}
	ct, err := k.seal(random, secret, wrapAAD(purpose, k.kid, kid, ids))
	if err != nil {
		return "", err
	}
	return wrapPrefix + k.kid + "." + kid + "." + b64.EncodeToString(ct), nil
}

// UnwrapBytes is the reverse of WrapBytes and returns the name too.
func (k Key) UnwrapBytes(wrapped string, purpose Purpose, ids ...string) (kid string, secret []byte, err error) {
	parent, kid, ct, err := parseWrapped(wrapped)
	if err != nil {
		return "", nil, err
	}
	if parent != k.kid {
		return "", nil, ErrUnknownKey
	}
	secret, err = k.open(ct, wrapAAD(purpose, parent, kid, ids))
	return kid, secret, err
}

// WrappingKID names the key that a wrapped key needs, without opening it.
func WrappingKID(wrapped string) (string, error) {
	parent, _, _, err := parseWrapped(wrapped)
	return parent, err
}

func parseWrapped(wrapped string) (parent, kid string, ct []byte, err error) {
	rest, ok := strings.CutPrefix(wrapped, wrapPrefix)
	seg := strings.Split(rest, ".")
	if !ok || len(seg) != 3 || !isKID(seg[0]) || !isToken(seg[1]) {
		return "", "", nil, ErrMalformed
	}
	ct, err = decode64(seg[2])
	return seg[0], seg[1], ct, err
}

func wrapAAD(purpose Purpose, parent, kid string, ids []string) []byte {
	return lp(append([]string{"lethe/wrap/v1", string(purpose), parent, kid}, ids...)...)
}

// seal is AES-256-GCM with a random nonce in front. A key here encrypts far fewer than 2^32 messages.
func (k Key) seal(random io.Reader, plaintext, aad []byte) ([]byte, error) {
	gcm, err := k.gcm()
	if err != nil {
		return nil, err
	}
	out := make([]byte, gcmNonce, gcmNonce+len(plaintext)+gcmTag)
	if _, err := io.ReadFull(random, out); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return gcm.Seal(out, out, plaintext, aad), nil
}

func (k Key) open(ct, aad []byte) ([]byte, error) {
	gcm, err := k.gcm()
	if err != nil {
		return nil, err
	}
	if len(ct) < gcmNonce+gcmTag {
		return nil, ErrMalformed
	}
	pt, err := gcm.Open(nil, ct[:gcmNonce], ct[gcmNonce:], aad)
	if err != nil {
		return nil, ErrDoesNotOpen
	}
	return pt, nil
}

func (k Key) gcm() (cipher.AEAD, error) {
	if len(k.secret) != keySize {
		return nil, ErrBadKey
	}
	block, err := aes.NewCipher(k.secret)
	if err != nil {
		return nil, ErrBadKey
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errors.New("AES-256-GCM is not available")
	}
	return gcm, nil
}

// MAC names a value without giving it away, for telling whether it changed. It is keyed, so that nobody without the key
// can try values against it, and gone when the key is.
func (k Key) MAC(parts ...string) string {
	sub := hmac.New(sha256.New, k.secret)
	sub.Write([]byte("lethe/mac-key/v1"))
	mac := hmac.New(sha256.New, sub.Sum(nil))
	mac.Write(lp(parts...))
	return hex.EncodeToString(mac.Sum(nil))
}
