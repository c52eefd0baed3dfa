package sweep

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/retention"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
)

const (
	// witnesses are so many transactions that are rolled back after each sweep, to be asked for before the next.
	witnesses = 8
	// rememberWithin bounds what is done at the end of a sweep for the next one to be compared with.
	rememberWithin = 15 * time.Second
)

// place looks where in its life the database is, and compares that with where sweeps saw it last. One that has gone back is only
// measured, until a person approves it as it is.
func (s *run) place(ctx context.Context) error {
	p, err := s.session.Reach(ctx, s.begun)
	if err != nil {
		return err
	}
	now := protocol.Point{System: s.r.SystemIdentifier, OID: p.OID, Timeline: p.Timeline, Position: p.Position, Transactions: p.Transactions}
	s.r.Point = &report.Point{OID: p.OID, Timeline: p.Timeline, Position: p.Position, Transactions: p.Transactions}
	if s.r.Reason == report.ReasonIdentityChanged {
		return nil // another database is nothing to compare with, and not to be remembered
	}
	restored, last := s.keeper.account.Restored, s.keeper.account.Point
	// A database that is not the one of the last time, and was approved since, has no past yet.
	if restored == "" && last != nil && last.System == now.System {
		if restored = back(*last, now); restored == "" {
			if restored, err = s.forked(ctx, last); err != nil {
				return err
			}
		}
	}
	told := protocol.LeaseRequest{Seen: &now, Restored: restored}
	if err := s.keeper.tell(ctx, told); err != nil {
		return err
	}
	if restored == "" || !s.Plan.Deletes() {
		s.point = &now
		return nil
	}
	s.deleting = false
	s.end(report.Refused, report.ReasonRestoredFrom, "the database was put back to an earlier state: %s; rows that had been deleted may be there again, so it was only measured: look, then let sweeps go on by 'kubectl lethe approve %s/%s --database'",
		restored, s.Plan.Store.Namespace, s.Plan.Store.Name)
	return nil
}

// back says what shows that a database is at an earlier point than it was; empty: nothing does. A promoted standby goes on on a
// later timeline at a position that is not lower.
func back(last, now protocol.Point) string {
	switch {
	case now.OID != last.OID:
		return fmt.Sprintf("it is another database of the same name (object identifier %d, it was %d)", now.OID, last.OID)
	case now.Timeline < last.Timeline:
		return fmt.Sprintf("its timeline is %d, it was %d", now.Timeline, last.Timeline)
	case now.Position < last.Position:
		return fmt.Sprintf("its position in the write-ahead log is %s, it was %s", position(now.Position), position(last.Position))
	case now.Transactions < last.Transactions:
		return fmt.Sprintf("its next transaction is %d, it was %d", now.Transactions, last.Transactions)
	default:
		return ""
	}
}

// position as PostgreSQL writes it.
func position(p uint64) string { return fmt.Sprintf("%X/%X", p>>32, uint32(p)) }

// forked says that the history which the database has now left the one that sweeps saw before they saw it: transactions that
// were rolled back then are others now.
func (s *run) forked(ctx context.Context, last *protocol.Point) (string, error) {
	same, err := s.session.WereRolledBack(ctx, last.Witnesses)
	if err != nil || same {
		return "", err
	}
	return "its history has left the one of the last sweep before that sweep ended", nil
}

// notice is what is worth knowing about a dataset.
func (s *run) notice(i int) string {
	said := s.store.Notice(i)
	if !s.keeper.account.Lost || s.Plan.Datasets[i].Delete == nil {
		return said
	}
	const lost = "the keyserver's record of earlier sweeps is lost: what was approved beyond the brake before counts as used, and rows that returned before this sweep are not told apart"
	if said == "" {
		return lost
	}
	return lost + "; " + said
}

