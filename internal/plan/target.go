package plan

import (
	"fmt"
	"net"
	"strconv"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Target says where a store is and as whom to log in: its type, and the one member that is of that type. Credentials
// are not part of a plan: the keyserver hands them out with the lease.
//
// Whoever is not an engine asks the methods. A type that this program does not know has no member, no address and no
// endpoints: nothing is opened for it, and no approval is of it.
type Target struct {
	Type     v1alpha1.StoreType `json:"type"`
	Postgres *PostgresTarget    `json:"postgres,omitempty"`
}

// PostgresTarget is a PostgreSQL database.
type PostgresTarget struct {
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Database string `json:"database"`
	Username string `json:"username"`
	// CABundle in PEM; empty: the system's own.
	CABundle string `json:"caBundle,omitempty"`
}

// Endpoint is a host, by name or address, and a TCP port of it that a sweep talks to.
type Endpoint struct {
	Host string
	Port int32
}

// TargetOf reads the target out of a store's spec. It is not known where this program knows no store of the spec's
// type, or where what is said of that type is missing.
func TargetOf(spec *v1alpha1.DataStoreSpec) (t Target, known bool) {
	t.Type = spec.Type
	if p := spec.Postgres; spec.Type == v1alpha1.StorePostgres && p != nil {
		t.Postgres = &PostgresTarget{Host: p.Host, Port: p.Port, Database: p.Database, Username: p.Username, CABundle: p.CABundle}
		return t, true
	}
	return t, false
}

// UnknownType tells a person that no program of this version works on a store of that type.
func UnknownType(t v1alpha1.StoreType) string {
	return fmt.Sprintf("spec.type: this version of Lethe knows no store of type %q with what its spec says of it: nothing of it is measured or deleted; see that manager, keyserver, sweeper and the kinds in the cluster are of one version", t)
}

// Endpoints that a sweep talks to.
func (t Target) Endpoints() []Endpoint {
	if p := t.Postgres; p != nil {
		return []Endpoint{{p.Host, p.Port}}
	}
	return nil
}

// Address of the target's server as approvals have it.
func (t Target) Address() string {
	if p := t.Postgres; p != nil {
		return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port)))
	}
	return ""
}

// Name of the store at its address as approvals have it: of the database.
func (t Target) Name() string {
	if p := t.Postgres; p != nil {
		return p.Database
	}
	return ""
}

// check says whether the member is the one of the type.
func (t Target) check() error {
	if (t.Type == v1alpha1.StorePostgres) != (t.Postgres != nil) {
		return fmt.Errorf("%w: its target is said to be of type %q and is none", ErrMalformed, t.Type)
	}
	return nil
}
