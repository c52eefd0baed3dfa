package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/test/pg"
)

// Theirs is what the stage needs to know of a cluster that is not its own.
type Theirs struct {
	// Arch of its nodes.
	Arch string
	// Repository is what the images are called. Push: it is a registry's. Otherwise Load brings an archive, named
	// behind it, to the nodes.
	Repository string
	Push       bool
	Load       []string
	// Postgres is an image of PostgreSQL; empty: one is made of this machine's own.
	Postgres string
	// Programs are packages of which images are made beside the demo's, by the image's name.
	Programs map[string]string
}

// pull is the policy of pods. What was loaded is pulled from nowhere, whatever is missing.
func (t Theirs) pull() corev1.PullPolicy {
	if t.Push {
		return corev1.PullIfNotPresent
	}
	return corev1.PullNever
}

// TheirImages are full names of images on a cluster that is not the stage's own.
type TheirImages struct {
	Repository, LetheTag            string
	Lethe, Bot, Telegram, Stagehand string
	Postgres                        string
	Programs                        map[string]string // by name
	Pull                            corev1.PullPolicy
}

// BuildTheirs builds what the demo needs on a cluster that is not its own: programs for this machine, and images for
// that cluster's nodes.
func (s *Stage) BuildTheirs(ctx context.Context, t Theirs) error {
	jobs := []func(context.Context) error{
		func(ctx context.Context) error { return s.makeImage(ctx, letheImage, "--arch", t.Arch) },
		func(ctx context.Context) error {
			_, err := s.goBuild(ctx, "kubectl-lethe", "./cmd/kubectl-lethe")
			return err
		},
		s.buildHelm,
	}
	programs := map[string]string{botImage: "./examples/telegram-bot", telegramImage: "./test/telegram/cmd", stagehandImage: "./test/stage/stagehand"}
	maps.Copy(programs, t.Programs)
	for name, pkg := range programs {
		jobs = append(jobs, func(ctx context.Context) error { return s.imageOf(ctx, t, name, pkg) })
	}
	// Two at a time: each builds with all processors, and links with one.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, job := range jobs {
		group.Go(func() error { return job(ctx) })
	}
	return group.Wait()
}

// imageOf builds a program and makes the image of it.
func (s *Stage) imageOf(ctx context.Context, t Theirs, name, pkg string) error {
	binary, err := s.goBuild(ctx, filepath.Join("linux", name), pkg, "GOOS=linux", "GOARCH="+t.Arch)
	if err != nil {
		return err
	}
	args := []string{"--arch", t.Arch, "--binary", binary}
	if name == stagehandImage && t.Postgres == "" {
		list, err := s.listPostgres(ctx, t.Arch)
		if err != nil {
			return err
		}
		args = append(args, "--with", list)
	}
	return s.makeImage(ctx, name, args...)
}

const (
	telegramImage  = "telegram"
	stagehandImage = "stagehand"
)

