package chart

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// change is another valid value, and where it shows.
type change struct {
	// set is the value as JSON; with an =, the value of that path.
	set string
	// in is an object that another value makes another, or makes or unmakes.
	in string
	// base are the arguments without which the value would do nothing or be refused; nil: plain.
	base []string
	// refused is why the chart renders nothing before the value is set.
	refused string
}

// with adds values as JSON. (Helm lets --set win over --set-json, whatever comes first.)
func with(base []string, values ...string) []string {
	out := slices.Clone(base)
	for _, value := range values {
		out = append(out, "--set-json", value)
	}
	return out
}

// The values without defaults, and the company that others need.
var (
	named      = with(nil, `realm="test"`, `image.tag="dev"`)
	plain      = with(named, `kek.volume={"persistentVolumeClaim":{"claimName":"lethe-kek"}}`)
	onCSI      = with(named, `kek.volume={"csi":{"driver":"store","nodePublishSecretRef":{"name":"login"}}}`)
	unaccepted = with(named, `kek.source="EvaluationSecret"`, `kek.secretName="kek"`)
	evaluation = with(unaccepted, `kek.acceptEvaluationGrade=true`)
	scraped    = with(plain, `monitoring={"podMonitor":{"enabled":true},"prometheusRule":{"enabled":true}}`)
	spread     = with(plain, `topologySpread=[{"topologyKey":"zone"}]`)
	twoKinds   = with(plain, `networkPolicy.kinds=[{"group":"networking.k8s.io","resource":"networkpolicies"},{"group":"a.example","resource":"walls"}]`)
)

// notOurs are values that the chart does not read itself.
var notOurs = map[string]string{"global": "Helm's own, for charts that hold this one"}

