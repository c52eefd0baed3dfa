package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/test/hostile"
)

func TestMain(m *testing.M) {
	if hostile.IsProcess() {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestForeignWordsInTheLogOfUnseal: what a keyserver says, or whoever answers in its place, and what stands in the
// pod's own arguments, reaches the log as plain words of one line.
func TestForeignWordsInTheLogOfUnseal(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hostile.Answer(w, http.StatusConflict, keyapi.Error{Reason: "PodMismatch", Message: hostile.Words()})
	}))
	defer server.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca"), filepath.Join(dir, "token")
	for path, content := range map[string][]byte{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), token: []byte("t")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, args := range map[string][]string{
		"a refusal": {"--url=" + server.URL, "--ca-file=" + ca, "--token-file=" + token, "--dir=" + dir},
		"a flag":    {"--timeout=" + hostile.Words()[:len(hostile.Words())-6]}, // no argument holds a zero byte
		"a file":    {"--url=" + server.URL, "--ca-file=" + dir + "/" + hostile.Mark + "\x1b[2J\n", "--token-file=" + token, "--dir=" + dir, "--timeout=1ms"},
	} {
		p := hostile.Start(t, nil, args...)
		if code := p.Wait(); code == 0 {
			t.Errorf("%s: exit code %d", what, code)
		}
		hostile.Check(t, what, p.Shown())
		hostile.Reached(t, what, p.Shown())
	}
}
