// Package fuzz holds what fuzz targets assert of errors.
package fuzz

import "strings"

// longest is how much of an input may turn up in an error by chance: words of ours that the input holds, too.
const longest = 24

// Repeated is a piece of an input that an error repeats, "" when there is none. Inputs of formats that can hold
// secrets are never repeated, whatever is wrong with them.
func Repeated(err error, input string) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for i := 0; i+longest <= len(input); i++ {
		if piece := input[i : i+longest]; strings.Contains(text, piece) {
			return piece
		}
	}
	return ""
}
