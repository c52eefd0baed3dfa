package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRoot(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ lethe, xdg, home, want string }{
		{"", "", dir, dir + "/.cache/lethe"},
		{"", dir + "/x", "/nowhere", dir + "/x/lethe"},
		{dir + "/own", dir + "/x", "/nowhere", dir + "/own"},
		{link + "/own", "", "", dir + "/own"},
	} {
		t.Setenv("LETHE_CACHE", c.lethe)
		t.Setenv("XDG_CACHE_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		if got, err := Root(); err != nil || got != c.want {
			t.Errorf("LETHE_CACHE=%s XDG_CACHE_HOME=%s HOME=%s: %s (%v), want %s", c.lethe, c.xdg, c.home, got, err, c.want)
		}
	}
}

// A lock on a folder that is removed during the wait is none: the waiter must not go on as if the folder were there.
func TestLockDirRemovedDuringWait(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := LockDir(dir, func() { t.Error("nobody has it, and it waits") })
	if err != nil {
		t.Fatal(err)
	}
	waiting, got := make(chan struct{}), make(chan error)
	go func() {
		lock, err := LockDir(dir, func() { close(waiting) })
		if err == nil {
			lock.Unlock()
		}
		got <- err
	}()
	select {
	case <-waiting:
	case <-time.After(10 * time.Second):
		t.Fatal("the second did not wait for the first")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	if err := <-got; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	for _, text := range []string{"long content", "short"} {
		if err := WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q (%v), want %q", got, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left beside it: %v (%v)", entries, err)
	}
}
