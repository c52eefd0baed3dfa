package sealing

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

// vectorsFile holds ciphertexts of every format, made once. They must open for ever: values that people sealed and
// committed look exactly like them. Never regenerate the file to make a test pass.
const vectorsFile = "testdata/vectors.json"

var writeVectors = flag.Bool("write-vectors", false, "write "+vectorsFile+", which must not exist yet")

type vectors struct {
	KEK         string // base64
	KEKID       string
	SealSeed    string // hex
	SealPublic  string // base64url
	SealKID     string
	ReplySeed   string // hex
	ReplyPodUID string
	Sealed      []sealedVector
	TenantKey   string // wrapped under KEK, bound to Owner's realm and tenant and TenantUID
	TenantUID   string
	SealKey     string // wrapped under the tenant's key
	DataKey     string // wrapped under the tenant's key, bound to Owner.UID too
	CAKey       string // wrapped under KEK: the text "ca key"
	Canary      string // wrapped under KEK: the text "canary"
	Owner       Owner
	Secret      string // credential telegram, version 3
	SecretPlain string
	MAC         string // of "a", "b" under the data key
	Reply       string // to the reply key, call /v1/unseal
	ReplyPlain  string
}

type sealedVector struct {
	Place  Place
	Plain  string
	Sealed string
}

func TestVectors(t *testing.T) {
	if *writeVectors {
		generateVectors(t)
	}
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	priv := vectorKey(t, v.SealSeed)
	if priv.Public().KID() != v.SealKID || priv.Public().String() != v.SealPublic {
		t.Errorf("the seed gives key %s, want %s", priv.Public().KID(), v.SealKID)
	}
	if len(v.Sealed) < 3 {
		t.Fatalf("only %d sealed values", len(v.Sealed))
	}
	for _, s := range v.Sealed {
		if got, err := Open(priv, s.Place, s.Sealed); err != nil || string(got) != s.Plain {
			t.Errorf("sealed value of %+v: %v", s.Place, err)
		}
	}
	kek, err := ParseKEK([]byte(v.KEK))
	if err != nil || kek.KID() != v.KEKID {
		t.Fatalf("KEK %s, want %s: %v", kek.KID(), v.KEKID, err)
	}
	ids := []string{v.Owner.Realm, v.Owner.Tenant, v.TenantUID}
	tenant, err := kek.Unwrap(v.TenantKey, PurposeTenant, ids...)
	if err != nil {
		t.Fatalf("tenant key: %v", err)
	}
	kid, seed, err := tenant.UnwrapBytes(v.SealKey, PurposeSeal, ids...)
	if err != nil || kid != v.SealKID || hex.EncodeToString(seed) != v.SealSeed {
		t.Errorf("seal key %s: %v", kid, err)
	}
	data, err := tenant.Unwrap(v.DataKey, PurposeData, append(ids, v.Owner.UID)...)
	if err != nil {
		t.Fatalf("data key: %v", err)
	}
	if got, err := data.DecryptValue(v.Owner, "telegram", v.Secret); err != nil || string(got) != v.SecretPlain {
		t.Errorf("encrypted Secret: %v", err)
	}
	if data.MAC("a", "b") != v.MAC {
		t.Error("the MAC has changed")
	}
	for purpose, text := range map[Purpose]string{PurposeCA: v.CAKey, PurposeCanary: v.Canary} {
		if _, got, err := kek.UnwrapBytes(text, purpose, v.Owner.Realm); err != nil || len(got) == 0 {
			t.Errorf("%s: %v", purpose, err)
		}
	}
	if got, err := OpenReply(vectorKey(t, v.ReplySeed), "/v1/unseal", v.ReplyPodUID, v.Reply); err != nil || string(got) != v.ReplyPlain {
		t.Errorf("reply: %v", err)
	}
}

func vectorKey(t *testing.T, seed string) PrivateKey {
	t.Helper()
	b, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func generateVectors(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v := vectors{
		KEK:      base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x4b}, keySize)),
		SealSeed: hex.EncodeToString(bytes.Repeat([]byte{0x01}, seedSize)), ReplySeed: hex.EncodeToString(bytes.Repeat([]byte{0x02}, seedSize)),
		ReplyPodUID: "5d1f6d2e-0000-4000-8000-000000000001", TenantUID: "5d1f6d2e-0000-4000-8000-000000000002",
		Owner:       Owner{Realm: "prod", Tenant: "acme", Namespace: "acme-bots", Kind: KindBotDeployment, UID: "5d1f6d2e-0000-4000-8000-000000000003"},
		SecretPlain: `{"name":"telegram","value":"MTIzNDU6dmVjdG9y"}`, ReplyPlain: `{"items":[]}`,
	}
	priv := vectorKey(t, v.SealSeed)
	v.SealKID, v.SealPublic = priv.Public().KID(), priv.Public().String()
	withCA := storePlace
	withCA.Destination.CASHA256 = caDigest("-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n")
	withoutCA := storePlace
	withoutCA.Destination.CASHA256 = ""
	for _, p := range []Place{botPlace, withCA, withoutCA} {
		sealed, err := Seal(priv.Public(), p, []byte("12345:vector"))
		must(err)
		v.Sealed = append(v.Sealed, sealedVector{p, "12345:vector", sealed})
	}
	kek, err := ParseKEK([]byte(v.KEK))
	must(err)
	v.KEKID = kek.KID()
	ids := []string{v.Owner.Realm, v.Owner.Tenant, v.TenantUID}
	tenant, err := NewKey(rand.Reader)
	must(err)
	data, err := NewKey(rand.Reader)
	must(err)
	v.TenantKey, err = kek.Wrap(rand.Reader, tenant, PurposeTenant, ids...)
	must(err)
	v.SealKey, err = tenant.WrapBytes(rand.Reader, v.SealKID, bytes.Repeat([]byte{0x01}, seedSize), PurposeSeal, ids...)
	must(err)
	v.DataKey, err = tenant.Wrap(rand.Reader, data, PurposeData, append(ids, v.Owner.UID)...)
	must(err)
	v.CAKey, err = kek.WrapBytes(rand.Reader, "ca", []byte("ca key"), PurposeCA, v.Owner.Realm)
	must(err)
	v.Canary, err = kek.WrapBytes(rand.Reader, "canary", []byte("canary"), PurposeCanary, v.Owner.Realm)
	must(err)
	v.Secret, err = data.EncryptValue(rand.Reader, v.Owner, "telegram", 3, []byte(v.SecretPlain))
	must(err)
	v.MAC = data.MAC("a", "b")
	v.Reply, err = SealReply(vectorKey(t, v.ReplySeed).Public(), "/v1/unseal", v.ReplyPodUID, []byte(v.ReplyPlain))
	must(err)
	b, err := json.MarshalIndent(v, "", "  ")
	must(err)
	f, err := os.OpenFile(vectorsFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	must(err)
	_, err = f.Write(append(b, '\n'))
	must(err)
	must(f.Close())
}

