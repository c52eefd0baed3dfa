package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// ratioLine is what a bench of this kind ends with.
var ratioLine = regexp.MustCompile(`(?m)^sweep_ratio=[0-9.]+$`)

// runBefore runs the bench of an earlier commit, with that commit's engine, and prints its ratio.
func runBefore(ctx context.Context, commit string, messages, rounds int, fsync bool) (err error) {
	dir, err := os.MkdirTemp("", "lethe-before-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	tree := filepath.Join(dir, "tree")
	if out, err := exec.CommandContext(ctx, "git", "worktree", "add", "--detach", tree, commit).CombinedOutput(); err != nil {
		return fmt.Errorf("check out %s (-before \"\" leaves it out; a shallow clone does not have it): %w: %s", commit, err, strings.TrimSpace(string(out)))
	}
	defer func() {
		err = errors.Join(err, exec.CommandContext(context.WithoutCancel(ctx), "git", "worktree", "remove", "--force", tree).Run())
	}()
	fmt.Printf("before, at %s:\n", commit)
	cmd := exec.CommandContext(ctx, "go", "run", "./test/bench/sweep", fmt.Sprintf("-rows=%d", messages), fmt.Sprintf("-rounds=%d", rounds), fmt.Sprintf("-fsync=%v", fsync))
	cmd.Dir, cmd.Stderr = tree, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the bench of %s: %w", commit, err)
	}
	line := ratioLine.FindString(string(out))
	if line == "" {
		return fmt.Errorf("the bench of %s printed no sweep_ratio", commit)
	}
	fmt.Printf("before_%s\n", line)
	return nil
}
