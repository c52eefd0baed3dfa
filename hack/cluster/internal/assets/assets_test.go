package assets

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources is the folder with the modules to build from.
const sources = "../.."

// The version in a program's folder is a promise about what was built into it.
func TestVersionsAreThoseOfTheModules(t *testing.T) {
	for _, c := range []struct{ module, path, version string }{
		{"kubernetes", "k8s.io/kubernetes", KubernetesVersion},
		{"kubernetes", "k8s.io/api", "v0" + strings.TrimPrefix(KubernetesVersion, "v1")},
		{"etcd", "go.etcd.io/etcd/server/v3", EtcdVersion},
		{"etcd", "go.etcd.io/etcd/etcdctl/v3", EtcdVersion},
		{"etcd", "go.etcd.io/etcd/etcdutl/v3", EtcdVersion},
		{"kwok", "sigs.k8s.io/kwok", KwokVersion},
		{"coredns", "github.com/coredns/coredns", CoreDNSVersion},
	} {
		data, err := os.ReadFile(filepath.Join(sources, c.module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^(?:require|\s)\s*` + regexp.QuoteMeta(c.path) + ` (\S+)`).FindSubmatch(data)
		if found == nil {
			t.Errorf("%s/go.mod does not require %s", c.module, c.path)
		} else if string(found[1]) != c.version {
			t.Errorf("%s/go.mod requires %s %s, not %s", c.module, c.path, found[1], c.version)
		}
	}
}

// A change to one of our own sources needs a change of the version beside it, because what is in the
// cache under the old version stays there.
func TestOwnSourcesHaveTheirVersion(t *testing.T) {
	for file, want := range map[string]string{
		"pause/main.go":   PauseVersion + " 9baa1311faf1348c",
		"coredns/main.go": CoreDNSBuild + " 141a25a306b6cf8a",
	} {
		data, err := os.ReadFile(filepath.Join(sources, file))
		if err != nil {
			t.Fatal(err)
		}
		version, _, _ := strings.Cut(want, " ")
		sum := sha256.Sum256(data)
		if got := version + " " + hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%s is now %q, not %q: give it a new version and write its sum here", file, got, want)
		}
	}
}

func TestEveryProgramHasItsOwnPath(t *testing.T) {
	b := Builder{Cache: "/c"}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(Programs)) {
		path := b.Path(name)
		if other, taken := seen[path]; taken {
			t.Errorf("%s and %s are both %s", name, other, path)
		}
		seen[path] = name
		if p := Programs[name]; p.Name != name || !strings.Contains(path, p.version) {
			t.Errorf("%s is at %s", name, path)
		}
	}
	for _, name := range ForEnvtest {
		if _, ok := Programs[name]; !ok {
			t.Errorf("%s is not built", name)
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	for _, name := range ForEnvtest {
		if got := FromEnvironment(); got != "" {
			t.Errorf("without %s: %q", name, got)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho Kubernetes v1.30.1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := FromEnvironment(); got != dir {
		t.Errorf("got %q, want %q", got, dir)
	}
	if SameMinor(dir) {
		t.Error("v1.30.1 counts as the minor version that is built")
	}
	server := "#!/bin/sh\necho Kubernetes " + KubernetesVersion + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kube-apiserver"), []byte(server), 0o700); err != nil {
		t.Fatal(err)
	}
	if !SameMinor(dir) {
		t.Errorf("%s does not count as its own minor version", KubernetesVersion)
	}
}

func TestLinkReplaces(t *testing.T) {
	dir := t.TempDir()
	for _, target := range []string{"one", "two", "two"} {
		if err := link(filepath.Join(dir, target), filepath.Join(dir, "sub", "..", "link")); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(filepath.Join(dir, "link")); err != nil || got != target {
			t.Errorf("links to %q (%v), want %q", got, err, target)
		}
	}
}

func TestBuildFailureSaysWhy(t *testing.T) {
	p := Program{Name: "x"}
	b := Builder{Cache: t.TempDir(), Progress: func(string, ...any) {}}
	// A module that does not compile: the error must carry the compiler's words.
	module := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module broken\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { undefined() }\n"} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.pkg = "."
	err := b.compile(p, module, filepath.Join(t.TempDir(), "out"))
	if err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("got %v", err)
	}
}
