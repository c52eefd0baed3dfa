package keytimes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/guess"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
)

// Type of store, which the API does not know.
const Type v1alpha1.StoreType = "KeyTimes"

// identityKind is that of a server's own name for itself.
const identityKind = "KeyTimesServer"

// batch is about how many keys are looked at between two permits.
const batch = 100

// earliest age that is believed.
var earliest = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)

// Engine knows its one server.
type Engine struct{ Server *Server }

// Type is Type.
func (Engine) Type() v1alpha1.StoreType { return Type }

// CommitMargin is how long a batch of single deletions takes at most.
func (Engine) CommitMargin() time.Duration { return time.Second }

// Credentials are two.
func (Engine) Credentials() map[string]string {
	return map[string]string{"password": "what the role logs in with", "token": "what the server's door wants to see"}
}

// Open logs in.
func (e Engine) Open(_ context.Context, _ plan.Target, with stores.Credentials, clock func() time.Time) (stores.Session, error) {
	server := e.Server
	if server.Down {
		return nil, &stores.Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnreachable, Message: "nothing answers"}}
	}
	if err := server.login(string(with["password"]), string(with["token"])); err != nil {
		return nil, &stores.Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonWrongPassword, Message: "the store does not take this password"}, Cause: err}
	}
	return &session{server: server, clock: clock}, nil
}

// Describe says nothing of the error but that there was one.
func (Engine) Describe(error) string { return "the connection to the store broke" }

type session struct {
	server *Server
	clock  func() time.Time
	closed bool
}

func (s *session) Identify(context.Context) (stores.Identity, error) {
	return stores.Identity{Of: v1alpha1.StoreIdentity{Kind: identityKind, Value: s.server.ID}, Database: s.server.Name, Version: 1}, nil
}

func (s *session) Lock(context.Context) (stores.Lock, error) { return stores.LockNone, nil }

func (s *session) Now(context.Context) (time.Time, time.Duration, error) {
	return s.clock().UTC(), 0, nil
}

func (s *session) Closed() bool { return s.closed }

func (s *session) Close(context.Context) error {
	s.closed = true
	return nil
}

func (s *session) Bind(ctx context.Context, c stores.Config) (stores.Bound, error) {
	b := &bound{session: s, config: c, cursors: make([]uint32, len(c.Datasets)), done: make([]stores.Deletion, len(c.Datasets)), found: make([]bool, len(c.Datasets)), unlisted: map[int]bool{}}
	names, mapped := s.server.names(), map[string]bool{}
	for _, x := range c.Exempt {
		mapped[string(x.Table.Name)] = true
	}
	for _, d := range c.Datasets {
		mapped[string(d.Table.Name)] = true
		b.problems = append(b.problems, b.check(d, names))
	}
	for _, name := range names {
		if !mapped[name] {
			b.uncovered = append(b.uncovered, name)
		}
	}
	return b, b.Know(ctx, c.Tenants, c.TenantsUnread)
}

type bound struct {
	*session
	config    stores.Config
	problems  []*v1alpha1.Problem
	unlisted  map[int]bool // the problem is that nobody knows who is known
	uncovered []string
	cursors   []uint32
	found     []bool
	done      []stores.Deletion
}

func (b *bound) check(d stores.Dataset, names []string) *v1alpha1.Problem {
	if !slices.Contains(names, string(d.Table.Name)) {
		return &v1alpha1.Problem{Reason: v1alpha1.ReasonMissingTable, Message: fmt.Sprintf("there is no set of keys %s: correct table.name", d.Table.Name)}
	}
	if may := b.server.rights(); may != "" {
		return &v1alpha1.Problem{Reason: v1alpha1.ReasonMissingPrivilege, Message: "the role sees a part of the keys only, so that keys would be kept unseen: let it see all"}
	}
	for _, r := range b.config.Relations {
		if r.References == d.Name {
			return &v1alpha1.Problem{Reason: v1alpha1.ReasonUnsupportedTable, Message: "keys do not refer to keys: take the entry of spec.relations away"}
		}
	}
	return nil
}

// Know takes the list, and refuses what cannot do without one.
func (b *bound) Know(_ context.Context, tenants []string, unread string) error {
	b.config.Tenants, b.config.TenantsUnread = tenants, unread
	for i, d := range b.config.Datasets {
		if b.unlisted[i] {
			b.problems[i], b.unlisted[i] = nil, false
		}
		if b.Unclear(i) && b.problems[i] == nil {
			b.unlisted[i] = true
			b.problems[i] = &v1alpha1.Problem{Reason: v1alpha1.ReasonNotReached, Message: fmt.Sprintf("%s, so that tenants of %s with a window of their own cannot be told from others", unread, d.Name)}
		}
	}
	return nil
}

