package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	psaapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func lint(arguments ...string) (string, error) {
	out, err := exec.Command(helm, append([]string{"lint", filepath.Join(root, "charts", "lethe"), "--strict"}, arguments...)...).CombinedOutput()
	return string(out), err
}

func ciValues(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "charts", "lethe", "ci", "*-values.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files of values for chart-testing: %v", len(files), err)
	}
	return files
}

// TestLintIsClean: as it is and with each set of values for chart-testing, warnings being failures.
func TestLintIsClean(t *testing.T) {
	for _, values := range append([]string{""}, ciValues(t)...) {
		var arguments []string
		if values != "" {
			arguments = []string{"--values", values}
		}
		if out, err := lint(arguments...); err != nil || strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
			t.Errorf("helm lint %s: %v\n%s", filepath.Base(values), err, out)
		}
	}
}

// TestChartTestingValuesRender: with each, Lethe's own pods are restricted.
func TestChartTestingValuesRender(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
	for _, values := range ciValues(t) {
		seen := 0
		for _, o := range mustRender(renderChart("lethe-system", "--values", values))(t) {
			if o.GetKind() != "Deployment" && o.GetKind() != "Job" {
				continue
			}
			seen++
			pod := podOf(t, o)
			for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s: %s", filepath.Base(values), key(o), result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
		}
		if seen != 3 {
			t.Errorf("%s: %d pod templates, want 3", filepath.Base(values), seen)
		}
	}
}

// The objects that most values are for.
const (
	theManager, theKeyserver, theJob = "Deployment.apps lethe-system/lethe-manager", "Deployment.apps lethe-system/lethe-keyserver", "Job.batch lethe-system/lethe-check-uninstall"
	managerAccount, keyserverAccount = "ServiceAccount lethe-system/lethe-manager", "ServiceAccount lethe-system/lethe-keyserver"
	policies                         = "NetworkPolicy.networking.k8s.io lethe-system/"
)

