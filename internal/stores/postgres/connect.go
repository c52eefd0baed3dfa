// Package postgres measures and deletes rows in PostgreSQL 13 or newer. Only the sweeper uses it.
//
// Why it deletes the way it does is written in docs/design/0002-sweeping-postgresql.md. In short: a batch is one short
// REPEATABLE READ transaction with one DELETE that repeats every condition. The role may not lock rows, and need not:
// under REPEATABLE READ PostgreSQL itself refuses to delete a row that changed, or to cascade to a row that appeared,
// after the transaction's snapshot, and the snapshot is what the conditions were checked against.
package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// Target says where a database is and as whom to log in.
type Target struct {
	Host     string
	Port     int32
	Database string
	Username string
	CABundle string // PEM; empty: the system's own
}

// Session is one connection. The store's lock is held by the very session that deletes, so that whoever has lost the
// one has lost the other.
type Session struct {
	conn *pgx.Conn
	pid  uint32
	// database that was asked for.
	database string
	clock    func() time.Time
	path     string // search path of the role, for triggers
	mute     bool   // the server lets the role write no message into the write-ahead log
}

// lockKey is the advisory lock of every sweep. Such locks belong to one database of one cluster, which is the
// identity of a store: two DataStores that name the same database exclude each other.
const lockKey = int64(0x6c657468655f3031) // "lethe_01"

const connectTimeout = 10 * time.Second

// Connect logs in over TLS with a verified certificate and by SCRAM-SHA-256, and never otherwise. clock is the
// caller's, to compare with the store's and to measure how long things take. Errors are *Error.
func Connect(ctx context.Context, t Target, password string, clock func() time.Time) (*Session, error) {
	// Everything is set by hand below: neither the environment nor a password file has a say.
	cfg, err := pgx.ParseConfig("sslmode=verify-full")
	if err != nil {
		return nil, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonInternal, Message: "prepare the connection"}, Cause: err}
	}
	roots, err := roots(t.CABundle)
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = t.Host, uint16(t.Port), t.Database, t.Username, password
	cfg.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.Host, RootCAs: roots}
	// A server that asks for the password itself, or for its MD5, gets nothing, and one that asks for nothing has not
	// shown that it knows it. Where the server offers it, the exchange is bound to the certificate of this very
	// connection.
	cfg.RequireAuth, cfg.ChannelBinding = "scram-sha-256", "prefer"
	cfg.BuildFrontend = checkedFrontend
	cfg.Fallbacks, cfg.ConnectTimeout = nil, connectTimeout
	// Every statement is planned for its own values: a plan for other cutoffs may read the whole table.
	// plan_cache_mode would do the same to the checks of foreign keys, which run for each row.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cfg.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext
	cfg.RuntimeParams = map[string]string{
		"application_name": "lethe-sweeper", "timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres",
		"row_security": "off", "default_transaction_isolation": "read committed",
		// A dead pod's session must not hold the store's lock for two hours.
		"tcp_keepalives_idle": "20", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
		"idle_in_transaction_session_timeout": "5s",
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, classifyConnect(t, err)
	}
	s := &Session{conn: conn, pid: conn.PgConn().PID(), database: t.Database, clock: clock}
	if err := s.setSearchPath(ctx); err != nil {
		_ = conn.Close(ctx) // nothing has been done in it
		return nil, err
	}
	return s, nil
}

// setSearchPath makes statements of ours find what is the server's own, and nothing else. Triggers, which are the
// users' code, run under the path that the role or the database gives them, with the server's own before it: so an
// operator of ours that is written without its schema could be another's there, and none is.
func (s *Session) setSearchPath(ctx context.Context) error {
	err := s.conn.QueryRow(ctx, "SELECT 'pg_catalog, ' || reset_val FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'search_path'").Scan(&s.path)
	if err == nil {
		s.path = strings.TrimSuffix(s.path, ", ")
		_, err = s.conn.Exec(ctx, "SET search_path = pg_catalog")
	}
	if err != nil {
		return fmt.Errorf("set the search path: %w", err)
	}
	return nil
}

