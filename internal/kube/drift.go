package kube

import (
	"fmt"
	"maps"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type fieldOf struct {
	parent reflect.Type
	name   string
}

func field[T any](name string) fieldOf { return fieldOf{reflect.TypeFor[T](), name} }

// defaults are what the API server fills in where a builder says nothing. Everything else that appears in a field
// that a builder leaves empty was put there by another client. The library's types decide what can appear: a field
// that a newer server knows and they do not is never seen.
var defaults = map[fieldOf][]any{
	field[corev1.PodSpec]("RestartPolicy"):                                       {corev1.RestartPolicyAlways},
	field[corev1.PodSpec]("DNSPolicy"):                                           {corev1.DNSClusterFirst},
	field[corev1.PodSpec]("SchedulerName"):                                       {corev1.DefaultSchedulerName},
	field[corev1.PodSpec]("TerminationGracePeriodSeconds"):                       {int64(corev1.DefaultTerminationGracePeriodSeconds)},
	field[corev1.Container]("TerminationMessagePath"):                            {corev1.TerminationMessagePathDefault},
	field[corev1.Container]("TerminationMessagePolicy"):                          {corev1.TerminationMessageReadFile},
	field[corev1.ProjectedVolumeSource]("DefaultMode"):                           {corev1.ProjectedVolumeSourceDefaultMode},
	field[corev1.ConfigMapVolumeSource]("DefaultMode"):                           {corev1.ConfigMapVolumeSourceDefaultMode},
	field[corev1.ObjectFieldSelector]("APIVersion"):                              {"v1"},
	field[corev1.PersistentVolumeClaimSpec]("VolumeMode"):                        {corev1.PersistentVolumeFilesystem},
	field[corev1.PersistentVolumeClaim]("Kind"):                                  {"PersistentVolumeClaim"},
	field[corev1.PersistentVolumeClaim]("APIVersion"):                            {"v1"},
	field[corev1.PersistentVolumeClaimStatus]("Phase"):                           {corev1.ClaimPending},
	field[appsv1.RollingUpdateStatefulSetStrategy]("Partition"):                  {int32(0)},
	field[appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy]("WhenDeleted"): {appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
	field[appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy]("WhenScaled"):  {appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
	field[batchv1.CronJobSpec]("ConcurrencyPolicy"):                              {batchv1.AllowConcurrent},
	field[batchv1.CronJobSpec]("Suspend"):                                        {false},
	field[batchv1.CronJobSpec]("SuccessfulJobsHistoryLimit"):                     {int32(3)},
	field[batchv1.CronJobSpec]("FailedJobsHistoryLimit"):                         {int32(1)},
}

// dropped are fields that some servers forget, because the feature is off there.
var dropped = map[fieldOf]bool{
	field[appsv1.RollingUpdateStatefulSetStrategy]("MaxUnavailable"): true,
}

// unowned are fields beside a child's metadata and status that others may fill in.
var unowned = map[fieldOf]bool{
	field[corev1.Namespace]("Spec"):                  true,
	field[corev1.ServiceAccount]("Secrets"):          true,
	field[corev1.ServiceAccount]("ImagePullSecrets"): true,
	// A copy of serviceAccountName under its old name.
	field[corev1.PodSpec]("DeprecatedServiceAccount"): true,
}

var (
	typeMeta   = reflect.TypeFor[metav1.TypeMeta]()
	objectMeta = reflect.TypeFor[metav1.ObjectMeta]()

	quantity    = reflect.TypeFor[resource.Quantity]()
	intOrString = reflect.TypeFor[intstr.IntOrString]()
	moment      = reflect.TypeFor[metav1.Time]()
)

// Drift names the first field in which live is not as desired says, or is empty. Of the metadata, desired's labels,
// annotations and owners must be there, and others may be beside them; everything else must be the same, apart from the
// status, what the API server fills in, and what is left to others.
func Drift(desired, live client.Object) string {
	if path := metadataDrift(desired, live); path != "" {
		return path
	}
	d, l := reflect.ValueOf(desired).Elem(), reflect.ValueOf(live).Elem()
	if d.Type() != l.Type() {
		return fmt.Sprintf("type %s", l.Type())
	}
	for i := range d.NumField() {
		f := fieldOf{d.Type(), d.Type().Field(i).Name}
		if !isOwned(f, d.Type().Field(i).Type) {
			continue
		}
		if path, differs := compare(f, d.Field(i), l.Field(i)); differs {
			return strings.TrimPrefix(lower(f.name)+path, ".")
		}
	}
	return ""
}

// merge returns live with everything that desired owns put in its place.
func merge[T client.Object](desired, live T) T {
	merged, source := copyOf(live), copyOf(desired)
	merged.SetLabels(overlay(merged.GetLabels(), source.GetLabels()))
	merged.SetAnnotations(overlay(merged.GetAnnotations(), source.GetAnnotations()))
	if owners := source.GetOwnerReferences(); len(owners) > 0 {
		merged.SetOwnerReferences(withOwners(merged.GetOwnerReferences(), owners))
	}
	m, s := reflect.ValueOf(merged).Elem(), reflect.ValueOf(source).Elem()
	for i := range m.NumField() {
		if isOwned(fieldOf{m.Type(), m.Type().Field(i).Name}, m.Type().Field(i).Type) {
			m.Field(i).Set(s.Field(i))
		}
	}
	return merged
}

// isOwned says of a field at the top of a kind whether a builder decides it.
func isOwned(f fieldOf, kind reflect.Type) bool {
	return kind != typeMeta && kind != objectMeta && f.name != "Status" && !unowned[f]
}

func metadataDrift(desired, live client.Object) string {
	for _, key := range sortedKeys(desired.GetLabels()) {
		if got, ok := live.GetLabels()[key]; !ok || got != desired.GetLabels()[key] {
			return "metadata.labels[" + key + "]"
		}
	}
	for _, key := range sortedKeys(desired.GetAnnotations()) {
		if got, ok := live.GetAnnotations()[key]; !ok || got != desired.GetAnnotations()[key] {
			return "metadata.annotations[" + key + "]"
		}
	}
	for _, owner := range desired.GetOwnerReferences() {
		if !containsOwner(live.GetOwnerReferences(), owner) {
			return "metadata.ownerReferences"
		}
	}
	return ""
}

func containsOwner(owners []metav1.OwnerReference, owner metav1.OwnerReference) bool {
	for _, o := range owners {
		if equality.Semantic.DeepEqual(o, owner) {
			return true
		}
	}
	return false
}

// withOwners replaces the references to the same objects and keeps those to others.
func withOwners(owners, ours []metav1.OwnerReference) []metav1.OwnerReference {
	result := ours
	for _, owner := range owners {
		same := false
		for _, our := range ours {
			same = same || our.UID == owner.UID
		}
		if !same {
			result = append(result, owner)
		}
	}
	return result
}

func overlay(base, over map[string]string) map[string]string {
	if len(over) == 0 {
		return base
	}
	result := maps.Clone(base)
	if result == nil {
		result = map[string]string{}
	}
	maps.Copy(result, over)
	return result
}

// compare returns the path of the first difference below a field. Paths are put together on the way back, since most
// often there is none to tell.
func compare(f fieldOf, desired, live reflect.Value) (path string, differs bool) {
	switch {
	case isLeaf(desired):
		return "", !equality.Semantic.DeepEqual(desired.Interface(), live.Interface())
	case isEmpty(desired):
		return compareWithNothing(f, live)
	case isEmpty(live) && desired.Kind() != reflect.Struct:
		return "", !dropped[f]
	}
	switch desired.Kind() {
	case reflect.Pointer:
		return compare(f, desired.Elem(), live.Elem())
	case reflect.Struct:
		return compareStruct(desired, live)
	case reflect.Slice:
		return compareSlice(desired, live)
	case reflect.Map:
		return compareMap(desired, live)
	default:
		return "", !desired.Equal(live)
	}
}

// compareWithNothing allows in live only what the API server fills in.
func compareWithNothing(f fieldOf, live reflect.Value) (string, bool) {
	if isEmpty(live) || isDefault(f, live) {
		return "", false
	}
	if live.Kind() == reflect.Pointer {
		live = live.Elem()
	}
	if live.Kind() == reflect.Struct && !isLeaf(live) {
		return compareStruct(reflect.Zero(live.Type()), live)
	}
	return "", true
}

func compareStruct(desired, live reflect.Value) (string, bool) {
	t := desired.Type()
	for i := range t.NumField() {
		field := t.Field(i)
		f := fieldOf{t, field.Name}
		if unowned[f] {
			continue
		}
		if field.Type == typeMeta {
			if path, differs := compareTypeMeta(t, desired.Field(i), live.Field(i)); differs {
				return path, true
			}
			continue
		}
		if path, differs := compare(f, desired.Field(i), live.Field(i)); differs {
			if field.Anonymous {
				return path, true
			}
			return "." + lower(f.name) + path, true
		}
	}
	return "", false
}

// compareTypeMeta looks the defaults of kind and apiVersion up under the type that embeds them.
func compareTypeMeta(parent reflect.Type, desired, live reflect.Value) (string, bool) {
	for i := range desired.NumField() {
		name := typeMeta.Field(i).Name
		if _, differs := compare(fieldOf{parent, name}, desired.Field(i), live.Field(i)); differs {
			return "." + lower(name), true
		}
	}
	return "", false
}

func compareSlice(desired, live reflect.Value) (string, bool) {
	for i := range max(desired.Len(), live.Len()) {
		if i >= desired.Len() || i >= live.Len() {
			return fmt.Sprintf("[%d]", i), true
		}
		if path, differs := compare(fieldOf{}, desired.Index(i), live.Index(i)); differs {
			return fmt.Sprintf("[%d]%s", i, path), true
		}
	}
	return "", false
}

// compareMap names the first key in alphabetical order: the same difference has the same words each time.
func compareMap(desired, live reflect.Value) (string, bool) {
	first, differs := "", false
	note := func(key reflect.Value) {
		if name := fmt.Sprintf("[%v]", key); !differs || name < first {
			first, differs = name, true
		}
	}
	for entries := desired.MapRange(); entries.Next(); {
		value := live.MapIndex(entries.Key())
		if !value.IsValid() || !equality.Semantic.DeepEqual(entries.Value().Interface(), value.Interface()) {
			note(entries.Key())
		}
	}
	for entries := live.MapRange(); entries.Next(); {
		if !desired.MapIndex(entries.Key()).IsValid() {
			note(entries.Key())
		}
	}
	return first, differs
}

// isLeaf says whether a value is compared as a whole, because it means more than its fields.
func isLeaf(value reflect.Value) bool {
	switch value.Type() {
	case quantity, intOrString, moment:
		return true
	default:
		return false
	}
}

func isEmpty(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Slice, reflect.Map:
		return value.Len() == 0
	default:
		return value.IsZero()
	}
}

func isDefault(f fieldOf, live reflect.Value) bool {
	if live.Kind() == reflect.Pointer {
		live = live.Elem()
	}
	for _, value := range defaults[f] {
		if equality.Semantic.DeepEqual(value, live.Interface()) {
			return true
		}
	}
	return false
}
