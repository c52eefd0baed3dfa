package sealing

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"strconv"
	"strings"
)

// macPrefix begins the MAC of a document: mac.v1.<kid of the key>.<b64 of the MAC>.
const macPrefix = "mac.v1."

// Ring are the keys of one owner, of which a key may be on its way out: the first one wraps and authenticates, and
// each of them opens what names it. Nothing is ever tried against several.
type Ring []Key

// First is the key that is used for what is new. The zero Key, which does nothing, of an empty ring.
func (r Ring) First() Key {
	if len(r) == 0 {
		return Key{}
	}
	return r[0]
}

// Find returns the key of a name.
func (r Ring) Find(kid string) (Key, error) {
	for _, k := range r {
		if k.kid == kid {
			return k, nil
		}
	}
	return Key{}, ErrUnknownKey
}

// KIDs names the keys, the first one first.
func (r Ring) KIDs() []string {
	var out []string
	for _, k := range r {
		out = append(out, k.kid)
	}
	return out
}

// Wrap encrypts another key under the first one.
func (r Ring) Wrap(random io.Reader, child Key, purpose Purpose, ids ...string) (string, error) {
	return r.First().Wrap(random, child, purpose, ids...)
}

// WrapBytes encrypts a secret that is no Key under the first one.
func (r Ring) WrapBytes(random io.Reader, kid string, secret []byte, purpose Purpose, ids ...string) (string, error) {
	return r.First().WrapBytes(random, kid, secret, purpose, ids...)
}

// Unwrap opens a wrapped key with the one that it names. ErrUnknownKey when that is not in the ring.
func (r Ring) Unwrap(wrapped string, purpose Purpose, ids ...string) (Key, error) {
	key, err := r.wrapping(wrapped)
	if err != nil {
		return Key{}, err
	}
	return key.Unwrap(wrapped, purpose, ids...)
}

// UnwrapBytes opens a wrapped secret with the key that it names.
func (r Ring) UnwrapBytes(wrapped string, purpose Purpose, ids ...string) (kid string, secret []byte, err error) {
	key, err := r.wrapping(wrapped)
	if err != nil {
		return "", nil, err
	}
	return key.UnwrapBytes(wrapped, purpose, ids...)
}

func (r Ring) wrapping(wrapped string) (Key, error) {
	kid, err := WrappingKID(wrapped)
	if err != nil {
		return Key{}, err
	}
	return r.Find(kid)
}

// Encrypted returns the key that a value of an encrypted Secret names.
func (r Ring) Encrypted(text string) (Key, error) {
	rest, ok := strings.CutPrefix(text, encPrefix)
	kid, _, found := strings.Cut(rest, ".")
	if !ok || !found || !isKID(kid) {
		return Key{}, ErrMalformed
	}
	return r.Find(kid)
}

// DocumentMAC authenticates a document of the keys' namespace under the first key: what it is, the Secret that it
// lies in, how often it was written, and every byte of it.
func (r Ring) DocumentMAC(format, secret string, generation int64, document []byte) (string, error) {
	key := r.First()
	if len(key.secret) != keySize {
		return "", ErrBadKey
	}
	return macPrefix + key.kid + "." + b64.EncodeToString(key.documentMAC(format, secret, generation, document)), nil
}

// CheckDocument says whether a MAC is that of the document, under the key of the ring that it names.
func (r Ring) CheckDocument(mac, format, secret string, generation int64, document []byte) error {
	kid, sum, err := parseMAC(mac)
	if err != nil {
		return err
	}
	key, err := r.Find(kid)
	if err != nil {
		return err
	}
	if !hmac.Equal(sum, key.documentMAC(format, secret, generation, document)) {
		return ErrDoesNotOpen
	}
	return nil
}

// MACKID names the key that a document was authenticated with.
func MACKID(mac string) (string, error) {
	kid, _, err := parseMAC(mac)
	return kid, err
}

func parseMAC(mac string) (kid string, sum []byte, err error) {
	rest, ok := strings.CutPrefix(mac, macPrefix)
	kid, text, found := strings.Cut(rest, ".")
	if !ok || !found || !isKID(kid) {
		return "", nil, ErrMalformed
	}
	sum, err = decode64(text)
	return kid, sum, err
}

func (k Key) documentMAC(format, secret string, generation int64, document []byte) []byte {
	sub := hmac.New(sha256.New, k.secret)
	sub.Write([]byte("lethe/document-key/v1"))
	mac := hmac.New(sha256.New, sub.Sum(nil))
	mac.Write(lp(format, secret, strconv.FormatInt(generation, 10), string(document)))
	return mac.Sum(nil)
}