func roots(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, nil // nil: the system's own
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(bundle)) {
		return nil, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUntrustedCertificate,
			Message: "spec.postgres.caBundle holds no PEM certificate: paste the certificate authority of the database server"}}
	}
	return pool, nil
}

func classifyConnect(t Target, err error) error {
	where := net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var verify *tls.CertificateVerificationError
	var server *pgconn.PgError
	var weak *weakIterations
	switch {
	case errors.As(err, &weak):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonNoSCRAM, Message: fmt.Sprintf(
			"%s asks for %d iterations of SCRAM for role %q, and fewer than %d are not answered, since they make a password cheap to guess: set scram_iterations to %d or more and set the role's password again; where nobody lowered it, ask what answers at that address",
			where, weak.asked, t.Username, minIterations, minIterations)}}
	case errors.As(err, &name):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUntrustedCertificate, Message: fmt.Sprintf(
			"the certificate of %s is for another name: put a name that it holds into spec.postgres.host, or give the server a certificate for this one", where)}}
	case errors.As(err, &unknown):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUntrustedCertificate, Message: fmt.Sprintf(
			"the certificate of %s chains to no authority in spec.postgres.caBundle: put the server's certificate authority there, then seal the password again, which is bound to it", where)}}
	case errors.As(err, &verify):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUntrustedCertificate, Message: "the certificate of " + where + " does not verify"}, Cause: foreign.Network(verify)}
	case errors.As(err, &server):
		return classifyLogin(t, where, server)
	case errors.Is(err, context.Canceled):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonTerminated, Message: "stopped while connecting"}}
	case refusedTLS(err):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUntrustedCertificate, Message: fmt.Sprintf(
			"%s offers no TLS: switch it on (ssl = on), passwords and rows are never sent in clear", where)}}
	case strings.Contains(err.Error(), "require_auth check failed"), strings.Contains(err.Error(), "server does not support SCRAM-SHA-256"):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonNoSCRAM, Message: fmt.Sprintf(
			"%s does not log role %q in by SCRAM-SHA-256, and nothing else is answered, so no password was sent: set password_encryption = 'scram-sha-256', set the role's password again, and say scram-sha-256 in its hostssl line of pg_hba.conf (not trust, cert, md5 or password)",
			where, t.Username)}}
	case strings.Contains(err.Error(), "failed SASL auth"):
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonNoSCRAM, Message: fmt.Sprintf(
			"%s broke the SCRAM exchange off without proving that it knows the password of role %q: is it the database server itself, or something that stands between?", where, t.Username)}}
	}
	return &Error{Cause: foreign.Network(err), Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnreachable, Message: fmt.Sprintf(
		"no connection to %s: check spec.postgres.host and port, that the server runs, and that the tenant's egress and the server's firewall let the sweeper through", where)}}
}

func classifyLogin(t Target, where string, server *pgconn.PgError) error {
	switch state := code(server); state {
	case "28P01", "28000":
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonWrongPassword, Message: fmt.Sprintf(
			"%s does not accept role %q with this password over TLS (SQLSTATE %s): seal the right one with 'kubectl lethe seal', check that 'kubectl lethe grants' was run, and that pg_hba.conf has a hostssl line for the role",
			where, t.Username, state)}}
	case "3D000":
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonNoSuchDatabase, Message: fmt.Sprintf(
			"%s has no database %q: correct spec.postgres.database", where, t.Database)}}
	case "42501":
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonWrongPassword, Message: fmt.Sprintf(
			"role %q may not connect to database %q: run the SQL that 'kubectl lethe grants' prints", t.Username, t.Database)}}
	case "42704", "22023":
		return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: where + " does not know a setting that sweeping needs (SQLSTATE " + state + "): PostgreSQL 13 or newer is needed"}}
	}
	return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnreachable, Message: where + " answers and takes no connection (SQLSTATE " + code(server) + "): see the server's log"}}
}

