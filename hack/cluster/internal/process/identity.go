// Package process starts programs that outlive the command that started them, remembers which process each one is,
// and stops exactly those: a process id alone is not enough, because the kernel gives it to another process later.
package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Record says which process a started program is. It stays true when the program replaces itself by exec.
type Record struct {
	PID int `json:"pid"`
	// Start is when the process began, in the unit of the system (on Linux: clock ticks since boot). It is compared,
	// never read as a time.
	Start string `json:"start"`
	// Boot is the identity of the boot the process belongs to; empty where the system has none.
	Boot string `json:"boot,omitempty"`
}

// Self is the record of the calling process.
func Self() (Record, error) {
	return lookup(os.Getpid())
}

// lookup returns the record of the process that has pid now; fs.ErrNotExist if there is none or it has ended and only
// waits to be reaped.
func lookup(pid int) (Record, error) {
	start, err := startOf(pid)
	if err != nil {
		return Record{}, err
	}
	return Record{PID: pid, Start: start, Boot: BootID()}, nil
}

// Alive says whether the very process of the record still runs.
func (r Record) Alive() bool {
	if r.PID <= 0 {
		return false
	}
	now, err := lookup(r.PID)
	return err == nil && now == r
}

// Read returns the record kept at path; ok is false when there is none.
func Read(path string) (r Record, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read process record: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, false, fmt.Errorf("read process record %s: %w", path, err)
	}
	return r, true, nil
}

// write keeps the record at path. A reader sees the old record or the new one, never half of one.
func (r Record) write(path string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write process record: %w", err)
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write process record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write process record: %w", err)
	}
	return nil
}

// Stop kills the process of the record and returns after it has ended. SIGKILL is enough: what a part wants to keep it
// has handed to the kernel long before. A record whose process is gone already, or whose id now belongs to another
// process, is no error and nothing is sent.
func (r Record) Stop() error {
	if r.PID <= 0 {
		return nil
	}
	// Where the system allows it, FindProcess holds on to the process itself, so that the id cannot change hands between
	// the look at its start time and the signal.
	p, err := os.FindProcess(r.PID)
	if err != nil || !r.Alive() {
		return nil
	}
	defer func() { _ = p.Release() }()
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop process %d: %w", r.PID, err)
	}
	if !Poll(killWait, 20*time.Millisecond, func() bool { return !r.Alive() }) {
		return fmt.Errorf("stop process %d: it is still there %s after SIGKILL", r.PID, killWait)
	}
	return nil
}

// killWait bounds the wait for a killed process: one in uninterruptible sleep ends only when its I/O does.
const killWait = 20 * time.Second

// Poll calls done every interval until it returns true or limit is over, and returns what it returned last.
func Poll(limit, interval time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}
