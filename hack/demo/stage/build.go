package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Build builds what runs on this machine (kubectl-lethe, the stand-in for Telegram, helm) and, when withImages is set, the two images.
// Nothing that has not changed is compiled again.
func (s *Stage) Build(ctx context.Context, withImages bool) error {
	for name, pkg := range map[string]string{
		"kubectl-lethe": "./cmd/kubectl-lethe", "telegram": "./test/telegram/cmd", "telegram-bot": "./examples/telegram-bot",
	} {
		cmd := s.command(ctx, "go", "build", "-trimpath", "-o", s.Path("bin", name), pkg)
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOFLAGS=")
		if _, err := s.run(cmd); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	helm := s.command(ctx, filepath.Join(s.Root, "hack", "tools", "build.sh"), "helm")
	helm.Stderr = s.Progress
	out, err := s.run(helm)
	if err != nil {
		return fmt.Errorf("build helm: %w", err)
	}
	if err := os.WriteFile(s.Path("helm-path"), []byte(strings.TrimSpace(string(out))), 0o600); err != nil {
		return fmt.Errorf("note where helm is: %w", err)
	}
	if !withImages {
		return nil
	}
	for _, args := range [][]string{
		{"--name", LetheImage, "-o", s.Path("images", "lethe.tar")},
		{"--name", BotImage, "--binary", s.Path("bin", "telegram-bot"), "-o", s.Path("images", "bot.tar")},
	} {
		cmd := s.command(ctx, "go", append([]string{"run", "./hack/image"}, args...)...)
		if _, err := s.run(cmd); err != nil {
			return fmt.Errorf("make image %s: %w", args[1], err)
		}
	}
	return nil
}

// LoadImages brings both images to the node.
func (s *Stage) LoadImages(ctx context.Context) error {
	_, err := s.cluster(ctx, "load-image", "--name", s.Cluster, s.Path("images", "lethe.tar"), s.Path("images", "bot.tar"))
	return err
}
