package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
)

// HoldCommand is the command of this program that keeps a node's mount namespace; main hands its arguments to Hold.
const HoldCommand = "hold-node"

// shadows are the host's folders in which the kubelet and containerd keep things at places that no setting changes. In
// the node's mount namespace each is a copy made of mounts, in which the named entries are the node's own: nothing is
// written to the host's, and what the node writes there goes when its last process does.
var shadows = map[string][]string{
	"/run":     {"containerd", "netns", "nri", "xtables.lock"},
	"/var/lib": {"kubelet", "cni", "containerd", "nri"},
	"/var/log": {"containers", "pods"},
}

// kernelSettings are what the kubelet would change on the host, with the values it wants. It finds them as it wants
// them, because in the node's mount namespace each is a file of ours.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Hold makes the mounts of a node in the mount namespace it was started in, says so in a file called ready within dir,
// and then only keeps the namespace until it is told to end.
func Hold(dir string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if err := arrange(dir); err != nil {
		return fmt.Errorf("arrange the node's mounts: %w", err)
	}
	if err := cache.WriteFile(ReadyFile(dir), []byte("ready\n"), 0o644); err != nil {
		return err
	}
	<-signals
	return nil
}

// ReadyFile is the file that Hold writes in dir.
func ReadyFile(dir string) string { return filepath.Join(dir, "ready") }

func arrange(dir string) error {
	// Mounts of the host still come and go here; ours do not go out.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	for host, own := range shadows {
		if err := shadow(host, own); err != nil {
			return fmt.Errorf("shadow %s: %w", host, err)
		}
	}
	for setting, value := range kernelSettings {
		path := filepath.Join(dir, "sysctl", setting)
		if err := cache.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		err := syscall.Mount(path, "/proc/sys/"+setting, "", syscall.MS_BIND, "")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cover kernel setting %s: %w", setting, err)
		}
	}
	// The kubelet and containerd hand mounts on to each other and to pods.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts within the node: %w", err)
	}
	return nil
}

// shadow puts an empty folder over dir and fills it with what was in dir, except the entries named in own.
func shadow(dir string, own []string) error {
	before, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = before.Close() }()
	entries, err := before.ReadDir(-1)
	if err != nil {
		return err
	}
	if err := syscall.Mount("lethe", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(own, e.Name()) {
			continue
		}
		// The open folder is the way to what is now covered.
		from := fmt.Sprintf("/proc/self/fd/%d/%s", before.Fd(), e.Name())
		if err := bring(from, filepath.Join(dir, e.Name()), e.Type()); err != nil {
			return err
		}
	}
	return nil
}

// bring makes the folder, file or link at from also be at to. What cannot be mounted, such as a folder of a user-space
// file system that is closed to root, stays away: the node does without.
func bring(from, to string, kind fs.FileMode) error {
	switch {
	case kind&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case kind.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return os.Remove(to)
	}
	return nil
}

// UnmountBelow unmounts what is mounted within dir in the caller's mount namespace, so that removing dir cannot reach
// into anything else, and fails if something stays mounted.
func UnmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return fmt.Errorf("unmount below %s: %w", dir, err)
	}
	slices.SortFunc(mounts, func(a, b string) int { return len(b) - len(a) })
	for _, m := range mounts {
		if err := syscall.Unmount(m, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		// Spaces and the like are written as octal numbers.
		path := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(path, dir+"/") {
			out = append(out, path)
		}
	}
	return out, nil
}
