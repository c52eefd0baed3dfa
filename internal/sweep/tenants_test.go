package sweep

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/lease"
)

// TestWhoIsKnownRestrains: acme has a window of its own, and the column takes upper and lower case for the same.
// Whoever else is called ACME, from the beginning, in dispute, before anything goes or while it goes, keeps the rows
// from going by the window of acme; and so does a keyserver that does not say who is known.
func TestWhoIsKnownRestrains(t *testing.T) {
	const rows = 5000
	none, all, some := [2]int64{0, 0}, [2]int64{rows, rows}, [2]int64{1, rows - 1}
	for name, tc := range map[string]struct {
		set     func(k *lease.Server, p *plan.Plan)
		deleted [2]int64 // at least, at most
		reason  string   // of the line
		outcome report.Outcome
	}{
		"nobody else": {func(*lease.Server, *plan.Plan) {}, all, "", report.Done},
		"a tenant of another name": {func(k *lease.Server, _ *plan.Plan) {
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				if r.Seen != nil {
					k.Known = []string{"globex"}
				}
				return nil
			}
		}, all, "", report.Done},
		"a tenant of that name":    {func(k *lease.Server, _ *plan.Plan) { k.Known = []string{"ACME"} }, none, v1alpha1.ReasonUnclearTenant, report.Refused},
		"two that claim that name": {func(_ *lease.Server, p *plan.Plan) { p.Disputed = []string{"ACME"} }, none, v1alpha1.ReasonUnclearTenant, report.Refused},
		"one that comes before anything goes": {func(k *lease.Server, _ *plan.Plan) {
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				if r.Seen != nil {
					k.Known = []string{"ACME"}
				}
				return nil
			}
		}, none, v1alpha1.ReasonUnclearTenant, report.Refused},
		"one that comes while rows go": {func(k *lease.Server, _ *plan.Plan) {
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				if len(r.Spend) > 0 {
					k.Known = []string{"ACME"}
				}
				return nil
			}
		}, some, v1alpha1.ReasonUnclearTenant, report.Refused},
		"the keyserver does not say":                {func(k *lease.Server, _ *plan.Plan) { k.Unnamed = true }, none, v1alpha1.ReasonNotReached, report.Refused},
		"what it says is not what the digest names": {func(k *lease.Server, _ *plan.Plan) { k.Digest = plan.DigestOf([]string{"x"}) }, none, v1alpha1.ReasonNotReached, report.Refused},
		"it says so when it is asked again": {func(k *lease.Server, _ *plan.Plan) {
			k.Unnamed = true
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				k.Unnamed = k.Unnamed && r.KnownFrom == 0
				return nil
			}
		}, all, "", report.Done},
		"while rows go it does not say so once": {func(k *lease.Server, _ *plan.Plan) {
			once := false
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				k.Unnamed = (k.Unnamed || len(r.Spend) > 0 && !once) && (r.KnownFrom == 0 || !k.Unnamed)
				once = once || k.Unnamed
				return nil
			}
		}, all, "", report.Done},
		"it says no more, while rows go": {func(k *lease.Server, _ *plan.Plan) {
			k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
				k.Unnamed = k.Unnamed || len(r.Spend) > 0
				return nil
			}
		}, some, v1alpha1.ReasonNotReached, report.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			d := dataset("log", 90)
			d.Table.TenantColumn, d.Rules[0].Own, d.Delete.Own = "tenant", 1, 1
			w := newWorld(t, `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
				CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text COLLATE nocase);
				INSERT INTO log SELECT n, now() - interval '40 days' - n * interval '1 second', CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'ACME' END FROM generate_series(1, 5000) n; CREATE INDEX ON log (at)`, d)
			w.plan.Tenancy, w.plan.Periods, w.plan.BrakePercent = v1alpha1.TenancyShared, []calendar.Window{days(30)}, 1
			w.plan.Classes = []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"acme"}}}}
			k := newKeyserver(t)
			w.plan.Datasets[0].Delete.Backlog = permit(rows, k.Clock().Add(-time.Minute), 24*time.Hour)
			tc.set(k, &w.plan)
			k.By(&w.plan)
			r := w.run(Options{Leaser: client(t, k)})
			l := lineOf(r, "log")
			if r.Deleted < tc.deleted[0] || r.Deleted > tc.deleted[1] || l.Reason != tc.reason || r.Outcome != tc.outcome {
				t.Errorf("%d rows, %s: %s; sweep %s %s: %s", r.Deleted, l.Reason, l.Message, r.Outcome, r.Reason, r.Message)
			}
			// What it was measured by is told where it was measured, and only there.
			if tells := r.Tenants != ""; tells != (tc.reason != v1alpha1.ReasonNotReached) {
				t.Errorf("measured by %q", r.Tenants)
			}
			if left := w.admin.Count(`SELECT count(*) FROM log`); left != rows-r.Deleted {
				t.Errorf("%d rows are left, %d were reported as deleted", left, r.Deleted)
			}
		})
	}
}

