package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/crash"
	"github.com/lethe-dev/lethe/test/operator"
)

func TestDriftIsRepaired(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, nil)
	before := b.Children(s)
	meta := metav1.ObjectMeta{Namespace: b.Namespace}
	named := func(name string) metav1.ObjectMeta {
		m := meta
		m.Name = name
		return m
	}
	planName := resources.PlanName("chat", s.Status.Plan.Hash)
	cron := func(how func(*batchv1.CronJob)) func() {
		return func() { operator.Amend(b, &batchv1.CronJob{ObjectMeta: named("chat-sweep")}, how) }
	}
	tests := map[string]func(){
		"the CronJob is suspended": cron(func(c *batchv1.CronJob) { c.Spec.Suspend = new(true) }),
		"its schedule is changed":  cron(func(c *batchv1.CronJob) { c.Spec.Schedule = "0 0 1 1 *" }),
		"it may run twice":         cron(func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent }),
		"its pod has another plan": cron(func(c *batchv1.CronJob) {
			args := c.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Args
			for i := range args {
				if strings.HasPrefix(args[i], "--plan-hash=") {
					args[i] = "--plan-hash=0"
				}
			}
		}),
		"its pod has another container": cron(func(c *batchv1.CronJob) {
			spec := &c.Spec.JobTemplate.Spec.Template.Spec
			spec.Containers = append(spec.Containers, corev1.Container{Name: "more", Image: "more"})
		}),
		"its pod has a right to the API": cron(func(c *batchv1.CronJob) {
			c.Spec.JobTemplate.Spec.Template.Spec.AutomountServiceAccountToken = new(true)
		}),
		"its label is gone": cron(func(c *batchv1.CronJob) { delete(c.Labels, v1alpha1.LabelStore) }),
		"the NetworkPolicy opens more": func() {
			operator.Amend(b, &networkingv1.NetworkPolicy{ObjectMeta: named("chat-sweeper")}, func(n *networkingv1.NetworkPolicy) {
				n.Spec.Egress = append(n.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
			})
		},
		"the ServiceAccount mounts its token": func() {
			operator.Amend(b, &corev1.ServiceAccount{ObjectMeta: named("chat-sweeper")}, func(a *corev1.ServiceAccount) {
				a.AutomountServiceAccountToken = nil
			})
		},
		"the CronJob is deleted": func() {
			b.Must(b.Cluster.Delete(t.Context(), &batchv1.CronJob{ObjectMeta: named("chat-sweep")}))
		},
		"the plan is deleted": func() {
			b.Must(b.Cluster.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: named(planName)}))
		},
		"the NetworkPolicy is deleted": func() {
			b.Must(b.Cluster.Delete(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: named("chat-sweeper")}))
		},
		"the ServiceAccount is deleted": func() {
			b.Must(b.Cluster.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: named("chat-sweeper")}))
		},
	}
	for name, drift := range tests {
		t.Run(name, func(t *testing.T) {
			drift()
			since := time.Now()
			b.Settle(s)
			if n := len(b.Writes(since)); n != 1 {
				t.Errorf("%d writes to repair it, want 1: %v", n, b.Writes(since))
			}
			since = time.Now()
			b.Settle(s)
			if writes := b.Writes(since); len(writes) > 0 {
				t.Errorf("not repaired by one pass: %v", writes)
			}
			if diff := cmp.Diff(before, b.Children(s)); diff != "" {
				t.Errorf("children (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIdleMeansIdle(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantPlatform)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	acme := b.TenantWith("acme-"+b.Namespace, v1alpha1.TenantCustomer)
	operator.Amend(b, acme, func(x *v1alpha1.Tenant) {
		x.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}, {Type: "AccountID", Value: "41"}}
	})
	var stores []*v1alpha1.DataStore
	for i := range 5 {
		s := b.Store(fmt.Sprintf("chat-%d", i), makeShared)
		b.Settle(s)
		b.Sweep(s, func(r *report.Report) { r.Datasets[0].UnknownAge = int64(i) })
		stores = append(stores, s)
	}
	b.Sum(p)
	since := time.Now()
	for range 10 {
		b.Use(nil) // a restart: nothing is remembered
		b.Clock.SetTime(b.Clock.Now().Add(10 * time.Minute))
		for _, s := range stores {
			b.Settle(s)
		}
		b.Sum(p)
	}
	if writes := b.Writes(since); len(writes) > 0 {
		t.Errorf("%d writes over ten resyncs and restarts:\n%s", len(writes), strings.Join(writes, "\n"))
	}

	t.Run("a plan is renewed once a week, and not swept for it", func(t *testing.T) {
		s := stores[0]
		hash := s.Status.Plan.Hash
		result := b.Settle(s)
		b.Clock.SetTime(b.Clock.Now().Add(7 * 24 * time.Hour))
		b.Settle(s)
		if s.Status.Plan.Hash == hash {
			t.Error("after a week the plan is the same")
		}
		if result.RequeueAfter <= 0 || result.RequeueAfter > 2*time.Hour {
			t.Errorf("looks again after %s", result.RequeueAfter)
		}
		b.Want(s, map[string]string{"Compliant": "Unknown Stale"})
	})
}

var errCrash = errors.New("the process is gone")

// crashing lets a client's n-th write end the process: before it is sent, or after it has landed.
type crashing struct {
	client.Client
	at    int
	after bool
	seen  *int
	dead  *bool
	kind  *string       // of the write at which it ended
	since func() string // what else happened since the write before
}

// since says whether the keyserver was asked since the last time.
func since(k *operator.StoreKeys) func() string {
	last := 0
	return func() string {
		k.Mu.Lock()
		defer k.Mu.Unlock()
		before := last
		if last = len(k.Asked) + len(k.Revoked); last > before {
			return " after the keyserver"
		}
		return ""
	}
}

func (c crashing) write(kind string, do func() error) error {
	if *c.dead {
		return errCrash
	}
	*c.seen++
	if c.since != nil {
		kind += c.since()
	}
	if *c.seen != c.at {
		return do()
	}
	if c.after {
		if err := do(); err != nil {
			return err
		}
	}
	*c.dead = true
	if c.kind != nil {
		*c.kind = kind
	}
	return errCrash
}

func (c crashing) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return c.write(fmt.Sprintf("Create %T", o), func() error { return c.Client.Create(ctx, o, opts...) })
}

func (c crashing) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return c.write(fmt.Sprintf("Update %T", o), func() error { return c.Client.Update(ctx, o, opts...) })
}

