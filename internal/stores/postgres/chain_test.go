package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Rows that refer to the one before, as the versions of a document do: a whole chain goes, however long, in batches,
// and a row that stays keeps all that it leads to.
func TestChains(t *testing.T) {
	const chain = `CREATE TABLE version (id bigint PRIMARY KEY, at timestamptz, before bigint REFERENCES version ON DELETE %s); CREATE INDEX ON version (before); CREATE INDEX ON version (at);
		INSERT INTO version SELECT n, now() - interval '200 days' + n * interval '1 minute', nullif(n - 1, 0) FROM generate_series(1, %d) n;`
	tests := map[string]struct {
		sql     string
		batches int // at most
		left    []string
	}{
		"no action":                    {fmt.Sprintf(chain, "NO ACTION", 20000), 60, []string{"0 rows"}},
		"cascade":                      {fmt.Sprintf(chain, "CASCADE", 5000), 30, []string{"0 rows"}},
		"restrict, one after another":  {fmt.Sprintf(chain, "RESTRICT", 2000), 200, []string{"0 rows"}},
		"older rows refer to newer":    {fmt.Sprintf(chain, "NO ACTION", 3000) + `UPDATE version SET at = now() - interval '100 days' - id * interval '1 minute'`, 60, []string{"0 rows"}},
		"all of one age":               {fmt.Sprintf(chain, "NO ACTION", 3000) + `UPDATE version SET at = now() - interval '100 days'`, 200, []string{"0 rows"}},
		"the last one lives":           {fmt.Sprintf(chain, "NO ACTION", 3000) + `UPDATE version SET at = now() WHERE id = 3000`, 60, []string{"3000 rows"}},
		"one in the middle lives":      {fmt.Sprintf(chain, "NO ACTION", 3000) + `UPDATE version SET at = now() WHERE id = 1000`, 60, []string{"1000 rows"}},
		"one in the middle has no age": {fmt.Sprintf(chain, "NO ACTION", 3000) + `UPDATE version SET at = NULL WHERE id = 1000`, 60, []string{"1000 rows"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("version"))}}, tc.sql)
			before := w.measure()["version"]
			st := w.open()
			planned, _, problem, err := st.Planned(t.Context(), 0, w.now, func(int64) int64 { return 1 })
			if err != nil || problem != nil {
				t.Fatalf("planned: %v, %v", problem, err)
			}
			if before.Reason != "" || before.Eligible != planned {
				t.Errorf("measured %+v, planned %d", before, planned)
			}
			d := w.sweep()["version"]
			if d.Rows != planned || d.Batches > tc.batches || d.Problem != nil || d.Longest > time.Second {
				t.Errorf("%d rows planned: %+v", planned, d)
			}
			if diff := cmp.Diff(tc.left, w.admin.List(`SELECT count(*) || ' rows' FROM version`)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			line := w.measure()["version"]
			if line.Reason != "" || line.Eligible != 0 {
				t.Errorf("after the sweep %+v", line)
			}
		})
	}
}
