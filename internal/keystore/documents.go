package keystore

import (
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// What lies in the keys' namespace: Secrets of type lethe.dev/wrapped-key with one JSON document each, under
// documentKey, in an envelope that authenticates it (envelope.go). Frozen in docs/design/formats.md.
const (
	DocumentKey = "keys.json"

	FormatTenant = "lethe.dev/tenant-keys/v2"
	FormatObject = "lethe.dev/object-keys/v2"
	FormatCA     = "lethe.dev/ca-keys/v2"
	FormatCanary = "lethe.dev/kek-canary/v2"
	FormatUIDs   = "lethe.dev/uid-ranges/v2"

	FormatVersions = "lethe.dev/versions/v2"
	FormatPending  = "lethe.dev/pending-keys/v2"

	CanaryName = "kek-canary"
	CAName     = "keyserver-ca"
	UIDsName   = "uid-ranges"

	tenantPrefix = "tenant-"
	objectPrefix = "object-"

	versionsPrefix = "versions-"
	pendingPrefix  = "pending-"

	LabelVelero   = "velero.io/exclude-from-backup"
	componentKeys = "keys"

	componentPending = "pending-keys"
)

// TenantSecretName is the name of the Secret of a tenant's keys.
func TenantSecretName(tenant string) string { return tenantPrefix + tenant }

// ObjectSecretName is the name of the Secret of an object's data keys.
func ObjectSecretName(uid string) string { return objectPrefix + uid }

// States of a tenant's key and of a sealing key. An Active one is used for what is new; a Retired one only opens what
// is still under it.
const (
	StateActive  = v1alpha1.SealingKeyActive
	StateRetired = v1alpha1.SealingKeyRetired
	// StateDestroyed is a key-encryption key's, every copy of which a person says to have destroyed.
	StateDestroyed = "Destroyed"
)

// KeyDoc is a symmetric key under the key above it.
type KeyDoc struct {
	KID   string `json:"kid"`
	Key   string `json:"key"`
	State string `json:"state,omitempty"` // of a tenant's key
	// Since is when it came into its state, or was made.
	Since time.Time `json:"since,omitzero"`
}

// TenantDoc holds a tenant's keys.
type TenantDoc struct {
	Realm  string `json:"realm"`
	Tenant string `json:"tenant"`
	UID    string `json:"uid"`
	// Keys are the tenant's keys under the KEK; the first one wraps and authenticates, the others only open.
	Keys []KeyDoc `json:"keys"`
	// Seal are the keys that values are sealed to, under one of Keys; the first is the one to use.
	Seal []SealDoc `json:"seal"`
	// UIDRange are the user ids that the tenant's bots run as; nobody else has any of them, ever.
	UIDRange UIDRangeDoc `json:"uidRange"`
	// Binding names what the Tenant was when it was last looked at: see bindingOf.
	Binding string `json:"binding,omitempty"`
	// Destroyed are the last sealing keys that a person had destroyed, to say so to whoever still uses one.
	Destroyed []DestroyedDoc `json:"destroyed,omitempty"`
}

// DestroyedDoc is a sealing key that a person had destroyed.
type DestroyedDoc struct {
	KID string    `json:"kid"`
	At  time.Time `json:"at"`
}

// SealDoc is a key pair that values are sealed to; its private half is under the tenant's key.
type SealDoc struct {
	KID    string    `json:"kid"`
	Suite  string    `json:"suite"`
	Public string    `json:"public"`
	Key    string    `json:"key"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"` // when it came into its state
}

// ObjectDoc holds the data keys of a BotDeployment or a DataStore, and what they have been used for.
type ObjectDoc struct {
	Realm     string `json:"realm"`
	Tenant    string `json:"tenant"`
	TenantUID string `json:"tenantUID"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Keys are the data keys under the tenant's key; the first one encrypts and authenticates, the others only open
	// sets that are still in use.
	Keys []KeyDoc `json:"keys"`
	// Credentials by name, also of those that the spec no longer has: their highest versions stay known.
	Credentials map[string]CredentialDoc `json:"credentials,omitempty"`
	// Sets are the encrypted Secrets that were written and not yet deleted, the newest last. A name is put here before
	// its Secret is made, so that none is ever left over.
	Sets []string `json:"sets,omitempty"`
	// Current is the one of them that is in use.
	Current string `json:"current,omitempty"`
	// Digest is a key under the tenant's that names sets and tells values apart. It encrypts nothing and outlives
	// data keys, so that a new data key changes no name.
	Digest KeyDoc `json:"digest"`
	// Secrets says in which Secret a set lies that is not in the one of its own name: it was encrypted anew since.
	Secrets map[string]string `json:"secrets,omitempty"`
	// Moving are Secrets that may exist and in which no set lies (yet, or any more).
	Moving []string `json:"moving,omitempty"`
	// Helper is what of Lethe's own a bot's, or a store's, pods were last made with. It is taken from this
	// keyserver's own settings and from nothing that anybody sends, and it goes forward only: to the present ones,
	// once a pod made with those was given the credentials.
	Helper *resources.Helper `json:"helper,omitempty"`
}

// CredentialDoc is what is known of one credential of an object.
type CredentialDoc struct {
	Highest uint32 `json:"highest,omitempty"` // version ever stored; nothing lower is stored again
	Digest  string `json:"digest,omitempty"`  // of the sealed value that had it; another of that version is not stored
	Version uint32 `json:"version,omitempty"` // of the value in use; 0 out of a secretKeyRef
	Source  string `json:"source,omitempty"`  // names the value in use without giving it away
	// Destination is the digest of the server that the value in use was sealed for; empty for a bot's.
	Destination string `json:"destination,omitempty"`
	// Identity is the keyed digest of the messenger's channel that the value in use speaks for: <kid of the channel
	// key>.<digest>.
	Identity string `json:"identity,omitempty"`
	// Unused is when the name was first not in the spec any more.
	Unused time.Time `json:"unused,omitzero"`
}

// CADoc holds the keyserver's certificate authorities.
type CADoc struct {
	Realm    string   `json:"realm"`
	Present  CAEntry  `json:"present"`            // signs
	Next     *CAEntry `json:"next,omitempty"`     // will sign, once it has been in the bundle long enough
	Previous *CAEntry `json:"previous,omitempty"` // signed certificates that may still be in use; its key is gone
}

// CAEntry is one certificate authority.
type CAEntry struct {
	Certificate string `json:"certificate"` // PEM
	Key         string `json:"key,omitempty"`
	// Until is when the last leaf signed by a previous authority ends.
	Until *time.Time `json:"until,omitempty"`
}

// CanaryDoc tells a wrong KEK before it does harm.
type CanaryDoc struct {
	Realm string `json:"realm"`
	// KEKs are the key-encryption keys of this installation: the one that wraps, then those of before.
	KEKs []KEKDoc `json:"keks"`
}

// KEKDoc is what is known of one key-encryption key.
type KEKDoc struct {
	KID    string    `json:"kid"`
	Canary string    `json:"canary"` // a known text under it
	State  string    `json:"state"`
	Since  time.Time `json:"since"` // when it came into Active or Retired
	// Rewrapped is since when nothing has been under a retired one.
	Rewrapped time.Time `json:"rewrapped,omitzero"`
	// Destroyed is when a person said to have destroyed every copy of it.
	Destroyed time.Time `json:"destroyed,omitzero"`
}

// present is the one that wraps; the zero value in a document that holds none.
func (d CanaryDoc) present() KEKDoc {
	if len(d.KEKs) == 0 {
		return KEKDoc{}
	}
	return d.KEKs[0]
}
