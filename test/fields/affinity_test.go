package fields

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/specs"
)

const (
	required  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferred = "preferredDuringSchedulingIgnoredDuringExecution"
)

// affinities is what no field of an affinity may hold.
func affinities(into map[string][]any) {
	key := []any{"", "a b", "/a", "a/", "a/b/c", dots, newline, nul, long(253)}
	requirement := func(at string) {
		at += ".matchExpressions[]"
		into[at+".key"], into[at+".operator"], into[at+".values[]"] = key, word(), []any{"a b", "-a", "a/b", newline, nul, long(63)}
	}
	const nodes = "placement.affinity.nodeAffinity."
	requirement(nodes + required + ".nodeSelectorTerms[]")
	requirement(nodes + preferred + "[].preference")
	into[nodes+preferred+"[].weight"] = number(1, 100)
	for _, pods := range []string{"placement.affinity.podAffinity.", "placement.affinity.podAntiAffinity."} {
		into[pods+preferred+"[].weight"] = number(1, 100)
		for _, term := range []string{required + "[]", preferred + "[].podAffinityTerm"} {
			into[pods+term+".topologyKey"] = key
			requirement(pods + term + ".labelSelector")
		}
	}
}

// TestAffinityThatCannotBe: what says nothing or contradicts itself, and what would reach other namespaces, is
// refused by its name.
func TestAffinityThatCannotBe(t *testing.T) {
	node := func(requirement map[string]any) map[string]any {
		return map[string]any{"nodeAffinity": map[string]any{required: map[string]any{"nodeSelectorTerms": []any{map[string]any{"matchExpressions": []any{requirement}}}}}}
	}
	pod := func(term map[string]any) map[string]any {
		return map[string]any{"podAntiAffinity": map[string]any{required: []any{map[string]any{"topologyKey": "a"}, term}}}
	}
	selecting := func(requirement map[string]any) map[string]any {
		return pod(map[string]any{"topologyKey": "a", "labelSelector": map[string]any{"matchExpressions": []any{requirement}}})
	}
	const first = "spec.placement.affinity.nodeAffinity." + required + ".nodeSelectorTerms[0].matchExpressions[0]"
	const second = "spec.placement.affinity.podAntiAffinity." + required + "[1]"
	many := make([]any, 17)
	for i := range many {
		many[i] = "a"
	}
	for name, tc := range map[string]struct {
		affinity map[string]any
		says     string
	}{
		"nothing":                 {map[string]any{}, "spec.placement.affinity: Invalid value: says nothing: set one of nodeAffinity, podAffinity and podAntiAffinity"},
		"no nodes":                {map[string]any{"nodeAffinity": map[string]any{}}, "spec.placement.affinity.nodeAffinity: Invalid value: says nothing"},
		"no pods":                 {map[string]any{"podAffinity": map[string]any{}}, "spec.placement.affinity.podAffinity: Invalid value: says nothing"},
		"no terms":                {map[string]any{"podAffinity": map[string]any{preferred: []any{}}}, "spec.placement.affinity.podAffinity." + preferred},
		"In without values":       {node(map[string]any{"key": "a", "operator": "In"}), first + ".values: Invalid value: are needed where operator is In or NotIn"},
		"Exists with values":      {node(map[string]any{"key": "a", "operator": "Exists", "values": []any{"b"}}), first + ".values: Invalid value: must be left out where operator is Exists"},
		"Gt of less than nothing": {node(map[string]any{"key": "a", "operator": "Gt", "values": []any{"-7"}}), first + ".values: Invalid value: must be one whole number"},
		"Gt of a word":            {node(map[string]any{"key": "a", "operator": "Gt", "values": []any{"b"}}), first + ".values: Invalid value: must be one whole number"},
		"Lt of two":               {node(map[string]any{"key": "a", "operator": "Lt", "values": []any{"1", "2"}}), first + ".values: Invalid value: must be one whole number"},
		"Lt of nothing":           {node(map[string]any{"key": "a", "operator": "Lt"}), first + ".values: Invalid value: must be one whole number"},
		"too many values":         {node(map[string]any{"key": "a", "operator": "In", "values": many}), first + ".values"},
		"a node's fields":         {map[string]any{"nodeAffinity": map[string]any{required: map[string]any{"nodeSelectorTerms": []any{map[string]any{"matchFields": []any{}}}}}}, "matchFields"},
		"no place":                {pod(map[string]any{}), second + ".topologyKey"},
		"NotIn without values":    {selecting(map[string]any{"key": "a", "operator": "NotIn"}), second + ".labelSelector.matchExpressions[0].values: Invalid value: are needed"},
		"Gt of pods":              {selecting(map[string]any{"key": "a", "operator": "Gt", "values": []any{"1"}}), second + ".labelSelector.matchExpressions[0].operator"},
		"other namespaces":        {pod(map[string]any{"topologyKey": "a", "namespaces": []any{"another"}}), "namespaces"},
		"all namespaces":          {pod(map[string]any{"topologyKey": "a", "namespaceSelector": map[string]any{}}), "namespaceSelector"},
		"an empty selector":       {pod(map[string]any{"topologyKey": "a", "labelSelector": map[string]any{}}), second + ".labelSelector.matchExpressions"},
	} {
		if err := apply(t, with(t, kinds()["Tenant"], "placement", map[string]any{"affinity": tc.affinity})); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
	}
}

