// Package foreign makes other people's words fit to be shown: what a database, a keyserver's peer, a kubelet or an
// API server says before it reaches a log, a status, an event, a report or a terminal. What can be classed becomes a
// sentence of ours (Network, API); what must be shown is cleaned, bounded and loses what has the shape of a secret
// (Text, Err, Name, Word). Every program logs through NewLogger and writes to terminals through NewWriter, so that no
// call can forget it. It is pure.
package foreign

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// MaxText is the most that Text leaves of a text, in bytes.
	MaxText = 1024
	// MaxName is the most that Name leaves of a name, in bytes: schema and table of PostgreSQL.
	MaxName = 128
	// ahead is how far Line reads beyond what it may show.
	ahead = 4096
	// unknown stands for what may not be shown.
	unknown = '\uFFFD'
)

// Text is one line of at most MaxText bytes that a terminal, a log and a reader take for what it is: control
// characters, changes of writing direction, invisible characters, line breaks and what has the shape of a secret are
// gone, runs of white space are one space.
func Text(text string) string { return Line(text, MaxText) }

// Line is Text with another bound, of at least 4 bytes.
func Line(text string, most int) string {
	// What is left out makes room, so more is read than is shown, and nothing of a word that was cut through.
	line := clean(text, most+ahead, unicode.IsGraphic)
	if last := strings.LastIndexByte(line, ' '); last > most && strings.HasSuffix(line, "…") {
		line = line[:last]
	}
	return clean(redact(line), most, unicode.IsGraphic)
}

// Name is an identifier of somebody else's, fit to stand in a sentence: letters, digits, and the few signs that names
// are made of.
func Name(name string) string {
	return clean(name, MaxName, func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_$.-:/@ ", r)
	})
}

// Word is a reason or a state of somebody else's: a CamelCase word of at most 64 letters and digits, else empty.
func Word(word string) string {
	if !camelCase.MatchString(word) {
		return ""
	}
	return word
}

var camelCase = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)

func clean(text string, most int, keep func(rune) bool) string {
	var b strings.Builder
	space := false
	for _, r := range text { // what is no UTF-8 comes as U+FFFD
		switch {
		case unicode.IsSpace(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Zs):
			space = b.Len() > 0
			continue
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co):
			continue
		case !keep(r):
			r = unknown
		}
		need := utf8.RuneLen(r)
		if space {
			need++
		}
		if b.Len()+need > most-len("…") {
			b.WriteString("…")
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Error is a cause in words of ours. Its text holds nothing of what it wraps.
type Error struct {
	text  string
	cause error
}

func (e *Error) Error() string { return e.text }

func (e *Error) Unwrap() error { return e.cause }

// Network tells why a connection failed, in a sentence of ours, and nil for nil. Neither the names in a peer's
// certificate nor what it said is in the text.
func Network(err error) error {
	if err == nil {
		return nil
	}
	return &Error{text: network(err), cause: err}
}

func network(err error) string {
	var ours *Error
	if errors.As(err, &ours) {
		return ours.text
	}
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "it was given up"
	case errors.As(err, &name):
		return "the certificate is for another name"
	case errors.As(err, &authority):
		return "the certificate chains to no authority that is trusted"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not valid yet"
	case errors.As(err, &verify), errors.As(err, &invalid):
		return "the certificate does not verify"
	case errors.As(err, &alert), errors.As(err, &record):
		return "the other side does not speak TLS as it should"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the name is not known"
	case errors.As(err, &dns):
		return "the name could not be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to host"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "the connection ended"
	}
	return "the connection broke"
}

// API tells what an API server refused: which fields, and the rule that each broke, without the value that broke it.
// Other errors are cleaned.
func API(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return Text(err.Error())
	}
	details := status.Status().Details
	if details == nil || len(details.Causes) == 0 {
		return Text(err.Error())
	}
	var parts []string
	for _, cause := range details.Causes {
		parts = append(parts, strings.TrimPrefix(cause.Field+": ", ": ")+withoutValue(cause))
	}
	prefix := strings.TrimSpace(details.Kind + " " + details.Name)
	return Text(prefix + " is refused: " + strings.Join(parts, "; "))
}

// withoutValue is the message of a cause without the value that it repeats.
func withoutValue(cause metav1.StatusCause) string {
	for _, kind := range []string{"Invalid value", "Unsupported value", "Duplicate value", "Not found"} {
		rest, ok := strings.CutPrefix(cause.Message, kind+": ")
		if !ok {
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			// A number, a list or an object: the rule stands behind the last bracket or the first colon, and is not
			// worth a guess.
			return strings.ToLower(kind)
		}
		return strings.ToLower(kind) + rest[len(quoted):]
	}
	return cause.Message
}
