// Package leakscan looks for secrets where none may be: in etcd's files, in snapshots, on a node's disk, in logs and in
// objects. It looks for each value as it is, in hex, and in base64 of both alphabets at every alignment, so that a
// secret inside a larger document that was encoded as a whole is found too. Gzip streams are opened and searched as
// well.
//
// A finding names the secret, the form and the place. The value itself is in no finding and no error.
package leakscan

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// MinLength of a value in bytes. A shorter one would be found by chance, or its encoded forms would be too short to
// look for.
const MinLength = 12

// Needle is one secret to look for.
type Needle struct {
	// Name that findings use; it must not tell the value.
	Name string
	// Value in clear, at least MinLength bytes.
	Value []byte
}

// String hides the value from a stray %v.
func (n Needle) String() string { return n.Name }

// Finding is a place where a secret stands.
type Finding struct {
	Needle string `json:"needle"`
	Form   string `json:"form"` // raw, hex, base64 or base64url
	Place  string `json:"place"`
	Offset int64  `json:"offset"` // in the place, or in the gzip stream that begins there
}

// String is the finding for people.
func (f Finding) String() string {
	return fmt.Sprintf("%s (%s) in %s at byte %d", f.Needle, f.Form, f.Place, f.Offset)
}

// keyLength is how many bytes a pattern is first recognised by.
const keyLength = 8

type pattern struct {
	needle, form string
	bytes        []byte
}

// Scanner looks for a fixed set of secrets in one pass, however many they are.
type Scanner struct {
	byKey   map[uint64][]pattern
	filter  []uint64 // one bit for each hash of a pattern's first bytes: most places of a file need no more than a look at it
	longest int
}

// filterBits is chosen so that ten thousand patterns leave the filter nearly empty while it fits a processor's cache.
const filterBits = 21

// New prepares a scanner.
func New(needles []Needle) (*Scanner, error) {
	s := &Scanner{byKey: map[uint64][]pattern{}, filter: make([]uint64, 1<<filterBits/64)}
	for _, n := range needles {
		if len(n.Value) < MinLength {
			return nil, fmt.Errorf("secret %s has %d bytes: at least %d are needed to look for it", n.Name, len(n.Value), MinLength)
		}
		for _, p := range forms(n) {
			key := binary.LittleEndian.Uint64(p.bytes)
			s.byKey[key] = append(s.byKey[key], p)
			h := hash(key)
			s.filter[h/64] |= 1 << (h % 64)
			s.longest = max(s.longest, len(p.bytes))
		}
	}
	return s, nil
}

func hash(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 >> (64 - filterBits) }

// forms are the patterns of a secret.
func forms(n Needle) []pattern {
	lower := []byte(hex.EncodeToString(n.Value))
	out := []pattern{
		{n.Name, "raw", n.Value},
		{n.Name, "hex", lower},
		{n.Name, "hex", bytes.ToUpper(lower)},
	}
	for before := range 3 {
		// With this many bytes before it, the value's own bits fill these characters alone; those at the edges also
		// hold bits of the neighbours.
		padded := append(make([]byte, before), n.Value...)
		first, last := (8*before+5)/6, 8*(before+len(n.Value))/6
		std := base64.RawStdEncoding.EncodeToString(padded)[first:last]
		url := base64.RawURLEncoding.EncodeToString(padded)[first:last]
		out = append(out, pattern{n.Name, "base64", []byte(std)})
		if url != std {
			out = append(out, pattern{n.Name, "base64url", []byte(url)})
		}
	}
	return out
}

// search reports every pattern that begins in the first `within` bytes of the buffer.
func (s *Scanner) search(buf []byte, within int, found func(p pattern, at int)) {
	end := min(within, len(buf)-keyLength+1)
	for i := 0; i < end; i++ {
		key := binary.LittleEndian.Uint64(buf[i:])
		h := hash(key)
		if s.filter[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, p := range s.byKey[key] {
			if bytes.HasPrefix(buf[i:], p.bytes) {
				found(p, i)
			}
		}
	}
}
