package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// record names a process so that it is never taken for another one that got its number later.
type record struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // field 22 of /proc/PID/stat: clock ticks after boot
}

// startDetached starts a program that outlives this one, with its output in a log of the stage, and notes its number.
// env is added to the stage's own, and wins over it.
func (s *Stage) startDetached(name string, env []string, program string, args ...string) (err error) {
	log, err := os.OpenFile(s.Path("logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = s.Dir, append(s.environment(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	r := record{PID: cmd.Process.Pid}
	// Waited for, or it would stay as a zombie while this program runs.
	go func() { _ = cmd.Wait() }()
	if r.Start, err = startTime(r.PID); err != nil {
		return fmt.Errorf("start %s: it ended at once; its log: %s", name, s.Path("logs", name+".log"))
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("note the process of %s: %w", name, err)
	}
	if err := os.WriteFile(s.Path(name+".process"), b, 0o600); err != nil {
		return fmt.Errorf("note the process of %s: %w", name, err)
	}
	return nil
}

// running returns the number of a process that startDetached started, here or in an earlier run; 0 when it has ended.
func (s *Stage) running(name string) (int, error) {
	b, err := os.ReadFile(s.Path(name + ".process"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the process of %s: %w", name, err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return 0, fmt.Errorf("read the process of %s: %w", name, err)
	}
	start, err := startTime(r.PID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for the process of %s: %w", name, err)
	}
	if start != r.Start {
		return 0, nil
	}
	return r.PID, nil
}

// stopProcess ends a process that startDetached started. One that has ended is no error.
func (s *Stage) stopProcess(ctx context.Context, name string) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		pid, err := s.running(name)
		if err != nil {
			return err
		}
		if pid == 0 {
			return nil
		}
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		err = Until(ctx, 5*time.Second, "stop "+name, func(context.Context) (string, error) {
			pid, err := s.running(name)
			if pid != 0 {
				return fmt.Sprintf("the end of process %d", pid), err
			}
			return "", err
		})
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("stop %s: it does not end", name)
}

// startTime of a process that is there and has not ended. While its other threads still end, and so hold its ports,
// its first thread is a zombie already: fields[17] is their number (field 20 of the line, see proc_pid_stat(5)).
func startTime(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The name in brackets may hold spaces: what follows it does not.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" && (fields[17] == "0" || fields[17] == "1") {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}
