package cluster

import (
	"context"
	"path/filepath"

	"github.com/lethe-dev/lethe/hack/cluster/internal/assets"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// Info is where everything of a cluster is. What a mode does not have is empty and left out.
type Info struct {
	Name       string `json:"name"`
	Mode       Mode   `json:"mode"`
	Dir        string `json:"dir"`
	Kubeconfig string `json:"kubeconfig"`
	// Server is the URL of the API, as the host reaches it.
	Server string `json:"server"`
	// Kubectl is a kubectl of the cluster's version.
	Kubectl string `json:"kubectl"`
	// CA signs the API's certificates and those of its clients.
	CA Files `json:"ca"`
	// LogDir has one file per part, and the logs of pods in mode node. AuditLog is there if it was asked for.
	LogDir   string `json:"logDir"`
	AuditLog string `json:"auditLog,omitempty"`
	Etcd     Etcd   `json:"etcd"`
	// Pids are the processes of the parts that run.
	Pids map[string]int `json:"pids"`

	Network    *Network    `json:"network,omitempty"`
	Containerd *Containerd `json:"containerd,omitempty"`
	// VolumeDir has one folder per volume of the default storage class, KubeletDir the kubelet's own files.
	VolumeDir  string `json:"volumeDir,omitempty"`
	KubeletDir string `json:"kubeletDir,omitempty"`
}

// Files are a certificate and its key.
type Files struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Etcd is how to reach etcd and where its data is.
type Etcd struct {
	DataDir  string `json:"dataDir"`
	Endpoint string `json:"endpoint"`
	CA       string `json:"ca"`
	Client   Files  `json:"client"`
	// Etcdctl and Etcdutl are the tools of etcd's version; they are built in mode node.
	Etcdctl string `json:"etcdctl,omitempty"`
	Etcdutl string `json:"etcdutl,omitempty"`
}

// Network is what pods and the host reach each other by.
type Network struct {
	NetNS string `json:"netns"`
	// HostLink is the host's end of the link; HostIP its address, which pods reach as HostName; NodeIP the other end.
	HostLink string `json:"hostLink"`
	HostIP   string `json:"hostIP"`
	HostName string `json:"hostName"`
	NodeIP   string `json:"nodeIP"`
	NodeName string `json:"nodeName"`

	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	DNSIP       string `json:"dnsIP"`
	// MountNS is the file of the node's mount namespace, for nsenter --mount=; empty while the node is down.
	MountNS string `json:"mountNS,omitempty"`
	// Cgroup is the node's control group below the root of each hierarchy.
	Cgroup string `json:"cgroup"`
}

// Containerd is where the container runtime keeps its things.
type Containerd struct {
	Root   string `json:"root"`
	State  string `json:"state"`
	Socket string `json:"socket"`
	Config string `json:"config"`
	Ctr    string `json:"ctr"`
}

// Info collects where everything is.
func (c *Cluster) Info() (Info, error) {
	info := Info{
		Name: c.Name, Mode: c.state.Spec.Mode, Dir: c.Dir,
		Kubeconfig: c.Kubeconfig(), Server: c.url("kube-apiserver"), Kubectl: c.binary("kubectl"),
		CA:     Files{Cert: c.pki("ca.crt"), Key: c.pki("ca.key")},
		LogDir: c.path("logs"),
		Etcd: Etcd{
			DataDir: c.etcdData(), Endpoint: c.url("etcd"), CA: c.pki("etcd-ca.crt"),
			Client: Files{Cert: c.pki("etcd-client.crt"), Key: c.pki("etcd-client.key")},
		},
		Pids: map[string]int{},
	}
	if c.state.Spec.AuditLog {
		info.AuditLog = c.auditLog()
	}
	parts, err := c.parts()
	if err != nil {
		return Info{}, err
	}
	for _, p := range parts {
		if r, ok, err := process.Read(c.record(p.name)); err == nil && ok && r.Alive() {
			info.Pids[p.name] = r.PID
		}
	}
	n := c.state.Network
	if n == nil {
		return info, nil
	}
	b := assets.Builder{Cache: c.Cache}
	info.Etcd.Etcdctl, info.Etcd.Etcdutl = b.Path("etcdctl"), b.Path("etcdutl")
	info.VolumeDir, info.KubeletDir = c.path("volumes"), c.path("kubelet")
	groups, err := node.NewCgroups(c.Name)
	if err != nil {
		return Info{}, err
	}
	info.Network = &Network{
		NetNS: n.NetNS, HostLink: n.HostLink, HostIP: n.HostIP.String(), HostName: HostName,
		NodeIP: n.NodeIP.String(), NodeName: c.nodeName(),
		PodCIDR: n.PodCIDR.String(), ServiceCIDR: n.ServiceCIDR.String(), DNSIP: n.DNSIP.String(),
		Cgroup: filepath.Dir(groups.KubeletRoot()),
	}
	if mounts, err := c.mountNS(); err == nil {
		info.Network.MountNS = mounts
	}
	r := c.runtime()
	info.Containerd = &Containerd{
		Root: r.Root(), State: r.State(), Socket: r.Socket(), Config: r.Config(), Ctr: node.Program("ctr"),
	}
	return info, nil
}

// PartStatus is how one part is.
type PartStatus struct {
	Name string
	PID  int
	// Problem is empty when the part serves.
	Problem string
	Log     string
}

// Status asks every part once.
func (c *Cluster) Status(ctx context.Context) ([]PartStatus, error) {
	parts, err := c.parts()
	if err != nil {
		return nil, err
	}
	var out []PartStatus
	for _, p := range parts {
		s := PartStatus{Name: p.name, Log: c.log(p.name)}
		r, ok, err := process.Read(c.record(p.name))
		switch {
		case err != nil:
			s.Problem = err.Error()
		case !ok:
			s.Problem = "was not started"
		case !r.Alive():
			s.Problem = "has ended"
		default:
			s.PID = r.PID
			if p.ready != nil {
				if err := p.ready(ctx); err != nil {
					s.Problem = err.Error()
				}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Mode is the cluster's mode.
func (c *Cluster) Mode() Mode { return c.state.Spec.Mode }

// Server is the URL of the cluster's API.
func (c *Cluster) Server() string { return c.url("kube-apiserver") }
