package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/lethe-dev/lethe/hack/cluster/internal/assets"
	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// part is one program of a cluster.
type part struct {
	name    string
	program string
	args    []string
	// ready is nil once the program serves.
	ready func(context.Context) error
	// own says that the program gets a mount namespace of its own; it is the one that keeps it for the others.
	own bool
	// host says that the program runs in the host's namespaces although the cluster has its own.
	host bool
}

// holder is the part that keeps the node's mount namespace.
const holder = "holder"

// binary is the path of a program: the user's own where that is to be used, else ours.
func (c *Cluster) binary(name string) string {
	if c.state.Binaries != "" {
		for _, own := range assets.ForEnvtest {
			if own == name {
				return filepath.Join(c.state.Binaries, name)
			}
		}
	}
	b := assets.Builder{Cache: c.Cache}
	return b.Path(name)
}

// parts are the programs of the cluster in the order in which they start.
func (c *Cluster) parts() ([]part, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	var out []part
	if c.state.Spec.Mode == Node {
		out = append(out, c.holderPart(self))
	}
	out = append(out, c.etcd(), c.apiserver())
	if !c.state.Spec.NoControllers {
		out = append(out, c.controllerManager())
	}
	if c.state.Spec.Mode == ControlPlane {
		return out, nil
	}
	out = append(out, c.scheduler(), c.provisioner(self))
	if c.state.Spec.Mode == Simulated {
		return append(out, c.kwok()), nil
	}
	return append(out, c.networkPolicies(self), c.containerd(), c.kubelet(), c.kubeProxy()), nil
}

func (c *Cluster) with(name string, args ...string) []string {
	return append(args, c.state.Spec.ExtraArgs[name]...)
}

func (c *Cluster) holderPart(self string) part {
	dir := c.path("holder")
	return part{
		name: holder, program: self, args: []string{node.HoldCommand, dir}, own: true,
		ready: func(context.Context) error {
			_, err := os.Stat(node.ReadyFile(dir))
			return err
		},
	}
}

