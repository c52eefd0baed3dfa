package whatsapp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// host is where every client goes to.
const host = "web.whatsapp.com"

// Running is a stand-in that listens.
type Running struct {
	*Server
	Proxy string // host:port of the proxy
	CA    string // the authority of web.whatsapp.com's certificate, in PEM
}

// Start lets a stand-in listen until the context ends: the server on loopback, where only the proxy goes, and the proxy at an address.
// The proxy leads to web.whatsapp.com and nowhere else, and wants a password, whoever the user is.
func Start(ctx context.Context, address, password string) (*Running, error) {
	server, err := New(time.Now())
	if err != nil {
		return nil, err
	}
	certificate, ca, err := certify(time.Now())
	if err != nil {
		return nil, err
	}
	listen := net.ListenConfig{}
	inside, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	outside, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), inside.Close())
	}
	r := &Running{Server: server, Proxy: outside.Addr().String(), CA: ca}
	quiet := log.New(io.Discard, "", 0)
	web := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	web.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	web.Protocols = &http.Protocols{}
	web.Protocols.SetHTTP1(true) // websockets
	proxy := &http.Server{Handler: r.proxy(inside.Addr().String(), password), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	go func() { _ = web.ServeTLS(inside, "", "") }() // it ends when it is closed
	go func() { _ = proxy.Serve(outside) }()
	go func() {
		<-ctx.Done()
		_, _ = proxy.Close(), web.Close()
	}()
	return r, nil
}

func (s *Running) proxy(to, password string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		away := func(code int) {
			s.count(func(st *Stats) { st.TurnedAway++ })
			http.Error(w, http.StatusText(code), code)
		}
		encoded, _ := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
		given, err := base64.StdEncoding.DecodeString(encoded)
		_, secret, ok := strings.Cut(string(given), ":")
		switch {
		case err != nil || !ok || subtle.ConstantTimeCompare([]byte(secret), []byte(password)) != 1:
			w.Header().Set("Proxy-Authenticate", `Basic realm="stand-in"`)
			away(http.StatusProxyAuthRequired)
			return
		case r.Method != http.MethodConnect || r.Host != host+":443":
			away(http.StatusForbidden)
			return
		}
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
		if err != nil {
			away(http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = there.Close()
			away(http.StatusBadGateway)
			return
		}
		defer func() { _, _ = here.Close(), there.Close() }()
		if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			return
		}
		ended := make(chan struct{}, 2)
		for from, into := range map[net.Conn]net.Conn{here: there, there: here} {
			go func() {
				_, _ = io.Copy(into, from) // either end may go at any time
				ended <- struct{}{}
			}()
		}
		<-ended
	}
}

// certify makes a certificate for web.whatsapp.com that is its own authority. The key stays in memory.
func certify(now time.Time) (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make the certificate's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Stand-in for WhatsApp"}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make the certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}
