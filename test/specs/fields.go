package specs

import (
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Field is a field of an API type as users write it.
type Field struct {
	// Path from the top: helpers[].probes.startup.port.
	Path string
	// Name is the Go type that has the field, and the field: Probe.port. Several paths may lead to it.
	Name string
	// Set says that some of the values have something there.
	Set bool
}

// Fields are all fields of a type, those of types that it holds included, found by reflection: a new one is among
// them. A map is one field, and what is refused at every value is none.
func Fields[T any](of ...T) []Field {
	values := make([]reflect.Value, 0, len(of))
	for i := range of {
		values = append(values, reflect.ValueOf(&of[i]).Elem())
	}
	return fieldsOf(reflect.TypeFor[T](), "", "", values)
}

func fieldsOf(of reflect.Type, path, name string, values []reflect.Value) []Field {
	whole := of == reflect.TypeFor[metav1.Time]() || of == reflect.TypeFor[resource.Quantity]()
	var out []Field
	if of == reflect.TypeFor[v1alpha1.Refused]() {
		return nil
	}
	switch {
	case of.Kind() == reflect.Pointer:
		var there []reflect.Value
		for _, v := range values {
			if !v.IsNil() {
				there = append(there, v.Elem())
			}
		}
		return fieldsOf(of.Elem(), path, name, there)
	case of.Kind() == reflect.Slice:
		var elements []reflect.Value
		for _, v := range values {
			for i := range v.Len() {
				elements = append(elements, v.Index(i))
			}
		}
		return fieldsOf(of.Elem(), path+"[]", name, elements)
	case of.Kind() == reflect.Struct && !whole:
		for i := range of.NumField() {
			field, inside := of.Field(i), make([]reflect.Value, 0, len(values))
			for _, v := range values {
				inside = append(inside, v.Field(i))
			}
			json, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			out = append(out, fieldsOf(field.Type, strings.TrimPrefix(path+"."+json, "."), of.Name()+"."+json, inside)...)
		}
		return out
	}
	set := false
	for _, v := range values {
		set = set || !v.IsZero() && (v.Kind() != reflect.Map || v.Len() > 0)
	}
	return append(out, Field{Path: path, Name: name, Set: set})
}

// Unset are the names of fields that no path leads to something by, in the order of the type. A union has each of its
// members by some path.
func Unset(fields []Field) []string {
	set := map[string]bool{}
	for _, f := range fields {
		set[f.Name] = set[f.Name] || f.Set
	}
	var out []string
	for _, f := range fields {
		if !set[f.Name] {
			set[f.Name] = true // once is enough
			out = append(out, f.Name)
		}
	}
	return out
}
