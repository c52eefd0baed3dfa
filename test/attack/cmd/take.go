//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const (
	mostInstances = 1 << 16
	mostProcesses = 8192 // where nothing bounds them: the node is not to be brought down
	spared        = 32   // processes that are ended again, so that this program's own threads find room
	needed        = 16   // of each kind, for who must still get some
)

// instances takes inotify instances until there are none left, or n.
func instances(n int) (int, error) {
	for i := range n {
		if _, err := syscall.InotifyInit1(syscall.IN_CLOEXEC); err != nil {
			return i, fmt.Errorf("inotify instance %d: %w", i+1, err)
		}
	}
	return n, nil
}

// fork makes a process of this one that does nothing, for ever. It shares this one's memory, and so costs little else than its number.
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

// take takes all inotify instances and all processes that it can, holds them, says how many, and is ready then.
func take(ctx context.Context, address string) error {
	held, err := instances(mostInstances)
	if err == nil {
		err = errors.New("no bound was met")
	}
	fmt.Printf("inotify=%d (%v)\n", held, err)
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
	return serve(ctx, address)
}

// need wants some of each, gives them back, and ends; with an address it stays, and is ready.
func need(ctx context.Context, args []string) error {
	n := needed
	if held, err := instances(n); err != nil {
		return fmt.Errorf("after %d: %w", held, err)
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
