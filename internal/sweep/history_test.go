package sweep

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/storetest"
)

// past is a store that was swept once, and the keyserver that remembers it.
type past struct {
	*world
	k *lease.Server
}

func newPast(t *testing.T) *past {
	t.Helper()
	p := &past{world: newServerWorld(t, logTable, dataset("log", 90)), k: newKeyserver(t)}
	p.k.By(&p.plan)
	return p
}

func (p *past) sweep() report.Report {
	p.t.Helper()
	return p.run(Options{Leaser: client(p.t, p.k)})
}

// swept is a sweep that deleted so many rows.
func (p *past) swept(rows int64) {
	p.t.Helper()
	if r := p.sweep(); r.Outcome != report.Done || storetest.Lines(r)[0].Deleted != rows {
		p.t.Fatalf("want %d rows deleted: %+v", rows, r)
	}
}

// braked is a sweep that deleted nothing since the database went back.
func (p *past) braked(says string) {
	p.t.Helper()
	before := p.server.Admin(p.t, p.database).Count(`SELECT count(*) FROM log`)
	r := p.sweep()
	if r.Outcome != report.Refused || r.Reason != v1alpha1.ReasonRestoredFrom || !strings.Contains(r.Message, says) || !strings.Contains(r.Message, "kubectl lethe approve acme/chat --database") {
		p.t.Errorf("%s, %s: %s\nwant RestoredFrom with %q", r.Outcome, r.Reason, r.Message, says)
	}
	if len(storetest.Lines(r)) != 1 || storetest.Lines(r)[0].Rows == 0 || storetest.Lines(r)[0].Deleted != 0 {
		p.t.Errorf("it was not measured, or deleted from: %+v", storetest.Lines(r))
	}
	if n := p.server.Admin(p.t, p.database).Count(`SELECT count(*) FROM log`); n != before {
		p.t.Errorf("%d rows went", before-n)
	}
}

// write gives the database so many transactions and so much of the log.
func (p *past) write(transactions int) {
	p.t.Helper()
	a := p.server.Admin(p.t, p.database)
	a.Run(`CREATE TABLE IF NOT EXISTS busy (id int, text text)`)
	a.Run(fmt.Sprintf(`DO $$ BEGIN FOR n IN 1..%d LOOP INSERT INTO busy VALUES (n, repeat('x', 2000)); COMMIT; END LOOP; END $$`, transactions))
}

// last is where the database was last seen.
func (p *past) last() postgres.Point {
	p.t.Helper()
	last, err := postgres.ParsePoint(p.k.Ledger.Point.StorePoint)
	p.must(err)
	return last
}

func (p *past) identity() v1alpha1.StoreIdentity {
	return v1alpha1.StoreIdentity{Kind: postgres.IdentityKind, Value: p.system()}
}

func (p *past) approve() {
	p.t.Helper()
	a := p.server.Admin(p.t, p.database)
	var o, tl uint32
	var pos, xid int64
	p.must(a.QueryRow(p.t.Context(), `SELECT (SELECT oid FROM pg_database WHERE datname = current_database()), ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8,
		(pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8`).Scan(&o, &tl, &pos, &xid))
	point := postgres.Point{OID: o, Timeline: tl, Position: uint64(pos), Transactions: uint64(xid)}
	p.k.Ledger.Approve(keyapi.Point{Of: p.identity(), StorePoint: point.StorePoint()}, time.Now().Add(2*time.Second), time.Now())
}

func TestRestoredFromACopyOfTheFiles(t *testing.T) {
	p := newPast(t)
	p.must(p.server.Save(t.Context(), "friday"))
	p.swept(5000)
	p.must(p.server.Restore(t.Context(), "friday", nil))
	p.braked("position in the write-ahead log is")
	// The server goes on and passes the position of before: what was seen once is kept until a person approves.
	p.write(20000)
	p.braked("position in the write-ahead log is")
	p.admin = p.server.Admin(t, p.database)
	p.approve()
	p.swept(5000)
	p.swept(0)
}

