package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// binary builds a program of five lines that is linked statically.
func binary(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	source := filepath.Join(folder, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(folder, "hello")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return out
}

func TestImageOfABinary(t *testing.T) {
	program, folder := binary(t), t.TempDir()
	first, second := filepath.Join(folder, "a.tar"), filepath.Join(folder, "sub", "b.tar")
	for _, out := range []string{first, second} {
		if err := run(t.Context(), []string{"--name", "hello:1", "--binary", program, "-o", out}); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the same input gave different bytes")
	}
	image, err := tarball.ImageFromPath(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/hello"}) {
		t.Errorf("user %q, entry point %q", config.Config.User, config.Config.Entrypoint)
	}
	contents := map[string]string{}
	extracted := mutate.Extract(image)
	defer extracted.Close()
	for r := tar.NewReader(extracted); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		contents[header.Name] = string(content)
		if !header.ModTime.Equal(epoch) {
			t.Errorf("%s has the time %v", header.Name, header.ModTime)
		}
	}
	if len(contents["hello"]) == 0 {
		t.Error("the binary is missing")
	}
	if n := strings.Count(contents["etc/ssl/certs/ca-certificates.crt"], "BEGIN CERTIFICATE"); n < 80 {
		t.Errorf("%d root certificates", n)
	}
	if !strings.HasPrefix(contents["usr/share/zoneinfo/Europe/Berlin"], "TZif") {
		t.Error("time zones are missing")
	}
}

func TestFolderHoldsTheSameFiles(t *testing.T) {
	program, folder := binary(t), filepath.Join(t.TempDir(), "rootfs")
	if err := run(t.Context(), []string{"--binary", program, "--rootfs", folder}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hello", "etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo/Etc/UTC"} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesOfThisMachineAreInTheImage(t *testing.T) {
	program, folder, here := binary(t), filepath.Join(t.TempDir(), "rootfs"), t.TempDir()
	target, link, list := filepath.Join(here, "library.so.1"), filepath.Join(here, "library.so"), filepath.Join(here, "list")
	if err := errors.Join(os.WriteFile(target, []byte("a library"), 0o600), os.Symlink(target, link), os.WriteFile(list, []byte(target+"\n"+link+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"--binary", program, "--with", list, "--rootfs", folder}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{target, link} {
		b, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil || string(b) != "a library" {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
	for name, text := range map[string]string{"nothing": "", "a relative path": "etc/passwd\n", "a path with dots": here + "/../x\n", "what is not there": here + "/absent\n"} {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), []string{"--binary", program, "--with", list, "--rootfs", folder}); err == nil || !strings.Contains(err.Error(), "--with") {
			t.Errorf("%s was taken: %v", name, err)
		}
	}
}

func TestImageRefuses(t *testing.T) {
	dynamic := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(dynamic, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no file to write":     {[]string{"--binary", dynamic}, "either -o FILE or --rootfs FOLDER"},
		"what is no program":   {[]string{"--binary", dynamic, "-o", filepath.Join(t.TempDir(), "x.tar")}, "no Linux program"},
		"a binary that is not": {[]string{"--binary", "/absent", "-o", "x.tar"}, "--binary"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), tc.args); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
