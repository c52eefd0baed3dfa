package sweep

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/storetest"
)

// A backlog is used up as it is used: once what was approved is gone, as many rows again stay, whatever time is left
// of it.
func TestABacklogIsUsedOnce(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	w.plan.BrakePercent = 1
	w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(-time.Minute), 24*time.Hour)
	k := newKeyserver(t)
	k.By(&w.plan)
	first := w.run(Options{Leaser: client(t, k)})
	if first.Outcome != report.Done || storetest.Lines(first)[0].Deleted != 5000 || k.Used("log") != 5000 || storetest.Lines(first)[0].BacklogLeft != 0 {
		t.Fatalf("%d rows debited: %+v", k.Used("log"), first)
	}
	w.admin.Run(`UPDATE log SET at = now() - interval '90 days' - id * interval '1 millisecond' WHERE id <= 10000`)
	k.Ledger.Cleared = nil // it is the brake's turn
	again := w.run(Options{Leaser: client(t, k)})
	if storetest.Lines(again)[0].Deleted != 0 || storetest.Lines(again)[0].Reason != v1alpha1.ReasonBrakeTripped || !strings.Contains(storetest.Lines(again)[0].Message, "of a backlog of 5000 rows that was approved 0 are left") ||
		!strings.Contains(storetest.Lines(again)[0].Message, "approve acme/chat --brake log") {
		t.Errorf("a second time: %+v", again)
	}
	// Half of it used: the other half is not enough for all that would go.
	w.plan.Datasets[0].Delete.Backlog = permit(6000, time.Now(), 24*time.Hour)
	k.Ledger.Used["log"] = ledger.Used{ApprovedAt: w.plan.Datasets[0].Delete.Backlog.ApprovedAt.Unix(), Granted: 6000, Rows: 3000}
	if r := w.run(Options{Leaser: client(t, k)}); storetest.Lines(r)[0].Deleted != 0 || storetest.Lines(r)[0].BacklogLeft != 3000 || !strings.Contains(storetest.Lines(r)[0].Message, "3000 are left") {
		t.Errorf("with a part left: %+v", r)
	}
	// What was approved later is a new one.
	w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(2*time.Second), 24*time.Hour)
	if r := w.run(Options{Leaser: client(t, k)}); storetest.Lines(r)[0].Deleted != 5000 || k.Used("log") != 5000 {
		t.Errorf("approved again, %d debited: %+v", k.Used("log"), r)
	}
}

// Rows that the brake itself would have let go are taken off as well: a permission does not lie about until it is
// needed.
func TestABacklogIsTakenFirst(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	w.plan.BrakePercent = 60
	w.plan.Datasets[0].Delete.Backlog = permit(4000, time.Now().Add(-time.Minute), 24*time.Hour)
	k := newKeyserver(t)
	k.By(&w.plan)
	if r := w.run(Options{Leaser: client(t, k)}); storetest.Lines(r)[0].Deleted != 5000 || k.Used("log") != 4000 {
		t.Errorf("%d debited: %+v", k.Used("log"), r)
	}
}

// oneAge is a table of which 5000 rows are of one age, and as many were approved to go: more than a batch is expected
// to take.
func oneAge(t *testing.T) (*world, *lease.Server) {
	t.Helper()
	w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, timestamptz '2001-01-01 00:00:00+00' FROM generate_series(1, 5000) n; INSERT INTO log SELECT n, now() FROM generate_series(5001, 10000) n`, dataset("log", 90))
	w.plan.BrakePercent = 1
	w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(-time.Minute), 24*time.Hour)
	k := newKeyserver(t)
	k.By(&w.plan)
	return w, k
}

// One table whose rows are all of one age goes in batches that nobody can foresee: each row is debited all the same.
func TestABatchOfManyIsDebited(t *testing.T) {
	w, k := oneAge(t)
	if r := w.run(Options{Leaser: client(t, k)}); storetest.Lines(r)[0].Deleted != 5000 || k.Used("log") != 5000 {
		t.Errorf("%d debited: %+v", k.Used("log"), r)
	}
}

// TestKilledSweepsRenewNoBacklog: sweeps that are killed by SIGKILL at any time, and leave no report, together delete
// no more than was approved and the brake allows in one sweep, and lose no more of it than they had drawn ahead.
func TestKilledSweepsRenewNoBacklog(t *testing.T) {
	w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, now() - interval '100 days' - n * interval '1 second' FROM generate_series(1, 20000) n; INSERT INTO log SELECT n, now() FROM generate_series(20001, 40000) n;
		CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD.id % 20 = 0 THEN PERFORM pg_sleep(0.001); END IF; RETURN OLD; END';
		CREATE TRIGGER slow BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION public.slow();`, dataset("log", 90))
	w.plan.BrakePercent = 15
	w.plan.Datasets[0].Delete.Backlog = permit(20000, time.Now().Add(-time.Minute), 24*time.Hour)
	sweeper := newProgram(t, w)
	b, err := os.ReadFile(filepath.Join(sweeper.dir, "plan.json"))
	if err != nil {
		t.Fatal(err)
	}
	planned, err := plan.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	sweeper.keyserver.By(&planned)
	random, killed, before, within := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)), 0, int64(0), 2*time.Second
	for starts := 0; killed < 6 && starts < 30; starts++ {
		sweeper.start(t)
		hit := sweeper.killAfter(t, time.Duration(random.Int64N(int64(within))))
		gone, used := 20000-w.admin.Count(`SELECT count(*) FROM log WHERE id <= 20000`), sweeper.keyserver.Used("log")
		if used < gone {
			t.Fatalf("%d rows are gone and %d debited", gone, used)
		}
		switch {
		case hit && gone > before:
			killed++
		case hit:
			within = within * 9 / 8
		}
		if gone > 15000 {
			break
		}
		before = gone
	}
	gone, used := 20000-w.admin.Count(`SELECT count(*) FROM log WHERE id <= 20000`), sweeper.keyserver.Used("log")
	t.Logf("%d sweeps were killed after they had deleted rows; %d rows gone, %d debited", killed, gone, used)
	if killed == 0 || gone == 0 {
		t.Error("the test interrupts nothing")
	}
	// The rest, with as many rows again: more than is left and the brake allows, so nothing goes. Where the machine
	// was so slow that a sweep came to its end before it was killed, they are rows that have returned.
	why := func(reason string) bool {
		return reason == v1alpha1.ReasonBrakeTripped || gone == 20000 && reason == v1alpha1.ReasonReturned
	}
	w.admin.Run(`INSERT INTO log SELECT n, now() - interval '100 days' - n * interval '1 second' FROM generate_series(100001, 120000) n`)
	rows := w.admin.Count(`SELECT count(*) FROM log`)
	if r := w.run(Options{Leaser: client(t, sweeper.keyserver)}); storetest.Lines(r)[0].Deleted != 0 || !why(storetest.Lines(r)[0].Reason) {
		t.Errorf("after %d of 20000 were debited: %+v", used, r)
	}
	if n := w.admin.Count(`SELECT count(*) FROM log`); n != rows {
		t.Errorf("%d rows went beyond what was approved", rows-n)
	}
}

