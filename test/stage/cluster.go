package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	kruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Info is what hack/cluster says of a cluster, as far as the stage needs it.
type Info struct {
	Dir        string `json:"dir"`
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	Kubectl    string `json:"kubectl"`
	LogDir     string `json:"logDir"`
	AuditLog   string `json:"auditLog"`
	Etcd       struct {
		DataDir  string `json:"dataDir"`
		Endpoint string `json:"endpoint"`
		CA       string `json:"ca"`
		Client   struct {
			Cert string `json:"cert"`
			Key  string `json:"key"`
		} `json:"client"`
		Etcdctl string `json:"etcdctl"`
		Etcdutl string `json:"etcdutl"`
	} `json:"etcd"`
	Pids    map[string]int `json:"pids"`
	Network struct {
		HostIP   string `json:"hostIP"`
		HostLink string `json:"hostLink"`
		NodeName string `json:"nodeName"`
	} `json:"network"`
	Containerd struct {
		Root  string `json:"root"`
		State string `json:"state"`
	} `json:"containerd"`
	VolumeDir  string `json:"volumeDir"`
	KubeletDir string `json:"kubeletDir"`
}

// cluster runs hack/cluster; what it says on the way is passed on.
func (s *Stage) cluster(ctx context.Context, args ...string) ([]byte, error) {
	cmd := s.command(ctx, filepath.Join(s.Root, "hack", "cluster", "cluster.sh"), args...)
	cmd.Stderr = s.Progress
	return s.run(cmd)
}

// Up brings the cluster up, or finds it up.
func (s *Stage) Up(ctx context.Context, mode string, more ...string) error {
	_, err := s.cluster(ctx, append([]string{"up", "--name", s.Cluster, "--mode", mode}, more...)...)
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(info.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	if err := os.WriteFile(s.Kubeconfig(), b, 0o600); err != nil {
		return fmt.Errorf("keep the cluster's kubeconfig: %w", err)
	}
	return nil
}

// DownCluster removes the cluster of an earlier run, if there is one.
func (s *Stage) DownCluster(ctx context.Context) error {
	if _, err := s.cluster(ctx, "down", "--name", s.Cluster); err != nil {
		return fmt.Errorf("take the cluster down: %w", err)
	}
	return nil
}

// Kubeconfig is the path of the stage's own copy.
func (s *Stage) Kubeconfig() string { return s.Path("kubeconfig") }

// Info asks where everything is.
func (s *Stage) Info(ctx context.Context) (Info, error) {
	var info Info
	out, err := s.cluster(ctx, "info", "--name", s.Cluster, "-o", "json")
	if err != nil {
		return info, fmt.Errorf("ask about the cluster: %w", err)
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return info, fmt.Errorf("read what the cluster says of itself: %w", err)
	}
	return info, nil
}

// NewScheme knows Kubernetes' own kinds and Lethe's.
func NewScheme() (*kruntime.Scheme, error) {
	scheme := kruntime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the kinds: %w", err)
	}
	return scheme, nil
}

// RESTConfig is the administrator's, without a rate limit.
func (s *Stage) RESTConfig() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the stage's kubeconfig: %w", err)
	}
	cfg.QPS = -1
	return cfg, nil
}

// Client is the administrator's. It writes as kubectl would, so that the audit log can tell it from Lethe.
func (s *Stage) Client() (client.Client, error) {
	cfg, err := s.RESTConfig()
	if err != nil {
		return nil, err
	}
	scheme, err := NewScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return c, nil
}

// Kubectl runs the cluster's own kubectl, or the user's on the user's. stdin may be empty.
func (s *Stage) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	if s.KubectlPath != "" {
		return s.tool(ctx, s.KubectlPath, stdin, args...)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return "", err
	}
	return s.tool(ctx, info.Kubectl, stdin, args...)
}

// Lethe runs kubectl-lethe, as `kubectl lethe` does.
func (s *Stage) Lethe(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.tool(ctx, s.Path("bin", "kubectl-lethe"), stdin, args...)
}

// Helm runs the helm of hack/tools.
func (s *Stage) Helm(ctx context.Context, args ...string) (string, error) {
	b, err := os.ReadFile(s.Path("helm-path"))
	if err != nil {
		return "", fmt.Errorf("find helm: %w", err)
	}
	return s.tool(ctx, string(b), "", args...)
}

func (s *Stage) tool(ctx context.Context, program, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := s.command(ctx, program, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := s.run(cmd)
	if err != nil {
		return string(out), fmt.Errorf("%s: %w", strings.Join(firstWords(args), " "), err)
	}
	return string(out), nil
}

// firstWords are the command without its values.
func firstWords(args []string) []string {
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			return args[:i]
		}
	}
	return args
}
