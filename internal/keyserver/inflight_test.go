package keyserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
)

// turnstile is a server whose calls wait until they are let go, and whose tokens are "NAMESPACE/ACCOUNT", or "slow"
// for one that the API server takes its time for.
type turnstile struct {
	*Server
	http   *httptest.Server
	inside atomic.Int64
	let    chan struct{}
	asked  atomic.Int64
}

func newTurnstile(t *testing.T, path string, queue func(*inFlight) *doors.Queue) *turnstile {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ts := &turnstile{let: make(chan struct{}), Server: &Server{inFlight: newInFlight(), Options: Options{Clock: clock.RealClock{},
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Settings: resources.DefaultSettings()}}}
	authenticate := func(ctx context.Context, header string) (caller, error) {
		ts.asked.Add(1)
		token := strings.TrimPrefix(header, "Bearer ")
		if token == "slow" {
			<-ctx.Done()
			return caller{}, later(v1alpha1.ReasonInternal, 2, "the API server could not be asked")
		}
		namespace, account, ok := strings.Cut(token, "/")
		if !ok {
			return caller{}, refuse(v1alpha1.ReasonUnauthenticated, "no token")
		}
		return caller{Namespace: namespace, ServiceAccount: account}, nil
	}
	ts.http = httptest.NewServer(handle(ts.Server, path, queue(ts.inFlight), authenticate, func(ctx context.Context, who caller, _ *struct{}) (*struct{}, error) {
		if who.Namespace == "hostile" {
			ts.inside.Add(1)
			defer ts.inside.Add(-1)
			select {
			case <-ts.let:
			case <-ctx.Done():
			}
		}
		return &struct{}{}, nil
	}))
	t.Cleanup(ts.http.Close)
	return ts
}

func (ts *turnstile) call(ctx context.Context, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, ts.http.URL, strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestOneNamespaceHoldsUpNobodyElse: a namespace whose pods ask without end, from the address that all pods share,
// gets its share of the work, and another one's pod behind the same address is answered at once.
func TestOneNamespaceHoldsUpNobodyElse(t *testing.T) {
	ts := newTurnstile(t, keyapi.PathUnseal, func(f *inFlight) *doors.Queue { return f.unseals })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const crowd = 30
	answers := make(chan int, crowd)
	for range crowd {
		go func() {
			status, _ := ts.call(ctx, "hostile/b-bot")
			answers <- status
		}()
	}
	for inside, waiting := 0, 0; inside < unsealLimits.PerName || waiting < crowd-unsealLimits.PerName; runtime.Gosched() {
		inside, waiting = ts.inFlight.unseals.Load()
	}
	for range 5 {
		if status, err := ts.call(t.Context(), "victim/b-bot"); err != nil || status != http.StatusOK {
			t.Fatalf("answered %d, %v", status, err)
		}
	}
	if got := ts.inside.Load(); got > int64(unsealLimits.PerName) {
		t.Errorf("%d of one namespace are worked on", got)
	}
	close(ts.let)
	for range crowd {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("one of the crowd was answered %d", status)
		}
	}
}

// TestKindsOfCallsAreApart: what pods do takes nothing from the manager's calls nor from sweeps, and garbage takes
// nothing from anybody who is known.
func TestKindsOfCallsAreApart(t *testing.T) {
	f := newInFlight()
	for i := range unsealLimits.Places {
		if _, err := f.unseals.Enter(t.Context(), fmt.Sprint("ns", i/unsealLimits.PerName)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range anonymousLimits.Places {
		if _, err := f.anonymous.Enter(t.Context(), fmt.Sprint("10.0.0.", i/anonymousLimits.PerName)); err != nil {
			t.Fatal(err)
		}
	}
	for name, q := range map[string]*doors.Queue{"the manager's": f.manager, "a sweep's": f.leases} {
		leave, err := q.Enter(t.Context(), "x")
		if err != nil {
			t.Fatalf("%s call: %v", name, err)
		}
		leave()
	}
}

// TestTokensThatTakeLong: questions to the API server that are not answered hold up one address's share and no more.
func TestTokensThatTakeLong(t *testing.T) {
	f := newInFlight()
	for range anonymousLimits.PerName {
		if _, err := f.anonymous.Enter(t.Context(), "10.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	leave, err := f.anonymous.Enter(t.Context(), "10.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	now, stop := context.WithCancel(t.Context())
	stop()
	if _, err := turn(now, f.anonymous, "10.0.0.1"); err == nil || asRefusal(err).RetryAfter == 0 {
		t.Errorf("beyond its share: %v", err)
	}
}

// TestLargeAnswers: an answer that a slow reader could keep in memory is bounded, and waits apart from the work.
func TestLargeAnswers(t *testing.T) {
	s := &Server{inFlight: newInFlight(), Options: Options{Log: slog.New(slog.DiscardHandler)}}
	r := httptest.NewRequest(http.MethodPost, keyapi.PathUnseal, nil)
	if err := s.give(t.Context(), httptest.NewRecorder(), r, make([]byte, maxAnswer+1)); err == nil {
		t.Error("an answer without bound was given")
	}
	for range answerLimits.PerName {
		if _, err := s.inFlight.answers.Enter(t.Context(), address(r)); err != nil {
			t.Fatal(err)
		}
	}
	now, stop := context.WithCancel(t.Context())
	stop()
	w := httptest.NewRecorder()
	if err := s.give(now, w, r, make([]byte, smallAnswer+1)); err == nil || w.Body.Len() > 0 {
		t.Errorf("a third large answer to one caller: %v, %d bytes", err, w.Body.Len())
	}
	if err := s.give(t.Context(), w, r, make([]byte, smallAnswer)); err != nil || w.Body.Len() != smallAnswer {
		t.Errorf("a small one: %v, %d bytes", err, w.Body.Len())
	}
}
