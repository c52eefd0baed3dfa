package main

import (
	"net/http"
	"strings"
	"sync"
	"time"

	tg "github.com/go-telegram/bot"
)

// pollHealth says whether polling works: the last getUpdates was answered well, and not too long ago.
type pollHealth struct {
	now    func() time.Time
	within time.Duration

	mu   sync.Mutex
	last time.Time // of the last poll that was answered well; zero when the last one failed
}

func newPollHealth(now func() time.Time, within time.Duration) *pollHealth {
	return &pollHealth{now: now, within: within}
}

// polled notes the end of a poll.
func (h *pollHealth) polled(ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Time{}
	if ok {
		h.last = h.now()
	}
}

func (h *pollHealth) ok() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.last.IsZero() && h.now().Sub(h.last) <= h.within
}

// ServeHTTP is /healthz.
func (h *pollHealth) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if !h.ok() {
		http.Error(w, "polling does not work", http.StatusServiceUnavailable)
		return
	}
	// A probe that went away is no failure.
	_, _ = w.Write([]byte("polling works\n"))
}

// watch passes requests on and notes how polls end.
func (h *pollHealth) watch(next tg.HttpClient) tg.HttpClient { return watcher{h, next} }

type watcher struct {
	health *pollHealth
	next   tg.HttpClient
}

// Do implements the library's client.
func (w watcher) Do(req *http.Request) (*http.Response, error) {
	resp, err := w.next.Do(req)
	if strings.HasSuffix(req.URL.Path, "/getUpdates") {
		w.health.polled(err == nil && resp.StatusCode == http.StatusOK)
	}
	return resp, err
}