// placed are values of other clusters, and what is then in the objects that they are for.
var placed = map[string]map[string][]string{
	`image.pullSecrets=[{"name":"regcred"},{"name":"other"}]`: {
		theManager: {`"imagePullSecrets":[{"name":"regcred"},{"name":"other"}]`, "--image-pull-secrets=regcred,other"}, theKeyserver: {`"imagePullSecrets":[{"name":"regcred"},{"name":"other"}]`, "--image-pull-secrets=regcred,other"},
		theJob: {`"imagePullSecrets":[{"name":"regcred"},{"name":"other"}]`}},
	`pods.botAnnotations=["example.com/*","a"]`: {theManager: {"--bot-annotations=example.com/*,a"}, theKeyserver: {"--bot-annotations=example.com/*,a"},
		"ValidatingAdmissionPolicy.admissionregistration.k8s.io /lethe-manager-objects": {`"expression":"[\"example.com/*\",\"a\"]"`}},
	`pods.annotations=["example.org/*"]`: {theManager: {"--pod-annotations=example.org/*"}, theKeyserver: {"--pod-annotations=example.org/*"},
		"ValidatingAdmissionPolicy.admissionregistration.k8s.io /lethe-manager-objects": {`"expression":"[\"example.org/*\"]"`}},
	`manager.logLevel=4`:                             {theManager: {"--v=4"}},
	`keyserver.logLevel=1`:                           {theKeyserver: {"--v=1"}},
	`manager.serviceAccount.annotations={"a":"b"}`:   {managerAccount: {`"annotations":{"a":"b"}`}},
	`keyserver.serviceAccount.annotations={"a":"b"}`: {keyserverAccount: {`"annotations":{"a":"b"}`}},
	`manager.podLabels={"a":"b"}`:                    {theManager: {`"labels":{"a":"b","app.kubernetes.io/component":"manager"`}},
	`keyserver.podLabels={"a/use":"true"}`:           {theKeyserver: {`"labels":{"a/use":"true","app.kubernetes.io/component":"keyserver"`}},
	`manager.podAnnotations={"a":"b"}`:               {theManager: {`"annotations":{"a":"b"}`}},
	`keyserver.podAnnotations={"a":"b"}`:             {theKeyserver: {`"annotations":{"a":"b"}`}},
	`affinity={"podAffinity":{}}`:                    {theManager: {`"affinity":{"podAffinity":{}}`}, theKeyserver: {`"affinity":{"podAffinity":{}}`}, theJob: {`"affinity":{"podAffinity":{}}`}},
	`topologySpread=[{"topologyKey":"zone"}]`:        {theManager: {`"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway"`}, theKeyserver: {`"topologyKey":"zone"`}},
	`priorityClassName="other"`:                      {theManager: {`"priorityClassName":"other"`}, theKeyserver: {`"priorityClassName":"other"`}},
	`runtimeClassName="gvisor"`:                      {theManager: {`"runtimeClassName":"gvisor"`}, theKeyserver: {`"runtimeClassName":"gvisor"`}, theJob: {`"runtimeClassName":"gvisor"`}},
	`dns.ports=[5353]`:                               {theManager: {"--dns-ports=5353"}, theKeyserver: {"--dns-ports=5353"}, policies + "lethe-manager": {`{"port":5353,"protocol":"UDP"},{"port":5353,"protocol":"TCP"}`}},
	`dns.blocks=["169.254.20.10/32"]`:                {theManager: {"--dns-blocks=169.254.20.10/32"}, theKeyserver: {"--dns-blocks=169.254.20.10/32"}, policies + "lethe-manager": {`{"ipBlock":{"cidr":"169.254.20.10/32"}}`}},
	`dns.namespace="openshift-dns"`:                  {"Role.rbac.authorization.k8s.io openshift-dns/lethe-manager-dns": {"endpointslices"}, "RoleBinding.rbac.authorization.k8s.io openshift-dns/lethe-manager-dns": {`"namespace":"lethe-system"`}},
	`networkPolicy.apiServerBlocks=["10.0.0.0/24"]`:  {policies + "lethe-api-server": {`"to":[{"ipBlock":{"cidr":"10.0.0.0/24"}}]`}},
}

// TestEveryValueOfOtherClustersDoesSomething sets one after the other, and looks for it in the object that it is for.
func TestEveryValueOfOtherClustersDoesSomething(t *testing.T) {
	for set, want := range placed {
		objects := byKey(mustRender(renderChart("lethe-system", append(slices.Clone(needed), "--set-json", set)...))(t))
		for name, texts := range want {
			if objects[name] == nil {
				t.Errorf("%s: there is no %s", set, name)
				continue
			}
			encoded, err := json.Marshal(objects[name].Object)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range texts {
				if !strings.Contains(strings.NewReplacer(`\u003e`, ">", `\u0026`, "&", `\u003c`, "<").Replace(string(encoded)), text) {
					t.Errorf("%s: %s does not have %s", set, name, text)
				}
			}
		}
	}
	without := byKey(mustRender(renderChart("lethe-system", append(slices.Clone(needed), "--set", "rbac.aggregate=false")...))(t))
	if without["ClusterRole.rbac.authorization.k8s.io /lethe-aggregate-to-view"] != nil {
		t.Error("rbac.aggregate=false leaves the roles there")
	}
}

