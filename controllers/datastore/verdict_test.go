package datastore_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/internal/sweep"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/operator"
	"github.com/lethe-dev/lethe/test/pg"
)

const sweepPassword = "only-for-tests"

// verdictBench is a store in a real database: its plans are swept by the real sweeper, and its reports go through the
// pod of the Job into the status, as in a cluster.
type verdictBench struct {
	*operator.StoreBench
	server *pg.Server
	admin  pg.Admin
	name   string // of the database
	keys   *lease.Server
}

func newVerdictBench(t *testing.T, sql string) *verdictBench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err := pg.Start(ctx, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &verdictBench{StoreBench: operator.NewStoreBench(t, v1alpha1.TenantCustomer), server: server, name: server.Database(t, sql)}
	b.admin = server.Admin(t, b.name)
	if b.keys, err = lease.Start(t.TempDir(), sweepPassword); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.keys.Close)
	return b
}

// mapped makes a store of tables with the key "id" and the age "created_at", and its role by the SQL that is shipped.
func (b *verdictBench) mapped(name string, tables ...string) *v1alpha1.DataStore {
	b.Helper()
	return b.Store(name, func(s *v1alpha1.DataStore) {
		s.Spec.Postgres.Database, s.Spec.Postgres.Username = b.name, "sweeper_"+b.name
		s.Spec.Datasets = nil
		for _, table := range tables {
			d := operator.Dataset(strings.ReplaceAll(table, "_", "-"), "Conversations")
			d.Table.Name, d.Table.AgeColumn.Name = v1alpha1.Identifier(table), "created_at"
			s.Spec.Datasets = append(s.Spec.Datasets, d)
		}
		b.grant(s)
	})
}

