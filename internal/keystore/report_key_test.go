package keystore

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestReportKeyDocument: the key lies wrapped, and opens only as the one that its document says.
func TestReportKeyDocument(t *testing.T) {
	kek, err := sealing.ParseKEK([]byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("K", 32)))))
	if err != nil {
		t.Fatal(err)
	}
	ring := sealing.Ring{kek}
	s, err := New(Options{KEK: kek, Realm: "test", KeysNamespace: "lethe-keys", Random: rand.Reader, Clock: clocktesting.NewFakePassiveClock(time.Now())})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := s.newReportKey()
	if err != nil {
		t.Fatal(err)
	}
	var doc reportKeyDoc
	if _, err := OpenKEKDocument(secret, formatReportKey, ring, &doc); err != nil {
		t.Fatal(err)
	}
	if key, err := openReportKey(secret, ring); err != nil || key.Public() != doc.Public {
		t.Errorf("%s is opened as %s, %v", doc.Public, key.Public(), err)
	}
	if text := string(secret.Data[DocumentKey]); !strings.Contains(text, "wrap.v1.") || strings.Contains(text, "PRIVATE") {
		t.Errorf("the key lies open: %s", text)
	}
	for name, change := range map[string]func(*reportKeyDoc){
		"its public key": func(doc *reportKeyDoc) { doc.Public = strings.Replace(doc.Public, "test", "tost", 1) },
		"its realm":      func(doc *reportKeyDoc) { doc.Realm = "other" },
	} {
		changed := doc
		change(&changed)
		forged, err := NewDocument(secret.Namespace, ReportKeyName, "", formatReportKey, 2, ring, changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openReportKey(forged, ring); err == nil {
			t.Errorf("with %s changed it opens", name)
		}
	}
}
