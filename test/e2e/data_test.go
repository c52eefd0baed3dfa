package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/chatdb"
	"github.com/lethe-dev/lethe/test/e2e/rights"
	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/stage"
)

// chat is a database with its store and promise.
type chat struct {
	*world
	at       *stage.Database
	server   *pg.Server
	name     string // of database, store and policy
	store    *v1alpha1.DataStore
	policy   *v1alpha1.DataRetentionPolicy
	filled   time.Time
	verdicts chatdb.Verdicts
}

// newChat fills a database and applies its store, in Audit.
func (w *world) newChat(t *testing.T, name string, messages int) *chat {
	t.Helper()
	ctx := t.Context()
	at := w.database(t)
	c := &chat{world: w, at: at, server: at.Here, name: name, filled: time.Now()}
	if err := c.server.Exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	c.use(t, func(conn *pgx.Conn) error {
		err := chatdb.Create(ctx, conn, chatdb.Options{Now: c.filled, Messages: messages})
		if err != nil {
			return err
		}
		c.verdicts, err = chatdb.Oracle(ctx, conn, c.filled, chatdb.DemoWindows())
		return err
	})
	c.applyStore(t)
	return c
}

func (c *chat) use(t *testing.T, do func(*pgx.Conn) error) {
	t.Helper()
	conn, err := c.server.Connect(t.Context(), c.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(conn), conn.Close(context.WithoutCancel(t.Context()))); err != nil {
		t.Fatal(err)
	}
}

func example[T any](t *testing.T, w *world, file string) *T {
	t.Helper()
	return manifest[T](t, w, "examples/quickstart/"+file)
}

// manifest is an object of a file that users copy, read strictly.
func manifest[T any](t *testing.T, w *world, path string) *T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	o := new(T)
	if err := yaml.UnmarshalStrict(b, o); err != nil {
		t.Fatal(err)
	}
	return o
}

// applyStore makes the role by the grants that Lethe prints, seals its password with the command line, and applies
// store and promise.
func (c *chat) applyStore(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	ca, err := os.ReadFile(c.server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	c.store = example[v1alpha1.DataStore](t, c.world, "store.yaml")
	c.store.Namespace, c.store.Name = "e2e-platform", c.name
	c.store.Labels = map[string]string{"e2e": c.name}
	p := c.store.Spec.Postgres
	p.Host, p.Port, p.Database, p.Username, p.CABundle = c.at.Host, c.at.Port, c.name, "sweeper_"+c.name, string(ca)
	manifest, err := yaml.Marshal(c.store)
	if err != nil {
		t.Fatal(err)
	}
	path := c.Path("manifests", c.name+".yaml")
	if err := os.WriteFile(path, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	grants, err := c.Lethe(ctx, "", "grants", "-f", path)
	if err != nil {
		t.Fatal(err)
	}
	password := stage.Random()
	c.canaries["password of "+c.name] = []byte(password)
	for _, sql := range []string{grants, "ALTER ROLE " + pgx.Identifier{p.Username}.Sanitize() + " LOGIN PASSWORD '" + password + "'"} {
		if err := c.server.Exec(ctx, c.name, sql); err != nil {
			t.Fatal(err)
		}
	}
	sealed, err := c.Lethe(ctx, password, "seal", "-f", path)
	if err != nil {
		t.Fatal(err)
	}
	p.Password = v1alpha1.SealedValue(strings.TrimSpace(sealed))
	c.policy = example[v1alpha1.DataRetentionPolicy](t, c.world, "policy.yaml")
	c.policy.Name = c.name
	c.policy.Spec.StoreSelector = metav1.LabelSelector{MatchLabels: map[string]string{"e2e": c.name}}
	// The tenant that has a window of its own is named otherwise here.
	c.policy.Spec.Rules[0].TenantOverrides[0].Tenant = "e2e-data-acme"
	c.create(t, c.store, c.policy)
}

// settled waits until a sweep by the present rules has measured, and ok has nothing more to want of the measurement.
func (c *chat) settled(t *testing.T, ok func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) string) {
	t.Helper()
	until(t, 4*time.Minute, "wait for a measurement of "+c.name, func(ctx context.Context) (string, error) {
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(c.store), c.store); err != nil {
			return "", err
		}
		st := c.store.Status
		for _, cond := range st.Conditions {
			if cond.Type == v1alpha1.ConditionCompliant && (cond.Reason == "PlanChanged" || cond.Reason == "NotMeasured" || cond.Reason == "NotPlanned") {
				return cond.Reason + ": " + cond.Message, nil
			}
		}
		if st.ObservedGeneration != c.store.Generation || st.MeasuredAt == nil || st.LastSweep == nil || st.LastSweep.Attempt > 0 {
			return fmt.Sprintf("no measurement; the last sweep: %+v", st.LastSweep), nil
		}
		for d, m := range st.Lines {
			if what := ok(d, m); what != "" {
				return d.Name + ": " + what, nil
			}
		}
		return "", nil
	})
}

