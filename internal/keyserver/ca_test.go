package keyserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/resources"
)

// newPKI is a keyserver with keys and a bundle of its own, so that its clock can run on.
func newPKI(t *testing.T) *world {
	t.Helper()
	keys := testEnv.Namespace(t, "pki", nil).Name
	w := newWorldAs(t, testEnv.As(t, "admin", "system:masters"), keys, newKEK())
	w.opts.Settings.Namespace = keys
	w.restart()
	return w
}

func (w *world) bundle() (*corev1.ConfigMap, string) {
	w.Helper()
	cm := &corev1.ConfigMap{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.Settings.Namespace, Name: resources.CABundleName}, cm))
	return cm, cm.Data[resources.CABundleKey]
}

// handshake is a client that trusts a bundle, by the test's clock.
func (w *world) handshake(bundle, host string) (*x509.Certificate, error) {
	w.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(bundle)) {
		w.Fatal("the bundle holds no certificate")
	}
	server, other := net.Pipe()
	defer server.Close()
	defer other.Close()
	serverConfig := w.server.Authority().TLSConfig()
	serverConfig.Time = w.clock.Now
	go func() { _ = tls.Server(server, serverConfig).HandshakeContext(w.Context()) }()
	conn := tls.Client(other, &tls.Config{RootCAs: pool, ServerName: host, Time: w.clock.Now})
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if conn.ConnectionState().Version != tls.VersionTLS13 {
		w.Errorf("speaks TLS %x", conn.ConnectionState().Version)
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

const serviceHost = "lethe-keyserver.lethe-system.svc"

func TestCertificate(t *testing.T) {
	w := newPKI(t)
	if err := w.server.Ready(t.Context()); err == nil {
		t.Error("is ready without a certificate")
	}
	w.must(w.server.Maintain(t.Context()))
	w.must(w.server.Ready(t.Context()))
	_, bundle := w.bundle()
	leaf, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if leaf.NotAfter.Sub(w.clock.Now()) > leafLifetime || leaf.IsCA {
		t.Errorf("the leaf lives until %s", leaf.NotAfter)
	}
	if _, err := w.handshake(bundle, "evil.example"); err == nil {
		t.Error("the certificate is for any name")
	}
	// Idle is idle, and a second replica takes the same authority with a leaf of its own.
	w.writes.reset(0, false)
	w.must(w.server.Maintain(t.Context()))
	w.restart()
	w.must(w.server.Maintain(t.Context()))
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes: %v", n, seen)
	}
	second, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if second.Equal(leaf) {
		t.Error("two processes have the same leaf")
	}
	// The key is stored wrapped only.
	if doc := string(w.getSecret(w.opts.KeysNamespace, caName).Data[documentKey]); strings.Contains(doc, "PRIVATE KEY") || !strings.Contains(doc, "wrap.v1.") {
		t.Error("the authority's key is not wrapped")
	}
	// Half a leaf's life later there is a new one; the bundle stays.
	w.clock.SetTime(w.clock.Now().Add(leafRenewal + time.Minute))
	w.must(w.server.Maintain(t.Context()))
	third, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if third.Equal(second) {
		t.Error("the leaf was not renewed")
	}
}

func TestBundleIsRepaired(t *testing.T) {
	w := newPKI(t)
	w.must(w.server.Maintain(t.Context()))
	cm, want := w.bundle()
	cm.Data = map[string]string{resources.CABundleKey: want + "rubbish", "more": "x"}
	w.must(testEnv.Client.Update(t.Context(), cm))
	w.must(w.server.Maintain(t.Context()))
	if cm, got := w.bundle(); got != want || len(cm.Data) != 2 {
		t.Error("a changed bundle stays")
	}
	w.must(testEnv.Client.Delete(t.Context(), cm))
	w.must(w.server.Maintain(t.Context()))
	if _, got := w.bundle(); got != want {
		t.Error("a deleted bundle stays away")
	}
}

// TestBundleHoldsTheServicesAddresses: pods without DNS find the keyserver by them, the ones of a Service that was made again too.
func TestBundleHoldsTheServicesAddresses(t *testing.T) {
	w := newPKI(t)
	says := func(want string) {
		t.Helper()
		w.must(w.server.Maintain(t.Context()))
		cm, _ := w.bundle()
		if got, there := cm.Data[resources.AddressesKey]; !there || got != want {
			t.Errorf("holds %q, want %q", got, want)
		}
	}
	says("")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: w.opts.Settings.Namespace, Name: resources.ServiceKeyserver},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 8443}}}}
	for range 2 {
		again := service.DeepCopy()
		w.must(testEnv.Client.Create(t.Context(), again))
		says(again.Spec.ClusterIP + "\n")
		w.writes.reset(0, false)
		says(again.Spec.ClusterIP + "\n")
		if n, seen := w.writes.writes(); n != 0 {
			t.Errorf("the same address made %d writes: %v", n, seen)
		}
		w.must(testEnv.Client.Delete(t.Context(), again))
	}
	headless := service.DeepCopy()
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	w.must(testEnv.Client.Create(t.Context(), headless))
	says("")
}

