// Package messages meets every message with which the API server refuses one of our kinds: a bad input for each, and
// the answer word by word. A rule that no input meets fails the test, so that nobody adds one whose answer nobody has
// read.
package messages

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/env"
)

var update = flag.Bool("update", false, "write golden files")

var cluster *env.Env

func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { cluster = e })) }

// row is one bad input: what is set on a good object, path by path. was is set on the object that is there before,
// where the rule is about a change.
type row struct {
	kind string
	set  []string // path and JSON, in turn
	was  []string
}

func bad(kind string, set ...string) row { return row{kind: kind, set: set} }

// good objects, in which each field that a rule is about has a value.
var good = map[string]string{
	"Tenant": `
spec:
  namespaces: [{name: messages}]
  imagePullSecrets: [{name: pull}]
  access: [{group: people, role: View}]
  egress: [{cidr: 140.82.112.0/20, ports: [{protocol: TCP, port: 443}]}]
  egressCeiling: {allow: [{cidr: 140.82.112.0/20, ports: [{port: 1, endPort: 2}]}]}
  externalIDs: [{type: AccountID, value: a}]
  foreignNetworkPolicies: [{group: cilium.io, resource: ciliumnetworkpolicies, name: p}]
  foreignObjects: [{kind: Service, name: s}]
  quota: {cpu: "1", memory: 1Gi, storage: 1Gi}
  placement: {nodeSelector: {region: eu}}
  retentionOverrides: [{dataClass: Conversations, retainFor: {days: 1}}]
`,
	"BotDeployment": `
spec:
  image: example.org/bot:1
  command: [a]
  args: [a]
  env: [{name: A, value: b}]
  ports: [{name: health, containerPort: 8080}, {name: other, containerPort: 8081}]
  probes: {startup: {port: health, path: /}, liveness: {port: health, path: /}, readiness: {port: health, path: /}}
  credentials: [{name: token, sealed: seal.v1.a.a.a.a.a}, {name: second, sealed: seal.v1.a.a.a.a.a}]
  channels: [{name: chat, type: Telegram, telegram: {credential: token}}]
  egress: [{cidr: 140.82.112.0/20, ports: [{protocol: TCP, port: 443}]}]
  resources: {requests: {cpu: 100m}, limits: {cpu: 200m}}
  storage: {size: 1Gi, mountPath: /data, storageClassName: fast}
  imagePullSecrets: [{name: pull}]
  files: []
  scratch: []
  helpers: []
`,
	"DataStore": `
spec:
  type: Postgres
  postgres: {host: db.example.org, database: chat, username: lethe, password: seal.v1.a.a.a.a.a}
  datasets:
    - {name: messages, dataClass: Conversations, table: {schema: public, name: messages, key: [id], ageColumn: {name: created_at, type: Timestamp, timeZone: Etc/UTC}}, floor: {retainFor: {years: 1}, legalBasis: law}}
    - {name: others, dataClass: Others, table: {schema: public, name: others, key: [id, second], ageColumn: {name: created_at, type: Timestamptz}}}
  exempt: [{schema: public, table: exempt, reason: none}]
  relations: [{schema: public, table: messages, column: other, references: others, referencesColumn: id, state: Declared, reason: so}]
  approvedPlan:
    identity: {kind: PostgresSystemIdentifier, value: "1"}
    database: chat
    address: db.example.org:5432
    tenancy: Dedicated
    seen: {approvedAt: "2026-03-02T09:30:00Z", point: {kind: PostgresPoint, value: "oid=1,timeline=1,position=0/1,transactions=1"}}
    windows:
      - dataset: messages
        placeDigest: abc
        retainFor: {days: 1}
        floor: {years: 1}
        tenants: [{tenant: acme, retainFor: {days: 1}}]
        backlog: {rows: 1, approvedAt: "2026-03-02T09:30:00Z", until: "2026-03-03T09:30:00Z"}
`,
	"DataRetentionPolicy": `
spec:
  storeSelector: {matchLabels: {data: chat}}
  rules:
    - {name: conversations, dataClass: Conversations, retainFor: {days: 90}, deleteWithin: {hours: 24}, tenantOverrides: [{tenant: acme, retainFor: {days: 1}}]}
    - {name: others, dataClass: Others, retainFor: {days: 90}}
`,
}

