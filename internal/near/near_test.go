package near_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/internal/near"
)

func TestNearest(t *testing.T) {
	names := []string{"telegram-token", "model-key", "x"}
	for name, want := range map[string]string{
		"telegarm-token": "telegram-token", "telegram-tokne": "telegram-token", "telegramtoken": "telegram-token", "model_key": "model-key", "mode1-kay": "model-key",
		"webhook-secret": "", "token": "", "y": "x", "xyz": "", "": "x",
	} {
		if got := near.Nearest(name, names); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.StringN(0, 12, -1).Draw(t, "a"), rapid.StringN(0, 12, -1).Draw(t, "b")
		d := near.Distance(a, b)
		if (d == 0) != (a == b) || d != near.Distance(b, a) || d > max(len([]rune(a)), len([]rune(b))) {
			t.Fatalf("%q to %q is %d", a, b, d)
		}
	})
}
