package keyapi

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func values(name string) ([]byte, bool) {
	v, ok := map[string]string{"token": "4711:canary", "a.b_c-d": "x\ny", "looks": "${credential:token}", "dollar": "$"}[name]
	return []byte(v), ok
}

func TestFill(t *testing.T) {
	for content, want := range map[string]string{
		"":                           "",
		"plain $HOME ${HOME} $(X) $": "plain $HOME ${HOME} $(X) $",
		"a ${credential:token} b":    "a 4711:canary b",
		"${credential:token}${credential:a.b_c-d}": "4711:canaryx\ny",
		"$${credential:token}":                     "${credential:token}",
		"$$${credential:token}":                    "$${credential:token}",
		"$${credential:":                           "${credential:",
		"{credential:token}":                       "{credential:token}",
		// A value is not looked at again, whatever stands in it or before it.
		"${credential:looks}":                     "${credential:token}",
		"${credential:dollar}${credential:token}": "$4711:canary",
	} {
		got, err := Fill(content, MaxFilled, values)
		if err != nil || string(got) != want {
			t.Errorf("%q is filled in as %q, %v; want %q", content, got, err, want)
		}
	}
	for content, says := range map[string]string{
		"${credential:nobody}":                          "nobody, which the bot does not have",
		"${credential:token":                            "must be followed",
		"${credential:}":                                "must be followed",
		"${credential:canary secret}":                   "must be followed",
		"${credential:" + strings.Repeat("a", 64) + "}": "must be followed",
	} {
		_, err := Fill(content, MaxFilled, values)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", content, err)
		}
	}
	if _, err := Fill("${credential:token}", 10, values); !errors.Is(err, ErrFilledTooLarge) {
		t.Errorf("eleven bytes in ten: %v", err)
	}
	if _, err := Fill("${credential:token}", 11, values); err != nil {
		t.Errorf("eleven bytes in eleven: %v", err)
	}
}

// TestFillingIsExact: whatever a text is, it can be said, and what names nothing comes out as Unescape has it.
func TestFillingIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"$", "{", "credential:", "${credential:", "token", "}", "x"}), 0, 12).Draw(t, "text"), "")
		said := strings.ReplaceAll(text, fillOpen, "$"+fillOpen)
		got, err := Fill(said, MaxFilled, values)
		if err != nil || string(got) != text || Unescape(said) != text {
			t.Fatalf("%q is said as %q, and comes out as %q (%q), %v", text, said, got, Unescape(said), err)
		}
		if names, err := Named(said); err != nil || len(names) > 0 {
			t.Fatalf("%q names %v, %v", said, names, err)
		}
	})
}
