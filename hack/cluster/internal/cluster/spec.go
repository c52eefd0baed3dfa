// Package cluster brings clusters up and down: it knows the parts of each mode, in which order they start, and where
// their files are.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
)

// Mode is how much of a cluster there is.
type Mode string

// The modes.
const (
	// ControlPlane is an API with its controllers and no node: what is made is stored and reacted to, no pod runs.
	ControlPlane Mode = "control-plane"
	// Simulated has nodes that only exist in the API: pods are scheduled and become ready, no container runs.
	Simulated Mode = "simulated"
	// Node has one real node: pods run.
	Node Mode = "node"
)

// Spec is what the user asked for.
type Spec struct {
	Mode Mode `json:"mode"`
	// Nodes is the number of simulated nodes.
	Nodes int `json:"nodes,omitempty"`
	// PodStages are what simulated pods go through: sets of kwok's own by name, or files.
	PodStages []string `json:"podStages,omitempty"`
	// NoControllers leaves kube-controller-manager out (mode control-plane only).
	NoControllers bool `json:"noControllers,omitempty"`
	// AuditLog makes the API server keep an audit log; AuditPolicy is its policy file, else every request is logged
	// without its body.
	AuditLog    bool   `json:"auditLog,omitempty"`
	AuditPolicy string `json:"auditPolicy,omitempty"`
	// Fsync makes etcd wait for the disk, as it does in earnest.
	Fsync bool `json:"fsync,omitempty"`
	// ExtraArgs are added to the arguments of the named parts; where one repeats an argument of ours, it wins.
	ExtraArgs map[string][]string `json:"extraArgs,omitempty"`
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// CheckName says whether a cluster can have that name.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("--name %q: a name has 1 to 32 small letters, digits and hyphens, with no hyphen at either end", name)
	}
	return nil
}

// extraArgsFor are the parts that ExtraArgs may name.
var extraArgsFor = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kwok"}

// Check finds what is wrong with the spec.
func (s Spec) Check() error {
	switch s.Mode {
	case ControlPlane, Simulated, Node:
	default:
		return fmt.Errorf("--mode %q: the modes are %s, %s and %s", s.Mode, ControlPlane, Node, Simulated)
	}
	if s.Mode == Simulated && (s.Nodes < 1 || s.Nodes > 1000) {
		return fmt.Errorf("--nodes %d: 1 to 1000 nodes can be simulated", s.Nodes)
	}
	if s.Mode != Simulated && (s.Nodes != 0 || len(s.PodStages) > 0) {
		return fmt.Errorf("--nodes and --pod-stages are for --mode %s", Simulated)
	}
	if s.Mode != ControlPlane && s.NoControllers {
		return fmt.Errorf("--no-controllers is for --mode %s", ControlPlane)
	}
	if s.AuditPolicy != "" && !s.AuditLog {
		return errors.New("--audit-policy needs --audit-log")
	}
	for part := range s.ExtraArgs {
		if !slices.Contains(extraArgsFor, part) {
			return fmt.Errorf("--extra-arg: no part is called %q; the parts are %s", part, strings.Join(extraArgsFor, ", "))
		}
	}
	return nil
}

// state is what a cluster remembers of itself, written before anything of it exists outside its folder.
type state struct {
	Spec Spec `json:"spec"`
	// Boot is the boot of the machine in which the cluster was brought up last.
	Boot string `json:"boot"`
	// Network is set in mode node.
	Network *node.Network `json:"network,omitempty"`
	// Ports of the parts on loopback, in the other modes.
	Ports map[string]int `json:"ports,omitempty"`
	// Binaries is a folder whose etcd, kube-apiserver and kubectl are used instead of ours.
	Binaries string `json:"binaries,omitempty"`
}

// Cluster is one cluster and its folder.
type Cluster struct {
	Name string
	// Cache is the cache's root, Dir the cluster's own folder in it.
	Cache, Dir string
	state      state
	// lock is held while the cluster is brought up.
	lock *cache.Lock
}

