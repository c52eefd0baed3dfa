package chart

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	psaapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// TestChartAndKustomizeAreTheSame compares both object by object. What differs on purpose is said here and nowhere
// else.
func TestChartAndKustomizeAreTheSame(t *testing.T) {
	chart, base := byKey(mustRender(renderChart("lethe-system", needed...))(t)), byKey(append(mustRender(renderBase())(t), mustRender(renderGuard())(t)...))
	onlyInBase := []string{
		"Namespace /lethe-system", // Helm makes the release's namespace itself
	}
	onlyInChart := []string{
		"Job.batch lethe-system/lethe-check-uninstall", // a hook: kustomize has none
	}
	for k, o := range base {
		if slices.Contains(onlyInBase, k) {
			continue
		}
		other, ok := chart[k]
		if !ok {
			t.Errorf("%s is missing in the chart", k)
			continue
		}
		if diff := cmp.Diff(normalise(o), normalise(other)); diff != "" {
			t.Errorf("%s differs (-kustomize +chart):\n%s", k, diff)
		}
	}
	for k := range chart {
		if _, ok := base[k]; !ok && !slices.Contains(onlyInChart, k) {
			t.Errorf("%s is missing in config/default and config/guard", k)
		}
	}
}

// normalise leaves out what Helm alone knows (keep on uninstall), and the realm, which has no default.
func normalise(u *unstructured.Unstructured) map[string]any {
	u = u.DeepCopy()
	annotations := u.GetAnnotations()
	delete(annotations, "helm.sh/resource-policy")
	if len(annotations) == 0 {
		annotations = nil
	}
	u.SetAnnotations(annotations)
	if u.GetKind() == "ConfigMap" && u.GetName() == "lethe-realm" {
		unstructured.RemoveNestedField(u.Object, "data", "realm")
	}
	return u.Object
}

func TestChartFollowsTheReleasesNamespace(t *testing.T) {
	objects := mustRender(renderChart("elsewhere", append(needed, "--set", "keysNamespace=elsewhere-keys")...))(t)
	for _, o := range objects {
		content, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		rest := string(content)
		for _, name := range []string{ // not namespaces
			`"priorityClassName":"lethe-system"`, `"name":"lethe-system"`, "lethe-keyserver",
		} {
			if !strings.Contains(name, `"name"`) || o.GetKind() == "PriorityClass" {
				rest = strings.ReplaceAll(rest, name, "")
			}
		}
		for _, namespace := range []string{"lethe-system", "lethe-keys"} {
			if strings.Contains(rest, namespace) {
				t.Errorf("%s still speaks of %s", key(o), namespace)
			}
		}
	}
}

func TestWhatMustSurviveAnUninstall(t *testing.T) {
	for _, o := range mustRender(renderChart("lethe-system", needed...))(t) {
		kept := o.GetAnnotations()["helm.sh/resource-policy"] == "keep"
		precious := o.GetKind() == "CustomResourceDefinition" || o.GetKind() == "Namespace"
		if kept != precious {
			t.Errorf("%s: kept on uninstall: %v, want %v", key(o), kept, precious)
		}
	}
	job := byKey(mustRender(renderChart("lethe-system", needed...))(t))["Job.batch lethe-system/lethe-check-uninstall"]
	if job == nil || job.GetAnnotations()["helm.sh/hook"] != "pre-delete" {
		t.Error("no hook asks before an uninstall")
	}
}

// TestDrainsNeverBlockForEver: whatever is installed, and however few replicas there are, a node can be drained: each
// budget lets one pod go at any time, and a pod that is not ready without being counted.
func TestDrainsNeverBlockForEver(t *testing.T) {
	for name, objects := range map[string][]*unstructured.Unstructured{
		"kustomize":       mustRender(renderBase())(t),
		"chart":           mustRender(renderChart("lethe-system", needed...))(t),
		"one of each":     mustRender(renderChart("lethe-system", append([]string{"--set", "manager.replicas=1,keyserver.replicas=1"}, needed...)...))(t),
		"more than needs": mustRender(renderChart("lethe-system", append([]string{"--set", "manager.replicas=3,keyserver.replicas=5"}, needed...)...))(t),
	} {
		budgets := map[string]bool{}
		for _, o := range objects {
			if o.GetKind() != "PodDisruptionBudget" {
				continue
			}
			budget := &policyv1.PodDisruptionBudget{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, budget); err != nil {
				t.Fatal(err)
			}
			budgets[budget.Name] = true
			if p := budget.Spec.UnhealthyPodEvictionPolicy; p == nil || *p != policyv1.AlwaysAllow {
				t.Errorf("%s: a pod of %s that is not ready may keep its node", name, budget.Name)
			}
			if most := budget.Spec.MaxUnavailable; most == nil || most.IntValue() < 1 || budget.Spec.MinAvailable != nil {
				t.Errorf("%s: %s lets no pod go: %+v", name, budget.Name, budget.Spec)
			}
		}
		if !budgets["lethe-manager"] || !budgets["lethe-keyserver"] {
			t.Errorf("%s: there are budgets %v", name, budgets)
		}
	}
}

