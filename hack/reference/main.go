// Command reference writes docs/reference/api.md out of the CRDs, which are made out of the types in api/: what a
// field is, what it may hold, and by which rules it is refused. Out of the source of the reasons, and out of their
// table, it writes docs/reference/reasons.md. `make manifests` runs it.
//
//	reference FOLDER-OF-CRDS FILE SOURCE-OF-REASONS FILE
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: reference FOLDER-OF-CRDS FILE SOURCE-OF-REASONS FILE")
	}
	list, err := reasons(args[2])
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[3], []byte(list), 0o644); err != nil {
		return fmt.Errorf("write the reasons: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(args[0], "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no CRDs in %s", args[0])
	}
	var out strings.Builder
	out.WriteString("# API reference\n\nMade by `make manifests` out of the types in [api/v1alpha1](../../api/v1alpha1); do not edit it. " +
		"What the fields are for, with examples and reasons, is on the page of each kind; what each message wants of you is in [messages](../messages.md), and what each reason means in [reasons](reasons.md).\n")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a CRD: %w", err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &crd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		kind(&out, &crd)
	}
	if err := os.WriteFile(args[1], []byte(out.String()), 0o644); err != nil {
		return fmt.Errorf("write the reference: %w", err)
	}
	return nil
}

func kind(out *strings.Builder, crd *apiextensionsv1.CustomResourceDefinition) {
	names := crd.Spec.Names
	for _, version := range crd.Spec.Versions {
		schema := version.Schema.OpenAPIV3Schema
		fmt.Fprintf(out, "\n## %s\n`apiVersion: %s/%s`, `kind: %s`, %s.", names.Kind, crd.Spec.Group, version.Name, names.Kind, strings.ToLower(string(crd.Spec.Scope)))
		if len(names.ShortNames) > 0 {
			fmt.Fprintf(out, " Short names: `%s`.", strings.Join(names.ShortNames, "`, `"))
		}
		fmt.Fprintf(out, " %s Explained in [%s](../%s.md).\n", oneLine(schema.Description), names.Kind, strings.ToLower(names.Kind))
		for _, part := range []string{"spec", "status"} {
			property, ok := schema.Properties[part]
			if !ok {
				continue
			}
			fmt.Fprintf(out, "\n### %s of %s\n%s\n\n| field | type | |\n|---|---|---|\n", part, names.Kind, oneLine(property.Description))
			fields(out, part, &property)
			if part == "spec" {
				list := rules("", schema, nil)
				if len(list) > 0 {
					fmt.Fprintf(out, "\nWhat is refused, by the rules of %s:\n\n| at | message |\n|---|---|\n%s", names.Kind, strings.Join(list, ""))
				}
			}
		}
	}
}

// fields writes a row for each field below a schema.
func fields(out *strings.Builder, path string, schema *apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name]
		at := path + "." + name
		what := oneLine(property.Description)
		if b := bounds(&property); b != "" {
			what = strings.TrimSpace(what + " *" + b + "*")
		}
		required := ""
		if slices.Contains(schema.Required, name) {
			required = ", required"
		}
		fmt.Fprintf(out, "| `%s` | %s%s | %s |\n", at, typeOf(&property), required, cell(what))
		if at == "status.conditions" {
			continue // Kubernetes' own
		}
		below(out, at, &property)
	}
}

func below(out *strings.Builder, at string, schema *apiextensionsv1.JSONSchemaProps) {
	fields(out, at, schema)
	if schema.Items != nil && schema.Items.Schema != nil {
		below(out, at+"[]", schema.Items.Schema)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		below(out, at+"{}", schema.AdditionalProperties.Schema)
	}
}

func typeOf(schema *apiextensionsv1.JSONSchemaProps) string {
	switch {
	case schema.XIntOrString:
		return "quantity or number"
	case schema.Type == "array" && schema.Items != nil && schema.Items.Schema != nil:
		return "list of " + typeOf(schema.Items.Schema)
	case schema.Type == "object" && schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil:
		return "map of " + typeOf(schema.AdditionalProperties.Schema)
	case schema.Format == "date-time":
		return "time"
	case schema.Format != "":
		return schema.Format
	default:
		return schema.Type
	}
}

// bounds says in words what a value may be.
func bounds(schema *apiextensionsv1.JSONSchemaProps) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if len(schema.Enum) > 0 {
		var values []string
		for _, v := range schema.Enum {
			values = append(values, strings.Trim(string(v.Raw), `"`))
		}
		add("One of %s.", strings.Join(values, ", "))
	}
	between := func(what string, low, high *int64) {
		switch {
		case low != nil && high != nil:
			add("%d to %d%s.", *low, *high, what)
		case high != nil:
			add("At most %d%s.", *high, what)
		case low != nil:
			add("At least %d%s.", *low, what)
		}
	}
	between(" characters", schema.MinLength, schema.MaxLength)
	between(" items", schema.MinItems, schema.MaxItems)
	between(" entries", schema.MinProperties, schema.MaxProperties)
	between("", whole(schema.Minimum), whole(schema.Maximum))
	if d := schema.Default; d != nil && len(d.Raw) <= 64 && string(d.Raw) != "{}" {
		add("Default: `%s`.", strings.Trim(string(d.Raw), `"`))
	}
	if schema.XListType != nil && *schema.XListType == "map" {
		add("One for each %s.", strings.Join(schema.XListMapKeys, " and "))
	}
	return strings.Join(parts, " ")
}

func whole(f *float64) *int64 {
	if f == nil {
		return nil
	}
	n := int64(*f)
	return &n
}

// rules are rows for what is refused, at each place below a schema.
func rules(at string, schema *apiextensionsv1.JSONSchemaProps, list []string) []string {
	for _, rule := range schema.XValidations {
		where := strings.TrimPrefix(at+rule.FieldPath, ".")
		if where == "" {
			where = "the object"
		} else {
			where = "`" + where + "`"
		}
		message := rule.Message
		if message == "" {
			message = "…"
		}
		list = append(list, fmt.Sprintf("| %s | `%s` |\n", where, cell(oneLine(message))))
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name]
		list = rules(at+"."+name, &property, list)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		list = rules(at+"[]", schema.Items.Schema, list)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		list = rules(at+"{}", schema.AdditionalProperties.Schema, list)
	}
	return list
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
