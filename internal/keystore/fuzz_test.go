package keystore

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/fuzz"
)

// known formats may be named in an error.
const known = `"` + FormatTenant + `" "lethe.dev/tenant-keys/v1"`

// FuzzDocument: what lies in the keys' namespace is refused without being repeated, or it is the one document that
// was written.
func FuzzDocument(f *testing.F) {
	key, err := sealing.NewKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := NewDocument("lethe-keys", TenantSecretName("acme"), "acme", FormatTenant, 1, sealing.Ring{key},
		TenantDoc{Realm: "test", Tenant: "acme", UID: "u", Keys: []KeyDoc{{KID: "k", Key: "w", State: StateActive}}})
	if err != nil {
		f.Fatal(err)
	}
	written := good.Data[DocumentKey]
	f.Add(written)
	f.Add([]byte(strings.Replace(string(written), "/v2", "/v1", 1)))
	f.Add([]byte(strings.Replace(string(written), `"generation":1`, `"generation":2`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		secret := good.DeepCopy()
		secret.Data[DocumentKey] = b
		var doc TenantDoc
		e, err := ReadDocument(secret, FormatTenant, &doc)
		if err == nil {
			err = e.Check(secret, sealing.Ring{key})
		}
		if piece := fuzz.Repeated(err, string(b)); piece != "" && !strings.Contains(known, piece) {
			t.Fatalf("the error repeats %q", piece)
		}
		if err != nil {
			return
		}
		if doc.UID != "u" || doc.Tenant != "acme" || e.Generation != 1 || len(doc.Keys) != 1 || doc.Keys[0] != (KeyDoc{KID: "k", Key: "w", State: StateActive}) {
			t.Fatalf("another document was believed: %+v", doc)
		}
	})
}