// A server that has written more since it was restored than was lost is found out by what it does not remember.
func TestRestoredAndPassedBefore(t *testing.T) {
	p := newPast(t)
	p.must(p.server.Save(t.Context(), "friday"))
	p.swept(5000)
	p.must(p.server.Restore(t.Context(), "friday", nil))
	p.write(20000)
	if last := p.last(); uint64(p.server.Admin(t, p.database).Count(`SELECT (pg_current_wal_lsn() - '0/0')::int8`)) <= last.Position ||
		uint64(p.server.Admin(t, p.database).Count(`SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8`)) <= last.Transactions {
		t.Fatal("the restored server is still behind: the test shows nothing")
	}
	p.braked("its history has left the one of the last sweep")
}

// A restore out of an archive begins a new timeline, as a promotion does.
func TestRestoredToAPointInTime(t *testing.T) {
	for name, busy := range map[string]int{"looked at in time": 0, "and passed before": 20000} {
		t.Run(name, func(t *testing.T) {
			p := newPast(t)
			p.must(p.server.Save(t.Context(), "friday"))
			p.swept(5000)
			p.must(p.server.Restore(t.Context(), "friday", map[string]string{"restore_command": "false"}))
			restored := p.server.Admin(t, p.database)
			p.await(func() bool { return restored.Count(`SELECT pg_is_in_recovery()::int`) == 0 })
			if n := restored.Count(`SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8`); n < 2 {
				t.Fatalf("the server is on timeline %d", n)
			}
			p.write(1 + busy)
			p.braked(map[int]string{0: "position in the write-ahead log", 20000: "its history has left"}[busy])
		})
	}
}

// TestAPromotedStandbyAlarmsNobody: neither at once nor later, nor where the old primary crashed.
func TestAPromotedStandbyAlarmsNobody(t *testing.T) {
	p := newPast(t)
	standby, err := p.server.Standby(t.Context())
	p.must(err)
	old := p.server
	p.own(standby, nil)
	p.server = old
	p.swept(5000)
	// What the last sweep was told is on the standby, as a failover without loss has it.
	admin := standby.Admin(t, "postgres")
	p.await(func() bool {
		return admin.Count(`SELECT (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0')::int8`) >= int64(p.last().Position)
	})
	p.must(old.Halt())
	admin.Run(`SELECT pg_promote()`)
	p.server = standby
	p.plan.Target = p.connection(p.plan.Target.Postgres.Username)
	p.plan.Database.Address = p.plan.Target.Address() // a name that points to the new primary stays the same
	p.swept(0)
	p.admin = standby.Admin(t, p.database)
	p.admin.Run(`UPDATE log SET at = now() - interval '90 days' - interval '1 second' WHERE id <= 5010`)
	p.k.Ledger.Cleared = nil
	p.swept(10)
	if last := p.last(); last.Timeline != 2 || p.k.Ledger.Point.Of != p.identity() {
		t.Errorf("remembered: %+v", last)
	}
	// Back to the old primary, which lacks what came since: an earlier timeline.
	p.must(standby.Halt())
	p.must(old.Resume(t.Context()))
	p.server = old
	p.plan.Target = p.connection(p.plan.Target.Postgres.Username)
	p.plan.Database.Address = p.plan.Target.Address()
	p.braked("its timeline is 1, it was 2")
}

// await polls until something is so.
func (p *past) await(so func() bool) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			p.t.Fatal("it does not come")
		}
	}
}

// A server that is killed and recovers by itself has not gone back, whatever it had not written yet: its own writer
// of the write-ahead log, which is told to come seldom, would have left both what was deleted and what is remembered
// in memory.
func TestACrashIsNoRestore(t *testing.T) {
	p := newPast(t)
	p.admin.Run(`ALTER SYSTEM SET wal_writer_delay = '10s'`)
	p.admin.Run(`SELECT pg_reload_conf()`)
	p.swept(5000)
	p.must(p.server.Crash())
	p.must(p.server.Resume(t.Context()))
	p.swept(0)
}

