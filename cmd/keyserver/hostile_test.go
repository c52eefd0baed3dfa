package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/test/hostile"
)

func TestMain(m *testing.M) {
	if hostile.IsProcess() {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestForeignWordsInTheLogOfTheKeyserver runs the program as it is shipped against an API server whose every answer
// is planted, and one that is none.
func TestForeignWordsInTheLogOfTheKeyserver(t *testing.T) {
	kekFile := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kekFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{"--image=lethe:1", "--realm=prod", "--kek-file=" + kekFile, "--listen=127.0.0.1:0", "--metrics-bind-address=0", "--health-probe-bind-address=127.0.0.1:0", "-v=1"}
	config := []string{"KUBECONFIG=" + hostile.Kubeconfig(t, hostile.API(t, nil).URL)}
	p := hostile.Start(t, config, good...)
	p.Until(hostile.Mark, "Not maintained")
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.Shown())
	}
	hostile.Check(t, "the log", p.Shown())
	if strings.Contains(p.Shown(), "Body") {
		t.Errorf("what requests carry is logged:\n%s", p.Shown())
	}

	for what, args := range map[string][]string{
		"a flag": {"--memory-limit=" + hostile.Words()[:len(hostile.Words())-6]},
		"a file": append(good[:2:2], "--kek-file=/none/"+hostile.Mark+"\x1b[2J\n"),
	} {
		p := hostile.Start(t, config, args...)
		if code := p.Wait(); code != exitUsage {
			t.Errorf("%s: exit code %d", what, code)
		}
		hostile.Check(t, what, p.Shown())
		hostile.Reached(t, what, p.Shown())
	}
}