// clustersDir is where the folders of all clusters are.
func clustersDir(cacheRoot string) string { return filepath.Join(cacheRoot, "clusters") }

func open(cacheRoot, name string) *Cluster {
	return &Cluster{Name: name, Cache: cacheRoot, Dir: filepath.Join(clustersDir(cacheRoot), name)}
}

// ErrNone is the error for a cluster that does not exist.
var ErrNone = errors.New("no such cluster")

// Load returns the cluster of that name; ErrNone if there is none.
func Load(cacheRoot, name string) (*Cluster, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	c := open(cacheRoot, name)
	if ok, err := c.load(); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("cluster %s: %w", name, ErrNone)
	}
	return c, nil
}

// All are the clusters of this cache, by name.
func All(cacheRoot string) ([]*Cluster, error) {
	entries, err := os.ReadDir(clustersDir(cacheRoot))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var out []*Cluster
	for _, e := range entries {
		c := open(cacheRoot, e.Name())
		if ok, err := c.load(); err != nil {
			return nil, err
		} else if ok {
			out = append(out, c)
		}
	}
	return out, nil
}

func (c *Cluster) stateFile() string { return filepath.Join(c.Dir, "state.json") }

// load reads the state; false if there is none.
func (c *Cluster) load() (bool, error) {
	data, err := os.ReadFile(c.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the state of cluster %s: %w", c.Name, err)
	}
	c.state = state{}
	if err := json.Unmarshal(data, &c.state); err != nil {
		return false, fmt.Errorf("read the state of cluster %s: %w", c.Name, err)
	}
	return true, nil
}

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return fmt.Errorf("save the state of cluster %s: %w", c.Name, err)
	}
	return cache.WriteFile(c.stateFile(), append(data, '\n'), 0o600)
}

// Where things are.
func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}
func (c *Cluster) pki(file string) string    { return c.path("pki", file) }
func (c *Cluster) log(part string) string    { return c.path("logs", part+".log") }
func (c *Cluster) record(part string) string { return c.path("run", part+".json") }
func (c *Cluster) auditLog() string          { return c.path("logs", "audit.log") }
func (c *Cluster) etcdData() string          { return c.path("etcd") }

// Kubeconfig is the file with which the cluster's administrator talks to it.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

func (c *Cluster) nodeName() string { return c.Name + "-node" }

// runtime is the node's container runtime.
func (c *Cluster) runtime() node.Runtime {
	return node.Runtime{Dir: c.path("containerd"), PauseImage: pauseImage, PodCIDR: c.state.Network.PodCIDR.String()}
}

// serviceCIDR and its first address, which is the API's.
func (c *Cluster) serviceCIDR() (cidr, api string) {
	if n := c.state.Network; n != nil {
		return n.ServiceCIDR.String(), n.APIServiceIP.String()
	}
	return "10.96.0.0/16", "10.96.0.1"
}

// address is where the parts listen and are reached: the node's end of the link, or loopback.
func (c *Cluster) address() string {
	if n := c.state.Network; n != nil {
		return n.NodeIP.String()
	}
	return "127.0.0.1"
}

// nodePorts are the ports in mode node: the cluster has its addresses to itself.
var nodePorts = map[string]int{
	"etcd": 2379, "etcd-peer": 2380, "kube-apiserver": 6443, "kube-controller-manager": 10257, "kube-scheduler": 10259,
	"kubelet": 10248, "kube-proxy": 10256,
}

// loopbackPorts are the ports to choose in the other modes.
var loopbackPorts = []string{
	"etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok",
}

func (c *Cluster) port(part string) int {
	if c.state.Network != nil {
		return nodePorts[part]
	}
	return c.state.Ports[part]
}

// url is https at a part's port.
func (c *Cluster) url(part string) string {
	return fmt.Sprintf("https://%s:%d", c.address(), c.port(part))
}
