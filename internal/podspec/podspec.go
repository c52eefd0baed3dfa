// Package podspec recognises the pods that Lethe makes: whether a workload's template, and a live pod, differ from
// what a builder rendered only in what the cluster is known to set and what narrows it.
//
// It decides who gets credentials, so everything that is not on its lists is a difference: a field that admission
// added, an annotation that a container runtime acts on, and a field that a newer API server knows and this program
// does not. An error names the field, never what is in it.
package podspec

import (
	"fmt"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// ownPrefix begins the labels and annotations that only Lethe sets.
const ownPrefix = "lethe.dev/"

// Match says whether a live pod is the one that a template describes. Every field of the pod's specification is
// compared but those in Narrowing; a foreign annotation must be one of Annotations or of allowed (an entry that ends
// in * is a prefix); a label beginning with lethe.dev/ must be the template's.
func Match(want corev1.PodTemplateSpec, pod *corev1.Pod, allowed []string) error {
	if err := matchMetadata(want.ObjectMeta, pod.ObjectMeta, func(key string) bool { return isAllowed(key, allowed) }); err != nil {
		return err
	}
	expected, actual := want.Spec.DeepCopy(), pod.Spec.DeepCopy()
	for _, rule := range Narrowing {
		rule.take(expected, actual, pod.Name)
	}
	return matchSpec("spec", expected, actual)
}

// MatchTemplate says whether the template of a workload is the one that was rendered, apart from what its pods may
// differ by: other people's admission changes templates by the same rules as pods. What only a pod has, since the
// scheduler, its StatefulSet or a class gives it, a template has not. Labels of others may stand beside ours, among
// them those that the Job controller sets.
func MatchTemplate(want, live corev1.PodTemplateSpec, allowed []string) error {
	if err := matchMetadata(want.ObjectMeta, live.ObjectMeta, func(key string) bool { return isAllowed(key, allowed) }); err != nil {
		return fmt.Errorf("template.%w", err)
	}
	expected, actual := want.Spec.DeepCopy(), live.Spec.DeepCopy()
	for _, rule := range Narrowing {
		if !ofPodsOnly[rule.Field] {
			rule.take(expected, actual, "")
		}
	}
	return matchSpec("template.spec", expected, actual)
}

// Read turns a live pod into its type. A field of its specification that this program does not know is an error: what
// it means could not be judged.
func Read(object *unstructured.Unstructured) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := read(object, pod, "spec"); err != nil {
		return nil, err
	}
	return pod, nil
}

// ReadStatefulSet does the same for a StatefulSet, of which only the pod's template is judged.
func ReadStatefulSet(object *unstructured.Unstructured) (*appsv1.StatefulSet, error) {
	set := &appsv1.StatefulSet{}
	if err := read(object, set, "spec.template"); err != nil {
		return nil, err
	}
	return set, nil
}

// ReadJob does the same for a Job.
func ReadJob(object *unstructured.Unstructured) (*batchv1.Job, error) {
	job := &batchv1.Job{}
	if err := read(object, job, "spec.template"); err != nil {
		return nil, err
	}
	return job, nil
}

func read(object *unstructured.Unstructured, into any, judged string) error {
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true)
	strict, ok := runtime.AsStrictDecodingError(err)
	if err != nil && !ok {
		return fmt.Errorf("the object is not readable as a %s", object.GetKind())
	}
	if !ok {
		return nil
	}
	for _, problem := range strict.Errors() {
		field := unknownField(problem)
		if strings.HasPrefix(field, judged+".") {
			return &UnknownFieldError{Field: field}
		}
	}
	return nil
}

// UnknownFieldError says that the API server sent a field that this program has no type for.
type UnknownFieldError struct{ Field string }

func (e *UnknownFieldError) Error() string {
	return fmt.Sprintf("%s is a field that this version of Lethe does not know", printable(e.Field))
}

// unknownField takes the path out of `unknown field "spec.x"`. What cannot be parsed counts as the whole specification.
func unknownField(problem error) string {
	_, rest, ok := strings.Cut(problem.Error(), `unknown field "`)
	if !ok {
		return "spec.?"
	}
	field, _, _ := strings.Cut(rest, `"`)
	return field
}

func matchMetadata(want, got metav1.ObjectMeta, allowed func(annotation string) bool) error {
	for key, value := range want.Labels {
		if got.Labels[key] != value {
			return fmt.Errorf("metadata.labels[%s] differs", key)
		}
	}
	for key := range got.Labels {
		if _, ok := want.Labels[key]; !ok && strings.HasPrefix(key, ownPrefix) {
			return fmt.Errorf("metadata.labels[%s] differs", printable(key))
		}
	}
	for key, value := range want.Annotations {
		if got.Annotations[key] != value {
			return fmt.Errorf("metadata.annotations[%s] differs", key)
		}
	}
	for key := range got.Annotations {
		if _, ok := want.Annotations[key]; !ok && !allowed(key) {
			return fmt.Errorf("metadata.annotations[%s] differs", printable(key))
		}
	}
	return nil
}

func isAllowed(key string, more []string) bool {
	if strings.HasPrefix(key, ownPrefix) {
		return false
	}
	if _, ok := Annotations[key]; ok {
		return true
	}
	for _, entry := range more {
		if prefix, isPrefix := strings.CutSuffix(entry, "*"); entry == key || (isPrefix && strings.HasPrefix(key, prefix)) {
			return true
		}
	}
	return false
}

func matchSpec(path string, want, got *corev1.PodSpec) error {
	fillPod(want)
	fillPod(got)
	if field := difference(path, reflect.ValueOf(*want), reflect.ValueOf(*got)); field != "" {
		return fmt.Errorf("%s differs", field)
	}
	return nil
}

// difference names the first field in which two values are not the same, as deep as both have it, or is empty.
func difference(path string, want, got reflect.Value) string {
	if apiequality.Semantic.DeepEqual(want.Interface(), got.Interface()) {
		return ""
	}
	switch {
	case want.Kind() == reflect.Pointer && !want.IsNil() && !got.IsNil():
		return orWhole(path, difference(path, want.Elem(), got.Elem()))
	case want.Kind() == reflect.Slice && want.Len() == got.Len():
		for i := range want.Len() {
			if field := difference(fmt.Sprintf("%s[%d]", path, i), want.Index(i), got.Index(i)); field != "" {
				return field
			}
		}
	case want.Kind() == reflect.Struct && want.NumField() > 0:
		for i := range want.NumField() {
			f := want.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			below := path
			if name != "" {
				below += "." + name
			}
			if !f.IsExported() {
				return path
			}
			if field := difference(below, want.Field(i), got.Field(i)); field != "" {
				return field
			}
		}
	}
	return path
}

func orWhole(path, below string) string {
	if below == "" {
		return path
	}
	return below
}

// printable keeps a foreign name short and on one line.
func printable(text string) string {
	const longest = 120
	clean := strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
	if len(clean) > longest {
		return clean[:longest] + "..."
	}
	return clean
}
