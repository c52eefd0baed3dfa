// Package keyapi is what travels between the manager, the pods and the keyserver: JSON over HTTPS, POST only.
// The caller is named by its ServiceAccount token (audience lethe.dev/keyserver) in the Authorization header, never by
// anything in the body. Frozen in docs/design/formats.md.
package keyapi

import (
	"slices"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Paths of the calls.
const (
	PathTenant      = "/v1/tenant"      // manager: make or find a tenant's keys
	PathCredentials = "/v1/credentials" // manager: open, re-encrypt and store an object's credentials
	PathRevoke      = "/v1/revoke"      // manager: destroy the keys of an object that is going away
	PathPullSecrets = "/v1/pullsecrets" // manager: which Secrets that an object's images are to be pulled with are not there
	PathUnseal      = "/v1/unseal"      // a bot's pod: its credentials
	PathLease       = "/v1/lease"       // a sweeper's pod: permission to go on, and its credential
	PathRelease     = "/v1/release"     // a sweeper's pod: the sweep has ended
	PathReport      = "/v1/report"      // a sweeper's pod: what the sweep measured and did
	PathLastReport  = "/v1/report/last" // manager: the last report of a store, and what the keyserver signed about it
)

// ObjectRef names an object. It is all that the manager may say: the keyserver reads the object itself.
type ObjectRef struct {
	Kind      string `json:"kind"` // Tenant, BotDeployment or DataStore
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Error is the body of every answer other than 200. Message is for people and never holds a value.
type Error struct {
	Reason     string `json:"reason"` // one of api/v1alpha1's
	Message    string `json:"message"`
	RetryAfter int    `json:"retryAfterSeconds,omitempty"` // set when trying again may help
}

// TenantRequest asks for a tenant's keys; they are made when they never existed.
type TenantRequest struct {
	Tenant ObjectRef `json:"tenant"`
}

// TenantResponse holds public keys only.
type TenantResponse struct {
	SealingKeys []SealingKey `json:"sealingKeys"`
	KEKGrade    string       `json:"kekGrade"` // Production or Evaluation
	// Generation of the document that holds the keys: to be kept in the Tenant's status, and held against it from
	// then on.
	Generation int64    `json:"generation"`
	UIDRange   UIDRange `json:"uidRange"`
}

// UIDRange is the block of user ids that the keyserver recorded for a tenant.
type UIDRange struct {
	First int64 `json:"first"`
	Size  int64 `json:"size"`
}

// SealingKey is a public key as Tenant.status shows it.
type SealingKey struct {
	KID    string `json:"kid"`
	Suite  string `json:"suite"`
	Public string `json:"public"`
	Realm  string `json:"realm"`
	State  string `json:"state"` // Active or Retired
}

// CredentialsRequest asks to open and store the credentials of a BotDeployment or a DataStore.
type CredentialsRequest struct {
	Object ObjectRef `json:"object"`
}

// CredentialsResponse says where they are now. It is an answer of 200 also when single credentials were refused.
type CredentialsResponse struct {
	// Secret is the encrypted Secret to use; empty while any credential has never been stored.
	Secret string `json:"secret"`
	// Items in the order of the spec.
	Items []CredentialResult `json:"items"`
	// Generation of the document that holds the object's data key, 0 where there is none: to be kept in the object's
	// status.
	Generation int64 `json:"generation,omitempty"`
}

// CredentialResult is about one credential.
type CredentialResult struct {
	Name      string `json:"name"`
	Reason    string `json:"reason"` // Stored, RolledBack, or why it was refused
	Message   string `json:"message,omitempty"`
	Version   uint32 `json:"version,omitempty"`   // of the value in use
	Plaintext bool   `json:"plaintext,omitempty"` // it came from a Secret: plaintext stands in etcd
}

// RevokeRequest destroys the keys of an object, or of a whole tenant. Repeating it is harmless.
type RevokeRequest struct {
	Object ObjectRef `json:"object"`
}

// PullSecretsRequest asks about the Secrets that the images of a BotDeployment's or a DataStore's pods are to be
// pulled with. Their names are in the object, its Tenant and the keyserver's own settings: the caller says none.
type PullSecretsRequest struct {
	Object ObjectRef `json:"object"`
}

// PullSecretsResponse names those that no image can be pulled with. It says nothing of what is in a Secret.
type PullSecretsResponse struct {
	// Missing ones do not exist in the object's namespace.
	Missing []string `json:"missing,omitempty"`
	// Unusable ones are of another type than those that hold registries' passwords.
	Unusable []string `json:"unusable,omitempty"`
}

// UnsealRequest comes from a pod, which its token names.
type UnsealRequest struct {
	// PublicKey is a one-time HPKE public key of the caller, base64url; suite as for sealed values.
	PublicKey string `json:"publicKey"`
}

// UnsealResponse holds the credentials sealed to that key.
type UnsealResponse struct {
	Sealed string `json:"sealed"` // base64url of enc || ciphertext of a JSON SecretBundle
}

// SecretBundle is what lies inside UnsealResponse.Sealed and LeaseResponse.Sealed.
type SecretBundle struct {
	Items []SecretItem `json:"items"`
}

// SecretItem is one credential in clear. It is never logged: see String.
type SecretItem struct {
	Name    string `json:"name"`
	EnvName string `json:"envName,omitempty"` // set for delivery Env
	Value   []byte `json:"value"`
}

// String hides the value, so that a stray %v shows nothing.
func (s SecretItem) String() string { return s.Name + "=<hidden>" }

// GoString hides the value from %#v.
func (s SecretItem) GoString() string { return s.String() }

// LeaseRequest asks to begin or to go on sweeping the store that the caller's pod belongs to.
type LeaseRequest struct {
	PlanHash  string `json:"planHash"`
	PublicKey string `json:"publicKey,omitempty"` // set the first time: the answer then holds the credential
	// Spend is debited before the answer says yes. Repeating it debits nothing more.
	Spend []Spend `json:"spend,omitempty"`
	// Seen is where in its life the database is; it is kept for the next sweep to be compared with.
	Seen *Point `json:"seen,omitempty"`
	// Restored says that the database has gone back in time, and from what that is known. It is kept until a person
	// approves.
	Restored string `json:"restored,omitempty"`
	// Returned names datasets in which rows that had gone are there again.
	Returned []string `json:"returned,omitempty"`
	// Cleared is how much of old a sweep has left in datasets that it came to the end of.
	Cleared []Cleared `json:"cleared,omitempty"`
	// KnownFrom asks for identifiers of known tenants of a Shared store, from this place on, counted from 1. 0: for
	// none.
	KnownFrom int `json:"knownFrom,omitempty"`
}

// LeaseSeconds is how long a permission to commit is good for at most.
const LeaseSeconds = 30

// LeaseResponse is permission to commit until Expires.
type LeaseResponse struct {
	Expires time.Time `json:"expires"`          // by the keyserver's clock
	Seconds int       `json:"seconds"`          // the same as a length, at most LeaseSeconds
	Sealed  string    `json:"sealed,omitempty"` // base64url, as in UnsealResponse
	// Account is what earlier sweeps have left; given with the credential.
	Account *Account `json:"account,omitempty"`
	// KnownDigest names the whole list of identifiers of known tenants of a Shared store: plan.DigestOf. Empty for a
	// Dedicated one.
	KnownDigest string `json:"knownDigest,omitempty"`
	// Known is as much of that list, from KnownFrom on, as fits one answer; none: that was all.
	Known []string `json:"known,omitempty"`
}

// MaxRequest is how many bytes the body of a request has at most, but for a report's.
const MaxRequest = 8 << 10

// MaxKnownPage is how many bytes of identifiers one answer holds at most: six times as many, when JSON writes each as
// \u003c, fit into an answer.
const MaxKnownPage = 64 << 10

// KnownPage is the part of a list of identifiers that an answer holds, from a place on, counted from 1.
func KnownPage(known []string, from int) []string {
	if from < 1 || from > len(known) {
		return nil
	}
	rest, size := known[from-1:], 0
	for n, id := range rest {
		if size += len(id) + 3; size > MaxKnownPage && n > 0 {
			return rest[:n]
		}
	}
	return rest
}

// Account is what the keyserver remembers of the sweeps of a store.
type Account struct {
	// Permits of the plan's datasets with a backlog.
	Permits []Permit `json:"permits,omitempty"`
	// Point that the database was last seen at; nil: never.
	Point *Point `json:"point,omitempty"`
	// Restored is set while the database is known to have gone back in time, and nobody has approved that.
	Restored string `json:"restored,omitempty"`
	// Cleared by dataset.
	Cleared []Cleared `json:"cleared,omitempty"`
	// Lost is set when there is no account although the store was swept before: what it said is not known.
	Lost bool `json:"lost,omitempty"`
}

// Permit is what is left of the backlog that was approved for a dataset.
type Permit struct {
	Dataset string `json:"dataset"`
	Rows    int64  `json:"rows"` // that were granted
	Used    int64  `json:"used"`
	// Void says why nothing of it is good; empty: what is not used is.
	Void string `json:"void,omitempty"`
}

// Left of the permit.
func (p Permit) Left() int64 {
	if p.Void != "" {
		return 0
	}
	return max(0, p.Rows-p.Used)
}

// Spend says how many rows of a dataset's permit are used up, all sweeps together.
type Spend struct {
	Dataset string `json:"dataset"`
	Used    int64  `json:"used"`
}

// Point is a place in the life of a store. The keyserver keeps it and hands it back: what it means, only the store's
// engine knows.
type Point struct {
	Of v1alpha1.StoreIdentity `json:"of"` // the store that it is a point of
	v1alpha1.StorePoint
	// Witnesses are traces that were left in the store's history just before: while history is the same, they are
	// there.
	Witnesses []string `json:"witnesses,omitempty"`
}

// Bounds of what a point has of witnesses.
const (
	MaxWitnesses = 16
	MaxWitness   = 64
)

// IsValid says whether a point may be kept.
func (p Point) IsValid() bool {
	return p.Of.IsValid() && p.StorePoint.IsValid() && len(p.Witnesses) <= MaxWitnesses &&
		!slices.ContainsFunc(p.Witnesses, func(w string) bool { return w == "" || len(w) > MaxWitness })
}

// Cleared is what a complete sweep has left of rows that are older than a cutoff.
type Cleared struct {
	Dataset string `json:"dataset"`
	// PlaceDigest of the table, as approvals name it; on the wire under its earlier name, since a sweeper of the
	// version before may still be at work.
	PlaceDigest string `json:"definition"`
	Cutoff      int64  `json:"cutoff"` // Unix microseconds
	Left        int64  `json:"left"`
	// SweptAt is the time by which the sweep deleted, in Unix microseconds.
	SweptAt int64 `json:"sweptAt,omitempty"`
	// Windows is a digest of the windows by which it deleted, and Due how many rows of tenants with a shorter window
	// than the others were past it then, and left.
	Windows string `json:"windows,omitempty"`
	Due     int64  `json:"due,omitempty"`
}

// ReleaseRequest ends a lease early.
type ReleaseRequest struct {
	PlanHash string `json:"planHash"`
}