// A dump that is loaded into a new database of the same name, on the same server.
func TestADumpInANewDatabase(t *testing.T) {
	p := newPast(t)
	dump, err := p.server.Dump(t.Context(), "chat")
	p.must(err)
	p.swept(5000)
	p.must(p.admin.Close(t.Context()))
	p.must(p.server.Exec(t.Context(), "postgres", "ALTER DATABASE chat RENAME TO chat_old"))
	p.must(p.server.Exec(t.Context(), "postgres", "CREATE DATABASE chat"))
	p.must(p.server.Load(t.Context(), "chat", dump))
	p.server.Admin(t, "chat").Run(`GRANT CONNECT ON DATABASE chat TO sweeper_chat`)
	p.braked("it is another database of the same name")
	p.admin = p.server.Admin(t, "chat")
	p.approve()
	p.swept(5000)
}

// pg_upgrade makes a new cluster: another system identifier. So does a dump on another server.
func TestAnUpgradedServerIsAnotherIdentity(t *testing.T) {
	p := newPast(t)
	p.swept(5000)
	dump, err := p.server.Dump(t.Context(), "chat")
	p.must(err)
	roles := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'; GRANT EXECUTE ON FUNCTION pg_control_system() TO %s", p.plan.Target.Postgres.Username, password, p.plan.Target.Postgres.Username)
	approved := p.plan.Database
	p.must(p.server.Halt())
	p.own(pg.Start(t.Context(), pg.Options{FSync: true, Port: p.server.Port}))
	p.must(p.server.Exec(t.Context(), "postgres", "CREATE DATABASE chat; "))
	p.must(p.server.Exec(t.Context(), "postgres", roles))
	p.must(p.server.Load(t.Context(), "chat", dump))
	p.plan.Target = p.connection(p.plan.Target.Postgres.Username)
	p.identityChanged("of " + approved.Identity.Kind + " " + approved.Identity.Value + " at")
	// Approved by its new identity it goes on: what was remembered of the old server is not held against the new one.
	p.admin = p.server.Admin(t, "chat")
	p.plan.Database.Identity.Value = p.system()
	p.approve()
	p.swept(0)
}

func (p *past) identityChanged(says string) {
	p.t.Helper()
	r := p.sweep()
	if r.Outcome != report.Refused || r.Reason != v1alpha1.ReasonIdentityChanged || !strings.Contains(r.Message, says) || len(storetest.Lines(r)) != 1 || storetest.Lines(r)[0].Deleted != 0 {
		p.t.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
	}
}

// The same server under another address is for a person to say.
func TestAMovedAddressIsAnotherIdentity(t *testing.T) {
	p := newPast(t)
	p.swept(5000)
	p.must(p.server.Halt())
	port := p.server.Port
	p.server.Port++
	p.must(p.server.Resume(t.Context()))
	p.plan.Target = p.connection(p.plan.Target.Postgres.Username)
	p.identityChanged(fmt.Sprintf("at 127.0.0.1:%d, this is", port))
	p.plan.Database.Address = p.plan.Target.Address()
	p.swept(0)
}