// A keyserver that debits and whose answer is lost is asked again, and debits once.
func TestALostAnswerDebitsOnce(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	w.plan.BrakePercent = 1
	w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(-time.Minute), 24*time.Hour)
	k := newKeyserver(t)
	k.By(&w.plan)
	lost := 0
	k.After = func(req *keyapi.LeaseRequest) *keyapi.Error {
		if len(req.Spend) > 0 && lost < 3 {
			lost++
			return &keyapi.Error{Reason: v1alpha1.ReasonInternal, Message: "the answer is lost", RetryAfter: 1}
		}
		return nil
	}
	if r := w.run(Options{Leaser: client(t, k)}); storetest.Lines(r)[0].Deleted != 5000 || k.Used("log") != 5000 || lost != 3 {
		t.Errorf("%d debited, %d answers lost: %+v", k.Used("log"), lost, r)
	}
}

// A backlog whose time ends, or that somebody else has used, while a sweep uses it: the sweep stops there.
func TestABacklogThatEndsMeanwhile(t *testing.T) {
	w := newWorld(t, logTable+`UPDATE log SET at = at - id * interval '1 second'`, dataset("log", 90))
	w.plan.BrakePercent = 1
	w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(-time.Minute), 24*time.Hour)
	k := newKeyserver(t)
	k.By(&w.plan)
	spends := 0
	k.After = func(req *keyapi.LeaseRequest) *keyapi.Error {
		if len(req.Spend) > 0 {
			if spends++; spends > 1 {
				return &keyapi.Error{Reason: v1alpha1.ReasonBacklogSpent, Message: "spent"}
			}
		}
		return nil
	}
	r := w.run(Options{Leaser: client(t, k)})
	gone := 10000 - w.admin.Count(`SELECT count(*) FROM log`)
	if storetest.Lines(r)[0].Reason != v1alpha1.ReasonBrakeTripped || gone == 0 || gone >= 5000 || storetest.Lines(r)[0].Deleted != gone {
		t.Errorf("%d rows gone: %+v", gone, r)
	}
}

// An answer that is lost right before COMMIT costs that batch one more turn, and nothing of the backlog: rows of one
// age go in a batch that is larger than what was drawn for it.
func TestALostAnswerBeforeCommitRepeatsTheBatch(t *testing.T) {
	w, k := oneAge(t)
	var asked []int64
	k.After = func(req *keyapi.LeaseRequest) *keyapi.Error {
		if len(req.Spend) == 0 {
			return nil
		}
		if asked = append(asked, req.Spend[0].Used); len(asked) == 2 {
			return &keyapi.Error{Reason: v1alpha1.ReasonInternal, Message: "the answer is lost", RetryAfter: 1}
		}
		return nil
	}
	r := w.run(Options{Leaser: client(t, k)})
	if len(asked) < 3 || asked[1] <= asked[0] || asked[2] != asked[1] {
		t.Fatalf("debits %v: the second was to be lost, and asked for again", asked)
	}
	if r.Outcome != report.Done || storetest.Lines(r)[0].Deleted != 5000 || k.Used("log") != 5000 || w.admin.Count(`SELECT count(*) FROM log`) != 5000 {
		t.Errorf("%d debited: %+v", k.Used("log"), r)
	}
}

// A keyserver that says no more right before COMMIT is no fault of the store.
func TestALeaseThatIsRefusedBeforeCommit(t *testing.T) {
	w, k := oneAge(t)
	spends := 0
	k.After = func(req *keyapi.LeaseRequest) *keyapi.Error {
		if len(req.Spend) > 0 {
			if spends++; spends > 1 {
				return refusal(v1alpha1.ReasonPlanChanged)
			}
		}
		return nil
	}
	r := w.run(Options{Leaser: client(t, k)})
	if r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonLeaseLost || w.admin.Count(`SELECT count(*) FROM log`) != 10000 {
		t.Errorf("%+v", r)
	}
}
