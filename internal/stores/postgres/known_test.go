package postgres

import (
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestALockedTableIsItsOwnDatasets: names of a tenant that comes are compared with the column of each dataset. One
// whose table cannot be read then says so itself; the others go on.
func TestALockedTableIsItsOwnDatasets(t *testing.T) {
	own := Windows{RetainFor: days(90), Overrides: []Override{{IDs: []string{"acme"}, RetainFor: days(30)}}}
	var config Config
	for _, name := range []string{"free", "locked"} {
		d := after(90, aTable(name))
		d.Table.TenantColumn, d.Delete, d.Rules[0].Windows = "tenant", &own, own
		config.Datasets = append(config.Datasets, d)
	}
	config.Tenants = []string{"acme"}
	w := newWorld(t, config, `CREATE TABLE free (id bigint PRIMARY KEY, at timestamptz, tenant text); CREATE INDEX ON free (at); CREATE TABLE locked (LIKE free INCLUDING ALL)`)
	st := w.open()
	if _, err := st.Measure(t.Context(), 0, Clocks{Early: w.now, Late: w.now}); err != nil { // sets the session's limits, as a sweep does
		t.Fatal(err)
	}
	w.admin.Run("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
	defer w.admin.Run("ROLLBACK")
	if err := st.Know(t.Context(), []string{"acme", "globex"}, ""); err != nil {
		t.Fatal(err)
	}
	if st.Unclear(0) || st.Problem(0) != nil {
		t.Errorf("free: %+v", st.Problem(0))
	}
	if p := st.Problem(1); !st.Unclear(1) || p == nil || p.Reason != v1alpha1.ReasonLocked {
		t.Errorf("locked: %+v", p)
	}
}
