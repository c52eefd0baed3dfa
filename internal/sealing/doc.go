// Package sealing is the cryptography of Lethe: sealed values for Git, wrapped keys, encrypted Secrets, and answers
// that only one pod can read. It does no I/O and reads no clock; randomness is passed in wherever the standard library
// lets it be (HPKE takes its own).
//
// Every format names its version and its key, binds what it is and where it belongs into the authenticated data, and is
// frozen in docs/design/formats.md with test vectors in testdata. Nothing here tries several keys on one ciphertext.
//
// No error of this package holds a value or tells why a decryption failed: a wrong key, a wrong place that the hint
// does not show, and a flipped bit are all ErrDoesNotOpen.
package sealing

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Errors of this package. They are compared with errors.Is.
var (
	// ErrMalformed: the text is not of the format at all.
	ErrMalformed = errors.New("not of the expected form")
	// ErrDoesNotOpen: every cryptographic failure, whatever its cause.
	ErrDoesNotOpen = errors.New("does not open with this key in this place")
	// ErrUnknownKey: the text names a key other than the one given.
	ErrUnknownKey = errors.New("made for another key")
	// ErrBadKey: bytes that are no key, or a key of a suite that is not known.
	ErrBadKey = errors.New("not a key of a known suite")
)

// lp joins parts so that no two lists of parts give the same bytes: the count, then each part behind its length
// (32-bit big endian).
func lp(parts ...string) []byte {
	n := 4
	for _, p := range parts {
		n += 4 + len(p)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, n), uint32(len(parts)))
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// b64 is base64url without padding. Strict: bits that carry nothing must be zero, or one ciphertext would have
// several texts.
var b64 = base64.RawURLEncoding.Strict()

// decode64 reads base64url and nothing else: the standard decoder skips line breaks, which a frozen format must not.
func decode64(s string) ([]byte, error) {
	if s == "" || !isToken(s) {
		return nil, ErrMalformed
	}
	b, err := b64.DecodeString(s)
	if err != nil {
		return nil, ErrMalformed
	}
	return b, nil
}

// isToken says whether s is one segment of our texts: letters, digits, minus, underscore.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}
