package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var overlay = regexp.MustCompile("(?s)```yaml\n# kustomize: ([^\n]+)\n(.*?)```")

// TestOverlaysAreTheChartsValues builds each overlay of docs/platforms.md on config/default and holds it, object by
// object, against what the chart renders with the values that its first line names.
func TestOverlaysAreTheChartsValues(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "platforms.md"))
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Abs(filepath.Join(root, "config", "default"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, block := range overlay.FindAllStringSubmatch(string(page), -1) {
		values := slices.Clone(needed)
		for _, value := range strings.Fields(block[1]) {
			name, _, _ := strings.Cut(value, "=")
			set[name] = true
			if name == "kek.volume" {
				values = slices.DeleteFunc(values, func(s string) bool { return strings.HasPrefix(s, "kek.volume") })
				values = slices.DeleteFunc(values, func(s string) bool { return s == "--set" })
				for i := range values {
					values[i] = "--set=" + values[i]
				}
			}
			values = append(values, "--set-json", value)
		}
		folder := t.TempDir()
		relative, err := filepath.Rel(folder, base)
		if err != nil {
			t.Fatal(err)
		}
		text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [" + relative + "]\n" + block[2]
		if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		built := byKey(append(mustRender(render(exec.Command(kustomize, "build", folder)))(t), mustRender(renderGuard())(t)...))
		chart := byKey(mustRender(renderChart("lethe-system", values...))(t))
		if len(built) < 60 {
			t.Fatalf("%d objects only", len(built))
		}
		for name, o := range built {
			other, ok := chart[name]
			if !ok && name != "Namespace /lethe-system" {
				t.Errorf("%s: the chart has no %s", block[1], name)
			}
			if ok {
				if diff := cmp.Diff(sorted(other), sorted(o)); diff != "" {
					t.Errorf("%s: %s differs (-chart +kustomize):\n%s", block[1], name, diff)
				}
			}
		}
		for name := range chart {
			if _, ok := built[name]; !ok && name != "Job.batch lethe-system/lethe-check-uninstall" {
				t.Errorf("%s: the overlay has no %s", block[1], name)
			}
		}
	}
	for _, name := range []string{"image.pullSecrets", "pods.botAnnotations", "dns.namespace", "dns.podLabels", "dns.ports", "dns.blocks", "networkPolicy.apiServerPorts", "networkPolicy.apiServerBlocks",
		"networkPolicy.closedAddresses", "networkPolicy.metricsNamespace", "kek.volume", "keyserver.serviceAccount.annotations", "keyserver.podLabels"} {
		if !set[name] {
			t.Errorf("no overlay shows %s", name)
		}
	}
}

// sorted is an object as normalise has it, whatever the order of its containers' arguments.
func sorted(u *unstructured.Unstructured) map[string]any {
	o := normalise(u)
	containers, found, err := unstructured.NestedSlice(o, "spec", "template", "spec", "containers")
	if err != nil || !found {
		return o
	}
	for _, c := range containers {
		if args, ok := c.(map[string]any)["args"].([]any); ok {
			slices.SortFunc(args, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	}
	if err := unstructured.SetNestedSlice(o, containers, "spec", "template", "spec", "containers"); err != nil {
		return nil
	}
	return o
}
