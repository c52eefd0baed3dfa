package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/policies"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
	"github.com/lethe-dev/lethe/hack/cluster/internal/provisioner"
)

// Images of the cluster's own pods. No registry has them; they are built and imported.
const (
	pauseImage   = "lethe.internal/pause:1"
	coreDNSImage = "lethe.internal/coredns:1"
)

// clusterDomain is the DNS domain of services.
const clusterDomain = "cluster.local"

// HostName is the name under which pods find the host's end of the link.
const HostName = "host.lethe.internal"

func (c *Cluster) containerd() part {
	r := c.runtime()
	return part{
		name: "containerd", program: node.Program("containerd"), args: []string{"--config", r.Config()},
		ready: func(ctx context.Context) error {
			cmd, err := c.Ctr(ctx, "version")
			if err != nil {
				return err
			}
			return quiet(cmd)
		},
	}
}

// Ctr is a command that talks to the node's containerd, in the namespace the kubelet uses.
func (c *Cluster) Ctr(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if c.state.Network == nil {
		return nil, fmt.Errorf("cluster %s is of mode %s: it has no node that runs containers", c.Name, c.state.Spec.Mode)
	}
	mounts, err := c.mountNS()
	if err != nil {
		return nil, err
	}
	argv := append([]string{node.Program("ctr"), "--address", c.runtime().Socket(), "--namespace", "k8s.io"}, args...)
	if argv, err = process.EnterArgs("", mounts, argv); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.tie(cmd)
	return cmd, nil
}

// tie makes a command part of the caller's work on the cluster: it ends with the caller, and while it has not, it holds
// the caller's lock, so that nobody removes the cluster while it still writes.
func (c *Cluster) tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = process.Child()
	if c.lock != nil {
		cmd.ExtraFiles = []*os.File{c.lock.File()}
	}
}

// LoadImages imports image archives into the node.
func (c *Cluster) LoadImages(ctx context.Context, archives ...string) error {
	for _, a := range archives {
		// Read from standard input: the node has /run and a few other folders of its own, the archive may be there.
		cmd, err := c.Ctr(ctx, "images", "import", "--digests=false", "-")
		if err != nil {
			return err
		}
		f, err := os.Open(a)
		if err != nil {
			return fmt.Errorf("load image: %w", err)
		}
		cmd.Stdin = f
		err = quiet(cmd)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("load image %s: %w", a, err)
		}
	}
	return nil
}

func (c *Cluster) kubelet() part {
	args := []string{
		"--config=" + c.path("kubelet.json"),
		"--kubeconfig=" + c.path("kubeconfigs", "kubelet"),
		"--root-dir=" + c.path("kubelet"),
		"--cert-dir=" + c.path("kubelet", "pki"),
		"--hostname-override=" + c.nodeName(),
		"--node-ip=" + c.address(),
	}
	return part{
		name: "kubelet", program: c.binary("kubelet"), args: c.with("kubelet", args...),
		ready: func(ctx context.Context) error {
			return probe(ctx, http.DefaultClient, fmt.Sprintf("http://%s:%d/healthz", c.address(), c.port("kubelet")))
		},
	}
}

func (c *Cluster) kubeProxy() part {
	return part{
		name: "kube-proxy", program: c.binary("kube-proxy"), args: []string{"--config=" + c.path("kube-proxy.json")},
		ready: func(ctx context.Context) error {
			return probe(ctx, http.DefaultClient, fmt.Sprintf("http://%s:%d/healthz", c.address(), c.port("kube-proxy")))
		},
	}
}

func (c *Cluster) provisioner(self string) part {
	args := []string{provisioner.Command, "-server", c.url("kube-apiserver"),
		"-ca", c.pki("ca.crt"), "-cert", c.pki("provisioner.crt"), "-key", c.pki("provisioner.key")}
	if c.state.Spec.Mode == Node {
		args = append(args, "-dir", c.path("volumes"), "-node", c.nodeName())
	}
	return part{name: "provisioner", program: self, args: args, host: true}
}

// networkPolicies runs in the node's network, whose packet filter it keeps.
func (c *Cluster) networkPolicies(self string) part {
	return part{name: "network-policies", program: self, args: []string{policies.Command, "-nft", node.Program("nft"), "-server", c.url("kube-apiserver"),
		"-ca", c.pki("ca.crt"), "-cert", c.pki("network-policies.crt"), "-key", c.pki("network-policies.key")}}
}

// writeNodeConfig writes the settings of the parts that only a real node has.
func (c *Cluster) writeNodeConfig(groups node.Cgroups) error {
	n := c.state.Network
	if err := c.runtime().Write(); err != nil {
		return err
	}
	// The node has no way to a name server outside; CoreDNS answers what it can and denies the rest.
	resolv := c.path("resolv.conf")
	if err := cache.WriteFile(resolv, []byte("nameserver "+n.DNSIP.String()+"\n"), 0o644); err != nil {
		return err
	}
	err := writeJSON(c.path("kubelet.json"), map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": c.pki("ca.crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              c.pki("kubelet-server.crt"),
		"tlsPrivateKeyFile":        c.pki("kubelet-server.key"),
		"address":                  c.address(),
		"healthzBindAddress":       c.address(),
		"healthzPort":              c.port("kubelet"),
		"containerRuntimeEndpoint": "unix://" + c.runtime().Socket(),
		"clusterDNS":               []string{n.DNSIP.String()},
		"clusterDomain":            clusterDomain,
		"resolvConf":               resolv,
		"podLogsDir":               c.path("logs", "pods"),
		"volumePluginDir":          c.path("kubelet", "volume-plugins"),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               groups.KubeletRoot(),
		"enforceNodeAllocatable":   []string{"pods"},
		"failCgroupV1":             false,
		"failSwapOn":               false,
		// The kubelet's own score would have to be lowered, which not every root may.
		"oomScoreAdj":            0,
		"makeIPTablesUtilChains": false,
		// The disk is the user's, and images cannot be pulled again: nothing is removed or evicted for space.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": map[string]string{
			"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
		},
		"maxPods": 110,
		// Processes and threads of one pod: without a limit, one could take all that the node has.
		"podPidsLimit": 1024,
		// Pods start one beside the other and at once: one person waits for them.
		"serializeImagePulls":       false,
		"registerNode":              true,
		"nodeStatusUpdateFrequency": "5s",
	})
	if err != nil {
		return err
	}
	return writeJSON(c.path("kube-proxy.json"), map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   map[string]any{"kubeconfig": c.path("kubeconfigs", "kube-proxy")},
		"hostnameOverride":   c.nodeName(),
		"bindAddress":        c.address(),
		"healthzBindAddress": fmt.Sprintf("%s:%d", c.address(), c.port("kube-proxy")),
		"metricsBindAddress": fmt.Sprintf("%s:10249", c.address()),
		"clusterCIDR":        n.PodCIDR.String(),
		"detectLocalMode":    "ClusterCIDR",
		"oomScoreAdj":        0,
		// These are settings of the whole machine; 0 leaves them alone.
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
	})
}

// quiet runs a command and shows what it said only when it fails.
func quiet(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out)
	}
	return nil
}
