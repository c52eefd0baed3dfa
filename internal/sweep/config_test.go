package sweep

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/internal/plan"
)

// TestConfigTellsWhoseNamesAreWhose: the store learns what each tenant is called, and what is claimed by more than one.
func TestConfigTellsWhoseNamesAreWhose(t *testing.T) {
	c := config(plan.Plan{Classes: []plan.Class{{Tenants: map[string][]string{"acme": {"1", "2"}}}}, Others: []string{"3"}, Disputed: []string{"7"}})
	if diff := cmp.Diff([][]string{{"1", "2", "3"}, {"7"}}, [][]string{c.Tenants, c.Disputed}); diff != "" {
		t.Errorf("known and disputed (-want +got):\n%s", diff)
	}
}
