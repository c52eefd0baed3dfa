package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/chatdb"
	"github.com/lethe-dev/lethe/test/stage"
)

const chatDatabase = "chat"

// fill starts PostgreSQL, fills it, and asks the oracle before anything of Lethe's has looked at it.
func (d *demo) fill(ctx context.Context) error {
	if err := d.startDatabase(ctx); err != nil {
		return err
	}
	var err error
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + chatDatabase + " WITH (FORCE)", "CREATE DATABASE " + chatDatabase} {
		if err := d.postgres.Exec(ctx, "postgres", sql); err != nil {
			return fmt.Errorf("make an empty database: %w", err)
		}
	}
	d.filled, d.promise = time.Now(), chatdb.DemoWindows()
	return d.withDatabase(ctx, func(conn *pgx.Conn) error {
		if err := chatdb.Create(ctx, conn, chatdb.Options{Now: d.filled}); err != nil {
			return err
		}
		if d.oracle, err = chatdb.Oracle(ctx, conn, d.filled, d.promise); err != nil {
			return err
		}
		if n := len(d.oracle["messages"]); n != 300_000 {
			return fmt.Errorf("the database holds %d messages", n)
		}
		d.note("PostgreSQL on %s:%d, TLS with a certificate of its own authority, SCRAM; 120 days of acme (%s) and globex (%s)",
			d.database.host, d.database.port, chatdb.Acme, chatdb.Globex)
		d.note("worked out by plain SQL before any sweep, conversations 90 days, acme's 30; contacts 180 days; payments 7 years:")
		return d.oracleTable()
	})
}

// startDatabase starts a PostgreSQL: on this machine for the demo's own cluster, as a pod on somebody's.
func (d *demo) startDatabase(ctx context.Context) error {
	if d.theirs != nil {
		started, err := d.theirs.services.Postgres(ctx)
		if err != nil {
			return err
		}
		d.postgres, d.database = started.Here, address{started.Host, started.Port}
		return nil
	}
	started, err := d.StartPostgres(ctx, d.info.Network.HostIP)
	if err != nil {
		return err
	}
	d.postgres, d.database = started, address{started.Host, int32(started.Port)}
	return nil
}

func (d *demo) withDatabase(ctx context.Context, use func(*pgx.Conn) error) error {
	conn, err := d.postgres.Connect(ctx, chatDatabase)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	return errors.Join(use(conn), conn.Close(ctx))
}

func (d *demo) oracleTable() error {
	var rows [][]string
	for _, table := range chatdb.Tables {
		row := []string{table, thousands(len(d.oracle[table]))}
		for _, v := range []chatdb.Verdict{chatdb.Goes, chatdb.Young, chatdb.Needed, chatdb.Floored, chatdb.Unknown} {
			row = append(row, thousands(d.oracle.Count(table, "", v)))
		}
		rows = append(rows, row)
	}
	return d.table([]string{"TABLE", "ROWS", "GO", "STAY: YOUNG", "A YOUNGER CHILD", "A FLOOR", "UNKNOWN AGE"}, rows)
}

// audit applies the store and the promise in Audit, and wants the measurement to say what the oracle says, with
// nothing deleted.
func (d *demo) audit(ctx context.Context) error {
	if err := d.openDoor(ctx, "platform", d.database.host, d.database.port); err != nil {
		return err
	}
	store, err := d.store(ctx)
	if err != nil {
		return err
	}
	policy, err := d.policy(v1alpha1.PolicyAudit)
	if err != nil {
		return err
	}
	if err := d.apply(ctx, "store.yaml", store); err != nil {
		return err
	}
	if err := d.apply(ctx, "policy.yaml", policy); err != nil {
		return err
	}
	if err := d.awaitMeasured(ctx, store, func(_ *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) string { return "" }); err != nil {
		return err
	}
	if err := d.measurementTable(store); err != nil {
		return err
	}
	var wrong []error
	for of, m := range store.Status.Lines {
		wrong = append(wrong, d.agrees(of, m, d.oracle, int64(d.oracle.Count(of.Name, "", chatdb.Goes)), 0))
	}
	if len(store.Status.Datasets) != len(chatdb.Tables) {
		wrong = append(wrong, fmt.Errorf("%d datasets were measured, want %d", len(store.Status.Datasets), len(chatdb.Tables)))
	}
	wrong = append(wrong, d.withDatabase(ctx, func(conn *pgx.Conn) error {
		left, err := chatdb.Left(ctx, conn)
		if err != nil {
			return err
		}
		for _, table := range chatdb.Tables {
			if len(left[table]) != len(d.oracle[table]) {
				return fmt.Errorf("in Audit %s went from %d rows to %d", table, len(d.oracle[table]), len(left[table]))
			}
		}
		return nil
	}))
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	d.note("Audit agrees with the oracle on every table, and deleted nothing.")
	return nil
}

