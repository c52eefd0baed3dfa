package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user of every image: not root, and the one that the pods' security contexts name.
const user = "65532:65532"

// epoch is the time of every file, so that bytes depend on content alone.
var epoch = time.Unix(0, 0).UTC()

type file struct {
	path    string // without a leading slash
	mode    int64
	content []byte
}

// write writes the image. Its lower layer holds what a static program needs from a system: certificates, time zones and
// a user; its upper one the files.
func write(ctx context.Context, output, imageName, arch string, entrypoint []string, files []file) error {
	tag, err := name.NewTag(imageName)
	if err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	system, err := systemFiles(ctx)
	if err != nil {
		return err
	}
	image := empty.Image
	for _, content := range [][]file{system, files} {
		layer, err := layerOf(content)
		if err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return fmt.Errorf("append layer: %w", err)
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image config: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: epoch}
	config.Config = v1.Config{
		User:       user,
		Entrypoint: entrypoint,
		WorkingDir: "/",
		Env:        []string{"PATH=/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
	}
	for i := range config.History {
		config.History[i] = v1.History{Created: v1.Time{Time: epoch}}
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return fmt.Errorf("write image config: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	// A killed run leaves no half image under the name.
	temporary := output + ".tmp"
	if err := tarball.WriteToFile(temporary, tag, image); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	return os.Rename(temporary, output)
}

// writeFolder writes the same files as an image holds into a folder.
func writeFolder(ctx context.Context, folder string, files []file) error {
	system, err := systemFiles(ctx)
	if err != nil {
		return err
	}
	for _, f := range append(system, files...) {
		target := filepath.Join(folder, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, f.content, os.FileMode(f.mode)); err != nil {
			return err
		}
	}
	return nil
}

func layerOf(files []file) (v1.Layer, error) {
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	made := map[string]bool{".": true}
	for _, f := range files {
		if err := writeFolders(out, path.Dir(f.path), made); err != nil {
			return nil, err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.content)), ModTime: epoch, Format: tar.FormatPAX}
		if err := out.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := out.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil })
}

func writeFolders(out *tar.Writer, folder string, made map[string]bool) error {
	if made[folder] {
		return nil
	}
	if err := writeFolders(out, path.Dir(folder), made); err != nil {
		return err
	}
	made[folder] = true
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o755, ModTime: epoch, Format: tar.FormatPAX})
}

// systemFiles are Mozilla's root certificates, as the Go project publishes them in a module (go.sum pins their bytes);
// the time zones that come with Go; and the names of the user.
func systemFiles(ctx context.Context) ([]file, error) {
	var certificates bytes.Buffer
	for root := range bundle.Roots() {
		// A root with a constraint is trusted for less than everything, which a PEM file cannot say.
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&certificates, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, fmt.Errorf("write root certificates: %w", err)
		}
	}
	files := []file{
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificates.Bytes()},
		{path: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n")},
		{path: "etc/group", mode: 0o644, content: []byte("root:x:0:\nnonroot:x:65532:\n")},
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		return nil, fmt.Errorf("open Go's time zones: %w", err)
	}
	defer archive.Close()
	for _, zone := range archive.File {
		if zone.FileInfo().IsDir() {
			continue
		}
		content, err := readZone(zone)
		if err != nil {
			return nil, fmt.Errorf("read time zone %s: %w", zone.Name, err)
		}
		files = append(files, file{path: path.Join("usr/share/zoneinfo", zone.Name), mode: 0o644, content: content})
	}
	return files, nil
}

func readZone(zone *zip.File) ([]byte, error) {
	r, err := zone.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// checkStatic refuses a binary that asks for a dynamic loader: there is none in the image, and the error at run time,
// "no such file or directory", names the wrong file.
func checkStatic(f file) error {
	binary, err := elf.NewFile(bytes.NewReader(f.content))
	if err != nil {
		return fmt.Errorf("/%s is no Linux program: %w", f.path, err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("/%s is linked dynamically: build it with CGO_ENABLED=0", f.path)
		}
	}
	return nil
}
