package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestIssue(t *testing.T) {
	dir := t.TempDir()
	if err := Authorities(dir, "ca", "etcd-ca"); err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{File: "server", Authority: "ca", User: "u", Groups: []string{"g"}, Hosts: []string{"10.1.2.3", "a.b"}}
	if err := Issue(dir, leaf); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert := pair.Leaf
	if cert.Subject.CommonName != "u" || !slices.Equal(cert.Subject.Organization, []string{"g"}) {
		t.Errorf("subject %v", cert.Subject)
	}
	verify := func(authority, host string) error {
		pem, err := os.ReadFile(filepath.Join(dir, authority+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
		return err
	}
	for _, host := range leaf.Hosts {
		if err := verify("ca", host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if verify("ca", "other") == nil {
		t.Error("serves a name it was not issued for")
	}
	if verify("etcd-ca", "a.b") == nil {
		t.Error("etcd's authority accepts a certificate of the API's")
	}
	if info, err := os.Stat(filepath.Join(dir, "server.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key: %v (%v)", info.Mode(), err)
	}
}

func TestIssueKeepsWhatStillServes(t *testing.T) {
	dir := t.TempDir()
	if err := Authorities(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	issue := func(hosts ...string) []byte {
		t.Helper()
		if err := Issue(dir, Leaf{File: "s", Authority: "ca", User: "u", Hosts: hosts}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "s.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := issue("10.0.0.1")
	if !bytes.Equal(first, issue("10.0.0.1")) {
		t.Error("a certificate that serves all was replaced")
	}
	if bytes.Equal(first, issue("10.0.0.1", "10.0.0.2")) {
		t.Error("a certificate that does not serve a new address was kept")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Authorities(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(filepath.Join(dir, "ca.crt")); err != nil || !bytes.Equal(ca, again) {
		t.Errorf("the authority was replaced (%v)", err)
	}
}