func (c *chat) setMode(t *testing.T, mode v1alpha1.PolicyMode) {
	t.Helper()
	change(t, c.client, c.policy, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Mode = mode })
}

// left compares the database with the oracle's answer.
func (c *chat) left(t *testing.T) (d chatdb.Difference) {
	t.Helper()
	c.use(t, func(conn *pgx.Conn) error {
		ids, err := chatdb.Left(t.Context(), conn)
		d = c.verdicts.Diff(ids)
		return err
	})
	return d
}

// dataTenants are the platform's tenant and the two customers of the shared databases.
func (w *world) dataTenants(t *testing.T, at *stage.Database) {
	t.Helper()
	w.tenant(t, "e2e-platform", func(s *v1alpha1.TenantSpec) {
		s.Class = v1alpha1.TenantPlatform
		s.Egress = []v1alpha1.EgressRule{{CIDR: at.Host + "/32", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: at.Port}}}}
	})
	for name, id := range map[string]string{"e2e-data-acme": chatdb.Acme, "e2e-data-globex": chatdb.Globex} {
		w.tenant(t, name, func(s *v1alpha1.TenantSpec) { s.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: id}} })
	}
}

// fireCronJob makes the Job that the CronJob would make at its hour, as Kubernetes' own controller does, and waits
// for its end.
func (c *chat) fireCronJob(t *testing.T) {
	t.Helper()
	out, err := c.Kubectl(t.Context(), "", "-n", c.store.Namespace, "create", "job", c.name+"-by-hand", "--from=cronjob/"+c.name+"-sweep",
		"--as", "system:kube-controller-manager", "--as-group", "system:masters")
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: c.store.Namespace, Name: c.name + "-by-hand"}}
	until(t, 2*time.Minute, "wait for the CronJob's sweep", func(ctx context.Context) (string, error) {
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return "", err
		}
		if job.Status.Succeeded == 0 {
			return fmt.Sprintf("%+v", job.Status), nil
		}
		return "", nil
	})
}

