package sealing

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strconv"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Kinds that credentials are sealed for.
const (
	KindBotDeployment = "BotDeployment"
	KindDataStore     = "DataStore"
)

// PasswordKey is the key of the credential of a DataStore that has a password.
const PasswordKey = "password"

// Place is where a sealed value may be opened. All of it is authenticated.
type Place struct {
	Realm     string // chosen at installation; clusters that share a realm can open each other's values if they share keys
	Tenant    string
	Namespace string
	Kind      string // BotDeployment or DataStore
	Name      string // of the object
	Key       string // name of the credential
	Version   uint32 // 1 or more; the keyserver never goes back to a lower one
	// Destination is set for a DataStore and only for it.
	Destination Destination
}

// Destination is the server that a DataStore's password may be sent to.
type Destination struct {
	Type     string // Postgres
	Host     string
	Port     int32
	Database string
	Username string
	CASHA256 string // of the CA bundle's certificates, see DestinationOf; empty where the system's own are used
}

// Digest names a destination: the hex SHA-256 over each of its parts in the order of the struct, written
// <length>:<text>, with the port in decimal. Empty for no destination.
func (d Destination) Digest() string {
	if d == (Destination{}) {
		return ""
	}
	h := sha256.New()
	for _, part := range []string{d.Type, d.Host, strconv.Itoa(int(d.Port)), d.Database, d.Username, d.CASHA256} {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// DestinationOf reads the destination out of a store's spec. The CA's digest is the hex SHA-256 over the certificates
// in DER, in order and each behind its length, so that comments and line ends do not count.
func DestinationOf(spec *v1alpha1.DataStoreSpec) Destination {
	d := Destination{Type: string(spec.Type)}
	p := spec.Postgres
	if p == nil {
		return d
	}
	d.Host, d.Port, d.Database, d.Username = p.Host, p.Port, p.Database, p.Username
	if d.Port == 0 {
		d.Port = v1alpha1.DefaultPostgresPort // as the API server fills it in; a manifest that never met one has none
	}
	if p.CABundle != "" {
		d.CASHA256 = caDigest(p.CABundle)
	}
	return d
}

func caDigest(bundle string) string {
	var certs []string
	for rest := []byte(bundle); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			certs = append(certs, string(block.Bytes))
		}
	}
	sum := sha256.Sum256(lp(certs...))
	return hex.EncodeToString(sum[:])
}

func (d Destination) parts() []string {
	return []string{d.Type, d.Host, strconv.Itoa(int(d.Port)), d.Database, d.Username, d.CASHA256}
}

// digest is what the hint shows of a destination: 16 hex digits, empty for none.
func (d Destination) digest() string {
	if d == (Destination{}) {
		return ""
	}
	sum := sha256.Sum256(lp(d.parts()...))
	return hex.EncodeToString(sum[:8])
}

// aad is what authenticates the place, together with the text of the hint, so that a hint can be altered no more than
// the rest.
func (p Place) aad(hint string) []byte {
	parts := []string{p.Realm, p.Tenant, p.Namespace, p.Kind, p.Name, p.Key, strconv.FormatUint(uint64(p.Version), 10)}
	if p.Kind == KindDataStore {
		parts = append(parts, p.Destination.parts()...)
	}
	return lp(append(parts, hint)...)
}

// check refuses a place that nothing could be sealed for.
func (p Place) check() error {
	switch {
	case p.Realm == "" || p.Tenant == "" || p.Namespace == "" || p.Name == "" || p.Key == "":
		return fmt.Errorf("incomplete place: realm, tenant, namespace, name and key are needed")
	case p.Kind != KindBotDeployment && p.Kind != KindDataStore:
		return fmt.Errorf("kind must be %s or %s", KindBotDeployment, KindDataStore)
	case p.Version == 0:
		return fmt.Errorf("version must be 1 or more")
	case p.Kind == KindDataStore && (p.Destination.Host == "" || p.Destination.Type == ""):
		return fmt.Errorf("a DataStore's value is sealed to its destination: type and host are needed")
	case p.Kind != KindDataStore && p.Destination != (Destination{}):
		return fmt.Errorf("only a DataStore has a destination")
	}
	return p.hint().check()
}

// Hint is what a sealed value says in clear about its place, so that one found in the wrong place is told apart from an
// altered one. It decides nothing but the version.
type Hint struct {
	Tenant      string `json:"tenant"`
	Namespace   string `json:"namespace"`
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	Key         string `json:"key"`
	Version     uint32 `json:"version"`
	Destination string `json:"destination,omitempty"` // 16 hex digits of the destination's SHA-256
}

func (p Place) hint() Hint {
	return Hint{Tenant: p.Tenant, Namespace: p.Namespace, Kind: p.Kind, Name: p.Name, Key: p.Key,
		Version: p.Version, Destination: p.Destination.digest()}
}

// check refuses what no hint of ours holds: a hint is repeated in messages, so nothing that is not a name may be in it.
func (h Hint) check() error {
	for _, s := range []string{h.Tenant, h.Namespace, h.Kind, h.Name, h.Key} {
		if !isName(s) {
			return fmt.Errorf("%w: the hint holds no name", ErrMalformed)
		}
	}
	if h.Version == 0 || (h.Destination != "" && !isName(h.Destination)) {
		return fmt.Errorf("%w: the hint is incomplete", ErrMalformed)
	}
	return nil
}

// isName says whether s can be the name of an object or of a credential: at most 253 of letters, digits, minus, dot and
// underscore.
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		if s[i] != '.' && !isToken(s[i:i+1]) {
			return false
		}
	}
	return true
}

func (h Hint) encode() (string, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode hint: %w", err)
	}
	return b64.EncodeToString(b), nil
}

func decodeHint(text string) (Hint, error) {
	b, err := decode64(text)
	if err != nil {
		return Hint{}, err
	}
	var h Hint
	if err := json.Unmarshal(b, &h); err != nil {
		return Hint{}, ErrMalformed
	}
	return h, h.check()
}

// WrongPlaceError says what differs between the place a value was sealed for and the one it was found in.
type WrongPlaceError struct {
	Field           string // tenant, namespace, kind, name, key, version or destination
	Sealed, FoundIn string // values of that field; digests for a destination
}

func (e *WrongPlaceError) Error() string {
	if e.Field == "destination" {
		return "sealed for another destination: the store's host, port, database, username or caBundle is not the one it was sealed for; seal it again for the present one"
	}
	return fmt.Sprintf("sealed for %s %s, found in %s %s: seal it again for this place", e.Field, e.Sealed, e.Field, e.FoundIn)
}

// matches compares the hint with a place. A place without a version takes the hint's.
func (h Hint) matches(p Place) error {
	want := p.hint()
	for _, f := range []struct{ name, sealed, found string }{
		{"tenant", h.Tenant, want.Tenant},
		{"namespace", h.Namespace, want.Namespace},
		{"kind", h.Kind, want.Kind},
		{"name", h.Name, want.Name},
		{"key", h.Key, want.Key},
		{"destination", h.Destination, want.Destination},
	} {
		if f.sealed != f.found {
			return &WrongPlaceError{Field: f.name, Sealed: f.sealed, FoundIn: f.found}
		}
	}
	if p.Version != 0 && p.Version != h.Version {
		return &WrongPlaceError{Field: "version", Sealed: strconv.FormatUint(uint64(h.Version), 10), FoundIn: strconv.FormatUint(uint64(p.Version), 10)}
	}
	return nil
}
