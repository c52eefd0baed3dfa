package keystore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadKEK(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
	if k, err := LoadKEK(good); err != nil || k.KID() == "" {
		t.Errorf("a good one: %v", err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "empty": file("empty", ""), "short": file("short", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==")} {
		_, err := LoadKEK(path)
		if err == nil || !strings.Contains(err.Error(), "keys generate-kek") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "AAECAwQF") {
			t.Errorf("%s: the error repeats the file", name)
		}
	}
}
