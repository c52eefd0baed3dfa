package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// listener takes connections as PostgreSQL does, over TLS with a certificate that the returned target trusts, and
// hands each to serve after the startup message.
func listener(t *testing.T, serve func(*tls.Conn, *pgproto3.Backend)) Target {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				if _, err := io.ReadFull(raw, make([]byte, 8)); err != nil { // SSLRequest
					return
				}
				if _, err := raw.Write([]byte{'S'}); err != nil {
					return
				}
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12})
				serve(conn, pgproto3.NewBackend(conn, conn))
			}()
		}
	}()
	return Target{Host: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port), Database: "app", Username: "lethe",
		CABundle: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

const secret = "hunter2-Xq7-password"

// TestOnlySCRAMIsAnswered: a server that asks in any other way than by SCRAM-SHA-256 hears nothing any more, and one
// that asks for nothing is no server.
func TestOnlySCRAMIsAnswered(t *testing.T) {
	ready := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "server_version", Value: "17"}, &pgproto3.ReadyForQuery{TxStatus: 'I'}}
	for name, messages := range map[string][]pgproto3.BackendMessage{
		"the password in clear":               {&pgproto3.AuthenticationCleartextPassword{}},
		"its MD5":                             {&pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}}},
		"GSS":                                 {&pgproto3.AuthenticationGSS{}},
		"nothing (trust)":                     ready,
		"nothing, not even the login's end":   {&pgproto3.ReadyForQuery{TxStatus: 'I'}},
		"another mechanism":                   {&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"PLAIN"}}},
		"a token":                             {&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}}},
		"a mechanism with a name like SCRAM":  {&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-1"}}},
		"the password, behind a notice":       {&pgproto3.NoticeResponse{Message: "hello"}, &pgproto3.AuthenticationCleartextPassword{}},
		"the password, after the login began": {&pgproto3.ParameterStatus{Name: "a", Value: "b"}, &pgproto3.AuthenticationMD5Password{}},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 1)
			target := listener(t, func(conn *tls.Conn, backend *pgproto3.Backend) {
				if _, err := backend.ReceiveStartupMessage(); err != nil {
					heard <- []byte(err.Error())
					return
				}
				for _, m := range messages {
					backend.Send(m)
				}
				if err := backend.Flush(); err != nil {
					heard <- []byte(err.Error())
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				rest, _ := io.ReadAll(conn)
				heard <- rest
			})
			s, err := Connect(t.Context(), target, secret, time.Now)
			var known *Error
			if !errors.As(err, &known) || s != nil {
				t.Fatalf("connected: %v", err)
			}
			want := v1alpha1.ReasonNoSCRAM
			if strings.Contains(name, "not even") {
				want = v1alpha1.ReasonUnreachable
			}
			if known.Reason != want {
				t.Errorf("%s: %v", known.Reason, err)
			}
			if want == v1alpha1.ReasonNoSCRAM && !strings.Contains(err.Error(), "password_encryption") {
				t.Errorf("the message does not say what to do: %v", err)
			}
			if said := <-heard; len(said) != 0 {
				t.Errorf("the server heard %q", said)
			}
		})
	}
}