// object is a good one of a kind, with some paths set.
func object(t *testing.T, kind string, set []string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal([]byte(good[kind]), &o.Object); err != nil {
		t.Fatal(err)
	}
	o.SetAPIVersion(v1alpha1.GroupVersion.String())
	o.SetKind(kind)
	o.SetName("messages")
	if kind == "BotDeployment" || kind == "DataStore" {
		o.SetNamespace("default")
	}
	for i := 0; i+1 < len(set); i += 2 {
		var value any
		if err := json.Unmarshal([]byte(set[i+1]), &value); err != nil {
			t.Fatalf("%s: %v", set[i+1], err)
		}
		o.Object = setPath(t, o.Object, strings.Split(set[i], "."), value).(map[string]any)
	}
	return o
}

// setPath sets what lies at a path; null takes it away.
func setPath(t *testing.T, in any, path []string, value any) any {
	t.Helper()
	if len(path) == 0 {
		return value
	}
	switch at := in.(type) {
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i > len(at) {
			t.Fatalf("no element %s", path[0])
		}
		if i == len(at) {
			at = append(at, nil)
		}
		at[i] = setPath(t, at[i], path[1:], value)
		return at
	case map[string]any:
		if value == nil && len(path) == 1 {
			delete(at, path[0])
			return at
		}
		at[path[0]] = setPath(t, at[path[0]], path[1:], value)
		return at
	case nil:
		return setPath(t, map[string]any{}, path, value)
	default:
		t.Fatalf("nothing lies below %v", in)
		return nil
	}
}

// rule is one of a kind's schema.
type rule struct {
	kind, at, message, expression, rule string
	met                                 bool
}

// rulesOf walks the CRDs. Those of the status are the manager's to meet.
func rulesOf(t *testing.T) []*rule {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cluster.Root, "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	var out []*rule
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		var walk func(at string, schema *apiextensionsv1.JSONSchemaProps)
		walk = func(at string, schema *apiextensionsv1.JSONSchemaProps) {
			for _, v := range schema.XValidations {
				out = append(out, &rule{kind: crd.Spec.Names.Kind, at: strings.TrimPrefix(at+v.FieldPath, "."), message: v.Message, expression: v.MessageExpression, rule: v.Rule})
			}
			for name := range schema.Properties {
				if property := schema.Properties[name]; at != "" || name == "spec" {
					walk(at+"."+name, &property)
				}
			}
			if schema.Items != nil && schema.Items.Schema != nil {
				walk(at+"[]", schema.Items.Schema)
			}
			if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
				walk(at+"[]", schema.AdditionalProperties.Schema)
			}
		}
		walk("", crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
	return out
}

var (
	index    = regexp.MustCompile(`\[[^\]]*\]`)
	literals = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)
)

// is says whether an answer is a rule's.
func (r *rule) is(kind string, cause metav1.StatusCause) bool {
	field := strings.TrimPrefix(index.ReplaceAllString(cause.Field, "[]"), "<nil>")
	// A zone that does not exist fails the rule instead of answering it: the answer is about the object around the
	// field.
	failed := strings.HasSuffix(cause.Message, " evaluating rule: "+r.message) && strings.HasPrefix(r.at, field+".")
	if r.kind != kind || (r.at != field && !failed) {
		return false
	}
	if failed || strings.HasSuffix(cause.Message, ": "+r.message) || strings.HasSuffix(cause.Message, r.message) {
		return true
	}
	for _, match := range literals.FindAllStringSubmatch(r.expression, -1) {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.ReplaceAll(match[1], `\'`, `'`)), "%d", "[0-9]+")
		if len(pattern) > 30 && regexp.MustCompile(`(^|: |: [^:]{1,64} )`+strings.TrimPrefix(pattern, " ")+`$`).MatchString(cause.Message) {
			return true
		}
	}
	return false
}

