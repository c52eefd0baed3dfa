package sealing

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// crdRule is the rule that the API server checks on the fields that hold sealed values.
var crdRule = regexp.MustCompile(`^seal[.]v1([.][A-Za-z0-9_-]+){5}$`)

func fixedKey(t testing.TB, b byte) PrivateKey {
	t.Helper()
	k, err := ParsePrivateKey(bytes.Repeat([]byte{b}, seedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var botPlace = Place{Realm: "prod", Tenant: "acme", Namespace: "acme-bots", Kind: KindBotDeployment,
	Name: "support", Key: "telegram", Version: 3}

var storePlace = Place{Realm: "prod", Tenant: "acme", Namespace: "acme-bots", Kind: KindDataStore,
	Name: "chat", Key: PasswordKey, Version: 1, Destination: Destination{Type: "Postgres", Host: "db.acme.example",
		Port: 5432, Database: "chat", Username: "sweeper", CASHA256: "ab12"}}

func TestSealAndOpen(t *testing.T) {
	priv := fixedKey(t, 1)
	for name, place := range map[string]Place{"a bot's": botPlace, "a store's": storePlace} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 46, MaxPlaintext} {
				secret := bytes.Repeat([]byte("s"), size)
				sealed, err := Seal(priv.Public(), place, secret)
				if err != nil {
					t.Fatal(err)
				}
				if !crdRule.MatchString(sealed) || len(sealed) > 92160 {
					t.Errorf("%d bytes give a text of %d that the field does not take", size, len(sealed))
				}
				unversioned := place
				unversioned.Version = 0
				for _, p := range []Place{place, unversioned} {
					got, err := Open(priv, p, sealed)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, secret) {
						t.Error("opened to something else")
					}
				}
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	pub := fixedKey(t, 1).Public()
	for name, tc := range map[string]struct {
		change func(*Place)
		value  string
		want   string
	}{
		"no realm":                       {func(p *Place) { p.Realm = "" }, "x", "realm"},
		"no version":                     {func(p *Place) { p.Version = 0 }, "x", "version"},
		"another kind":                   {func(p *Place) { p.Kind = "Tenant" }, "x", "kind"},
		"a bot with a destination":       {func(p *Place) { p.Destination.Host = "h" }, "x", "destination"},
		"a store without one":            {func(p *Place) { p.Kind = KindDataStore }, "x", "destination"},
		"a name that no object can have": {func(p *Place) { p.Name = "a b" }, "x", "name"},
		"no value":                       {func(*Place) {}, "", "0"},
		"too large a value":              {func(*Place) {}, strings.Repeat("v", MaxPlaintext+1), "65537"},
	} {
		t.Run(name, func(t *testing.T) {
			p := botPlace
			tc.change(&p)
			sealed, err := Seal(pub, p, []byte(tc.value))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want an error naming %q, got %q, %v", tc.want, sealed, err)
			}
		})
	}
	if _, err := Seal(PublicKey{}, botPlace, []byte("x")); !errors.Is(err, ErrBadKey) {
		t.Errorf("no key: %v", err)
	}
}

// everyPlace returns places that differ from p in one field each.
func everyPlace(p Place) map[string]Place {
	out := map[string]Place{}
	add := func(name string, f func(*Place)) { q := p; f(&q); out[name] = q }
	add("realm", func(p *Place) { p.Realm += "x" })
	add("tenant", func(p *Place) { p.Tenant += "x" })
	add("namespace", func(p *Place) { p.Namespace += "x" })
	add("name", func(p *Place) { p.Name += "x" })
	add("key", func(p *Place) { p.Key += "x" })
	add("version", func(p *Place) { p.Version++ })
	if p.Kind == KindDataStore {
		add("type", func(p *Place) { p.Destination.Type += "x" })
		add("host", func(p *Place) { p.Destination.Host += "x" })
		add("port", func(p *Place) { p.Destination.Port++ })
		add("database", func(p *Place) { p.Destination.Database += "x" })
		add("username", func(p *Place) { p.Destination.Username += "x" })
		add("CA", func(p *Place) { p.Destination.CASHA256 += "x" })
		add("kind", func(p *Place) { p.Kind, p.Destination = KindBotDeployment, Destination{} })
	} else {
		add("kind", func(p *Place) { p.Kind, p.Destination = KindDataStore, storePlace.Destination })
	}
	return out
}

func TestOpensInNoOtherPlace(t *testing.T) {
	priv := fixedKey(t, 1)
	for _, place := range []Place{botPlace, storePlace} {
		sealed, err := Seal(priv.Public(), place, []byte("12345:token"))
		if err != nil {
			t.Fatal(err)
		}
		envelope, err := Parse(sealed)
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range everyPlace(place) {
			t.Run(place.Kind+" with another "+name, func(t *testing.T) {
				_, err := Open(priv, other, sealed)
				if name == "realm" {
					if !errors.Is(err, ErrDoesNotOpen) {
						t.Fatalf("want ErrDoesNotOpen, got %v", err)
					}
				} else if wrong := (*WrongPlaceError)(nil); !errors.As(err, &wrong) {
					t.Fatalf("want a WrongPlaceError, got %v", err)
				}
				// The same with a hint that was rewritten to match: only the cryptography is left to refuse it.
				hint, err := other.hint().encode()
				if err != nil {
					t.Fatal(err)
				}
				forged := strings.Replace(sealed, envelope.hintText, hint, 1)
				if _, err := Open(priv, other, forged); !errors.Is(err, ErrDoesNotOpen) {
					t.Errorf("with a forged hint: want ErrDoesNotOpen, got %v", err)
				}
				// And with the honest hint kept beside a forged place: nothing but the place itself is authenticated.
				if bytes.Equal(other.aad(hint), place.aad(hint)) {
					t.Error("two places have the same authenticated data")
				}
			})
		}
	}
}

func TestWrongPlaceSaysBoth(t *testing.T) {
	priv := fixedKey(t, 1)
	sealed, err := Seal(priv.Public(), botPlace, []byte("12345:token"))
	if err != nil {
		t.Fatal(err)
	}
	other := botPlace
	other.Namespace = "globex-bots"
	_, err = Open(priv, other, sealed)
	if err == nil || !strings.Contains(err.Error(), "sealed for namespace acme-bots, found in namespace globex-bots") {
		t.Errorf("got %v", err)
	}
}

// TestAnyMutationFails changes one character of a sealed value, or one part of its place, and expects never to see
// the value.
func TestAnyMutationFails(t *testing.T) {
	priv := fixedKey(t, 1)
	names := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,12}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		place := Place{Realm: names.Draw(t, "realm"), Tenant: names.Draw(t, "tenant"), Namespace: names.Draw(t, "namespace"),
			Kind: rapid.SampledFrom([]string{KindBotDeployment, KindDataStore}).Draw(t, "kind"), Name: names.Draw(t, "name"),
			Key: names.Draw(t, "key"), Version: rapid.Uint32Range(1, 1<<31).Draw(t, "version")}
		if place.Kind == KindDataStore {
			place.Destination = Destination{Type: "Postgres", Host: names.Draw(t, "host"), Port: rapid.Int32Range(1, 65535).Draw(t, "port"),
				Database: names.Draw(t, "database"), Username: names.Draw(t, "username"), CASHA256: names.Draw(t, "ca")}
		}
		plain := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "plain")
		sealed, err := Seal(priv.Public(), place, plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Open(priv, place, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("does not open in its own place: %v", err)
		}
		for name, other := range everyPlace(place) {
			if _, err := Open(priv, other, sealed); err == nil {
				t.Fatalf("opens with another %s", name)
			}
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		alphabet := []byte("ABCXYZabcxyz0189-_.=\n ")
		c := rapid.SampledFrom(alphabet).Draw(t, "char")
		if sealed[at] == c {
			return
		}
		mutated := sealed[:at] + string(c) + sealed[at+1:]
		if got, err := Open(priv, place, mutated); err == nil {
			t.Fatalf("opens to %d bytes with character %d changed", len(got), at)
		}
		unversioned := place
		unversioned.Version = 0
		if _, err := Open(priv, unversioned, mutated); err == nil {
			t.Fatalf("opens without a version with character %d changed", at)
		}
	})
}

