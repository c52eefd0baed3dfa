package resources

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// TokenShape is what credentials of well-known issuers look like. It is what foreign text is searched for, too.
const TokenShape = foreign.TokenShape

var tokenShape = regexp.MustCompile(TokenShape)

// Plaintext names the elements of a bot's spec that hold what looks like a credential, as a person finds them, and
// never what they hold. It goes over every text of the spec, whatever fields that has; so do the admission policies
// of config/admission/plaintext.yaml, which list them.
func Plaintext(bot *v1alpha1.BotDeployment) []string {
	return plaintext(reflect.ValueOf(bot.Spec), "spec", "spec")
}

// plaintext goes over a value at a path. in is the list or map around it, by which a name is told that itself looks
// like a credential.
func plaintext(v reflect.Value, path, in string) []string {
	var found []string
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			found = plaintext(v.Elem(), path, in)
		}
	case reflect.String:
		if v.Type() != reflect.TypeFor[v1alpha1.SealedValue]() && tokenShape.MatchString(v.String()) {
			found = []string{path}
		}
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, plaintext(v.Index(i), path+"["+labelOf(v.Index(i), i)+"]", path)...)
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			if tokenShape.MatchString(key.String()) {
				found = append(found, "a name in "+path)
				continue
			}
			found = append(found, plaintext(v.MapIndex(key), path+"["+key.String()+"]", path)...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || name == "" {
				continue
			}
			if key := keyOf(v); key == name && strings.HasSuffix(path, "]") && v.Field(i).Kind() == reflect.String {
				if tokenShape.MatchString(v.Field(i).String()) {
					found = append(found, fmt.Sprintf("a %s in %s", name, in))
				}
				continue
			}
			found = append(found, plaintext(v.Field(i), path+"."+name, in)...)
		}
	default:
	}
	return found
}

// keyOf is the field that an element of a list is known by, or empty.
func keyOf(v reflect.Value) string {
	if v.Kind() != reflect.Struct {
		return ""
	}
	for _, name := range []string{"name", "path"} {
		for i := range v.NumField() {
			if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); tag == name {
				return name
			}
		}
	}
	return ""
}

// labelOf is what an element of a list is called: its name or its path, unless that looks like a credential itself,
// or its place.
func labelOf(v reflect.Value, i int) string {
	if key := keyOf(v); key != "" {
		for n := range v.NumField() {
			if tag, _, _ := strings.Cut(v.Type().Field(n).Tag.Get("json"), ","); tag == key && !tokenShape.MatchString(v.Field(n).String()) {
				return v.Field(n).String()
			}
		}
	}
	return fmt.Sprint(i)
}
