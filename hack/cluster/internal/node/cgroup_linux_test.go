package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	const (
		v1 = "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
			"31 20 0:27 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n"
		v2    = "32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
		other = "20 1 0:5 / /proc rw - proc proc rw\n21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	)
	for name, c := range map[string]struct {
		info    string
		paths   []string
		tracker string
	}{
		"version 1": {
			other + v1, []string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"}, "/sys/fs/cgroup/systemd",
		},
		"both": {
			v1 + v2 + other,
			[]string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}, "/sys/fs/cgroup/unified",
		},
		"version 2, mounted twice": {v2 + v2, []string{"/sys/fs/cgroup/unified"}, "/sys/fs/cgroup/unified"},
	} {
		t.Run(name, func(t *testing.T) {
			trees, err := parseHierarchies(strings.NewReader(c.info))
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, h := range trees {
				paths = append(paths, h.path)
			}
			if !slices.Equal(paths, c.paths) {
				t.Errorf("got %v, want %v", paths, c.paths)
			}
			if got := (Cgroups{name: "x", trees: trees}).tracker().path; got != c.tracker {
				t.Errorf("processes are kept in %s, want %s", got, c.tracker)
			}
		})
	}
}

// In version 2 each level has to hand its controllers down before the next one is made.
func TestVersion2HandsControllersDown(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "cpu memory misc\n")
	h := hierarchy{path: root, v2: true}
	if err := h.prepare(root, filepath.Join(root, "lethe-x")); err != nil {
		t.Fatal(err)
	}
	// The file keeps the last line written; the kernel's adds each.
	if got, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control")); err != nil || string(got) != "+memory" {
		t.Errorf("handed down %q (%v)", got, err)
	}
	if err := h.prepare(filepath.Join(root, "lethe-x"), filepath.Join(root, "lethe-x", "pods")); err == nil {
		t.Error("a level whose controllers cannot be read was made")
	}
}

// In version 1 a new cpuset has neither processors nor memory, and refuses processes.
func TestVersion1CopiesCpuset(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{"cpuset.cpus": "0-3\n", "cpuset.mems": "0\n"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := hierarchy{path: root, options: []string{"rw", "cpuset"}}
	group := filepath.Join(root, "lethe-x")
	// The kernel makes the files with the folder.
	if err := os.Mkdir(group, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := os.WriteFile(filepath.Join(group, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.makeGroup("lethe-x", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(group, "cpuset.cpus")); err != nil || string(got) != "0-3\n" {
		t.Errorf("cpuset.cpus is %q (%v)", got, err)
	}
}

// All pods together weigh as much as several processes of the machine: in a new group they would weigh as much as one.
func TestPodsHaveWeight(t *testing.T) {
	for file, h := range map[string]hierarchy{"cpu.shares": {options: []string{"rw", "cpu", "cpuacct"}}, "cpu.weight": {v2: true}} {
		h.path = t.TempDir()
		group := filepath.Join(h.path, "lethe-x")
		if err := os.Mkdir(group, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(h.path, "cgroup.controllers"), filepath.Join(group, file)} {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.makeGroup("lethe-x", nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(group, file)); err != nil || (string(got) != "16384" && string(got) != "1600") {
			t.Errorf("%s is %q (%v)", file, got, err)
		}
	}
}