func (b *verdictBench) grant(s *v1alpha1.DataStore) {
	b.Helper()
	b.admin.Run(postgres.Grants(s.Spec))
	b.admin.Run(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", s.Spec.Postgres.Username, sweepPassword))
}

// swept runs the active Job's plan with the real sweeper, and lets the store take what it reports.
func (b *verdictBench) swept(s *v1alpha1.DataStore) report.Report {
	b.Helper()
	job := b.jobOf(s)
	p := b.Plan(job)
	ca, err := os.ReadFile(b.server.CAFile)
	b.Must(err)
	// The address is the test's: the API server takes no loopback. What was approved for another stays another.
	same := p.Database.Address == p.Target.Address()
	p.Target.Postgres.Host, p.Target.Postgres.Port, p.Target.Postgres.CABundle = b.server.Host, int32(b.server.Port), string(ca)
	if same {
		p.Database.Address = p.Target.Address()
	}
	b.keys.By(&p)
	b.keys.Approved = func() (keyapi.Point, time.Time, bool) {
		live := &v1alpha1.DataStore{}
		if err := b.Env.Client.Get(b.Context(), client.ObjectKeyFromObject(s), live); err != nil || live.Spec.ApprovedPlan == nil || live.Spec.ApprovedPlan.Seen == nil {
			return keyapi.Point{}, time.Time{}, false
		}
		seen := live.Spec.ApprovedPlan.Seen
		return keyapi.Point{Of: live.Spec.ApprovedPlan.Identity, StorePoint: seen.Point}, seen.ApprovedAt.Time, true
	}
	b.keys.Clock = b.Clock.Now
	leaser, err := b.keys.Client()
	b.Must(err)
	r := sweep.Run(b.Context(), sweep.Options{Plan: p, Engines: stores.Engines{postgres.Engine{}}, Hash: resources.PlanHashOf(job.Spec.Template.Spec), Leaser: leaser, Budget: time.Minute, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	text, err := report.Encode(r)
	b.Must(err)
	b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
	b.Finish(job, string(text))
	b.Settle(s)
	return r
}

// again lets time pass until the next sweep is due, and runs it.
func (b *verdictBench) again(s *v1alpha1.DataStore) report.Report {
	b.Helper()
	b.Settle(s)
	if len(b.activeOf(s)) == 0 {
		b.Clock.SetTime(b.Clock.Now().Add(storecontroller.StaleAfter))
		b.Settle(s)
	}
	return b.swept(s)
}

// approve writes what 'kubectl lethe approve' would.
func (b *verdictBench) approve(s *v1alpha1.DataStore) {
	b.Helper()
	b.Read(s)
	compiled, err := planner.Store(b.Context(), b.Env.Client, s, b.Clock.Now())
	b.Must(err)
	proposal, err := plan.Propose(compiled.Result, s, plan.Asked{StaleAfter: storecontroller.StaleAfter}, b.Clock.Now())
	b.Must(err)
	operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) { s.Spec.ApprovedPlan = &proposal.Plan })
	b.Settle(s)
}

// TestVerdictLiveDataIsNotDeletedOnAGuess drives the whole way. What must stay is written down before anything is
// deleted, from the policy's text alone: conversations go after 90 days, unless somebody has written in them since.
func TestVerdictLiveDataIsNotDeletedOnAGuess(t *testing.T) {
	b := newVerdictBench(t, `CREATE TABLE conversations (id bigint PRIMARY KEY, created_at timestamptz); CREATE INDEX ON conversations (created_at);
		CREATE TABLE messages (id bigint PRIMARY KEY, conversation_id bigint, created_at timestamptz); CREATE INDEX ON messages (created_at); CREATE INDEX ON messages (conversation_id);
		INSERT INTO conversations SELECT n, now() - interval '100 days' FROM generate_series(1, 2000) n;
		INSERT INTO conversations SELECT n, now() - interval '10 days' FROM generate_series(2001, 2200) n;
		INSERT INTO conversations SELECT n, CASE WHEN n % 2 = 0 THEN NULL ELSE timestamptz '1970-01-01' END FROM generate_series(2201, 2220) n;
		INSERT INTO messages SELECT n, n % 2000 + 1, now() - interval '95 days' FROM generate_series(1, 3000) n;
		INSERT INTO messages SELECT 5000 + n, n, now() - interval '1 day' FROM generate_series(1, 100) n;
		INSERT INTO messages SELECT 6000 + n, 80000 + n, now() - interval '1 day' FROM generate_series(1, 7) n;
		CREATE TABLE oracle AS SELECT 'c' || id AS id FROM conversations WHERE created_at IS NULL OR created_at < '1990-01-01' OR created_at > now() - interval '90 days'
			OR id IN (SELECT conversation_id FROM messages WHERE created_at > now() - interval '90 days')
			UNION ALL SELECT 'm' || id FROM messages WHERE created_at > now() - interval '90 days'`)
	const present = `SELECT 'c' || id FROM conversations UNION ALL SELECT 'm' || id FROM messages ORDER BY 1`
	const orphans = `SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = m.conversation_id)`
	must := b.admin.List(`SELECT id FROM oracle ORDER BY 1`)
	everything := b.admin.List(present)
	if len(must) != 100+200+20+107 || len(everything) != 2220+3107 || b.admin.Count(orphans) != 7 {
		t.Fatalf("%d rows must stay of %d", len(must), len(everything))
	}
	b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	s := b.mapped("chat", "conversations", "messages")
	operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) {
		s.Spec.Exempt = []v1alpha1.Exemption{{Table: "oracle", Reason: "the test's own"}}
	})
	b.Settle(s)
	b.swept(s)
	b.Want(s, map[string]string{"CoverageComplete": "False UndeclaredRelation", "Compliant": "False Overdue"})
	b.Says(s, "CoverageComplete", "public.messages.conversation_id (dataset conversations)")
	b.Says(s, "CoverageComplete", "relations: [{schema: public, table: messages, column: conversation_id, references: conversations, state: Declared")

	// An approval alone lets nothing go.
	b.approve(s)
	b.Want(s, map[string]string{"Approved": "True Approved"})
	if r := b.again(s); r.Deleted != 0 || len(b.admin.List(present)) != len(everything) {
		t.Fatalf("%d rows were deleted on a guess", r.Deleted)
	}

	operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) {
		s.Spec.Relations = []v1alpha1.Relation{{Table: "messages", Column: "conversation_id", References: "conversations", State: v1alpha1.RelationDeclared, Reason: "the product shows it"}}
		b.grant(s)
	})
	if r := b.again(s); r.Deleted != 3000 {
		t.Errorf("%d rows went, want the 3000 messages: what was approved of the conversations knew nothing of the relation", r.Deleted)
	}
	b.Want(s, map[string]string{"CoverageComplete": "True Complete", "Approved": "False AwaitingApproval"})
	b.approve(s)
	if r := b.again(s); r.Deleted != 1900 {
		t.Errorf("%d rows went, want 1900: %+v", r.Deleted, r.Datasets)
	}
	if diff := cmp.Diff(must, b.admin.List(present)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if n := b.admin.Count(orphans); n != 7 {
		t.Errorf("%d messages without a conversation, want the 7 from before", n)
	}
	b.Want(s, map[string]string{"Compliant": "False Overdue"})
	b.Says(s, "Compliant", "100 row(s) (100 kept by rows that refer to them")

	// Denied, they go, once that is approved as well.
	operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) { s.Spec.Relations[0].State = v1alpha1.RelationDenied })
	if r := b.again(s); r.Deleted != 0 {
		t.Errorf("%d rows went before it was approved", r.Deleted)
	}
	b.Want(s, map[string]string{"Approved": "False AwaitingApproval", "CoverageComplete": "True Complete"})
	b.approve(s)
	if r := b.again(s); r.Deleted != 100 {
		t.Errorf("%d rows went, want 100", r.Deleted)
	}
}

