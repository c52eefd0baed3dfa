// Package steady looks that a manager writes nothing where nothing has changed, and puts right whatever somebody
// changes.
package steady_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/operator"
)

// ownedFields is how many changes of children the API server allows, at the least: each is repaired by itself. Fewer,
// and the test has gone blind.
const ownedFields = 700

// TestEveryOwnedFieldIsRepaired changes each field of each child by hand, and adds to each list and map, wherever the
// API server allows it; the world must come back to what it was. Eight bots are alike, and each gets every eighth
// change of its children, all at a time.
func TestEveryOwnedFieldIsRepaired(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.RichTenant("drift", "drift-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	var bots []*v1alpha1.BotDeployment
	for i := range 8 {
		bots = append(bots, operator.RichBot("drift-a", fmt.Sprintf("rich-%d", i)))
		w.Create(operator.RichConfig(bots[i]), bots[i])
	}
	for _, bot := range bots {
		w.Becomes(bot, "Ready=True")
	}
	w.Becomes(tenant, "InUse=True")
	w.Calm()

	repaired := 0
	alike := [][]client.Object{}
	for k, child := range operator.ChildrenOf(tenant, bots[0]) {
		alike = append(alike, []client.Object{child})
		for _, bot := range bots[1:] {
			if its := operator.ChildrenOf(tenant, bot)[k]; its.GetName() != child.GetName() { // else it is the Tenant's
				alike[k] = append(alike[k], its)
			}
		}
	}
	for _, children := range alike {
		t.Run(fmt.Sprintf("%T/%s", children[0], children[0].GetName()), func(t *testing.T) {
			w := w.In(t)
			var was []*unstructured.Unstructured
			var changes [][]hand
			for i, child := range children {
				was = append(was, raw(w, child))
				changes = append(changes, hands(was[i].Object))
				if len(changes[i]) != len(changes[0]) {
					t.Fatalf("%s has %d fields, %s has %d", child.GetName(), len(changes[i]), children[0].GetName(), len(changes[0]))
				}
			}
			accepted := 0
			for first := 0; first < len(changes[0]); first += len(children) {
				var repairs []func()
				for i := range children {
					if first+i >= len(changes[i]) {
						break
					}
					h := changes[i][first+i]
					if tamper(w, was[i], h) {
						repairs = append(repairs, func() { w.Soon(h.what, func() error { return isAsBefore(w, was[i]) }) })
					}
				}
				for _, repair := range repairs {
					repair()
				}
				accepted += len(repairs)
			}
			t.Logf("%d changes were possible, and repaired", accepted)
			repaired += accepted
			// The copy of the CA is behind a wall that lets nobody but the manager write it.
			if _, isWalled := children[0].(*corev1.ConfigMap); isWalled != (accepted == 0) {
				t.Errorf("%d changes were possible", accepted)
			}
			if _, isNamespace := children[0].(*corev1.Namespace); isNamespace {
				return
			}
			w.Delete(children[0])
			w.Soon("made again", func() error { return isAsBefore(w, was[0]) })
		})
	}
	if repaired < ownedFields {
		t.Errorf("%d changes were possible, and repaired: fewer than %d", repaired, ownedFields)
	}
}

// hand is one change of an object.
type hand struct {
	what string
	do   func(object map[string]any)
}

// hands are all changes of the fields that we own: each leaf, each list, each map.
func hands(object map[string]any) []hand {
	var all []hand
	for _, key := range slices.Sorted(mapKeys(object)) {
		switch key {
		case "apiVersion", "kind", "status":
		case "metadata":
			all = append(all, metadataHands(object)...)
		case "secrets", "imagePullSecrets":
		case "spec":
			if object["kind"] == "Namespace" {
				continue
			}
			fallthrough
		default:
			all = append(all, walk([]any{key}, object[key])...)
		}
	}
	return all
}

func metadataHands(object map[string]any) []hand {
	var all []hand
	meta, _ := object["metadata"].(map[string]any)
	for _, kind := range []string{"labels", "annotations"} {
		set, _ := meta[kind].(map[string]any)
		for _, key := range slices.Sorted(mapKeys(set)) {
			if key == corev1.LabelMetadataName || key == v1alpha1.LabelTenant {
				continue // the API server's own; and the one that says whose a namespace is
			}
			all = append(all,
				hand{"remove " + key, func(o map[string]any) { delete(at(o, []any{"metadata", kind}).(map[string]any), key) }},
				hand{"change " + key, func(o map[string]any) { at(o, []any{"metadata", kind}).(map[string]any)[key] = "other" }})
		}
	}
	if owners, ok := meta["ownerReferences"].([]any); ok && len(owners) == 1 {
		all = append(all, hand{"change ownerReferences[0].name", func(o map[string]any) {
			at(o, []any{"metadata", "ownerReferences", 0}).(map[string]any)["name"] = "other"
		}})
	}
	return all
}

func walk(path []any, value any) []hand {
	name := fmt.Sprint(path)
	switch v := value.(type) {
	case map[string]any:
		var all []hand
		for _, key := range slices.Sorted(mapKeys(v)) {
			all = append(all, walk(append(slices.Clone(path), key), v[key])...)
			all = append(all, hand{"remove " + name + key, func(o map[string]any) { delete(at(o, path).(map[string]any), key) }})
		}
		return append(all, hand{"add to " + name, func(o map[string]any) { at(o, path).(map[string]any)["example.com-x"] = "x" }})
	case []any:
		var all []hand
		for i := range v {
			all = append(all, walk(append(slices.Clone(path), i), v[i])...)
		}
		return append(all,
			hand{"empty " + name, func(o map[string]any) { put(o, path, []any{}) }},
			hand{"append to " + name, func(o map[string]any) {
				list := at(o, path).([]any)
				put(o, path, append(list, renamed(list[len(list)-1])))
			}})
	case string:
		return []hand{
			{"change " + name, func(o map[string]any) { put(o, path, other(v)) }},
		}
	case bool:
		return []hand{{"flip " + name, func(o map[string]any) { put(o, path, !v) }}}
	case int64:
		return []hand{{"increase " + name, func(o map[string]any) { put(o, path, v+1) }}}
	default:
		return nil
	}
}

// other is a different value that has a chance to be valid.
func other(v string) string {
	for _, pair := range [][2]string{{"Ingress", "Egress"}, {"TCP", "UDP"}, {"Always", "IfNotPresent"}, {"IfNotPresent", "Always"}, {"ClusterFirst", "Default"},
		{"Retain", "Delete"}, {"RollingUpdate", "OnDelete"}, {"File", "FallbackToLogsOnError"}, {"OnRootMismatch", "Always"}, {"In", "NotIn"}, {"restricted", "privileged"}} {
		if v == pair[0] {
			return pair[1]
		}
	}
	if strings.HasSuffix(v, "Mi") || strings.HasSuffix(v, "Gi") || strings.HasSuffix(v, "m") {
		return "1" + v
	}
	if strings.Contains(v, "/") && strings.Count(v, ".") == 3 {
		return "198.51.100.0/24"
	}
	return v + "x"
}

func renamed(value any) any {
	encoded, _ := json.Marshal(value)
	var copied any
	_ = json.Unmarshal(encoded, &copied)
	switch c := copied.(type) {
	case map[string]any:
		for _, key := range []string{"name", "mountPath"} {
			if name, ok := c[key].(string); ok {
				c[key] = name + "x"
			}
		}
		if port, ok := c["containerPort"].(float64); ok {
			c["containerPort"] = port + 1
		}
	case string:
		return other(c)
	}
	return copied
}

func at(value any, path []any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			value = value.(map[string]any)[s]
		case int:
			value = value.([]any)[s]
		}
	}
	return value
}

