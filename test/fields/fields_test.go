// Package fields asks a real API server for each field of each kind: does it refuse what can never be right, does the
// refusal name the field, and does it keep to itself what was pasted there.
package fields

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
	"github.com/lethe-dev/lethe/test/env"
)

var cluster *env.Env

func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { cluster = e })) }

// enforced waits until the API server enforces the admission policies, which it compiles in the background.
func enforced(t *testing.T) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return apply(t, with(t, kinds()["BotDeployment"], "channels[].telegram.apiURL", "https://localhost")) != nil &&
			apply(t, with(t, kinds()["Tenant"], "placement.nodeSelector", map[string]any{"a b": "c"})) != nil, nil
	})
	if err != nil {
		t.Fatalf("the policies on fields are not enforced: %v", err)
	}
}

// kind is one of ours: an object with every field set, and what no field may hold.
type kind struct {
	spec    reflect.Type
	object  string // YAML
	hostile map[string][]any
}

// leaf is a field of a spec: its path as users write it ("egress[].ports[].port"), and its type.
type leaf struct {
	path string
	kind reflect.Kind // String, Int, Map, Struct for a quantity, or Interface for what is refused at every value
}

func leaves(of reflect.Type, path string) []leaf {
	switch of {
	case reflect.TypeFor[resource.Quantity]():
		return []leaf{{path: path, kind: reflect.Struct}}
	case reflect.TypeFor[metav1.Time]():
		return []leaf{{path: path, kind: reflect.Invalid}}
	case reflect.TypeFor[metav1.LabelSelector]():
		return nil // Kubernetes' own
	case reflect.TypeFor[v1alpha1.Refused]():
		return []leaf{{path: path, kind: reflect.Interface}}
	case reflect.TypeFor[corev1.ResourceList](), reflect.TypeFor[map[string]string]():
		return []leaf{{path: path, kind: reflect.Map}}
	}
	switch of.Kind() {
	case reflect.Pointer:
		return leaves(of.Elem(), path)
	case reflect.Slice:
		return leaves(of.Elem(), path+"[]")
	case reflect.Struct:
		var all []leaf
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			all = append(all, leaves(of.Field(i).Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
		return all
	case reflect.String:
		return []leaf{{path: path, kind: reflect.String}}
	default:
		return []leaf{{path: path, kind: reflect.Int}}
	}
}

// set puts a value at a path of an object; lists have one element there.
func set(t *testing.T, at any, path string, value any) {
	t.Helper()
	head, rest, more := strings.Cut(path, ".")
	name, list := strings.CutSuffix(head, "[]")
	parent, ok := at.(map[string]any)
	if !ok {
		t.Fatalf("%s: %T is no object", path, at)
	}
	if !list {
		if !more {
			parent[name] = value
			return
		}
		set(t, parent[name], rest, value)
		return
	}
	elements, ok := parent[name].([]any)
	if !ok && !more {
		parent[name] = []any{value}
		return
	}
	if !ok || len(elements) == 0 {
		t.Fatalf("%s: no list in the object", path)
	}
	if !more {
		elements[0] = value
		return
	}
	set(t, elements[0], rest, value)
}

func (k kind) build(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(k.object), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func with(t *testing.T, k kind, path string, value any) *unstructured.Unstructured {
	t.Helper()
	o := k.build(t)
	set(t, o.Object["spec"], path, value)
	// As a client sends it: numbers are int64, maps are map[string]any.
	b, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	return out
}

func apply(t *testing.T, o *unstructured.Unstructured) error {
	t.Helper()
	return cluster.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict"))
}

const marker = "hunter2-Xq7"

// pasted are the secrets that end up in the wrong field.
var pasted = []string{
	"postgresql://lethe:" + marker + "@db.example:5432/app?sslmode=require",
	"host=db.example user=lethe password=" + marker,
	"123456789:AAE" + marker + "abcdefghijklmnopqrstuvwx",
	"-----BEGIN PRIVATE KEY-----\n" + marker + "\n-----END PRIVATE KEY-----\n",
	strings.Repeat(marker, 2000),
}

func TestEveryFieldRefusesWhatCanNeverBeRight(t *testing.T) {
	enforced(t)
	for name, k := range kinds() {
		t.Run(name, func(t *testing.T) {
			if err := apply(t, k.build(t)); err != nil {
				t.Fatalf("the object that everything is tried on: %v", err)
			}
			all := leaves(k.spec, "")
			known := map[string]bool{}
			for _, f := range all {
				known[f.path] = true
				if len(k.hostile[f.path]) == 0 && f.kind != reflect.Invalid {
					t.Errorf("spec.%s: no value is known that it refuses", f.path)
				}
				for _, value := range k.hostile[f.path] {
					err := apply(t, with(t, k, f.path, value))
					shown := fmt.Sprintf("%#v", value)
					if len(shown) > 80 {
						shown = shown[:80] + "…"
					}
					if err == nil {
						t.Errorf("spec.%s takes %s", f.path, shown)
						continue
					}
					if field := strings.NewReplacer("[]", "[0]").Replace("spec." + f.path); !names(err.Error(), field) {
						t.Errorf("spec.%s, %s: the refusal does not name the field: %v", f.path, shown, err)
					}
				}
			}
			for _, path := range slices.Collect(maps.Keys(k.hostile)) {
				if !known[path] {
					t.Errorf("there is no field spec.%s", path)
				}
			}
		})
	}
}

// names says whether a refusal names a field, or the list that it is in.
func names(refusal, field string) bool {
	return strings.Contains(refusal, field) || strings.Contains(refusal, strings.TrimSuffix(field, "[0]")) ||
		strings.Contains(refusal, strings.ReplaceAll(field, "[0]", "[]"))
}

// enums are fields whose refusal repeats the value. They hold one of a few words that a person chooses and never
// pastes, and their words belong into the schema, where editors and 'kubectl explain' find them.
var enums = []string{
	"probes.startup.type", "probes.liveness.type", "probes.readiness.type", "helpers[].probes.startup.type", "helpers[].probes.liveness.type", "helpers[].probes.readiness.type",
	"type", "class", "state", "userNamespaces", "retainedVolumes", "mode", "access[].role", "foreignObjects[].kind", "egressCeiling.allow[].ports[].protocol", "rules[].basis", "rules[].action", "tenancy", "imagePullPolicy", "operatingMode", "channels[].type", "credentials[].delivery", "storage.reclaimPolicy",
	"placement.tolerations[].operator", "placement.tolerations[].effect", "placement.topologySpread[].whenUnsatisfiable", "egress[].ports[].protocol", "scratch[].medium", "helpers[].imagePullPolicy", "helpers[].mounts[]", "datasets[].table.ageColumn.type", "approvedPlan.tenancy", "relations[].state",
}

// TestWhatWasPastedNeverComesBack: a secret in any field of any kind is not in the server's answer. Beside enums only
// quantities repeat what they refuse: their pattern is Kubernetes' own and is asked before any rule of ours
// (docs/threat-model.md says so).
func TestWhatWasPastedNeverComesBack(t *testing.T) {
	for name, k := range kinds() {
		for _, f := range leaves(k.spec, "") {
			if slices.Contains(enums, f.path) || strings.HasSuffix(f.path, ".matchExpressions[].operator") || f.kind == reflect.Invalid || f.kind == reflect.Struct {
				continue
			}
			for _, secret := range pasted {
				values := []any{secret}
				if f.kind == reflect.Map {
					values = []any{map[string]any{secret: "1"}}
				}
				if f.kind == reflect.Interface {
					values = []any{secret, map[string]any{"a": map[string]any{secret: secret}}}
				}
				for _, value := range values {
					err := apply(t, with(t, k, f.path, value))
					if err != nil && strings.Contains(err.Error(), marker) {
						t.Errorf("%s spec.%s: the answer repeats what was pasted: %.300s", name, f.path, err.Error())
						break
					}
				}
			}
		}
	}
}

// TestTheTableIsTheRule: what the one table closes is refused by the API server, each row and a block inside it.
func TestTheTableIsTheRule(t *testing.T) {
	enforced(t)
	for _, row := range netblocks.Table() {
		for name, allowed := range map[string]bool{"BotDeployment": row.Opens == netblocks.Anyone, "Tenant": row.Opens != netblocks.Nobody} {
			err := apply(t, with(t, kinds()[name], "egress[].cidr", row.Prefix.String()))
			if (err == nil) != allowed {
				t.Errorf("%s of a %s (%s, %s): %v", row.Prefix, name, row.Name, row.Opens, err)
			}
		}
		url := "https://" + row.Prefix.Addr().String()
		if row.Prefix.Addr().Is6() {
			url = "https://[" + row.Prefix.Addr().String() + "]"
		}
		if err := apply(t, with(t, kinds()["BotDeployment"], "channels[].telegram.apiURL", url)); (err == nil) == netblocks.Never(row.Prefix.Addr()) {
			t.Errorf("apiURL %s: %v", url, err)
		}
		if err := apply(t, with(t, kinds()["DataStore"], "postgres.host", row.Prefix.Addr().String())); (err == nil) == netblocks.Never(row.Prefix.Addr()) {
			t.Errorf("host %s: %v", row.Prefix.Addr(), err)
		}
	}
}

// TestWhatIsRightIsTaken stands beside the refusals, so that a rule that refuses everything fails too.
func TestWhatIsRightIsTaken(t *testing.T) {
	right := map[string]map[string][]any{
		"BotDeployment": {
			"image":                           {"bot", "docker.io/library/bot:1", "localhost:5000/a/b_c.d", "r.example/b@sha256:" + strings.Repeat("a", 64), "r.example/b:v1@sha256:" + strings.Repeat("a", 64)},
			"channels[].telegram.apiURL":      {"https://api.telegram.org", "https://telegram.internal.example:8443/bot-api", "https://10.20.0.9:8081", "https://[fd12::9]/", "https://8.8.8.8"},
			"storage.size":                    {"1Gi", 1073741824, "500M", "64Ti"},
			"storage.mountPath":               {"/data", "/home/node/.n8n", "/etc/myapp", "/var/lib/bot", "/tmp", "/procs", "/a..b", "/run2"},
			"resources.requests":              {map[string]any{"cpu": "50m", "memory": "1Mi", "ephemeral-storage": "1Gi"}, map[string]any{"cpu": 1}},
			"egress[].cidr":                   {"8.8.8.8/32", "0.0.0.0/0", "::/0", "2a00:1450::/32", "140.82.112.0/20"},
			"credentials[].secretKeyRef.key":  {"token", ".dockerconfigjson", "a..b", "tls.crt"},
			"credentials[].secretKeyRef.name": {"a", "a.b-c"},
			"env[].value":                     {"", "line\nbreak", "ünïcode"},
			"imagePullSecrets[].name":         {"a", "a.b-c"},
			"podAnnotations":                  {map[string]any{"example.com/team": "support", "a": "", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
			"probes.startup.path":             {"/", "/a?b=c"},
		},
		"DataStore": {
			"postgres.host":                   {"db.example", "10.1.2.3", "2a00:1450::7", "DB1"},
			"postgres.database":               {"app", "my db", "Ünï-1"},
			"postgres.username":               {"lethe", "lethe@app"},
			"datasets[].table.name":           {"_a$1", "Users"},
			"datasets[].table.ageColumn.name": {"created_at"},
		},
		"Tenant": {
			"egress[].cidr":               {"10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "64:ff9b::/96"},
			"quota.storage":               {"0", "1Ti"},
			"quota.cpu":                   {"500m", 4},
			"externalIDs[].value":         {" a ", "ünï"},
			"access[].group":              {"acme:ops", "acme operators", "/acme/ops"},
			"placement.tolerations[]":     {map[string]any{"key": "a"}, map[string]any{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}},
			"placement.topologySpread[]":  {map[string]any{"topologyKey": "topology.kubernetes.io/zone"}},
			"placement.priorityClassName": {"a", "customers.gold"},
			"imagePullSecrets[].name":     {"a", "a.b-c"},
			"placement.nodeSelector":      {map[string]any{"topology.kubernetes.io/region": "eu-central-1", "a": ""}},
		},
	}
	for name, fields := range right {
		for path, values := range fields {
			for _, value := range values {
				if err := apply(t, with(t, kinds()[name], path, value)); err != nil {
					t.Errorf("%s spec.%s refuses %v: %v", name, path, value, err)
				}
			}
		}
	}
}

// TestNobodyToleratesEverything: a toleration without a key would reach control planes and nodes that are ending, and
// one that contradicts itself would be refused for each pod.
func TestNobodyToleratesEverything(t *testing.T) {
	for want, toleration := range map[string]map[string]any{
		"spec.placement.tolerations[0].key":               {"operator": "Exists"},
		"spec.placement.tolerations[0].value":             {"key": "a", "operator": "Exists", "value": "b"},
		"spec.placement.tolerations[0].tolerationSeconds": {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 60},
		"spec.placement.tolerations":                      nil,
	} {
		path, value := "placement.tolerations[]", any(toleration)
		if toleration == nil {
			path, value = "placement.tolerations", []any{}
		}
		if err := apply(t, with(t, kinds()["Tenant"], path, value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s named", toleration, err, want)
		}
	}
	if err := apply(t, with(t, kinds()["Tenant"], "placement", map[string]any{})); err == nil || !strings.Contains(err.Error(), "spec.placement") {
		t.Errorf("a placement that says nothing: %v", err)
	}
}

// TestTheVolumeCannotBeChanged: a bot's volume cannot be changed, and the refusal says so by the field's name.
func TestTheVolumeCannotBeChanged(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fields-volume"}}
	if err := cluster.Client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	o := kinds()["BotDeployment"].build(t)
	o.SetNamespace(ns.Name)
	if err := cluster.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for path, value := range map[string]any{"storage.size": "2Gi", "storage.storageClassName": marker} {
		changed := o.DeepCopy()
		set(t, changed.Object["spec"], path, value)
		err := cluster.Client.Update(t.Context(), changed, client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), "spec."+path) || strings.Contains(err.Error(), marker) {
			t.Errorf("spec.%s was changed: %v", path, err)
		}
	}
}