// TestVerdictTwoStoresOnOneTable: a floor in one store, and none in the other. Neither deletes, before anything has
// run.
func TestVerdictTwoStoresOnOneTable(t *testing.T) {
	b := newVerdictBench(t, `CREATE TABLE payments (id bigint PRIMARY KEY, created_at timestamptz); CREATE INDEX ON payments (created_at);
		INSERT INTO payments SELECT n, now() - n * interval '1 day' FROM generate_series(1, 400) n; INSERT INTO payments VALUES (1001, NULL)`)
	b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	other := b.mapped("books", "payments")
	operator.Amend(b.StoreBench, other, func(s *v1alpha1.DataStore) {
		s.Spec.Datasets[0].DataClass = "Payments"
		s.Spec.Datasets[0].Floor = &v1alpha1.Floor{RetainFor: operator.Period(3650), LegalBasis: "tax law"}
	})
	b.Settle(other)
	s := b.mapped("chat", "payments")
	b.Settle(s)
	b.Settle(other) // its watch wakes it
	for _, each := range []*v1alpha1.DataStore{s, other} {
		b.Want(each, map[string]string{"Ready": "False PlanProblem", "Stalled": "True PlanProblem"})
		if n := len(each.Status.Conflicts); n != 1 {
			t.Errorf("%s has %d conflicts", each.Name, n)
		}
	}
	b.Says(s, "Ready", "dataset payments of DataStore "+b.Namespace+"/books")
	if r := b.swept(s); r.Deleted != 0 {
		t.Errorf("%d rows went under the other's floor", r.Deleted)
	}
	// Once one of the two leaves the table alone, the other goes on.
	operator.Amend(b.StoreBench, other, func(s *v1alpha1.DataStore) {
		s.Spec.Datasets[0].Table.Name = "ledger"
		s.Spec.Exempt = []v1alpha1.Exemption{{Table: "payments", Reason: "store chat has it"}}
	})
	b.Settle(other)
	b.Settle(s)
	b.again(s)
	b.approve(s)
	if r := b.again(s); r.Deleted != 311 || b.admin.Count(`SELECT count(*) FROM payments WHERE created_at > now() - interval '90 days' OR created_at IS NULL`) != 90 {
		t.Errorf("%d rows went, want 311: %+v", r.Deleted, r.Datasets)
	}
}

