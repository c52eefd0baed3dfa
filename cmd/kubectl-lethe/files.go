package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// addFiles gives a command -f, -R and -k, as kubectl has them.
func addFiles(cmd *cobra.Command, usage string) *genericclioptions.FileNameFlags {
	var names []string
	var kustomize string
	var recursive bool
	f := &genericclioptions.FileNameFlags{Usage: usage + " (a file, a folder, a URL, or - for standard input)", Filenames: &names, Kustomize: &kustomize, Recursive: &recursive}
	f.AddFlags(cmd.Flags())
	return f
}

// given says whether there is anything to read.
func given(f *genericclioptions.FileNameFlags) bool {
	return len(*f.Filenames) > 0 || *f.Kustomize != "" || *f.Recursive
}

// fromStdin says whether standard input is one of the files.
func fromStdin(f *genericclioptions.FileNameFlags) bool {
	return slices.Contains(*f.Filenames, "-")
}

// readObjects reads Lethe's objects out of what -f and -k name. Others are left alone. An error names a file only
// where it was found in a folder: what was given may be a value put in the wrong place, and what is in it may be a
// plaintext.
func (s *shell) readObjects(f *genericclioptions.FileNameFlags) ([]document, error) {
	if len(*f.Filenames) > 0 && *f.Kustomize != "" {
		return nil, errors.New("-f and -k cannot both be given")
	}
	if *f.Recursive && len(*f.Filenames) == 0 {
		return nil, errors.New("-R needs -f with a folder")
	}
	options := resource.FilenameOptions{Recursive: *f.Recursive, Kustomize: *f.Kustomize}
	b := resource.NewBuilder(s.config).Unstructured().Local()
	for _, name := range *f.Filenames {
		if name == "-" {
			b = b.Stream(s.In, "standard input")
			continue
		}
		if err := readable(name); err != nil {
			return nil, err
		}
		options.Filenames = append(options.Filenames, name)
	}
	if len(options.Filenames) > 0 || options.Kustomize != "" {
		b = b.FilenameParam(false, &options)
	}
	var out []document
	err := b.Flatten().Do().Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		o, ok := info.Object.(*unstructured.Unstructured)
		if !ok || o.GroupVersionKind().Group != v1alpha1.Group {
			return nil
		}
		out = append(out, document{object: o, kind: o.GetKind(), namespace: o.GetNamespace(), name: o.GetName()})
		return nil
	})
	if err != nil {
		return nil, fileProblem(f, err)
	}
	return out, nil
}

// readable says early, and in our words, that a file is not there.
func readable(name string) error {
	if strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://") || strings.ContainsAny(name, "*?[") {
		return nil
	}
	_, err := os.Stat(name)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("-f: read the file (its name is not repeated here): %w", pathErr.Err)
	}
	return err
}

var (
	parsed     = regexp.MustCompile(`^error parsing (.*?): `)
	statusCode = regexp.MustCompile(`status code=([0-9]{3})`)
)

// fileProblem keeps of the builder's error what repeats nothing.
func fileProblem(f *genericclioptions.FileNameFlags, err error) error {
	if *f.Kustomize != "" {
		return errors.New("-k: the folder cannot be built; `kubectl kustomize` on it says why")
	}
	text := err.Error()
	if match := parsed.FindStringSubmatch(text); match != nil {
		where := ""
		for _, folder := range *f.Filenames {
			if rel, err := filepath.Rel(folder, match[1]); err == nil && rel != "." && filepath.IsLocal(rel) {
				where = rel + ": "
			}
		}
		return fmt.Errorf("-f: %s%s", where, yamlProblem(err))
	}
	if match := statusCode.FindStringSubmatch(text); match != nil {
		return fmt.Errorf("-f: the URL (not repeated here) answers with HTTP status %s", match[1])
	}
	if strings.Contains(text, "recognized file extensions") {
		return errors.New("-f: the folder holds no .yaml, .yml or .json file (-R looks into the folders below it)")
	}
	return errors.New("-f: an object cannot be read (nothing of it is repeated here): each needs apiVersion, kind and metadata.name")
}

// asApplied is what the API server would make of an object out of a file: with its defaults, by its rules and its
// admission. It is asked by a dry run: nothing is written, and whoever may not write the object may not ask.
func asApplied(ctx context.Context, c client.Client, d document, namespace string) (*unstructured.Unstructured, error) {
	spec, _, err := unstructured.NestedMap(d.object.Object, "spec")
	if err != nil {
		return nil, fmt.Errorf("%s %s: spec is not a mapping", d.kind, d.name)
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(d.object.GroupVersionKind())
	key := client.ObjectKey{Namespace: namespace, Name: d.name}
	err = c.Get(ctx, key, o)
	there := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read %s %s: %w", d.kind, d.name, err)
	}
	if approved, found, _ := unstructured.NestedFieldCopy(o.Object, "spec", "approvedPlan"); found && there {
		if _, said := spec["approvedPlan"]; !said {
			spec["approvedPlan"] = approved // nobody who applies takes away what `approve` wrote
		}
	}
	if !there {
		o = &unstructured.Unstructured{Object: map[string]any{}}
		o.SetGroupVersionKind(d.object.GroupVersionKind())
		o.SetName(d.name)
		o.SetNamespace(namespace)
	}
	if d.kind == resources.KindDataStore {
		standIn(spec, o)
	}
	annotations := o.GetAnnotations()
	for k, v := range d.object.GetAnnotations() {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[k] = v
	}
	o.SetLabels(d.object.GetLabels())
	o.SetAnnotations(annotations)
	o.Object["spec"] = spec
	strict := client.FieldValidation(metav1.FieldValidationStrict)
	if there {
		err = c.Update(ctx, o, client.DryRunAll, strict, dryRunOwner)
	} else {
		err = c.Create(ctx, o, client.DryRunAll, strict, dryRunOwner)
	}
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot "):
		return nil, fmt.Errorf("-f asks the API server, by a dry run that writes nothing, what it would make of %s %s, and you may not write it; have somebody look who may: %w", d.kind, d.name, err)
	case err != nil:
		return nil, fmt.Errorf("-f: the API server would not take %s %s: %w", d.kind, d.name, refusal(err))
	}
	return o, nil
}

// quoted is a value that the API server repeats in front of what it says.
var quoted = regexp.MustCompile(`^(Invalid value|Unsupported value|Duplicate value|Too long): (?:"(?:[^"\\]|\\.)*"|[^ :]+): `)

// refusal is what the API server says of each field, without the values.
func refusal(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return err
	}
	var out []string
	for _, cause := range status.Status().Details.Causes {
		out = append(out, cause.Field+": "+quoted.ReplaceAllString(cause.Message, "$1: "))
	}
	return errors.New(strings.Join(out, "; "))
}

// standIn lets a store be looked at before its password is sealed: the one in use, or something of its shape, takes
// the place.
func standIn(spec map[string]any, live *unstructured.Unstructured) {
	password, _, _ := unstructured.NestedString(spec, "postgres", "password")
	if _, err := sealing.Parse(password); err == nil {
		return
	}
	inUse, _, _ := unstructured.NestedString(live.Object, "spec", "postgres", "password")
	if inUse == "" {
		inUse = "seal.v1" + strings.Repeat(".none", 5)
	}
	_ = unstructured.SetNestedField(spec, inUse, "postgres", "password") // where postgres is no mapping the API server says so
}

const dryRunOwner = client.FieldOwner("lethe-dry-run")

// clusterScoped are those of our kinds that lie in no namespace.
func clusterScoped(kind string) bool {
	return kind == resources.KindTenant || kind == resources.KindDataRetentionPolicy
}