// changed has another value for each value that placed does not have.
var changed = map[string]change{
	"realm":                     {set: `"other"`, in: "ConfigMap lethe-system/lethe-realm"},
	"kek.source":                {set: `kek={"source":"Volume","secretName":"","acceptEvaluationGrade":false,"volume":{"csi":{"driver":"store"}}}`, in: theKeyserver, base: evaluation},
	"kek.acceptEvaluationGrade": {set: `true`, in: theKeyserver, base: unaccepted, refused: "kek.acceptEvaluationGrade=true"},
	"kek.secretName":            {set: `"other"`, in: theKeyserver, base: evaluation},
	"kek.file":                  {set: `"kek-2"`, in: theKeyserver},
	"kek.previous":              {set: `["kek-0"]`, in: theKeyserver},
	"kek.volume.persistentVolumeClaim.claimName": {set: `"other"`, in: theKeyserver},
	"kek.volume.persistentVolumeClaim.readOnly":  {set: `true`, in: theKeyserver},
	"kek.volume.csi.driver":                      {set: `"other"`, in: theKeyserver, base: onCSI},
	"kek.volume.csi.readOnly":                    {set: `true`, in: theKeyserver, base: onCSI},
	"kek.volume.csi.fsType":                      {set: `"ext4"`, in: theKeyserver, base: onCSI},
	"kek.volume.csi.volumeAttributes":            {set: `{"a":"b"}`, in: theKeyserver, base: onCSI},
	"kek.volume.csi.nodePublishSecretRef.name":   {set: `"other"`, in: theKeyserver, base: onCSI},
	"image.repository":                           {set: `"registry.example/other"`, in: theManager},
	"image.tag":                                  {set: `"other"`, in: theManager},
	"image.digest":                               {set: `"sha256:` + strings.Repeat("0", 64) + `"`, in: theManager},
	"image.pullPolicy":                           {set: `"Always"`, in: theManager},
	"image.previous":                             {set: `["lethe@sha256:` + strings.Repeat("0", 64) + `"]`, in: theKeyserver},
	"image.retired":                              {set: `["lethe:old"]`, in: theManager},
	"keysNamespace":                              {set: `"other-keys"`, in: "Namespace /other-keys"},
	"manager.replicas":                           {set: `3`, in: theManager},
	"manager.workers":                            {set: `11`, in: theManager},
	"manager.changesBudget":                      {set: `"64Mi"`, in: theManager},
	"manager.rollout.percent":                    {set: `6`, in: theManager},
	"manager.rollout.stopAfter":                  {set: `4`, in: theManager},
	"manager.rollout.deadline":                   {set: `"6m"`, in: theManager},
	"manager.resources.requests":                 {set: `{"cpu":"200m"}`, in: theManager},
	"manager.resources.limits":                   {set: `{"memory":"1Gi"}`, in: theManager},
	"keyserver.replicas":                         {set: `3`, in: theKeyserver},
	"keyserver.resources.requests":               {set: `{"cpu":"200m"}`, in: theKeyserver},
	"keyserver.resources.limits":                 {set: `{"memory":"1Gi"}`, in: theKeyserver},
	"dns.podLabels":                              {set: `{"example.com/dns":"ours"}`, in: policies + "lethe-manager"},
	"networkPolicy.closedAddresses":              {set: `["203.0.113.7/32"]`, in: theManager},
	"networkPolicy.apiServerPorts":               {set: `[443]`, in: policies + "lethe-api-server"},
	"networkPolicy.metricsNamespace":             {set: `"metrics"`, in: policies + "lethe-keyserver"},
	"networkPolicy.kinds[].group":                {set: `networkPolicy.kinds=[{"group":"networking.k8s.io","resource":"networkpolicies"},{"group":"b.example","resource":"walls"}]`, in: theManager, base: twoKinds},
	"networkPolicy.kinds[].resource":             {set: `networkPolicy.kinds=[{"group":"networking.k8s.io","resource":"networkpolicies"},{"group":"a.example","resource":"doors"}]`, in: theManager, base: twoKinds},
	"flowControl.install":                        {set: `false`, in: "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io /"},
	"flowControl.ownShares":                      {set: `21`, in: "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io /"},
	"botFinalizer.install":                       {set: `false`, in: "MutatingAdmissionPolicy.admissionregistration.k8s.io /lethe-bot-finalizer", base: slices.Concat(plain, serves)},
	"flowControl.tenantShares":                   {set: `6`, in: "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io /"},
	"monitoring.podMonitor.enabled":              {set: `true`, in: "PodMonitor.monitoring.coreos.com "},
	"monitoring.podMonitor.interval":             {set: `"15s"`, in: "PodMonitor.monitoring.coreos.com ", base: scraped},
	"monitoring.prometheusRule.enabled":          {set: `true`, in: "PrometheusRule.monitoring.coreos.com "},
	"monitoring.labels":                          {set: `{"release":"prometheus"}`, in: "PrometheusRule.monitoring.coreos.com ", base: scraped},
	"rbac.aggregate":                             {set: `false`, in: "ClusterRole.rbac.authorization.k8s.io /lethe-aggregate-to-view"},
	"crds.install":                               {set: `false`, in: "CustomResourceDefinition.apiextensions.k8s.io /tenants.lethe.dev"},
	"nodeSelector":                               {set: `{"pool":"platform"}`, in: theManager},
	"tolerations":                                {set: `[{"key":"example.com/pool","operator":"Exists"}]`, in: theManager},
	"topologySpread[].topologyKey":               {set: `topologySpread=[{"topologyKey":"rack"}]`, in: theKeyserver, base: spread},
	"topologySpread[].maxSkew":                   {set: `topologySpread=[{"topologyKey":"zone","maxSkew":2}]`, in: theKeyserver, base: spread},
	"topologySpread[].whenUnsatisfiable":         {set: `topologySpread=[{"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}]`, in: theKeyserver, base: spread},
}