// windowsOf is a digest of the windows by which a dataset is deleted from: what a sweep has left by others says nothing.
func windowsOf(d plan.Dataset) string {
	b, err := json.Marshal([]any{d.Delete.RetainFor, d.Delete.Overrides, d.Floor})
	if err != nil {
		return "" // none of it can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// cleared is what the last complete sweep left of a dataset.
func (s *run) cleared(i int) *protocol.Cleared {
	for n := range s.keeper.account.Cleared {
		if c := &s.keeper.account.Cleared[n]; c.Dataset == s.Plan.Datasets[i].Name {
			return c
		}
	}
	return nil
}

// comeBack refuses a dataset in which more rows are older than a cutoff than the last complete sweep left there: nobody writes
// such rows, unless a backup was restored, or something brings in old records.
func (s *run) comeBack(ctx context.Context, i int) error {
	d, c := s.Plan.Datasets[i], s.cleared(i)
	if c == nil || d.Delete == nil || s.store.Problem(i) != nil {
		return nil
	}
	n, problem, err := s.store.Older(ctx, i, time.UnixMicro(c.Cutoff).UTC())
	if err != nil || problem != nil {
		s.refused[i] = problem
		return err
	}
	more, since, are := n-c.Left, c.Cutoff, "are older than"
	if more <= 0 && c.Windows != "" && c.Windows == windowsOf(d) {
		// Of tenants with a shorter window rows are gone that are younger than the cutoff of all others.
		due, err := s.store.Due(ctx, i, time.UnixMicro(c.SweptAt).UTC())
		if err != nil {
			return err
		}
		more, since, are = due-c.Due, c.SweptAt, "of tenants with a shorter window were past it on"
	}
	if more <= 0 {
		return nil
	}
	s.returned[i] = more
	s.refused[i] = &postgres.Problem{Reason: report.LineReturned, Message: fmt.Sprintf(
		"%d rows %s %s that the last complete sweep had not left: a backup was restored into the table, or old records were brought in; nothing of it is deleted: look, then let them go by 'kubectl lethe approve %s/%s --brake %s'",
		s.returned[i], are, time.UnixMicro(since).UTC().Format(time.DateOnly), s.Plan.Store.Namespace, s.Plan.Store.Name, d.Name)}
	return nil
}

// remember tells the keyserver where the database is at the end, and what complete sweeps of its datasets left. When that fails the
// record of the beginning stands: less is known, nothing is renewed.
func (s *run) remember(ctx context.Context, end ending, err error) {
	if s.point == nil || s.session.Closed() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, rememberWithin)
	defer cancel()
	if err == nil {
		err = s.tellEnd(bounded, end)
	}
	if err != nil {
		s.Log.Warn("Could not leave a record for the next sweep", "cause", postgres.Describe(err))
	}
}

// ending is a place in the life of the database after the last deletion, and transactions that were rolled back before it.
type ending struct {
	mark      postgres.Mark
	witnesses []uint64
}

// markEnd notes where the database is after the last deletion, which is on the disk by the time that all is measured.
func (s *run) markEnd(ctx context.Context) (e ending, err error) {
	if s.point == nil || s.session.Closed() {
		return e, nil
	}
	if e.witnesses, err = s.session.RollBack(ctx, witnesses); err == nil {
		e.mark, err = s.session.Mark(ctx)
	}
	return e, err
}

func (s *run) tellEnd(ctx context.Context, end ending) error {
	told := protocol.LeaseRequest{}
	for i, d := range s.Plan.Datasets {
		if !s.deleting || d.Delete == nil || !s.finished[i] || s.refused[i] != nil || s.store.Problem(i) != nil {
			continue
		}
		cutoff := retention.Cutoff(s.clocks.Early, d.Delete.RetainFor)
		n, problem, err := s.store.Older(ctx, i, cutoff)
		if err != nil {
			return err
		}
		if problem != nil || n >= postgres.CountCap {
			continue
		}
		c := protocol.Cleared{Dataset: d.Name, Definition: plan.Definition(d.Table), Cutoff: cutoff.UnixMicro(), Left: n, SweptAt: s.clocks.Early.UnixMicro()}
		due, err := s.store.Due(ctx, i, s.clocks.Early)
		if err != nil {
			return err
		}
		if due >= 0 {
			c.Windows, c.Due = windowsOf(d), due
		}
		told.Cleared = append(told.Cleared, c)
	}
	p, err := s.session.Reach(ctx, end.mark)
	if err != nil {
		return err
	}
	told.Seen = &protocol.Point{System: s.point.System, OID: p.OID, Timeline: p.Timeline, Position: p.Position, Transactions: p.Transactions, Witnesses: end.witnesses}
	s.r.Point = &report.Point{OID: p.OID, Timeline: p.Timeline, Position: p.Position, Transactions: p.Transactions}
	return s.keeper.tell(ctx, told)
}
