package chart

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// serves is what helm is told of a cluster of Kubernetes 1.36 and newer, where it cannot ask it.
var serves = []string{"--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"}

// ofFinalizer are the objects of the kinds of config/finalizer.
func ofFinalizer(t *testing.T, arguments ...string) []string {
	t.Helper()
	var names []string
	for name := range byKey(mustRender(renderChart("lethe-system", arguments...))(t)) {
		if strings.HasPrefix(name, "MutatingAdmissionPolicy") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// TestTheFinalizerOfBotsIsTheSame: where the API server serves the kind the chart renders what config/finalizer has,
// and elsewhere nothing of it: an older one would refuse the whole release.
func TestTheFinalizerOfBotsIsTheSame(t *testing.T) {
	base := byKey(mustRender(render(exec.CommandContext(t.Context(), kustomize, "build", filepath.Join(root, "config", "finalizer"))))(t))
	if len(base) != 2 {
		t.Fatalf("config/finalizer has %d objects", len(base))
	}
	chart := byKey(mustRender(renderChart("lethe-system", slices.Concat(needed, serves)...))(t))
	for k, o := range base {
		if chart[k] == nil {
			t.Errorf("%s is missing in the chart", k)
		} else if diff := cmp.Diff(o.Object, chart[k].Object); diff != "" {
			t.Errorf("%s differs (-kustomize +chart):\n%s", k, diff)
		}
	}
	if got := ofFinalizer(t, slices.Concat(needed, serves)...); len(got) != len(base) {
		t.Errorf("the chart has %v", got)
	}
	for name, arguments := range map[string][]string{
		"helm is told nothing": needed,
		"an older server":      slices.Concat(needed, []string{"--api-versions", "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy"}),
		"nobody wants it":      slices.Concat(needed, serves, []string{"--set", "botFinalizer.install=false"}),
	} {
		if got := ofFinalizer(t, arguments...); len(got) > 0 {
			t.Errorf("%s, and the chart has %v", name, got)
		}
	}
}

// TestHelmAsksTheCluster: on a real API server helm finds by itself that the kind is served, and the server takes
// both objects as they are.
func TestHelmAsksTheCluster(t *testing.T) {
	_, kubeconfig := installed(t, serves...)
	if got := ofFinalizer(t, slices.Concat(needed, []string{"--validate", "--is-upgrade", "--kubeconfig", kubeconfig})...); len(got) != 2 {
		t.Errorf("helm finds %v", got)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "lethe-bot-finalizer"}, &admissionv1.MutatingAdmissionPolicy{}); err != nil {
		t.Error(err)
	}
}
