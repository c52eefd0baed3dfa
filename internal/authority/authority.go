// Package authority is the keyserver's certificate authority: its key and its life, the leaf that a server shows, and
// the bundle of authorities that clients trust.
package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Lifetimes. An authority lives a year. In its last third the next one is made and published; a week after it can be
// seen in the bundle it signs. A leaf lives a day and is replaced at half of it.
const (
	caLifetime   = 365 * 24 * time.Hour
	caRenewal    = caLifetime / 3
	caPublished  = 7 * 24 * time.Hour
	leafLifetime = 24 * time.Hour
	leafRenewal  = leafLifetime / 2
	clockSkew    = 5 * time.Minute
)

// Options of an Authority. All are needed.
type Options struct {
	// Keys is where the authority's own key lies.
	Keys *keystore.Store
	// Hosts are the names that the server's certificate is for.
	Hosts []string
	// Namespace of the bundle and of the keyserver's Service.
	Namespace string
	// Ends is told when the certificates in use end: "ca" or "leaf".
	Ends func(certificate string, at time.Time)
}

// Authority makes the server's certificates. Every replica has a leaf of its own whose key never leaves its memory; the
// authority's key lies wrapped in the keys' namespace. What clients trust is the bundle in a ConfigMap: the authority
// that signs, the one that will, and for a leaf's lifetime the one that did. So a new authority is known everywhere
// before it signs anything, and rotating it changes a ConfigMap and no pod.
type Authority struct {
	Options

	mu     sync.Mutex
	leaf   *tls.Certificate
	signer string // fingerprint of the authority that signed it
}

// New makes one; it asks nothing of the cluster yet.
func New(o Options) *Authority { return &Authority{Options: o} }

// TLSConfig serves the present leaf, TLS 1.3 only.
func (a *Authority) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.leaf == nil {
			return nil, errors.New("there is no certificate yet")
		}
		return a.leaf, nil
	}}
}

// Ready says whether there is a certificate that can be served.
func (a *Authority) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaf == nil || !a.Keys.Clock.Now().Before(a.leaf.Leaf.NotAfter) {
		return errors.New("there is no valid certificate")
	}
	return nil
}

// Maintain brings authority, bundle and leaf up to date. Each step is found out from what is stored, so a crash between
// two of them is healed by the next call; with nothing due it reads twice and writes nothing.
func (a *Authority) Maintain(ctx context.Context) error {
	now := a.Keys.Clock.Now()
	secret, doc, err := a.load(ctx, now)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	since, err := a.publish(ctx, doc, now)
	if err != nil {
		return fmt.Errorf("publish the certificate authority: %w", err)
	}
	changed, err := a.turn(doc, since, now)
	if err != nil {
		return fmt.Errorf("rotate the certificate authority: %w", err)
	}
	if changed {
		if err := a.store(ctx, secret, doc); err != nil {
			return fmt.Errorf("store the certificate authority: %w", err)
		}
		if _, err := a.publish(ctx, doc, now); err != nil {
			return fmt.Errorf("publish the certificate authority: %w", err)
		}
	}
	return a.sign(doc, now)
}

// load reads the authority, and makes it where there never was one: create-only, so that a second replica takes the
// first one's.
func (a *Authority) load(ctx context.Context, now time.Time) (*corev1.Secret, *keystore.CADoc, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: a.Keys.KeysNamespace, Name: keystore.CAName}
	err := a.Keys.Client.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		present, err := a.newCA(now)
		if err != nil {
			return nil, nil, err
		}
		fresh, err := keystore.NewDocument(a.Keys.KeysNamespace, keystore.CAName, "", keystore.FormatCA, 1, a.Keys.KEKs(), keystore.CADoc{Realm: a.Keys.Realm, Present: *present})
		if err != nil {
			return nil, nil, err
		}
		if err := a.Keys.Client.Create(ctx, fresh); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, nil, err
		}
		if err := a.Keys.Client.Get(ctx, key, secret); err != nil {
			return nil, nil, err
		}
	} else if err != nil {
		return nil, nil, err
	}
	doc := &keystore.CADoc{}
	if _, err := keystore.OpenKEKDocument(secret, keystore.FormatCA, a.Keys.KEKs(), doc); err != nil {
		return nil, nil, err
	}
	return secret, doc, nil
}