// Unclear where nobody knows who is known. Keys are compared byte by byte: there are no two names for one tenant.
func (b *bound) Unclear(i int) bool {
	d := b.config.Datasets[i]
	own := d.Delete != nil && len(d.Delete.Overrides) > 0
	for _, r := range d.Rules {
		own = own || len(r.Windows.Overrides) > 0
	}
	return own && d.Table.TenantColumn != "" && b.config.TenantsUnread != ""
}

func (b *bound) Order() []int {
	out := make([]int, len(b.config.Datasets))
	for i := range out {
		out[i] = i
	}
	return out
}

func (b *bound) Waits(int, func(int) bool) bool  { return false }
func (b *bound) Problem(i int) *v1alpha1.Problem { return b.problems[i] }
func (b *bound) Notice(int) string               { return "" }
func (b *bound) Uncovered() []string             { return slices.Clone(b.uncovered) }
func (b *bound) Undeclared() []guess.Relation    { return nil }
func (b *bound) Pointers() []string              { return nil }

// each looks at every key once.
func (b *bound) each(ctx context.Context, i int, look func(e Entry)) error {
	set, seen := string(b.config.Datasets[i].Table.Name), map[string]bool{}
	for cursor := uint32(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		keys, next := b.server.scan(set, cursor, batch)
		for _, key := range keys {
			e, ok := b.server.get(set, key)
			if ok && !seen[key] {
				look(e)
			}
			seen[key] = true
		}
		if cursor = next; next == 0 {
			return nil
		}
	}
}

func unknownAge(e Entry, now time.Time) bool {
	return e.At.IsZero() || e.At.Before(earliest) || e.At.After(now)
}

// override is the window of the tenant's own; not ok where it has none.
func (b *bound) override(d stores.Dataset, w stores.Windows, tenant string) (calendar.Window, bool) {
	if d.Table.TenantColumn != "" && tenant != "" {
		for _, o := range w.Overrides {
			if slices.Contains(o.IDs, tenant) {
				return o.RetainFor, true
			}
		}
	}
	return w.RetainFor, false
}

// expired says whether a key is past its window by some windows, floors apart.
func (b *bound) expired(d stores.Dataset, w stores.Windows, e Entry, at time.Time) bool {
	period, _ := b.override(d, w, e.Tenant)
	return !unknownAge(e, at) && !e.At.After(period.Cutoff(at))
}

func floored(d stores.Dataset, e Entry, at time.Time) bool {
	return d.Floor != nil && e.At.After(d.Floor.FloorCutoff(at))
}

// goes says whether Delete takes a key.
func (b *bound) goes(i int, e Entry, at time.Time) bool {
	d := b.config.Datasets[i]
	return d.Delete != nil && b.problems[i] == nil && b.expired(d, *d.Delete, e, at) && !floored(d, e, at)
}

func (b *bound) known(tenant string) bool {
	return tenant != "" && slices.Contains(b.config.Tenants, tenant) && !slices.Contains(b.config.Disputed, tenant)
}

