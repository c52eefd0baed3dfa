package chart

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var monitored = append(slices.Clone(needed), "--set", "monitoring.podMonitor.enabled=true", "--set", "monitoring.prometheusRule.enabled=true")

const podMonitor, prometheusRule = "PodMonitor.monitoring.coreos.com lethe-system/lethe", "PrometheusRule.monitoring.coreos.com lethe-system/lethe"

// TestMonitoringIsTheSame: the kinds of the Prometheus Operator are rendered where they are asked for, as
// config/monitoring has them.
func TestMonitoringIsTheSame(t *testing.T) {
	base := byKey(mustRender(render(exec.CommandContext(t.Context(), kustomize, "build", filepath.Join(root, "config", "monitoring"))))(t))
	if len(base) != 2 || base[podMonitor] == nil || base[prometheusRule] == nil {
		t.Fatalf("config/monitoring has %d objects", len(base))
	}
	chart := byKey(mustRender(renderChart("lethe-system", monitored...))(t))
	for k, o := range base {
		if chart[k] == nil {
			t.Errorf("%s is missing in the chart", k)
		} else if diff := cmp.Diff(o.Object, chart[k].Object); diff != "" {
			t.Errorf("%s differs (-kustomize +chart):\n%s", k, diff)
		}
	}
	for value, only := range map[string]string{"podMonitor": podMonitor, "prometheusRule": prometheusRule, "": ""} {
		values := slices.Clone(needed)
		if value != "" {
			values = append(values, "--set", "monitoring."+value+".enabled=true")
		}
		for k := range byKey(mustRender(renderChart("lethe-system", values...))(t)) {
			if strings.Contains(k, "monitoring.coreos.com") && k != only {
				t.Errorf("with %q there is %s: a cluster may not have the kind", value, k)
			}
		}
	}
	changed := byKey(mustRender(renderChart("elsewhere", append(slices.Clone(monitored), "--set", "monitoring.labels.release=kps", "--set", "monitoring.podMonitor.interval=15s")...))(t))
	for _, kind := range []string{"PodMonitor", "PrometheusRule"} {
		o := changed[kind+".monitoring.coreos.com elsewhere/lethe"]
		if o == nil || o.GetLabels()["release"] != "kps" || o.GetLabels()["app.kubernetes.io/name"] != "lethe" {
			t.Errorf("%s in another namespace with a label: %v", kind, o)
		}
	}
	endpoints, _, err := unstructured.NestedSlice(changed["PodMonitor.monitoring.coreos.com elsewhere/lethe"].Object, "spec", "podMetricsEndpoints")
	if err != nil || endpoints[0].(map[string]any)["interval"] != "15s" {
		t.Errorf("scraped every %v, %v", endpoints, err)
	}
	for _, wrong := range []string{"monitoring.podMonitor.interval=10m", "monitoring.podMonitor.interval=often", "monitoring.alerts=true"} {
		if _, err := renderChart("lethe-system", append(slices.Clone(monitored), "--set", wrong)...); err == nil || !strings.Contains(err.Error(), "monitoring") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// TestMonitoringReachesThePods: what the PodMonitor selects are the pods of both programs, they have the port, and
// their walls let the namespace of the monitoring in there and nowhere else.
func TestMonitoringReachesThePods(t *testing.T) {
	for _, namespace := range []string{"monitoring", "observability"} {
		objects := byKey(mustRender(renderChart("lethe-system", append(slices.Clone(monitored), "--set", "networkPolicy.metricsNamespace="+namespace)...))(t))
		var monitor struct {
			Spec struct {
				Selector  metav1.LabelSelector
				Endpoints []struct {
					Port        string
					HonorLabels bool
				} `json:"podMetricsEndpoints"`
			}
		}
		text, err := objects[podMonitor].MarshalJSON()
		if err == nil {
			err = yaml.Unmarshal(text, &monitor)
		}
		if err != nil || len(monitor.Spec.Endpoints) != 1 || !monitor.Spec.Endpoints[0].HonorLabels {
			t.Fatalf("%+v, %v: the labels of our metrics must stay what they are", monitor, err)
		}
		selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		selected := 0
		for k, o := range objects {
			if o.GetKind() != "Deployment" && o.GetKind() != "Job" {
				continue
			}
			pod := podOf(t, o)
			if !selector.Matches(labels.Set(pod.Labels)) {
				if o.GetKind() == "Deployment" {
					t.Errorf("%s is not scraped", k)
				}
				continue
			}
			selected++
			port := monitor.Spec.Endpoints[0].Port
			has := false
			for _, p := range pod.Spec.Containers[0].Ports {
				has = has || p.Name == port
			}
			if !has {
				t.Errorf("%s has no port %s", k, port)
			}
			if got := sourcesOf(t, objects, pod.Labels, port); !slices.Equal(got, []string{namespace}) {
				t.Errorf("%s lets %v in at %s, want %s", k, got, port, namespace)
			}
		}
		if selected != 2 {
			t.Errorf("%d pods are scraped, want those of the manager and the keyserver", selected)
		}
	}
}

// sourcesOf are the namespaces by name that reach a port of pods.
func sourcesOf(t *testing.T, objects map[string]*unstructured.Unstructured, pod map[string]string, port string) []string {
	t.Helper()
	var names []string
	for _, o := range objects {
		if o.GetKind() != "NetworkPolicy" {
			continue
		}
		var policy networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &policy); err != nil {
			t.Fatal(err)
		}
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(labels.Set(pod)) {
			continue
		}
		for _, ingress := range policy.Spec.Ingress {
			for _, p := range ingress.Ports {
				if p.Port == nil || p.Port.String() != port {
					continue
				}
				for _, from := range ingress.From {
					if from.NamespaceSelector == nil {
						t.Errorf("%s lets everybody in at %s", o.GetName(), port)
						continue
					}
					names = append(names, from.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"])
				}
			}
		}
	}
	return names
}

// TestChartLints with and without what is off by default.
func TestChartLints(t *testing.T) {
	for _, values := range [][]string{needed, monitored} {
		arguments := append([]string{"lint", "--strict", filepath.Join(root, "charts", "lethe")}, values...)
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), helm, arguments...).CombinedOutput(); err != nil {
			t.Errorf("helm lint: %v\n%s", err, out)
		}
	}
}
