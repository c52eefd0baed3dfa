package sweep

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/storetest"
)

// slowRows makes each deletion take a while, so that a sweep of 5000 rows lasts long enough to be interrupted.
const slowRows = `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.002); RETURN OLD; END';
	CREATE TRIGGER slow BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION slow();`

// watch waits until some rows are gone, calls then, and returns how many were gone by then at the latest.
func (w *world) watch(then func()) <-chan int64 {
	gone := make(chan int64, 1)
	admin := server.Admin(w.t, w.database)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			var n int64
			if err := admin.QueryRow(w.t.Context(), `SELECT 10000 - count(*) FROM log`).Scan(&n); err != nil {
				gone <- -1
				return
			}
			if n > 0 {
				then()
				gone <- n
				return
			}
		}
	}()
	return gone
}

func TestALeaseThatIsRefusedStopsTheSweep(t *testing.T) {
	w := newWorld(t, logTable+slowRows, dataset("log", 90))
	k := newKeyserver(t)
	k.Seconds = 6 // renewed every two seconds
	refused := make(chan time.Time, 1)
	k.Answer = func(first bool) *keyapi.Error {
		if first {
			return nil
		}
		select {
		case refused <- time.Now():
		default:
		}
		return refusal(v1alpha1.ReasonPlanChanged)
	}
	r := w.run(Options{Leaser: client(t, k)})
	ended := time.Now()
	if r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonLeaseLost {
		t.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
	at := <-refused
	if took := ended.Sub(at); took > 5*time.Second {
		t.Errorf("the sweep ended %s after the refusal", took)
	}
	left := w.admin.Count(`SELECT count(*) FROM log`)
	if left <= 5000 {
		t.Fatalf("%d rows left: the sweep had ended before", left)
	}
	// Nothing of it is still under way in the database.
	if n := w.admin.Count(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lethe-sweeper' AND datname = current_database() AND state <> 'idle' AND query ILIKE 'commit%'`); n != 0 {
		t.Errorf("%d sessions still commit", n)
	}
	w.awaitNoSweeper()
	if now := w.admin.Count(`SELECT count(*) FROM log`); now != left {
		t.Errorf("%d more rows went after the sweep had ended", left-now)
	}
}

func TestAKeyserverThatFallsSilentStopsTheSweepWhenTheLeaseRunsOut(t *testing.T) {
	w := newWorld(t, logTable+slowRows, dataset("log", 90))
	k := newKeyserver(t)
	k.Seconds = 3
	k.Answer = func(first bool) *keyapi.Error {
		if first {
			return nil
		}
		return &keyapi.Error{Reason: v1alpha1.ReasonInternal, RetryAfter: 1}
	}
	began := time.Now()
	r := w.run(Options{Leaser: client(t, k)})
	if r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonLeaseLost || time.Since(began) > 8*time.Second {
		t.Errorf("%s, %s: %s, after %s", r.Outcome, r.Reason, r.Message, time.Since(began))
	}
	if left := w.admin.Count(`SELECT count(*) FROM log`); left <= 5000 {
		t.Errorf("%d rows left: the sweep had ended before", left)
	}
}

func TestASignalStopsTheSweepAfterTheBatch(t *testing.T) {
	w := newWorld(t, logTable+slowRows, dataset("log", 90))
	stop := make(chan struct{})
	gone := w.watch(func() { close(stop) })
	r := w.run(Options{Stop: stop})
	if r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonTerminated {
		t.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
	left := w.admin.Count(`SELECT count(*) FROM log`)
	if n := <-gone; n <= 0 || left <= 5000 {
		t.Fatalf("%d rows gone at the signal, %d left at the end", n, left)
	}
	if len(storetest.Lines(r)) != 1 || storetest.Lines(r)[0].Deleted != 10000-left || storetest.Lines(r)[0].Overdue != left-5000 {
		t.Errorf("%d rows left, the report says %+v", left, storetest.Lines(r))
	}
	// The next one goes on from the start, and ends.
	w.admin.Run(`DROP TRIGGER slow ON log`)
	if r := w.run(Options{}); r.Outcome != report.Done || w.admin.Count(`SELECT count(*) FROM log`) != 5000 {
		t.Errorf("the next sweep: %+v", r)
	}
}

func TestAKilledSessionStopsTheSweep(t *testing.T) {
	w := newWorld(t, logTable+slowRows, dataset("log", 90))
	admin := server.Admin(t, w.database)
	gone := w.watch(func() {
		if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lethe-sweeper' AND datname = current_database()`); err != nil {
			t.Errorf("end the sweeper's session: %v", err)
		}
	})
	r := w.run(Options{})
	if r.Outcome != report.Failed || r.Reason != v1alpha1.ReasonStoreError {
		t.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
	if n := <-gone; n <= 0 {
		t.Fatalf("%d rows were gone", n)
	}
	if len(storetest.Lines(r)) != 1 || storetest.Lines(r)[0].Reason != v1alpha1.ReasonNotReached {
		t.Errorf("lines %+v", storetest.Lines(r))
	}
}

// awaitNoSweeper waits until the server has ended the sweep's session.
func (w *world) awaitNoSweeper() {
	w.t.Helper()
	end := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if w.admin.Count(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lethe-sweeper' AND datname = current_database()`) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("the sweep's session does not end")
		}
	}
}

func TestTheProgramEndsOnSIGTERMWithAReport(t *testing.T) {
	w := newWorld(t, logTable+slowRows, dataset("log", 90))
	p := newProgram(t, w)
	p.start(t)
	gone := w.watch(func() {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("signal: %v", err)
		}
	})
	r := p.finish(t)
	if p.failed != nil || r.Outcome != report.Stopped || r.Reason != v1alpha1.ReasonTerminated {
		t.Errorf("%v: %+v\n%s", p.failed, r, p.stderr)
	}
	left := w.admin.Count(`SELECT count(*) FROM log`)
	if n := <-gone; n <= 0 || left <= 5000 || storetest.Lines(r)[0].Deleted != 10000-left {
		t.Errorf("%d rows gone at the signal, %d left at the end: %+v", n, left, storetest.Lines(r))
	}
}

// crowd is a keyserver that knows more tenants than a sweep takes.
type crowd struct{ Leaser }

func (crowd) Lease(_ context.Context, req keyapi.LeaseRequest, _ bool) (keyclient.Lease, error) {
	return keyclient.Lease{For: time.Minute, KnownDigest: "d", Known: make([]string, 50_000)}, nil
}

// More identifiers than a sweep takes are said to be so, with what to do: asking again mends nothing.
func TestTooManyKnownTenants(t *testing.T) {
	k := &keeper{leaser: crowd{}, clock: time.Now, news: make(chan struct{}), until: time.Now().Add(time.Minute)}
	s := &run{Options: Options{Clock: time.Now}, keeper: k, r: report.Report{Outcome: report.Done}}
	got, err := s.whoIsKnown(t.Context())
	if err != nil || !s.tooMany || !strings.Contains(got.unread, "more than 250000 externalIDs") || !strings.Contains(got.unread, "part the store") {
		t.Fatalf("%+v, %v", got, err)
	}
	if s.judge(); s.r.Reason != v1alpha1.ReasonTooManyTenants || s.r.Outcome != report.Refused {
		t.Errorf("%s %s: %s", s.r.Outcome, s.r.Reason, s.r.Message)
	}
}
