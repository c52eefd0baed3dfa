package datastore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/test/operator"
)

// propose is what 'kubectl lethe approve' would write for what is asked.
func (b *verdictBench) propose(s *v1alpha1.DataStore, asked plan.Asked) (plan.Proposal, error) {
	b.Helper()
	b.Read(s)
	compiled, err := planner.Store(b.Context(), b.Env.Client, s, b.Clock.Now())
	b.Must(err)
	asked.StaleAfter = storecontroller.StaleAfter
	return plan.Propose(compiled.Result, s, asked, b.Clock.Now())
}

// TestPermitsAreUsedUp drives the whole way in a real database: what was approved once goes once, a new dataset
// renews nothing, and a tripped brake, returned rows and another database are each asked for by name.
func TestPermitsAreUsedUp(t *testing.T) {
	b := newVerdictBench(t, `CREATE TABLE messages (id bigint PRIMARY KEY, created_at timestamptz); CREATE INDEX ON messages (created_at);
		CREATE TABLE notes (id bigint PRIMARY KEY, created_at timestamptz); CREATE INDEX ON notes (created_at);
		INSERT INTO messages SELECT n, now() - interval '100 days' FROM generate_series(1, 2000) n; INSERT INTO messages SELECT n, now() FROM generate_series(2001, 2500) n;
		INSERT INTO notes SELECT n, now() - interval '100 days' FROM generate_series(1, 1500) n; INSERT INTO messages VALUES (0, NULL)`)
	count := func(table string) int64 { return b.admin.Count(`SELECT count(*) FROM ` + table) }
	b.Policy("privacy", enforce, operator.Rule("Conversations", operator.Period(90)))
	s := b.mapped("chat", "messages")
	b.Settle(s)
	b.swept(s)
	b.approve(s)
	if r := b.again(s); r.Deleted != 2000 || count("messages") != 501 {
		t.Fatalf("%d rows went: %+v", r.Deleted, r)
	}
	// As many rows again, which expire after the sweep: the backlog is gone, whatever time is left of it.
	b.admin.Run(`INSERT INTO messages SELECT n, now() - interval '90 days' FROM generate_series(10001, 12000) n`)
	if r := b.again(s); r.Deleted != 0 || count("messages") != 2501 {
		t.Fatalf("%d rows went a second time: %+v", r.Deleted, r)
	}
	if m := s.Status.Datasets[0]; m.Reason != "BrakeTripped" || m.BacklogLeft != 0 {
		t.Errorf("%+v", m)
	}
	// A new dataset is approved, and renews nothing.
	operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) {
		d := operator.Dataset("notes", "Conversations")
		d.Table.Name, d.Table.AgeColumn.Name = "notes", "created_at"
		s.Spec.Datasets = append(s.Spec.Datasets, d)
		b.grant(s)
	})
	b.again(s)
	b.approve(s)
	if r := b.again(s); r.Deleted != 1500 || count("messages") != 2501 || count("notes") != 0 {
		t.Errorf("%d rows went with the new dataset: %+v", r.Deleted, r)
	}
	if _, err := b.propose(s, plan.Asked{}); !errors.Is(err, plan.ErrNothingToApprove) || !strings.Contains(err.Error(), "--brake messages") {
		t.Errorf("error %v", err)
	}
	allow := func(asked plan.Asked) {
		t.Helper()
		p, err := b.propose(s, asked)
		b.Must(err)
		operator.Amend(b.StoreBench, s, func(s *v1alpha1.DataStore) { s.Spec.ApprovedPlan = &p.Plan })
		b.Settle(s)
	}
	allow(plan.Asked{Brakes: []string{"messages"}})
	if r := b.again(s); r.Deleted != 2000 || count("messages") != 501 {
		t.Errorf("%d rows went when the brake was let go: %+v", r.Deleted, r)
	}
	// Old rows come back.
	b.admin.Run(`INSERT INTO messages SELECT n, now() - interval '100 days' FROM generate_series(1, 30) n`)
	if r := b.again(s); r.Deleted != 0 || count("messages") != 531 {
		t.Errorf("%d returned rows went: %+v", r.Deleted, r)
	}
	for _, m := range s.Status.Datasets {
		if m.Name == "messages" && (m.Reason != "Returned" || m.Returned != 30) {
			t.Errorf("%+v", m)
		}
	}
	if events := strings.Join(b.EventsSeen(), "\n"); !strings.Contains(events, "Returned") || !strings.Contains(events, "BrakeTripped") {
		t.Errorf("events:\n%s", events)
	}
	allow(plan.Asked{Brakes: []string{"messages"}})
	if r := b.again(s); r.Deleted != 30 || count("messages") != 501 {
		t.Errorf("%d rows went after that: %+v", r.Deleted, r)
	}
	// Another database takes the place of this one, under the same name.
	b.Must(b.admin.Close(t.Context()))
	b.Must(b.server.Exec(t.Context(), "postgres", fmt.Sprintf("ALTER DATABASE %s RENAME TO %s_old", b.name, b.name)))
	b.Must(b.server.Exec(t.Context(), "postgres", fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s_old", b.name, b.name)))
	b.Must(b.server.Exec(t.Context(), "postgres", fmt.Sprintf("DROP DATABASE %s_old", b.name)))
	b.admin = b.server.Admin(t, b.name)
	b.grant(s)
	b.admin.Run(`INSERT INTO notes SELECT n, now() - interval '95 days' FROM generate_series(1, 20) n`)
	if r := b.again(s); r.Deleted != 0 || count("notes") != 20 {
		t.Errorf("%d rows went from a restored database: %+v", r.Deleted, r)
	}
	b.Want(s, map[string]string{"Approved": "False RestoredFrom", "Ready": "False RestoredFrom", "Stalled": "True RestoredFrom"})
	b.Says(s, "Approved", "another database of the same name")
	if _, err := b.propose(s, plan.Asked{Datasets: []string{"notes"}}); !errors.Is(err, plan.ErrOtherDatabase) {
		t.Errorf("error %v", err)
	}
	allow(plan.Asked{Database: true})
	if r := b.again(s); r.Deleted != 20 {
		t.Errorf("%d rows went after it was approved: %+v", r.Deleted, r)
	}
	b.Want(s, map[string]string{"Approved": "True Approved"})
}
