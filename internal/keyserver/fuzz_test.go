package keyserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/fuzz"
)

// FuzzBodies: whatever is sent as the body of a call, it is answered with JSON, by a call that got a request or by a refusal, and
// neither the answer nor the log repeats it.
func FuzzBodies(f *testing.F) {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"publicKey":"AAAA"}`))
	f.Add([]byte(`{"tenant":{"kind":"Tenant","name":"acme","uid":"u"}}`))
	f.Add([]byte(`{"object":{"kind":"BotDeployment","namespace":"n","name":"b","uid":"u"}}`))
	f.Add([]byte(`{"planHash":"00","publicKey":7}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		log := &lockedBuffer{}
		s := &Server{inFlight: newInFlight(), Options: Options{Clock: clock.RealClock{}, Metrics: metrics, Settings: resources.DefaultSettings(),
			Log: slog.New(slog.NewTextHandler(log, nil))}}
		tryBody[protocol.TenantRequest](t, s, log, body)
		tryBody[protocol.CredentialsRequest](t, s, log, body)
		tryBody[protocol.RevokeRequest](t, s, log, body)
		tryBody[protocol.UnsealRequest](t, s, log, body)
		tryBody[protocol.LeaseRequest](t, s, log, body)
		tryBody[protocol.ReleaseRequest](t, s, log, body)
	})
}

func tryBody[Request any](t *testing.T, s *Server, log *lockedBuffer, body []byte) {
	t.Helper()
	got := 0
	w := httptest.NewRecorder()
	handle(s, protocol.PathUnseal, s.inFlight.unseals, func(context.Context, string) (caller, error) { return caller{Namespace: "acme-bots"}, nil },
		func(context.Context, caller, *Request) (*struct{}, error) {
			got++
			return &struct{}{}, nil
		}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, protocol.PathUnseal, strings.NewReader(string(body))))
	switch {
	case w.Code == http.StatusOK && got == 1:
	case w.Code == http.StatusBadRequest && got == 0:
		var e protocol.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Reason != v1alpha1.ReasonBadRequest {
			t.Fatalf("refused with %s", w.Body)
		}
	default:
		t.Fatalf("answered %d, %d calls", w.Code, got)
	}
	var r Request
	if json.Unmarshal(body, &r) == nil {
		return // what a request names may be in the log
	}
	if piece := fuzz.Repeated(errText(w.Body.String()+log.String()), string(body)); piece != "" {
		t.Fatalf("answer or log repeat %q", piece)
	}
}

type errText string

func (e errText) Error() string { return string(e) }

// known formats may be named in an error.
const known = `"` + formatTenant + `" "lethe.dev/tenant-keys/v1"`

// FuzzDocument: what lies in the keys' namespace is refused without being repeated, or it is the one document that was written.
func FuzzDocument(f *testing.F) {
	key, err := sealing.NewKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := newDocument("lethe-keys", tenantSecretName("acme"), "acme", formatTenant, 1, sealing.Ring{key},
		tenantDoc{Realm: "test", Tenant: "acme", UID: "u", Keys: []keyDoc{{KID: "k", Key: "w", State: stateActive}}})
	if err != nil {
		f.Fatal(err)
	}
	written := good.Data[documentKey]
	f.Add(written)
	f.Add([]byte(strings.Replace(string(written), "/v2", "/v1", 1)))
	f.Add([]byte(strings.Replace(string(written), `"generation":1`, `"generation":2`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		secret := good.DeepCopy()
		secret.Data[documentKey] = b
		var doc tenantDoc
		e, err := readDocument(secret, formatTenant, &doc)
		if err == nil {
			err = e.check(secret, sealing.Ring{key})
		}
		if piece := fuzz.Repeated(err, string(b)); piece != "" && !strings.Contains(known, piece) {
			t.Fatalf("the error repeats %q", piece)
		}
		if err != nil {
			return
		}
		if doc.UID != "u" || doc.Tenant != "acme" || e.Generation != 1 || len(doc.Keys) != 1 || doc.Keys[0] != (keyDoc{KID: "k", Key: "w", State: stateActive}) {
			t.Fatalf("another document was believed: %+v", doc)
		}
	})
}
