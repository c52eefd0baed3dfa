package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// netnsDir is where the ip command looks for network namespaces by name.
// netnsDir holds the files of the network namespaces. It is not the folder of "ip netns", whose first use on a machine
// mounts that folder over itself: a namespace that was made before could not be removed any more.
const netnsDir = "/run/lethe"

// TakenOnHost are the networks of the host's interfaces and routes.
func TakenOnHost() ([]netip.Prefix, error) {
	var taken []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of the host: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			taken = append(taken, p.Masked())
		}
	}
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("read the routes of the host: %w", err)
	}
	defer func() { _ = f.Close() }()
	routes, err := parseRoutes(f)
	if err != nil {
		return nil, fmt.Errorf("read the routes of the host: %w", err)
	}
	return append(taken, routes...), nil
}

// NetNSPath is the file of the cluster's network namespace.
func (n Network) NetNSPath() string { return filepath.Join(netnsDir, n.NetNS) }

// Free says whether nobody has the names yet.
func (n Network) Free() error {
	if n.exists() {
		return fmt.Errorf("network namespace %s exists and belongs to no cluster in this cache; if nothing needs it: umount %s; rm %s", n.NetNS, n.NetNSPath(), n.NetNSPath())
	}
	if linkExists(n.HostLink) {
		return fmt.Errorf("network link %s exists and belongs to no cluster in this cache; if nothing needs it: ip link delete %s", n.HostLink, n.HostLink)
	}
	return nil
}

// Up makes the network namespace, the link and the rules, each where it is missing.
func (n Network) Up() error {
	if !isNamespace(n.NetNSPath()) {
		// A link that is there leads into a namespace that is no more. The kernel is about to remove it, unless we do first.
		if err := n.removeLink(); err != nil {
			return err
		}
		if err := n.makeNamespace(); err != nil {
			return fmt.Errorf("make network namespace %s: %w", n.NetNS, err)
		}
	}
	if !linkExists(n.HostLink) {
		if err := run("ip", "link", "add", n.HostLink, "type", "veth", "peer", "name", "uplink", "netns", n.NetNSPath()); err != nil {
			return err
		}
	}
	steps := [][]string{
		{"ip", "address", "replace", fmt.Sprintf("%s/%d", n.HostIP, linkBits), "dev", n.HostLink},
		{"ip", "link", "set", n.HostLink, "up"},
	}
	for _, s := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "replace", fmt.Sprintf("%s/%d", n.NodeIP, linkBits), "dev", "uplink"},
		{"ip", "link", "set", "uplink", "up"},
		{"ip", "route", "replace", "default", "via", n.HostIP.String()},
		// Forwarding is on inside the namespace only; the host's own setting stays as it is.
		{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
	} {
		inside, err := process.EnterArgs(n.NetNSPath(), "", s)
		if err != nil {
			return err
		}
		steps = append(steps, inside)
	}
	for _, s := range steps {
		if err := run(s[0], s[1:]...); err != nil {
			return err
		}
	}
	// Pods leave the node under its own address: the host knows no way back to theirs.
	return n.nft(fmt.Sprintf(`table ip lethe
delete table ip lethe
table ip lethe {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %s oifname "uplink" masquerade
	}
}
`, n.PodCIDR))
}

func (n Network) nft(rules string) error {
	argv, err := process.EnterArgs(n.NetNSPath(), "", []string{"nft", "-f", "-"})
	if err != nil {
		return err
	}
	cmd := command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	return output(cmd)
}

// Down removes the link and the namespace, and with it every rule, route and interface in it.
func (n Network) Down() error {
	errs := []error{n.removeLink()}
	if err := n.removeNamespace(); err != nil {
		errs = append(errs, fmt.Errorf("remove network namespace %s: %w", n.NetNS, err))
	}
	return errors.Join(errs...)
}

func (n Network) exists() bool {
	_, err := os.Lstat(n.NetNSPath())
	return !errors.Is(err, fs.ErrNotExist)
}

// removeLink removes the link, which takes both its ends.
func (n Network) removeLink() error {
	if !linkExists(n.HostLink) {
		return nil
	}
	if err := run("ip", "link", "delete", n.HostLink); err != nil && linkExists(n.HostLink) {
		return err
	}
	return nil
}

// makeNamespace does what "ip netns add" does, in a folder of our own.
func (n Network) makeNamespace() error {
	path := n.NetNSPath()
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	return run("unshare", "--net="+path, "true")
}

func (n Network) removeNamespace() error {
	path := n.NetNSPath()
	if isNamespace(path) {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// It goes if it is empty and no mount; then it was probably ours, and whoever needs it makes it anew.
	_ = syscall.Rmdir(netnsDir)
	return nil
}

// isNamespace says whether a file is a namespace, and not the empty file that a namespace is to be mounted on.
func isNamespace(path string) bool {
	var fs syscall.Statfs_t
	const nsfsMagic = 0x6e736673
	return syscall.Statfs(path, &fs) == nil && fs.Type == nsfsMagic
}

func linkExists(name string) bool {
	_, err := os.Lstat("/sys/class/net/" + name)
	return err == nil
}

// command is exec.Command with the folders of system programs on the path.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(process.LookPath(name), args...)
	cmd.Env = append(os.Environ(), "PATH="+process.SearchPath(), "LC_ALL=C")
	return cmd
}

func run(name string, args ...string) error { return output(command(name, args...)) }

func output(cmd *exec.Cmd) error {
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(text.String()))
	}
	return nil
}
