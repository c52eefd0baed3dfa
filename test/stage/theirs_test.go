package stage

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/test/pg"
)

// withImages makes the four archives as Build would, each with another content.
func withImages(t *testing.T) *Stage {
	t.Helper()
	s := newStage(t)
	for _, what := range []string{letheImage, botImage, telegramImage, stagehandImage} {
		image, err := mutate.Config(empty.Image, v1.Config{Entrypoint: []string{"/" + what}})
		if err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(what + ":build")
		if err != nil {
			t.Fatal(err)
		}
		if err := tarball.WriteToFile(s.archive(what), tag, image); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestImagesArePushedToARegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	s := withImages(t)
	repository := strings.TrimPrefix(server.URL, "http://") + "/you/lethe-demo"
	images, err := s.BringTheirs(t.Context(), Theirs{Repository: repository, Push: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []string{images.Lethe, images.Bot, images.Telegram, images.Stagehand, images.Repository + ":" + images.LetheTag} {
		ref, err := name.ParseReference(full)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Image(ref, remote.WithContext(t.Context())); err != nil {
			t.Errorf("%s is not in the registry: %v", full, err)
		}
	}
	if images.Pull != corev1.PullIfNotPresent || images.Postgres != images.Stagehand {
		t.Errorf("%+v", images)
	}
	if images, err = s.BringTheirs(t.Context(), Theirs{Repository: repository, Push: true, Postgres: "registry.example.com/postgres:17"}); err != nil || images.Postgres != "registry.example.com/postgres:17" {
		t.Errorf("%+v %v", images, err)
	}
	if _, err := s.BringTheirs(t.Context(), Theirs{Repository: "127.0.0.1:1/you", Push: true}); err == nil || !strings.Contains(err.Error(), "log in first") {
		t.Errorf("a registry that is not there: %v", err)
	}
}

func TestImagesAreLoadedByACommand(t *testing.T) {
	s := withImages(t)
	loaded := filepath.Join(t.TempDir(), "loaded")
	if err := os.Mkdir(loaded, 0o700); err != nil {
		t.Fatal(err)
	}
	images, err := s.BringTheirs(t.Context(), Theirs{Repository: "demo.lethe.invalid/lethe", Load: []string{"cp", "-t", loaded}})
	if err != nil {
		t.Fatal(err)
	}
	if images.Pull != corev1.PullNever {
		t.Errorf("what was loaded would be pulled: %s", images.Pull)
	}
	for what, full := range map[string]string{letheImage: images.Lethe, botImage: images.Bot, telegramImage: images.Telegram, stagehandImage: images.Stagehand} {
		tag, err := name.NewTag(full)
		if err != nil {
			t.Fatal(err)
		}
		// The archive that was loaded has the image under the name that pods use.
		image, err := tarball.ImageFromPath(filepath.Join(loaded, "theirs-"+what+".tar"), &tag)
		if err != nil {
			t.Fatalf("%s: %v", full, err)
		}
		digest, err := image.Digest()
		if err != nil || !strings.HasSuffix(full, digest.Hex[:12]) {
			t.Errorf("%s is not named by its content %s: %v", full, digest, err)
		}
	}
	if _, err := s.BringTheirs(t.Context(), Theirs{Repository: "demo.lethe.invalid/lethe", Load: []string{"false"}}); err == nil || !strings.Contains(err.Error(), "to the nodes") {
		t.Errorf("a command that fails: %v", err)
	}
}

func TestLibrariesOfAProgram(t *testing.T) {
	got, err := librariesOf([]byte("\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0a)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f0b)\n"))
	if err != nil || !slices.Equal(got, []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := librariesOf([]byte("\tlibpq.so.5 => not found\n")); err == nil || !strings.Contains(err.Error(), "libpq.so.5") {
		t.Errorf("a library that is missing: %v", err)
	}
}

// TestPostgresRunsFromItsFilesAlone: in a root that holds nothing else, initdb makes a database.
func TestPostgresRunsFromItsFilesAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("as another user than root only the list is looked at")
	}
	bin, err := pg.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	files, err := postgresFiles(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{filepath.Join(bin, "initdb"), filepath.Join(bin, "postgres"), "/bin/sh"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "/postgres.bki") }) ||
		!slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "libc.so") }) {
		t.Errorf("%d files, without the catalogue or the C library", len(files))
	}
	if os.Geteuid() != 0 {
		return
	}
	root := t.TempDir()
	// Where another user may go.
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		copyInto(t, root, f)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("postgres:x:65532:65532::/:/none\n"), 0o644),
		os.MkdirAll(filepath.Join(root, "dev"), 0o755), os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o666),
		os.Mkdir(filepath.Join(root, "data"), 0o700), os.Chown(filepath.Join(root, "data"), 65532, 65532), os.Mkdir(filepath.Join(root, "tmp"), 0o777), os.Chmod(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "dev/null"), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "chroot", "--userspec=65532:65532", root, filepath.Join(bin, "initdb"), "--pgdata", "/data", "--username", "postgres", "--auth", "scram-sha-256",
		"--pwfile", "/etc/passwd", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	cmd.Env = []string{"PATH=/"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
}

func copyInto(t *testing.T, root, path string) {
	t.Helper()
	to := filepath.Join(root, path)
	b, err := os.ReadFile(path)
	if err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresOfThisMachine(t *testing.T) {
	for name, tc := range map[string][3]string{"a Mac": {"darwin", "arm64", "arm64"}, "another processor": {"linux", "amd64", "arm64"}} {
		if err := PostgresHere(tc[0], tc[1], tc[2]); err == nil || !strings.Contains(err.Error(), "POSTGRES=") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := PostgresHere("linux", "amd64", "amd64"); err != nil {
		t.Error(err)
	}
}

func TestWordsOfOthers(t *testing.T) {
	for line, want := range map[string]int{
		"Forwarding from 127.0.0.1:43567 -> 8081": 43567, "Forwarding from [::1]:43567 -> 8081": 0, "Handling connection for 43567": 0, "Forwarding from 127.0.0.1:x": 0,
	} {
		if got, ok := forwarded(line); got != want || ok != (want > 0) {
			t.Errorf("%q: %d %v", line, got, ok)
		}
	}
	if got := joined([]int32{6443, 8443}); got != "443,6443,8443" {
		t.Errorf("ports of the API server: %q", got)
	}
}

// TestKubectlOfTheUsers: on somebody's cluster the demo asks that somebody's kubectl.
func TestKubectlOfTheUsers(t *testing.T) {
	s := newStage(t)
	s.KubectlPath = "/bin/echo"
	if out, err := s.Kubectl(context.WithoutCancel(t.Context()), "", "get", "pods"); err != nil || out != "get pods\n" {
		t.Errorf("%q %v", out, err)
	}
}
