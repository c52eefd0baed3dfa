package bulk

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	// heaviest is the memory that a child may take in the cache, in bytes. The largest that Lethe renders takes less
	// (TestHeapPerCachedObject); what takes more somebody else has made or enlarged, and of that only metadata is kept.
	heaviest = 96 << 10
	// annotationBulk is on an object of which only metadata is kept. Its value is no rendering's, so that such an
	// object always differs from what is wanted, and is read live.
	annotationBulk = "lethe.dev/bulk"
	// maxLabels, maxOwners and maxFinalizers are more than what is ours has, but for those that Lethe itself reads.
	maxLabels, maxOwners, maxFinalizers = 32, 8, 8
)

// ownLabels are kept however many others there are.
var ownLabels = []string{v1alpha1.LabelManagedBy, v1alpha1.LabelComponent, v1alpha1.LabelBot, v1alpha1.LabelStore, v1alpha1.LabelTenant,
	"pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"}

// boundMetadata drops what is more than any object of ours has.
func boundMetadata(object metav1.Object) {
	if labels := object.GetLabels(); len(labels) > maxLabels {
		some := map[string]string{}
		for _, key := range ownLabels {
			if value, ok := labels[key]; ok {
				some[key] = value
			}
		}
		object.SetLabels(some)
	}
	if owners := object.GetOwnerReferences(); len(owners) > maxOwners {
		// The one that controls it, which is at most one, comes first.
		owners = slices.Clone(owners)
		slices.SortStableFunc(owners, func(a, b metav1.OwnerReference) int { return controls(b) - controls(a) })
		object.SetOwnerReferences(slices.Clone(owners[:maxOwners]))
	}
	if finalizers := object.GetFinalizers(); len(finalizers) > maxFinalizers {
		some := slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool { return !strings.HasPrefix(f, "lethe.dev/") })
		for _, f := range finalizers {
			if len(some) < maxFinalizers && !slices.Contains(some, f) {
				some = append(some, f)
			}
		}
		object.SetFinalizers(slices.Clone(some[:maxFinalizers]))
	}
}

func controls(owner metav1.OwnerReference) int {
	if owner.Controller != nil && *owner.Controller {
		return 1
	}
	return 0
}

// stripHeavy leaves only metadata of what takes more memory than anything that Lethe renders.
func stripHeavy(object metav1.Object) {
	value := reflect.ValueOf(object)
	if value.Kind() != reflect.Pointer || value.Elem().Kind() != reflect.Struct || weight(value.Elem()) <= heaviest {
		return
	}
	whole := value.Elem()
	meta := whole.FieldByName("ObjectMeta")
	kept, ok := reflect.TypeAssert[metav1.ObjectMeta](meta)
	if !ok {
		return
	}
	annotations := map[string]string{annotationBulk: object.GetResourceVersion()}
	maps.Copy(annotations, kept.Annotations)
	kept.Annotations = annotations
	for i := range whole.NumField() {
		if name := whole.Type().Field(i).Name; name != "TypeMeta" && name != "ObjectMeta" {
			whole.Field(i).SetZero()
		}
	}
	meta.Set(reflect.ValueOf(kept))
}

// weight is the memory behind a value, in bytes, beside the value itself.
func weight(value reflect.Value) int {
	if value.Type() == reflect.TypeFor[time.Time]() {
		return 0 // locations are shared
	}
	total := 0
	switch value.Kind() {
	case reflect.String:
		return value.Len()
	case reflect.Pointer, reflect.Interface:
		if value.IsNil() {
			return 0
		}
		return int(value.Elem().Type().Size()) + weight(value.Elem())
	case reflect.Slice:
		total = value.Cap() * int(value.Type().Elem().Size())
		for i := range value.Len() {
			total += weight(value.Index(i))
		}
	case reflect.Map:
		const overhead = 16 // of one entry
		for entries := value.MapRange(); entries.Next(); {
			total += overhead + int(value.Type().Key().Size()+value.Type().Elem().Size()) + weight(entries.Key()) + weight(entries.Value())
		}
	case reflect.Struct:
		for i := range value.NumField() {
			total += weight(value.Field(i))
		}
	default:
	}
	return total
}
