package specs

import (
	"slices"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestRandomSetsEveryField: what is tried on random bots is tried with each field that a bot has, by each way that
// leads to it.
func TestRandomSetsEveryField(t *testing.T) {
	var bots []v1alpha1.BotDeploymentSpec
	for seed := range uint64(400) {
		bots = append(bots, Random(seed))
	}
	for _, f := range Fields(bots...) {
		if !f.Set {
			t.Errorf("spec.%s is set in none of %d random bots", f.Path, len(bots))
		}
	}
}

// TestFields: a field that is not set is found at any depth.
func TestFields(t *testing.T) {
	type leaf struct {
		A string            `json:"a,omitempty"`
		B map[string]string `json:"b,omitempty"`
	}
	type tree struct {
		One  *leaf  `json:"one,omitempty"`
		Many []leaf `json:"many,omitempty"`
		N    int    `json:"n,omitempty"`
	}
	for name, tc := range map[string]struct {
		values []tree
		paths  []string
		names  []string
	}{
		"nothing":       {nil, []string{"one.a", "one.b", "many[].a", "many[].b", "n"}, []string{"leaf.a", "leaf.b", "tree.n"}},
		"by one way":    {[]tree{{One: &leaf{A: "x"}, N: 1}}, []string{"one.b", "many[].a", "many[].b"}, []string{"leaf.b"}},
		"an empty map":  {[]tree{{One: &leaf{A: "x", B: map[string]string{}}}}, []string{"one.b", "many[].a", "many[].b", "n"}, []string{"leaf.b", "tree.n"}},
		"in the second": {[]tree{{}, {Many: []leaf{{}, {B: map[string]string{"x": ""}}}}}, []string{"one.a", "one.b", "many[].a", "n"}, []string{"leaf.a", "tree.n"}},
	} {
		fields := Fields(tc.values...)
		var paths []string
		for _, f := range fields {
			if !f.Set {
				paths = append(paths, f.Path)
			}
		}
		if !slices.Equal(paths, tc.paths) || !slices.Equal(Unset(fields), tc.names) {
			t.Errorf("%s: %q %q, want %q %q", name, paths, Unset(fields), tc.paths, tc.names)
		}
	}
}
