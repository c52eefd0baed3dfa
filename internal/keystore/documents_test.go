package keystore

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestDocumentVectors: documents that were written once open for ever.
func TestDocumentVectors(t *testing.T) {
	if *writeVectors {
		generateVectors(t)
	}
	raw, err := os.ReadFile("testdata/documents.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		KEK     string
		Secrets map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	key, err := sealing.ParseKEK([]byte(v.KEK))
	if err != nil {
		t.Fatal(err)
	}
	kek := sealing.Ring{key}
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "lethe-keys", Name: name}, Type: v1alpha1.SecretTypeWrappedKey,
			Data: map[string][]byte{DocumentKey: compact(t, v.Secrets[name])}}
	}
	tenant, err := OpenTenantDocument(secret("tenant-acme"), kek)
	if err != nil || len(tenant.Seal) != 1 || tenant.Generation != 1 {
		t.Fatalf("tenant: %v", err)
	}
	object, err := OpenObjectDocument(secret("object-5d1f6d2e-0000-4000-8000-000000000003"), tenant)
	if err != nil || object.Doc.Credentials["telegram"].Highest != 3 || object.Generation != 2 {
		t.Errorf("object: %v", err)
	}
	var canary CanaryDoc
	if _, err := OpenKEKDocument(secret(CanaryName), FormatCanary, kek, &canary); err != nil || canary.Realm != "prod" {
		t.Errorf("canary: %v", err)
	}
}

func compact(t *testing.T, raw []byte) []byte {
	t.Helper()
	b, err := json.Marshal(json.RawMessage(raw))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var writeVectors = flag.Bool("write-vectors", false, "write testdata/documents.json, which must not exist yet")

// generateVectors writes documents of an installation that never was. Never do it again to make a test pass.
func generateVectors(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("K", 32)))
	key, err := sealing.ParseKEK([]byte(text))
	must(err)
	s, err := New(Options{KEK: key, Realm: "prod", KeysNamespace: "lethe-keys", Random: rand.Reader,
		Clock: clocktesting.NewFakePassiveClock(time.Date(2026, 3, 2, 4, 5, 6, 0, time.UTC))})
	must(err)
	made, err := s.makeTenantKeys(&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "5d1f6d2e-0000-4000-8000-000000000002"}}, UIDRangeDoc{First: firstUID, Size: uidsPerRange})
	must(err)
	tenant, err := OpenTenantDocument(made, s.KEKs())
	must(err)
	ref := keyapi.ObjectRef{Kind: sealing.KindBotDeployment, Namespace: "acme-bots", Name: "support", UID: "5d1f6d2e-0000-4000-8000-000000000003"}
	object, err := s.NewObjectKeys(ref, tenant)
	must(err)
	object.Doc.Credentials = map[string]CredentialDoc{"telegram": {Highest: 3, Version: 3, Source: strings.Repeat("ab", 32)}}
	object.Doc.Sets, object.Doc.Current = []string{"support-cred-0123456789"}, "support-cred-0123456789"
	stored, err := NewDocument("lethe-keys", ObjectSecretName(ref.UID), "acme", FormatObject, 2, object.Keys, object.Doc)
	must(err)
	present, err := s.newKEKDoc(key, s.Now())
	must(err)
	canary, err := NewDocument("lethe-keys", CanaryName, "", FormatCanary, 1, s.KEKs(), CanaryDoc{Realm: s.Realm, KEKs: []KEKDoc{present}})
	must(err)
	secrets := map[string]json.RawMessage{}
	for _, secret := range []*corev1.Secret{made, stored, canary} {
		secrets[secret.Name] = secret.Data[DocumentKey]
	}
	b, err := json.MarshalIndent(map[string]any{"KEK": text, "Secrets": secrets}, "", "  ")
	must(err)
	f, err := os.OpenFile("testdata/documents.json", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	must(err)
	_, err = f.Write(append(b, '\n'))
	must(err)
	must(f.Close())
}
