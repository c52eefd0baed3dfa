package fields

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// refusals is what no refused field may hold: anything that a Pod may, what asks for nothing included.
func refusals(into map[string][]any) {
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		into[field] = []any{true, false, "true", 1, map[string]any{}}
	}
	for _, of := range []string{"", "helpers[]."} {
		into[of+"securityContext"] = []any{map[string]any{}, map[string]any{"privileged": true}, map[string]any{"runAsNonRoot": true}, map[string]any{"capabilities": map[string]any{"drop": []any{"ALL"}}}, true, []any{}}
		into[of+"lifecycle"] = []any{map[string]any{}, map[string]any{"preStop": map[string]any{"exec": map[string]any{"command": []any{"a"}}}}, "a", []any{}}
		into[of+"ports[].hostPort"] = []any{0, 80, 8080, "80"}
		for _, probe := range []string{"startup", "liveness", "readiness"} {
			into[of+"probes."+probe+".host"] = []any{"", "localhost", "10.0.0.1", 7}
		}
	}
	into["volumes[]"] = []any{map[string]any{}, map[string]any{"name": "a", "emptyDir": map[string]any{}}, map[string]any{"name": "a", "hostPath": map[string]any{"path": "/"}}, 7}
}

// row is something that Pod Security forbids, as people write it.
type row struct {
	check policy.CheckID
	pod   string // where a Pod has it; a list has one element there
	json  string
}

// forbidden has what makes each check of the standard restricted refuse a pod, in each place that the check looks at.
var forbidden = []row{
	{"hostNamespaces", "spec.hostNetwork", `true`},
	{"hostNamespaces", "spec.hostPID", `true`},
	{"hostNamespaces", "spec.hostIPC", `true`},
	{"windowsHostProcess", "spec.securityContext", `{"windowsOptions": {"hostProcess": true}}`},
	{"windowsHostProcess", "spec.containers[].securityContext", `{"windowsOptions": {"hostProcess": true}}`},
	{"privileged", "spec.containers[].securityContext", `{"privileged": true}`},
	{"capabilities_baseline", "spec.containers[].securityContext", `{"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}`},
	{"capabilities_restricted", "spec.containers[].securityContext", `{"capabilities": {"drop": []}}`},
	{"capabilities_restricted", "spec.containers[].securityContext", `{"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}`},
	{"hostPathVolumes", "spec.volumes[]", `{"name": "v", "hostPath": {"path": "/"}}`},
	{"restrictedVolumes", "spec.volumes[]", `{"name": "v", "nfs": {"server": "nfs.example", "path": "/"}}`},
	{"hostPorts", "spec.containers[].ports[].hostPort", `8080`},
	{"appArmorProfile", "spec.securityContext", `{"appArmorProfile": {"type": "Unconfined"}}`},
	{"appArmorProfile", "spec.containers[].securityContext", `{"appArmorProfile": {"type": "Unconfined"}}`},
	{"appArmorProfile", "metadata.annotations", `{"container.apparmor.security.beta.kubernetes.io/bot": "unconfined"}`},
	{"seLinuxOptions", "spec.securityContext", `{"seLinuxOptions": {"type": "spc_t"}}`},
	{"seLinuxOptions", "spec.containers[].securityContext", `{"seLinuxOptions": {"user": "root"}}`},
	{"procMount", "spec.containers[].securityContext", `{"procMount": "Unmasked"}`},
	{"procMount_restricted", "spec.containers[].securityContext", `{"procMount": "Unmasked"}`},
	{"seccompProfile_baseline", "spec.securityContext", `{"seccompProfile": {"type": "Unconfined"}}`},
	{"seccompProfile_baseline", "spec.containers[].securityContext", `{"seccompProfile": {"type": "Unconfined"}}`},
	{"seccompProfile_restricted", "spec.containers[].securityContext", `{"seccompProfile": {"type": "Unconfined"}}`},
	{"sysctls", "spec.securityContext", `{"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}`},
	{"allowPrivilegeEscalation", "spec.containers[].securityContext", `{"allowPrivilegeEscalation": true}`},
	{"runAsNonRoot", "spec.securityContext", `{"runAsNonRoot": false}`},
	{"runAsNonRoot", "spec.containers[].securityContext", `{"runAsNonRoot": false}`},
	{"runAsUser", "spec.securityContext", `{"runAsUser": 0}`},
	{"runAsUser", "spec.containers[].securityContext", `{"runAsUser": 0}`},
	{"hostProbesAndHostLifecycle", "spec.containers[].startupProbe.httpGet.host", `"10.0.0.1"`},
	{"hostProbesAndHostLifecycle", "spec.containers[].livenessProbe.httpGet.host", `"10.0.0.1"`},
	{"hostProbesAndHostLifecycle", "spec.containers[].readinessProbe.httpGet.host", `"10.0.0.1"`},
	{"hostProbesAndHostLifecycle", "spec.containers[].lifecycle", `{"postStart": {"httpGet": {"host": "10.0.0.1", "port": 80}}}`},
	{"hostProbesAndHostLifecycle", "spec.containers[].lifecycle", `{"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}`},
}

