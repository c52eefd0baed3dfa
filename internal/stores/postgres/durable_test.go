package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/pg"
)

// lazy makes the server's own writer of the write-ahead log come so seldom: what a transaction of ours does not bring
// to the disk itself stays in memory meanwhile, and a crash takes it.
func lazy(t *testing.T, s *pg.Server, every time.Duration) {
	t.Helper()
	for _, sql := range []string{fmt.Sprintf("ALTER SYSTEM SET wal_writer_delay = '%dms'", every.Milliseconds()), "SELECT pg_reload_conf()"} {
		if err := s.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
}

// mute takes from every role what a mark waits for the disk by.
func (w *world) mute() {
	w.t.Helper()
	w.admin.Run(`DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP
		EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP; END $$`)
}

// onDisk is how much of the write-ahead log a crash does not take.
func (w *world) onDisk() int64 {
	w.t.Helper()
	return w.admin.Count(`SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8`)
}

// TestAMarkIsOnTheDisk: whatever the server's own setting for its commits is, a mark is on the disk when it is there,
// and nobody waits for the server's writer; where the role may not leave a message in the write-ahead log, Reach
// waits for it, and goes on as soon as it has come.
func TestAMarkIsOnTheDisk(t *testing.T) {
	t.Cleanup(func() {
		for _, sql := range []string{"ALTER SYSTEM RESET wal_writer_delay", "SELECT pg_reload_conf()"} {
			if err := server.Exec(context.Background(), "postgres", sql); err != nil {
				t.Error(err)
			}
		}
	})
	lazy(t, server, 10*time.Second)
	for _, commits := range []string{"on", "off"} {
		w := newWorld(t, Config{}, `SELECT 1`)
		w.admin.Run(fmt.Sprintf("ALTER ROLE %s SET synchronous_commit = %s", w.role, commits))
		s := w.connect()
		m, err := s.Mark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if have := w.onDisk(); m.position == 0 || have < m.position {
			t.Errorf("synchronous_commit = %s: the mark is at %d, and the write-ahead log on the disk up to %d", commits, m.position, have)
		}
		p, err := s.Reach(t.Context(), m)
		if err != nil || p.Transactions != m.transactions || p.Position != uint64(m.position) {
			t.Errorf("synchronous_commit = %s: reached %+v of %+v: %v", commits, p, m, err)
		}
		var setting string
		if err := s.conn.QueryRow(t.Context(), "SELECT current_setting('synchronous_commit')").Scan(&setting); err != nil || setting != commits {
			t.Errorf("synchronous_commit = %s is %s after the mark: %v", commits, setting, err)
		}
	}
	lazy(t, server, 200*time.Millisecond)
	w := newWorld(t, Config{}, `SELECT 1`)
	w.mute()
	s := w.connect()
	for range 2 { // the second time it is not tried again
		m, err := s.Mark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Reach(t.Context(), m)
		if err != nil || p.Transactions != m.transactions || p.Position != uint64(m.position) {
			t.Errorf("without the function: reached %+v of %+v: %v", p, m, err)
		}
		if have := w.onDisk(); m.position == 0 || have < m.position {
			t.Errorf("without the function: the mark is at %d, and the write-ahead log on the disk up to %d", m.position, have)
		}
	}
}

// TestWhatIsNotOnTheDiskIsNotReached: nobody remembers a mark that a crash can still take back.
func TestWhatIsNotOnTheDiskIsNotReached(t *testing.T) {
	w := newWorld(t, Config{}, `SELECT 1`)
	s := w.connect()
	m, err := s.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.position += 1 << 40 // so much is not written within a test
	passes := time.Now()
	s.clock = func() time.Time { passes = passes.Add(onDiskWithin / 2); return passes }
	p, err := s.Reach(t.Context(), m)
	var known *Error
	if !errors.As(err, &known) || known.Reason != v1alpha1.ReasonStoreError || !strings.Contains(known.Message, "pg_logical_emit_message") {
		t.Errorf("reached %+v: %v", p, err)
	}
	if s.Closed() {
		t.Error("the connection is gone, and with it what was measured")
	}
}

// TestWhatWasDeletedSurvivesACrash: what Delete has returned is gone, whatever happens to the server at that moment.
func TestWhatWasDeletedSurvivesACrash(t *testing.T) {
	own, err := pg.Start(t.Context(), pg.Options{FSync: true})
	if err != nil {
		t.Fatal(err)
	}
	shared := server
	server = own
	t.Cleanup(func() {
		server = shared
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	// So few rows that no page of the write-ahead log is full, which would wake the server's writer.
	const rows = `INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 20) n`
	w := newWorld(t, Config{Datasets: []Dataset{after(90, aTable("log"))}}, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz)`, `CREATE INDEX ON log (at)`)
	for _, tc := range []struct {
		name    string
		every   time.Duration
		prepare func()
	}{
		{"as it is", 10 * time.Second, func() {}},
		{"without the function", time.Second, w.mute},
	} {
		lazy(t, own, tc.every)
		w.admin.Run(rows)
		tc.prepare()
		if d := w.sweep()["log"]; d.Rows != 20 || d.Problem != nil {
			t.Fatalf("%s: %+v", tc.name, d)
		}
		if err := own.Crash(); err != nil {
			t.Fatal(err)
		}
		if err := own.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.admin = own.Admin(t, w.database)
		if n := w.admin.Count(`SELECT count(*) FROM log`); n != 0 {
			t.Errorf("%s: %d of 20 rows that were deleted are there again", tc.name, n)
		}
		w.admin.Run(`TRUNCATE log`)
	}
}