// answer is what the API server says to a row.
func answer(t *testing.T, r row) []metav1.StatusCause {
	t.Helper()
	o := object(t, r.kind, r.set)
	var err error
	if r.was == nil {
		err = cluster.Client.Create(t.Context(), o, client.DryRunAll)
	} else {
		before := object(t, r.kind, r.was)
		if err := cluster.Client.Create(t.Context(), before); err != nil {
			t.Fatalf("the object before: %v", err)
		}
		o.SetResourceVersion(before.GetResourceVersion())
		err = cluster.Client.Update(t.Context(), o, client.DryRunAll)
		if err := cluster.Client.Delete(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		t.Errorf("%s: not refused: %v", r, err)
		return nil
	}
	// The API server goes through the members of an object in no order.
	causes := status.Status().Details.Causes
	slices.SortStableFunc(causes, func(a, b metav1.StatusCause) int {
		return strings.Compare(a.Field+a.Message, b.Field+b.Message)
	})
	return causes
}

func (r row) String() string {
	text := r.kind
	for i := 0; i+1 < len(r.set); i += 2 {
		text += " " + r.set[i] + "=" + r.set[i+1]
	}
	if r.was != nil {
		text += ", before"
	}
	for i := 0; i+1 < len(r.was); i += 2 {
		text += " " + r.was[i] + "=" + r.was[i+1]
	}
	return text
}

// TestEveryMessage: each rule of the four kinds, and of the admission policies on their fields, is met by an input of
// the table, the answer stands in testdata/messages.txt word by word, and names the element.
func TestEveryMessage(t *testing.T) {
	for kind := range good {
		if err := cluster.Client.Create(t.Context(), object(t, kind, nil), client.DryRunAll); err != nil {
			t.Fatalf("the good %s is refused: %v", kind, err)
		}
	}
	all, policies := rulesOf(t), validationsOf(t)
	var out strings.Builder
	for _, r := range table {
		fmt.Fprintf(&out, "%s\n", strings.ToValidUTF8(r.String(), "?"))
		met := false
		for _, cause := range answer(t, r) {
			if strings.Contains(cause.Message, "some validation rules were not checked") {
				continue // the API server's own, of a value that was refused before
			}
			fmt.Fprintf(&out, "    %s: %s\n", cause.Field, cause.Message)
			for _, v := range policies {
				if v.is(cause) {
					v.met, met = true, true
				}
			}
			for _, rule := range all {
				if rule.is(r.kind, cause) {
					rule.met, met = true, true
				}
			}
			if said := strings.ReplaceAll(cause.Message, `\"`, ""); strings.Contains(said, "[*]") || strings.Contains(said, "[]") {
				t.Errorf("%s: the answer names no element: %s", r, said)
			}
		}
		if !met {
			t.Errorf("%s: no rule of ours answers", r)
		}
	}
	for _, rule := range all {
		if strings.Contains(rule.rule, "(c, ") && strings.Contains(rule.rule, ".all(") && rule.expression == "" {
			t.Errorf("the rule of %s at %s is about each element of a list, and its message names none: %s", rule.kind, rule.at, rule.message)
		}
		if !rule.met {
			t.Errorf("no row meets the rule of %s at %s: %s", rule.kind, rule.at, rule.message)
		}
	}
	checkPolicies(t, policies)
	if len(all) < 100 {
		t.Errorf("%d rules only", len(all))
	}
	golden := filepath.Join("testdata", "messages.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")); diff != "" {
		t.Errorf("%s (-want +got; go test ./test/messages -update writes it, to be read):\n%s", golden, diff)
	}
}

// TestAnswersHoldNoValue: what was pasted into a field of free text is in no answer.
func TestAnswersHoldNoValue(t *testing.T) {
	const secret = "postgres://lethe:S3cr3t-of-mine@db/chat"
	encoded, err := json.Marshal(secret + "\x00")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, r := range table {
		if r.was != nil || !slices.ContainsFunc(r.set, func(s string) bool { return strings.HasPrefix(s, `"`) }) {
			continue
		}
		set := slices.Clone(r.set)
		for i := 1; i < len(set); i += 2 {
			if strings.HasPrefix(set[i], `"`) && !listed(set[i-1]) {
				set[i] = string(encoded)
			}
		}
		o := object(t, r.kind, set)
		if o.GetName() != "messages" {
			continue // names are shown everywhere
		}
		err := cluster.Client.Create(t.Context(), o, client.DryRunAll)
		if err == nil {
			t.Errorf("%s: a connection string is taken", r)
			continue
		}
		seen++
		if strings.Contains(err.Error(), "S3cr3t") && !listed(r.set[0]) {
			t.Errorf("%s: the answer repeats the value: %v", r, err)
		}
	}
	if seen < 40 {
		t.Errorf("%d fields only", seen)
	}
}

// listed are fields whose values are out of a list, or of a form that holds no secret, so that the API server's own
// check answers first.
func listed(path string) bool {
	for _, end := range []string{".cidr", ".class", ".tenancy", ".delivery", ".until", ".size", ".quota.cpu", ".quota.memory", ".quota.storage", ".quota.ephemeralStorage"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}