// TestAServerProvesThatItKnowsThePassword: SCRAM is mutual, and a server that only plays along is not believed.
func TestAServerProvesThatItKnowsThePassword(t *testing.T) {
	for name, after := range map[string][]pgproto3.BackendMessage{
		"a wrong signature":  {&pgproto3.AuthenticationSASLFinal{Data: []byte("v=" + strings.Repeat("A", 43) + "=")}, &pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}},
		"no signature":       {&pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}},
		"an empty signature": {&pgproto3.AuthenticationSASLFinal{}, &pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}},
		"hostile words":      {&pgproto3.AuthenticationSASLFinal{Data: []byte("e=" + secret + "\x1b[31m\n")}, &pgproto3.AuthenticationOk{}},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 1)
			target := listener(t, func(conn *tls.Conn, backend *pgproto3.Backend) {
				var all bytes.Buffer
				defer func() { heard <- all.Bytes() }()
				if _, err := backend.ReceiveStartupMessage(); err != nil {
					return
				}
				backend.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
				if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeSASL) != nil {
					return
				}
				first, err := backend.Receive()
				if err != nil {
					return
				}
				fmt.Fprintf(&all, "%s", first.(*pgproto3.SASLInitialResponse).Data)
				_, nonce, _ := strings.Cut(all.String(), ",r=")
				backend.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=" + nonce + "more,s=c2FsdHNhbHQ=,i=4096")})
				if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeSASLContinue) != nil {
					return
				}
				if last, err := backend.Receive(); err == nil {
					fmt.Fprintf(&all, "%s", last.(*pgproto3.SASLResponse).Data)
				}
				for _, m := range after {
					backend.Send(m)
				}
				_ = backend.Flush()
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				rest, _ := io.ReadAll(conn)
				all.Write(rest)
			})
			s, err := Connect(t.Context(), target, secret, time.Now)
			var known *Error
			if !errors.As(err, &known) || s != nil || known.Reason != v1alpha1.ReasonNoSCRAM {
				t.Fatalf("%v, session %v", err, s)
			}
			if strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), secret) {
				t.Errorf("the server's words are in %q", err)
			}
			if said := <-heard; bytes.Contains(said, []byte(secret)) {
				t.Error("the password was said")
			}
		})
	}
}

// TestFewIterationsAreNotAnswered: whatever a server whose certificate is trusted asks for, it gets no proof that is
// cheap to guess the password from.
func TestFewIterationsAreNotAnswered(t *testing.T) {
	for challenge, refused := range map[string]bool{"i=1": true, "i=4095": true, "i=0": true, "i=-1": true, "i=1,i=4096": true, "i=4096,i=1": true, "i=4096": false, "i=40960": false} {
		t.Run(challenge, func(t *testing.T) {
			heard := make(chan []byte, 1)
			target := listener(t, func(conn *tls.Conn, backend *pgproto3.Backend) {
				var rest []byte
				defer func() { heard <- rest }()
				if _, err := backend.ReceiveStartupMessage(); err != nil {
					return
				}
				backend.Send(&pgproto3.NoticeResponse{Message: "hello"})
				backend.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
				if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeSASL) != nil {
					return
				}
				first, err := backend.Receive()
				if err != nil {
					return
				}
				_, nonce, _ := strings.Cut(string(first.(*pgproto3.SASLInitialResponse).Data), ",r=")
				backend.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=" + nonce + "more,s=c2FsdHNhbHQ=," + challenge)})
				_ = backend.Flush()
				// What comes now is the proof, or nothing.
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				one := make([]byte, 1)
				n, _ := io.ReadFull(conn, one)
				rest = one[:n]
			})
			s, err := Connect(t.Context(), target, secret, time.Now)
			var known *Error
			if !errors.As(err, &known) || s != nil {
				t.Fatalf("connected: %v", err)
			}
			if proof := len(<-heard) > 0; proof == refused {
				t.Errorf("a proof was sent: %t: %v", proof, err)
			}
			if refused && strings.Count(challenge, "i=") == 1 && known.Reason != v1alpha1.ReasonNoSCRAM {
				t.Errorf("reason %s: %v", known.Reason, err)
			}
			if challenge == "i=1" && !strings.Contains(err.Error(), "scram_iterations") {
				t.Errorf("the message does not say what to do: %v", err)
			}
		})
	}
}

