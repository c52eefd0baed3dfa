package main

import (
	"errors"
	"io"
	"net/url"
	"strings"
)

// scrubbing replaces the token wherever it would be written: errors of HTTP clients quote URLs, and the token is in them.
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

// err returns an error that reads the same without the token. It wraps nothing: what it would wrap still holds it.
func (s scrubbing) err(err error) error { return errors.New(s.r.Replace(err.Error())) }

// writer passes lines on without the token. Loggers write a line at a time.
func (s scrubbing) writer(w io.Writer) io.Writer { return scrubbedWriter{s, w} }

type scrubbedWriter struct {
	s scrubbing
	w io.Writer
}

// Write implements io.Writer.
func (s scrubbedWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, s.s.r.Replace(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
