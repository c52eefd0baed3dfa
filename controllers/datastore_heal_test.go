package controllers

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
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/crash"
)

func TestDriftIsRepaired(t *testing.T) {
	b := newStoreBench(t, v1alpha1.TenantCustomer)
	b.policy("privacy", audit, rule("Conversations", period(90)))
	s := b.store("chat", nil)
	b.settle(s)
	b.sweep(s, nil)
	before := b.children(s)
	meta := metav1.ObjectMeta{Namespace: b.namespace}
	named := func(name string) metav1.ObjectMeta {
		m := meta
		m.Name = name
		return m
	}
	planName := resources.PlanName("chat", s.Status.Plan.Hash)
	cron := func(how func(*batchv1.CronJob)) func() {
		return func() { amend(b, &batchv1.CronJob{ObjectMeta: named("chat-sweep")}, how) }
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
			amend(b, &networkingv1.NetworkPolicy{ObjectMeta: named("chat-sweeper")}, func(n *networkingv1.NetworkPolicy) {
				n.Spec.Egress = append(n.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
			})
		},
		"the ServiceAccount mounts its token": func() {
			amend(b, &corev1.ServiceAccount{ObjectMeta: named("chat-sweeper")}, func(a *corev1.ServiceAccount) {
				a.AutomountServiceAccountToken = nil
			})
		},
		"the CronJob is deleted": func() {
			b.must(b.cluster.Delete(t.Context(), &batchv1.CronJob{ObjectMeta: named("chat-sweep")}))
		},
		"the plan is deleted": func() {
			b.must(b.cluster.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: named(planName)}))
		},
		"the NetworkPolicy is deleted": func() {
			b.must(b.cluster.Delete(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: named("chat-sweeper")}))
		},
		"the ServiceAccount is deleted": func() {
			b.must(b.cluster.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: named("chat-sweeper")}))
		},
	}
	for name, drift := range tests {
		t.Run(name, func(t *testing.T) {
			drift()
			since := time.Now()
			b.settle(s)
			if n := len(b.writes(since)); n != 1 {
				t.Errorf("%d writes to repair it, want 1: %v", n, b.writes(since))
			}
			since = time.Now()
			b.settle(s)
			if writes := b.writes(since); len(writes) > 0 {
				t.Errorf("not repaired by one pass: %v", writes)
			}
			if diff := cmp.Diff(before, b.children(s)); diff != "" {
				t.Errorf("children (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIdleMeansIdle(t *testing.T) {
	b := newStoreBench(t, v1alpha1.TenantPlatform)
	p := b.policy("privacy", audit, rule("Conversations", period(90)))
	acme := b.tenantWith("acme-"+b.namespace, v1alpha1.TenantCustomer)
	amend(b, acme, func(x *v1alpha1.Tenant) {
		x.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}, {Type: "AccountID", Value: "41"}}
	})
	var stores []*v1alpha1.DataStore
	for i := range 5 {
		s := b.store(fmt.Sprintf("chat-%d", i), makeShared)
		b.settle(s)
		b.sweep(s, func(r *report.Report) { r.Lines[0].UnknownAge = int64(i) })
		stores = append(stores, s)
	}
	b.sum(p)
	since := time.Now()
	for range 10 {
		b.use(nil) // a restart: nothing is remembered
		b.clock.SetTime(b.clock.Now().Add(10 * time.Minute))
		for _, s := range stores {
			b.settle(s)
		}
		b.sum(p)
	}
	if writes := b.writes(since); len(writes) > 0 {
		t.Errorf("%d writes over ten resyncs and restarts:\n%s", len(writes), strings.Join(writes, "\n"))
	}

	t.Run("a plan is renewed once a week, and not swept for it", func(t *testing.T) {
		s := stores[0]
		hash := s.Status.Plan.Hash
		result := b.settle(s)
		b.clock.SetTime(b.clock.Now().Add(7 * 24 * time.Hour))
		b.settle(s)
		if s.Status.Plan.Hash == hash {
			t.Error("after a week the plan is the same")
		}
		if result.RequeueAfter <= 0 || result.RequeueAfter > 2*time.Hour {
			t.Errorf("looks again after %s", result.RequeueAfter)
		}
		b.want(s, map[string]string{"Compliant": "Unknown Stale"})
	})
}

// sum reconciles a policy once.
func (b *storeBench) sum(p *v1alpha1.DataRetentionPolicy) {
	b.Helper()
	_, err := b.policies.Reconcile(b.Context(), reconcileRequest(p))
	b.must(err)
	b.read(p)
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
func (k *storeKeys) since() func() string {
	last := 0
	return func() string {
		k.mu.Lock()
		defer k.mu.Unlock()
		before := last
		if last = len(k.asked) + len(k.revoked); last > before {
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

// TestACrashAtAnyWriteHeals takes a store through create, report, change and delete, with the manager's process ending after
// its n-th write has landed, for every n, and before the first of each kind.
func TestACrashAtAnyWriteHeals(t *testing.T) {
	var points crash.Points
	for n := 1; ; n++ {
		crashed, kind := false, ""
		for _, after := range []bool{true, false} {
			crashed = false
			t.Run(fmt.Sprintf("write %d, landed: %v", n, after), func(t *testing.T) {
				b := newStoreBench(t, v1alpha1.TenantCustomer)
				seen, dead := 0, false
				b.use(func(c client.Client) client.Client {
					return crashing{Client: c, at: n, after: after, seen: &seen, dead: &dead, kind: &kind, since: b.keys.since()}
				})
				heal := func(s *v1alpha1.DataStore) {
					for range 5 {
						if _, err := b.pass(s); err == nil {
							break
						}
						if dead && !crashed {
							crashed = true
							b.use(nil)
						}
					}
					if err := b.env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil {
						t.Fatal(err)
					}
				}
				p := b.policy("privacy", audit, rule("Conversations", period(90)))
				s := b.store("chat", nil)
				heal(s)
				report := func() {
					job := b.job()
					b.clock.SetTime(b.clock.Now().Add(2 * time.Second))
					b.finish(job, b.told(job, nil))
					heal(s)
				}
				report()
				b.want(s, map[string]string{"Ready": "True Audit"})
				if jobs := b.active(); len(jobs) != 0 {
					t.Errorf("%d Jobs after the measurement", len(jobs))
				}
				amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = period(30) })
				heal(s)
				if got := planHashOf(b.job()); got != s.Status.Plan.Hash {
					t.Error("the sweep out of turn runs another plan than the one in force")
				}
				report()
				b.clock.SetTime(time.Now().Add(oldPlanGrace + 3*time.Second))
				heal(s)
				b.want(s, map[string]string{"Ready": "True Audit"})
				plans := 0
				for _, c := range b.children(s) {
					if strings.HasPrefix(c, "*v1.ConfigMap/") {
						plans++
					}
				}
				if plans != 1 {
					t.Errorf("%d plans are left, want 1: %v", plans, b.children(s))
				}
				uid := string(s.UID)
				b.must(b.env.Client.Delete(t.Context(), s))
				heal(s)
				if err := b.env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil || err == nil {
					t.Errorf("the store is still there: %v", err)
				}
				if len(b.keys.revoked) == 0 || b.keys.revoked[0] != uid {
					t.Errorf("revoked %v, want %s", b.keys.revoked, uid)
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
	b := newStoreBench(t, v1alpha1.TenantCustomer)
	p := b.policy("privacy", audit, rule("Conversations", period(90)))
	s := b.store("chat", nil)
	b.settle(s)
	b.sweep(s, func(r *report.Report) {
		l := &r.Lines[0]
		l.Overdue, l.OldestOverdueSeconds, l.UnknownAge, l.Deleted = 3, 60, 2, 7
	})
	of := p.Name + "/conversations"
	want := []string{
		"lethe_store_approval_pending chat / 0", "lethe_store_braked_datasets chat / 0", "lethe_store_deleted_rows_total chat " + of + " 7",
		"lethe_store_measured chat / 1", fmt.Sprintf("lethe_store_measured_timestamp_seconds chat / %g", float64(s.Status.MeasuredAt.Unix())),
		"lethe_store_oldest_overdue_seconds chat " + of + " 60", "lethe_store_overdue_rows chat " + of + " 3", "lethe_store_uncovered_tables chat / 0",
		"lethe_store_unknown_age_rows chat " + of + " 2", "lethe_store_unknown_tenant_late_rows chat " + of + " 0", "lethe_store_worst_overdue_seconds chat " + of + " 60",
	}
	if diff := cmp.Diff(want, b.storeSeries()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.use(nil)
	b.settle(s)
	if diff := cmp.Diff(want, b.storeSeries()); diff != "" {
		t.Errorf("another pass counts again (-want +got):\n%s", diff)
	}
	t.Run("a rule that governs the store no more has no series", func(t *testing.T) {
		amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].Name = "chats" })
		b.settle(s)
		b.sweep(s, nil)
		for _, series := range b.storeSeries() {
			if strings.Contains(series, "/conversations") {
				t.Errorf("left: %s", series)
			}
		}
	})
}

func TestAStatusThatWasNotWrittenIsWrittenLater(t *testing.T) {
	b := newStoreBench(t, v1alpha1.TenantCustomer)
	b.namespace = b.env.Namespace(t, "nobodys", nil).Name
	s := b.store("chat", nil)
	seen, dead := 0, false
	b.use(func(c client.Client) client.Client { return crashing{Client: c, at: 1, seen: &seen, dead: &dead} })
	if _, err := b.pass(s); !errors.Is(err, errCrash) {
		t.Errorf("error %v: nothing would make the manager look again", err)
	}
	dead = false
	b.settle(s)
	b.want(s, map[string]string{"Ready": "False NoTenant"})
}