// refusedTLS recognises a server that answers no to the request for TLS; pgx has no exported error for it.
func refusedTLS(err error) bool {
	return strings.Contains(err.Error(), "server refused TLS connection")
}

// Close ends the session and with it the store's lock.
func (s *Session) Close(ctx context.Context) error {
	return s.conn.Close(ctx)
}

// Closed says that the connection is gone, and the lock with it.
func (s *Session) Closed() bool { return s.conn.IsClosed() }

// Identify reads who the database is. A server that cannot be swept is an *Error with ReasonUnsupportedServer.
func (s *Session) Identify(ctx context.Context) (Identity, error) {
	id := Identity{Of: v1alpha1.StoreIdentity{Kind: IdentityKind}}
	var standby bool
	var counts, pooled string
	err := s.conn.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()), current_database()::text,
		current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('track_counts'), current_setting('timezone')`).
		Scan(&id.Of.Value, &id.Database, &id.Version, &standby, &counts, &pooled)
	if code(err) == "42501" {
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer,
			Message: "the role may not call pg_control_system(): run the SQL that 'kubectl lethe grants' prints"}}
	}
	if err != nil {
		return id, fmt.Errorf("read the identity of the database: %w", err)
	}
	switch {
	case !systemIdentifier.MatchString(id.Of.Value) || id.Database != s.database:
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: "the server names itself or the database as no PostgreSQL would: is a pooler in between?"}}
	case id.Version < 130000:
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: fmt.Sprintf("server version %d: PostgreSQL 13 or newer is needed", id.Version)}}
	case standby:
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: "the server is a standby: point spec.postgres.host at the primary"}}
	case counts != "on":
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: "track_counts is off: switch it on, the sweeper checks by it that a deletion touched nothing else"}}
	case pooled != "UTC":
		return id, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer, Message: "the connection does not keep its settings: connect to PostgreSQL itself, not to a pooler"}}
	}
	return id, nil
}

// Now reads the store's clock, between two looks at the caller's: skew is the store's time minus the caller's in the
// middle.
func (s *Session) Now(ctx context.Context) (now time.Time, skew time.Duration, err error) {
	before := s.clock()
	if err := s.conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return now, 0, fmt.Errorf("read the store's clock: %w", err)
	}
	after := s.clock()
	return now.UTC(), now.Sub(before.Add(after.Sub(before) / 2)), nil
}

// Lock tries to take the store's lock; false: another sweeper has it. The session holds it until it ends.
func (s *Session) Lock(ctx context.Context) (bool, error) {
	var got bool
	var pid uint32
	err := s.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1), pg_backend_pid()", lockKey).Scan(&got, &pid)
	if err != nil {
		return false, fmt.Errorf("take the store's lock: %w", err)
	}
	if pid != s.pid {
		return false, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedServer,
			Message: "a pooler stands between the sweeper and PostgreSQL: connect to PostgreSQL itself, a lock must belong to the session that deletes"}}
	}
	return got, nil
}

// names says whether the server names, as the constraint of an error or in the lines that tell where it comes from,
// what the catalogue knows: a name is compared and never handed on.
func names(err error, constraint, function string) bool {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return false
	}
	return constraint != "" && server.ConstraintName == constraint || function != "" && strings.Contains(server.Where, function)
}

// code is the SQLSTATE of an error that the server sent, else empty. What is not of the form of one, or of no class
// that PostgreSQL documents, is XX000, internal error: the server, and a trigger's RAISE, can write anything there.
// Nothing else of what a server says beside an error (severity, message, detail, hint, names of constraints and
// routines, notices) is read at all.
func code(err error) string {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return ""
	}
	if !sqlstate.MatchString(server.Code) {
		return "XX000"
	}
	return server.Code
}

var (
	sqlstate         = regexp.MustCompile(`^(0[012389ABFLPZ]|10|2[0-8BDF]|3[489BDF]|4[024]|5[34578]|72|F0|HV|P0|XX)[0-9A-Z]{3}$`)
	systemIdentifier = regexp.MustCompile(`^[0-9]{1,20}$`)
)