// agrees holds a measurement against an oracle's answer.
func (d *demo) agrees(of *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement, o chatdb.Verdicts, eligible, deleted int64) error {
	count := func(v chatdb.Verdict) int64 { return int64(o.Count(of.Name, "", v)) }
	want := []int64{eligible, count(chatdb.Needed), count(chatdb.Floored), count(chatdb.Unknown), deleted}
	got := []int64{m.Eligible, m.KeptByChild, m.KeptByFloor, of.UnknownAge, m.Deleted}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: can go, kept by a child, by a floor, of unknown age, deleted: Lethe says %d, the oracle %d", of.Name, got, want)
	}
	return nil
}

// store is the example's with this database in it, its role made by the grants that Lethe prints, and its password
// sealed.
func (d *demo) store(ctx context.Context) (*v1alpha1.DataStore, error) {
	stores, err := quickstart[v1alpha1.DataStore](d, "store.yaml")
	if err != nil {
		return nil, err
	}
	store := stores[0]
	ca, err := os.ReadFile(d.postgres.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the database's certificate authority: %w", err)
	}
	p := store.Spec.Postgres
	p.Host, p.Port, p.Database, p.CABundle = d.database.host, d.database.port, chatDatabase, string(ca)
	path, err := d.write("store.yaml", store)
	if err != nil {
		return nil, err
	}
	grants, err := d.Lethe(ctx, "", "grants", "-f", path)
	if err != nil {
		return nil, err
	}
	password := stage.Random()
	role := pgx.Identifier{p.Username}.Sanitize()
	for _, sql := range []string{grants, "ALTER ROLE " + role + " LOGIN PASSWORD '" + password + "'"} {
		if err := d.postgres.Exec(ctx, chatDatabase, sql); err != nil {
			return nil, fmt.Errorf("make the sweeper's role: %w", err)
		}
	}
	sealed, err := d.Lethe(ctx, password, "seal", "-f", path)
	if err != nil {
		return nil, err
	}
	p.Password = v1alpha1.SealedValue(strings.TrimSpace(sealed))
	return store, nil
}

func (d *demo) policy(mode v1alpha1.PolicyMode) (*v1alpha1.DataRetentionPolicy, error) {
	policies, err := quickstart[v1alpha1.DataRetentionPolicy](d, "policy.yaml")
	if err != nil {
		return nil, err
	}
	policies[0].Spec.Mode = mode
	return policies[0], nil
}

// awaitMeasured waits until a sweep by the present plan has ended well and each rule's measurement is as wanted.
// missing returns "" for one that is.
func (d *demo) awaitMeasured(ctx context.Context, store *v1alpha1.DataStore, missing func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) string) error {
	return stage.Until(ctx, 4*time.Minute, "wait for the sweep's measurement", func(ctx context.Context) (string, error) {
		if err := d.client.Get(ctx, client.ObjectKeyFromObject(store), store); err != nil {
			return "", err
		}
		st := store.Status
		compliant := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionCompliant)
		ready := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
		switch {
		case compliant == nil || ready == nil:
			return "no conditions yet", nil
		case st.ObservedGeneration != store.Generation || st.MeasuredAt == nil || st.LastSweep == nil:
			return fmt.Sprintf("no measurement: %s: %s", ready.Reason, ready.Message), nil
		case compliant.Reason == "PlanChanged" || compliant.Reason == "NotMeasured" || st.LastSweep.Attempt > 0:
			return fmt.Sprintf("%s: %s", compliant.Reason, compliant.Message), nil
		}
		for of, m := range st.Lines {
			if what := missing(of, m); what != "" {
				return of.Name + ": " + what, nil
			}
		}
		return "", nil
	})
}

func (d *demo) measurementTable(store *v1alpha1.DataStore) error {
	var rows [][]string
	for of, m := range store.Status.Lines {
		rows = append(rows, []string{
			of.Name, m.Policy + "/" + m.Rule, m.Window, thousands(m.Eligible), thousands(m.Overdue), days(m.OldestOverdueSeconds),
			thousands(m.KeptByChild), thousands(m.KeptByFloor), thousands(of.UnknownAge), thousands(m.Deleted),
		})
	}
	d.note("status of DataStore %s/%s:", store.Namespace, store.Name)
	return d.table([]string{"DATASET", "RULE", "WINDOW", "CAN GO", "OVERDUE", "BY", "KEPT BY CHILD", "BY FLOOR", "UNKNOWN AGE", "DELETED"}, rows)
}

// days writes seconds as days, for people.
func days(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f days", float64(seconds)/86400)
}

