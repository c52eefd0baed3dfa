package sweep

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/internal/plan"
)

// TestConfigTellsWhatIsDisputed: the store learns what is claimed by more than one tenant.
func TestConfigTellsWhatIsDisputed(t *testing.T) {
	c := config(plan.Plan{Classes: []plan.Class{{Tenants: map[string][]string{"acme": {"1", "2"}}}}, Disputed: []string{"7"}})
	if diff := cmp.Diff([]string{"7"}, c.Disputed); diff != "" {
		t.Errorf("disputed (-want +got):\n%s", diff)
	}
}
