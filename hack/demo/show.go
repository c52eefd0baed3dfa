package main

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
	"text/tabwriter"
)

// table prints rows of cells under headings, aligned.
func (d *demo) table(headings []string, rows [][]string) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{headings}, rows...) {
		if _, err := fmt.Fprintln(w, "   "+strings.Join(row, "\t")); err != nil {
			return fmt.Errorf("print a table: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print a table: %w", err)
	}
	for line := range lines(b.Bytes()) {
		d.say("%s", strings.TrimRight(line, " "))
	}
	return nil
}

// lines of a text, without the empty one at its end.
func lines(p []byte) iter.Seq[string] {
	return strings.SplitSeq(strings.TrimRight(string(p), "\n"), "\n")
}

// thousands writes a number the way people read it.
func thousands[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
