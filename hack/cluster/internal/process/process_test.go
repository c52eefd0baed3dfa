package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test program play its part in Start: a started program first runs as the helper.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == HelperCommand {
		fmt.Fprintln(os.Stderr, Helper(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func startSleep(t *testing.T) (Record, Spec) {
	t.Helper()
	dir := t.TempDir()
	s := Spec{Program: LookPath("sleep"), Args: []string{"600"}, Log: filepath.Join(dir, "log"), Record: filepath.Join(dir, "record")}
	r, err := Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r, s
}

func TestRecordStaysTrueAcrossExec(t *testing.T) {
	r, s := startSleep(t)
	became := Poll(5*time.Second, 10*time.Millisecond, func() bool {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID))
		return err == nil && strings.Contains(name, "sleep") || err == nil && strings.Contains(name, "coreutils") || os.IsNotExist(err)
	})
	if !became || !r.Alive() {
		t.Fatalf("the record does not name the program: became=%t alive=%t", became, r.Alive())
	}
	if read, ok, err := Read(s.Record); err != nil || !ok || read != r {
		t.Errorf("read %v, %t, %v; want %v", read, ok, err, r)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if r.Alive() {
		t.Error("alive after Stop")
	}
	if err := r.Stop(); err != nil {
		t.Errorf("stopping what is gone: %v", err)
	}
}

// A process that has the id of a recorded one, but is another, must be left alone.
func TestReusedIDIsLeftAlone(t *testing.T) {
	r, _ := startSleep(t)
	for name, old := range map[string]Record{
		"began at another time": {PID: r.PID, Start: "1", Boot: r.Boot},
		"of another boot":       {PID: r.PID, Start: r.Start, Boot: "00000000-0000-0000-0000-000000000000"},
	} {
		if old.Alive() {
			t.Errorf("%s: counts as alive", name)
		}
		if err := old.Stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !r.Alive() {
		t.Error("the process that runs now was killed for another")
	}
}

func TestZombieCountsAsEnded(t *testing.T) {
	// The test program does not reap a child that it starts in this way until it waits for it.
	p, err := os.StartProcess(LookPath("sleep"), []string{"sleep", "600"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := lookup(p.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !Poll(5*time.Second, 10*time.Millisecond, func() bool { return !r.Alive() }) {
		t.Error("a process that only waits to be reaped counts as alive")
	}
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStartFailureSaysWhy(t *testing.T) {
	dir := t.TempDir()
	s := Spec{Program: filepath.Join(dir, "missing"), Log: filepath.Join(dir, "log"), Record: filepath.Join(dir, "record")}
	r, err := Start(t.Context(), s)
	if err == nil {
		// The record came before the program was tried; then the log has the reason.
		if !Poll(5*time.Second, 10*time.Millisecond, func() bool { return !r.Alive() }) {
			t.Fatal("a program that does not exist runs")
		}
		err = fmt.Errorf("%s", Tail(s.Log, 1))
	}
	if !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := Tail(path, 3); got != "" {
		t.Errorf("no file: %q", got)
	}
	for _, c := range []struct {
		text string
		want string
	}{
		{"", ""},
		{"a\n", "a"},
		{"a\nb\nc\nd\n", "c\nd"},
		{strings.Repeat("x\n", 40_000) + "y\nz\n", "y\nz"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Tail(path, 2); got != c.want {
			t.Errorf("last two of %d bytes: %q, want %q", len(c.text), got, c.want)
		}
	}
}

// Between the start of a process and its record a caller may be killed. The process then holds the caller's lock until
// its record is there, and not a moment longer.
func TestStartedProcessLetsGoOfLock(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s := Spec{
		Program: LookPath("sleep"), Args: []string{"600"}, Lock: lock,
		Log: filepath.Join(dir, "log"), Record: filepath.Join(dir, "record"),
	}
	r, err := Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	free := Poll(5*time.Second, 10*time.Millisecond, func() bool {
		return syscall.Flock(int(other.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	})
	if !free || !r.Alive() {
		t.Errorf("the program that was started keeps the lock: free=%t alive=%t", free, r.Alive())
	}
}
