package process

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// loseMainThread has the test program be a process whose first thread has ended, and no other.
const loseMainThread = "lose-main-thread"

func init() {
	if len(os.Args) > 1 && os.Args[1] == loseMainThread {
		runtime.LockOSThread()                                // init runs on the first thread
		go func() { _, _ = os.Stdin.Read(make([]byte, 1)) }() // another thread has to go on
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

// A program that is started in place of one with several threads (exec of a thread that is not the first) has for a moment a first thread that has ended. A part
// that was looked at in this moment was taken for one that has ended, before it had said a word.
func TestAProcessEndsWithItsLastThread(t *testing.T) {
	cmd := exec.Command(os.Args[0], loseMainThread)
	if _, err := cmd.StdinPipe(); err != nil { // for it to wait for
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r, err := lookup(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	lost := Poll(10*time.Second, 5*time.Millisecond, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	if !lost || !r.Alive() {
		t.Errorf("its first thread has ended: %t; alive: %t", lost, r.Alive())
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if r.Alive() {
		t.Error("alive after Stop")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 18 987654 20 21"
	for name, c := range map[string]struct {
		stat, want string
		ok         bool
	}{
		"plain":             {"12 (etcd) S" + rest, "987654", true},
		"name with space":   {"12 (a b) S" + rest, "987654", true},
		"name with bracket": {"12 (a) S 1) R" + rest, "987654", true},
		"zombie":            {"12 (etcd) Z" + rest, "", false},
		"zombie of several": {"12 (etcd) Z" + strings.Replace(rest, " 16 1 ", " 16 2 ", 1), "987654", true},
		"dead":              {"12 (etcd) X" + rest, "", false},
		"cut short":         {"12 (etcd) S 1 2", "", false},
		"no name":           {"12 etcd S 1", "", false},
		"empty":             {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(c.stat)
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
