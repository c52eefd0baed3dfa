package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kyaml "sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// document is one object of a manifest. Read for being written again it has the YAML it came from, so that comments
// stay.
type document struct {
	node      *yaml.Node
	object    *unstructured.Unstructured // where there is no node
	kind      string                     // empty for what is no object of ours
	namespace string
	name      string
}

// readManifest takes one file of YAML documents, or standard input, apart. Errors hold no part of it: a plaintext may
// be in it.
func (s *shell) readManifest(flag, path string) ([]document, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(s.In)
	} else {
		b, err = readFile(flag, path)
	}
	if err != nil {
		return nil, err
	}
	var out []document
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for {
		node := &yaml.Node{}
		err := dec.Decode(node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s", flag, yamlProblem(err))
		}
		out = append(out, describe(node))
	}
	return out, nil
}

var lineOf = regexp.MustCompile(`line [0-9]+`)

// yamlProblem keeps the line number of an error of the YAML library, and nothing of the text.
func yamlProblem(err error) string {
	if line := lineOf.FindString(err.Error()); line != "" {
		return "the file is not YAML, at " + line
	}
	return "the file is not YAML"
}

func describe(node *yaml.Node) document {
	d := document{node: node}
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   struct {
			Name      string `yaml:"name"`
			Namespace string `yaml:"namespace"`
		} `yaml:"metadata"`
	}
	if err := node.Decode(&head); err != nil {
		return d
	}
	gv, err := schema.ParseGroupVersion(head.APIVersion)
	if err != nil || gv.Group != v1alpha1.Group {
		return d
	}
	d.kind, d.namespace, d.name = head.Kind, head.Metadata.Namespace, head.Metadata.Name
	return d
}

// decode reads the object strictly: a field that does not exist is an error.
func (d document) decode(into any) error {
	b, err := d.json()
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var wrongType *json.UnmarshalTypeError
	switch err := dec.Decode(into); {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		return fmt.Errorf("%s %s: field %s is not a %s", d.kind, d.name, wrongType.Field, wrongType.Type)
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		return fmt.Errorf("%s %s: %s", d.kind, d.name, strings.TrimPrefix(err.Error(), "json: "))
	default:
		return fmt.Errorf("%s %s: a field has a value that it cannot have", d.kind, d.name)
	}
}

func (d document) json() ([]byte, error) {
	if d.node == nil {
		b, err := d.object.MarshalJSON()
		if err != nil {
			return nil, errors.New("the object cannot be encoded")
		}
		return b, nil
	}
	b, err := yaml.Marshal(d.node)
	if err != nil {
		return nil, errors.New("the object cannot be encoded")
	}
	if b, err = kyaml.YAMLToJSON(b); err != nil {
		return nil, errors.New(yamlProblem(err))
	}
	return b, nil
}

// pick finds the one object of a kind, or the one that is named. A manifest may leave the namespace to -n.
func pick(docs []document, flag, kind, namespace, name string) (document, error) {
	var found []document
	for _, d := range docs {
		if d.kind == kind && (name == "" || (d.name == name && (d.namespace == "" || d.namespace == namespace))) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && name != "":
		return document{}, fmt.Errorf("%s: what was given holds no %s %s/%s", flag, kind, namespace, name)
	case len(found) == 0:
		return document{}, fmt.Errorf("%s: what was given holds no %s", flag, kind)
	default:
		return document{}, fmt.Errorf("%s: what was given holds more than one such %s; name the one that is meant with --bot or --store", flag, kind)
	}
}

// writeManifest writes all documents again.
func writeManifest(w io.Writer, docs []document) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	for _, d := range docs {
		if err := enc.Encode(d.node); err != nil {
			return errors.New("the manifest cannot be encoded")
		}
	}
	return enc.Close()
}

// field returns the value of a key of a mapping, nil when there is none.
func field(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// setText sets a key of a mapping to a text.
func setText(mapping *yaml.Node, key, text string) {
	if v := field(mapping, key); v != nil {
		v.SetString(text)
		v.Style = 0
		return
	}
	k, v := &yaml.Node{}, &yaml.Node{}
	k.SetString(key)
	v.SetString(text)
	mapping.Content = append(mapping.Content, k, v)
}

// setCredential puts a sealed value into a BotDeployment's manifest; a credential that is not there yet is added.
func setCredential(d document, credential, sealed string) error {
	spec := field(d.node, "spec")
	if spec == nil || spec.Kind != yaml.MappingNode {
		return fmt.Errorf("-f: BotDeployment %s has no spec", d.name)
	}
	list := field(spec, "credentials")
	if list == nil {
		k := &yaml.Node{}
		k.SetString("credentials")
		list = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		spec.Content = append(spec.Content, k, list)
	}
	if list.Kind != yaml.SequenceNode {
		return errors.New("-f: spec.credentials is not a list")
	}
	for _, entry := range list.Content {
		if n := field(entry, "name"); n == nil || n.Value != credential {
			continue
		}
		if field(entry, "secretKeyRef") != nil {
			return fmt.Errorf("-f: spec.credentials[%s] has a secretKeyRef; take it away first, a credential has one source", credential)
		}
		setText(entry, "sealed", sealed)
		return nil
	}
	entry := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	setText(entry, "name", credential)
	setText(entry, "sealed", sealed)
	list.Content = append(list.Content, entry)
	return nil
}

// setPassword puts a sealed value into a DataStore's manifest.
func setPassword(d document, sealed string) error {
	postgres := field(field(d.node, "spec"), "postgres")
	if postgres == nil || postgres.Kind != yaml.MappingNode {
		return fmt.Errorf("-f: DataStore %s has no spec.postgres", d.name)
	}
	setText(postgres, "password", sealed)
	return nil
}