func (b *bound) Measure(ctx context.Context, i int, at stores.Clocks) (report.Dataset, error) {
	d := b.config.Datasets[i]
	out := report.Dataset{Name: d.Name}
	if p := b.problems[i]; p != nil {
		out.Reason, out.Message = p.Reason, p.Message
	}
	if out.Reason == "" && d.Table.TenantColumn != "" && b.config.TenantsUnread != "" {
		out.Reason, out.Message = v1alpha1.ReasonNotReached, b.config.TenantsUnread+", so that keys of unknown tenants are not told from others"
	}
	if len(d.Rules) == 0 {
		if out.Reason == "" {
			out.Reason, out.Message = v1alpha1.ReasonUngoverned, "no rule governs this dataset: add one for its dataClass"
		}
		return out, nil
	}
	for _, r := range d.Rules {
		rule := report.Rule{Policy: r.Policy, Rule: r.Rule}
		if out.Reason == "" {
			if err := b.measure(ctx, i, r, at, &out, &rule); err != nil {
				return out, err
			}
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

func (b *bound) measure(ctx context.Context, i int, r stores.Rule, at stores.Clocks, out *report.Dataset, rule *report.Rule) error {
	d := b.config.Datasets[i]
	late := at.Late.Add(-r.DeleteWithin.Duration())
	*out = report.Dataset{Name: out.Name, Rules: out.Rules} // it is counted anew with each rule
	err := b.each(ctx, i, func(e Entry) {
		out.Rows++
		if d.Table.TenantColumn != "" && !b.known(e.Tenant) {
			out.UnknownTenant++
			if b.anybodys(d, r.Windows, e, late) {
				rule.UnknownTenantLate++
			}
		}
		if unknownAge(e, at.Late) {
			out.UnknownAge++
			return
		}
		out.OldestAgeSeconds = max(out.OldestAgeSeconds, int64(at.Late.Sub(e.At).Seconds()))
		switch {
		case !b.expired(d, r.Windows, e, at.Late):
		case floored(d, e, at.Late):
			rule.KeptByFloor++
		default:
			rule.Eligible++
			if b.expired(d, r.Windows, e, late) && !floored(d, e, late) {
				period, _ := b.override(d, r.Windows, e.Tenant)
				rule.Overdue++
				rule.OldestOverdueSeconds = max(rule.OldestOverdueSeconds, int64(period.Cutoff(late).Sub(e.At).Seconds()))
			}
		}
	})
	// What is said to be there, late and roughly, may only raise the number.
	out.Rows = max(out.Rows, int64(b.server.roughly(string(d.Table.Name))))
	return err
}

// anybodys says whether a key of nobody's would be late if it were the tenant's with the shortest window.
func (b *bound) anybodys(d stores.Dataset, w stores.Windows, e Entry, late time.Time) bool {
	for _, o := range w.Overrides {
		if !unknownAge(e, late) && !e.At.After(o.RetainFor.Cutoff(late)) {
			return true
		}
	}
	return false
}

func (b *bound) Overdue(ctx context.Context, i int, at stores.Clocks) ([]report.Rule, error) {
	if b.problems[i] != nil || len(b.config.Datasets[i].Rules) == 0 {
		return nil, nil
	}
	out, err := b.Measure(ctx, i, at)
	return out.Rules, err
}

func (b *bound) Expired(ctx context.Context, i int, at time.Time, most func(int64) int64) (expired, records int64, problem *v1alpha1.Problem, err error) {
	if p := b.problems[i]; p != nil {
		return 0, 0, p, nil
	}
	err = b.each(ctx, i, func(e Entry) {
		records++
		if b.goes(i, e, at) {
			expired++
		}
	})
	return expired, min(records, most(expired)), nil, err
}

func (b *bound) Planned(ctx context.Context, i int, at time.Time, most func(int64) int64) (planned, records int64, problem *v1alpha1.Problem, err error) {
	return b.Expired(ctx, i, at, most)
}

func (b *bound) Delete(ctx context.Context, i int, at time.Time, permit stores.Permit) (stores.Deletion, error) {
	if b.problems[i] != nil || b.config.Datasets[i].Delete == nil {
		return stores.Deletion{}, nil
	}
	out := &b.done[i]
	for {
		if b.cursors[i] != 0 && permit.Pause != nil && permit.Pause() {
			return *out, stores.ErrPaused
		}
		next, err := b.pass(ctx, i, at, permit, out)
		if err != nil {
			return *out, err
		}
		if b.cursors[i] = next; next != 0 {
			continue
		}
		found := b.found[i]
		if b.found[i] = false; !found {
			return *out, nil
		}
	}
}

// pass takes what may go of the keys after the cursor, and says where to go on.
func (b *bound) pass(ctx context.Context, i int, at time.Time, permit stores.Permit, out *stores.Deletion) (uint32, error) {
	set := string(b.config.Datasets[i].Table.Name)
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := permit.Begin(batch); err != nil {
			return 0, err
		}
		began := b.clock()
		keys, next := b.server.scan(set, b.cursors[i], batch)
		going := map[string]int64{}
		for _, key := range keys {
			if e, ok := b.server.get(set, key); ok && b.goes(i, e, at) {
				going[key] = e.Version
			}
		}
		if len(going) == 0 {
			return next, nil
		}
		switch err := permit.Commit(int64(len(going))); {
		case errors.Is(err, stores.ErrRepeat):
			out.Rollbacks++
			continue
		case err != nil:
			return 0, err
		}
		for key, version := range going {
			if b.server.deleteIf(set, key, version) {
				out.Rows++
				b.found[i] = true
			}
		}
		out.Batches++
		out.Longest = max(out.Longest, b.clock().Sub(began))
		return next, nil
	}
}

func (b *bound) Older(ctx context.Context, i int, cutoff time.Time) (n int64, problem *v1alpha1.Problem, err error) {
	if p := b.problems[i]; p != nil {
		return 0, p, nil
	}
	err = b.each(ctx, i, func(e Entry) {
		if n < stores.CountCap && !e.At.IsZero() && !e.At.Before(earliest) && !e.At.After(cutoff) {
			n++
		}
	})
	return n, nil, err
}

func (b *bound) Due(ctx context.Context, i int, at time.Time) (n int64, err error) {
	d := b.config.Datasets[i]
	if d.Delete == nil || b.problems[i] != nil {
		return -1, nil
	}
	err = b.each(ctx, i, func(e Entry) {
		period, own := b.override(d, *d.Delete, e.Tenant)
		if own && period.Cutoff(at).After(d.Delete.RetainFor.Cutoff(at)) && b.goes(i, e, at) && n < stores.CountCap {
			n++
		}
	})
	return n, err
}
