// Package assets builds the programs of a cluster from their published Go modules and keeps them per version in the
// cache, where every checkout finds them.
package assets

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
)

// The versions that are built. The go.mod files beside this module require the same (a test compares them).
const (
	KubernetesVersion = "v1.36.3"
	EtcdVersion       = "v3.7.3"
	KwokVersion       = "v0.8.0"
	CoreDNSVersion    = "v1.15.0"
	// CoreDNSBuild changes with CoreDNSVersion and whenever coredns/main.go does.
	CoreDNSBuild = CoreDNSVersion + "-1"
	// PauseVersion changes whenever pause/main.go does.
	PauseVersion = "v1.0.0"
)

// Program is one program to build.
type Program struct {
	Name string
	// product and version name the folder in the cache that it shares with its siblings.
	product, version string
	// module is the folder of its module within the sources of this tool, pkg the package in it.
	module, pkg string
	ldflags     string
	// stages says that kwok's stage files go with the program.
	stages bool
}

// Programs are all there are, by name.
var Programs = programs()

// ForEnvtest are the programs that make a folder usable as KUBEBUILDER_ASSETS.
var ForEnvtest = []string{"etcd", "kube-apiserver", "kubectl"}

func programs() map[string]Program {
	const version = "k8s.io/component-base/version"
	minor := strings.Split(KubernetesVersion, ".")[1]
	var flags []string
	for _, pkg := range []string{version, "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			"-X", pkg+".gitVersion="+KubernetesVersion, "-X", pkg+".gitMajor=1", "-X", pkg+".gitMinor="+minor,
			"-X", pkg+".gitTreeState=clean")
	}
	all := map[string]Program{}
	add := func(p Program) { all[p.Name] = p }
	for _, name := range []string{
		"kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
	} {
		add(Program{
			Name: name, product: "kubernetes", version: KubernetesVersion,
			module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: strings.Join(flags, " "),
		})
	}
	for name, pkg := range map[string]string{
		"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3", "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
	} {
		add(Program{Name: name, product: "etcd", version: EtcdVersion, module: "etcd", pkg: pkg})
	}
	add(Program{
		Name: "kwok", product: "kwok", version: KwokVersion, module: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok",
		stages: true,
	})
	add(Program{Name: "coredns", product: "coredns", version: CoreDNSBuild, module: "coredns", pkg: "."})
	add(Program{Name: "pause", product: "pause", version: PauseVersion, module: ".", pkg: "./pause"})
	return all
}

// Builder builds programs into the cache.
type Builder struct {
	// Cache is the cache's root.
	Cache string
	// Progress is told, in lines, what is built.
	Progress func(format string, args ...any)
}

// dir is the folder of a program in the cache.
func (b *Builder) dir(p Program) string {
	return filepath.Join(b.Cache, "bin", fmt.Sprintf("%s-%s-%s-%s", p.product, p.version, runtime.GOOS, runtime.GOARCH))
}

// Path is where the named program is once it has been built.
func (b *Builder) Path(name string) string {
	p := Programs[name]
	return filepath.Join(b.dir(p), p.Name)
}

// StageFile is a file with kwok stages: "fast", "general", "chaos" for pods, "node" for nodes; there once kwok is built.
func (b *Builder) StageFile(set string) string {
	return filepath.Join(b.dir(Programs["kwok"]), "stages-"+set+".yaml")
}

// Folder builds the named programs and returns a folder that has all of them, and so serves as KUBEBUILDER_ASSETS.
func (b *Builder) Folder(names []string) (string, error) {
	if err := b.Ensure(names); err != nil {
		return "", err
	}
	dir := filepath.Join(b.Cache, "bin",
		fmt.Sprintf("assets-%s-%s-%s-%s", KubernetesVersion, EtcdVersion, runtime.GOOS, runtime.GOARCH))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the assets folder: %w", err)
	}
	for _, name := range names {
		if err := link(b.Path(name), filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("make the assets folder: %w", err)
		}
	}
	return dir, nil
}

// link makes a relative symbolic link at path, in one step, so that the cache can be moved and used meanwhile.
func link(target, path string) error {
	rel, err := filepath.Rel(filepath.Dir(path), target)
	if err != nil {
		return err
	}
	if now, err := os.Readlink(path); err == nil && now == rel {
		return nil
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Symlink(rel, temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// FromEnvironment returns the folder in $KUBEBUILDER_ASSETS when it has all that envtest needs, else "".
func FromEnvironment() string {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		return ""
	}
	for _, name := range ForEnvtest {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return ""
		}
	}
	return dir
}

// SameMinor says whether the Kubernetes programs in dir are of the minor version that is built here: a controller
// manager or a kubelet must not be newer than the API server.
func SameMinor(dir string) bool {
	out, err := exec.Command(filepath.Join(dir, "kube-apiserver"), "--version").Output()
	if err != nil {
		return false
	}
	minor := KubernetesVersion[:strings.LastIndexByte(KubernetesVersion, '.')+1]
	return strings.Contains(string(out), minor)
}

// Ensure builds the named programs that the cache lacks, one after the other.
func (b *Builder) Ensure(names []string) error {
	for _, name := range names {
		p, ok := Programs[name]
		if !ok {
			return fmt.Errorf("build %s: no such program", name)
		}
		if _, err := os.Stat(b.Path(name)); err == nil {
			continue
		}
		if err := b.locked(p); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	return nil
}

// locked builds p while no other process builds anything of the same product, unless that one has built it meanwhile.
func (b *Builder) locked(p Program) error {
	lock, err := cache.LockFile(filepath.Join(b.Cache, "bin", "."+p.product+".lock"), func() {
		b.Progress("%s: waiting for another build", p.Name)
	})
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if _, err := os.Stat(b.Path(p.Name)); err == nil {
		return nil
	}
	return b.build(p)
}
