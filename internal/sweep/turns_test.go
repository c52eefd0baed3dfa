package sweep

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/storetest"
)

const slowTable = `CREATE TABLE a_slow (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON a_slow (at);
	INSERT INTO a_slow SELECT n, now() - interval '100 days' + n * interval '1 second' FROM generate_series(1, 20000) n;
	CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END';
	CREATE TRIGGER slow BEFORE DELETE ON a_slow FOR EACH ROW EXECUTE FUNCTION public.slow();`

// One dataset that could take all of the time does not keep the others from theirs, and what keeps other rows of it
// is gone over again.
func TestDatasetsTakeTurns(t *testing.T) {
	w := newWorld(t, slowTable+`
		CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 5000) n;
		CREATE TABLE z_parent (id bigint PRIMARY KEY, at timestamptz); INSERT INTO z_parent SELECT n, now() - interval '100 days' FROM generate_series(1, 300) n;
		ALTER TABLE a_slow ADD parent bigint REFERENCES z_parent; CREATE INDEX ON a_slow (parent); UPDATE a_slow SET parent = 1 + id / 100 WHERE id < 20000;`,
		dataset("a_slow", 90), dataset("log", 90), dataset("z_parent", 90))
	r := w.run(Options{Budget: 30 * time.Second})
	if r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonTimeBudget {
		t.Fatalf("ended %s %s, the slow table has to outlast the budget", r.Outcome, r.Reason)
	}
	if n := w.admin.Count(`SELECT count(*) FROM log`); n != 0 {
		t.Errorf("%d rows of the table after the slow one are left", n)
	}
	gone, parents := 20000-w.admin.Count(`SELECT count(*) FROM a_slow`), w.admin.Count(`SELECT count(*) FROM z_parent`)
	if gone == 0 || gone == 20000 || parents >= 200 {
		t.Errorf("%d rows of the slow table went, %d parents are left; those without children, and of more than one turn, have to be gone", gone, parents)
	}
	var deleted int64
	for _, l := range storetest.Lines(r) {
		if l.Dataset == "a_slow" {
			deleted = l.Deleted
		}
	}
	if deleted != gone {
		t.Errorf("reported %d rows, %d went", deleted, gone)
	}
}

// A trigger that lets rows go is a notice; what was overdue before the sweep is reported with what is overdue after it.
func TestWhatIsSeenBeforeAndBeside(t *testing.T) {
	w := newWorld(t, logTable+`CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''gone''; RETURN OLD; END';
		CREATE TRIGGER tells BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.tell();`, dataset("log", 90))
	r := w.run(Options{})
	if r.Outcome != report.Done || len(storetest.Lines(r)) != 1 {
		t.Fatalf("%+v", r)
	}
	l := storetest.Lines(r)[0]
	if l.Reason != "" || l.Message != "" || !strings.Contains(l.Notice, "tells") {
		t.Errorf("reason %q, message %q, notice %q", l.Reason, l.Message, l.Notice)
	}
	if l.Overdue != 0 || l.OverdueBefore != 5000 || l.OldestBeforeSeconds < 8*24*3600 {
		t.Errorf("%+v", l)
	}
}

// Rows deleted are booked to the rule that deleted them: a policy in Audit that governs the same dataset, and stands
// before it by name, shows none.
func TestDeletedRowsAreBookedToTheirRule(t *testing.T) {
	d := dataset("log", 90)
	audits := d.Rules[0]
	audits.Policy, audits.Mode = "a-audit", v1alpha1.PolicyAudit
	d.Rules = append([]plan.Rule{audits}, d.Rules...)
	w := newWorld(t, logTable, d)
	r := w.run(Options{})
	booked := map[string]int64{}
	for _, l := range storetest.Lines(r) {
		booked[l.Policy] = l.Deleted
	}
	if diff := cmp.Diff(map[string]int64{"a-audit": 0, "promise": 5000}, booked); diff != "" {
		t.Errorf("booked (-want +got):\n%s", diff)
	}
	if r.Deleted != 5000 || w.admin.Count(`SELECT count(*) FROM log`) != 5000 {
		t.Errorf("%d rows are reported as deleted", r.Deleted)
	}
}