// TestDestinationDigest: the name that a stored password's server has in the keyserver's documents cannot change later.
func TestDestinationDigest(t *testing.T) {
	if got := (Destination{}).Digest(); got != "" {
		t.Errorf("no destination is %q", got)
	}
	base := Destination{Type: "Postgres", Host: "db.example", Port: 5432, Database: "chat", Username: "lethe", CASHA256: "ab"}
	sum := sha256.Sum256([]byte("8:Postgres,10:db.example,4:5432,4:chat,5:lethe,2:ab,"))
	if got := base.Digest(); got != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s", got)
	}
	seen := map[string]bool{base.Digest(): true}
	for _, change := range []func(*Destination){
		func(d *Destination) { d.Type = "MariaDB" }, func(d *Destination) { d.Host = "db.example." }, func(d *Destination) { d.Port++ },
		func(d *Destination) { d.Database = "chats" }, func(d *Destination) { d.Username = "root" }, func(d *Destination) { d.CASHA256 = "" },
		func(d *Destination) { d.Database, d.Username = "chatl", "ethe" },
	} {
		d := base
		change(&d)
		if seen[d.Digest()] {
			t.Errorf("%+v has the digest of another", d)
		}
		seen[d.Digest()] = true
	}
}

// TestDestinationsOfDifferentEngines: what is sealed for a store of one engine opens for no store of another,
// whatever its address says, nor for another store of the same engine. The mapping is that of docs/design/0034.
func TestDestinationsOfDifferentEngines(t *testing.T) {
	var all []Destination
	for _, kind := range []string{"Postgres", "MariaDB", "Redis", "S3", "Unknown"} {
		all = append(all,
			Destination{Type: kind, Host: "store.example", Port: 5432, Database: "0", Username: "default"},                     // alike but for the type
			Destination{Type: kind, Host: "store.example", Port: 5432, Database: "0", Username: "default", CASHA256: "ab"},     // with a CA of its own
			Destination{Type: kind, Host: "store.example", Port: 543, Database: "20", Username: "default"},                     // a digit moved
			Destination{Type: kind, Host: "store.example", Port: 5432, Database: "", Username: "0default"},                     // a part moved
			Destination{Type: kind, Host: "store.example", Port: 5432, Database: "0default", Username: ""},                     // and back
			Destination{Type: kind, Host: kind, Port: 5432, Database: kind, Username: kind},                                    // the type as a value
			Destination{Type: kind + "store.example", Host: "5432", Port: 5432, Database: "0", Username: "default"},            // glued
			Destination{Type: kind, Host: "bucket.store.example", Port: 443, Database: "bucket", Username: "AKIAEXAMPLE"},      // S3 by its bucket's name
			Destination{Type: kind, Host: "store.example", Port: 443, Database: "bucket", Username: "AKIAEXAMPLE"},             // S3 by its endpoint
			Destination{Type: kind, Host: "store.example", Port: 6379, Database: "10", Username: ""},                           // Redis
			Destination{Type: kind, Host: "store.example", Port: 6379, Database: "1", Username: "0"},                           // and an index that reads like it
			Destination{Type: kind, Host: "store.example", Port: 3306, Database: "chat\x00", Username: "lethe"},                // a byte that no schema lets in
			Destination{Type: kind, Host: "store.example", Port: 3306, Database: "chat", Username: "\x00lethe"},                // and moved
			Destination{Type: kind, Host: "store.example", Port: 3306, Database: "4:chat,5:lethe", Username: "", CASHA256: ""}, // what looks like lengths
		)
	}
	seen := map[string]Destination{}
	for _, d := range all {
		p := Place{Realm: "realm", Tenant: "acme", Namespace: "data", Kind: KindDataStore, Name: "chat", Key: PasswordKey, Version: 1, Destination: d}
		for what, name := range map[string]string{"AAD": string(p.aad("hint")), "digest": d.Digest(), "hint": p.hint().Destination} {
			if other, taken := seen[what+" "+name]; taken {
				t.Errorf("%+v and %+v have one %s", d, other, what)
			}
			seen[what+" "+name] = d
		}
		for _, other := range []string{"secretAccessKey", "token"} {
			q := p
			if q.Key = other; string(q.aad("hint")) == string(p.aad("hint")) {
				t.Errorf("%+v: credential %s has the AAD of %s", d, other, p.Key)
			}
		}
	}
	if len(seen) != 3*len(all) {
		t.Errorf("%d names of %d destinations", len(seen), len(all))
	}
}