// TestRotation runs through the life of two authorities. At every step a client that has the bundle of the step before
// still trusts the server: pods and the manager get the new one with some delay.
func TestRotation(t *testing.T) {
	w := newPKI(t)
	w.must(w.server.Maintain(t.Context()))
	_, first := w.bundle()
	known := first
	leaves := map[string]bool{}
	rotated := time.Time{}
	start := w.clock.Now()
	for day := 0; day < 365 && (rotated.IsZero() || w.clock.Now().Sub(rotated) < 4*24*time.Hour); day++ {
		w.clock.SetTime(w.clock.Now().Add(24 * time.Hour))
		w.must(w.server.Maintain(t.Context()))
		leaf, err := w.handshake(known, serviceHost)
		if err != nil {
			t.Fatalf("day %d: a client with yesterday's bundle: %v", day, err)
		}
		leaves[leaf.Issuer.CommonName] = true
		if len(leaves) == 2 && rotated.IsZero() {
			rotated = w.clock.Now()
			if _, err := w.handshake(first, serviceHost); err == nil {
				t.Error("the first bundle already trusted the second authority")
			}
		}
		_, known = w.bundle()
	}
	if rotated.IsZero() {
		t.Fatal("the authority was never rotated")
	}
	if age := rotated.Sub(start); age < caLifetime-caRenewal+caPublished-24*time.Hour || age > caLifetime-caRenewal+caPublished+2*24*time.Hour {
		t.Errorf("rotated after %s", age)
	}
	if n := strings.Count(known, "BEGIN CERTIFICATE"); n != 1 {
		t.Errorf("after the rotation the bundle holds %d certificates", n)
	}
	if _, err := w.handshake(first, serviceHost); err == nil {
		t.Error("the first authority is still trusted")
	}
}

// TestRotationIsPublishedFirst holds the bundle back: the next authority must not sign before it was seen for a week.
func TestRotationIsPublishedFirst(t *testing.T) {
	w := newPKI(t)
	w.must(w.server.Maintain(t.Context()))
	w.clock.SetTime(w.clock.Now().Add(caLifetime - caRenewal + time.Hour))
	// The next authority is stored, and the process dies before it is in the bundle.
	w.writes.reset(1, true)
	if err := w.server.Maintain(t.Context()); err == nil {
		t.Fatal("there was no write to die at")
	}
	_, bundle := w.bundle()
	if strings.Count(bundle, "BEGIN CERTIFICATE") != 1 {
		t.Fatal("the bundle was written after all")
	}
	// It comes back a month later.
	w.writes.reset(0, false)
	w.clock.SetTime(w.clock.Now().Add(30 * 24 * time.Hour))
	w.restart()
	w.must(w.server.Maintain(t.Context()))
	if _, err := w.handshake(bundle, serviceHost); err != nil {
		t.Errorf("signed with an authority that was in no bundle: %v", err)
	}
	_, both := w.bundle()
	if strings.Count(both, "BEGIN CERTIFICATE") != 2 {
		t.Error("the next authority is not in the bundle")
	}
	w.clock.SetTime(w.clock.Now().Add(caPublished - time.Hour))
	w.must(w.server.Maintain(t.Context()))
	if _, err := w.handshake(bundle, serviceHost); err != nil {
		t.Errorf("signed with it too early: %v", err)
	}
	w.clock.SetTime(w.clock.Now().Add(2 * time.Hour))
	w.must(w.server.Maintain(t.Context()))
	if _, err := w.handshake(both, serviceHost); err != nil {
		t.Errorf("a client with both: %v", err)
	}
	if _, err := w.handshake(bundle, serviceHost); err == nil {
		t.Error("was not rotated")
	}
}

// TestExpiredAuthority is a keyserver that was off for years: it must find its own way back.
func TestExpiredAuthority(t *testing.T) {
	w := newPKI(t)
	w.must(w.server.Maintain(t.Context()))
	w.clock.SetTime(w.clock.Now().Add(3 * caLifetime))
	w.restart()
	for range 3 {
		w.must(w.server.Maintain(t.Context()))
	}
	_, bundle := w.bundle()
	if _, err := w.handshake(bundle, serviceHost); err != nil {
		t.Error(err)
	}
}

func TestAuthoritySurvivesACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 3; at++ {
			w := newPKI(t)
			w.writes.reset(at, after)
			if err := w.server.Maintain(t.Context()); err == nil {
				t.Fatal("there was no write to die at")
			}
			w.writes.reset(0, false)
			w.restart()
			w.must(w.server.Maintain(t.Context()))
			_, bundle := w.bundle()
			if _, err := w.handshake(bundle, serviceHost); err != nil {
				t.Errorf("write %d, after %v: %v", at, after, err)
			}
			if names := w.keyNames(w.opts.KeysNamespace); len(names) != 2 {
				t.Errorf("write %d, after %v: there are %v", at, after, names)
			}
		}
	}
}