// Rows that a complete sweep had deleted are there again, in a database that has not gone back: a table was loaded
// from a dump.
func TestReturnedRowsAreBraked(t *testing.T) {
	w := newWorld(t, logTable+`CREATE TABLE kept AS SELECT * FROM log WHERE id <= 300; CREATE TABLE other (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON other (at);
		INSERT INTO other SELECT n, now() - interval '100 days' FROM generate_series(1, 50) n; INSERT INTO log VALUES (0, NULL), (-1, 'infinity'), (-2, '1970-01-01');`, dataset("log", 90), dataset("other", 90))
	k := newKeyserver(t)
	k.By(&w.plan)
	sweep := func() report.Report { t.Helper(); return w.run(Options{Leaser: client(t, k)}) }
	if r := sweep(); r.Outcome != report.Done || storetest.Lines(r)[0].Deleted+storetest.Lines(r)[1].Deleted != 5050 {
		t.Fatalf("the first: %+v", r)
	}
	// Time goes on and rows expire; that is no return.
	w.admin.Run(`UPDATE log SET at = now() - interval '90 days' + interval '1 second' WHERE id = 6000; SELECT pg_sleep(1.1)`)
	if r := sweep(); r.Outcome != report.Done || w.admin.Count(`SELECT count(*) FROM log WHERE id = 6000`) != 0 {
		t.Fatalf("what expires meanwhile: %+v", r)
	}
	w.admin.Run(`INSERT INTO log SELECT * FROM kept; INSERT INTO other VALUES (100, now() - interval '1 second' - interval '90 days')`)
	w.admin.Run(`UPDATE other SET at = now() - interval '90 days' + interval '1 second' WHERE id = 100; SELECT pg_sleep(1.1)`)
	r := sweep()
	line := lineOf(r, "log")
	if r.Reason != v1alpha1.ReasonDatasetsRefused || line.Reason != v1alpha1.ReasonReturned || line.Returned != 300 || line.Deleted != 0 || line.Overdue != 300 ||
		!strings.Contains(line.Message, "300 rows are older than") || !strings.Contains(line.Message, "approve acme/chat --brake log") {
		t.Errorf("returned: %+v", r)
	}
	if o := lineOf(r, "other"); o.Deleted != 1 || o.Reason != "" {
		t.Errorf("the other dataset is held up: %+v", o)
	}
	// A backlog that was approved before they returned is not meant for them.
	w.plan.Datasets[0].Delete.Backlog = permit(1000, time.Now().Add(-time.Hour), 24*time.Hour)
	if r := sweep(); lineOf(r, "log").Reason != v1alpha1.ReasonReturned || lineOf(r, "log").Deleted != 0 {
		t.Errorf("by an earlier backlog: %+v", r)
	}
	w.plan.Datasets[0].Delete.Backlog = permit(300, time.Now().Add(2*time.Second), 24*time.Hour)
	if r := sweep(); r.Outcome != report.Done || lineOf(r, "log").Deleted != 300 || k.Used("log") != 300 {
		t.Errorf("approved: %+v", r)
	}
	w.admin.Run(`INSERT INTO log SELECT * FROM kept LIMIT 1`)
	if r := sweep(); lineOf(r, "log").Returned != 1 || lineOf(r, "log").Deleted != 0 {
		t.Errorf("once more: %+v", r)
	}
}

func lineOf(r report.Report, dataset string) storetest.Line {
	for _, l := range storetest.Lines(r) {
		if l.Dataset == dataset {
			return l
		}
	}
	return storetest.Line{}
}

// What is kept by rows that refer to it is left, and is no return.
func TestWhatWasKeptHasNotReturned(t *testing.T) {
	w := newWorld(t, `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent);
		CREATE INDEX ON child (parent); INSERT INTO parent SELECT n, now() - interval '100 days' FROM generate_series(1, 20) n; INSERT INTO child SELECT n, now(), n FROM generate_series(1, 10) n`,
		dataset("parent", 90), dataset("child", 90))
	k := newKeyserver(t)
	k.By(&w.plan)
	for range 2 {
		r := w.run(Options{Leaser: client(t, k)})
		if r.Outcome != report.Done || lineOf(r, "parent").Returned != 0 || k.Ledger.Cleared["parent"].Left != 10 {
			t.Errorf("%+v, remembered %+v", r, k.Ledger.Cleared)
		}
	}
	w.admin.Run(`INSERT INTO parent VALUES (100, now() - interval '100 days')`)
	if r := w.run(Options{Leaser: client(t, k)}); lineOf(r, "parent").Returned != 1 || lineOf(r, "parent").Deleted != 0 {
		t.Errorf("%+v", r)
	}
}

