package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
)

// Runtime is the container runtime of one cluster.
type Runtime struct {
	// Dir has everything of it.
	Dir string
	// PauseImage is the full name of the image that holds a pod's namespaces.
	PauseImage string
	// PodCIDR is where pods get their addresses from.
	PodCIDR string
}

// Root, State, Socket and Config are containerd's folders and files.
func (r Runtime) Root() string   { return filepath.Join(r.Dir, "root") }
func (r Runtime) State() string  { return filepath.Join(r.Dir, "state") }
func (r Runtime) Socket() string { return filepath.Join(r.State(), "containerd.sock") }
func (r Runtime) Config() string { return filepath.Join(r.Dir, "config.toml") }

// maxSocketPath is how long the path of a socket may be on Linux.
const maxSocketPath = 107

// Write writes containerd's settings and those of the pod network.
func (r Runtime) Write() error {
	if n := len(r.Socket()) + len(".ttrpc"); n > maxSocketPath {
		return fmt.Errorf("the path %s is too long for a socket by %d characters: set LETHE_CACHE to a shorter folder", r.Socket(), n-maxSocketPath)
	}
	plugins := pluginDir()
	if plugins == "" {
		return errors.New("the CNI plugins are not installed")
	}
	snapshotter, err := r.snapshotter()
	if err != nil {
		return err
	}
	restrict, err := lacksSysResource()
	if err != nil {
		return err
	}
	// Version 2 of the format is read by containerd 1.3 to 2.x.
	config := fmt.Sprintf(`version = 2
root = %q
state = %q

[grpc]
  address = %q

# Its default is a folder of the host, /opt/containerd.
[plugins."io.containerd.internal.v1.opt"]
  path = %q

[plugins."io.containerd.nri.v1.nri"]
  disable = true

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  # Its profile would be loaded into the kernel of the host and stay there.
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE a process cannot lower its OOM score, and every pod would fail to start.
  restrict_oom_score_adj = %t
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  # What a registry is reached by: a folder for each, named by its address, read at each pull.
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`, r.Root(), r.State(), r.Socket(), filepath.Join(r.Dir, "opt"), r.PauseImage, restrict, plugins, r.cniDir(), filepath.Join(r.Dir, "certs.d"), snapshotter)
	if err := cache.WriteFile(r.Config(), []byte(config), 0o644); err != nil {
		return err
	}
	// Each pod hangs on a link of its own and the node routes between them. So traffic between pods passes the rules for
	// services without the kernel module that a bridge would need for it.
	cni, err := json.MarshalIndent(map[string]any{
		"cniVersion": "0.4.0",
		"name":       "lethe",
		"plugins": []map[string]any{{
			"type":   "ptp",
			"ipMasq": false,
			"ipam": map[string]any{
				"type":   "host-local",
				"ranges": [][]map[string]string{{{"subnet": r.PodCIDR}}},
				"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
				// In the node's own mounts: addresses are free again when its processes are gone.
				"dataDir": "/var/lib/cni/networks",
			},
		}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the pod network: %w", err)
	}
	return cache.WriteFile(filepath.Join(r.cniDir(), "10-lethe.conflist"), append(cni, '\n'), 0o644)
}

func (r Runtime) cniDir() string { return filepath.Join(r.Dir, "cni") }

// snapshotter is how containerd stacks image layers: overlayfs, except on top of another overlay, where it cannot.
func (r Runtime) snapshotter() (string, error) {
	if err := os.MkdirAll(r.Root(), 0o711); err != nil {
		return "", fmt.Errorf("make containerd's folder: %w", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(r.Root(), &fs); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", r.Root(), err)
	}
	const overlayMagic = 0x794c7630
	if fs.Type == overlayMagic {
		return "native", nil
	}
	return "overlayfs", nil
}

// lacksSysResource says whether this process lacks CAP_SYS_RESOURCE, as root in many virtual machines and containers.
func lacksSysResource() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	const capSysResource = 24
	for line := range strings.Lines(string(status)) {
		value, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return false, fmt.Errorf("read own capabilities: %w", err)
		}
		return set&(1<<capSysResource) == 0, nil
	}
	return false, errors.New("read own capabilities: not in /proc/self/status")
}