// TestWrongValuesOfOtherClusters: what opens more than it says, or takes Lethe's labels away, is refused by name.
func TestWrongValuesOfOtherClusters(t *testing.T) {
	for set, want := range map[string]string{
		`image.pullSecrets=["regcred"]`:                           "/image/pullSecrets/0",
		`image.repository="https://registry.example/lethe"`:       "/image/repository",
		`image.repository="registry.example/Lethe"`:               "/image/repository",
		`image.repository="registry.example/lethe:v1"`:            "/image/repository",
		`image.tag="-v1"`:                                         "/image/tag",
		`image.retired=["docker://lethe:v1"]`:                     "/image/retired/0",
		`image.pullSecrets=[{"name":"A"}]`:                        "/image/pullSecrets/0/name",
		`dns.ports=[]`:                                            "/dns/ports",
		`dns.blocks=["169.254.20.10"]`:                            "/dns/blocks/0",
		`manager.podLabels={"app.kubernetes.io/name":"x"}`:        "/manager/podLabels",
		`keyserver.podLabels={"lethe.dev/api-client":"false"}`:    "/keyserver/podLabels",
		`pods.botAnnotations=["*"]`:                               "/pods/botAnnotations/0",
		`pods.botAnnotations=["io.kubernetes.cri-o*"]`:            "/pods/botAnnotations/0",
		`topologySpread=[{"topologyKey":"a","labelSelector":{}}]`: "labelSelector",
		`manager.logLevel=9`:                                      "/manager/logLevel",
		`networkPolicy.apiServerBlocks=["x"]`:                     "/networkPolicy/apiServerBlocks/0",
		`priorityClassName=""`:                                    "/priorityClassName",
	} {
		values := slices.Clone(needed)
		if i := slices.Index(values, "image.tag=dev"); strings.HasPrefix(set, "image.tag=") {
			values[i] = "manager.workers=10" // --set would win over it
		}
		if _, err := renderChart("lethe-system", append(values, "--set-json", set)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", set, err, want)
		}
	}
}

// TestKubernetesOwnRoles: view reads bots and stores, edit writes bots, and nothing is written of what deletes rows
// or is the platform's.
func TestKubernetesOwnRoles(t *testing.T) {
	objects := byKey(mustRender(renderChart("lethe-system", needed...))(t))
	verbs := map[string][]string{}
	for _, to := range []string{"view", "edit"} {
		o := objects["ClusterRole.rbac.authorization.k8s.io /lethe-aggregate-to-"+to]
		if o == nil || o.GetLabels()["rbac.authorization.k8s.io/aggregate-to-"+to] != "true" {
			t.Fatalf("nothing is added to %s", to)
		}
		var role rbacv1.ClusterRole
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				verbs[resource] = append(verbs[resource], rule.Verbs...)
			}
		}
	}
	want := map[string][]string{"botdeployments": {"get", "list", "watch", "create", "update", "patch", "delete"}, "datastores": {"get", "list", "watch"}}
	if fmt.Sprint(verbs) != fmt.Sprint(want) {
		t.Errorf("view and edit may %v, want %v", verbs, want)
	}
}

var platform = regexp.MustCompile("(?s)```yaml\n# values: ([a-z0-9]+)\n(.*?)```")

// yours are values that whoever installs it chooses: no platform says them.
var yours = []string{"realm", "repository", "tag", "source", "secretName", "replicas", "metricsNamespace", "acceptEvaluationGrade"}

