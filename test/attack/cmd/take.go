//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	mostInstances = 1 << 16
	mostProcesses = 8192    // where nothing bounds them: the node is not to be brought down
	spared        = 32      // processes and files that are given back, so that this program's own threads and its probe find room
	mostFiles     = 1 << 18 // some 50 MiB of kernel memory, which the pod's limit counts
	needed        = 16      // of each kind, for who must still get some
)

// instances takes inotify instances until there are none left, or n.
func instances(n int) ([]int, error) {
	var held []int
	for i := range n {
		fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
		if err != nil {
			return held, fmt.Errorf("inotify instance %d: %w", i+1, err)
		}
		held = append(held, fd)
	}
	return held, nil
}

// watches takes watches of these instances until there are none left, or n: of what every container has enough of,
// and lets be read.
func watches(instances []int, n int) (int, error) {
	taken := 0
	for _, root := range []string{"/proc/sys", "/sys/kernel", "/sys/devices", "/sys/module"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what may not be read is left out
			}
			for _, fd := range instances {
				if taken == n {
					return fs.SkipAll
				}
				_, err := syscall.InotifyAddWatch(fd, path, syscall.IN_MODIFY)
				switch {
				case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOENT):
					return nil
				case err != nil:
					return fmt.Errorf("inotify watch %d: %w", taken+1, err)
				}
				taken++
			}
			return nil
		})
		if err != nil || taken == n {
			return taken, err
		}
	}
	return taken, errors.New("nothing more to watch")
}

// files opens files until no more are to be had, or n.
func files(n int) ([]int, error) {
	var held []int
	for i := range n {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return held, fmt.Errorf("file %d: %w", i+1, err)
		}
		held = append(held, fd)
	}
	return held, nil
}

// fork makes a process of this one that does nothing, for ever. It shares this one's memory, and so costs little else
// than its number.
//
//go:norace
//go:noinline
func fork() (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// processes takes processes until there are none left, or n.
func processes(n int) ([]int, error) {
	var pids []int
	for range n {
		pid, errno := fork()
		if errno != 0 {
			return pids, fmt.Errorf("process %d: %w", len(pids)+1, errno)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func end(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
}

// hoard takes processes, says how many, and holds them until its input ends.
func hoard() error {
	pids, err := processes(mostProcesses)
	if len(pids) <= spared {
		end(pids)
		return fmt.Errorf("only %d processes: %w", len(pids), err)
	}
	end(pids[len(pids)-spared:])
	pids = pids[:len(pids)-spared]
	fmt.Println(len(pids))
	_, _ = os.Stdin.Read(make([]byte, 1))
	end(pids)
	return nil
}

// take takes all inotify instances, watches, processes and files that it can, holds them, says how many, and is ready
// then.
func take(ctx context.Context, address string) error {
	held, err := instances(mostInstances)
	fmt.Printf("inotify=%d (%v)\n", len(held), err)
	taken, err := watches(held, math.MaxInt)
	fmt.Printf("watches=%d (%v)\n", taken, err)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "hoard")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the hoarder: %w", err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the hoarder: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the hoarder: %w", err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("hear from the hoarder: %w", err)
	}
	fmt.Printf("processes=%s", said)
	opened, err := files(mostFiles)
	fmt.Printf("files=%d (%v)\n", len(opened), err)
	for _, fd := range opened[max(0, len(opened)-spared):] {
		_ = syscall.Close(fd) // it has a probe to answer
	}
	return serve(ctx, address)
}

// need wants some of each, gives them back, and ends; with an address it stays, and is ready.
func need(ctx context.Context, args []string) error {
	n := needed
	held, err := instances(n)
	if err != nil {
		return err
	}
	if _, err := watches(held, n); err != nil {
		return err
	}
	if _, err := files(n); err != nil {
		return err
	}
	pids, err := processes(n)
	end(pids)
	if err != nil {
		return err
	}
	fmt.Println("got " + strconv.Itoa(n) + " of each")
	if len(args) == 0 {
		return nil
	}
	return serve(ctx, args[0])
}

// serve answers the readiness probe.
func serve(ctx context.Context, address string) error {
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
