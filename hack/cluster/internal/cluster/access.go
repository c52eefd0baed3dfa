package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/pki"
)

// certificates makes the keys and certificates that are missing.
func (c *Cluster) certificates() error {
	dir := c.path("pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := pki.Authorities(dir, "ca", "etcd-ca", "front-proxy-ca"); err != nil {
		return err
	}
	if err := pki.SigningKey(dir, "service-account"); err != nil {
		return err
	}
	_, api := c.serviceCIDR()
	here := []string{c.address(), "127.0.0.1", "localhost"}
	masters := []string{"system:masters"}
	leaves := []pki.Leaf{
		{File: "etcd-server", Authority: "etcd-ca", User: "etcd", Hosts: here},
		{File: "etcd-client", Authority: "etcd-ca", User: "kube-apiserver"},
		{File: "front-proxy-client", Authority: "front-proxy-ca", User: "front-proxy-client"},
		{File: "apiserver", Authority: "ca", User: "kube-apiserver", Hosts: append([]string{
			api, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain,
		}, here...)},
		{File: "apiserver-kubelet", Authority: "ca", User: "kube-apiserver-kubelet-client"},
		{File: "admin", Authority: "ca", User: "kubernetes-admin", Groups: masters},
		{File: "kube-controller-manager", Authority: "ca", User: "system:kube-controller-manager", Hosts: here},
		{File: "kube-scheduler", Authority: "ca", User: "system:kube-scheduler", Hosts: here},
		{File: "kubelet", Authority: "ca", User: "system:node:" + c.nodeName(), Groups: []string{"system:nodes"}},
		{File: "kubelet-server", Authority: "ca", User: "system:node:" + c.nodeName(), Hosts: append(here, c.nodeName())},
		{File: "kube-proxy", Authority: "ca", User: "system:kube-proxy"},
		{File: "kwok", Authority: "ca", User: "kwok", Groups: masters},
		{File: "provisioner", Authority: "ca", User: "volume-provisioner", Groups: masters},
		{File: "network-policies", Authority: "ca", User: "network-policies", Groups: masters},
	}
	for _, l := range leaves {
		if err := pki.Issue(dir, l); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfigs writes one file for the administrator and one for each part that takes one.
func (c *Cluster) kubeconfigs() error {
	if err := c.writeKubeconfig(c.Kubeconfig(), "admin"); err != nil {
		return err
	}
	for _, user := range []string{"kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kwok"} {
		if err := c.writeKubeconfig(c.path("kubeconfigs", user), user); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a file that holds all it refers to, so that it can be copied.
func (c *Cluster) writeKubeconfig(path, user string) error {
	var data [3][]byte
	for i, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		var err error
		if data[i], err = os.ReadFile(c.pki(file)); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	name := "lethe-" + c.Name
	return writeJSON(path, map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": name,
		"contexts":        []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": user}}},
		// A slice of bytes is written in base64, which is what the format wants.
		"clusters": []any{map[string]any{"name": name, "cluster": map[string]any{
			"server": c.url("kube-apiserver"), "certificate-authority-data": data[0],
		}}},
		"users": []any{map[string]any{"name": user, "user": map[string]any{
			"client-certificate-data": data[1], "client-key-data": data[2],
		}}},
	})
}

// auditPolicy writes the policy: the user's, or one that logs every request once, when it is done, without its body.
func (c *Cluster) auditPolicy() error {
	if !c.state.Spec.AuditLog {
		return nil
	}
	policy := []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n- level: Metadata\n")
	if file := c.state.Spec.AuditPolicy; file != "" {
		var err error
		if policy, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("read audit policy: %w", err)
		}
	}
	return cache.WriteFile(c.path("audit-policy.yaml"), policy, 0o644)
}

// httpClient trusts the named authority and, unless user is empty, shows that user's certificate.
func (c *Cluster) httpClient(authority, user string) (*http.Client, error) {
	ca, err := os.ReadFile(c.pki(authority + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("read authority: no certificate in it")
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if user != "" {
		cert, err := tls.LoadX509KeyPair(c.pki(user+".crt"), c.pki(user+".key"))
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}, nil
}

// probe fetches a page; anything but 200 is an error.
func probe(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 2048))
		return errors.Join(fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(body))), err)
	}
	return nil
}

// kubectl runs kubectl as the administrator with input, and returns what it prints.
func (c *Cluster) kubectl(ctx context.Context, input string, args ...string) ([]byte, error) {
	verb := args[0]
	args = append([]string{"--kubeconfig", c.Kubeconfig(), "--cache-dir", c.path("kubectl-cache"), "--request-timeout=30s"}, args...)
	cmd := exec.CommandContext(ctx, c.binary("kubectl"), args...)
	cmd.Stdin = strings.NewReader(input)
	c.tie(cmd)
	// Nothing of the user's own settings may steer it.
	cmd.Env = []string{"HOME=" + c.Dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("kubectl %s: %w: %s", verb, err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("kubectl: %w", err)
	}
	return out, nil
}

// apply applies objects as the administrator.
func (c *Cluster) apply(ctx context.Context, objects ...map[string]any) error {
	data, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		return fmt.Errorf("apply objects: %w", err)
	}
	_, err = c.kubectl(ctx, string(data), "apply", "--server-side", "--force-conflicts", "--field-manager=lethe-cluster", "-f", "-")
	return err
}

// relative shortens a path for a message.
func (c *Cluster) relative(path string) string {
	if home, err := os.UserHomeDir(); err == nil {
		if rel, err := filepath.Rel(home, path); err == nil && filepath.IsLocal(rel) {
			return "~/" + rel
		}
	}
	return path
}
