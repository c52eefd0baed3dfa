package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// viewVersion is the apiVersion of what this program tells programs: verdicts, states, plans. They are objects of no
// cluster.
const viewVersion = "cli.lethe.dev/v1alpha1"

// outputFlag is -o. Left out, a command speaks to people.
type outputFlag struct {
	format  string
	allowed []string
}

// forPrograms are the forms that cli-runtime's printers write.
var forPrograms = []string{"json", "yaml", "name"}

// addOutput gives a command -o; allowed are the forms, which are for people where none is said.
func addOutput(cmd *cobra.Command, usage string, allowed ...string) *outputFlag {
	o := &outputFlag{allowed: allowed}
	cmd.Flags().StringVarP(&o.format, "output", "o", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp)) // it was just added
	return o
}

// check refuses another form, without repeating it.
func (o *outputFlag) check() error {
	if o.format == "" || slices.Contains(o.allowed, o.format) {
		return nil
	}
	return fmt.Errorf("-o: say %s, or leave it out (what was given is not repeated here)", strings.Join(o.allowed, " or "))
}

// shown is what is told of one object of the cluster.
type shown struct {
	kind            string // of the object
	namespace, name string
	viewKind        string
	view            any // its fields beside apiVersion, kind and metadata
}

// of is a view of an object.
func view(viewKind string, view any, kind, namespace, name string) shown {
	return shown{kind: kind, namespace: namespace, name: name, viewKind: viewKind, view: view}
}

// object is the view as an object, for the printers.
func (v shown) object() (*unstructured.Unstructured, error) {
	b, err := json.Marshal(v.view)
	if err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{}}
	if err := json.Unmarshal(b, &o.Object); err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	o.SetAPIVersion(viewVersion)
	o.SetKind(v.viewKind)
	if v.name != "" {
		o.SetName(v.name)
	}
	if v.namespace != "" {
		o.SetNamespace(v.namespace)
	}
	return o, nil
}

// printOne writes one view, printList several as a List, however many there are.
func (s *shell) printOne(o *outputFlag, v shown) error {
	if o.format == "name" {
		return s.printNames([]shown{v})
	}
	object, err := v.object()
	if err != nil {
		return err
	}
	return s.printObject(o.format, object)
}

func (s *shell) printList(o *outputFlag, all []shown) error {
	if o.format == "name" {
		return s.printNames(all)
	}
	list := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}}}
	items := make([]any, 0, len(all))
	for _, v := range all {
		object, err := v.object()
		if err != nil {
			return err
		}
		items = append(items, object.Object)
	}
	list.Object["items"] = items
	return s.printObject(o.format, list)
}

// printNames writes the objects' own names, as kubectl takes them.
func (s *shell) printNames(all []shown) error {
	var out bytes.Buffer
	for _, v := range all {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(v1alpha1.GroupVersion.String())
		o.SetKind(v.kind)
		o.SetName(v.name)
		if err := (&printers.NamePrinter{ShortOutput: true}).PrintObj(o, &out); err != nil {
			return fmt.Errorf("print a name: %w", err)
		}
	}
	return s.data(out.Bytes())
}

// printObject writes an object as JSON or YAML.
func (s *shell) printObject(format string, o *unstructured.Unstructured) error {
	printer, err := genericclioptions.NewJSONYamlPrintFlags().ToPrinter(format)
	if err != nil {
		return errors.New("-o: no printer for that form") // check has been asked before
	}
	var out bytes.Buffer
	if err := printer.PrintObj(o, &out); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return s.data(out.Bytes())
}
