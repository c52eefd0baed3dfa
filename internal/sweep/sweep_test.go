package sweep

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/storetest"
)

const logTable = `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON log (at);
	INSERT INTO log SELECT n, now() - interval '100 days' FROM generate_series(1, 5000) n; INSERT INTO log SELECT n, now() FROM generate_series(5001, 10000) n;`

func TestSweep(t *testing.T) {
	w := newWorld(t, logTable+`CREATE TABLE forgotten (id int); CREATE TABLE known (id int)`, dataset("log", 90))
	w.plan.Exempt = []plan.Exemption{{Table: &plan.TableName{Schema: "public", Name: "known"}}}
	k := newKeyserver(t)
	got := w.run(Options{Leaser: client(t, k)})
	want := report.Report{Plan: "hash", Mode: "Enforce", Outcome: report.Done, Identity: w.plan.Database.Identity, Database: w.database,
		Uncovered: []string{"public.forgotten"}, UncoveredCount: 1, Deleted: 5000,
		Datasets: []report.Dataset{{Name: "log", Rows: 5000, Rules: []report.Rule{{Policy: "promise", Rule: "log", OverdueBefore: 5000, Deleted: 5000}}}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(report.Report{}, "Point", "Started", "Finished"), cmpopts.IgnoreFields(report.Dataset{}, "OldestAgeSeconds"), cmpopts.IgnoreFields(report.Rule{}, "OldestBeforeSeconds")); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if now := time.Now().Unix(); got.Started < now-60 || got.Finished < got.Started || got.Finished > now+1 {
		t.Errorf("from %d to %d, now %d", got.Started, got.Finished, now)
	}
	if n := w.admin.Count(`SELECT count(*) FROM log`); n != 5000 {
		t.Errorf("%d rows left", n)
	}
	if _, released := k.Count(); released != 1 {
		t.Errorf("the lease was released %d times", released)
	}
	second := w.run(Options{})
	if second.Outcome != report.Done || storetest.Lines(second)[0].Deleted != 0 {
		t.Errorf("a second sweep: %+v", second)
	}
}

// broken is a Leaser with a defect.
type broken struct{ Leaser }

func (broken) Lease(context.Context, keyapi.LeaseRequest, bool) (keyclient.Lease, error) {
	panic("a defect")
}

func TestWhatKeepsASweepFromDeleting(t *testing.T) {
	tests := map[string]struct {
		change   func(*world, *lease.Server, *Options)
		outcome  report.Outcome
		reason   string
		measured bool // with 5000 eligible rows
		says     string
	}{
		"a plan that only audits": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Datasets[0].Delete = nil }, report.Done, "", true, "",
		},
		"a plan that has expired": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.ValidUntil = time.Now().Add(-time.Second) }, report.Refused, v1alpha1.ReasonPlanExpired, false, "manager",
		},
		"no lease: the plan changed": {
			func(_ *world, k *lease.Server, _ *Options) {
				k.Answer = func(bool) *keyapi.Error { return refusal(v1alpha1.ReasonPlanChanged) }
			},
			report.Refused, v1alpha1.ReasonLeaseRefused, false, v1alpha1.ReasonPlanChanged,
		},
		"another database than the one that was approved": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Database.Identity.Value = "7000000000000000000" }, report.Refused, v1alpha1.ReasonIdentityChanged, true, "7000000000000000000",
		},
		"another name than the one that was approved": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Database.Name = "other" }, report.Refused, v1alpha1.ReasonIdentityChanged, true, "approve",
		},
		"a wrong password": {
			func(_ *world, k *lease.Server, _ *Options) { k.Password = "wrong-secret" }, report.Refused, v1alpha1.ReasonWrongPassword, false, "kubectl lethe seal",
		},
		"a store that is not there": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Target.Postgres.Port = 1 }, report.Failed, v1alpha1.ReasonUnreachable, false, "spec.postgres.host",
		},
		"an untrusted certificate": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Target.Postgres.CABundle = "" }, report.Refused, v1alpha1.ReasonUntrustedCertificate, false, "caBundle",
		},
		"a database that is not there": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.Target.Postgres.Database = "nowhere" }, report.Refused, v1alpha1.ReasonNoSuchDatabase, false, "spec.postgres.database",
		},
		"a clock that is ahead": {
			func(_ *world, _ *lease.Server, o *Options) {
				o.Clock = func() time.Time { return time.Now().Add(61 * time.Second) }
			}, report.Refused, v1alpha1.ReasonClockSkew, false, "NTP",
		},
		"a clock that is behind": {
			func(_ *world, _ *lease.Server, o *Options) {
				o.Clock = func() time.Time { return time.Now().Add(-61 * time.Second) }
			}, report.Refused, v1alpha1.ReasonClockSkew, false, "NTP",
		},
		"the brake": {
			func(w *world, _ *lease.Server, _ *Options) { w.plan.BrakePercent = 49 }, report.Refused, v1alpha1.ReasonDatasetsRefused, true, "",
		},
		"the brake, and a backlog that is too small": {
			func(w *world, _ *lease.Server, _ *Options) {
				w.plan.BrakePercent = 1 // 100 rows of 10 000
				w.plan.Datasets[0].Delete.Backlog = permit(4899, time.Now().Add(-time.Minute), time.Hour)
			}, report.Refused, v1alpha1.ReasonDatasetsRefused, true, "",
		},
		"the brake, and a backlog whose time is over": {
			func(w *world, _ *lease.Server, _ *Options) {
				w.plan.BrakePercent = 49
				w.plan.Datasets[0].Delete.Backlog = permit(5000, time.Now().Add(-time.Hour), time.Minute)
			}, report.Refused, v1alpha1.ReasonDatasetsRefused, true, "",
		},
		"a budget that is over before the first batch": {
			func(_ *world, _ *lease.Server, o *Options) { o.Budget = time.Nanosecond }, report.Stopped, v1alpha1.ReasonTimeBudget, true, "",
		},
		"a signal before the first batch": {
			func(_ *world, k *lease.Server, o *Options) {
				stop := make(chan struct{})
				var once sync.Once
				o.Stop, k.Answer = stop, func(bool) *keyapi.Error {
					once.Do(func() { close(stop) })
					return &keyapi.Error{Reason: v1alpha1.ReasonInUse, RetryAfter: 30}
				}
			}, report.Stopped, v1alpha1.ReasonTerminated, false, "",
		},
		"another sweep that holds the store": {
			func(w *world, _ *lease.Server, _ *Options) {
				var got bool
				if err := server.Admin(w.t, w.database).QueryRow(w.t.Context(), `SELECT pg_try_advisory_lock(x'6c657468655f3031'::bigint)`).Scan(&got); err != nil || !got {
					w.t.Fatalf("take the lock: %v, %v", got, err)
				}
			}, report.Refused, v1alpha1.ReasonStoreBusy, false, "another sweep",
		},
		"a panic": {
			func(_ *world, _ *lease.Server, o *Options) { o.Leaser = broken{} }, report.Failed, v1alpha1.ReasonInternal, false, "log",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, logTable, dataset("log", 90))
			k := newKeyserver(t)
			k.By(&w.plan)
			o := Options{Leaser: client(t, k)}
			tc.change(w, k, &o)
			r := w.run(o)
			if r.Outcome != tc.outcome || r.Reason != tc.reason || !strings.Contains(r.Message, tc.says) {
				t.Errorf("%s, %s: %s", r.Outcome, r.Reason, r.Message)
			}
			if n := w.admin.Count(`SELECT count(*) FROM log`); n != 10000 {
				t.Errorf("%d rows are gone", 10000-n)
			}
			if measured := len(storetest.Lines(r)) == 1 && storetest.Lines(r)[0].Eligible == 5000 && storetest.Lines(r)[0].Overdue == 5000; measured != tc.measured {
				t.Errorf("measured %v: %+v", measured, storetest.Lines(r))
			}
			if strings.Contains(fmt.Sprintf("%+v", r), "wrong-secret") {
				t.Error("the report holds the password")
			}
		})
	}
}