func (s *Stage) goBuild(ctx context.Context, name, pkg string, env ...string) (string, error) {
	out := s.Path("bin", name)
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	cmd := s.command(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(append(cmd.Env, "CGO_ENABLED=0", "GOFLAGS="), env...)
	if _, err := s.run(cmd); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return out, nil
}

// BringTheirs names the images by what is in them, and brings them to the nodes or the registry.
func (s *Stage) BringTheirs(ctx context.Context, t Theirs) (TheirImages, error) {
	images := TheirImages{Repository: t.Repository, Pull: t.pull(), Programs: map[string]string{}}
	for image, full := range map[string]*string{
		letheImage: &images.Lethe, botImage: &images.Bot, telegramImage: &images.Telegram, stagehandImage: &images.Stagehand,
	} {
		tag, err := s.bring(ctx, t, image)
		if err != nil {
			return images, err
		}
		*full = tag.Name()
		if image == letheImage {
			images.LetheTag = tag.TagStr()
		}
	}
	for image := range t.Programs {
		tag, err := s.bring(ctx, t, image)
		if err != nil {
			return images, err
		}
		images.Programs[image] = tag.Name()
	}
	if images.Postgres = t.Postgres; images.Postgres == "" {
		images.Postgres = images.Stagehand
	}
	return images, nil
}

func (s *Stage) bring(ctx context.Context, t Theirs, what string) (name.Tag, error) {
	image, err := tarball.ImageFromPath(s.archive(what), nil)
	if err != nil {
		return name.Tag{}, fmt.Errorf("read image %s: %w", what, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return name.Tag{}, fmt.Errorf("read image %s: %w", what, err)
	}
	tag, err := name.NewTag(t.Repository + ":" + what + "-" + digest.Hex[:12])
	if err != nil {
		return tag, fmt.Errorf("name image %s: %w", what, err)
	}
	if t.Push {
		s.Note("pushing %s", tag.Name())
		return tag, push(ctx, tag, image)
	}
	archive := s.Path("images", "theirs-"+what+".tar")
	if err := tarball.WriteToFile(archive, tag, image); err != nil {
		return tag, fmt.Errorf("name image %s: %w", what, err)
	}
	s.Note("loading %s", tag.Name())
	cmd := s.command(ctx, t.Load[0], append(slices.Clone(t.Load[1:]), archive)...)
	if _, err := s.run(cmd); err != nil {
		return tag, fmt.Errorf("bring image %s to the nodes: %w", what, err)
	}
	return tag, nil
}

// push with the login that the user's own docker, podman or crane keeps.
func push(ctx context.Context, tag name.Tag, image v1.Image) error {
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s (log in first, with crane auth login or docker login): %w", tag.Name(), err)
	}
	return nil
}

const otherPostgres = "name an image of PostgreSQL 13 or newer that the nodes can pull, with POSTGRES=…"

// PostgresHere says why no image for nodes of an architecture can be made of this machine's PostgreSQL.
func PostgresHere(goos, goarch, arch string) error {
	if goos != "linux" || goarch != arch {
		return fmt.Errorf("this machine (%s, %s) has no PostgreSQL that runs on the cluster's nodes (linux, %s): %s", goos, goarch, arch, otherPostgres)
	}
	if _, err := pg.Binaries(); err != nil {
		return fmt.Errorf("%w; or %s", err, otherPostgres)
	}
	return nil
}

// listPostgres writes a list of the files that a PostgreSQL of this machine's needs to run elsewhere.
func (s *Stage) listPostgres(ctx context.Context, arch string) (string, error) {
	if err := PostgresHere(runtime.GOOS, runtime.GOARCH, arch); err != nil {
		return "", err
	}
	bin, err := pg.Binaries()
	if err != nil {
		return "", err
	}
	files, err := postgresFiles(ctx, bin)
	if err != nil {
		return "", fmt.Errorf("make an image of this machine's PostgreSQL: %w; %s", err, otherPostgres)
	}
	list := s.Path("postgres-files")
	if err := os.WriteFile(list, []byte(strings.Join(files, "\n")+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("note PostgreSQL's files: %w", err)
	}
	return list, nil
}

// postgresFiles are the server, what initdb loads into it, the shell that initdb runs it by, and the libraries of all
// of them. bin is as Debian has it: /usr/lib/postgresql/VERSION/bin, with /usr/share/postgresql/VERSION beside it.
func postgresFiles(ctx context.Context, bin string) ([]string, error) {
	version := filepath.Base(filepath.Dir(bin))
	lib, share := filepath.Join(filepath.Dir(bin), "lib"), filepath.Join("/usr/share/postgresql", version)
	programs := []string{
		filepath.Join(bin, "initdb"), filepath.Join(bin, "postgres"), "/bin/sh", filepath.Join(lib, "plpgsql.so"), filepath.Join(lib, "dict_snowball.so"),
	}
	all := map[string]bool{}
	for _, p := range programs {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("it is not as Debian packages it: %w", err)
		}
		all[p] = true
		libraries, err := libraries(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, l := range libraries {
			all[l] = true
		}
	}
	// Where the loader finds libraries that are in none of its own folders.
	if _, err := os.Stat("/etc/ld.so.cache"); err == nil {
		all["/etc/ld.so.cache"] = true
	}
	// The locale that databases are made with: where the C library has it as files and not in itself.
	locale, err := filepath.Glob("/usr/lib/locale/C.*/*")
	if err != nil {
		return nil, fmt.Errorf("look for the locale: %w", err)
	}
	messages, err := filepath.Glob("/usr/lib/locale/C.*/LC_MESSAGES/*")
	if err != nil {
		return nil, fmt.Errorf("look for the locale: %w", err)
	}
	for _, f := range append(locale, messages...) {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			all[f] = true
		}
	}
	err = filepath.WalkDir(share, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "man" || n == "locale" {
				return fs.SkipDir
			}
			return nil
		}
		// Links lead to what is copied; one that leads nowhere is a dictionary that is not installed.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			all[path] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("it is not as Debian packages it: %w", err)
	}
	var out []string
	for f := range all {
		out = append(out, f)
	}
	slices.Sort(out)
	return out, nil
}

// libraries that a program is linked to, with its loader.
func libraries(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	return librariesOf(out)
}

// librariesOf reads what ldd prints: "name => /path (0x…)", "/path/of/the/loader (0x…)", "linux-vdso.so.1 (0x…)".
func librariesOf(out []byte) ([]string, error) {
	var found []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		name, path, arrow := strings.Cut(line, " => ")
		if !arrow {
			path = line
		}
		if strings.HasPrefix(path, "not found") {
			return nil, errors.New("its library " + name + " is not found")
		}
		if path, _, _ = strings.Cut(path, " ("); strings.HasPrefix(path, "/") {
			found = append(found, filepath.Clean(path))
		}
	}
	return found, nil
}
