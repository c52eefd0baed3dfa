package crash

import "testing"

// TestPoints: the first of each kind, and with -every all.
func TestPoints(t *testing.T) {
	for all, want := range map[bool]string{false: "yynny", true: "yyyyy"} {
		was := *every
		*every = all
		var points Points
		got := ""
		for _, kind := range []string{"PATCH tenants", "PATCH tenants/status", "PATCH tenants", "PATCH tenants/status", "DELETE tenants"} {
			got += map[bool]string{true: "y", false: "n"}[points.Before(kind)]
		}
		if got != want || Every() != all {
			t.Errorf("with -every=%t: %s, want %s", all, got, want)
		}
		*every = was
	}
}