// TestALoginInPieces: a server's messages come in pieces of any size, and what follows the login is handed on as it is.
func TestALoginInPieces(t *testing.T) {
	var wire []byte
	for _, m := range []pgproto3.BackendMessage{&pgproto3.AuthenticationSASLContinue{Data: []byte("r=a,s=b,i=4096")}, &pgproto3.AuthenticationOk{},
		&pgproto3.ReadyForQuery{TxStatus: 'I'}} {
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, b...)
	}
	wire = append(wire, bytes.Repeat([]byte{'x'}, 2*maxLogin)...)
	got, err := io.ReadAll(&loginReader{from: iotest.OneByteReader(bytes.NewReader(wire))})
	if err != nil || !bytes.Equal(got, wire) {
		t.Errorf("%d bytes of %d, %v", len(got), len(wire), err)
	}
	for name, wire := range map[string][]byte{"too long": {'R', 0xff, 0, 0, 0}, "too short": {'R', 0, 0, 0, 3}} {
		if got, err := io.ReadAll(&loginReader{from: bytes.NewReader(wire)}); err == nil || len(got) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestHowARealServerLogsIn goes through pg_hba.conf.
func TestHowARealServerLogsIn(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	hba := filepath.Join(server.Dir, "data", "pg_hba.conf")
	before, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(hba, content, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Exec(ctx, "postgres", "SELECT pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { write(before) })
	for _, tc := range []struct{ name, method, verifier, reason string }{
		{"scram", "scram-sha-256", "scram-sha-256", ""},
		{"md5 in pg_hba.conf and a SCRAM verifier: the server asks for SCRAM", "md5", "scram-sha-256", ""},
		{"md5", "md5", "md5", v1alpha1.ReasonNoSCRAM},
		{"scram in pg_hba.conf and an MD5 verifier", "scram-sha-256", "md5", v1alpha1.ReasonWrongPassword},
		{"password", "password", "scram-sha-256", v1alpha1.ReasonNoSCRAM},
		{"trust", "trust", "scram-sha-256", v1alpha1.ReasonNoSCRAM},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.admin.Run(fmt.Sprintf("SET password_encryption = '%s'; ALTER ROLE %s PASSWORD '%s'; RESET password_encryption", tc.verifier, w.role, rolePassword))
			write([]byte(fmt.Sprintf("hostssl all %s all %s\n%s", w.role, tc.method, before)))
			outcome := func() (string, error) {
				s, err := Connect(t.Context(), w.target(), rolePassword, time.Now)
				var known *Error
				if errors.As(err, &known) {
					return known.Reason, err
				}
				if err == nil {
					err = s.Close(t.Context())
				}
				return "", err
			}
			var got string
			// The server reads its file again when it comes to it.
			if !eventually(t, func() bool { got, err = outcome(); return got == tc.reason && (err != nil) == (tc.reason != "") }) {
				t.Errorf("%q, want %q: %v", got, tc.reason, err)
			}
		})
	}
}

// TestTheLoginIsBoundToTheCertificate: whoever stands in between with a certificate that is trusted, and passes every
// byte on, does not get a session: the exchange is bound to the certificate that the client saw.
func TestTheLoginIsBoundToTheCertificate(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	for name, strip := range map[string]bool{"every byte is passed on": false, "the offer of channel binding is taken out": true} {
		t.Run(name, func(t *testing.T) {
			target := listener(t, func(conn *tls.Conn, _ *pgproto3.Backend) { relay(conn, strip) })
			target.Database, target.Username = w.database, w.role
			s, err := Connect(t.Context(), target, rolePassword, time.Now)
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("a session through somebody else's hands")
			}
			var known *Error
			if !errors.As(err, &known) || known.Reason != v1alpha1.ReasonWrongPassword && known.Reason != v1alpha1.ReasonNoSCRAM && known.Reason != v1alpha1.ReasonUnreachable {
				t.Errorf("error %v", err)
			}
		})
	}
}

// relay passes a client's bytes on to the real server over TLS of its own.
func relay(client *tls.Conn, strip bool) {
	raw, err := net.Dial("tcp", net.JoinHostPort(server.Host, fmt.Sprint(server.Port)))
	if err != nil {
		return
	}
	defer raw.Close()
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103)
	if _, err := raw.Write(request); err != nil {
		return
	}
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		return
	}
	upstream := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	go func() { _, _ = io.Copy(upstream, client); _ = raw.Close() }()
	b := make([]byte, 64<<10)
	for {
		n, err := upstream.Read(b)
		if err != nil {
			return
		}
		said := b[:n]
		if strip {
			// "R", length, 10 (SASL), then the mechanisms, each ended by a zero byte, and one more.
			plus := []byte("SCRAM-SHA-256-PLUS\x00")
			if i := bytes.Index(said, plus); i >= 0 {
				said = append(bytes.Clone(said[:i]), said[i+len(plus):]...)
				binary.BigEndian.PutUint32(said[1:], binary.BigEndian.Uint32(said[1:])-uint32(len(plus)))
			}
		}
		if _, err := client.Write(said); err != nil {
			return
		}
	}
}
