package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWrite(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := Image{
		Name: "example.internal/a:1", Files: map[string]string{"usr/bin/a": program, "b": program},
		Entrypoint: []string{"/b"}, User: "65532",
	}
	var first, second bytes.Buffer
	if err := Write(&first, img); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, img); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same input gave different bytes")
	}

	outer := entries(t, first.Bytes())
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(outer["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{img.Name}) || len(manifest[0].Layers) != 1 {
		t.Fatalf("manifest: %+v", manifest)
	}
	var config struct {
		OS     string
		Config struct {
			Entrypoint []string
			User       string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(outer[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := outer[manifest[0].Layers[0]]
	digest := sha256.Sum256(layer)
	if want := "sha256:" + hex.EncodeToString(digest[:]); !slices.Equal(config.RootFS.DiffIDs, []string{want}) {
		t.Errorf("layers %v, the layer is %s", config.RootFS.DiffIDs, want)
	}
	if config.OS != "linux" || config.Config.User != "65532" || !slices.Equal(config.Config.Entrypoint, img.Entrypoint) {
		t.Errorf("config: %+v", config)
	}
	inner := entries(t, layer)
	for _, want := range []string{"usr/", "usr/bin/", "usr/bin/a", "b"} {
		if _, ok := inner[want]; !ok {
			t.Errorf("the layer lacks %s", want)
		}
	}
	if string(inner["usr/bin/a"]) != "binary" {
		t.Errorf("content %q", inner["usr/bin/a"])
	}
}

func TestWriteMissingFile(t *testing.T) {
	err := Write(io.Discard, Image{Name: "a", Files: map[string]string{"a": "/does/not/exist"}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func entries(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
