package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Build builds what runs on this machine (kubectl-lethe, the stand-in for Telegram, helm) and, when withImages is
// set, the two images. Nothing that has not changed is compiled again.
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
	if err := s.buildHelm(ctx); err != nil {
		return err
	}
	if !withImages {
		return nil
	}
	for name, more := range map[string][]string{letheImage: nil, botImage: {"--binary", s.Path("bin", "telegram-bot")}} {
		if err := s.makeImage(ctx, name, more...); err != nil {
			return err
		}
	}
	return nil
}

// buildHelm builds helm and notes where it is.
func (s *Stage) buildHelm(ctx context.Context) error {
	helm := s.command(ctx, filepath.Join(s.Root, "hack", "tools", "build.sh"), "helm")
	helm.Stderr = s.Progress
	out, err := s.run(helm)
	if err != nil {
		return fmt.Errorf("build helm: %w", err)
	}
	if err := os.WriteFile(s.Path("helm-path"), []byte(strings.TrimSpace(string(out))), 0o600); err != nil {
		return fmt.Errorf("note where helm is: %w", err)
	}
	return nil
}

// BuildImage builds a program of this repository that is static, and an image that runs it.
func (s *Stage) BuildImage(ctx context.Context, name, pkg string) error {
	if _, err := s.BuildProgram(ctx, name, ".", pkg); err != nil {
		return err
	}
	return s.WrapImage(ctx, name)
}

// BuildProgram builds a program that is static, out of a module in a folder of this repository, which may be another
// module's. It returns its path.
func (s *Stage) BuildProgram(ctx context.Context, name, folder, pkg string) (string, error) {
	cmd := s.command(ctx, "go", "build", "-C", folder, "-trimpath", "-o", s.Path("bin", name), pkg)
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOFLAGS=")
	if _, err := s.run(cmd); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return s.Path("bin", name), nil
}

// WrapImage makes an image that runs a program that BuildProgram built.
func (s *Stage) WrapImage(ctx context.Context, name string) error {
	return s.makeImage(ctx, name, "--binary", s.Path("bin", name))
}

func (s *Stage) makeImage(ctx context.Context, name string, more ...string) error {
	args := append([]string{"run", "./hack/image", "--name", name + ":build", "-o", s.archive(name)}, more...)
	if _, err := s.run(s.command(ctx, "go", args...)); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	return nil
}

func (s *Stage) archive(name string) string { return s.Path("images", name+".tar") }

// tagged is an image's full name. What is in it names it: a checkout that has changed is another image, and pods are
// replaced.
func (s *Stage) tagged(name string) (string, error) {
	f, err := os.Open(s.archive(name))
	if err != nil {
		return "", fmt.Errorf("name image %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("name image %s: %w", name, err)
	}
	return name + ":" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// LetheImage is the image of Lethe that Build made.
func (s *Stage) LetheImage() (string, error) { return s.tagged(letheImage) }

// BotImage is the image of the example bot that Build made.
func (s *Stage) BotImage() (string, error) { return s.tagged(botImage) }

// LoadImages brings both images to the node, under their full names.
func (s *Stage) LoadImages(ctx context.Context) error {
	for _, name := range []string{letheImage, botImage} {
		if _, err := s.LoadImage(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// LoadImage brings one image that was built to the node and returns its full name.
func (s *Stage) LoadImage(ctx context.Context, name string) (string, error) {
	if _, err := s.cluster(ctx, "load-image", "--name", s.Cluster, s.archive(name)); err != nil {
		return "", fmt.Errorf("load image %s: %w", name, err)
	}
	full, err := s.tagged(name)
	if err != nil {
		return "", err
	}
	const registry = "docker.io/library/" // what Kubernetes puts before a name without one
	if _, err := s.cluster(ctx, "ctr", "--name", s.Cluster, "--", "images", "tag", "--force", registry+name+":build", registry+full); err != nil {
		return "", fmt.Errorf("name image %s: %w", full, err)
	}
	return full, nil
}

// TagLethe gives the image of Lethe on the node another tag beside its own, as a registry would have the same bits
// under two.
func (s *Stage) TagLethe(ctx context.Context, tag string) (string, error) {
	const registry = "docker.io/library/"
	if _, err := s.cluster(ctx, "ctr", "--name", s.Cluster, "--", "images", "tag", "--force", registry+letheImage+":build", registry+letheImage+":"+tag); err != nil {
		return "", fmt.Errorf("name image %s:%s: %w", letheImage, tag, err)
	}
	return letheImage + ":" + tag, nil
}