// places are where a bot has it: what a container has is the bot's and its helpers'.
func (r row) places() []string {
	if r.pod == "metadata.annotations" {
		return []string{"podAnnotations"}
	}
	field, container := strings.CutPrefix(strings.TrimPrefix(r.pod, "spec."), "containers[].")
	for _, probe := range []string{"startup", "liveness", "readiness"} {
		field = strings.Replace(field, probe+"Probe.httpGet.", "probes."+probe+".", 1)
	}
	if container {
		return []string{field, "helpers[]." + field}
	}
	return []string{field}
}

// bot is the first place of those that a bot has something at; a port and a probe are not in all of them.
func (r row) bot(bot *v1alpha1.BotDeployment) string {
	at := r.places()[0]
	probes := bot.Spec.Probes
	switch {
	case strings.HasPrefix(at, "ports[]") && len(bot.Spec.Ports) == 0,
		strings.HasPrefix(at, "probes.startup.") && (probes == nil || probes.Startup == nil),
		strings.HasPrefix(at, "probes.liveness.") && (probes == nil || probes.Liveness == nil),
		strings.HasPrefix(at, "probes.readiness.") && (probes == nil || probes.Readiness == nil):
		return ""
	}
	return at
}

// spoil puts it into a pod. Of a security context the rest stays.
func (r row) spoil(t *testing.T, pod map[string]any) {
	t.Helper()
	value := r.value(t)
	if !strings.HasSuffix(r.pod, ".securityContext") {
		set(t, pod, r.pod, value)
		return
	}
	for field, of := range value.(map[string]any) {
		set(t, pod, r.pod+"."+field, of)
	}
}

func (r row) value(t *testing.T) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.json), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// refused says whether a field is refused by the rule that has its remedy.
func refused(err error, at string) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	field := "spec." + strings.ReplaceAll(strings.TrimSuffix(at, "[]"), "[]", "[0]")
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool {
		return c.Field == field && strings.Contains(c.Message, "Pod Security restricted") && strings.Contains(c.Message, "Leave ")
	})
}

func applyAs(t *testing.T, o *unstructured.Unstructured, validation string) error {
	t.Helper()
	return cluster.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation(validation))
}

// judged is a pod that passes the standard restricted, with something changed, and what one of its checks says.
func judged(t *testing.T, check policy.Check, change func(pod map[string]any)) policy.CheckResult {
	t.Helper()
	object := map[string]any{}
	if err := yaml.Unmarshal([]byte(`
metadata: {name: p}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: bot
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    ports: [{containerPort: 8080}]
    startupProbe: {httpGet: {port: 8080}}
    livenessProbe: {httpGet: {port: 8080}}
    readinessProbe: {httpGet: {port: 8080}}
`), &object); err != nil {
		t.Fatal(err)
	}
	change(object)
	content, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(content, &pod); err != nil {
		t.Fatal(err)
	}
	return check.Versions[len(check.Versions)-1].CheckPod(&pod.ObjectMeta, &pod.Spec)
}

// TestWhatPodSecurityForbidsIsRefused: whatever makes Kubernetes' own library refuse a pod under the standard
// restricted is refused of a bot when it is applied, where it would stand in a Pod, with what to do instead and
// without the value, however little the client asks the API server to validate: what a kind does not declare is
// dropped without a word otherwise.
func TestWhatPodSecurityForbidsIsRefused(t *testing.T) {
	checks := map[policy.CheckID]policy.Check{}
	for _, check := range policy.DefaultChecks() {
		checks[check.ID] = check
		if result := judged(t, check, func(map[string]any) {}); !result.Allowed {
			t.Fatalf("the pod that everything is tried on: %s: %s", check.ID, result.ForbiddenDetail)
		}
		if !slices.ContainsFunc(forbidden, func(r row) bool { return r.check == check.ID }) {
			t.Errorf("nothing is known that the check %s forbids", check.ID)
		}
	}
	tried := map[string]bool{}
	for _, row := range forbidden {
		check, ok := checks[row.check]
		if !ok {
			t.Fatalf("there is no check %s", row.check)
		}
		if judged(t, check, func(pod map[string]any) { row.spoil(t, pod) }).Allowed {
			t.Errorf("%s allows %s %s", row.check, row.pod, row.json)
		}
		for _, at := range row.places() {
			tried[at] = true
			for _, validation := range []string{"Strict", "Warn", "Ignore"} {
				err := applyAs(t, with(t, kinds()["BotDeployment"], at, row.value(t)), validation)
				if !refused(err, at) {
					t.Errorf("spec.%s %s, with validation %s: %v", at, row.json, validation, err)
				} else if strings.Contains(err.Error(), "10.0.0.1") {
					t.Errorf("spec.%s: the refusal repeats the value: %v", at, err)
				}
			}
		}
	}
	for _, f := range leaves(reflect.TypeFor[v1alpha1.BotDeploymentSpec](), "") {
		if f.kind == reflect.Interface && !tried[f.path] {
			t.Errorf("spec.%s is refused, and nothing that Pod Security forbids is written there", f.path)
		}
	}
}
