package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// TestTheWireCounts: what goes to the API server arrives there as it was sent, and is counted; a watch is counted
// apart.
func TestTheWireCounts(t *testing.T) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s by %s", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	defer api.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	w, err := newWire(&rest.Config{Host: strings.TrimPrefix(api.URL, "https://"), TLSClientConfig: rest.TLSClientConfig{CAData: ca}})
	if err != nil {
		t.Fatal(err)
	}
	between := httptest.NewServer(w)
	defer between.Close()
	total := 0
	for _, path := range []string{"/api/v1/pods?limit=1", "/api/v1/pods?watch=true", "/version"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, between.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer t")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := "GET " + path + " by Bearer t"; err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if !strings.Contains(path, "watch") {
			total += len(got)
		}
	}
	paths := w.look()
	if w.calls.Load() != 2 || w.watches.Load() != 1 || w.bytes.Load() != int64(total) || paths["GET /api/v1/pods"] != 1 || paths["GET /version"] != 1 || len(w.look()) > 0 {
		t.Errorf("%d calls, %d watches, %d bytes of %d, %v", w.calls.Load(), w.watches.Load(), w.bytes.Load(), total, paths)
	}
}
