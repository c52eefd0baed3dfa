package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// usage is how much processor time everybody has had, by name. "others" is all that has nothing to do with the bench.
type usage map[string]time.Duration

// sampler notes, several times a second, who has had how much.
type sampler struct {
	mu      sync.Mutex
	at      []time.Time
	samples []usage
	cancel  context.CancelFunc
	ended   chan struct{}
}

// sample begins; the cluster's parts and both programs are told apart.
func (b *bench) sample(ctx context.Context) *sampler {
	ctx, cancel := context.WithCancel(ctx)
	s := &sampler{cancel: cancel, ended: make(chan struct{})}
	pids := maps.Clone(b.cluster.Pids)
	pids["bench"] = os.Getpid()
	for _, p := range []*program{b.manager, b.keyserver} {
		if p.cmd != nil {
			pids[p.name] = p.cmd.Process.Pid
		}
	}
	note := func() {
		u := usage{}
		var ours time.Duration
		for name, pid := range pids {
			u[name] = cpuOf(pid)
			ours += u[name]
		}
		u["others"] = cpuOfAll() - ours
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at, s.samples = append(s.at, time.Now()), append(s.samples, u)
	}
	note()
	go func() {
		defer close(s.ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				note()
				return
			case <-tick.C:
				note()
			}
		}
	}()
	return s
}

// between is who had how much from one moment to another, to the nearest samples.
func (s *sampler) between(from, to time.Time) usage {
	s.cancel()
	<-s.ended
	near := func(t time.Time) usage {
		i, _ := slices.BinarySearchFunc(s.at, t, time.Time.Compare)
		return s.samples[min(i, len(s.samples)-1)]
	}
	first, last := near(from), near(to)
	out := usage{}
	for name := range last {
		out[name] = last[name] - first[name]
	}
	return out
}

// others is the share of all processors that others had: what makes seconds unfit to be compared.
func (u usage) others(took time.Duration) float64 {
	return u["others"].Seconds() / (took.Seconds() * float64(processors()))
}

// ours is the processor time of the cluster, of Lethe and of the bench.
func (u usage) ours() (sum time.Duration) {
	for name, d := range u {
		if name != "others" {
			sum += d
		}
	}
	return sum
}

func (u usage) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(u)) {
		if u[name] >= 50*time.Millisecond {
			parts = append(parts, fmt.Sprintf("%s %.1fs", name, u[name].Seconds()))
		}
	}
	return strings.Join(parts, ", ")
}

const tick = 10 * time.Millisecond // of /proc on Linux

func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(after)
	if len(f) < 13 {
		return 0
	}
	return (ticks(f[11]) + ticks(f[12]))
}

// cpuOfAll is the time that all processors have worked since the machine started.
func cpuOfAll() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	var sum time.Duration
	for i, v := range f {
		if i > 0 && i != 4 && i != 5 && i < 9 { // not idle, not waiting for the disk; guests are in user time already
			sum += ticks(v)
		}
	}
	return sum
}

func ticks(text string) time.Duration {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * tick
}

func processors() int {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 1
	}
	return max(1, bytes.Count(b, []byte("\ncpu")))
}
