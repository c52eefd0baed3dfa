package env

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// auditPolicy records who changed what, and nothing of the contents.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
`

// assetsFolder finds kube-apiserver, etcd and kubectl.
func assetsFolder(ctx context.Context, root string) (string, error) {
	if folder := os.Getenv("KUBEBUILDER_ASSETS"); folder != "" {
		return folder, nil
	}
	command := exec.CommandContext(ctx, "go", "run", ".", "assets")
	command.Dir = filepath.Join(root, "hack", "cluster")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("KUBEBUILDER_ASSETS is unset, and building kube-apiserver and etcd did not work: go -C hack/cluster run . assets: %w", err)
	}
	return lastLine(string(out)), nil
}

// install makes the namespaces of Lethe and applies config/rbac, config/admission and config/flowcontrol as they are
// in the repository.
func (e *Env) install(ctx context.Context) error {
	for _, name := range []string{SystemNamespace, KeysNamespace} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := e.Client.Create(ctx, namespace); err != nil {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
	}
	for _, folder := range []string{"rbac", "admission", "flowcontrol"} {
		if err := e.applyFolder(ctx, filepath.Join(e.Root, "config", folder)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Env) applyFolder(ctx context.Context, folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the manifests: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() || filepath.Ext(entry.Name()) != ".yaml" || entry.Name() == "kustomization.yaml" {
			continue
		}
		if err := e.ApplyFile(ctx, filepath.Join(folder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ApplyFile creates every object of a file of YAML documents; those that are there already stay as they are.
func (e *Env) ApplyFile(ctx context.Context, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read a manifest: %w", err)
	}
	for document := range strings.SplitSeq("\n"+string(content), "\n---") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return fmt.Errorf("parse %s: %w", path, err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := e.Client.Create(ctx, object, client.FieldOwner("install")); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %s of %s: %w", object.GetKind(), object.GetName(), path, err)
		}
	}
	return nil
}