// TestEveryValueDoesSomething walks what the schema and values.yaml have, and sets each to another valid value, with
// the company that it needs: the object that it is for is then another. A new value fails until it is in one of the
// tables, and does something.
func TestEveryValueDoesSomething(t *testing.T) {
	tables := slices.Concat(slices.Collect(maps.Keys(changed)), slices.Collect(maps.Keys(notOurs)))
	for set := range placed {
		path, _, _ := strings.Cut(set, "=")
		tables = append(tables, path)
	}
	known := schemaLeaves(t)
	for _, path := range known {
		list, _, inList := strings.Cut(path, "[]")
		fields := 0
		for _, leaf := range known {
			if strings.HasPrefix(leaf, list+"[]") {
				fields++
			}
		}
		if alone := inList && fields == 1; !slices.Contains(tables, path) && (!alone || !slices.Contains(tables, list)) {
			t.Errorf("value %s is set by no test", path)
		}
	}
	for _, path := range tables {
		if !slices.ContainsFunc(known, func(leaf string) bool { return leaf == path || strings.HasPrefix(leaf, path+"[]") }) {
			t.Errorf("there is no value %s", path)
		}
	}
	for _, path := range valuesLeaves(t) {
		if !slices.ContainsFunc(known, func(leaf string) bool {
			return leaf == path || strings.HasPrefix(path, leaf+".") || strings.HasPrefix(leaf, path+"[]") || strings.HasPrefix(leaf, path+".")
		}) {
			t.Errorf("values.yaml has %s, and the schema does not", path)
		}
	}
	bases := map[string]map[string]string{}
	for path, c := range changed {
		base := c.base
		if base == nil {
			base = plain
		}
		set := c.set
		if !strings.Contains(set, "={") && !strings.Contains(set, "=[") {
			set = path + "=" + set
		}
		if c.refused != "" {
			if _, err := renderChart("lethe-system", base...); err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("without %s: %v, want %q", path, err, c.refused)
			}
		} else if name := strings.Join(base, " "); bases[name] == nil {
			bases[name] = texts(t, mustRender(renderChart("lethe-system", base...))(t))
		}
		before, after := bases[strings.Join(base, " ")], texts(t, mustRender(renderChart("lethe-system", with(base, set)...))(t))
		differ := false
		for _, name := range slices.Concat(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(after))) {
			differ = differ || strings.HasPrefix(name, c.in) && before[name] != after[name]
		}
		if !differ {
			t.Errorf("%s was set to another value (%s), and %s is what it was", path, set, c.in)
		}
	}
}

// texts are objects as JSON, by what they are.
func texts(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, o := range objects {
		encoded, err := json.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		out[key(o)] = string(encoded)
	}
	return out
}

// schemaLeaves are the paths of all values that the chart takes. What any key may have is one value, and so is a list
// of what has no fields.
func schemaLeaves(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "charts", "lethe", "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Ref                  string           `json:"$ref"`
		Properties           map[string]*node `json:"properties"`
		AdditionalProperties json.RawMessage  `json:"additionalProperties"`
		Items                *node            `json:"items"`
		Definitions          map[string]*node `json:"definitions"`
	}
	var schema node
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	var out []string
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		if name, is := strings.CutPrefix(n.Ref, "#/definitions/"); is {
			n = schema.Definitions[name]
		}
		if n.Items != nil && len(n.Items.Properties) > 0 {
			n, path = n.Items, path+"[]"
		}
		if len(n.Properties) == 0 {
			out = append(out, path)
			return
		}
		if string(n.AdditionalProperties) != "false" {
			t.Errorf("%s takes values that nobody knows", path)
		}
		for name, child := range n.Properties {
			walk(strings.TrimPrefix(path+"."+name, "."), child)
		}
	}
	walk("", &schema)
	slices.Sort(out)
	return out
}

// valuesLeaves are the paths of what values.yaml sets. A list is one value.
func valuesLeaves(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "charts", "lethe", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	var out []string
	var walk func(path string, value any)
	walk = func(path string, value any) {
		fields, is := value.(map[string]any)
		if !is || len(fields) == 0 {
			out = append(out, path)
			return
		}
		for name, child := range fields {
			walk(strings.TrimPrefix(path+"."+name, "."), child)
		}
	}
	walk("", values)
	return out
}
