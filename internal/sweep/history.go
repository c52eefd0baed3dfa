package sweep

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
)

const (
	// witnesses are so many traces that each sweep leaves in the history of a store, to be asked for before the next.
	witnesses = 8
	// rememberWithin bounds what is done at the end of a sweep for the next one to be compared with.
	rememberWithin = 15 * time.Second
	// rememberEach is added to that for each dataset.
	rememberEach = 100 * time.Millisecond
	// clearedAtOnce is of how many datasets one request tells: they are some 170 bytes each, and the keyserver takes
	// requests of 8 KiB.
	clearedAtOnce = 24
)

// place looks where in its life the store is, and compares that with where sweeps saw it last. One that has gone back
// is only measured, until a person approves it as it is.
func (s *run) place(ctx context.Context) error {
	if s.history == nil {
		s.placed = !s.another
		return nil
	}
	now, err := s.reach(ctx, s.begun)
	if err != nil {
		return err
	}
	if s.another {
		return nil // another database is nothing to compare with, and not to be remembered
	}
	restored, last := s.keeper.account.Restored, s.keeper.account.Point
	// A database that is not the one of the last time, and was approved since, has no past yet.
	if restored == "" && last != nil && last.Of == now.Of {
		if restored, err = s.history.Back(ctx, last.StorePoint, last.Witnesses, now.StorePoint); err != nil {
			return err
		}
	}
	told := keyapi.LeaseRequest{Seen: &now, Restored: restored}
	if err := s.keeper.tell(ctx, told); err != nil {
		return err
	}
	if restored == "" || !s.Plan.Deletes() {
		s.placed, s.point = true, &now
		return nil
	}
	s.deleting = false
	s.end(report.Refused, v1alpha1.ReasonRestoredFrom, "the database was put back to an earlier state: %s; rows that had been deleted may be there again, so it was only measured: look, then let sweeps go on by 'kubectl lethe approve %s/%s --database'",
		restored, s.Plan.Store.Namespace, s.Plan.Store.Name)
	return nil
}

// reach waits until a mark is safe, and reports it.
func (s *run) reach(ctx context.Context, m stores.Mark) (keyapi.Point, error) {
	p, err := s.history.Reach(ctx, m)
	if err != nil {
		return keyapi.Point{}, err
	}
	s.r.Point = &p
	return keyapi.Point{Of: s.r.Identity, StorePoint: p}, nil
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

// windowsOf is a digest of the windows by which a dataset is deleted from: what a sweep has left by others says
// nothing.
func windowsOf(p plan.Plan, d plan.Dataset) string {
	b, err := json.Marshal([]any{d.Delete.RetainFor, p.Overrides(d.Delete.Own), d.Floor})
	if err != nil {
		return "" // none of it can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// cleared is what the last complete sweep left of a dataset.
func (s *run) cleared(i int) *keyapi.Cleared {
	for n := range s.keeper.account.Cleared {
		if c := &s.keeper.account.Cleared[n]; c.Dataset == s.Plan.Datasets[i].Name {
			return c
		}
	}
	return nil
}

// comeBack refuses a dataset in which more rows are older than a cutoff than the last complete sweep left there:
// nobody writes such rows, unless a backup was restored, or something brings in old records.
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
	if more <= 0 && c.Windows != "" && c.Windows == windowsOf(s.Plan, d) {
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
	s.refused[i] = &v1alpha1.Problem{Reason: v1alpha1.ReasonReturned, Message: fmt.Sprintf(
		"%d rows %s %s that the last complete sweep had not left: a backup was restored into the table, or old records were brought in; nothing of it is deleted: look, then let them go by 'kubectl lethe approve %s/%s --brake %s'",
		s.returned[i], are, time.UnixMicro(since).UTC().Format(time.DateOnly), s.Plan.Store.Namespace, s.Plan.Store.Name, d.Name)}
	return nil
}

// remember tells the keyserver where the database is at the end, and what complete sweeps of its datasets left. When
// that fails the record of the beginning stands: less is known, nothing is renewed.
func (s *run) remember(ctx context.Context, end ending, err error) {
	if !s.placed || s.session.Closed() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, rememberWithin+time.Duration(len(s.Plan.Datasets))*rememberEach)
	defer cancel()
	if err == nil {
		err = s.tellEnd(bounded, end)
	}
	if err != nil {
		s.Log.Warn("Could not leave a record for the next sweep", "cause", s.engine.Describe(err))
	}
}

// ending is a place in the life of the store after the last deletion, and traces that were left in its history
// before it.
type ending struct {
	mark      stores.Mark
	witnesses []string
}

// markEnd notes where the database is after the last deletion, which is on the disk by the time that all is measured.
func (s *run) markEnd(ctx context.Context) (e ending, err error) {
	if s.point == nil || s.session.Closed() {
		return e, nil
	}
	if e.witnesses, err = s.history.Witness(ctx, witnesses); err == nil {
		e.mark, err = s.history.Mark(ctx)
	}
	return e, err
}

func (s *run) tellEnd(ctx context.Context, end ending) error {
	told := keyapi.LeaseRequest{}
	for i, d := range s.Plan.Datasets {
		if !s.deleting || d.Delete == nil || !s.finished[i] || s.refused[i] != nil || s.store.Problem(i) != nil {
			continue
		}
		cutoff := d.Delete.RetainFor.Cutoff(s.clocks.Early)
		n, problem, err := s.store.Older(ctx, i, cutoff)
		if err != nil {
			return err
		}
		if problem != nil || n >= stores.CountCap {
			continue
		}
		c := keyapi.Cleared{Dataset: d.Name, PlaceDigest: d.Digest(), Cutoff: cutoff.UnixMicro(), Left: n, SweptAt: s.clocks.Early.UnixMicro()}
		due, err := s.store.Due(ctx, i, s.clocks.Early)
		if err != nil {
			return err
		}
		if due >= 0 {
			c.Windows, c.Due = windowsOf(s.Plan, d), due
		}
		if told.Cleared = append(told.Cleared, c); len(told.Cleared) == clearedAtOnce {
			if err := s.keeper.tell(ctx, told); err != nil {
				return err
			}
			told.Cleared = nil
		}
	}
	if s.point != nil {
		p, err := s.reach(ctx, end.mark)
		if err != nil {
			return err
		}
		p.Witnesses = end.witnesses
		told.Seen = &p
	}
	return s.keeper.tell(ctx, told)
}
