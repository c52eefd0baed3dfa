//go:build unix && !linux

package node

import (
	"errors"
	"net/netip"
)

var errNotLinux = errors.New("a real node needs Linux: use --mode simulated, which runs the same API here")

// HoldCommand is the command that keeps a node's mount namespace; elsewhere than on Linux it does not work.
const HoldCommand = "hold-node"

// Supported says why this machine cannot run a node.
func Supported() error { return errNotLinux }

// InstallPackages installs what a node needs; there is no node here.
func InstallPackages(func(string, ...any)) error { return errNotLinux }

// Program is the full path of a program of the system.
func Program(name string) string { return name }

// Hold keeps a node's mount namespace; there is none here.
func Hold(string) error { return errNotLinux }

// ReadyFile is the file that Hold writes.
func ReadyFile(dir string) string { return dir }

// UnmountBelow has nothing to unmount: no cluster mounts anything here.
func UnmountBelow(string) error { return nil }

// TakenOnHost is not known here.
func TakenOnHost() ([]netip.Prefix, error) { return nil, errNotLinux }

// NetNSPath is empty: there are no network namespaces here.
func (n Network) NetNSPath() string { return "" }

// Up makes a node's network; there is none here.
func (n Network) Up() error { return errNotLinux }

// Free finds nothing in the way.
func (n Network) Free() error { return nil }

// Down has nothing to remove.
func (n Network) Down() error { return nil }

// Cgroups are a node's control groups; there are none here.
type Cgroups struct{}

// NewCgroups finds a node's control groups; there are none here.
func NewCgroups(string) (Cgroups, error) { return Cgroups{}, errNotLinux }

// KubeletRoot is empty.
func (Cgroups) KubeletRoot() string { return "" }

// Join is empty.
func (Cgroups) Join() []string { return nil }

// Free finds nothing in the way.
func (Cgroups) Free() error { return nil }

// Up makes the groups; there are none here.
func (Cgroups) Up() error { return errNotLinux }

// Down has nothing to remove.
func (Cgroups) Down() error { return nil }

// Runtime is a node's container runtime; there is none here.
type Runtime struct{ Dir, PauseImage, PodCIDR string }

// Root is empty.
func (Runtime) Root() string { return "" }

// State is empty.
func (Runtime) State() string { return "" }

// Socket is empty.
func (Runtime) Socket() string { return "" }

// Config is empty.
func (Runtime) Config() string { return "" }

// Write writes the runtime's settings; there is no runtime here.
func (Runtime) Write() error { return errNotLinux }
