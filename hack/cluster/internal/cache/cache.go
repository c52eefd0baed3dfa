// Package cache knows where the built programs and the state of clusters are kept, outside every checkout, and locks
// what two commands must not do at once.
package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Root is the folder all else is under: $LETHE_CACHE, or lethe in the user's cache folder ($XDG_CACHE_HOME, else
// ~/.cache). It is created when missing.
func Root() (string, error) {
	root := os.Getenv("LETHE_CACHE")
	if root == "" {
		base := os.Getenv("XDG_CACHE_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("find the cache folder (set LETHE_CACHE): %w", err)
			}
			base = filepath.Join(home, ".cache")
		}
		root = filepath.Join(base, "lethe")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("create the cache folder: %w", err)
	}
	// Mounts, and so namespaces, know folders by their real names.
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return root, nil
}

// Lock is a lock on a file or folder that the kernel lets go of when its process ends, however it ends.
type Lock struct{ f *os.File }

// LockFile locks the file at path, created when missing. waiting is called once if another process has it now.
func LockFile(path string, waiting func()) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := take(f, waiting); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{f}, nil
}

// LockDir locks an existing folder itself, so that removing the folder leaves no lock file. It returns fs.ErrNotExist
// when the folder does not exist, also when it was removed during the wait.
func LockDir(path string, waiting func()) (*Lock, error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err := take(f, waiting); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(held, now) {
			return &Lock{f}, nil
		}
		// What we hold was removed, and perhaps made anew, while we waited.
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
	}
}

// Unlock lets go. A lock on a removed folder may be let go of too.
func (l *Lock) Unlock() { _ = l.f.Close() }

// File is the locked file. A process that inherits it holds the lock too, until it closes it or ends.
func (l *Lock) File() *os.File { return l.f }

func take(f *os.File, waiting func()) error {
	fd := int(f.Fd())
	err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		waiting()
		for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
			err = syscall.Flock(fd, syscall.LOCK_EX)
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// WriteFile writes a file so that a reader sees the old content or the new one.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Base(path), err), os.Remove(f.Name()))
	}
	return nil
}