func TestBrake(t *testing.T) {
	tests := map[string]struct {
		percent int32
		backlog int64
		rows    string // more SQL
		deleted int64
	}{
		"exactly what the brake allows":                        {50, 0, ``, 5000},
		"more, and approved as a backlog":                      {20, 5000, ``, 5000},
		"a backlog, and what has expired since it was counted": {1, 4900, ``, 5000},
		"more, and not approved":                               {49, 0, ``, 0},
		"a small table is not braked":                          {1, 0, `DELETE FROM log WHERE id > 999`, 999},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, logTable+tc.rows, dataset("log", 90))
			w.plan.BrakePercent = tc.percent
			if tc.backlog > 0 {
				w.plan.Datasets[0].Delete.Backlog = permit(tc.backlog, time.Now().Add(-time.Minute), time.Hour)
			}
			r := w.run(Options{})
			if storetest.Lines(r)[0].Deleted != tc.deleted {
				t.Errorf("%d rows deleted, want %d: %+v", storetest.Lines(r)[0].Deleted, tc.deleted, r)
			}
			if tripped := storetest.Lines(r)[0].Reason == v1alpha1.ReasonBrakeTripped; tripped != (tc.deleted == 0) || tripped && storetest.Lines(r)[0].Overdue != 5000 {
				t.Errorf("line %+v", storetest.Lines(r)[0])
			}
		})
	}
}

