package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// auditPolicy keeps every write of anybody, and the reads of Lethe. Leases and the events of others are left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    resources: [{group: coordination.k8s.io, resources: [leases]}]
  - level: Metadata
    users: ["` + managerUser + `", "` + keysUser + `"]
    verbs: [create, update, patch, delete, deletecollection, get, list]
  - level: None
    resources: [{group: events.k8s.io}, {group: "", resources: [events]}]
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
`

// cluster is a cluster of hack/cluster.
type cluster struct {
	Kubeconfig string         `json:"kubeconfig"`
	AuditLog   string         `json:"auditLog"`
	Pids       map[string]int `json:"pids"`
}

// bringUp makes a cluster with a name of its own, which close takes down.
func (b *bench) bringUp(ctx context.Context) (*cluster, error) {
	policy := filepath.Join(b.work, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("write the audit policy: %w", err)
	}
	name := fmt.Sprintf("scale-%d", os.Getpid())
	script := filepath.Join(b.root, "hack", "cluster", "cluster.sh")
	call := func(ctx context.Context, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, script, args...)
		cmd.Stderr = os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = time.Minute
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("hack/cluster/cluster.sh %s: %w", strings.Join(args, " "), err)
		}
		return out, nil
	}
	b.undo = append(b.undo, func() error {
		b.step("taking the cluster down")
		_, err := call(context.Background(), "down", "--name", name)
		return err
	})
	if _, err := call(ctx, "up", "--name", name, "--mode", "simulated", "--nodes", "3", "--audit-log", "--audit-policy", policy); err != nil {
		return nil, err
	}
	out, err := call(ctx, "info", "--name", name, "-o", "json")
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	if err := json.Unmarshal(out, c); err != nil {
		return nil, fmt.Errorf("read what hack/cluster says: %w", err)
	}
	return c, nil
}

// config is a client's configuration without a limit of its own. An empty token is the administrator.
func (c *cluster) config(token, agent string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	if token != "" {
		config.CertFile, config.KeyFile, config.CertData, config.KeyData = "", "", nil, nil
		config.BearerToken = token
	}
	config.QPS, config.UserAgent = -1, agent
	return config, nil
}

// install applies what the chart would, apart from the workloads: those run on this machine.
func (b *bench) install(ctx context.Context) error {
	for _, name := range []string{systemNamespace, keysNamespace} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := b.admin.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
	}
	for _, folder := range []string{"crd/bases", "rbac", "admission", "finalizer"} {
		files, err := filepath.Glob(filepath.Join(b.root, "config", folder, "*.yaml"))
		if err != nil {
			return fmt.Errorf("find the manifests: %w", err)
		}
		for _, file := range append(files, priorityClasses(b.root, folder)...) {
			if filepath.Base(file) == "kustomization.yaml" {
				continue
			}
			if err := b.applyFile(ctx, file); err != nil {
				return err
			}
		}
	}
	return waitFor(ctx, "the kinds", time.Minute, 200*time.Millisecond, b.kindsEstablished)
}

// priorityClasses are applied with the roles.
func priorityClasses(root, folder string) []string {
	if folder != "rbac" {
		return nil
	}
	return []string{filepath.Join(root, "config", "manager", "priorityclasses.yaml")}
}

func (b *bench) applyFile(ctx context.Context, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read a manifest: %w", err)
	}
	for _, doc := range bytes.Split(append([]byte("\n"), content...), []byte("\n---")) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &o.Object); err != nil {
			return fmt.Errorf("parse %s: %w", file, err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if err := b.admin.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func (b *bench) kindsEstablished(ctx context.Context) (bool, string, error) {
	config, err := b.cluster.config("", "lethe-bench-admin")
	if err != nil {
		return false, "", err
	}
	if err := apiextensionsv1.AddToScheme(b.scheme); err != nil {
		return false, "", fmt.Errorf("register kinds: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: b.scheme})
	if err != nil {
		return false, "", fmt.Errorf("reach the cluster: %w", err)
	}
	var list apiextensionsv1.CustomResourceDefinitionList
	if err := c.List(ctx, &list); err != nil {
		return false, "", fmt.Errorf("list the kinds: %w", err)
	}
	for i := range list.Items {
		established := false
		for _, cond := range list.Items[i].Status.Conditions {
			established = established || (cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue)
		}
		if !established {
			return false, list.Items[i].Name + " is not established", nil
		}
	}
	if len(list.Items) == 0 {
		return false, "", errors.New("no kinds are installed")
	}
	b.admin = c
	return true, "", nil
}
