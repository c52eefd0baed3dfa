package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func newStage(t *testing.T) *Stage {
	t.Helper()
	s := &Stage{Root: t.TempDir(), Dir: filepath.Join(t.TempDir(), "stage"), Cluster: "test", Realm: "test", Progress: t.Output()}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProgramsSeeNoClusterOfTheUsers(t *testing.T) {
	t.Setenv("KUBECONFIG", "/home/user/.kube/config")
	t.Setenv("HELM_PLUGINS", "/home/user/plugins")
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("HOME", "/home/user")
	s := newStage(t)
	env := s.environment()
	for _, e := range env {
		if strings.Contains(e, "/home/user/") || strings.HasPrefix(e, "KUBERNETES_SERVICE_HOST=") {
			t.Errorf("the user's %s is handed on", e)
		}
	}
	for _, want := range []string{"KUBECONFIG=" + s.Path("kubeconfig"), "HOME=/home/user"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestTheFolderIsItsOwnersAlone(t *testing.T) {
	s := newStage(t)
	for _, dir := range []string{"", "secrets"} {
		info, err := os.Stat(s.Path(dir))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%q: %v %v", dir, info.Mode(), err)
		}
	}
}

func TestAProcessIsFoundAgainAndStopped(t *testing.T) {
	s := newStage(t)
	if err := s.startDetached("sleeper", []string{"GREETING=hello"}, "/bin/sh", "-c", `echo "$GREETING"; exec sleep 60`); err != nil {
		t.Fatal(err)
	}
	again := &Stage{Dir: s.Dir} // as another run of the program sees it
	pid, err := again.running("sleeper")
	if err != nil || pid == 0 {
		t.Fatal(pid, err)
	}
	err = Until(t.Context(), 5*time.Second, "read its log", func(context.Context) (string, error) {
		b, err := os.ReadFile(s.Path("logs", "sleeper.log"))
		if string(b) != "hello\n" {
			return string(b), err
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := again.stopProcess(t.Context(), "sleeper"); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(pid); err == nil {
		t.Error("it goes on")
	}
	if err := again.stopProcess(t.Context(), "sleeper"); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestAProcessOfTheSameNumberIsNotOurs(t *testing.T) {
	s := newStage(t)
	// This test's own number with another start: what an old file says after the number was given away again.
	record := []byte(`{"pid":` + strconv.Itoa(os.Getpid()) + `,"start":"1"}`)
	if err := os.WriteFile(s.Path("other.process"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := s.running("other"); pid != 0 || err != nil {
		t.Fatalf("taken for ours: %d %v", pid, err)
	}
	if err := s.stopProcess(t.Context(), "other"); err != nil {
		t.Error(err)
	}
}

func TestUntil(t *testing.T) {
	asked := 0
	err := Until(t.Context(), 10*time.Second, "wait", func(context.Context) (string, error) {
		if asked++; asked < 3 {
			return "patience", nil
		}
		return "", nil
	})
	if err != nil || asked != 3 {
		t.Errorf("%d %v", asked, err)
	}
	err = Until(t.Context(), 300*time.Millisecond, "wait for the moon", func(context.Context) (string, error) { return "the moon", nil })
	if err == nil || !strings.Contains(err.Error(), "wait for the moon") || !strings.Contains(err.Error(), "still missing: the moon") {
		t.Errorf("%v", err)
	}
	began := time.Now()
	broken := errors.New("broken for good")
	err = Until(t.Context(), time.Minute, "wait", func(context.Context) (string, error) { return "", Stop(broken) })
	if !errors.Is(err, broken) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestImagesAreNamedByWhatIsInThem(t *testing.T) {
	s := newStage(t)
	name := func(content string) string {
		if err := os.WriteFile(s.archive(letheImage), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := s.LetheImage()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b, again := name("a"), name("b"), name("a")
	if a == b || a != again || !strings.HasPrefix(a, "lethe:") {
		t.Error(a, b, again)
	}
}

func TestPostgresFolderOfACrashIsForgotten(t *testing.T) {
	s := newStage(t)
	dir := filepath.Join(t.TempDir(), "lethe-postgres-1")
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path("postgres-dir"), []byte(dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.stopPostgres(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is left")
	}
	if err := s.stopPostgres(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestKEKIsReadAsItWasMade(t *testing.T) {
	s := newStage(t)
	if err := os.MkdirAll(s.Path("kek"), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n": true, "AAAA": false, "": false,
	} {
		if err := os.WriteFile(s.KEKFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := s.KEK(); (err == nil) != ok || (ok && len(key) != 32) {
			t.Errorf("%q: %d bytes, %v", text, len(key), err)
		}
	}
}