func (c crashing) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	return c.write(fmt.Sprintf("Patch %T", o), func() error { return c.Client.Patch(ctx, o, p, opts...) })
}

func (c crashing) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return c.write(fmt.Sprintf("Delete %T", o), func() error { return c.Client.Delete(ctx, o, opts...) })
}

func (c crashing) Status() client.SubResourceWriter {
	return crashingStatus{SubResourceWriter: c.Client.Status(), c: c}
}

type crashingStatus struct {
	client.SubResourceWriter
	c crashing
}

func (s crashingStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	return s.c.write(fmt.Sprintf("status of %T", o), func() error { return s.SubResourceWriter.Patch(ctx, o, p, opts...) })
}

// TestACrashAtAnyWriteHeals takes a store through create, report, change and delete, with the manager's process
// ending after its n-th write has landed, for every n, and before the first of each kind.
func TestACrashAtAnyWriteHeals(t *testing.T) {
	var points crash.Points
	for n := 1; ; n++ {
		crashed, kind := false, ""
		for _, after := range []bool{true, false} {
			crashed = false
			t.Run(fmt.Sprintf("write %d, landed: %v", n, after), func(t *testing.T) {
				b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
				seen, dead := 0, false
				b.Use(func(c client.Client) client.Client {
					return crashing{Client: c, at: n, after: after, seen: &seen, dead: &dead, kind: &kind, since: since(b.Keys)}
				})
				heal := func(s *v1alpha1.DataStore) {
					for range 5 {
						if _, err := b.Pass(s); err == nil {
							break
						}
						if dead && !crashed {
							crashed = true
							b.Use(nil)
						}
					}
					if err := b.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil {
						t.Fatal(err)
					}
				}
				p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
				s := b.Store("chat", nil)
				heal(s)
				report := func() {
					job := b.Job()
					b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
					b.Finish(job, b.Told(job, nil))
					heal(s)
				}
				report()
				b.Want(s, map[string]string{"Ready": "True Audit"})
				if jobs := b.Active(); len(jobs) != 0 {
					t.Errorf("%d Jobs after the measurement", len(jobs))
				}
				operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = operator.Period(30) })
				heal(s)
				if got := resources.PlanHashOf(b.Job().Spec.Template.Spec); got != s.Status.Plan.Hash {
					t.Error("the sweep out of turn runs another plan than the one in force")
				}
				report()
				b.Clock.SetTime(time.Now().Add(storecontroller.OldPlanGrace + 3*time.Second))
				heal(s)
				b.Want(s, map[string]string{"Ready": "True Audit"})
				plans := 0
				for _, c := range b.Children(s) {
					if strings.HasPrefix(c, "*v1.ConfigMap/") {
						plans++
					}
				}
				if plans != 1 {
					t.Errorf("%d plans are left, want 1: %v", plans, b.Children(s))
				}
				uid := string(s.UID)
				b.Must(b.Env.Client.Delete(t.Context(), s))
				heal(s)
				if err := b.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil || err == nil {
					t.Errorf("the store is still there: %v", err)
				}
				if len(b.Keys.Revoked) == 0 || b.Keys.Revoked[0] != uid {
					t.Errorf("revoked %v, want %s", b.Keys.Revoked, uid)
				}
			})
			if !crashed || !points.Before(kind) {
				break
			}
		}
		if !crashed {
			if n < 12 {
				t.Errorf("only %d writes in the life of a store: the test does not see them all", n-1)
			}
			return
		}
	}
}

