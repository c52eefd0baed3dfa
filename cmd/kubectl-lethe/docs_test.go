package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"
)

var (
	shBlock  = regexp.MustCompile("(?s)```sh\n(.*?)```")
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	// Where a shell's command ends.
	ends = []string{"|", ">", "<", "&&", ";", "#", "$(", ")"}
)

// page is a text that people take commands from.
type page struct{ name, text string }

func docPages(t *testing.T) []page {
	t.Helper()
	var all []page
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "docs/runbooks/*.md", "examples/*/*.md", "config/samples/*.yaml", "examples/*/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page{filepath.Base(file), string(content)})
		}
	}
	return all
}

// commandsIn are the commands of a program that a text has, as words: of its shell blocks, and of what stands between
// backquotes.
func commandsIn(text, program string) (whole, mentioned [][]string) {
	for _, block := range shBlock.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			whole = append(whole, commandsOf(line, program)...)
		}
	}
	for _, span := range codeSpan.FindAllStringSubmatch(shBlock.ReplaceAllString(text, ""), -1) {
		mentioned = append(mentioned, commandsOf(span[1], program)...)
	}
	return whole, mentioned
}

func commandsOf(line, program string) (out [][]string) {
	words := strings.Fields(line)
	head := strings.Fields(program)
	for i := range words {
		if i+len(head) > len(words) || strings.TrimPrefix(words[i], "$(") != head[0] || !slices.Equal(words[i+1:i+len(head)], head[1:]) {
			continue
		}
		var args []string
		for _, word := range words[i+len(head):] {
			if slices.ContainsFunc(ends, func(end string) bool { return strings.HasPrefix(word, end) }) {
				break
			}
			args = append(args, strings.Trim(word, `"'`))
		}
		out = append(out, args)
	}
	return out
}

// understood says what the program would say of its arguments, before it did anything.
func understood(args []string, whole bool) error {
	s := &shell{IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &bytes.Buffer{}, ErrOut: &bytes.Buffer{}}, config: genericclioptions.NewConfigFlags(true)}
	root := newRoot(s)
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	left := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(left) > 0 {
		return knownCommand(cmd, left)
	}
	if !whole && len(left) == 0 {
		return nil // it is only named
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateArgs(left)
}

// TestDocumentedCommandsExist: each `kubectl lethe …` of a page is one that the program takes: its commands, its
// flags with their values, its arguments.
func TestDocumentedCommandsExist(t *testing.T) {
	wholes, mentions := 0, 0
	for _, p := range docPages(t) {
		whole, mentioned := commandsIn(p.text, "kubectl lethe")
		for _, args := range whole {
			wholes++
			if err := understood(args, true); err != nil {
				t.Errorf("%s: kubectl lethe %s: %v", p.name, strings.Join(args, " "), err)
			}
		}
		for _, args := range mentioned {
			mentions++
			if err := understood(args, false); err != nil {
				t.Errorf("%s: `kubectl lethe %s`: %v", p.name, strings.Join(args, " "), err)
			}
		}
	}
	if wholes < 20 || mentions < 40 {
		t.Errorf("found %d commands and %d mentions only", wholes, mentions)
	}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			for _, args := range commandsOf(line, "kubectl lethe") {
				if err := understood(args, true); err != nil {
					t.Errorf("example of %s: %s: %v", cmd.CommandPath(), strings.TrimSpace(line), err)
				}
			}
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(&shell{config: genericclioptions.NewConfigFlags(true)}))
	for _, bad := range []string{"keys rotate", "keys forget acme --later", "keys backup", "seall", "keys destroy kek", "verify --max-age=soon", "keys verify a b"} {
		if understood(strings.Fields(bad), true) == nil && bad != "keys rotate" {
			t.Errorf("%s is taken: the test shows nothing", bad)
		}
	}
}

// TestDocumentedFlagsExist: a flag that a page names is one of ours, of the programs in the image, or of the tools
// beside which it stands.
func TestDocumentedFlagsExist(t *testing.T) {
	known := map[string]bool{
		// Of kubectl and of Helm.
		"server-side": true, "field-manager": true, "cascade": true, "disable-eviction": true, "set": true, "type": true, "delete": true, "wait": true, "server-dry-run": true,
		"custom-apply-stage-kinds": true, // kustomize-controller's
	}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags(), cmd.InheritedFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(&shell{config: genericclioptions.NewConfigFlags(true)}))
	defined := regexp.MustCompile(`\bf(?:lags)?\.\w+\([^"\n]*"([a-z][-a-z]*)"`)
	for _, pattern := range []string{"main.go", "cmd/keyserver/*.go", "cmd/sweeper/*.go", "cmd/unseal/*.go", "internal/resources/settings.go"} {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range defined.FindAllStringSubmatch(string(content), -1) {
				known[match[1]] = true
			}
		}
	}
	flag, seen := regexp.MustCompile(`^--([a-z][-a-z]*)`), 0
	for _, p := range docPages(t) {
		if !strings.HasSuffix(p.name, ".md") || p.name == "CONTRIBUTING.md" {
			continue
		}
		for _, span := range codeSpan.FindAllStringSubmatch(p.text, -1) {
			if match := flag.FindStringSubmatch(span[1]); match != nil {
				if seen++; !known[match[1]] {
					t.Errorf("%s: there is no flag --%s", p.name, match[1])
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("%d flags only", seen)
	}
}

// TestDocumentedValuesExist: what a page sets in the chart, or names of it, is in the chart's values.
func TestDocumentedValuesExist(t *testing.T) {
	var values, schema map[string]any
	for file, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		content, err := os.ReadFile(filepath.Join("..", "..", "charts", "lethe", file))
		if err == nil {
			err = yaml.Unmarshal(content, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(path string) bool {
		at, in := any(values), any(schema)
		for _, part := range strings.Split(path, ".") {
			m, _ := at.(map[string]any)
			next, there := m[part]
			object, _ := in.(map[string]any)
			properties, _ := object["properties"].(map[string]any)
			sub, described := properties[part]
			if !there && !described {
				// Below what takes any object of Kubernetes' own.
				free, _ := object["additionalProperties"].(bool)
				_, closed := object["additionalProperties"]
				return object != nil && (free || !closed) && properties == nil
			}
			at, in = next, sub
		}
		return true
	}
	set, named, seen := regexp.MustCompile(`--set(?:-string|-json|-file)? ([\w.\\-]+)=`), regexp.MustCompile(`^([a-z][A-Za-z]*(?:\.[a-zA-Z]+)+)(?:=\S*)?$`), 0
	for _, p := range docPages(t) {
		for _, match := range set.FindAllStringSubmatch(p.text, -1) {
			if seen++; !has(match[1]) {
				t.Errorf("%s sets %s, which the chart does not have", p.name, match[1])
			}
		}
		for _, span := range codeSpan.FindAllStringSubmatch(p.text, -1) {
			match := named.FindStringSubmatch(span[1])
			if match == nil {
				continue
			}
			top, _, _ := strings.Cut(match[1], ".")
			if _, ours := values[top]; !ours || slices.Contains([]string{"resources", "image"}, top) && !strings.HasSuffix(p.name, ".md") {
				continue // a field of an object
			}
			if seen++; !has(match[1]) {
				t.Errorf("%s names %s, which the chart does not have", p.name, match[1])
			}
		}
	}
	if seen < 15 {
		t.Errorf("%d values only", seen)
	}
	for _, bad := range []string{"kek.source2", "realms", "networkPolicy.kindz"} {
		if has(bad) {
			t.Errorf("%s exists: the test shows nothing", bad)
		}
	}
}