func TestChartRendersNoSecret(t *testing.T) {
	evaluation := []string{"--set", "realm=test", "--set", "kek.source=EvaluationSecret", "--set", "kek.secretName=kek", "--set", "kek.acceptEvaluationGrade=true"}
	for _, values := range [][]string{needed, evaluation} {
		objects := mustRender(renderChart("lethe-system", values...))(t)
		for _, o := range objects {
			if o.GetKind() == "Secret" {
				t.Errorf("the chart renders %s", key(o))
			}
		}
		keyserver := podOf(t, byKey(objects)["Deployment.apps lethe-system/lethe-keyserver"])
		grade := "--kek-grade=Production"
		if slices.Contains(values, "kek.source=EvaluationSecret") {
			grade = "--kek-grade=Evaluation"
			if s := keyserver.Spec.Volumes[0].Secret; s == nil || s.SecretName != "kek" {
				t.Error("the Secret is not mounted")
			}
		}
		if !slices.Contains(keyserver.Spec.Containers[0].Args, grade) {
			t.Errorf("want %s in %q", grade, keyserver.Spec.Containers[0].Args)
		}
	}
}

func TestChartHandsEveryKeyEncryptionKeyToTheKeyserver(t *testing.T) {
	evaluation := []string{"--set", "realm=test", "--set", "kek.source=EvaluationSecret", "--set", "kek.secretName=kek", "--set", "kek.acceptEvaluationGrade=true"}
	for _, values := range [][]string{needed, evaluation} {
		values = append(slices.Clone(values), "--set", "kek.file=kek-2", "--set", "kek.previous={kek,kek-0}")
		keyserver := podOf(t, byKey(mustRender(renderChart("lethe-system", values...))(t))["Deployment.apps lethe-system/lethe-keyserver"])
		for _, arg := range []string{"--kek-file=/var/run/lethe/kek/kek-2", "--kek-file-previous=/var/run/lethe/kek/kek", "--kek-file-previous=/var/run/lethe/kek/kek-0"} {
			if !slices.Contains(keyserver.Spec.Containers[0].Args, arg) {
				t.Errorf("want %s in %q", arg, keyserver.Spec.Containers[0].Args)
			}
		}
		if secret := keyserver.Spec.Volumes[0].Secret; secret != nil && len(secret.Items) != 3 {
			t.Errorf("the Secret is mounted with %d of 3 keys", len(secret.Items))
		}
	}
}

