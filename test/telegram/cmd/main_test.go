package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/test/telegram"
)

func TestItServesBothSidesAndEnds(t *testing.T) {
	dir := t.TempDir()
	tokenFile, readyFile := filepath.Join(dir, "control"), filepath.Join(dir, "ready")
	if err := os.WriteFile(tokenFile, []byte("control-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var logs bytes.Buffer
	ended := make(chan error, 1)
	runCtx, stop := context.WithCancel(ctx)
	go func() {
		ended <- run(runCtx, slog.New(slog.NewTextHandler(&logs, nil)), []string{"--control-token-file", tokenFile, "--ready-file", readyFile})
	}()
	var ready Ready
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ready.API == "" {
		select {
		case err := <-ended:
			t.Fatalf("ended at once: %v", err)
		case <-ctx.Done():
			t.Fatal("no ready file")
		case <-tick.C:
			if b, err := os.ReadFile(readyFile); err == nil {
				if err := json.Unmarshal(b, &ready); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	c := telegram.Client{URL: ready.Control, Token: "control-token"}
	id, err := c.AddBot(ctx, "4242:AAExampleExampleExampleExample_Exampl", "acme_bot")
	if err != nil || id != 4242 {
		t.Fatal(id, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ready.CA))
	https := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	defer https.CloseIdleConnections()
	for path, want := range map[string]int{
		"/bot4242:AAExampleExampleExampleExample_Exampl/getMe": 200,
		"/bot4242:AAWrongWrongWrongWrongWrongWrong_Wron/getMe": 401,
		"/control/v1/stats?bot=4242":                           404, // the control side is not on this listener
	} {
		resp, err := https.Get(ready.API + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %d, want %d (%v)", path, resp.StatusCode, want, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if strings.Contains(logs.String(), "AA") || strings.Contains(logs.String(), "control-token") {
		t.Errorf("a token in the log:\n%s", logs.String())
	}
}

func TestItWantsAControlToken(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "control")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--control-token-file", empty}, {"--control-token-file", empty + ".none"}} {
		if err := run(t.Context(), slog.New(slog.DiscardHandler), args); err == nil {
			t.Errorf("started with %v", args)
		}
	}
}

func TestReadyOnStandardOutput(t *testing.T) {
	var out bytes.Buffer
	if err := writeReady("-", Ready{API: "https://10.0.0.1:8443", CA: "pem"}, &out); err != nil {
		t.Fatal(err)
	}
	var r Ready
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.API != "https://10.0.0.1:8443" || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("%q %v", out.String(), err)
	}
}