// TestVerdictLimits: limits are said before the first sweep, and after it.
func TestVerdictLimits(t *testing.T) {
	var sql strings.Builder
	var tables []string
	for i := range 40 {
		tables = append(tables, fmt.Sprintf("log_%02d", i))
		fmt.Fprintf(&sql, `CREATE TABLE log_%02d (id bigint PRIMARY KEY, created_at timestamptz);`, i)
	}
	fmt.Fprint(&sql, `CREATE TABLE "user-sessions" (id bigint)`)
	b := newVerdictBench(t, sql.String())
	b.Policy("promise", enforce, operator.Rule("Conversations", operator.Period(90)))
	b.Policy("a-audit", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.mapped("chat", tables...)
	b.Settle(s)
	b.swept(s)
	b.Want(s, map[string]string{"Compliant": "Unknown UncoveredTable", "CoverageComplete": "False UncoveredTable"})
	lines := 0
	for range s.Status.Lines {
		lines++
	}
	if lines != 80 || len(s.Status.Datasets) != 40 {
		t.Errorf("%d measurements of %d datasets are in the status, want 80 of 40", lines, len(s.Status.Datasets))
	}
	b.Says(s, "CoverageComplete", "1 cannot be written there (letters, digits, _ and $): ALTER TABLE … RENAME TO …, first public.user-sessions")
}

// TestVerdictWhoDeletedAndHowLate: rows are booked to the rule that deleted them, and what was ten days late before a
// sweep is on record after it.
func TestVerdictWhoDeletedAndHowLate(t *testing.T) {
	b := newVerdictBench(t, `CREATE TABLE log (id bigint PRIMARY KEY, created_at timestamptz); INSERT INTO log SELECT n, now() - interval '101 days' FROM generate_series(1, 500) n;
		INSERT INTO log SELECT n, now() - interval '89 days' FROM generate_series(501, 600) n`)
	promise := b.Policy("promise", enforce, operator.Rule("Conversations", operator.Period(90)))
	audits := b.Policy("a-audit", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	hour, five := int32(1), int32(5)
	for _, p := range []*v1alpha1.DataRetentionPolicy{promise, audits} {
		operator.Amend(b.StoreBench, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].DeleteWithin = &v1alpha1.Slack{Hours: &hour} })
	}
	s := b.mapped("chat", "log")
	b.Settle(s)
	b.swept(s)
	b.approve(s)
	if r := b.again(s); r.Deleted != 500 || b.admin.Count(`SELECT count(*) FROM log`) != 100 {
		t.Errorf("%d rows went, want 500", r.Deleted)
	}
	booked := map[string]int64{}
	for _, m := range s.Status.Lines {
		booked[m.Policy] = m.Deleted
		if m.Overdue != 0 || m.WorstOverdueSeconds < 10*24*3600 || m.WorstOverdueAt == nil {
			t.Errorf("%s: the worst that was seen is %d s at %v", m.Policy, m.WorstOverdueSeconds, m.WorstOverdueAt)
		}
	}
	if diff := cmp.Diff(map[string]int64{audits.Name: 0, promise.Name: 500}, booked); diff != "" {
		t.Errorf("booked (-want +got):\n%s", diff)
	}
	b.Want(s, map[string]string{"Compliant": "True Compliant", "Ready": "True Ready"})

	b.Read(promise)
	promise.Spec.Rules[0].DeleteWithin = &v1alpha1.Slack{Minutes: &five}
	if err := b.Env.Client.Update(b.Context(), promise); err == nil || !strings.Contains(err.Error(), "a store is swept once in an hour") {
		t.Errorf("a slack of five minutes: %v", err)
	}
}

// activeOf one store that are active: two stores of a bench have one each.
func (b *verdictBench) activeOf(s *v1alpha1.DataStore) []batchv1.Job {
	b.Helper()
	return slices.DeleteFunc(b.Active(), func(j batchv1.Job) bool { return !metav1.IsControlledBy(&j, s) })
}

func (b *verdictBench) jobOf(s *v1alpha1.DataStore) *batchv1.Job {
	b.Helper()
	jobs := b.activeOf(s)
	if len(jobs) != 1 {
		b.Fatalf("%d active Jobs of %s, want 1", len(jobs), s.Name)
	}
	return &jobs[0]
}