// hideJob takes Lethe's label off the running sweep and gives it back once the manager has stumbled over it: it looks
// before it makes a second one.
func (c *chat) hideJob(t *testing.T) {
	t.Helper()
	var jobs batchv1.JobList
	if err := c.client.List(t.Context(), &jobs, client.InNamespace(c.store.Namespace), client.MatchingLabels{v1alpha1.LabelStore: c.name}); err != nil {
		t.Fatal(err)
	}
	var running *batchv1.Job
	for i := range jobs.Items {
		if jobs.Items[i].Status.Active > 0 {
			running = &jobs.Items[i]
		}
	}
	if running == nil {
		t.Fatal("no sweep runs")
	}
	label := func(value any) {
		t.Helper()
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, v1alpha1.LabelManagedBy, value)
		if err := c.hand(t).Patch(t.Context(), running, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	label("null")
	until(t, time.Minute, "see the manager look at a Job that it cannot see", func(context.Context) (string, error) {
		used, err := rights.UsedIn(c.info.AuditLog)
		if !used[rights.Use{User: "lethe-manager", Where: rights.InTenants, Verb: "get", Group: "batch", Resource: "jobs"}] {
			return "it has not", err
		}
		return "", err
	})
	label(`"lethe"`)
}

// forgets: Audit deletes nothing and says what would go; after approval and Enforce exactly the oracle's rows are gone.
func forgets(t *testing.T, w *world) {
	w.dataTenants(t, w.database(t))
	c := w.newChat(t, "forgets", 60_000)
	c.settled(t, func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) string { return "" })
	count := func(d *v1alpha1.DatasetMeasurement, v chatdb.Verdict) int64 {
		return int64(c.verdicts.Count(d.Name, "", v))
	}
	if len(c.store.Status.Datasets) != len(chatdb.Tables) {
		t.Errorf("%d datasets were measured", len(c.store.Status.Datasets))
	}
	for d, m := range c.store.Status.Lines {
		if m.Eligible != count(d, chatdb.Goes) || m.KeptByChild != count(d, chatdb.Needed) || m.KeptByFloor != count(d, chatdb.Floored) || d.UnknownAge != count(d, chatdb.Unknown) || m.Deleted != 0 {
			t.Errorf("in Audit: %+v", m)
		}
	}
	c.use(t, func(conn *pgx.Conn) error {
		ids, err := chatdb.Left(t.Context(), conn)
		for table, rows := range c.verdicts {
			if len(ids[table]) != len(rows) {
				t.Errorf("in Audit %s went from %d rows to %d", table, len(rows), len(ids[table]))
			}
		}
		return err
	})
	// Enforce without approval deletes nothing. In Audit the same was waiting for approval: only the plan shows that
	// it has been seen.
	inAudit := c.store.Status.Plan.Hash
	c.setMode(t, v1alpha1.PolicyEnforce)
	until(t, time.Minute, "see another plan come into force", func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(c.store), c.store)
		if c.store.Status.Plan.Hash == inAudit {
			return "it is the one of the Audit", err
		}
		return "", err
	})
	w.awaitCondition(t, c.store, v1alpha1.ConditionApproved, metav1.ConditionFalse, "AwaitingApproval", time.Minute)
	c.settled(t, func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) string { return "" })
	if d := c.left(t); len(d.Premature) != 0 || len(d.Survived["messages"]) != c.verdicts.Count("messages", "", chatdb.Goes) {
		t.Error("something was deleted without approval")
	}
	if _, err := w.Lethe(t.Context(), "", "approve", "e2e-platform/forgets", "--yes", "--leave-files"); err != nil {
		t.Fatal(err)
	}
	c.settled(t, func(_ *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) string {
		if m.Eligible > 0 || m.Overdue > m.KeptByChild {
			return fmt.Sprintf("%d can go, %d are overdue: %s", m.Eligible, m.Overdue, m.Message)
		}
		return ""
	})
	if err := c.left(t).Err(); err != nil {
		t.Error(err)
	}
	// All that may go has gone. What younger rows keep past its window is late all the same, and named.
	w.awaitCondition(t, c.store, v1alpha1.ConditionCompliant, metav1.ConditionFalse, "Overdue", time.Minute)
	c.fireCronJob(t)
	if err := c.left(t).Err(); err != nil {
		t.Error(err)
	}
	until(t, 30*time.Second, "see the promise's status", func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(c.policy), c.policy); err != nil {
			return "", err
		}
		if st := c.policy.Status; st.Matched != 1 || st.Overdue == 0 || st.Overdue != c.store.Status.Overdue {
			return fmt.Sprintf("%+v", st), nil
		}
		return "", nil
	})
}

// putBack: a running sweep ends within 30 seconds once the promise is in Audit again, with rows left that it would
// have deleted.
func putBack(t *testing.T, w *world) {
	c := w.newChat(t, "stops", 30_000)
	// Slow enough that it is far from its end after 30 seconds.
	c.use(t, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END $$;
			CREATE TRIGGER slow BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION slow();
			CREATE TRIGGER slow BEFORE DELETE ON attachments FOR EACH ROW EXECUTE FUNCTION slow()`)
		return err
	})
	c.settled(t, func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) string { return "" })
	if _, err := w.Lethe(t.Context(), "", "approve", "e2e-platform/stops", "--yes", "--leave-files"); err != nil {
		t.Fatal(err)
	}
	c.setMode(t, v1alpha1.PolicyEnforce)

	conn, err := c.server.Connect(t.Context(), c.name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows := func(ctx context.Context) (n int, err error) {
		err = conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM attachments)").Scan(&n)
		return n, err
	}
	all, err := rows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, 2*time.Minute, "see the first rows go", func(ctx context.Context) (string, error) {
		n, err := rows(ctx)
		if n == all {
			return "all rows are there", err
		}
		return "", err
	})
	c.hideJob(t)
	c.setMode(t, v1alpha1.PolicyAudit)
	back := time.Now()
	last, changed := all, back
	err = stage.Until(t.Context(), 50*time.Second, "watch", func(ctx context.Context) (string, error) {
		n, err := rows(ctx)
		if err == nil && n != last {
			last, changed = n, time.Now()
		}
		if time.Since(back) < 45*time.Second {
			return "the end of the watch", err
		}
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	if late := changed.Sub(back); late > 30*time.Second {
		t.Errorf("rows went %s after the promise was put back to Audit", late)
	}
	d := c.left(t)
	if len(d.Premature) > 0 {
		t.Errorf("rows went that should stay: %v", d.Err())
	}
	if len(d.Survived["messages"])+len(d.Survived["attachments"]) < 1000 {
		t.Errorf("only %d rows were left to delete: the sweep had all but ended by itself", len(d.Survived["messages"]))
	}
	t.Logf("the last row went %s after the change, %d were left", changed.Sub(back).Round(time.Millisecond), len(d.Survived["messages"])+len(d.Survived["attachments"]))
}
