package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/ports"
)

func TestConnectSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	nobodys, err := ports.Free("127.0.0.1", 1)
	if err != nil {
		t.Fatal(err)
	}
	foreign := foreignAuthority(t)
	tests := map[string]struct {
		change   func(*Target)
		password string
		reason   string
		says     string
	}{
		"nobody listens":                  {func(g *Target) { g.Port = int32(nobodys[0]) }, rolePassword, v1alpha1.ReasonUnreachable, "spec.postgres.host"},
		"a wrong password":                {func(*Target) {}, "guessed-secret", v1alpha1.ReasonWrongPassword, "kubectl lethe seal"},
		"a role that does not exist":      {func(g *Target) { g.Username = "nobody" }, rolePassword, v1alpha1.ReasonWrongPassword, "kubectl lethe grants"},
		"another authority":               {func(g *Target) { g.CABundle = foreign }, rolePassword, v1alpha1.ReasonUntrustedCertificate, "caBundle"},
		"no authority: the system's own":  {func(g *Target) { g.CABundle = "" }, rolePassword, v1alpha1.ReasonUntrustedCertificate, "caBundle"},
		"an authority that is no PEM":     {func(g *Target) { g.CABundle = "hello" }, rolePassword, v1alpha1.ReasonUntrustedCertificate, "no PEM certificate"},
		"a name that is not the server's": {func(g *Target) { g.Host = "localhost" }, rolePassword, v1alpha1.ReasonUntrustedCertificate, "another name"},
		"a database that does not exist":  {func(g *Target) { g.Database = "nowhere" }, rolePassword, v1alpha1.ReasonNoSuchDatabase, "spec.postgres.database"},
		"a database that it may not use":  {func(g *Target) { g.Database = forbiddenDatabase(t) }, rolePassword, v1alpha1.ReasonWrongPassword, "kubectl lethe grants"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			target := w.target()
			tc.change(&target)
			s, err := Connect(t.Context(), target, tc.password, time.Now)
			var known *Error
			if !errors.As(err, &known) {
				t.Fatalf("error %v, session %v", err, s)
			}
			if known.Reason != tc.reason || !strings.Contains(known.Message, tc.says) {
				t.Errorf("%s: %s", known.Reason, known.Message)
			}
			if strings.Contains(err.Error(), tc.password) {
				t.Error("the error holds the password")
			}
		})
	}
}

func TestConnectNeverSpeaksInClear(t *testing.T) {
	// A stand-in that answers "no TLS here", and would take the password in clear.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 8)
		if _, err := conn.Read(b); err != nil {
			return
		}
		if _, err := conn.Write([]byte{'N'}); err != nil {
			return
		}
		rest := make([]byte, 1024)
		n, _ := conn.Read(rest)
		heard <- rest[:n]
	}()
	_, err = Connect(t.Context(), Target{Host: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port), Database: "d", Username: "u"}, "p", time.Now)
	var known *Error
	if !errors.As(err, &known) || known.Reason != v1alpha1.ReasonUntrustedCertificate || !strings.Contains(known.Message, "no TLS") {
		t.Errorf("error %v", err)
	}
	if said := <-heard; len(said) != 0 {
		t.Errorf("after the refusal of TLS the client said %d bytes in clear", len(said))
	}
}

func TestConnectIgnoresTheEnvironment(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	for name, value := range map[string]string{"PGHOST": "203.0.113.1", "PGUSER": "evil", "PGPASSWORD": "evil", "PGSSLMODE": "disable", "PGOPTIONS": "-c row_security=on", "PGAPPNAME": "evil", "PGDATABASE": "evil", "PGPORT": "1"} {
		t.Setenv(name, value)
	}
	s := w.connect()
	var app, rows string
	if err := s.conn.QueryRow(t.Context(), "SELECT current_setting('application_name'), current_setting('row_security')").Scan(&app, &rows); err != nil {
		t.Fatal(err)
	}
	if app != "lethe-sweeper" || rows != "off" {
		t.Errorf("application_name %s, row_security %s", app, rows)
	}
}

func TestIdentityLockAndClock(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	a, b := w.connect(), w.connect()
	id, err := a.Identify(t.Context())
	if err != nil {
		t.Fatalf("Identify: %v", err)
	}
	var system string
	if err := w.admin.QueryRow(t.Context(), "SELECT system_identifier::text FROM pg_control_system()").Scan(&system); err != nil {
		t.Fatal(err)
	}
	if id.Of != (v1alpha1.StoreIdentity{Kind: IdentityKind, Value: system}) || id.Database != w.database || id.Version < 130000 {
		t.Errorf("identity %+v, want system %s", id, system)
	}

	first, err := a.Lock(t.Context())
	if err != nil || !first {
		t.Fatalf("first lock: %v, %v", first, err)
	}
	if second, err := b.Lock(t.Context()); err != nil || second {
		t.Errorf("second lock: %v, %v", second, err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !eventually(t, func() bool { got, err := b.Lock(t.Context()); return err == nil && got }) {
		t.Error("the lock outlives its session")
	}

	_, skew, err := b.Now(t.Context())
	if err != nil || skew > time.Second || skew < -time.Second {
		t.Errorf("skew %s, %v", skew, err)
	}
	ahead := w.connect()
	ahead.clock = func() time.Time { return time.Now().Add(-2 * time.Minute) }
	if _, skew, err := ahead.Now(t.Context()); err != nil || skew < 119*time.Second || skew > 121*time.Second {
		t.Errorf("skew %s, %v; want two minutes", skew, err)
	}
}

// eventually asks again for ten seconds.
func eventually(t testing.TB, done func() bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// foreignAuthority is the PEM of an authority that has nothing to do with the server.
func foreignAuthority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func forbiddenDatabase(t *testing.T) string {
	t.Helper()
	name := server.Database(t, `SELECT 1`)
	if err := server.Exec(t.Context(), name, "REVOKE CONNECT ON DATABASE "+name+" FROM PUBLIC"); err != nil {
		t.Fatal(err)
	}
	return name
}
