package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// HelperCommand is the command of this program that Start runs in the new process; main hands its arguments to Helper.
const HelperCommand = "run-component"

// Spec is a program to start.
type Spec struct {
	// Program and Args are what to run; Program is a path.
	Program string
	Args    []string
	// Env is added to the environment, which is otherwise empty but for PATH and HOME: a component must not depend on the
	// shell its cluster was started from.
	Env []string
	// Log receives standard output and error, appended.
	Log string
	// Record is where the process writes who it is, before it becomes the program. So there is no moment at which the
	// program runs and nothing says which process it is.
	Record string
	// Lock, if any, is a file whose lock the caller holds. The new process holds it too until it has written its record:
	// whoever waits for the lock to clean up after a caller that was killed finds the record.
	Lock *os.File
	// Cgroups are cgroup.procs files that the process joins first.
	Cgroups []string
	// NetNS and MountNS are namespace files to enter; empty means the ones of the caller. Entering needs nsenter and root.
	NetNS, MountNS string
	// OwnMounts gives the program a mount namespace of its own (Linux, root).
	OwnMounts bool
}

// Start starts the program in a session of its own and returns its record. The program goes on when the caller ends.
func Start(ctx context.Context, s Spec) (Record, error) {
	self, err := os.Executable()
	if err != nil {
		return Record{}, fmt.Errorf("start %s: %w", filepath.Base(s.Program), err)
	}
	for _, dir := range []string{filepath.Dir(s.Log), filepath.Dir(s.Record)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Record{}, fmt.Errorf("start %s: %w", filepath.Base(s.Program), err)
		}
	}
	if err := os.Remove(s.Record); err != nil && !os.IsNotExist(err) {
		return Record{}, fmt.Errorf("start %s: %w", filepath.Base(s.Program), err)
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return Record{}, fmt.Errorf("start %s: %w", filepath.Base(s.Program), err)
	}
	defer func() { _ = log.Close() }()

	cmd := exec.Command(self, helperArgs(s)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + SearchPath(), "HOME=" + os.Getenv("HOME")}, s.Env...)
	cmd.SysProcAttr = attributes(s)
	if s.Lock != nil {
		cmd.ExtraFiles = []*os.File{s.Lock}
	}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", filepath.Base(s.Program), err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r, ok, err := Read(s.Record)
		if err != nil {
			return Record{}, err
		}
		if ok {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return Record{}, errors.Join(fmt.Errorf("start %s: %w", filepath.Base(s.Program), ctx.Err()), cmd.Process.Kill())
		case err := <-ended:
			return Record{}, fmt.Errorf("start %s: ended at once (%v): %s", filepath.Base(s.Program), err, Tail(s.Log, 5))
		case <-tick.C:
		}
	}
}

// LookPath finds a program on SearchPath; a name it does not find comes back as it is.
func LookPath(name string) string {
	for dir := range strings.SplitSeq(SearchPath(), ":") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && dir != "" {
			return path
		}
	}
	return name
}

// SearchPath is PATH with the folders of system programs, which many users' PATH lacks.
func SearchPath() string {
	return os.Getenv("PATH") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func helperArgs(s Spec) []string {
	args := []string{HelperCommand, "-record", s.Record}
	if s.Lock != nil {
		args = append(args, "-locked")
	}
	for _, c := range s.Cgroups {
		args = append(args, "-cgroup", c)
	}
	if s.NetNS != "" {
		args = append(args, "-net", s.NetNS)
	}
	if s.MountNS != "" {
		args = append(args, "-mount", s.MountNS)
	}
	return append(append(args, "--", s.Program), s.Args...)
}

// firstExtraFile is the number under which a process finds the first file that was handed to it.
const firstExtraFile = 3

// Helper is the part of Start that runs in the new process: join the cgroups, write the record, become the program. It
// returns only on failure.
func Helper(args []string) error {
	flags := flag.NewFlagSet(HelperCommand, flag.ContinueOnError)
	record := flags.String("record", "", "where to write who this process is")
	locked := flags.Bool("locked", false, "whether a lock was handed over as the first extra file")
	netNS := flags.String("net", "", "network namespace to enter")
	mountNS := flags.String("mount", "", "mount namespace to enter")
	var cgroups []string
	flags.Func("cgroup", "cgroup.procs file to join", func(v string) error {
		cgroups = append(cgroups, v)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("start component: %w", err)
	}
	if *locked {
		syscall.CloseOnExec(firstExtraFile)
	}
	argv := flags.Args()
	if len(argv) == 0 || *record == "" {
		return errors.New("start component: no program or no record given")
	}
	for _, c := range cgroups {
		if err := os.WriteFile(c, []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	self, err := Self()
	if err != nil {
		return fmt.Errorf("start component: %w", err)
	}
	if err := self.write(*record); err != nil {
		return err
	}
	if *netNS != "" || *mountNS != "" {
		if argv, err = EnterArgs(*netNS, *mountNS, argv); err != nil {
			return err
		}
	}
	// nsenter and the program itself keep the process id and the start time: exec changes neither.
	if err := syscall.Exec(argv[0], argv, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return nil
}

// EnterArgs is the command line that runs argv inside the namespaces at the two paths, either of which may be empty.
func EnterArgs(netNS, mountNS string, argv []string) ([]string, error) {
	nsenter := LookPath("nsenter")
	if !filepath.IsAbs(nsenter) {
		return nil, errors.New("enter namespace: the program nsenter is missing")
	}
	out := []string{nsenter}
	if netNS != "" {
		out = append(out, "--net="+netNS)
	}
	if mountNS != "" {
		out = append(out, "--mount="+mountNS)
	}
	return append(append(out, "--"), argv...), nil
}

// Tail returns the last n lines of a log file, for an error message; empty when it cannot be read.
func Tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const window = 16 << 10
	if end, err := f.Seek(0, 2); err == nil && end > window {
		_, err = f.Seek(-window, 2)
		if err != nil {
			return ""
		}
	} else if _, err := f.Seek(0, 0); err != nil {
		return ""
	}
	buf := make([]byte, window)
	read := 0
	for read < len(buf) {
		k, err := f.Read(buf[read:])
		read += k
		if err != nil {
			break
		}
	}
	lines := strings.Split(strings.TrimRight(string(buf[:read]), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
