package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Point is a place in the life of a database: all of it only grows, or stays, as long as nobody goes back in time.
type Point struct {
	OID          uint32
	Timeline     uint32
	Position     uint64 // in the write-ahead log, as far as it is on the disk
	Transactions uint64 // no transaction before it will be used again, after a crash either
}

// PointKind is that of a [Point].
const PointKind = "PostgresPoint"

// pointForm of a point's value, which people read, too.
const pointForm = "oid=%d,timeline=%d,position=%X/%X,transactions=%d"

// StorePoint is the point as it is remembered.
func (p Point) StorePoint() v1alpha1.StorePoint {
	return v1alpha1.StorePoint{Kind: PointKind, Value: fmt.Sprintf(pointForm, p.OID, p.Timeline, p.Position>>32, uint32(p.Position), p.Transactions)}
}

// errNoPoint says that what is remembered is no point of this engine's.
var errNoPoint = errors.New("not a point in the life of a PostgreSQL database")

// ParsePoint is the inverse of StorePoint: it takes that one writing and no other.
func ParsePoint(text v1alpha1.StorePoint) (Point, error) {
	var p Point
	var high, low uint32
	_, err := fmt.Sscanf(text.Value, pointForm, &p.OID, &p.Timeline, &high, &low, &p.Transactions)
	p.Position = uint64(high)<<32 | uint64(low)
	if err != nil || p.StorePoint() != text {
		return Point{}, errNoPoint
	}
	return p, nil
}

// onDiskWithin bounds waiting for the server's own writer of the write-ahead log: it is never behind for longer than
// three times wal_writer_delay, which is 10 s at most.
const onDiskWithin = 35 * time.Second

// Mark is a place in the life of a database. Reach says when it is on the disk: before that a crash may take it back,
// the numbers of transactions included.
type Mark struct {
	transactions uint64
	position     int64
}

// Mark commits a transaction of its own, which changes nothing, and notes where the database is then. What was
// committed before is on the disk with it when it returns; where the role may not write what a commit waits for,
// Reach waits.
func (s *Session) Mark(ctx context.Context) (Mark, error) {
	if !s.mute {
		m, err := s.message(ctx)
		switch code(err) {
		case "42501", "42883", "0A000": // not for this role, unknown to this server, or not supported by it
			s.mute = true
		default:
			return m, err
		}
	}
	return s.bareMark(ctx)
}

// message marks by an empty message in the write-ahead log: a commit waits for the disk only if its transaction has
// written something there before its commit record, whatever synchronous_commit is. It is for nobody: physical
// replication passes over it, and logical decoding shows it to those that ask for messages. No standby is waited for,
// since one that is away would stop the sweep.
func (s *Session) message(ctx context.Context) (Mark, error) {
	var m Mark
	var next int64
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = local"); err != nil {
			return fmt.Errorf("ask for a durable commit: %w", err)
		}
		// The record of the message holds the number of the transaction, and lies after the commit records of all
		// that were committed before.
		err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text::int8 + 1, "+fmt.Sprintf(sinceBeginning, "pg_logical_emit_message(true, 'lethe', '')")).
			Scan(&next, &m.position)
		if err != nil {
			return fmt.Errorf("leave a mark in the write-ahead log: %w", err)
		}
		return nil
	})
	if err != nil {
		return Mark{}, fmt.Errorf("mark where the database is: %w", err)
	}
	m.transactions = uint64(next)
	return m, nil
}

// bareMark marks by the numbers of transactions alone. PostgreSQL does not let the commit of a transaction that wrote
// nothing wait for the disk.
func (s *Session) bareMark(ctx context.Context) (Mark, error) {
	var m Mark
	var next int64
	// Its commit record comes after those of all transactions that began before and have written anything.
	if err := s.conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text::int8 + 1").Scan(&next); err != nil {
		return m, fmt.Errorf("read the transaction counter: %w", err)
	}
	if err := s.conn.QueryRow(ctx, "SELECT "+fmt.Sprintf(sinceBeginning, "pg_current_wal_insert_lsn()")).Scan(&m.position); err != nil {
		return m, fmt.Errorf("read the position in the write-ahead log: %w", err)
	}
	// Where a record ends with its page, that position lies behind the head of the next, which is not written before
	// there is another record.
	if _, err := s.conn.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
		return m, fmt.Errorf("read the transaction counter: %w", err)
	}
	m.transactions = uint64(next)
	return m, nil
}

// sinceBeginning is a position in the write-ahead log in bytes.
const sinceBeginning = "(%s - '0/0'::pg_lsn)::int8"