// enforce approves what was measured and switches the promise on.
func (d *demo) enforce(ctx context.Context) error {
	policy, err := d.policy(v1alpha1.PolicyEnforce)
	if err != nil {
		return err
	}
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "platform-data", Name: "chat"}}
	if _, err := d.Lethe(ctx, "", "approve", "platform-data/chat", "--yes", "--leave-files"); err != nil {
		return err
	}
	if err := d.client.Get(ctx, client.ObjectKeyFromObject(store), store); err != nil {
		return fmt.Errorf("read the approval: %w", err)
	}
	if store.Spec.ApprovedPlan == nil {
		return errors.New("kubectl lethe approve wrote no approval")
	}
	for _, w := range store.Spec.ApprovedPlan.Windows {
		if b := w.Backlog; b != nil {
			d.note("approved: %s, and %s rows of backlog until %s", w.Dataset, thousands(b.Rows), b.Until.UTC().Format(time.RFC3339))
		}
	}
	if err := d.apply(ctx, "policy.yaml", policy); err != nil {
		return err
	}
	err = d.awaitMeasured(ctx, store, func(_ *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) string {
		if m.Eligible > 0 || m.Overdue > m.KeptByChild {
			return fmt.Sprintf("%d rows can go and %d are overdue %s", m.Eligible, m.Overdue, m.Message)
		}
		return ""
	})
	if err != nil {
		return err
	}
	if err := d.measurementTable(store); err != nil {
		return err
	}
	var wrong []error
	for of, m := range store.Status.Lines {
		wrong = append(wrong, d.agrees(of, m, d.oracle, 0, int64(d.oracle.Count(of.Name, "", chatdb.Goes))))
	}
	return errors.Join(wrong...)
}

// compare holds the database against the oracle's answer from before the sweep.
func (d *demo) compare(ctx context.Context) error {
	return d.withDatabase(ctx, func(conn *pgx.Conn) error {
		left, err := chatdb.Left(ctx, conn)
		if err != nil {
			return err
		}
		now, err := chatdb.Oracle(ctx, conn, d.filled, d.promise)
		if err != nil {
			return err
		}
		var rows [][]string
		for _, table := range chatdb.Tables {
			for _, account := range []string{chatdb.Acme, chatdb.Globex} {
				rows = append(rows, d.comparison(now, table, account))
			}
		}
		if err := d.table([]string{"TABLE", "CUSTOMER", "BEFORE", "SHOULD STAY", "LEFT", "OLDEST BEFORE", "OLDEST NOW", "OF WHICH WITHIN ITS WINDOW"}, rows); err != nil {
			return err
		}
		if err := d.oracle.Diff(left).Err(); err != nil {
			return err
		}
		d.note("Exactly the rows that should go are gone, and every other row is there.")
		return d.oracleOfWhatStayed(now)
	})
}

// comparison is one line: a customer's rows of a table.
func (d *demo) comparison(now chatdb.Verdicts, table, account string) []string {
	var before, after, youngAfter time.Duration
	stay, left := 0, 0
	for _, r := range d.oracle[table] {
		if r.Account != account {
			continue
		}
		if r.Verdict != chatdb.Goes {
			stay++
		}
		if !r.Age.IsZero() {
			before = max(before, d.filled.Sub(r.Age))
		}
	}
	for _, r := range now[table] {
		if r.Account != account {
			continue
		}
		left++
		if !r.Age.IsZero() {
			after = max(after, d.filled.Sub(r.Age))
			if r.Verdict == chatdb.Young {
				youngAfter = max(youngAfter, d.filled.Sub(r.Age))
			}
		}
	}
	name := map[string]string{chatdb.Acme: "acme", chatdb.Globex: "globex"}[account]
	all := d.oracle.Count(table, account, chatdb.Goes) + stay
	age := func(t time.Duration) string { return days(int64(t / time.Second)) }
	return []string{table, name, thousands(all), thousands(stay), thousands(left), age(before), age(after), age(youngAfter)}
}

// oracleOfWhatStayed says why rows past their window are still there.
func (d *demo) oracleOfWhatStayed(now chatdb.Verdicts) error {
	var rows [][]string
	for _, why := range []struct {
		verdict chatdb.Verdict
		words   string
	}{
		{chatdb.Needed, "something younger, or of unknown age, refers to it"},
		{chatdb.Floored, "a payment refers to it that the law keeps for 7 years"},
		{chatdb.Unknown, "its date is missing, 1970, infinite or in the future"},
	} {
		for _, table := range chatdb.Tables {
			if n := now.Count(table, "", why.verdict); n > 0 {
				rows = append(rows, []string{table, thousands(n), why.words})
			}
		}
	}
	d.note("What stayed although its window is over, or cannot be told:")
	return d.table([]string{"TABLE", "ROWS", "SINCE"}, rows)
}

// everything shows every kind of ours.
func (d *demo) everything(ctx context.Context) error {
	for _, kind := range []string{"tenants", "botdeployments", "datastores", "dataretentionpolicies"} {
		out, err := d.Kubectl(ctx, "", "get", kind, "--all-namespaces")
		if err != nil {
			return err
		}
		d.printed("$ kubectl get " + kind + " --all-namespaces\n" + out)
	}
	if d.simulated {
		return nil
	}
	var store v1alpha1.DataStore
	if err := d.client.Get(ctx, client.ObjectKey{Namespace: "platform-data", Name: "chat"}, &store); err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	c := meta.FindStatusCondition(store.Status.Conditions, v1alpha1.ConditionCompliant)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != "Overdue" || store.Status.Overdue == 0 {
		return fmt.Errorf("the store holds rows that others keep past their window, and says %+v with %d overdue", c, store.Status.Overdue)
	}
	d.note("All that may go has gone. The store is not called compliant all the same: %s", c.Message)
	return nil
}
