package report

import (
	"errors"
	"strings"
	"testing"
)

func TestTerminationMessage(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for most, m := range map[int]Message{
		100:  {Digest: digest},
		4095: {Digest: digest, Reason: "KeyMissing", Text: strings.Repeat("<x>", 4000)},
	} {
		b, err := m.Encode()
		if err != nil || len(b) > most {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		got, err := DecodeMessage(string(b))
		if err != nil || got.Digest != m.Digest || got.Reason != m.Reason || (got.Text == "") != (m.Text == "") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for what, text := range map[string]string{
		"nothing":                     "",
		"the kubelet's words":         "The container could not be located when the pod was terminated",
		"a report of another time":    `{"v":2,"plan":"p","out":"Done"}`,
		"no digest":                   `{"v":3}`,
		"another digest":              `{"v":3,"report":"AB"}`,
		"a digest in capitals":        `{"v":3,"report":"` + strings.ToUpper(digest) + `"}`,
		"a reason of two lines":       `{"v":3,"report":"` + digest + `","why":"a\nb"}`,
		"another format":              `{"v":4,"report":"` + digest + `"}`,
		"a message that is not whole": `{"v":3,"report":"` + digest,
	} {
		if m, err := DecodeMessage(text); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
}