// A record that is lost is said, and is no proof of anything.
func TestALostRecordIsSaid(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	k := newKeyserver(t)
	k.By(&w.plan)
	k.Lost = true
	r := w.run(Options{Leaser: client(t, k)})
	if !strings.Contains(storetest.Lines(r)[0].Notice, "record of earlier sweeps is lost") {
		t.Errorf("%+v", r)
	}
}

// Rows of a tenant whose window is shorter than the others' are gone long before theirs: they return like any.
func TestReturnedRowsOfATenant(t *testing.T) {
	for name, index := range map[string]string{"found by age": "CREATE INDEX ON log (at)", "found by tenant": "CREATE INDEX ON log (tenant, at)"} {
		t.Run(name, func(t *testing.T) {
			d := dataset("log", 90)
			d.Table.TenantColumn, d.Rules[0].Own, d.Delete.Own = "tenant", 1, 1
			w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text); `+index+`;
				INSERT INTO log SELECT n, now() - interval '40 days', 'acme' FROM generate_series(1, 400) n; INSERT INTO log SELECT n, now(), 'acme' FROM generate_series(5001, 9000) n;
				CREATE TABLE kept AS SELECT * FROM log WHERE id <= 400`, d)
			w.plan.Tenancy, w.plan.Periods = v1alpha1.TenancyShared, []calendar.Window{days(30)}
			w.plan.Classes = []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"acme"}}}}
			k := newKeyserver(t)
			k.By(&w.plan)
			for n, want := range []int64{400, 0} {
				if r := w.run(Options{Leaser: client(t, k)}); r.Outcome != report.Done || r.Deleted != want {
					t.Fatalf("sweep %d: %+v", n, r)
				}
			}
			w.admin.Run(`INSERT INTO log SELECT * FROM kept`)
			r := w.run(Options{Leaser: client(t, k)})
			if l := lineOf(r, "log"); r.Deleted != 0 || l.Reason != v1alpha1.ReasonReturned || l.Returned != 400 || !strings.Contains(l.Message, "tenants with a shorter window") {
				t.Errorf("loaded again: %+v", r)
			}
			// By other windows than those of the last sweep nobody knows what it would have left.
			w.plan.Periods[0] = days(20)
			if r := w.run(Options{Leaser: client(t, k)}); lineOf(r, "log").Returned != 0 || r.Deleted != 400 {
				t.Errorf("by another window: %+v", r)
			}
		})
	}
}

// Of rows that were brought in together with what keeps them none may go; they are let go on all the same.
func TestReturnedRowsThatAreKept(t *testing.T) {
	w := newWorld(t, `CREATE TABLE parent (id bigint PRIMARY KEY, at timestamptz); CREATE TABLE child (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES parent);
		CREATE INDEX ON child (parent); INSERT INTO parent SELECT n, now() - interval '100 days' FROM generate_series(1, 20) n`,
		dataset("parent", 90), dataset("child", 90))
	k := newKeyserver(t)
	k.By(&w.plan)
	w.run(Options{Leaser: client(t, k)})
	w.admin.Run(`INSERT INTO parent VALUES (100, now() - interval '100 days'); INSERT INTO child VALUES (100, now(), 100)`)
	if l := lineOf(w.run(Options{Leaser: client(t, k)}), "parent"); l.Reason != v1alpha1.ReasonReturned || l.Returned != 1 || l.Eligible != 0 {
		t.Fatalf("%+v", l)
	}
	w.plan.Datasets[0].Delete.Backlog = permit(1, time.Now().Add(2*time.Second), 24*time.Hour)
	if l := lineOf(w.run(Options{Leaser: client(t, k)}), "parent"); l.Reason != "" || l.Returned != 0 {
		t.Errorf("let go on: %+v", l)
	}
}
