package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/stage"
)

// watcher looks at Lethe's own containers: what memory their processes ever had, and how often they were restarted.
type watcher struct {
	b *bench

	mu       sync.Mutex
	pids     map[string]int    // by container
	peaks    map[string]int64  // resident KiB, by component
	group    map[string]int64  // bytes of the container's control group, by component
	restarts map[string]int32  // by pod's UID and container
	why      map[string]string // of a restart
}

func (b *bench) watchMemory(ctx context.Context) *watcher {
	w := &watcher{b: b, pids: map[string]int{}, peaks: map[string]int64{}, group: map[string]int64{}, restarts: map[string]int32{}, why: map[string]string{}}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if err := w.look(ctx); err != nil && ctx.Err() == nil {
				b.say("look at Lethe's memory: %v", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return w
}

func (w *watcher) look(ctx context.Context) error {
	var pods corev1.PodList
	if err := w.b.admin.List(ctx, &pods, client.InNamespace(stage.SystemNamespace)); err != nil {
		return fmt.Errorf("list Lethe's pods: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range pods.Items {
		p := &pods.Items[i]
		component := p.Labels["app.kubernetes.io/component"]
		for _, c := range p.Status.ContainerStatuses {
			key := string(p.UID) + "/" + c.Name
			w.restarts[key] = max(w.restarts[key], c.RestartCount)
			if t := c.LastTerminationState.Terminated; t != nil {
				w.why[key] = fmt.Sprintf("%s of %s: %s (%d)", c.Name, p.Name, t.Reason, t.ExitCode)
			}
			_, id, ok := strings.Cut(c.ContainerID, "://")
			if !ok || c.State.Running == nil {
				continue
			}
			w.measure(component, id)
		}
	}
	return nil
}

// measure one container.
func (w *watcher) measure(component, id string) {
	pid := w.pids[id]
	if pid == 0 {
		if pid = processOf(id); pid == 0 {
			return
		}
		w.pids[id] = pid
	}
	if kib := resident(pid); kib > 0 {
		w.peaks[component] = max(w.peaks[component], kib)
	}
	w.group[component] = max(w.group[component], groupPeak(pid))
}

// processOf finds the first process of a container by its control group.
func processOf(id string) int {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0
	}
	first := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), id) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && (first == 0 || pid < first) {
			first = pid
		}
	}
	return first
}

// resident is the most memory that a process ever had, in KiB.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return kib
			}
		}
	}
	return 0
}

// groupPeak is the most memory that a process's control group ever had, the kernel's for it included; 0 where the
// kernel does not say.
func groupPeak(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(strings.TrimSpace(string(b))) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var file string
		switch {
		case len(f) == 3 && f[1] == "":
			file = filepath.Join("/sys/fs/cgroup", f[2], "memory.peak")
		case len(f) == 3 && f[1] == "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.max_usage_in_bytes")
		default:
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// etcdBytes is the size of etcd's file.
func (b *bench) etcdBytes() (int64, error) {
	var size int64
	err := filepath.WalkDir(b.info.Etcd.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "db" {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure etcd: %w", err)
	}
	return size, nil
}