// Where no tenant has a window of its own it matters nothing for deletion who is known; who is unknown is not
// measured, and nothing is green.
func TestWithoutAListTheBaseWindowHolds(t *testing.T) {
	d := dataset("log", 90)
	d.Table.TenantColumn = "tenant"
	w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text); INSERT INTO log SELECT n, now() - interval '100 days', 'acme' FROM generate_series(1, 400) n`, d)
	w.plan.Tenancy = v1alpha1.TenancyShared
	k := newKeyserver(t)
	k.Unnamed = true
	k.By(&w.plan)
	r := w.run(Options{Leaser: client(t, k)})
	if l := lineOf(r, "log"); r.Deleted != 400 || l.Reason != v1alpha1.ReasonNotReached || r.Reason != v1alpha1.ReasonTenantsUnknown {
		t.Errorf("%+v", r)
	}
}

// What is not known of the tenants hides nothing that is worse: another database is no place to be remembered, and
// the reason is said.
func TestWithoutAListAnotherDatabaseIsAnother(t *testing.T) {
	d := dataset("log", 90)
	d.Table.TenantColumn = "tenant"
	w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant text); INSERT INTO log SELECT n, now() - interval '100 days', 'acme' FROM generate_series(1, 400) n`, d)
	w.plan.Tenancy, w.plan.Database.Identity.Value = v1alpha1.TenancyShared, "7000000000000000001"
	k := newKeyserver(t)
	k.Unnamed = true
	seen := 0
	k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
		if r.Seen != nil {
			seen++
		}
		return nil
	}
	k.By(&w.plan)
	r := w.run(Options{Leaser: client(t, k)})
	if r.Reason != v1alpha1.ReasonIdentityChanged || r.Deleted != 0 || seen != 0 || w.admin.Count(`SELECT count(*) FROM log`) != 400 {
		t.Errorf("remembered %d times: %+v", seen, r)
	}
}

// A dataset that cannot go on after its first turn keeps its count: what is gone is reported.
func TestWhatWentBeforeANewcomerIsReported(t *testing.T) {
	a, b := dataset("a", 90), dataset("b", 90)
	for _, d := range []*plan.Dataset{&a, &b} {
		d.Table.TenantColumn, d.Rules[0].Own, d.Delete.Own = "tenant", 1, 1
	}
	w := newWorld(t, `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE b (id bigint PRIMARY KEY, at timestamptz, tenant text COLLATE nocase);
		CREATE TABLE a (id bigint PRIMARY KEY, at timestamptz, tenant text COLLATE nocase, b bigint REFERENCES b);
		INSERT INTO b SELECT n, now() - interval '40 days' - n * interval '1 second', 'acme' FROM generate_series(1, 5000) n;
		INSERT INTO a SELECT n, now() - interval '40 days' - n * interval '1 second', 'acme', n FROM generate_series(1, 5000) n;
		CREATE INDEX ON a (at); CREATE INDEX ON b (at); CREATE INDEX ON a (b)`, a, b)
	w.plan.Tenancy, w.plan.Periods, w.plan.BrakePercent = v1alpha1.TenancyShared, []calendar.Window{days(30)}, 1
	w.plan.Classes = []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"acme"}}}}
	k := newKeyserver(t)
	for i := range w.plan.Datasets {
		w.plan.Datasets[i].Delete.Backlog = permit(5000, k.Clock().Add(-time.Minute), 24*time.Hour)
	}
	k.By(&w.plan)
	// While the first batch of a is debited somebody comes who is called ACME, and the turn of a is over with that
	// batch.
	var ahead atomic.Int64
	k.After = func(r *keyapi.LeaseRequest) *keyapi.Error {
		if len(r.Spend) > 0 && k.Known == nil {
			k.Known = []string{"ACME"}
			ahead.Store(int64(10 * time.Second))
		}
		return nil
	}
	r := w.run(Options{Leaser: client(t, k), Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	gone := 5000 - w.admin.Count(`SELECT count(*) FROM a`)
	if gone == 0 || gone == 5000 || w.admin.Count(`SELECT count(*) FROM b`) != 5000 {
		t.Fatalf("%d rows of a are gone: the test shows nothing; %+v", gone, r)
	}
	if r.Deleted != gone || lineOf(r, "a").Deleted != gone || lineOf(r, "a").Reason != v1alpha1.ReasonUnclearTenant || lineOf(r, "b").Reason != v1alpha1.ReasonUnclearTenant {
		t.Errorf("%d rows are gone, and %d reported: %+v", gone, r.Deleted, r)
	}
}