func TestMetricsFollowTheStore(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	b.Settle(s)
	b.Sweep(s, func(r *report.Report) {
		d := &r.Datasets[0]
		m := &d.Rules[0]
		m.Overdue, m.OldestOverdueSeconds, d.UnknownAge, m.Deleted = 3, 60, 2, 7
	})
	of := p.Name + "/conversations"
	want := []string{
		"lethe_store_approval_pending chat / 0", "lethe_store_braked_datasets chat / 0", "lethe_store_deleted_rows_total chat " + of + " 7",
		"lethe_store_measured chat / 1", fmt.Sprintf("lethe_store_measured_timestamp_seconds chat / %g", float64(s.Status.MeasuredAt.Unix())),
		"lethe_store_oldest_overdue_seconds chat " + of + " 60", "lethe_store_overdue_rows chat " + of + " 3", "lethe_store_report_refused chat / 0", "lethe_store_uncovered_tables chat / 0",
		"lethe_store_unknown_age_rows chat " + of + " 2", "lethe_store_unknown_tenant_late_rows chat " + of + " 0", "lethe_store_worst_overdue_seconds chat " + of + " 60",
	}
	if diff := cmp.Diff(want, b.StoreSeries()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Use(nil)
	b.Settle(s)
	if diff := cmp.Diff(want, b.StoreSeries()); diff != "" {
		t.Errorf("another pass counts again (-want +got):\n%s", diff)
	}
	t.Run("a rule that governs the store no more has no series", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].Name = "chats" })
		b.Settle(s)
		b.Sweep(s, nil)
		for _, series := range b.StoreSeries() {
			if strings.Contains(series, "/conversations") {
				t.Errorf("left: %s", series)
			}
		}
	})
}

func TestAStatusThatWasNotWrittenIsWrittenLater(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	b.Namespace = b.Env.Namespace(t, "nobodys", nil).Name
	s := b.Store("chat", nil)
	seen, dead := 0, false
	b.Use(func(c client.Client) client.Client { return crashing{Client: c, at: 1, seen: &seen, dead: &dead} })
	if _, err := b.Pass(s); !errors.Is(err, errCrash) {
		t.Errorf("error %v: nothing would make the manager look again", err)
	}
	dead = false
	b.Settle(s)
	b.Want(s, map[string]string{"Ready": "False NoTenant"})
}
