// Package chart holds the Helm chart and the kustomize base against each other, against Pod Security and against a real
// kube-apiserver.
package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

var (
	root            = filepath.Join("..", "..")
	helm, kustomize string
	assets          string // folder of kube-apiserver and etcd
)

// needed are the values without defaults, as the kustomize base has them.
var needed = []string{
	"--set", "realm=test",
	"--set", "image.tag=dev",
	"--set", "kek.volume.persistentVolumeClaim.claimName=lethe-kek",
	"--set", "kek.volume.persistentVolumeClaim.readOnly=true",
}

func TestMain(m *testing.M) {
	paths, err := ask(filepath.Join("hack", "tools", "build.sh"), "helm", "kustomize")
	if err != nil || len(paths) != 2 {
		fmt.Fprintln(os.Stderr, "build helm and kustomize:", err)
		os.Exit(1)
	}
	helm, kustomize = paths[0], paths[1]
	if assets = os.Getenv("KUBEBUILDER_ASSETS"); assets == "" {
		paths, err := ask(filepath.Join("hack", "cluster", "cluster.sh"), "assets")
		if err != nil || len(paths) != 1 {
			fmt.Fprintln(os.Stderr, "build kube-apiserver and etcd:", err)
			os.Exit(1)
		}
		assets = paths[0]
	}
	os.Exit(m.Run())
}

// ask runs a script of this repository that prints paths.
func ask(script string, arguments ...string) ([]string, error) {
	command := exec.Command(filepath.Join(root, script), arguments...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	return strings.Fields(string(out)), err
}

// renderChart is what helm would install in the namespace.
func renderChart(namespace string, arguments ...string) ([]*unstructured.Unstructured, error) {
	command := exec.Command(helm, append([]string{"template", "lethe", filepath.Join(root, "charts", "lethe"), "--namespace", namespace}, arguments...)...)
	return render(command)
}

func renderBase() ([]*unstructured.Unstructured, error) {
	return render(exec.Command(kustomize, "build", filepath.Join(root, "config", "default")))
}

func renderGuard() ([]*unstructured.Unstructured, error) {
	return render(exec.Command(kustomize, "build", filepath.Join(root, "config", "guard")))
}

func render(command *exec.Cmd) ([]*unstructured.Unstructured, error) {
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		var u unstructured.Unstructured
		if err := decoder.Decode(&u.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			objects = append(objects, &u)
		}
	}
}

func key(u *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", u.GroupVersionKind().GroupKind(), u.GetNamespace(), u.GetName())
}
