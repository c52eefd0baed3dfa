package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/test/policies"
)

// everyPage is the text of all pages under docs/.
func everyPage(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	var all strings.Builder
	for _, file := range files {
		all.WriteString(read(t, "docs", filepath.Base(file)) + "\n")
	}
	return all.String()
}

// said are the messages that an API server shows because of Lethe: whole ones, and the constant parts of those that
// are put together.
func said(t *testing.T) (whole, parts []string) {
	t.Helper()
	add := func(message, expression string) {
		if message != "" {
			whole = append(whole, strings.TrimSpace(message))
		}
		for _, literal := range literals.FindAllString(expression, -1) {
			text := strings.ReplaceAll(strings.ReplaceAll(literal[1:len(literal)-1], `\'`, `'`), `\"`, `"`)
			text = strings.ReplaceAll(text, "%d", "…") // the index of an element
			if text = strings.TrimSpace(text); len(text) > 3 && !strings.HasPrefix(text, "^") && !strings.HasPrefix(text, "(?i)") {
				parts = append(parts, text)
			}
		}
	}
	for file := range pages {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal([]byte(read(t, "config", "crd", "bases", file)), &crd); err != nil {
			t.Fatal(err)
		}
		for _, version := range crd.Spec.Versions {
			rules(version.Schema.OpenAPIV3Schema, func(rule apiextensionsv1.ValidationRule) {
				if rule.Message == "" {
					t.Errorf("%s: a rule without a message: %s", file, rule.Rule)
				}
				if rule.MessageExpression == "" {
					add(rule.Message, "")
					return
				}
				add("", rule.MessageExpression) // it is what is shown
			})
		}
	}
	all, err := policies.All(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range all {
		for _, v := range policy.Spec.Validations {
			if v.Message == "" && v.MessageExpression == "" {
				t.Errorf("%s: a validation without a message: %s", policy.Name, v.Expression)
			}
			add(v.Message, v.MessageExpression)
		}
	}
	if len(whole) < 150 || len(parts) < 8 {
		t.Errorf("found %d messages and %d parts only", len(whole), len(parts))
	}
	return whole, parts
}

var literals = regexp.MustCompile(`'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"`)

// rules visits the rules of a schema.
func rules(schema *apiextensionsv1.JSONSchemaProps, visit func(apiextensionsv1.ValidationRule)) {
	for _, rule := range schema.XValidations {
		visit(rule)
	}
	for name := range schema.Properties {
		property := schema.Properties[name]
		rules(&property, visit)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		rules(schema.Items.Schema, visit)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		rules(schema.AdditionalProperties.Schema, visit)
	}
}

// TestEveryMessageHasItsRemedy: whoever searches the docs for what the API server said finds it, word by word, beside
// what to do.
func TestEveryMessageHasItsRemedy(t *testing.T) {
	whole, parts := said(t)
	all := everyPage(t)
	for _, message := range whole {
		if !strings.Contains(all, "`"+message+"`") {
			t.Errorf("no page has: %s", message)
		}
	}
	for _, part := range parts {
		if !strings.Contains(all, part) {
			t.Errorf("no page has the part: %s", part)
		}
	}
	// Nor has the page what nobody says.
	rows := 0
	for line := range strings.Lines(read(t, "docs", "messages.md")) {
		message, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		rows++
		message, _, _ = strings.Cut(message, "` |")
		if slices.Contains(whole, message) {
			continue
		}
		for piece := range strings.SplitSeq(message, "…") {
			piece = strings.TrimSpace(piece)
			if !slices.ContainsFunc(parts, func(part string) bool {
				return strings.Contains(part, piece) || strings.Contains(strings.Join(parts, " "), piece)
			}) {
				t.Errorf("nobody says: %s", message)
			}
		}
	}
	// The pages of the kinds quote them in short.
	for _, page := range pages {
		_, table, ok := strings.Cut(read(t, "docs", page), "| message | remedy |")
		if !ok {
			t.Errorf("%s has no table of refusals", page)
		}
		for line := range strings.Lines(table) {
			message, ok := strings.CutPrefix(line, "| `")
			if !ok {
				continue
			}
			message, _, _ = strings.Cut(message, "` |")
			for piece := range strings.SplitSeq(message, "…") {
				if piece = strings.TrimSpace(piece); !strings.Contains(strings.Join(whole, "\n")+strings.Join(parts, "\n"), piece) {
					t.Errorf("%s: nobody says: %s", page, message)
				}
			}
		}
	}
	if rows < 130 {
		t.Errorf("%d rows only", rows)
	}
}

// TestTablesAreWhole: a row of a table has the cells of its head, and a head has its line beneath.
func TestTablesAreWhole(t *testing.T) {
	seen := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "docs/runbooks/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(content), "\n")
			for i := 0; i < len(lines); i++ {
				if !strings.HasPrefix(lines[i], "|") {
					continue
				}
				seen++
				head := cells(lines[i])
				if i+1 >= len(lines) || !regexp.MustCompile(`^\|(-+\|)+$`).MatchString(lines[i+1]) {
					t.Errorf("%s:%d: a table without a line beneath its head", filepath.Base(file), i+1)
				}
				for ; i < len(lines) && strings.HasPrefix(lines[i], "|"); i++ {
					if n := cells(lines[i]); n != head {
						t.Errorf("%s:%d: %d cells, the head has %d: %.80s", filepath.Base(file), i+1, n, head, lines[i])
					}
				}
			}
		}
	}
	if seen < 40 {
		t.Errorf("%d tables only", seen)
	}
}

var code = regexp.MustCompile("`[^`]*`")

func cells(line string) int {
	return strings.Count(strings.ReplaceAll(code.ReplaceAllString(line, ""), `\|`, ""), "|") - 1
}
