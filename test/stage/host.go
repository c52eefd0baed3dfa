package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/ports"
)

// Host is the manager and the keyserver as processes of this machine, each with a token of its own ServiceAccount: what
// they may do is what their roles say, as in a pod. It is for clusters whose nodes only pretend.
type Host struct {
	ManagerPID, KeyserverPID int
	// ManagerMetrics and KeyserverMetrics are URLs.
	ManagerMetrics, KeyserverMetrics string
}

// hostImage is what pods that only pretend say that they run.
const hostImage = "lethe:demo"

const (
	managerProcess   = "manager"
	keyserverProcess = "keyserver"
)

// BuildOnHost builds the two programs.
func (s *Stage) BuildOnHost(ctx context.Context) error {
	for name, pkg := range map[string]string{managerProcess: ".", keyserverProcess: "./cmd/keyserver"} {
		cmd := s.command(ctx, "go", "build", "-trimpath", "-o", s.Path("bin", name), pkg)
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOFLAGS=")
		if _, err := s.run(cmd); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	return nil
}

// InstallOnHost installs the chart without pods and starts the two programs on this machine. managerArgs are added to
// the manager's.
func (s *Stage) InstallOnHost(ctx context.Context, managerArgs ...string) (*Host, error) {
	if err := os.MkdirAll(s.Path("kek"), 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the key-encryption key: %w", err)
	}
	if _, err := os.Stat(s.KEKFile()); err != nil {
		if _, err := s.Lethe(ctx, "", "keys", "generate-kek", s.KEKFile()); err != nil {
			return nil, err
		}
	}
	if _, err := s.Helm(ctx, "upgrade", "--install", Release, "charts/lethe", "--namespace", SystemNamespace, "--create-namespace", "--timeout", "3m",
		"--set", "realm="+s.Realm, "--set", "image.repository=lethe", "--set", "image.tag=demo", "--set", "manager.replicas=0", "--set", "keyserver.replicas=0",
		"--set", "kek.volume.persistentVolumeClaim.claimName="+kekClaim); err != nil {
		return nil, fmt.Errorf("install the chart: %w", err)
	}
	return s.StartOnHost(ctx, managerArgs...)
}

// StartOnHost starts the two programs, ending those of an earlier start.
func (s *Stage) StartOnHost(ctx context.Context, managerArgs ...string) (*Host, error) {
	if err := s.StopOnHost(ctx); err != nil {
		return nil, err
	}
	h := &Host{}
	var err error
	if h.KeyserverPID, h.KeyserverMetrics, err = s.startKeyserver(ctx); err != nil {
		return nil, err
	}
	if h.ManagerPID, h.ManagerMetrics, err = s.StartManager(ctx, managerArgs...); err != nil {
		return nil, err
	}
	return h, nil
}

// StopOnHost ends both.
func (s *Stage) StopOnHost(ctx context.Context) error {
	return errors.Join(s.stopProcess(ctx, managerProcess), s.stopProcess(ctx, keyserverProcess))
}

// StopManager ends the manager alone.
func (s *Stage) StopManager(ctx context.Context) error { return s.stopProcess(ctx, managerProcess) }

func (s *Stage) startKeyserver(ctx context.Context) (pid int, metrics string, err error) {
	kubeconfig, err := s.serviceAccountKubeconfig(ctx, "lethe-keyserver")
	if err != nil {
		return 0, "", err
	}
	free, err := ports.Free("127.0.0.1", 3)
	if err != nil {
		return 0, "", err
	}
	// Kept, since bots' pods have the URL in their templates: another one would be another revision of each of them.
	if b, err := os.ReadFile(s.Path("keyserver-url")); err == nil {
		_, port, _ := net.SplitHostPort(string(b)[len("https://"):])
		if n, err := strconv.Atoi(port); err == nil {
			free[0] = n
		}
	}
	url := "https://" + loopback(free[0])
	if err := os.WriteFile(s.Path("keyserver-url"), []byte(url), 0o600); err != nil {
		return 0, "", fmt.Errorf("note the keyserver's address: %w", err)
	}
	err = s.startDetached(keyserverProcess, []string{"KUBECONFIG=" + kubeconfig}, s.Path("bin", keyserverProcess),
		"--image", hostImage, "--keyserver-url", url, "--realm", s.Realm, "--kek-file", s.KEKFile(), "--listen", loopback(free[0]),
		"--metrics-bind-address", loopback(free[1]), "--health-probe-bind-address", loopback(free[2]))
	if err != nil {
		return 0, "", err
	}
	return s.awaitProcess(ctx, keyserverProcess, free[1], free[2])
}

// StartManager starts the manager alone, beside a keyserver that runs.
func (s *Stage) StartManager(ctx context.Context, more ...string) (pid int, metrics string, err error) {
	url, err := os.ReadFile(s.Path("keyserver-url"))
	if err != nil {
		return 0, "", fmt.Errorf("find the keyserver: %w", err)
	}
	kubeconfig, err := s.serviceAccountKubeconfig(ctx, "lethe-manager")
	if err != nil {
		return 0, "", err
	}
	token, err := s.serviceAccountToken(ctx, "lethe-manager", v1alpha1.AudienceKeyserver)
	if err != nil {
		return 0, "", err
	}
	tokenFile := s.Path("secrets", "manager-keyserver-token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return 0, "", fmt.Errorf("write the manager's token: %w", err)
	}
	free, err := ports.Free("127.0.0.1", 2)
	if err != nil {
		return 0, "", err
	}
	err = s.startDetached(managerProcess, []string{"KUBECONFIG=" + kubeconfig}, s.Path("bin", managerProcess), append([]string{
		"--image", hostImage, "--keyserver-url", string(url), "--token-file", tokenFile, "--leader-elect=false",
		"--metrics-bind-address", loopback(free[0]), "--health-probe-bind-address", loopback(free[1])}, more...)...)
	if err != nil {
		return 0, "", err
	}
	return s.awaitProcess(ctx, managerProcess, free[0], free[1])
}

// awaitProcess waits until a program says that it is ready.
func (s *Stage) awaitProcess(ctx context.Context, name string, metrics, health int) (int, string, error) {
	var pid int
	err := Until(ctx, time.Minute, "start the "+name, func(ctx context.Context) (string, error) {
		var err error
		if pid, err = s.running(name); err != nil || pid == 0 {
			return "", Stop(errors.Join(errors.New("it ended; its log is "+s.Path("logs", name+".log")), err))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(health)+"/readyz", nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Sprintf("/readyz answers %d", resp.StatusCode), resp.Body.Close()
		}
		return "", resp.Body.Close()
	})
	return pid, "http://" + loopback(metrics) + "/metrics", err
}

// serviceAccountKubeconfig writes a kubeconfig that knows nothing but a ServiceAccount's token.
func (s *Stage) serviceAccountKubeconfig(ctx context.Context, name string) (string, error) {
	token, err := s.serviceAccountToken(ctx, name)
	if err != nil {
		return "", err
	}
	admin, err := clientcmd.LoadFromFile(s.Kubeconfig())
	if err != nil {
		return "", fmt.Errorf("read the stage's kubeconfig: %w", err)
	}
	current := admin.Contexts[admin.CurrentContext]
	cfg := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": admin.Clusters[current.Cluster]},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: "c", AuthInfo: name, Namespace: SystemNamespace}},
		CurrentContext: name,
	}
	path := s.Path("secrets", name+".kubeconfig")
	if err := clientcmd.WriteToFile(cfg, path); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return path, nil
}

func (s *Stage) serviceAccountToken(ctx context.Context, name string, audiences ...string) (string, error) {
	c, err := s.Client()
	if err != nil {
		return "", err
	}
	day := int64(24 * 60 * 60)
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &day}}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: name}}
	if err := c.SubResource("token").Create(ctx, sa, req); err != nil {
		return "", fmt.Errorf("ask for a token of %s: %w", name, err)
	}
	return req.Status.Token, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