func (a *Authority) store(ctx context.Context, secret *corev1.Secret, doc *keystore.CADoc) error {
	_, _, err := a.Keys.UpdateDocument(ctx, secret, keystore.FormatCA, a.Keys.KEKs(), doc)
	if apierrors.IsConflict(err) {
		return keyapi.Later(v1alpha1.ReasonInternal, 1, "another replica rotated at the same time")
	}
	return err
}

// turn moves the rotation on by what is due: drop the previous authority, make the next one, let it sign. since is when
// the next one was first seen in the bundle.
func (a *Authority) turn(doc *keystore.CADoc, since, now time.Time) (bool, error) {
	present, err := parseCert(doc.Present.Certificate)
	if err != nil {
		return false, err
	}
	changed := false
	if doc.Previous != nil {
		if doc.Previous.Until == nil || !now.Before(*doc.Previous.Until) {
			doc.Previous, changed = nil, true
		}
	}
	expired := !now.Before(present.NotAfter)
	switch {
	case doc.Next == nil && now.After(present.NotAfter.Add(-caRenewal)):
		next, err := a.newCA(now)
		if err != nil {
			return false, err
		}
		doc.Next, changed = next, true
	case doc.Next != nil && (expired || (!since.IsZero() && now.Sub(since) >= caPublished)):
		until := now.Add(leafLifetime).UTC()
		doc.Previous = &keystore.CAEntry{Certificate: doc.Present.Certificate, Until: &until}
		doc.Present, doc.Next, changed = *doc.Next, nil, true
	}
	return changed, nil
}

// sign makes a new leaf when the present one is half over, or was signed by another authority.
func (a *Authority) sign(doc *keystore.CADoc, now time.Time) error {
	present, err := parseCert(doc.Present.Certificate)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	a.Ends("ca", present.NotAfter)
	a.mu.Lock()
	defer a.mu.Unlock()
	fingerprint := sealing.KID(present.Raw)
	if a.leaf != nil && a.signer == fingerprint && now.Before(a.leaf.Leaf.NotAfter.Add(-leafRenewal)) {
		return nil
	}
	_, der, err := a.Keys.KEKs().UnwrapBytes(doc.Present.Key, sealing.PurposeCA, doc.Realm)
	if err != nil {
		return keyapi.Later(v1alpha1.ReasonKEKUnavailable, 30, "the key of the certificate authority does not open with this key-encryption key")
	}
	defer clear(der)
	caKey, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return errors.New("the key of the certificate authority is not readable")
	}
	leaf, err := a.newLeaf(present, caKey, now)
	if err != nil {
		return fmt.Errorf("sign the server's certificate: %w", err)
	}
	a.leaf, a.signer = leaf, fingerprint
	a.Ends("leaf", leaf.Leaf.NotAfter)
	a.Keys.Log.Info("Signed a certificate", "authority", fingerprint, "notAfter", leaf.Leaf.NotAfter)
	return nil
}

func (a *Authority) newLeaf(ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "lethe-keyserver"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	for _, h := range a.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// newCA makes an authority; its key leaves this function wrapped only.
func (a *Authority) newCA(now time.Time) (*keystore.CAEntry, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "lethe-keyserver authority " + serial.Text(16)[:8]},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLifetime), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	wrapped, err := a.Keys.KEKs().WrapBytes(a.Keys.Random, sealing.KID(der), private, sealing.PurposeCA, a.Keys.Realm)
	if err != nil {
		return nil, err
	}
	return &keystore.CAEntry{Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Key: wrapped}, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	// Never short: its digits are part of the authority's name.
	return n.SetBit(n, 126, 1), nil
}

func parseCert(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("a stored certificate is not readable")
	}
	return x509.ParseCertificate(block.Bytes)
}