// TestKustomizeHandsEveryKeyEncryptionKeyToTheKeyserver builds an overlay with the patch of docs/keys.md.
func TestKustomizeHandsEveryKeyEncryptionKeyToTheKeyserver(t *testing.T) {
	keys, err := os.ReadFile(filepath.Join(root, "docs", "keys.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(keys), "<!-- kek-kustomize -->\n```yaml\n")
	patch, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("docs/keys.md has no patch for kustomize")
	}
	base, err := filepath.Abs(filepath.Join(root, "config", "default"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if base, err = filepath.Rel(folder, base); err != nil {
		t.Fatal(err)
	}
	overlay := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [" + base + "]\n" + patch
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	built := byKey(mustRender(render(exec.Command(kustomize, "build", folder)))(t))
	chart := byKey(mustRender(renderChart("lethe-system", append(slices.Clone(needed), "--set", "kek.file=kek-2", "--set", "kek.previous={kek}")...))(t))
	const key = "Deployment.apps lethe-system/lethe-keyserver"
	got, want := podOf(t, built[key]).Spec.Containers[0].Args, podOf(t, chart[key]).Spec.Containers[0].Args
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the keyserver is started otherwise than by the chart (-chart +kustomize):\n%s", diff)
	}
}

func TestWrongValuesAreRefusedWithARemedy(t *testing.T) {
	for name, tc := range map[string]struct {
		values []string
		want   string
	}{
		"no realm":                      {[]string{"kek.volume.persistentVolumeClaim.claimName=x"}, "realm is required"},
		"a realm that is no name":       {[]string{"realm=Not A Name", "kek.volume.persistentVolumeClaim.claimName=x"}, "/realm"},
		"no volume":                     {[]string{"realm=x"}, "kek.volume is required"},
		"a Secret, not accepted":        {[]string{"realm=x", "kek.source=EvaluationSecret", "kek.secretName=s"}, "kek.acceptEvaluationGrade=true"},
		"a Secret without its name":     {[]string{"realm=x", "kek.source=EvaluationSecret", "kek.acceptEvaluationGrade=true"}, "kek.secretName is required"},
		"both sources":                  {[]string{"realm=x", "kek.secretName=s", "kek.volume.persistentVolumeClaim.claimName=x"}, "belong to kek.source=EvaluationSecret"},
		"a Secret through the volume":   {[]string{"realm=x", "kek.volume.secret.secretName=s"}, "secret"},
		"a folder of the node":          {[]string{"realm=x", "kek.volume.hostPath.path=/"}, "hostPath"},
		"two volumes":                   {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "kek.volume.csi.driver=y"}, "/kek/volume"},
		"a budget that pauses anybody":  {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "manager.changesBudget=1Mi"}, "/manager/changesBudget"},
		"a value that does not exist":   {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "manger.workers=3"}, "manger"},
		"the new key as an old one":     {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "kek.previous={kek}"}, "kek.file stands in kek.previous"},
		"an old key twice":              {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "kek.previous={a,a}"}, "/kek/previous"},
		"an old key with a path":        {[]string{"realm=x", "kek.volume.persistentVolumeClaim.claimName=x", "kek.previous={../a}"}, "/kek/previous"},
		"a key written into the values": {[]string{"realm=x", "kek.value=c2VjcmV0"}, "value"},
	} {
		t.Run(name, func(t *testing.T) {
			var arguments []string
			for _, v := range tc.values {
				arguments = append(arguments, "--set", v)
			}
			_, err := renderChart("lethe-system", arguments...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestOurPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
	seen := 0
	for _, o := range mustRender(renderChart("lethe-system", needed...))(t) {
		if o.GetKind() != "Deployment" && o.GetKind() != "Job" {
			continue
		}
		seen++
		pod := podOf(t, o)
		for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s: %s", key(o), result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		for _, c := range pod.Spec.Containers {
			if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s: the root file system can be written", key(o))
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: no memory limit or no CPU request", key(o))
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d pod templates, want 3", seen)
	}
}

// installed is a real kube-apiserver, which refuses unknown fields, with each object of the chart, and the file of its
// administrator.
func installed(t *testing.T, values ...string) (client.Client, string) {
	t.Helper()
	environment := &envtest.Environment{BinaryAssetsDirectory: assets}
	config, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	strict := client.WithFieldValidation(c, metav1.FieldValidationStrict)
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "lethe-system"}}); err != nil {
		t.Fatal(err)
	}
	objects := mustRender(renderChart("lethe-system", slices.Concat(needed, values)...))(t)
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	for _, o := range objects {
		if err := strict.Create(context.WithoutCancel(t.Context()), o); err != nil {
			t.Errorf("%s: %v", key(o), err)
		}
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, environment.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	return c, kubeconfig
}

// TestAPIServerAcceptsEverything also holds what must not be deleted, or changed, while a Tenant exists.
func TestAPIServerAcceptsEverything(t *testing.T) {
	c, kubeconfig := installed(t)
	if t.Failed() {
		return
	}
	// The chart says it itself where it can ask the cluster, and the ConfigMap is immutable where it cannot.
	inCluster := []string{"--dry-run=server", "--kubeconfig", kubeconfig}
	if _, err := renderChart("lethe-system", slices.Concat(needed, inCluster)...); err != nil {
		t.Errorf("the same values again: %v", err)
	}
	other := slices.Concat(needed, []string{"--set", "realm=other"})
	if _, err := renderChart("lethe-system", slices.Concat(other, inCluster)...); err == nil || !strings.Contains(err.Error(), "realm cannot be changed") {
		t.Errorf("another realm: %v", err)
	}
	realm := &corev1.ConfigMap{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "lethe-system", Name: "lethe-realm"}, realm); err != nil {
		t.Fatal(err)
	}
	realm.Data["realm"] = "other"
	if err := c.Update(t.Context(), realm.DeepCopy(), client.DryRunAll); !apierrors.IsInvalid(err) {
		t.Errorf("the realm was changed: %v", err)
	}

	guarded := func() []client.Object {
		var objects []client.Object
		for _, name := range []string{"botdeployments", "dataretentionpolicies", "datastores", "tenants"} {
			crd := &unstructured.Unstructured{}
			crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
			crd.SetName(name + ".lethe.dev")
			objects = append(objects, crd)
		}
		for _, name := range []string{"lethe-system", "lethe-keys"} {
			objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		return append(objects, realm.DeepCopy())
	}
	refused := func(o client.Object) bool {
		err := c.Delete(t.Context(), o, client.DryRunAll)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "Tenant acme exists") && strings.Contains(err.Error(), "kubectl get tenants")
	}
	tenant := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"namespaces": []any{map[string]any{"name": "acme"}}}}}
	tenant.SetGroupVersionKind(schema.GroupVersionKind{Group: "lethe.dev", Version: "v1alpha1", Kind: "Tenant"})
	tenant.SetName("acme")
	if err := c.Create(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	for _, o := range guarded() {
		eventually(t, func() bool { return refused(o) }, "%T %s can be deleted while a Tenant exists", o, o.GetName())
	}
	if err := c.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, client.DryRunAll); apierrors.IsForbidden(err) && strings.Contains(err.Error(), "acme") {
		t.Errorf("somebody else's namespace: %v", err)
	}
	if err := c.Delete(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	for _, o := range guarded() {
		eventually(t, func() bool { return c.Delete(t.Context(), o, client.DryRunAll) == nil }, "%T %s cannot be deleted without Tenants", o, o.GetName())
	}
}

// eventually waits until the API server's admission has seen what was written.
func eventually(t *testing.T, ok func() bool, format string, args ...any) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Errorf(format, args...)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// rank puts what others need first, as Helm does.
func rank(u *unstructured.Unstructured) int {
	return slices.Index([]string{"Job", "Deployment", "CustomResourceDefinition", "PriorityClass", "Namespace"}, u.GetKind()) * -1
}

func byKey(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	m := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		m[key(o)] = o
	}
	return m
}

func mustRender(objects []*unstructured.Unstructured, err error) func(*testing.T) []*unstructured.Unstructured {
	return func(t *testing.T) []*unstructured.Unstructured {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return objects
	}
}

func podOf(t *testing.T, u *unstructured.Unstructured) corev1.PodTemplateSpec {
	t.Helper()
	template, found, err := unstructured.NestedMap(u.Object, "spec", "template")
	if err != nil || !found {
		t.Fatalf("%s has no pod template: %v", key(u), err)
	}
	var pod corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestPodsAreStartedWithFlagsThatExist asks the programs themselves.
func TestPodsAreStartedWithFlagsThatExist(t *testing.T) {
	objects := byKey(mustRender(renderChart("lethe-system", needed...))(t))
	for name, source := range map[string]string{"lethe-manager": ".", "lethe-keyserver": "./cmd/keyserver"} {
		binary := filepath.Join(t.TempDir(), name)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		help, _ := exec.CommandContext(t.Context(), binary, "-h").CombinedOutput()
		args := podOf(t, objects["Deployment.apps lethe-system/"+name]).Spec.Containers[0].Args
		if len(args) < 8 {
			t.Errorf("%s is started with %d arguments", name, len(args))
		}
		for _, arg := range args {
			flag, _, found := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !found || !regexp.MustCompile(`(?m)^\s+-+`+regexp.QuoteMeta(flag)+`\b`).Match(help) {
				t.Errorf("%s has no flag %s", name, arg)
			}
		}
	}
}

func TestChartPassesImagesAndAnnotations(t *testing.T) {
	previous := "lethe@sha256:" + strings.Repeat("ab", 32)
	values := append(slices.Clone(needed), "--set", "image.previous={"+previous+"}", "--set", "pods.annotations={example.com/a,example.org/*}", "--set", "networkPolicy.closedAddresses={203.0.113.7/32,2001:db8::/64}")
	objects := byKey(mustRender(renderChart("lethe-system", values...))(t))
	keyserver, manager := podOf(t, objects["Deployment.apps lethe-system/lethe-keyserver"]), podOf(t, objects["Deployment.apps lethe-system/lethe-manager"])
	if !slices.Contains(keyserver.Spec.Containers[0].Args, "--previous-image="+previous) {
		t.Error("the keyserver is not told of the earlier image")
	}
	for _, pod := range []corev1.PodTemplateSpec{keyserver, manager} {
		if !slices.Contains(pod.Spec.Containers[0].Args, "--pod-annotations=example.com/a,example.org/*") {
			t.Errorf("the annotations do not reach %s", pod.Spec.Containers[0].Name)
		}
		if !slices.Contains(pod.Spec.Containers[0].Args, "--closed-addresses=203.0.113.7/32,2001:db8::/64") {
			t.Errorf("the closed addresses do not reach %s", pod.Spec.Containers[0].Name)
		}
	}
	if _, err := renderChart("lethe-system", append(slices.Clone(needed), "--set", "image.previous={lethe:v1}")...); err == nil {
		t.Error("an earlier image by a tag is taken")
	}
}