func put(object map[string]any, path []any, value any) {
	parent := at(object, path[:len(path)-1])
	switch s := path[len(path)-1].(type) {
	case string:
		parent.(map[string]any)[s] = value
	case int:
		parent.([]any)[s] = value
	}
}

// tamper changes the object as a hand that the admission policies let through. It says whether the API server allowed
// the change, and the change was one.
func tamper(w *operator.World, was *unstructured.Unstructured, h hand) bool {
	w.T.Helper()
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(was.GroupVersionKind())
	if err := w.Cluster.Get(context.Background(), client.ObjectKeyFromObject(was), now); err != nil {
		w.T.Fatal(err)
	}
	version := now.GetResourceVersion()
	h.do(now.Object)
	err := w.Cluster.Update(context.Background(), now)
	return err == nil && now.GetResourceVersion() != version
}

func raw(w *operator.World, object client.Object) *unstructured.Unstructured {
	w.T.Helper()
	gvk, err := apiutil.GVKForObject(object, operator.TestEnv.Scheme)
	if err != nil {
		w.T.Fatal(err)
	}
	raw := &unstructured.Unstructured{}
	raw.SetGroupVersionKind(gvk)
	if err := w.Cluster.Get(context.Background(), client.ObjectKeyFromObject(object), raw); err != nil {
		w.T.Fatal(err)
	}
	return raw
}

func isAsBefore(w *operator.World, was *unstructured.Unstructured) error {
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(was.GroupVersionKind())
	if err := w.Cluster.Get(context.Background(), client.ObjectKeyFromObject(was), now); err != nil {
		return err
	}
	a, b := operator.Content(was), operator.Content(now)
	if !reflect.DeepEqual(a, b) {
		left, _ := json.Marshal(a)
		right, _ := json.Marshal(b)
		return fmt.Errorf("was %s\nis %s", left, right)
	}
	return nil
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}
