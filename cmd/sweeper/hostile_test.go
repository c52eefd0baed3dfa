package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/hostile"
)

func TestMain(m *testing.M) {
	if hostile.IsProcess() {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestForeignWordsInTheLogOfTheSweeper: what a keyserver says reaches log and report as plain words of one line. What
// a database says reaches neither: TestADatabasesWordsStayOutside.
func TestForeignWordsInTheLogOfTheSweeper(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hostile.Answer(w, http.StatusConflict, keyapi.Error{Reason: "PlanMismatch", Message: hostile.Words()})
	}))
	defer server.Close()
	dir := t.TempDir()
	b, err := plan.Encode(plan.Plan{Format: plan.Format, Target: plan.Target{Type: v1alpha1.StorePostgres, Postgres: &plan.PostgresTarget{}}, ValidUntil: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"ca": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), "token": []byte("t"), "plan": b} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--url=" + server.URL, "--ca-file=" + dir + "/ca", "--token-file=" + dir + "/token", "--plan=" + dir + "/plan", "--plan-hash=" + plan.HashBytes(b),
		"--termination-log=" + dir + "/report"}
	for what, args := range map[string][]string{
		"a refusal": args,
		"a flag":    {"--time-budget=" + hostile.Words()[:len(hostile.Words())-6]},
		"a file":    append(args[:5:5], "--termination-log="+dir+"/none/"+hostile.Mark+"\x1b[2J\n"),
	} {
		p := hostile.Start(t, nil, args...)
		p.Wait()
		hostile.Check(t, what, p.Shown())
		hostile.Reached(t, what, p.Shown())
	}
	report, err := os.ReadFile(filepath.Join(dir, "report"))
	if err != nil {
		t.Fatal(err)
	}
	hostile.Check(t, "the report", string(report))
}
