// Package image wraps static programs as container images, without a container engine: an archive of the kind that
// "docker save" writes and that containerd imports.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"time"
)

// Image is one to write.
type Image struct {
	// Name is the full name with host and tag.
	Name string
	// Files maps paths in the image, without a leading slash, to files of this machine. All become executable.
	Files map[string]string
	// Entrypoint is the command line; its first word is a path in the image.
	Entrypoint []string
	// User is the numeric user, optionally user:group; empty is root.
	User string
}

// Write writes the archive. The same input gives the same bytes.
func Write(w io.Writer, img Image) error {
	var layer bytes.Buffer
	if err := writeLayer(&layer, img.Files); err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	digest := sha256.Sum256(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      epoch.Format(time.RFC3339),
		"config": map[string]any{
			"Entrypoint": img.Entrypoint,
			"User":       img.User,
			"Env":        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
			"WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(digest[:])}},
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	manifest, err := json.Marshal([]map[string]any{
		{"Config": "config.json", "RepoTags": []string{img.Name}, "Layers": []string{"layer.tar"}},
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	out := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer.Bytes()}} {
		if err := writeEntry(out, f.name, 0o644, f.data); err != nil {
			return fmt.Errorf("write image %s: %w", img.Name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	return nil
}

// epoch is the time of every file: an image's bytes must depend on its content alone.
var epoch = time.Unix(0, 0).UTC()

func writeLayer(w io.Writer, files map[string]string) error {
	out := tar.NewWriter(w)
	made := map[string]bool{}
	for _, name := range sortedKeys(files) {
		for _, dir := range parents(name) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch}); err != nil {
				return err
			}
		}
		data, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		if err := writeEntry(out, name, 0o755, data); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeEntry(out *tar.Writer, name string, mode int64, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: epoch}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// parents are the folders above name, topmost first.
func parents(name string) []string {
	dir := path.Dir(name)
	if dir == "." || dir == "/" {
		return nil
	}
	return append(parents(dir), dir)
}

func sortedKeys(m map[string]string) []string {
	return slices.Sorted(maps.Keys(m))
}
