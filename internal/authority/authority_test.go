package authority

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
)

const serviceHost = "lethe-keyserver.lethe-system.svc"

func TestCertificate(t *testing.T) {
	w := newPKI(t)
	if err := w.authority.Ready(); err == nil {
		t.Error("is ready without a certificate")
	}
	w.must(w.maintain())
	w.must(w.authority.Ready())
	_, bundle := w.bundle()
	leaf, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if leaf.NotAfter.Sub(w.clock.Now()) > leafLifetime || leaf.IsCA {
		t.Errorf("the leaf lives until %s", leaf.NotAfter)
	}
	if !w.ends["leaf"].Equal(leaf.NotAfter) || !w.ends["ca"].After(leaf.NotAfter) {
		t.Errorf("tells the ends %v", w.ends)
	}
	if _, err := w.handshake(bundle, "evil.example"); err == nil {
		t.Error("the certificate is for any name")
	}
	// Idle is idle, and a second replica takes the same authority with a leaf of its own.
	w.writes.reset(0, false)
	w.must(w.maintain())
	w.restart()
	w.must(w.maintain())
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes: %v", n, seen)
	}
	second, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if second.Equal(leaf) {
		t.Error("two processes have the same leaf")
	}
	// The key is stored wrapped only.
	var stored corev1.Secret
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: keystore.CAName}, &stored))
	if doc := string(stored.Data[keystore.DocumentKey]); strings.Contains(doc, "PRIVATE KEY") || !strings.Contains(doc, "wrap.v1.") {
		t.Error("the authority's key is not wrapped")
	}
	// Half a leaf's life later there is a new one; the bundle stays.
	w.pass(leafRenewal + time.Minute)
	w.must(w.maintain())
	third, err := w.handshake(bundle, serviceHost)
	w.must(err)
	if third.Equal(second) {
		t.Error("the leaf was not renewed")
	}
}

func TestBundleIsRepaired(t *testing.T) {
	w := newPKI(t)
	w.must(w.maintain())
	cm, want := w.bundle()
	cm.Data = map[string]string{resources.CABundleKey: want + "rubbish", "more": "x"}
	w.must(testEnv.Client.Update(t.Context(), cm))
	w.must(w.maintain())
	if cm, got := w.bundle(); got != want || len(cm.Data) != 2 {
		t.Error("a changed bundle stays")
	}
	w.must(testEnv.Client.Delete(t.Context(), cm))
	w.must(w.maintain())
	if _, got := w.bundle(); got != want {
		t.Error("a deleted bundle stays away")
	}
}

// TestBundleHoldsTheServicesAddresses: pods without DNS find the keyserver by them, the ones of a Service that was
// made again too.
func TestBundleHoldsTheServicesAddresses(t *testing.T) {
	w := newPKI(t)
	says := func(want string) {
		t.Helper()
		w.must(w.maintain())
		cm, _ := w.bundle()
		if got, there := cm.Data[resources.AddressesKey]; !there || got != want {
			t.Errorf("holds %q, want %q", got, want)
		}
	}
	says("")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: resources.ServiceKeyserver},
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
	w.must(w.maintain())
	_, first := w.bundle()
	known := first
	leaves := map[string]bool{}
	rotated := time.Time{}
	start := w.clock.Now()
	for day := 0; day < 365 && (rotated.IsZero() || w.clock.Now().Sub(rotated) < 4*24*time.Hour); day++ {
		w.pass(24 * time.Hour)
		w.must(w.maintain())
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
	w.must(w.maintain())
	w.pass(caLifetime - caRenewal + time.Hour)
	// The next authority is stored, and the process dies before it is in the bundle.
	w.writes.reset(1, true)
	if err := w.maintain(); err == nil {
		t.Fatal("there was no write to die at")
	}
	_, bundle := w.bundle()
	if strings.Count(bundle, "BEGIN CERTIFICATE") != 1 {
		t.Fatal("the bundle was written after all")
	}
	// It comes back a month later.
	w.writes.reset(0, false)
	w.pass(30 * 24 * time.Hour)
	w.restart()
	w.must(w.maintain())
	if _, err := w.handshake(bundle, serviceHost); err != nil {
		t.Errorf("signed with an authority that was in no bundle: %v", err)
	}
	_, both := w.bundle()
	if strings.Count(both, "BEGIN CERTIFICATE") != 2 {
		t.Error("the next authority is not in the bundle")
	}
	w.pass(caPublished - time.Hour)
	w.must(w.maintain())
	if _, err := w.handshake(bundle, serviceHost); err != nil {
		t.Errorf("signed with it too early: %v", err)
	}
	w.pass(2 * time.Hour)
	w.must(w.maintain())
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
	w.must(w.maintain())
	w.pass(3 * caLifetime)
	w.restart()
	for range 3 {
		w.must(w.maintain())
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
			if err := w.maintain(); err == nil {
				t.Fatal("there was no write to die at")
			}
			w.writes.reset(0, false)
			w.restart()
			w.must(w.maintain())
			_, bundle := w.bundle()
			if _, err := w.handshake(bundle, serviceHost); err != nil {
				t.Errorf("write %d, after %v: %v", at, after, err)
			}
			if names := w.secrets(); len(names) != 2 {
				t.Errorf("write %d, after %v: there are %v", at, after, names)
			}
		}
	}
}
