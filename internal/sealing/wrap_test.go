package sealing

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func fixedKEK(t testing.TB, b byte) Key {
	t.Helper()
	k, err := ParseKEK([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize)) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseKEK(t *testing.T) {
	want := fixedKEK(t, 0xfb)
	raw := bytes.Repeat([]byte{0xfb}, keySize)
	for _, text := range []string{base64.RawStdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw),
		" " + base64.StdEncoding.EncodeToString(raw) + "\r\n"} {
		got, err := ParseKEK([]byte(text))
		if err != nil || got.KID() != want.KID() || !bytes.Equal(got.secret, raw) {
			t.Errorf("%q: %v", text[:4], err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "too short": base64.StdEncoding.EncodeToString(raw[1:]), "too long": base64.StdEncoding.EncodeToString(append(raw, 1)),
		"raw bytes": string(raw), "hex": strings.Repeat("fb", keySize), "folded": base64.StdEncoding.EncodeToString(raw)[:20] + "\n" + base64.StdEncoding.EncodeToString(raw)[20:],
	} {
		if _, err := ParseKEK([]byte(text)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: want ErrBadKey, got %v", name, err)
		}
	}
}

func TestWrap(t *testing.T) {
	kek, other := fixedKEK(t, 1), fixedKEK(t, 2)
	child, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := kek.Wrap(rand.Reader, child, PurposeTenant, "prod", "acme", "uid-1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := kek.Unwrap(wrapped, PurposeTenant, "prod", "acme", "uid-1")
	if err != nil || got.kid != child.kid || !bytes.Equal(got.secret, child.secret) {
		t.Fatalf("unwrapped to another key: %v", err)
	}
	if kid, err := WrappingKID(wrapped); err != nil || kid != kek.KID() {
		t.Errorf("wrapping kid %q, %v", kid, err)
	}
	for name, tc := range map[string]struct {
		key     Key
		text    string
		purpose Purpose
		ids     []string
		want    error
	}{
		"another KEK":             {other, wrapped, PurposeTenant, []string{"prod", "acme", "uid-1"}, ErrUnknownKey},
		"its name written over":   {other, strings.Replace(wrapped, kek.KID(), other.KID(), 1), PurposeTenant, []string{"prod", "acme", "uid-1"}, ErrDoesNotOpen},
		"another purpose":         {kek, wrapped, PurposeData, []string{"prod", "acme", "uid-1"}, ErrDoesNotOpen},
		"another realm":           {kek, wrapped, PurposeTenant, []string{"test", "acme", "uid-1"}, ErrDoesNotOpen},
		"another tenant":          {kek, wrapped, PurposeTenant, []string{"prod", "globex", "uid-1"}, ErrDoesNotOpen},
		"a tenant made again":     {kek, wrapped, PurposeTenant, []string{"prod", "acme", "uid-2"}, ErrDoesNotOpen},
		"a boundary moved":        {kek, wrapped, PurposeTenant, []string{"proda", "cme", "uid-1"}, ErrDoesNotOpen},
		"the key's name changed":  {kek, strings.Replace(wrapped, child.kid, "0000000000000000", 1), PurposeTenant, []string{"prod", "acme", "uid-1"}, ErrDoesNotOpen},
		"cut short":               {kek, wrapped[:len(wrapped)-70], PurposeTenant, []string{"prod", "acme", "uid-1"}, ErrMalformed},
		"something else entirely": {kek, "hello", PurposeTenant, nil, ErrMalformed},
	} {
		if _, err := tc.key.Unwrap(tc.text, tc.purpose, tc.ids...); !errors.Is(err, tc.want) {
			t.Errorf("%s: want %v, got %v", name, tc.want, err)
		}
	}
	for _, shown := range []string{fmt.Sprint(child), fmt.Sprintf("%#v", child), fmt.Sprintf("%+v", child), fmt.Sprintf("%v", fixedKey(t, 1)), fmt.Sprintf("%#v", fixedKey(t, 1))} {
		if !strings.HasPrefix(shown, "<") {
			t.Errorf("a key is printed as %q", shown)
		}
	}
}

func TestWrappedMutationFails(t *testing.T) {
	kek := fixedKEK(t, 1)
	child, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	owner := Owner{"prod", "acme", "acme-bots", KindBotDeployment, "uid-1"}
	wrapped, err := kek.Wrap(rand.Reader, child, PurposeSeal, "prod", "acme", "uid-1")
	if err != nil {
		t.Fatal(err)
	}
	value, err := child.EncryptValue(rand.Reader, owner, "telegram", 3, []byte("12345:token"))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		mutate := func(s, label string) string {
			at := rapid.IntRange(0, len(s)-1).Draw(t, label)
			c := rapid.SampledFrom([]byte("Aa0-_.=\n")).Draw(t, label+"c")
			return s[:at] + string(c) + s[at+1:]
		}
		if m := mutate(wrapped, "wrapped"); m != wrapped {
			if _, err := kek.Unwrap(m, PurposeSeal, "prod", "acme", "uid-1"); err == nil {
				t.Fatal("a changed wrapped key opens")
			}
		}
		if m := mutate(value, "value"); m != value {
			if _, err := child.DecryptValue(owner, "telegram", m); err == nil {
				t.Fatal("a changed value opens")
			}
		}
	})
}

func TestEncryptedValue(t *testing.T) {
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	owner := Owner{"prod", "acme", "acme-bots", KindBotDeployment, "uid-1"}
	text, err := key.EncryptValue(rand.Reader, owner, "telegram", 3, []byte("12345:token"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.DecryptValue(owner, "telegram", text); err != nil || string(got) != "12345:token" {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, change := range map[string]func(*Owner){
		"realm": func(o *Owner) { o.Realm += "x" }, "tenant": func(o *Owner) { o.Tenant += "x" }, "namespace": func(o *Owner) { o.Namespace += "x" },
		"kind": func(o *Owner) { o.Kind = KindDataStore }, "uid": func(o *Owner) { o.UID += "x" },
	} {
		o := owner
		change(&o)
		if _, err := key.DecryptValue(o, "telegram", text); !errors.Is(err, ErrDoesNotOpen) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := key.DecryptValue(owner, "other", text); !errors.Is(err, ErrDoesNotOpen) {
		t.Errorf("another credential: %v", err)
	}
	if _, err := key.DecryptValue(owner, "telegram", strings.Replace(text, ".3.", ".4.", 1)); !errors.Is(err, ErrDoesNotOpen) {
		t.Errorf("another version: %v", err)
	}
	{
		other := fixedKEK(t, 9)
		if _, err := other.DecryptValue(owner, "telegram", text); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("another key: %v", err)
		}
	}
}

func TestMAC(t *testing.T) {
	a, b := fixedKEK(t, 1), fixedKEK(t, 2)
	if again := fixedKEK(t, 1); a.MAC("x", "y") != again.MAC("x", "y") {
		t.Error("the same value has two names")
	}
	if a.MAC("x", "y") == b.MAC("x", "y") || a.MAC("xy", "") == a.MAC("x", "y") {
		t.Error("two values have one name")
	}
}

// TestDocumentMAC: what authenticates the documents of the keys' namespace cannot change later, and covers every part.
func TestDocumentMAC(t *testing.T) {
	kek, err := ParseKEK([]byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))
	if err != nil {
		t.Fatal(err)
	}
	// Written out once more, without the package's own helpers.
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	sub := hmac.New(sha256.New, secret)
	sub.Write([]byte("lethe/document-key/v1"))
	mac := hmac.New(sha256.New, sub.Sum(nil))
	mac.Write([]byte("\x00\x00\x00\x04" + "\x00\x00\x00\x08format/2" + "\x00\x00\x00\x08tenant-a" + "\x00\x00\x00\x0212" + "\x00\x00\x00\x07{\"a\":1}"))
	want := "mac.v1." + kek.KID() + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	ring := Ring{kek}
	got, err := ring.DocumentMAC("format/2", "tenant-a", 12, []byte(`{"a":1}`))
	if err != nil || got != want {
		t.Fatalf("got %s, want %s (%v)", got, want, err)
	}
	if err := ring.CheckDocument(want, "format/2", "tenant-a", 12, []byte(`{"a":1}`)); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"format":     ring.CheckDocument(want, "format/3", "tenant-a", 12, []byte(`{"a":1}`)),
		"secret":     ring.CheckDocument(want, "format/2", "tenant-b", 12, []byte(`{"a":1}`)),
		"generation": ring.CheckDocument(want, "format/2", "tenant-a", 13, []byte(`{"a":1}`)),
		"document":   ring.CheckDocument(want, "format/2", "tenant-a", 12, []byte(`{"a":2}`)),
		"shifted":    ring.CheckDocument(want, "format/2t", "enant-a", 12, []byte(`{"a":1}`)),
		"cut":        ring.CheckDocument(want[:len(want)-4], "format/2", "tenant-a", 12, []byte(`{"a":1}`)),
		"nothing":    ring.CheckDocument("", "format/2", "tenant-a", 12, []byte(`{"a":1}`)),
		"no keys":    Ring(nil).CheckDocument(want, "format/2", "tenant-a", 12, []byte(`{"a":1}`)),
	} {
		if err == nil {
			t.Errorf("another %s: accepted", name)
		}
	}
	if _, err := Ring(nil).DocumentMAC("f", "s", 1, nil); err == nil {
		t.Error("authenticated without a key")
	}
}

// TestRing: the first key wraps, every one opens what names it, and none is tried on anything else.
func TestRing(t *testing.T) {
	key := func() Key {
		k, err := NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	old, present, child := key(), key(), key()
	wrapped, err := Ring{old}.Wrap(rand.Reader, child, PurposeData, "a")
	if err != nil {
		t.Fatal(err)
	}
	both := Ring{present, old}
	if got, err := both.Unwrap(wrapped, PurposeData, "a"); err != nil || got.KID() != child.KID() {
		t.Errorf("under the older key: %v", err)
	}
	if _, err := (Ring{present}).Unwrap(wrapped, PurposeData, "a"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without the key: %v", err)
	}
	again, err := both.Wrap(rand.Reader, child, PurposeData, "a")
	if err != nil {
		t.Fatal(err)
	}
	if kid, err := WrappingKID(again); err != nil || kid != present.KID() {
		t.Errorf("wrapped under %s, want the first", kid)
	}
	if _, err := (Ring{}).Wrap(rand.Reader, child, PurposeData); err == nil {
		t.Error("wrapped under no key")
	}
	owner := Owner{Realm: "r", Tenant: "t", Namespace: "n", Kind: KindBotDeployment, UID: "u"}
	text, err := old.EncryptValue(rand.Reader, owner, "telegram", 1, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := both.Encrypted(text); err != nil || got.KID() != old.KID() {
		t.Errorf("a value names %s: %v", got.KID(), err)
	}
	if _, err := both.Encrypted("enc.v1.short"); !errors.Is(err, ErrMalformed) {
		t.Errorf("a broken value: %v", err)
	}
}
