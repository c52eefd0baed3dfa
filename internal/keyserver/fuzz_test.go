package keyserver

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/fuzz"
)

// FuzzBodies: whatever is sent as the body of a call, it is answered with JSON, by a call that got a request or by a
// refusal, and neither the answer nor the log repeats it.
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
		tryBody[keyapi.TenantRequest](t, s, log, body)
		tryBody[keyapi.CredentialsRequest](t, s, log, body)
		tryBody[keyapi.RevokeRequest](t, s, log, body)
		tryBody[keyapi.UnsealRequest](t, s, log, body)
		tryBody[keyapi.LeaseRequest](t, s, log, body)
		tryBody[keyapi.ReleaseRequest](t, s, log, body)
	})
}

func tryBody[Request any](t *testing.T, s *Server, log *lockedBuffer, body []byte) {
	t.Helper()
	got := 0
	w := httptest.NewRecorder()
	handle(s, keyapi.PathUnseal, s.inFlight.unseals, func(context.Context, string) (caller, error) { return caller{Namespace: "acme-bots"}, nil },
		func(context.Context, caller, *Request) (*struct{}, error) {
			got++
			return &struct{}{}, nil
		}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, keyapi.PathUnseal, strings.NewReader(string(body))))
	switch {
	case w.Code == http.StatusOK && got == 1:
	case w.Code == http.StatusBadRequest && got == 0:
		var e keyapi.Error
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
