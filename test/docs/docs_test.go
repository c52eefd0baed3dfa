// Package docs holds the pages in docs/ against the code: every field, condition and reason is explained, every
// example is valid, and every link leads somewhere.
package docs

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

var root = filepath.Join("..", "..")

// pages of the kinds, by the file of their CRD.
var pages = map[string]string{
	"lethe.dev_tenants.yaml":               "tenant.md",
	"lethe.dev_botdeployments.yaml":        "botdeployment.md",
	"lethe.dev_datastores.yaml":            "datastore.md",
	"lethe.dev_dataretentionpolicies.yaml": "dataretentionpolicy.md",
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestEveryFieldIsExplained(t *testing.T) {
	for file, page := range pages {
		text := read(t, "docs", page)
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal([]byte(read(t, "config", "crd", "bases", file)), &crd); err != nil {
			t.Fatal(err)
		}
		schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		fields := map[string]bool{}
		for _, part := range []string{"spec", "status"} {
			collect(schema.Properties[part], fields)
		}
		for name := range fields {
			if !regexp.MustCompile(`[.\x60\[]`+name+`\b`).MatchString(text) && !strings.Contains(text, name+":") {
				t.Errorf("%s does not explain the field %s", page, name)
			}
		}
	}
}

// collect gathers the names of all fields but those of Kubernetes' own types.
func collect(schema apiextensionsv1.JSONSchemaProps, fields map[string]bool) {
	for name, property := range schema.Properties {
		fields[name] = true
		if name != "conditions" && name != "storeSelector" {
			collect(property, fields)
		}
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		collect(*schema.Items.Schema, fields)
	}
}

func TestEveryConditionAndReasonIsExplained(t *testing.T) {
	// A reason stands in a table, beside what happened and what to do; a condition in one, beside when it is True.
	var tables []string
	for _, page := range pages {
		for line := range strings.Lines(read(t, "docs", page)) {
			if strings.HasPrefix(line, "| ") {
				first, rest, _ := strings.Cut(line[2:], " | ")
				tables = append(tables, first)
				if _, after, ok := strings.Cut(rest, "True when"); ok {
					tables = append(tables, after)
				}
				// The reasons of a condition that is True stand with the condition.
				if strings.Contains(rest, "(`") {
					tables = append(tables, rest)
				}
			}
		}
	}
	all := strings.Join(tables, "\n")
	for _, prefix := range []string{"Condition", "Reason"} {
		names := constants(t, "api/v1alpha1", prefix)
		if len(names) < 14 {
			t.Errorf("%d constants %s* only", len(names), prefix)
		}
		for _, name := range names {
			if !strings.Contains(all, "`"+name+"`") {
				t.Errorf("no table explains %s", name)
			}
		}
	}
}

// TestEachKindExplainsItsOwnReasons: a reason that a kind's controller gives stands in a table of that kind's page,
// so that nobody searches four.
func TestEachKindExplainsItsOwnReasons(t *testing.T) {
	values := named(t, "api/v1alpha1", "Reason")
	uses := regexp.MustCompile(`\bReason[A-Z]\w+`)
	for page, patterns := range map[string][]string{
		"tenant.md":              {"controllers/tenant/*.go", "internal/status/tenant.go"},
		"botdeployment.md":       {"controllers/bot/*.go", "internal/status/bot.go"},
		"datastore.md":           {"controllers/datastore/*.go", "internal/status/datastore.go", "internal/status/measure.go", "internal/stores/postgres/*.go", "internal/sweep/*.go", "internal/planner/*.go"},
		"dataretentionpolicy.md": {"controllers/retentionpolicy/*.go", "internal/status/dataretentionpolicy.go"},
	} {
		var rows strings.Builder
		for line := range strings.Lines(read(t, "docs", page)) {
			if strings.HasPrefix(line, "| ") {
				rows.WriteString(line)
			}
		}
		seen := map[string]bool{}
		for _, pattern := range patterns {
			files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: no files, %v", pattern, err)
			}
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range uses.FindAllString(string(content), -1) {
					value, ok := values[name]
					if ok && !seen[value] && !strings.Contains(rows.String(), "`"+value+"`") {
						t.Errorf("no table of %s has %s, of %s", page, value, filepath.Base(file))
					}
					seen[value] = true
				}
			}
		}
		if len(seen) < 5 {
			t.Errorf("%s: %d reasons only", page, len(seen))
		}
		if page == "dataretentionpolicy.md" {
			continue // it makes no children
		}
		// What shared code says of any of them.
		for _, value := range []string{"NameTaken", "Refused", "Forbidden", "Terminating", "Retrying", "QuotaExceeded", "KeyserverUnavailable"} {
			if !strings.Contains(rows.String(), "`"+value+"`") {
				t.Errorf("no table of %s has %s", page, value)
			}
		}
	}
}

