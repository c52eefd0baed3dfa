package main

import (
	"errors"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// scrubbing replaces the token wherever it would be written: errors of HTTP clients quote URLs, and the token is in
// them.
type scrubbing struct{ r *strings.Replacer }

// scrubber hides a token, and its secret half, as they are and as a URL or a quoted string writes them.
func scrubber(token string) scrubbing {
	pairs := []string{}
	_, secret, _ := strings.Cut(token, ":")
	for _, s := range []string{token, secret} {
		for _, form := range []string{s, url.PathEscape(s), url.QueryEscape(s)} {
			pairs = append(pairs, form, "<token>")
		}
	}
	return scrubbing{strings.NewReplacer(pairs...)}
}

// shapes are secrets of others: Telegram and whoever stands between say what they like, and a log is read by more
// people than they know.
var shapes = regexp.MustCompile(`\d{6,12}:[-\w]{35,}|://[^/\s:@]*:[^/\s@]+@|(?i:password|secret|token)=[^\s&"']+`)

// text is one line without the token, without secrets of others, and without what a terminal would obey or a reader
// not see.
func (s scrubbing) text(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, text)
	return shapes.ReplaceAllString(s.r.Replace(text), "<secret>")
}

// err returns an error that reads the same without the token. It wraps nothing: what it would wrap still holds it.
func (s scrubbing) err(err error) error { return errors.New(s.text(err.Error())) }

// writer passes lines on without the token. Loggers write a line at a time: what breaks it within is somebody else's.
func (s scrubbing) writer(w io.Writer) io.Writer { return scrubbedWriter{s, w} }

type scrubbedWriter struct {
	s scrubbing
	w io.Writer
}

// Write implements io.Writer.
func (s scrubbedWriter) Write(p []byte) (int, error) {
	line, end := strings.CutSuffix(string(p), "\n")
	line = s.s.text(line)
	if end {
		line += "\n"
	}
	if _, err := io.WriteString(s.w, line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// attr cleans an attribute before a handler puts it between quotes, where a line break is no line break any more, yet
// a token is still one.
func (s scrubbing) attr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case string:
		a.Value = slog.StringValue(s.text(v))
	case error:
		a.Value = slog.StringValue(s.text(v.Error()))
	}
	return a
}
