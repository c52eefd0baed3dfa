package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// MaxLogged is the most that one text in a log may have, in bytes: a stack fits.
const MaxLogged = 16 << 10

// NewLogger is the log of a program: one JSON object a line, through NewHandler.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(NewHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})))
}

// NewHandler cleans whatever is logged before inner has it: messages, names and values of attributes, errors, groups,
// and what values turn into when they are asked for their value.
func NewHandler(inner slog.Handler) slog.Handler { return handler{inner} }

type handler struct{ inner slog.Handler }

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	fit := slog.NewRecord(r.Time, r.Level, Line(r.Message, MaxLogged), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		fit.AddAttrs(attr(a))
		return true
	})
	return h.inner.Handle(ctx, fit) //nolint:wrapcheck // a handler is what it wraps
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.inner.WithAttrs(all(attrs))}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.inner.WithGroup(Line(name, MaxName))}
}

func all(attrs []slog.Attr) []slog.Attr {
	fit := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		fit[i] = attr(a)
	}
	return fit
}

func attr(a slog.Attr) slog.Attr {
	return slog.Attr{Key: Line(a.Key, MaxName), Value: value(a.Value.Resolve())}
}

func value(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(Line(v.String(), MaxLogged))
	case slog.KindGroup:
		return slog.GroupValue(all(v.Group())...)
	case slog.KindAny, slog.KindLogValuer:
		return anyValue(v.Any())
	default: // numbers, times
		return v
	}
}

func anyValue(v any) slog.Value {
	if r := reflect.ValueOf(v); !r.IsValid() || (r.Kind() == reflect.Pointer || r.Kind() == reflect.Interface) && r.IsNil() {
		return slog.AnyValue(nil)
	}
	if err, ok := v.(error); ok {
		return slog.StringValue(Line(Err(err), MaxLogged))
	}
	if text, ok := v.([]byte); ok { // base64 would hide a secret from whoever looks for one
		return slog.StringValue(Line(string(text), MaxLogged))
	}
	b, err := json.Marshal(v)
	if err != nil {
		return slog.StringValue(Line(fmt.Sprintf("%+v", v), MaxLogged))
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return slog.StringValue(Line(string(b), MaxLogged))
	}
	return slog.AnyValue(leaves(tree))
}

// leaves cleans the texts of decoded JSON.
func leaves(tree any) any {
	switch node := tree.(type) {
	case string:
		return Line(node, MaxLogged)
	case []any:
		for i := range node {
			node[i] = leaves(node[i])
		}
	case map[string]any:
		fit := make(map[string]any, len(node))
		for key, child := range node {
			fit[Line(key, MaxName)] = leaves(child)
		}
		return fit
	}
	return tree
}

// Err is the text of an error, in which what an API server refused stands without the values that it refused. It is
// not cleaned yet.
func Err(err error) string {
	text := err.Error()
	for _, refused := range statuses(err) {
		text = strings.Replace(text, refused.Error(), API(refused), 1)
	}
	return text
}

// statuses are the answers of an API server that an error is made of.
func statuses(err error) []error {
	var inner []error
	switch wrapped := err.(type) { //nolint:errorlint // the tree is walked by hand
	case apierrors.APIStatus:
		return []error{err}
	case interface{ Unwrap() []error }:
		inner = wrapped.Unwrap()
	default:
		inner = []error{errors.Unwrap(err)}
	}
	var found []error
	for _, err := range inner {
		if err != nil {
			found = append(found, statuses(err)...)
		}
	}
	return found
}

// NewWriter cleans text of several lines on its way to a terminal: lines and tabs stay, whatever else a terminal
// would obey, a reader not see, or that has the shape of a secret does not. Each call is a text of its own; only a
// character may be spread over two.
func NewWriter(w io.Writer) io.Writer { return &writer{to: w} }

type writer struct {
	to   io.Writer
	rest []byte // the beginning of a character
}

func (w *writer) Write(p []byte) (int, error) {
	text := append(w.rest, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if tail := text[len(text)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				whole = len(text) - i
			}
			break
		}
	}
	w.rest = bytes.Clone(text[whole:])
	if _, err := io.WriteString(w.to, redact(Lines(string(text[:whole])))); err != nil {
		return 0, err //nolint:wrapcheck // a writer is what it wraps
	}
	return len(p), nil
}

// Lines is text without what a terminal would obey or a reader not see, with its lines and tabs.
func Lines(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co):
			return -1
		case !unicode.IsGraphic(r):
			return unknown
		}
		return r
	}, text)
}