// pathsIn are the paths of all that an object sets, as leaves writes them.
func pathsIn(value any, path string, into map[string]bool) {
	into[path] = true
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			pathsIn(below, strings.TrimPrefix(path+"."+name, "."), into)
		}
	case []any:
		for _, below := range v {
			pathsIn(below, path+"[]", into)
		}
	}
}

// TestRandomPlacementsAreTaken: what the API server takes of a Tenant, it takes of the pods of its bots, which would
// otherwise never be made. Each field is set in some.
func TestRandomPlacementsAreTaken(t *testing.T) {
	pods := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fields-placed"}}
	if err := cluster.Client.Create(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	// A pod's own, so that admission does not ask for it.
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pods.Name, Name: "default"}}
	if err := cluster.Client.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(100) {
		tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("random-%d", seed)},
			Spec:   v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "fields-random"}}, Placement: specs.RandomPlacement(seed)},
			Status: v1alpha1.TenantStatus{UIDRange: &v1alpha1.UIDRange{First: 1_000_000_000, Size: 1000}}}
		if err := cluster.Client.Create(t.Context(), tenant.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict")); err != nil {
			t.Fatalf("placement %d: %v\n%+v", seed, err, tenant.Spec.Placement)
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(tenant.Spec.Placement)
		if err != nil {
			t.Fatal(err)
		}
		pathsIn(content, "", seen)
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: pods.Name, Name: "b"}, Spec: specs.Random(seed)}
		template := resources.BotPodTemplate(resources.Settings{}, bot, tenant, "")
		spec := corev1.PodSpec{Affinity: template.Spec.Affinity, Tolerations: template.Spec.Tolerations, NodeSelector: template.Spec.NodeSelector, TopologySpreadConstraints: template.Spec.TopologySpreadConstraints,
			ServiceAccountName: account.Name, AutomountServiceAccountToken: template.Spec.AutomountServiceAccountToken, Containers: []corev1.Container{{Name: "bot", Image: "bot"}}}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pods.Name, Name: "b"}, Spec: spec}
		if err := cluster.Client.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Fatalf("the pod of placement %d: %v\n%+v", seed, err, tenant.Spec.Placement)
		}
	}
	for _, f := range leaves(reflect.TypeFor[v1alpha1.TenantPlacement](), "") {
		if !seen[f.path] {
			t.Errorf("placement.%s is set in none", f.path)
		}
	}
}

// TestTheGreatestAffinityIsWarnedOf: an expression whose cost is above what the API server grants is left out without
// a word, so as many elements as the schema takes, each as long as it may be, are looked at to the last.
func TestTheGreatestAffinityIsWarnedOf(t *testing.T) {
	w := newWarned(t)
	key := repeat("d.1a-", 188) + "d/" + repeat("K_1.a-", 62) + "k"
	list := func(n int, element any) (all []any) {
		for range n {
			all = append(all, element)
		}
		return all
	}
	expressions := func(n int, last string) []any {
		all := list(n, map[string]any{"key": key, "operator": "In", "values": list(16, repeat("1.-a", 62)+"a")})
		return append(all[:n-1], map[string]any{"key": key, "operator": "In", "values": append(list(15, repeat("1.-a", 62)+"a"), last)})
	}
	term := func(last string) map[string]any {
		return map[string]any{"topologyKey": key, "labelSelector": map[string]any{"matchExpressions": expressions(4, last)}}
	}
	pods := func(last string) map[string]any {
		return map[string]any{required: list(4, term(last)), preferred: list(8, map[string]any{"weight": 1, "podAffinityTerm": term(last)})}
	}
	greatest := func(last string) *unstructured.Unstructured {
		return with(t, kinds()["Tenant"], "placement.affinity", map[string]any{
			"nodeAffinity": map[string]any{required: map[string]any{"nodeSelectorTerms": list(4, map[string]any{"matchExpressions": expressions(6, last)})},
				preferred: list(8, map[string]any{"weight": 1, "preference": map[string]any{"matchExpressions": expressions(6, last)}})},
			"podAffinity": pods(last), "podAntiAffinity": pods(last),
		})
	}
	said := strings.Join(w.dryRun(t, greatest("AKIA"+repeat("IOSFODNN7", 16))), "\n")
	for _, place := range []string{"nodeAffinity." + required + ".nodeSelectorTerms[3]", "nodeAffinity." + preferred + "[7]", "podAffinity." + required + "[3]", "podAffinity." + preferred + "[7]",
		"podAntiAffinity." + required + "[3]", "podAntiAffinity." + preferred + "[7]"} {
		if !strings.Contains(said, "spec.placement.affinity."+place) && !strings.Contains(said, "elements of the spec look like credentials") {
			t.Errorf("%s is not named: %.600q", place, said)
		}
	}
	if said := w.dryRun(t, greatest("nothing")); len(said) > 0 {
		t.Errorf("warned of nothing: %.600v", said)
	}
}
