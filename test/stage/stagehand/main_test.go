package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/test/pg"
)

func TestWhatIsReceivedIsANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := run(t.Context(), []string{"receive", path}, strings.NewReader("a key"), io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "a key" {
		t.Errorf("%q %v", b, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	err = run(t.Context(), []string{"receive", path}, strings.NewReader("another"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second key: %v", err)
	}
	if err := run(t.Context(), []string{"receive", path + "2"}, strings.NewReader(""), io.Discard); err == nil {
		t.Error("nothing was taken for a key")
	}
}

func TestItCopiesItself(t *testing.T) {
	dir := t.TempDir()
	if err := run(t.Context(), []string{"install", dir}, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	// The copy is this test's program: it runs.
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "stagehand"), "-test.list", "TestItCopiesItself").CombinedOutput(); err != nil || !strings.Contains(string(out), "TestItCopiesItself") {
		t.Errorf("%s %v", out, err)
	}
}

func TestWrongWordsAreRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"sideways"}, {"install"}, {"receive"}, {"wait", "now"}, {"postgres"}, {"postgres", "--listen", "127.0.0.1:0"}} {
		if err := run(t.Context(), args, strings.NewReader("x"), io.Discard); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestAServerOfItsOwnPassword(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("open sesame, please\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	// Where another user may go.
	if err := os.Chmod(filepath.Dir(data), 0o755); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(running, []string{"postgres", "--dir", data, "--listen", "127.0.0.1:0", "--password-file", password}, nil, out)
		ended <- err
		_ = out.CloseWithError(err)
	}()
	var ready Ready
	if err := json.NewDecoder(said).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, []byte(ready.CA), 0o600); err != nil {
		t.Fatal(err)
	}
	server := &pg.Server{Host: ready.Host, Port: ready.Port, Password: "open sesame, please", CAFile: ca}
	if err := server.Exec(ctx, "postgres", "SELECT 1"); err != nil {
		t.Error(err)
	}
	server.Password = "another"
	if err := server.Exec(ctx, "postgres", "SELECT 1"); err == nil {
		t.Error("any password opens it")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestItSaysOneLine(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"say", "control"}, nil, &out); err != nil || out.String() != "control\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}