// Reach waits until a mark is on the disk, and returns it as the point that is safe to remember. One that does not
// come there in time is no such point.
func (s *Session) Reach(ctx context.Context, m Mark) (Point, error) {
	p := Point{Transactions: m.transactions, Position: uint64(m.position)}
	if err := s.awaitDisk(ctx, m.position); err != nil {
		return p, err
	}
	var timeline string
	err := s.conn.QueryRow(ctx, "SELECT (SELECT oid FROM pg_database WHERE datname = current_database()), left(pg_walfile_name(pg_current_wal_lsn()), 8)").
		Scan(&p.OID, &timeline)
	if err != nil {
		return p, fmt.Errorf("read where the database is: %w", err)
	}
	if _, err := fmt.Sscanf(timeline, "%X", &p.Timeline); err != nil {
		return p, fmt.Errorf("read the timeline: %w", err)
	}
	return p, nil
}

// awaitDisk waits until the write-ahead log is on the disk up to a position.
func (s *Session) awaitDisk(ctx context.Context, want int64) error {
	var have int64
	for end := s.clock().Add(onDiskWithin); ; {
		err := s.conn.QueryRow(ctx, "SELECT "+fmt.Sprintf(sinceBeginning, "pg_current_wal_flush_lsn()")).Scan(&have)
		if err != nil {
			return fmt.Errorf("read the position in the write-ahead log: %w", err)
		}
		if have >= want {
			return nil
		}
		if !s.clock().Before(end) {
			return &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonStoreError, Message: fmt.Sprintf(
				"what was committed is not on the server's disk after %s, so a crash would take it back: look after the server's disk and its WAL writer; where EXECUTE on pg_logical_emit_message was taken from PUBLIC, grant it to the role, which then waits for nobody",
				onDiskWithin)}}
		}
		if _, err := s.conn.Exec(ctx, "SELECT pg_sleep(0.02)"); err != nil {
			return fmt.Errorf("wait for the write-ahead log: %w", err)
		}
	}
}

// RollBack begins so many transactions and rolls them back, and returns their numbers. They change nothing; once a
// later mark is reached, WereRolledBack tells by them whether history is still the same.
func (s *Session) RollBack(ctx context.Context, n int) ([]uint64, error) {
	var out []uint64
	for range n {
		var id int64
		tx, err := s.conn.Begin(ctx)
		if err == nil {
			err = errors.Join(tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text::int8").Scan(&id), tx.Rollback(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("roll a transaction back: %w", err)
		}
		out = append(out, uint64(id))
	}
	return out, nil
}

// WereRolledBack says whether transactions that were rolled back before are so still. In a history that has left the
// one in which they were, their numbers are used again, or not yet. One that the server does not remember any more
// says nothing.
func (s *Session) WereRolledBack(ctx context.Context, ids []uint64) (bool, error) {
	for _, id := range ids {
		var status *string
		err := s.conn.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", fmt.Sprint(id)).Scan(&status)
		if code(err) == "22023" {
			return false, nil // it lies in the future
		}
		if err != nil {
			return false, fmt.Errorf("ask what became of a transaction: %w", err)
		}
		if status != nil && *status != "aborted" {
			return false, nil
		}
	}
	return true, nil
}

// Due counts, of tenants whose window is shorter than the others', the rows past it at a time, up to CountCap; -1:
// that could not be counted in its time.
func (st *Store) Due(ctx context.Context, i int, at time.Time) (int64, error) {
	d := st.datasets[i]
	if d.Delete == nil || d.blocked() != nil {
		return -1, nil
	}
	base, groups := d.cutoffs(*d.Delete, at, true)
	if len(groups) == 0 || !groups[len(groups)-1].cutoff.After(base) {
		return 0, nil
	}
	if err := st.setTimeout(ctx, MeasureTimeout); err != nil {
		return 0, err
	}
	q := &query{}
	age, lanes := dotted("a", d.age), d.lanes(at)
	var counts []string
	if len(lanes) == 1 {
		counts = append(counts, capped(d.name()+" a", fmt.Sprintf("%s AND %s %s %s", lanes[0](q, "a"), age, opMore, q.arg(d.toColumn(base), d.ageType()))))
	} else {
		for _, l := range lanes[1:] {
			counts = append(counts, capped(d.name()+" a", l(q, "a")))
		}
	}
	var n int64
	err := st.session.conn.QueryRow(ctx, "SELECT "+strings.Join(counts, " + "), q.args...).Scan(&n)
	if problem, err := split(err); problem != nil || err != nil {
		return -1, err
	}
	return n, nil
}

// Older counts the rows of a dataset whose age lies at or before a cutoff, as far as ages are believed, up to CountCap.
func (st *Store) Older(ctx context.Context, i int, cutoff time.Time) (int64, *Problem, error) {
	d, q := st.datasets[i], &query{}
	if p := d.blocked(); p != nil {
		return 0, p, nil
	}
	if err := st.setTimeout(ctx, brakeTimeout); err != nil {
		return 0, nil, err
	}
	age := dotted("a", d.age)
	where := fmt.Sprintf("%s >= %s AND %s <= %s", age, d.plausible(), age, q.arg(d.toColumn(cutoff), d.ageType()))
	var n int64
	err := st.session.conn.QueryRow(ctx, "SELECT "+capped(d.name()+" a", where), q.args...).Scan(&n)
	problem, err := split(err)
	return n, problem, err
}
