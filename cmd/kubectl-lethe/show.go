package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lethe-dev/lethe/internal/foreign"
)

// What a command shows goes through this file and no other: words of the cluster, of files and of servers are
// somebody else's, and a terminal obeys them.

// maxShown bounds one text within what is shown, in bytes.
const maxShown = 16 << 10

// streams hands cobra what it writes help and usage to.
func (s *shell) streams(root *cobra.Command) {
	root.SetIn(s.In)
	root.SetOut(s.output())
	root.SetErr(s.errors())
}

// output takes words for people; errors takes those beside the output.
func (s *shell) output() io.Writer { return foreign.NewWriter(s.Out) }
func (s *shell) errors() io.Writer { return foreign.NewWriter(s.ErrOut) }

// say writes to the output, note a line beside it.
func (s *shell) say(format string, args ...any) error {
	_, err := io.WriteString(s.output(), sprintf(format, args...))
	return err
}

func (s *shell) note(format string, args ...any) {
	fmt.Fprint(s.errors(), sprintf(format+"\n", args...))
}

// prompt is note without the end of the line.
func (s *shell) prompt(format string, args ...any) {
	fmt.Fprint(s.errors(), sprintf(format, args...))
}

// fail writes the error that ended a command. What it is made of begins no line.
func (s *shell) fail(err error) {
	parts := strings.Split(foreign.Err(err), "\n")
	for i := range parts {
		parts[i] = foreign.Line(parts[i], maxShown)
	}
	fmt.Fprintf(s.errors(), "error: %s\n", strings.Join(parts, "\n  "))
}

// data writes what is for files and programs as it is. On a terminal it loses what that would obey.
func (s *shell) data(b []byte) error {
	if s.outTerminal != nil && s.outTerminal() {
		b = []byte(foreign.Lines(string(b)))
	}
	_, err := s.Out.Write(b)
	return err
}

// sprintf is fmt.Sprintf for people: each text that is put in is one clean line.
func sprintf(format string, args ...any) string {
	fit := make([]any, len(args))
	for i, arg := range args {
		switch v := reflect.ValueOf(arg); v.Kind() {
		case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
			reflect.Float32, reflect.Float64:
			fit[i] = arg
		default:
			fit[i] = foreign.Line(fmt.Sprint(arg), maxShown)
		}
	}
	return fmt.Sprintf(format, fit...)
}

// table aligns cells, each of which stays in its own.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, head ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.line(head)
	return t
}

// and begins another table under this one.
func (t *table) and(head ...string) {
	fmt.Fprintln(t.w)
	t.line(head)
}

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = foreign.Line(fmt.Sprint(cell), maxShown)
	}
	t.line(texts)
}

func (t *table) line(cells []string) { fmt.Fprintln(t.w, strings.Join(cells, "\t")) }

func (t *table) end() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}
