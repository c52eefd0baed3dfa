package foreign

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
)

// isFit fails on whatever a terminal would obey or a reader not see.
func isFit(t interface{ Errorf(string, ...any) }, text string, most int) {
	if len(text) > most || !utf8.ValidString(text) || text != strings.TrimSpace(text) {
		t.Errorf("%d bytes, valid %t: %.80q", len(text), utf8.ValidString(text), text)
	}
	for _, r := range text {
		if r != ' ' && (!unicode.IsGraphic(r) || unicode.In(r, unicode.C, unicode.Zl, unicode.Zp)) {
			t.Errorf("%U is left in %.80q", r, text)
		}
	}
}

func TestWhatIsShownIsOneFitLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.Custom(func(t *rapid.T) string { return strings.Repeat(rapid.String().Draw(t, "part"), 2000) })).Draw(t, "text")
		isFit(t, Text(s), MaxText)
		isFit(t, Name(s), MaxName)
		if again := Text(Text(s)); again != Text(s) {
			t.Errorf("cleaning twice changes %q to %q", Text(s), again)
		}
		if w := Word(s); w != "" && w != s {
			t.Errorf("Word(%q) = %q", s, w)
		}
	})
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain words, ünï ✓":            "plain words, ünï ✓",
		"a\x1b[31mred\x1b[0m\nb\r\n\tc": "a[31mred[0m b c",
		"a\u202eb\u2066c\u200bd\u2028e": "abcd e",
		"\x00\xff":                      "\uFFFD",
		"":                              "",
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q) = %q, want %q", text, got, want)
		}
	}
	if got := Text(strings.Repeat("ä", 1<<20)); len(got) > MaxText || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes: %.20q", len(got), got)
	}
	for name, want := range map[string]string{"public.messages": "public.messages", "x'; DROP": "x\uFFFD\uFFFD DROP", "a\nb": "a b"} {
		if got := Name(name); got != want {
			t.Errorf("Name(%q) = %q, want %q", name, got, want)
		}
	}
	for word, want := range map[string]string{"KeyMissing": "KeyMissing", "keyMissing": "", "Key Missing": "", "K\n": "", strings.Repeat("K", 65): ""} {
		if got := Word(word); got != want {
			t.Errorf("Word(%q) = %q", word, got)
		}
	}
}

const marker = "hunter2\x1b[31m"

func TestNetworkSaysNothingOfThePeers(t *testing.T) {
	certificate := &x509.Certificate{Subject: pkix.Name{CommonName: marker}, DNSNames: []string{marker}}
	for want, err := range map[string]error{
		"the certificate is for another name":                    x509.HostnameError{Certificate: certificate, Host: "h"},
		"the certificate chains to no authority that is trusted": x509.UnknownAuthorityError{Cert: certificate},
		"the certificate has expired or is not valid yet":        x509.CertificateInvalidError{Cert: certificate, Reason: x509.Expired, Detail: marker},
		"the certificate does not verify":                        &tls.CertificateVerificationError{Err: errors.New(marker)},
		"the other side does not speak TLS as it should":         tls.RecordHeaderError{Msg: marker},
		"the name is not known":                                  &net.DNSError{Err: marker, Name: "h", IsNotFound: true},
		"connection refused":                                     &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"no route to host":                                       syscall.EHOSTUNREACH,
		"connection reset":                                       syscall.ECONNRESET,
		"no answer in time":                                      context.DeadlineExceeded,
		"the connection ended":                                   io.ErrUnexpectedEOF,
		"it was given up":                                        context.Canceled,
		"the connection broke":                                   errors.New(marker),
	} {
		got := Network(fmt.Errorf("%s: %w", marker, err))
		if got.Error() != want || errors.Unwrap(errors.Unwrap(got)) == nil {
			t.Errorf("%T: %q, want %q", err, got, want)
		}
	}
	if Network(nil) != nil {
		t.Error("nothing is something")
	}
}

func TestAnAPIServersRefusalWithoutTheValue(t *testing.T) {
	kind := schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	err := fmt.Errorf("create: %w", apierrors.NewInvalid(kind, "helper-bot", field.ErrorList{
		field.Invalid(field.NewPath("spec", "a"), marker+`"quoted": x`, "must be an image"),
		field.NotSupported(field.NewPath("spec", "b"), marker, []string{"x"}),
		field.Duplicate(field.NewPath("spec", "c"), marker),
		field.Invalid(field.NewPath("spec", "d"), []string{marker}, "must be fewer"),
		field.Required(field.NewPath("spec", "e"), "say it"),
	}))
	got := API(err)
	if strings.Contains(got, "hunter2") {
		t.Errorf("the value is in it: %s", got)
	}
	for _, want := range []string{"StatefulSet", "helper-bot", "spec.a: invalid value: must be an image", "spec.b: unsupported value", "spec.c: duplicate value", "spec.d: invalid value", "spec.e: Required value: say it"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if got := API(errors.New("a\nb")); got != "a b" {
		t.Errorf("%q", got)
	}
}