// TestPlatformsAreRendered holds docs/platforms.md: each block renders and is clean, each line says where it comes
// from, each source is listed and used, and what it says of DNS is what the manager is told.
func TestPlatformsAreRendered(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "docs", "platforms.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, sources, found := strings.Cut(string(content), "\n## Sources\n")
	if !found {
		t.Fatal("no sources")
	}
	listed := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^(\d+)\. https://\S+$`).FindAllStringSubmatch(sources, -1) {
		listed[match[1]] = false
	}
	ports := regexp.MustCompile(`[pP]orts(: |=)\[[\d, ]+\]`)
	for _, match := range regexp.MustCompile(`\[(\d+)\]`).FindAllStringSubmatch(ports.ReplaceAllString(page, ""), -1) {
		if _, ok := listed[match[1]]; !ok {
			t.Errorf("source %s is not listed", match[1])
		}
		listed[match[1]] = true
	}
	for source, used := range listed {
		if !used {
			t.Errorf("source %s is used by nothing", source)
		}
	}
	wanted := []string{"aks", "eks", "gke", "k3s", "kind", "openshift"}
	var seen []string
	for _, block := range platform.FindAllStringSubmatch(page, -1) {
		name, values := block[1], block[2]
		seen = append(seen, name)
		for line := range strings.Lines(values) {
			text, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
			field, value, scalar := strings.Cut(strings.TrimPrefix(text, "- "), ":")
			if (scalar && strings.TrimSpace(value) == "") || slices.Contains(yours, field) {
				continue
			}
			if !strings.Contains(comment, "tried") && !regexp.MustCompile(`\[\d+\]`).MatchString(comment) {
				t.Errorf("%s: %q does not say where it comes from", name, text)
			}
		}
		file := filepath.Join(t.TempDir(), name+"-values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := lint("--values", file); err != nil {
			t.Errorf("helm lint of %s: %v\n%s", name, err, out)
		}
		objects := byKey(mustRender(renderChart("lethe-system", "--values", file))(t))
		opened := dnsOf(t, objects["NetworkPolicy.networking.k8s.io lethe-system/lethe-manager"])
		for part, want := range map[string]string{"openshift": "openshift-dns dns.operator.openshift.io/daemonset-dns=default [5353]",
			"gke": "kube-system k8s-app=kube-dns 169.254.20.10/32 169.254.169.254/32 [53]", "kind": "kube-system k8s-app=kube-dns [53]"} {
			if part == name && opened != want {
				t.Errorf("%s opens %s for DNS, want %s", name, opened, want)
			}
		}
	}
	slices.Sort(seen)
	if !slices.Equal(seen, wanted) {
		t.Errorf("the page has values for %v, want %v", seen, wanted)
	}
}

// dnsOf is what the last rule of the manager's policy opens.
func dnsOf(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	var p networkingv1.NetworkPolicy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p); err != nil {
		t.Fatal(err)
	}
	rule := p.Spec.Egress[len(p.Spec.Egress)-1]
	var parts []string
	for _, to := range rule.To {
		if to.IPBlock != nil {
			parts = append(parts, to.IPBlock.CIDR)
			continue
		}
		parts = append(parts, to.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"], labels.Set(to.PodSelector.MatchLabels).String())
	}
	var ports []int32
	for _, port := range rule.Ports {
		if !slices.Contains(ports, port.Port.IntVal) {
			ports = append(ports, port.Port.IntVal)
		}
	}
	return strings.Join(parts, " ") + " " + fmt.Sprint(ports)
}

// TestTheManagerGivesBotsWhatIsAllowed: with the chart's pods.botAnnotations the manager may put these on a bot's
// template, and no other, nor on
// anything but a bot's.
func TestTheManagerGivesBotsWhatIsAllowed(t *testing.T) {
	c, kubeconfig := installed(t, "--set-json", `pods.botAnnotations=["example.com/*","cluster-autoscaler.kubernetes.io/safe-to-evict"]`)
	if t.Failed() {
		return
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "acme", Labels: map[string]string{"lethe.dev/tenant": "acme"}}}); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:lethe-system:lethe-manager", Groups: []string{"system:masters"}}
	manager, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	try := func(annotation string, job bool) error {
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"lethe.dev/bot": "b"}, Annotations: map[string]string{annotation: "x"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}}
		if job {
			template.Spec.RestartPolicy = corev1.RestartPolicyNever
			return manager.Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "s"}, Spec: batchv1.JobSpec{Template: template}}, client.DryRunAll)
		}
		return manager.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "b-bot"}, Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template}}, client.DryRunAll)
	}
	eventually(t, func() bool { return apierrors.IsForbidden(try("example.org/team", false)) }, "an annotation that is not allowed passes")
	for annotation, job := range map[string]bool{"example.com/team": false, "cluster-autoscaler.kubernetes.io/safe-to-evict": false, "lethe.dev/owner-uid": true} {
		if err := try(annotation, job); err != nil {
			t.Errorf("%s: %v", annotation, err)
		}
	}
	for annotation, job := range map[string]bool{"cluster-autoscaler.kubernetes.io/other": false, "k8s.v1.cni.cncf.io/networks": false, "example.com/team": true} {
		if err := try(annotation, job); !apierrors.IsForbidden(err) {
			t.Errorf("%s (of a Job: %v): %v", annotation, job, err)
		}
	}
}
