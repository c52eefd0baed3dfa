// Package stage sets up what the demo and the end-to-end tests play on: a cluster of hack/cluster, the images, Lethe
// installed with its chart, a stand-in for Telegram, and a PostgreSQL. Everything it makes lies in one folder, and
// nothing of the user's is read or changed: every program gets the kubeconfig of this cluster and no other.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Names in the cluster.
const (
	SystemNamespace = "lethe-system"
	KeysNamespace   = "lethe-keys"
	Release         = "lethe"

	letheImage = "lethe"
	botImage   = "telegram-bot"
)

// Stage is one such setup.
type Stage struct {
	// Root is the repository's folder.
	Root string
	// Dir holds everything that the stage makes outside the cluster's own folder. Only its owner can read it.
	Dir string
	// Cluster is the name of the cluster.
	Cluster string
	// Realm of the installation.
	Realm string
	// KubectlPath is the user's kubectl, on a cluster that is the user's. Empty: the cluster's own, of hack/cluster.
	KubectlPath string
	// Progress is told what takes long, line by line.
	Progress io.Writer
}

// Path of something in the stage's folder.
func (s *Stage) Path(parts ...string) string {
	return filepath.Join(append([]string{s.Dir}, parts...)...)
}

// Open makes the folder if it is not there.
func (s *Stage) Open() error {
	for _, dir := range []string{"bin", "images", "manifests", "secrets", "logs"} {
		if err := os.MkdirAll(s.Path(dir), 0o700); err != nil {
			return fmt.Errorf("make the stage's folder: %w", err)
		}
	}
	return nil
}

// RepositoryRoot finds the repository that the working folder is in.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/lethe-dev/lethe\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not in a checkout of Lethe", dir)
		}
	}
}

// CacheDir is the per-user folder that the demo's state is in, beside what hack/cluster keeps.
func CacheDir() (string, error) {
	if dir := os.Getenv("LETHE_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "lethe"), nil
}

// command is a program to run in the repository, with the stage's kubeconfig and no other.
func (s *Stage) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.Root
	cmd.Env = s.environment()
	// A build that is broken off takes its compilers with it in time, or is left to itself.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// environment is the caller's without what names clusters.
func (s *Stage) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case name == "KUBECONFIG", strings.HasPrefix(name, "HELM_"), name == "KUBERNETES_SERVICE_HOST", name == "KUBERNETES_SERVICE_PORT":
		default:
			env = append(env, e)
		}
	}
	return append(env,
		"KUBECONFIG="+s.Kubeconfig(),
		// Helm keeps repositories and plugins of the user's in the home folder: none of them is wanted.
		"HELM_CACHE_HOME="+s.Path("helm", "cache"), "HELM_CONFIG_HOME="+s.Path("helm", "config"), "HELM_DATA_HOME="+s.Path("helm", "data"),
	)
}

// run returns what a program wrote to its standard output. An error holds the end of what it wrote to the other.
func (s *Stage) run(cmd *exec.Cmd) ([]byte, error) {
	var out, problem bytes.Buffer
	cmd.Stdout = &out
	if cmd.Stderr == nil {
		cmd.Stderr = &problem
	}
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(problem.String())
		if len(said) > 2000 {
			said = "…" + said[len(said)-2000:]
		}
		err = fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
		if said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return out.Bytes(), err
	}
	return out.Bytes(), nil
}

// Note tells the progress.
func (s *Stage) Note(format string, args ...any) {
	if s.Progress != nil {
		// Progress that nobody can read any more is no reason to stop.
		_, _ = fmt.Fprintf(s.Progress, format+"\n", args...)
	}
}

// Until asks again and again until something holds, within a bound. ok returns what is still missing, or "" when it
// holds.
func Until(ctx context.Context, most time.Duration, what string, ok func(context.Context) (missing string, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not within %s", most))
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	missing := "never asked"
	for {
		m, err := ok(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w; still missing: %s", what, context.Cause(ctx), missing)
		case err == nil && m == "":
			return nil
		case err != nil:
			missing = err.Error()
		default:
			missing = m
		}
		var stop *stopError
		if errors.As(err, &stop) {
			return fmt.Errorf("%s: %w", what, stop.err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; still missing: %s", what, context.Cause(ctx), missing)
		case <-tick.C:
		}
	}
}

// stopError ends a wait before its time.
type stopError struct{ err error }

// Error implements error.
func (e *stopError) Error() string { return e.err.Error() }

// Stop marks an error that no waiting mends.
func Stop(err error) error { return &stopError{err} }
