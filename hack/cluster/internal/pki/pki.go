// Package pki makes the certificates of a cluster: one authority for the API, one for etcd (so that no client of the API
// can talk to etcd), one for the API aggregator.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
)

// lifetime of every certificate: a cluster of this kind lives hours or weeks, and none of its parts rotates.
const lifetime = 5 * 365 * 24 * time.Hour

// Leaf is a certificate to issue. A certificate with Hosts serves; every one can be used as a client's.
type Leaf struct {
	// File is the name without .crt and .key.
	File string
	// Authority is the file name of the authority that signs it, without .crt.
	Authority string
	// User and Groups are who the API takes a client with this certificate for.
	User   string
	Groups []string
	// Hosts are the IP addresses and DNS names it serves.
	Hosts []string
}

// Authorities makes the named self-signed authorities in dir, those that are missing.
func Authorities(dir string, names ...string) error {
	for _, name := range names {
		if exists(dir, name) {
			continue
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make authority %s: %w", name, err)
		}
		template, err := newTemplate("lethe-cluster-"+name, nil)
		if err != nil {
			return fmt.Errorf("make authority %s: %w", name, err)
		}
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		if err := sign(dir, name, template, template, key, key); err != nil {
			return fmt.Errorf("make authority %s: %w", name, err)
		}
	}
	return nil
}

// Issue makes the certificate of l in dir when it is missing or does not serve all of l.Hosts.
func Issue(dir string, l Leaf) error {
	if exists(dir, l.File) {
		if cert, err := readCert(filepath.Join(dir, l.File+".crt")); err == nil && serves(cert, l.Hosts) {
			return nil
		}
	}
	caCert, err := readCert(filepath.Join(dir, l.Authority+".crt"))
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", l.File, err)
	}
	caKey, err := readKey(filepath.Join(dir, l.Authority+".key"))
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", l.File, err)
	}
	template, err := newTemplate(l.User, l.Groups)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", l.File, err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(l.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range l.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", l.File, err)
	}
	if err := sign(dir, l.File, template, caCert, key, caKey); err != nil {
		return fmt.Errorf("issue certificate %s: %w", l.File, err)
	}
	return nil
}

// SigningKey makes a key pair name.key and name.pub in dir, when missing: service account tokens are signed with it.
func SigningKey(dir, name string) error {
	if _, err := os.Stat(filepath.Join(dir, name+".pub")); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	if err := writeKey(filepath.Join(dir, name+".key"), key); err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	return cache.WriteFile(filepath.Join(dir, name+".pub"),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

func newTemplate(user string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		// A clock that is set back a little must not make a new cluster unusable.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}, nil
}

func sign(dir, name string, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return err
	}
	// The certificate comes last: where it exists, its key does.
	if err := writeKey(filepath.Join(dir, name+".key"), key); err != nil {
		return err
	}
	return cache.WriteFile(filepath.Join(dir, name+".crt"),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return cache.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name+".crt"))
	return !errors.Is(err, fs.ErrNotExist)
}

func serves(cert *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if cert.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

func readCert(path string) (*x509.Certificate, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(block.Bytes)
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func readPEM(path string) (*pem.Block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return block, nil
}
