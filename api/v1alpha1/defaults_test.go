package v1alpha1

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// TestDefaultsAreTheMarkers: a default that code has is the one that the API server fills in. Every constant of
// defaults.go has its field here.
func TestDefaultsAreTheMarkers(t *testing.T) {
	fields := map[string]struct {
		value any
		kind  string
		path  string
	}{
		"DefaultQuotaBots":     {DefaultQuotaBots, "tenants", "spec.quota.bots"},
		"DefaultQuotaStores":   {DefaultQuotaStores, "tenants", "spec.quota.stores"},
		"DefaultQuotaPods":     {DefaultQuotaPods, "tenants", "spec.quota.pods"},
		"DefaultPostgresPort":  {DefaultPostgresPort, "datastores", "spec.postgres.port"},
		"DefaultReclaimPolicy": {DefaultReclaimPolicy, "botdeployments", "spec.storage.reclaimPolicy"},
	}
	for name, field := range fields {
		content, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "lethe.dev_"+field.kind+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var crd map[string]any
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		versions := crd["spec"].(map[string]any)["versions"].([]any)
		schema := versions[0].(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
		for _, part := range strings.Split(field.path, ".") {
			properties, _ := schema["properties"].(map[string]any)
			if schema, _ = properties[part].(map[string]any); schema == nil {
				t.Fatalf("%s has no field %s", field.kind, field.path)
			}
		}
		if got, want := fmt.Sprint(schema["default"]), fmt.Sprint(field.value); got != want {
			t.Errorf("%s is %s, and the marker of %s says %s", name, want, field.path, got)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "defaults.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if _, ok := fields[spec.Names[0].Name]; !ok {
				t.Errorf("%s is held against no field", spec.Names[0].Name)
			}
		}
		return true
	})
}