func TestTheClocksAreReadToTheirDisadvantage(t *testing.T) {
	// The pod is 50 s ahead: what expired only by its clock stays. 50 s behind: the store's is the later one, the
	// pod's deletes.
	for name, tc := range map[string]struct {
		ahead time.Duration
		left  int64
	}{"the pod is ahead": {50 * time.Second, 2}, "the pod is behind": {-50 * time.Second, 3}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz);
				INSERT INTO log VALUES (1, now() - interval '90 days' + interval '30 seconds'), (2, now() - interval '90 days' - interval '20 seconds'), (3, now() - interval '91 days'), (4, now())`, dataset("log", 90))
			r := w.run(Options{Clock: func() time.Time { return time.Now().Add(tc.ahead) }})
			if n := w.admin.Count(`SELECT count(*) FROM log`); n != tc.left || r.Outcome != report.Done {
				t.Errorf("%d rows left, want %d: %+v", n, tc.left, r)
			}
			if want := -int64(tc.ahead / time.Second); r.SkewSeconds < want-1 || r.SkewSeconds > want+1 {
				t.Errorf("skew %d", r.SkewSeconds)
			}
		})
	}
}

func TestOneDatasetRefusedDoesNotKeepTheOthers(t *testing.T) {
	broken := dataset("gone", 90)
	broken.Table.Name = "log"
	w := newWorld(t, logTable, dataset("log", 90), broken)
	w.plan.Datasets[1].Table.Name = "gone"
	w.plan.Datasets[0].Rules[0].Problem = ""
	r := w.run(Options{})
	if r.Outcome != report.Refused || r.Reason != v1alpha1.ReasonDatasetsRefused || storetest.Lines(r)[0].Deleted != 5000 || storetest.Lines(r)[1].Reason != v1alpha1.ReasonMissingTable {
		t.Errorf("%+v", r)
	}
}

func TestThePlansOwnProblemsAreInTheLines(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	w.plan.Datasets[0].Delete, w.plan.Datasets[0].Problem = nil, "the rules cannot be ordered"
	r := w.run(Options{})
	if r.Outcome != report.Done || storetest.Lines(r)[0].Reason != v1alpha1.ReasonPlan || storetest.Lines(r)[0].Message != "the rules cannot be ordered" || storetest.Lines(r)[0].Overdue != 5000 {
		t.Errorf("%+v", r)
	}
}

func TestSharedStore(t *testing.T) {
	d := dataset("log", 90)
	d.Table.TenantColumn = "tenant"
	d.Rules[0].Own, d.Delete.Own = 1, 1
	w := newWorld(t, `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, tenant int);
		INSERT INTO log SELECT n, now() - interval '40 days', n % 4 + 1 FROM generate_series(1, 400) n`, d)
	w.plan.Tenancy = v1alpha1.TenancyShared
	w.plan.Periods = []calendar.Window{days(30)}
	w.plan.Classes = []plan.Class{{Windows: []int{1}, Tenants: map[string][]string{"acme": {"1", "2"}}}}
	k := newKeyserver(t)
	k.By(&w.plan)
	k.Known = []string{"3"}
	r := w.run(Options{Leaser: client(t, k)})
	if r.Outcome != report.Done || storetest.Lines(r)[0].Deleted != 200 || storetest.Lines(r)[0].UnknownTenant != 100 {
		t.Errorf("%+v", r)
	}
	if n := w.admin.Count(`SELECT count(*) FROM log WHERE tenant IN (1, 2)`); n != 0 {
		t.Errorf("%d rows of acme left", n)
	}
}

func TestTwoSweepersAtOnce(t *testing.T) {
	w := newWorld(t, logTable, dataset("log", 90))
	// Two whole sweeps: one of them finds the store busy, or comes after the other.
	reports := make(chan report.Report, 2)
	for range 2 {
		c := client(t, newKeyserver(t))
		go func() {
			reports <- Run(context.WithoutCancel(t.Context()), Options{Plan: w.plan, Hash: "hash", Leaser: c, Engines: stores.Engines{postgres.Engine{}}, Budget: time.Minute, Clock: time.Now,
				Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		}()
	}
	var deleted int64
	for range 2 {
		r := <-reports
		if r.Reason == v1alpha1.ReasonStoreBusy {
			continue
		}
		if r.Outcome != report.Done {
			t.Errorf("%+v", r)
		}
		deleted += storetest.Lines(r)[0].Deleted
	}
	if deleted != 5000 || w.admin.Count(`SELECT count(*) FROM log`) != 5000 {
		t.Errorf("%d rows deleted", deleted)
	}
}
