package kube

import (
	"maps"
	"slices"
	"unicode"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// lower turns the name of a Go field into about what users see in YAML.
func lower(name string) string {
	letters := []rune(name)
	for i, letter := range letters {
		if i > 0 && (i+1 >= len(letters) || unicode.IsLower(letters[i+1])) {
			break
		}
		letters[i] = unicode.ToLower(letter)
	}
	return string(letters)
}
