package assets

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
)

// SourceVariable names the folder of this tool's sources; cluster.sh sets it.
const SourceVariable = "LETHE_CLUSTER_SOURCE"

// source finds the folder that has the modules to build from.
func source() (string, error) {
	candidates := []string{os.Getenv(SourceVariable)}
	if dir, err := os.Getwd(); err == nil {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			candidates = append(candidates, dir, filepath.Join(dir, "hack", "cluster"))
		}
	}
	for _, dir := range candidates {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "kubernetes", "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the sources are not at hand: run cluster.sh, or set %s to the folder it is in", SourceVariable)
}

// goCommand is a go command in dir with settings of its own: the user's GOFLAGS or workspace must not change what is
// built.
func goCommand(dir string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("the go command is not on PATH; install Go 1.26 or later")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOOS=", "GOARCH=", "CGO_ENABLED=0")
	return cmd, nil
}

// build builds p and moves it into place when it is whole.
func (b *Builder) build(p Program) error {
	src, err := source()
	if err != nil {
		return err
	}
	module, dir := filepath.Join(src, p.module), b.dir(p)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	begun := time.Now()
	b.Progress("%s %s: building", p.Name, p.version)
	temp := filepath.Join(dir, "."+p.Name+".new")
	if err := b.compile(p, module, temp); err != nil {
		return errors.Join(err, removeIfThere(temp))
	}
	if p.stages {
		if err := b.copyStages(module); err != nil {
			return errors.Join(err, removeIfThere(temp))
		}
	}
	if err := os.Rename(temp, filepath.Join(dir, p.Name)); err != nil {
		return err
	}
	b.Progress("%s %s: built in %s", p.Name, p.version, time.Since(begun).Round(time.Second))
	return nil
}

// compile runs the compiler, which names each package it has begun, and counts them for the progress lines.
func (b *Builder) compile(p Program, module, out string) error {
	list, err := goCommand(module, "list", "-deps", p.pkg)
	if err != nil {
		return err
	}
	var complaint bytes.Buffer
	list.Stderr = &complaint
	deps, err := list.Output()
	if err != nil {
		return fmt.Errorf("find packages: %w: %s", err, lastLines(complaint.String()))
	}
	total := bytes.Count(deps, []byte("\n"))

	cmd, err := goCommand(module, "build", "-v", "-trimpath", "-buildvcs=false",
		"-ldflags", strings.TrimSpace("-s -w "+p.ldflags), "-o", out, p.pkg)
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var done atomic.Int64
	stop := b.report(p, &done, total)
	text := countPackages(stderr, &done)
	err = cmd.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(text))
	}
	return nil
}

// report says every ten seconds how far a build is, until the function it returns is called.
func (b *Builder) report(p Program, done *atomic.Int64, total int) (stop func()) {
	begun, ended, finished := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				b.Progress("%s %s: %d of at most %d packages, %s",
					p.Name, p.version, done.Load(), total, time.Since(begun).Round(time.Second))
			}
		}
	}()
	return func() {
		close(ended)
		<-finished
	}
}

// countPackages counts the lines that are package names and returns the others, which are complaints.
func countPackages(r io.Reader, done *atomic.Int64) string {
	var others strings.Builder
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.ContainsAny(line, " :#") {
			others.WriteString(line + "\n")
			continue
		}
		done.Add(1)
	}
	return others.String()
}

// copyStages puts the stages that kwok is published with beside it, one file per set.
func (b *Builder) copyStages(module string) error {
	list, err := goCommand(module, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find kwok's stages: %w", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "kustomize", "stage")
	for set, folders := range map[string][]string{
		"fast":    {"pod/fast"},
		"general": {"pod/general"},
		"chaos":   {"pod/chaos"},
		"node":    {"node/fast", "node/heartbeat-with-lease"},
	} {
		var text bytes.Buffer
		for _, folder := range folders {
			files, err := filepath.Glob(filepath.Join(root, folder, "*.yaml"))
			if err != nil || len(files) == 0 {
				return fmt.Errorf("find kwok's stages: none in %s (%v)", folder, err)
			}
			for _, f := range files {
				if filepath.Base(f) == "kustomization.yaml" {
					continue
				}
				data, err := os.ReadFile(f)
				if err != nil {
					return fmt.Errorf("read kwok's stages: %w", err)
				}
				fmt.Fprintf(&text, "---\n%s\n", bytes.TrimSpace(data))
			}
		}
		if err := cache.WriteFile(b.StageFile(set), text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("copy kwok's stages: %w", err)
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
