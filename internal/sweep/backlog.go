package sweep

import (
	"context"
	"fmt"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/stores"
)

// measuredRows is how many rows a table must have for the brake to mean anything.
const measuredRows = 1000

// backlog is what a person has permitted beyond the brake, and how much of it is used up: at the keyserver, where it
// is debited before a row goes, and in rows that have gone. What was debited and not used stays debited: nobody else
// could tell.
type backlog struct {
	permit  keyapi.Permit
	until   time.Time
	planned int64 // rows that this sweep means to delete
	debited int64 // by this sweep, as far as the keyserver has said so
	owed    int64 // what it was asked for and may have debited
	used    int64 // of that
}

func (b *backlog) left() int64 { return max(0, b.permit.Left()-b.debited) }

// openBacklogs takes over what the keyserver says is left.
func (s *run) openBacklogs() []backlog {
	out := make([]backlog, len(s.Plan.Datasets))
	for i, d := range s.Plan.Datasets {
		if d.Delete == nil || d.Delete.Backlog == nil {
			continue
		}
		for _, p := range s.keeper.account.Permits {
			if p.Dataset == d.Name {
				out[i] = backlog{permit: p, until: d.Delete.Backlog.Until}
			}
		}
	}
	return out
}

// draw sees to it that the next batch may take so many rows: as long as the backlog of its dataset lasts, each is
// debited before. Two batches are debited at a time, and no more than is planned: that much a sweep that is killed
// loses. Beyond the backlog rows are what the brake itself allows, since it has been asked.
func (s *run) draw(ctx context.Context, i int, batch int64) error {
	b := &s.backlogs[i]
	want := max(b.owed, min(b.used+2*batch, b.planned, b.debited+b.left()))
	if want <= b.debited || b.debited-b.used >= batch && b.owed <= b.debited {
		return nil
	}
	if err := s.keeper.tell(ctx, b.spend(want)); err != nil {
		return err
	}
	b.debited = want
	return nil
}

func (b *backlog) spend(debited int64) keyapi.LeaseRequest {
	return keyapi.LeaseRequest{Spend: []keyapi.Spend{{Dataset: b.permit.Dataset, Used: b.permit.Used + debited}}}
}

// commit is asked when so many rows have been deleted and not committed: what is not debited yet is debited now.
func (s *run) commit(ctx context.Context, i int, rows int64) error {
	b := &s.backlogs[i]
	if missing := b.used + rows - b.debited; missing > 0 && b.left() > 0 {
		bounded, cancel := context.WithTimeout(ctx, debitWithin)
		defer cancel()
		b.owed = b.debited + min(missing, b.left())
		if _, err := s.keeper.ask(bounded, b.spend(b.owed)); err != nil {
			return s.unanswered(err)
		}
		b.debited = b.owed
	}
	b.used += rows
	return nil
}

// unanswered is what a debit that did not come back means. The batch is rolled back; where another answer may come it
// is deleted again, after the same debit: asked for twice it is one.
func (s *run) unanswered(err error) error {
	switch {
	case keyclient.ReasonOf(err) == v1alpha1.ReasonBacklogSpent:
		return err
	case keyclient.IsRetryable(err) && s.Clock().Before(s.keeper.expires()):
		return fmt.Errorf("%w: %w", stores.ErrRepeat, err)
	default:
		return fmt.Errorf("%w: %w", errLeaseLost, err)
	}
}

// debitWithin bounds a debit while rows are locked.
const debitWithin = time.Second

// spent is the problem of a dataset whose backlog ended while it was deleted from.
func (s *run) spent(i int) *v1alpha1.Problem {
	return &v1alpha1.Problem{Reason: v1alpha1.ReasonBrakeTripped, Message: fmt.Sprintf(
		"the approved backlog ended while it was used%s: look, then 'kubectl lethe approve %s/%s --brake %s'", s.why(i), s.Plan.Store.Namespace, s.Plan.Store.Name, s.Plan.Datasets[i].Name)}
}

// why nothing is left of a backlog that was approved.
func (s *run) why(i int) string {
	switch b := s.backlogs[i]; {
	case b.permit.Rows == 0:
		return ""
	case b.permit.Void != "":
		return fmt.Sprintf(" (a backlog of %d rows was approved: %s)", b.permit.Rows, b.permit.Void)
	default:
		return fmt.Sprintf(" (of a backlog of %d rows that was approved %d are left)", b.permit.Rows, b.left())
	}
}

// brake refuses a dataset that would lose suspiciously much, unless that much was approved as its backlog and is left
// of it.
func (s *run) brake(ctx context.Context, i int) error {
	d := s.Plan.Datasets[i]
	if d.Delete == nil || s.store.Problem(i) != nil {
		return nil
	}
	percent := int64(s.Plan.BrakePercent)
	b := &s.backlogs[i]
	if b.permit.Void == "" && !s.clocks.Late.Before(b.until) && b.permit.Rows > 0 {
		b.permit.Void = "its time is over"
	}
	left := b.left()
	enough := func(planned int64) int64 {
		if planned <= left {
			return 0 // how many rows there are decides nothing
		}
		// As many rows as must be there for so many to go, and one more, so that rounding down costs none.
		return max(measuredRows, (planned+1)*100/max(1, percent)+1)
	}
	// What has expired is counted at once, what would really go takes longer: it matters only when the former is too
	// much.
	for _, count := range []func(context.Context, int, time.Time, func(int64) int64) (int64, int64, *v1alpha1.Problem, error){s.store.Expired, s.store.Planned} {
		planned, rows, problem, err := count(ctx, i, s.clocks.Early, enough)
		if err != nil {
			return err
		}
		s.refused[i], b.planned = problem, planned
		if problem != nil {
			return nil
		}
		// The backlog was counted by an Audit some time ago; rows that have crossed their window since then are what
		// the brake itself is for.
		most := left + rows*percent/100
		s.Log.Info("Planned", "dataset", d.Name, "rows", planned, "allowed", most, "backlogLeft", left)
		if planned <= most || planned > left && rows < measuredRows {
			return nil
		}
		s.refused[i] = &v1alpha1.Problem{Reason: v1alpha1.ReasonBrakeTripped, Message: fmt.Sprintf(
			"%d of %d rows would go, the brake allows %d%%%s: if that is right, let them go by 'kubectl lethe approve %s/%s --brake %s', or raise spec.brake.maxPercentOfTable",
			planned, rows, percent, s.why(i), s.Plan.Store.Namespace, s.Plan.Store.Name, d.Name)}
	}
	return nil
}