// What a person has to say or to know about columns is in the report, also where nothing is deleted.
func TestGuessesAreReported(t *testing.T) {
	w := newWorld(t, `CREATE TABLE thread (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE post (id bigint PRIMARY KEY, at timestamptz, "threadId" bigint, storage_key text);
		INSERT INTO thread VALUES (1, now() - interval '100 days'), (2, now() - interval '100 days'); INSERT INTO post VALUES (1, now(), 1), (2, NULL, 2), (3, now() - interval '100 days', 77)`, dataset("thread", 90), dataset("post", 90))
	r := w.run(Options{})
	if diff := cmp.Diff([]report.Relation{{Table: "public.post", Column: "threadId", References: "thread"}}, r.Undeclared); diff != "" || r.UndeclaredCount != 1 {
		t.Errorf("undeclared (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"post.storage_key"}, r.Pointers); diff != "" || r.PointerCount != 1 {
		t.Errorf("pointers (-want +got):\n%s", diff)
	}
	if r.Outcome != report.Refused || r.Deleted != 0 || w.admin.Count(`SELECT count(*) FROM thread`) != 2 || w.admin.Count(`SELECT count(*) FROM post`) != 3 {
		t.Errorf("the sweep was %s and deleted %d rows", r.Outcome, r.Deleted)
	}
	w.plan.Relations = []plan.Relation{{Schema: "public", Table: "post", Column: "threadId", References: "thread", State: v1alpha1.RelationDenied}}
	if r := w.run(Options{}); r.Deleted != 3 || r.UndeclaredCount != 0 {
		t.Errorf("denied, %d rows went, and %d relations wait", r.Deleted, r.UndeclaredCount)
	}
}

// TestManyDatasetsAreRemembered: what complete sweeps left of them is more than one request to the keyserver holds.
func TestManyDatasetsAreRemembered(t *testing.T) {
	var tables strings.Builder
	var datasets []plan.Dataset
	for i := range 2*clearedAtOnce + 12 {
		name := fmt.Sprintf("t%02d", i)
		fmt.Fprintf(&tables, "CREATE TABLE %[1]s (id bigint PRIMARY KEY, at timestamptz); INSERT INTO %[1]s VALUES (1, now() - interval '100 days');", name)
		datasets = append(datasets, dataset(name, 90))
	}
	w := newWorld(t, tables.String(), datasets...)
	k := newKeyserver(t)
	k.By(&w.plan)
	if r := w.run(Options{Leaser: client(t, k)}); r.Outcome != report.Done || int(r.Deleted) != len(datasets) {
		t.Fatalf("%s, %d rows went: %s", r.Outcome, r.Deleted, r.Message)
	}
	if got := len(k.Ledger.Cleared); got != len(datasets) || k.Ledger.Point == nil {
		t.Errorf("%d of %d datasets are remembered, and where the database is: %v", got, len(datasets), k.Ledger.Point)
	}
	// A request of one dataset with the longest name and words leaves room for as many.
	b, err := json.Marshal(keyapi.Cleared{Dataset: strings.Repeat("d", 63), PlaceDigest: strings.Repeat("f", 32), Cutoff: math.MinInt64, Left: math.MaxInt64,
		SweptAt: math.MinInt64, Windows: strings.Repeat("w", 16), Due: math.MaxInt64})
	if room := keyapi.MaxRequest - 1<<10; err != nil || clearedAtOnce*(len(b)+1) > room {
		t.Errorf("%d of %d bytes do not fit %d: %v", clearedAtOnce, len(b), room, err)
	}
}

// What no sweep came to the end of goes first in the next one.
func TestWhatWasNotReachedGoesFirst(t *testing.T) {
	var tables strings.Builder
	var datasets []plan.Dataset
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&tables, "CREATE TABLE %[1]s (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON %[1]s (at); INSERT INTO %[1]s VALUES (1, now() - interval '100 days');", name)
		datasets = append(datasets, dataset(name, 90))
	}
	w := newWorld(t, tables.String(), datasets...)
	k := newKeyserver(t)
	k.By(&w.plan)
	definition := func(i int) string { return datasets[i].Digest() }
	now := time.Now().UnixMicro()
	k.Ledger.Note(w.plan, &keyapi.LeaseRequest{Cleared: []keyapi.Cleared{
		{Dataset: "a", PlaceDigest: definition(0), Cutoff: 1, SweptAt: now}, {Dataset: "b", PlaceDigest: definition(1), Cutoff: 1, SweptAt: now - 1}}}, time.Now())
	var log strings.Builder
	w.run(Options{Leaser: client(t, k), Log: slog.New(slog.NewTextHandler(&log, nil))})
	var order []string
	for _, line := range regexp.MustCompile(`msg=Deleted dataset=(\w+)`).FindAllStringSubmatch(log.String(), -1) {
		order = append(order, line[1])
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, order); diff != "" {
		t.Errorf("deleted from (-want +got):\n%s\n%s", diff, log.String())
	}
}