func (c *Cluster) etcd() part {
	peer := fmt.Sprintf("https://%s:%d", c.address(), c.port("etcd-peer"))
	args := []string{
		"--name=" + c.Name,
		"--data-dir=" + c.etcdData(),
		"--listen-client-urls=" + c.url("etcd"),
		"--advertise-client-urls=" + c.url("etcd"),
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + c.Name + "=" + peer,
		"--cert-file=" + c.pki("etcd-server.crt"), "--key-file=" + c.pki("etcd-server.key"),
		"--client-cert-auth", "--trusted-ca-file=" + c.pki("etcd-ca.crt"),
		"--peer-cert-file=" + c.pki("etcd-server.crt"), "--peer-key-file=" + c.pki("etcd-server.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + c.pki("etcd-ca.crt"),
		"--quota-backend-bytes=8589934592",
		"--auto-compaction-mode=periodic", "--auto-compaction-retention=30m",
	}
	if !c.state.Spec.Fsync {
		args = append(args, "--unsafe-no-fsync")
	}
	return part{
		name: "etcd", program: c.binary("etcd"), args: c.with("etcd", args...),
		ready: func(ctx context.Context) error {
			client, err := c.httpClient("etcd-ca", "etcd-client")
			if err != nil {
				return err
			}
			return probe(ctx, client, c.url("etcd")+"/health")
		},
	}
}

func (c *Cluster) apiserver() part {
	services, _ := c.serviceCIDR()
	args := []string{
		"--advertise-address=" + c.address(),
		"--secure-port=" + strconv.Itoa(c.port("kube-apiserver")),
		"--cert-dir=" + c.path("run"),
		"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--etcd-servers=" + c.url("etcd"),
		"--etcd-cafile=" + c.pki("etcd-ca.crt"),
		"--etcd-certfile=" + c.pki("etcd-client.crt"), "--etcd-keyfile=" + c.pki("etcd-client.key"),
		"--service-cluster-ip-range=" + services,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + c.pki("service-account.key"),
		"--service-account-key-file=" + c.pki("service-account.pub"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + c.pki("apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	}
	if c.state.Network == nil {
		// The address of a service must not be a loopback one, so the API gets no endpoint of its own.
		args = append(args, "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none")
	}
	if c.state.Spec.Mode == Simulated {
		args = append(args, "--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000")
	}
	if c.state.Spec.AuditLog {
		// One file that never turns over: it is read to count requests.
		args = append(args, "--audit-log-path="+c.auditLog(), "--audit-log-maxsize=1000000",
			"--audit-policy-file="+c.path("audit-policy.yaml"))
	}
	return part{
		name: "kube-apiserver", program: c.binary("kube-apiserver"), args: c.with("kube-apiserver", args...),
		ready: func(ctx context.Context) error {
			client, err := c.httpClient("ca", "admin")
			if err != nil {
				return err
			}
			return probe(ctx, client, c.url("kube-apiserver")+"/readyz")
		},
	}
}

// healthy asks a part's health page, which needs no rights.
func (c *Cluster) healthy(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		client, err := c.httpClient("ca", "")
		if err != nil {
			return err
		}
		return probe(ctx, client, c.url(name)+"/healthz")
	}
}

// servingArgs are what the controller manager and the scheduler have in common.
func (c *Cluster) servingArgs(name string) []string {
	config := c.path("kubeconfigs", name)
	args := []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=" + c.address(),
		"--secure-port=" + strconv.Itoa(c.port(name)),
		"--tls-cert-file=" + c.pki(name+".crt"), "--tls-private-key-file=" + c.pki(name+".key"),
		"--leader-elect=false",
	}
	if c.state.Spec.Mode == Simulated {
		// So that what is measured is not the limit these two put on themselves.
		args = append(args, "--kube-api-qps=1000", "--kube-api-burst=2000")
	}
	return args
}

func (c *Cluster) controllerManager() part {
	const name = "kube-controller-manager"
	args := append(c.servingArgs(name),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.pki("service-account.key"),
		"--root-ca-file="+c.pki("ca.crt"),
		"--cluster-signing-cert-file="+c.pki("ca.crt"),
		"--cluster-signing-key-file="+c.pki("ca.key"),
	)
	if n := c.state.Network; n != nil {
		args = append(args, "--allocate-node-cidrs=true", "--cluster-cidr="+n.PodCIDR.String(),
			"--node-cidr-mask-size="+strconv.Itoa(n.PodCIDR.Bits()), "--service-cluster-ip-range="+n.ServiceCIDR.String())
	}
	return part{name: name, program: c.binary(name), args: c.with(name, args...), ready: c.healthy(name)}
}

func (c *Cluster) scheduler() part {
	const name = "kube-scheduler"
	return part{name: name, program: c.binary(name), args: c.with(name, c.servingArgs(name)...), ready: c.healthy(name)}
}

func (c *Cluster) kwok() part {
	const name = "kwok"
	b := assets.Builder{Cache: c.Cache}
	args := []string{
		"--kubeconfig=" + c.path("kubeconfigs", name),
		"--manage-all-nodes=true",
		"--node-lease-duration-seconds=40",
		"--server-address=127.0.0.1:" + strconv.Itoa(c.port(name)),
		"--config=" + b.StageFile("node"),
	}
	for _, s := range c.state.Spec.PodStages {
		file := s
		if !filepath.IsAbs(s) {
			file = b.StageFile(s)
		}
		args = append(args, "--config="+file)
	}
	return part{
		name: name, program: c.binary(name), args: c.with(name, args...),
		ready: func(ctx context.Context) error {
			return probe(ctx, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/healthz", c.port(name)))
		},
	}
}

// writeJSON writes a settings file; every part reads JSON where its documentation says YAML.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return cache.WriteFile(path, append(data, '\n'), 0o600)
}

// spec is how the part is started.
func (c *Cluster) spec(p part, cgroups []string) (process.Spec, error) {
	s := process.Spec{
		Program: p.program, Args: p.args, Log: c.log(p.name), Record: c.record(p.name), Cgroups: cgroups, OwnMounts: p.own,
		Lock: c.lock.File(),
	}
	if c.state.Network == nil || p.host || p.own {
		return s, nil
	}
	mounts, err := c.mountNS()
	if err != nil {
		return process.Spec{}, err
	}
	s.NetNS, s.MountNS = c.state.Network.NetNSPath(), mounts
	return s, nil
}

// mountNS is the file of the node's mount namespace.
func (c *Cluster) mountNS() (string, error) {
	r, ok, err := process.Read(c.record(holder))
	if err != nil {
		return "", err
	}
	if !ok || !r.Alive() {
		return "", fmt.Errorf("the node's mount namespace is gone: bring cluster %s up again", c.Name)
	}
	return fmt.Sprintf("/proc/%d/ns/mnt", r.PID), nil
}
