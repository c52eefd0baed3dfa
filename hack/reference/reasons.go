package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// reasons is the page of all reasons: those of the source, in its order and with its comments, and what the API's
// table says of each.
func reasons(path string) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return "", fmt.Errorf("read the reasons: %w", err)
	}
	var out strings.Builder
	out.WriteString("# Reasons\n\nMade by `make manifests` out of [api/v1alpha1/reasons.go](../../api/v1alpha1/reasons.go) and the table beside it; do not edit it. " +
		"Every reason that a condition, an Event, the keyserver's answer or a sweep's report can have. What to do about one is on the page of its kind: " +
		"[Tenant](../tenant.md#reasons-and-what-to-do), [BotDeployment](../botdeployment.md#reasons-and-what-to-do), [DataStore](../datastore.md), " +
		"[DataRetentionPolicy](../dataretentionpolicy.md).\n\n" +
		"*store*: whether a sweep that ended with it talked to its store; empty where it does not tell. *a person*: somebody is wanted, to change something, or to " +
		"look where it lasts, if it is tried again. *tried again*: Lethe or Kubernetes tries again by itself, which may succeed although nobody changes the object. " +
		"*the bot*: fails, and is not only on its way; in brackets, what fails.\n")
	for _, d := range file.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		title := strings.TrimSuffix(oneLine(group.Doc.Text()), ".")
		title, rest, _ := strings.Cut(title, ". ")
		title, of, _ := strings.Cut(title, ": ")
		fmt.Fprintf(&out, "\n## %s\n", title)
		if text := strings.TrimPrefix(strings.TrimSpace(of+". "+rest), "."); text != "" {
			fmt.Fprintf(&out, "%s.\n", strings.TrimSuffix(sentence(strings.TrimSpace(text)), "."))
		}
		out.WriteString("\n| reason | when | store | a person | tried again | the bot |\n|---|---|---|---|---|---|\n")
		for _, spec := range group.Specs {
			one := spec.(*ast.ValueSpec)
			literal, ok := one.Values[0].(*ast.BasicLit)
			if !ok {
				return "", fmt.Errorf("%s is no string", one.Names[0].Name)
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				return "", fmt.Errorf("%s: %w", one.Names[0].Name, err)
			}
			when := strings.TrimPrefix(oneLine(one.Doc.Text()), one.Names[0].Name+": ")
			f := v1alpha1.FactsOf(value)
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s | %s |\n", value, cell(sentence(when)), stores[f.Reached], yes(f.NeedsPerson), yes(f.Retry), bot(f.Pod))
		}
	}
	return out.String(), nil
}

var stores = map[v1alpha1.Truth]string{v1alpha1.TruthYes: "reached", v1alpha1.TruthNo: "not reached"}

// sentence begins with a capital, unless its first word is a field's.
func sentence(text string) string {
	first, _, _ := strings.Cut(text, " ")
	if strings.Contains(strings.TrimRight(first, ".,:"), ".") || strings.ToLower(first) != first {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return ""
}

func bot(f v1alpha1.PodFacts) string {
	switch {
	case f.Image:
		return "fails (image)"
	case f.Ended:
		return "fails (program)"
	case f.Fails:
		return "fails"
	default:
		return ""
	}
}
