package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/stores"
)

// The words of the contract, as this package uses them.
type (
	// Config is [stores.Config].
	Config = stores.Config
	// Dataset is [stores.Dataset].
	Dataset = stores.Dataset
	// Rule is [stores.Rule].
	Rule = stores.Rule
	// Windows is [stores.Windows].
	Windows = stores.Windows
	// Override is [stores.Override].
	Override = stores.Override
	// Relation is [stores.Relation].
	Relation = stores.Relation
	// Problem is [v1alpha1.Problem].
	Problem = v1alpha1.Problem
	// Error is [stores.Error].
	Error = stores.Error
	// Clocks is [stores.Clocks].
	Clocks = stores.Clocks
	// Permit is [stores.Permit].
	Permit = stores.Permit
	// Deletion is [stores.Deletion].
	Deletion = stores.Deletion
	// Identity is [stores.Identity], of [IdentityKind]; Version is server_version_num.
	Identity = stores.Identity
)

// IdentityKind is that of the database cluster's system identifier, made by initdb and kept by its copies and standbys.
const IdentityKind = "PostgresSystemIdentifier"

// CountCap is [stores.CountCap].
const CountCap = stores.CountCap

// ErrRepeat and ErrPaused are those of package stores.
var (
	ErrRepeat = stores.ErrRepeat
	ErrPaused = stores.ErrPaused
)

// Engine is PostgreSQL behind the contract of package stores.
type Engine struct{}

var (
	_ stores.Engine    = Engine{}
	_ stores.Session   = session{}
	_ stores.Historian = session{}
	_ stores.Bound     = (*Store)(nil)
)

// Type is Postgres.
func (Engine) Type() v1alpha1.StoreType { return v1alpha1.StorePostgres }

// CommitMargin is how long the last statement before a COMMIT may take.
func (Engine) CommitMargin() time.Duration { return StatementTimeout }

// Credentials are the role's password.
func (Engine) Credentials() map[string]string {
	return map[string]string{sealing.PasswordKey: "what the role of spec.postgres logs in with"}
}

// Open logs in as [Connect] does.
func (Engine) Open(ctx context.Context, where plan.Target, with stores.Credentials, clock func() time.Time) (stores.Session, error) {
	p := where.Postgres
	if p == nil {
		return nil, &Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonPlanMismatch, Message: fmt.Sprintf("the plan says of a store of type %q nothing that PostgreSQL could be opened by", where.Type)}}
	}
	s, err := Connect(ctx, Target(*p), string(with[sealing.PasswordKey]), clock)
	if err != nil {
		return nil, err
	}
	return session{s}, nil
}

// Describe is [Describe].
func (Engine) Describe(err error) string { return Describe(err) }

// session is a Session in the contract's words.
type session struct{ *Session }

func (s session) Lock(ctx context.Context) (stores.Lock, error) {
	got, err := s.Session.Lock(ctx)
	if err != nil || !got {
		return stores.LockBusy, err
	}
	return stores.LockHeld, nil
}

func (s session) Bind(ctx context.Context, c Config) (stores.Bound, error) {
	st, err := Open(ctx, s.Session, c)
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (s session) Mark(ctx context.Context) (stores.Mark, error) { return s.Session.Mark(ctx) }

func (s session) Reach(ctx context.Context, m stores.Mark) (v1alpha1.StorePoint, error) {
	mark, ok := m.(Mark)
	if !ok {
		return v1alpha1.StorePoint{}, fmt.Errorf("a mark of another session: %T", m)
	}
	p, err := s.Session.Reach(ctx, mark)
	if err != nil {
		return v1alpha1.StorePoint{}, err
	}
	return p.StorePoint(), nil
}

// Witness names transactions that it has rolled back.
func (s session) Witness(ctx context.Context, n int) ([]string, error) {
	ids, err := s.RollBack(ctx, n)
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(out, strconv.FormatUint(id, 10))
	}
	return out, err
}

// Back compares two points, and asks the server what became of the witnesses of the former.
func (s session) Back(ctx context.Context, last v1alpha1.StorePoint, witnesses []string, now v1alpha1.StorePoint) (string, error) {
	is, err := ParsePoint(now)
	if err != nil {
		return "", err
	}
	was, ids, known := readPast(last, witnesses)
	if !known {
		return "where it was before is not told in words of this version", nil
	}
	if why := back(was, is); why != "" {
		return why, nil
	}
	// The history that the database has now left the one that sweeps saw before they saw it: transactions that were
	// rolled back then are others now.
	same, err := s.WereRolledBack(ctx, ids)
	if err != nil || same {
		return "", err
	}
	return "its history has left the one of the last sweep before that sweep ended", nil
}

// readPast reads what is remembered of the last sweep. It is not known where another version or a hand wrote it.
func readPast(last v1alpha1.StorePoint, witnesses []string) (was Point, ids []uint64, known bool) {
	was, err := ParsePoint(last)
	if err != nil {
		return was, nil, false
	}
	for _, w := range witnesses {
		id, err := strconv.ParseUint(w, 10, 63)
		if err != nil {
			return was, nil, false
		}
		ids = append(ids, id)
	}
	return was, ids, true
}

// back says what shows that a database is at an earlier point than it was; empty: nothing does. A promoted standby
// goes on on a later timeline at a position that is not lower.
func back(last, now Point) string {
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
