package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// needed are the programs a node takes from the system, with the Debian packages that have them.
var needed = []struct{ program, debian string }{
	{"ip", "iproute2"},
	{"nft", "nftables"},
	{"nsenter", "util-linux"},
	{"unshare", "util-linux"},
	{"mount", "mount"},
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
}

// plugins are the CNI plugins that the pod network uses.
var plugins = []string{"ptp", "host-local", "loopback"}

const pluginsDebian = "containernetworking-plugins"

// pluginDir is where the system keeps CNI plugins; empty when they are not installed.
func pluginDir() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni", "/usr/local/lib/cni"} {
		has := func(plugin string) bool {
			_, err := exec.LookPath(filepath.Join(dir, plugin))
			return err == nil
		}
		if !slices.ContainsFunc(plugins, func(p string) bool { return !has(p) }) {
			return dir
		}
	}
	return ""
}

// Program is the full path of a program that a node takes from the system.
func Program(name string) string { return process.LookPath(name) }

// missing are the programs that are not there, and the packages that would bring them.
func missing() (programs, packages []string) {
	add := func(program, debian string) {
		programs = append(programs, program)
		if !slices.Contains(packages, debian) {
			packages = append(packages, debian)
		}
	}
	for _, n := range needed {
		if !filepath.IsAbs(process.LookPath(n.program)) {
			add(n.program, n.debian)
		}
	}
	if pluginDir() == "" {
		add("the CNI plugins", pluginsDebian)
	}
	return programs, packages
}

// Supported says in one sentence why this machine or user cannot run a node; nil if it can.
func Supported() error {
	if os.Geteuid() == 0 {
		return nil
	}
	const sentence = "a real node needs root: run as root, or use --mode simulated, which needs no rights and runs the same API"
	if _, packages := missing(); len(packages) > 0 {
		return fmt.Errorf("%s; root will also need: apt-get update && apt-get install -y %s", sentence, strings.Join(packages, " "))
	}
	return errors.New(sentence)
}

// InstallPackages installs what is missing from the system's packages on Debian and its relatives; elsewhere it names
// what is missing. progress is told about it.
func InstallPackages(progress func(string, ...any)) error {
	programs, packages := missing()
	if len(programs) == 0 {
		return nil
	}
	apt := process.LookPath("apt-get")
	if !filepath.IsAbs(apt) {
		return fmt.Errorf("the node needs %s; install them with this system's packages (on Debian they are in %s)",
			strings.Join(programs, ", "), strings.Join(packages, " "))
	}
	progress("installing packages: %s", strings.Join(packages, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-y", "-q", "--no-install-recommends"}, packages...),
	} {
		cmd := command(apt, args...)
		cmd.Env = append(cmd.Env, "DEBIAN_FRONTEND=noninteractive")
		if err := output(cmd); err != nil {
			return fmt.Errorf("install packages; by hand: apt-get update && apt-get install -y %s: %w", strings.Join(packages, " "), err)
		}
	}
	if programs, _ := missing(); len(programs) > 0 {
		return fmt.Errorf("the packages are installed, but %s cannot be found", strings.Join(programs, ", "))
	}
	return nil
}
