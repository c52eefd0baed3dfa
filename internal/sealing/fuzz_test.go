package sealing

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/test/fuzz"
)

var fuzzPlace = Place{Realm: "test", Tenant: "acme", Namespace: "acme-bots", Kind: KindBotDeployment, Name: "support", Key: "telegram", Version: 3}

// FuzzSealed: a text is refused without being repeated, or it is a sealed value whose parts are in the only order
// they can be; and none opens but what was sealed.
func FuzzSealed(f *testing.F) {
	key, err := GeneratePrivateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := Seal(key.Public(), fuzzPlace, []byte("4711:canary"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good + ".")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if piece := fuzz.Repeated(err, text); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err != nil {
			return
		}
		again, err := e.Hint.encode()
		if err != nil {
			t.Fatalf("a hint that was read cannot be written: %v", err)
		}
		parts := strings.Split(strings.TrimPrefix(text, sealPrefix), ".")
		if whole := strings.Join([]string{e.KID, suiteToken, parts[2], b64.EncodeToString(e.enc), b64.EncodeToString(e.ct)}, "."); sealPrefix+whole != text {
			t.Fatal("two texts are read as one value")
		}
		if hint, err := decodeHint(again); err != nil || hint != e.Hint {
			t.Fatalf("the hint is %+v, and then %+v (%v)", e.Hint, hint, err)
		}
		plain, err := e.Open(key, fuzzPlace)
		if err == nil && (text != good || string(plain) != "4711:canary") {
			t.Fatal("something opens that was not sealed")
		}
	})
}

// FuzzWrapped: the same for wrapped keys and for encrypted values.
func FuzzWrapped(f *testing.F) {
	parent, err := NewKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := parent.WrapBytes(rand.Reader, strings.Repeat("0", 16), []byte("a secret of thirty-two bytes 123"), PurposeCA, "test")
	if err != nil {
		f.Fatal(err)
	}
	owner := Owner{}
	value, err := parent.EncryptValue(rand.Reader, owner, "telegram", 3, []byte("4711:canary"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(value)
	f.Fuzz(func(t *testing.T, text string) {
		_, secret, err := parent.UnwrapBytes(text, PurposeCA, "test")
		if piece := fuzz.Repeated(err, text); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err == nil && (text != good || !bytes.Equal(secret, []byte("a secret of thirty-two bytes 123"))) {
			t.Fatal("something opens that was not wrapped")
		}
		plain, version, err := parent.DecryptVersioned(owner, "telegram", text)
		if piece := fuzz.Repeated(err, text); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err == nil && (text != value || string(plain) != "4711:canary" || version != 3) {
			t.Fatal("something opens that was not encrypted")
		}
	})
}