// constants are the values of string constants whose name begins with a prefix.
func constants(t *testing.T, folder, prefix string) []string {
	t.Helper()
	return slices.Sorted(maps.Values(named(t, folder, prefix)))
}

// named are those constants by name.
func named(t *testing.T, folder, prefix string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			generic, ok := declaration.(*ast.GenDecl)
			if !ok || generic.Tok != token.CONST {
				continue
			}
			for _, spec := range generic.Specs {
				value := spec.(*ast.ValueSpec)
				for i, name := range value.Names {
					if !strings.HasPrefix(name.Name, prefix) || i >= len(value.Values) {
						continue
					}
					if literal, ok := value.Values[i].(*ast.BasicLit); ok && literal.Kind == token.STRING {
						text, err := strconv.Unquote(literal.Value)
						if err != nil {
							t.Fatal(err)
						}
						values[name.Name] = text
					}
				}
			}
		}
	}
	return values
}

var fence = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func TestExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		for _, block := range fence.FindAllStringSubmatch(read(t, "docs", filepath.Base(file)), -1) {
			for _, document := range strings.Split(block[1], "\n---\n") {
				var meta metav1.TypeMeta
				if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
					t.Errorf("%s: %v", filepath.Base(file), err)
				}
				kinds := map[string]any{
					"Tenant": &v1alpha1.Tenant{}, "BotDeployment": &v1alpha1.BotDeployment{}, "DataStore": &v1alpha1.DataStore{},
					"DataRetentionPolicy": &v1alpha1.DataRetentionPolicy{}, "Namespace": &corev1.Namespace{}, "ClusterRole": &rbacv1.ClusterRole{},
				}
				into, ok := kinds[meta.Kind]
				if !ok {
					continue // values of the chart, a kustomization
				}
				seen++
				if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
					t.Errorf("%s: %s: %v", filepath.Base(file), meta.Kind, err)
				}
			}
		}
	}
	if seen < 6 {
		t.Errorf("found %d examples only", seen)
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "docs/runbooks/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files)
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range link.FindAllSubmatch(bytes.ReplaceAll(content, []byte("`"), nil), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(file), filepath.FromSlash(string(match[1])))); err != nil {
					t.Errorf("%s links to %s, which does not exist", filepath.Base(file), match[1])
				}
			}
		}
	}
}

var uses = regexp.MustCompile(`uses: (\S+)`)
var pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)

// TestWorkflowsArePinned: an action by tag is whatever its tag points to tomorrow, and a token that can write is a
// way in.
func TestWorkflowsArePinned(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	for _, file := range files {
		content := read(t, ".github", "workflows", filepath.Base(file))
		if !strings.Contains(content, "\npermissions: {}\n") || regexp.MustCompile(`:\s*write\b`).MatchString(content) {
			t.Errorf("%s: want no permissions at the top, and none to write", filepath.Base(file))
		}
		for _, match := range uses.FindAllStringSubmatch(content, -1) {
			if !pinned.MatchString(match[1]) {
				t.Errorf("%s: %s is not pinned to a commit", filepath.Base(file), match[1])
			}
		}
	}
}