// TestLastCharactersCount changes the last character of each segment to every other: bits of it that carry nothing must
// not be free, or one sealed value would have several texts.
func TestLastCharactersCount(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	priv := fixedKey(t, 1)
	free := 0
	for _, size := range []int{10, 11, 12} {
		sealed, err := Seal(priv.Public(), botPlace, bytes.Repeat([]byte("s"), size))
		if err != nil {
			t.Fatal(err)
		}
		for at := range sealed {
			if at+1 < len(sealed) && sealed[at+1] != '.' {
				continue
			}
			for i := range len(alphabet) {
				mutated := sealed[:at] + alphabet[i:i+1] + sealed[at+1:]
				if mutated == sealed {
					continue
				}
				if _, err := Open(priv, botPlace, mutated); err == nil {
					free++
				}
			}
		}
	}
	if free > 0 {
		t.Errorf("%d changed texts open", free)
	}
}

func TestBoundariesDoNotCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a/\x00]{0,3}`), 0, 5)
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		if bytes.Equal(lp(a...), lp(b...)) != slices.Equal(a, b) {
			t.Fatalf("%q and %q", a, b)
		}
	})
	if bytes.Equal(lp("ab", "c"), lp("a", "bc")) {
		t.Error("a boundary can be moved")
	}
}

func TestParseRefuses(t *testing.T) {
	priv := fixedKey(t, 1)
	good, err := Seal(priv.Public(), botPlace, []byte("12345:token"))
	if err != nil {
		t.Fatal(err)
	}
	seg := strings.Split(good, ".")
	with := func(i int, s string) string { c := slices.Clone(seg); c[i] = s; return strings.Join(c, ".") }
	for name, text := range map[string]string{
		"nothing":                       "",
		"a plaintext token":             "123456:AAE-canary-plaintext",
		"a plaintext that looks sealed": "seal.v1.my.secret.canary.pass.word",
		"another version":               with(1, "v2"),
		"a segment too few":             strings.Join(seg[:6], "."),
		"a segment too many":            good + ".x",
		"a kid of another form":         with(2, "ABCDEF0123456789"),
		"another suite":                 with(3, "x25519"),
		"a hint that is no JSON":        with(4, "eHl6"),
		"a hint with a name of spaces":  with(4, b64.EncodeToString([]byte(`{"tenant":"a b","namespace":"n","kind":"k","name":"n","key":"k","version":1}`))),
		"a hint without a version":      with(4, b64.EncodeToString([]byte(`{"tenant":"a","namespace":"n","kind":"k","name":"n","key":"k"}`))),
		"an encapsulated key cut short": with(5, seg[5][:100]),
		"a ciphertext cut short":        with(6, seg[6][:8]),
		"a line break":                  good + "\n",
		"padding":                       good + "=",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(text)
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("want ErrMalformed, got %v", err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Error("the error repeats the input")
			}
		})
	}
}

func TestOpenWithAnotherKey(t *testing.T) {
	sealed, err := Seal(fixedKey(t, 1).Public(), botPlace, []byte("12345:token"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fixedKey(t, 2), botPlace, sealed); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("want ErrUnknownKey, got %v", err)
	}
	if _, err := Open(PrivateKey{}, botPlace, sealed); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("no key: want ErrUnknownKey, got %v", err)
	}
	// The kid of another key written over it does not help that key.
	forged := strings.Replace(sealed, fixedKey(t, 1).Public().KID(), fixedKey(t, 2).Public().KID(), 1)
	if _, err := Open(fixedKey(t, 2), botPlace, forged); !errors.Is(err, ErrDoesNotOpen) {
		t.Errorf("want ErrDoesNotOpen, got %v", err)
	}
}

func TestPublicKeys(t *testing.T) {
	pub := fixedKey(t, 1).Public()
	got, err := ParsePublicKey(Suite, pub.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pub.Bytes(), got.Bytes()); diff != "" || got.KID() != pub.KID() {
		t.Errorf("read back as another key: %s", diff)
	}
	for name, tc := range map[string][2]string{
		"another suite":  {"X25519", pub.String()},
		"not base64":     {Suite, "!"},
		"cut short":      {Suite, pub.String()[:40]},
		"nothing at all": {Suite, ""},
	} {
		if _, err := ParsePublicKey(tc[0], tc[1]); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: want ErrBadKey, got %v", name, err)
		}
	}
}

func TestDestinationOf(t *testing.T) {
	const cert = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"
	spec := func(ca string, port int32) *v1alpha1.DataStoreSpec {
		return &v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{
			Host: "h", Port: port, Database: "d", Username: "u", CABundle: ca}}
	}
	if diff := cmp.Diff(Destination{Type: "Postgres", Host: "h", Port: 5432, Database: "d", Username: "u"}, DestinationOf(spec("", 0))); diff != "" {
		t.Errorf("without CA and port: %s", diff)
	}
	plain := DestinationOf(spec(cert, 1))
	if plain.CASHA256 == "" || plain != DestinationOf(spec("# a comment\n"+cert+"\n\n", 1)) {
		t.Error("a comment changes the digest")
	}
	for name, other := range map[string]string{"two": cert + cert, "none": "garbage", "another": strings.Replace(cert, "YWJj", "YWJk", 1)} {
		if plain == DestinationOf(spec(other, 1)) {
			t.Errorf("%s: the digest is the same", name)
		}
	}
	if DestinationOf(&v1alpha1.DataStoreSpec{Type: "Other"}) != (Destination{Type: "Other"}) {
		t.Error("a store without its union has a destination")
	}
}

func FuzzParse(f *testing.F) {
	priv := fixedKey(f, 1)
	// A committed value: each worker process must know the same one.
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		f.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		f.Fatal(err)
	}
	good := v.Sealed[0].Sealed
	for _, s := range []string{good, "", "seal.v1.....", "seal.v1.a.xw.e30.AA.AA", good[:len(good)-1]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			return
		}
		if !crdRule.MatchString(s) {
			t.Errorf("parsed what the API server refuses")
		}
		if e.Hint.check() != nil {
			t.Error("parsed a hint that holds no names")
		}
		if _, err := Open(priv, botPlace, s); err == nil && s != good {
			t.Error("opened something that was never sealed")
		}
	})
}

func TestReply(t *testing.T) {
	priv := fixedKey(t, 7)
	text, err := SealReply(priv.Public(), "/v1/unseal", "uid-1", []byte("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenReply(priv, "/v1/unseal", "uid-1", text)
	if err != nil || string(got) != "bundle" {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, f := range map[string]func() error{
		"another pod":  func() error { _, err := OpenReply(priv, "/v1/unseal", "uid-2", text); return err },
		"another call": func() error { _, err := OpenReply(priv, "/v1/lease", "uid-1", text); return err },
		"another key":  func() error { _, err := OpenReply(fixedKey(t, 8), "/v1/unseal", "uid-1", text); return err },
	} {
		if err := f(); !errors.Is(err, ErrDoesNotOpen) {
			t.Errorf("%s: want ErrDoesNotOpen, got %v", name, err)
		}
	}
	if _, err := OpenReply(priv, "/v1/unseal", "uid-1", text[:40]); !errors.Is(err, ErrMalformed) {
		t.Errorf("cut short: %v", err)
	}
	if _, err := SealReply(PublicKey{}, "/v1/unseal", "uid-1", nil); !errors.Is(err, ErrBadKey) {
		t.Errorf("no key: %v", err)
	}
}

func TestGeneratedKeysDiffer(t *testing.T) {
	a, err := GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := GeneratePrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a.Public().KID() == b.Public().KID() {
		t.Error("two keys are the same")
	}
	if _, err := GeneratePrivateKey(strings.NewReader("short")); err == nil {
		t.Error("a key out of too little randomness")
	}
}
