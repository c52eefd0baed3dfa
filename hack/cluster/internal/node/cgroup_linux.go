package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// hierarchy is one mounted tree of control groups. A host has one (version 2), several (version 1), or both.
type hierarchy struct {
	path string
	v2   bool
	// options of a version 1 tree name its controllers.
	options []string
}

// Cgroups are the control groups of a cluster: "pods", the root of the kubelet's, in every hierarchy, and "system",
// which all of the cluster's own processes are in, in the one hierarchy that serves to find them.
type Cgroups struct {
	name  string
	trees []hierarchy
}

// NewCgroups finds the control groups for the cluster of that name, which need not exist yet.
func NewCgroups(name string) (Cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Cgroups{}, fmt.Errorf("find control groups: %w", err)
	}
	defer func() { _ = f.Close() }()
	trees, err := parseHierarchies(f)
	if err != nil {
		return Cgroups{}, fmt.Errorf("find control groups: %w", err)
	}
	if len(trees) == 0 {
		return Cgroups{}, errors.New("find control groups: none is mounted")
	}
	return Cgroups{name: "lethe-" + name, trees: trees}, nil
}

// parseHierarchies reads a mountinfo file. A line is "id parent dev root path options... - type source superoptions".
func parseHierarchies(r io.Reader) ([]hierarchy, error) {
	var out []hierarchy
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		if kind := right[0]; kind == "cgroup" || kind == "cgroup2" {
			h := hierarchy{path: left[4], v2: kind == "cgroup2", options: strings.Split(right[2], ",")}
			if !slices.ContainsFunc(out, func(o hierarchy) bool { return o.path == h.path }) {
				out = append(out, h)
			}
		}
	}
	return out, lines.Err()
}

// KubeletRoot is what the kubelet knows its root group as.
func (c Cgroups) KubeletRoot() string { return "/" + c.name + "/pods" }

// Join are the files that a process of the cluster itself writes to.
func (c Cgroups) Join() []string {
	return []string{filepath.Join(c.tracker().path, c.name, "system", "cgroup.procs")}
}

// tracker is the hierarchy in which the cluster's own processes are kept together: version 2 where there is one, for
// then containers, which version 1 controllers move elsewhere, stay in it too.
func (c Cgroups) tracker() hierarchy {
	for _, want := range []func(hierarchy) bool{
		func(h hierarchy) bool { return h.v2 },
		func(h hierarchy) bool { return slices.Contains(h.options, "name=systemd") },
		func(h hierarchy) bool { return slices.Contains(h.options, "pids") },
	} {
		if i := slices.IndexFunc(c.trees, want); i >= 0 {
			return c.trees[i]
		}
	}
	return c.trees[0]
}

// Free says whether nobody has groups of the name yet.
func (c Cgroups) Free() error {
	if groups := c.groups(); len(groups) > 0 {
		return fmt.Errorf("control group %s exists and belongs to no cluster in this cache", groups[len(groups)-1])
	}
	return nil
}

// Up makes the groups that are missing.
func (c Cgroups) Up() error {
	for _, h := range c.trees {
		leaves := []string{"pods"}
		if h.path == c.tracker().path {
			leaves = append(leaves, "system")
		}
		if err := h.makeGroup(c.name, leaves); err != nil {
			return fmt.Errorf("make control group %s: %w", c.name, err)
		}
	}
	return nil
}

func (h hierarchy) makeGroup(name string, leaves []string) error {
	parent := filepath.Join(h.path, name)
	if err := h.prepare(h.path, parent); err != nil {
		return err
	}
	if err := h.weigh(parent); err != nil {
		return err
	}
	for _, leaf := range leaves {
		if err := h.prepare(parent, filepath.Join(parent, leaf)); err != nil {
			return err
		}
	}
	return nil
}

// podsWeight is how many processes of the machine all pods together weigh as much as where processor time is short. A new group weighs as
// much as one: beside a compiler's dozens, pods would stand still.
const podsWeight = 16

// weigh gives a group its weight, in a hierarchy that has the controller.
func (h hierarchy) weigh(group string) error {
	file, weight := "cpu.shares", 1024*podsWeight
	if h.v2 {
		file, weight = "cpu.weight", 100*podsWeight
	}
	path := filepath.Join(group, file)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.WriteFile(path, []byte(strconv.Itoa(weight)), 0)
}

// kubeletControllers are those that a kubelet wants in its root group, as far as the kernel has them.
var kubeletControllers = []string{"cpu", "cpuset", "memory", "hugetlb", "pids"}

// prepare makes group in parent with what groups below it need: in version 2 the controllers have to be handed down, in
// version 1 a new cpuset is empty and takes no process.
func (h hierarchy) prepare(parent, group string) error {
	if h.v2 {
		controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(string(controllers)) {
			if !slices.Contains(kubeletControllers, name) {
				continue
			}
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
				return fmt.Errorf("hand down controller %s: %w", name, err)
			}
		}
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if h.v2 || !slices.Contains(h.options, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// Processes are the ids of all processes in the cluster's groups.
func (c Cgroups) Processes() []int {
	var out []int
	for _, group := range c.groups() {
		data, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(data)) {
			// 0 stands for a process that this process namespace cannot see.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// groups are the folders of all groups, deepest first within a hierarchy.
func (c Cgroups) groups() []string {
	var out []string
	for _, h := range c.trees {
		var here []string
		// What vanishes during the walk needs no look.
		_ = filepath.WalkDir(filepath.Join(h.path, c.name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				here = append(here, path)
			}
			return nil
		})
		slices.Reverse(here)
		out = append(out, here...)
	}
	return out
}

// Down kills every process in the groups and removes the groups.
func (c Cgroups) Down() error {
	killed := process.Poll(30*time.Second, 50*time.Millisecond, func() bool {
		// The kernel's own way leaves none out that is just being born; where there is none, the loop gets it next time.
		if h := c.tracker(); h.v2 {
			_ = os.WriteFile(filepath.Join(h.path, c.name, "cgroup.kill"), []byte("1"), 0)
		}
		pids := c.Processes()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	if !killed {
		return fmt.Errorf("end the processes of control group %s: still there: %v", c.name, c.Processes())
	}
	var last error
	// A group stays busy for a moment after its last process.
	removed := process.Poll(10*time.Second, 50*time.Millisecond, func() bool {
		last = nil
		for _, group := range c.groups() {
			if err := syscall.Rmdir(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = fmt.Errorf("remove %s: %w", group, err)
			}
		}
		return last == nil
	})
	if !removed {
		return fmt.Errorf("remove control groups: %w", last)
	}
	return nil
}
