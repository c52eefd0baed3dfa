package controllers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
)

// manage runs the reconcilers of stores and policies in a manager with its cache and watches, until stop or the test ends.
func (b *storeBench) manage() (stop func()) {
	b.Helper()
	config := b.env.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager)
	options, err := ManagerOptions(config, 10, nil)
	b.must(err)
	options.Scheme, options.Metrics = b.env.Scheme, metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = new(true)
	mgr, err := ctrl.NewManager(config, options)
	b.must(err)
	writer := kube.Writer{Client: wholeOnly{mgr.GetClient()}, Live: mgr.GetAPIReader(), Strip: func(o client.Object) { bulk.Strip(o) }}
	stores := &DataStoreReconciler{Writer: writer, Keys: b.keys, Settings: testSettings(), Recorder: b.events, Clock: b.clock, Orphans: unheard()}
	policies := &DataRetentionPolicyReconciler{Writer: writer, Recorder: b.events, Clock: b.clock}
	b.must(stores.SetupWithManager(mgr, controller.Options{}))
	b.must(policies.SetupWithManager(mgr, controller.Options{}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("the manager ended with: %v", err)
		}
	}
	b.Cleanup(stop)
	return stop
}

// until waits for a condition, which says what is missing.
func (b *storeBench) until(what string, condition func() error) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// shows says what is missing until a condition is as wanted.
func (b *storeBench) shows(o client.Object, kind, want string) error {
	if err := b.env.Client.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	conditions := func() []metav1.Condition {
		switch o := o.(type) {
		case *v1alpha1.DataStore:
			return o.Status.Conditions
		case *v1alpha1.DataRetentionPolicy:
			return o.Status.Conditions
		}
		return nil
	}()
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil || string(c.Status)+" "+c.Reason != want || c.ObservedGeneration != o.GetGeneration() {
		return fmt.Errorf("%s is %+v, want %s", kind, c, want)
	}
	return nil
}

// next waits for the one active Job of a store that runs the plan in force.
func (b *storeBench) next(s *v1alpha1.DataStore) *batchv1.Job {
	b.Helper()
	var found *batchv1.Job
	b.until("a Job", func() error {
		b.read(s)
		var mine []batchv1.Job
		for _, j := range b.active() {
			if j.Labels[v1alpha1.LabelStore] == s.Name && s.Status.Plan.Hash != "" && planHashOf(&j) == s.Status.Plan.Hash {
				mine = append(mine, j)
			}
		}
		if len(mine) != 1 {
			return fmt.Errorf("%d active Jobs", len(mine))
		}
		found = &mine[0]
		return nil
	})
	return found
}

func TestStoresAndPoliciesUnderAManager(t *testing.T) {
	b := newStoreBench(t, v1alpha1.TenantCustomer)
	stop := b.manage()
	s := b.store("chat", nil)
	b.until("ungoverned", func() error { return b.shows(s, "Compliant", "Unknown Ungoverned") })
	b.finish(b.next(s), b.told(b.next(s), nil))

	p := b.policy("privacy", audit, rule("Conversations", period(90)))
	job := b.next(s)
	if !strings.Contains(b.plan(job).Datasets[0].Rules[0].Policy, p.Name) {
		t.Fatalf("the plan does not know the policy: %+v", b.plan(job).Datasets[0])
	}
	b.finish(job, b.told(job, nil))
	b.until("ready", func() error { return b.shows(s, "Ready", "True Audit") })
	b.until("the policy is kept", func() error { return b.shows(p, "Ready", "True Ready") })

	t.Run("a Job of the CronJob is read, too", func(t *testing.T) {
		var cron batchv1.CronJob
		b.must(b.env.Client.Get(t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "chat-sweep"}, &cron))
		hourly := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "chat-sweep-1", Labels: cron.Spec.JobTemplate.Labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}},
			Spec: *cron.Spec.JobTemplate.Spec.DeepCopy(),
		}
		b.must(b.cluster.Create(t.Context(), hourly))
		b.clock.SetTime(time.Now().Add(time.Minute))
		b.finish(hourly, b.told(hourly, nil))
		b.until("read", func() error {
			b.read(s)
			if s.Status.LastSweep.JobUID != string(hourly.UID) {
				return fmt.Errorf("last sweep %+v", s.Status.LastSweep)
			}
			return nil
		})
	})
	t.Run("another window is swept without anybody asking", func(t *testing.T) {
		amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = period(60) })
		b.until("planned", func() error { return b.shows(s, "Compliant", "Unknown PlanChanged") })
		job := b.next(s)
		b.clock.SetTime(time.Now().Add(2 * time.Minute))
		b.finish(job, b.told(job, nil))
		b.until("ready", func() error { return b.shows(s, "Ready", "True Audit") })
	})
	t.Run("a deleted CronJob comes back", func(t *testing.T) {
		cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "chat-sweep"}}
		b.read(cron)
		uid := cron.UID
		b.must(b.cluster.Delete(t.Context(), cron))
		b.until("it is back", func() error {
			if err := b.env.Client.Get(t.Context(), client.ObjectKeyFromObject(cron), cron); err != nil {
				return err
			}
			if cron.UID == uid {
				return fmt.Errorf("it is still the old one")
			}
			return nil
		})
	})
	t.Run("a tenant's override wakes its store", func(t *testing.T) {
		before := s.Status.Plan.Hash
		amend(b, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: b.tenant}}, func(x *v1alpha1.Tenant) {
			x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: period(30)}}
		})
		b.until("planned", func() error {
			if b.read(s); s.Status.Plan.Hash == before {
				return fmt.Errorf("the plan is the same")
			}
			return nil
		})
		job := b.next(s)
		b.clock.SetTime(time.Now().Add(3 * time.Minute))
		b.finish(job, b.told(job, nil))
		b.until("ready", func() error { return b.shows(s, "Ready", "True Audit") })
		b.until("the policy is kept", func() error { return b.shows(p, "Ready", "True Ready") })
	})
	t.Run("a restart writes nothing", func(t *testing.T) {
		stop()
		since := time.Now()
		again := b.manage()
		// Another object that the manager must have seen to write about: then it has seen the others, too.
		witness := b.policy("witness", audit, rule("Files", period(1)))
		b.until("the manager works", func() error { return b.shows(witness, "Compliant", "Unknown Unproven") })
		// The witness selects the store and governs no dataset of it: the store's plan is the same.
		for _, w := range b.writes(since) {
			if !strings.Contains(w, witness.Name) {
				t.Errorf("wrote %s", w)
			}
		}
		again()
	})
	t.Run("a policy that goes takes its rule along, and a store that goes its keys", func(t *testing.T) {
		b.manage()
		b.must(b.env.Client.Delete(t.Context(), p))
		b.until("ungoverned", func() error { return b.shows(s, "Compliant", "Unknown Ungoverned") })
		b.must(b.env.Client.Delete(t.Context(), s))
		b.until("gone", func() error {
			err := b.env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s)
			if err == nil {
				return fmt.Errorf("it is still there")
			}
			return client.IgnoreNotFound(err)
		})
	})
}

// A store that is made, changed or deleted wakes the others of its database: both say that they are of one table, and neither any more once they are not.
func TestAStoreWakesItsNeighbours(t *testing.T) {
	b := newStoreBench(t, v1alpha1.TenantCustomer)
	b.manage()
	b.policy("privacy", audit, rule("Conversations", period(90)))
	s := b.store("chat", nil)
	b.next(s)
	conflicts := func(of *v1alpha1.DataStore, want int) func() error {
		return func() error {
			if b.read(of); len(of.Status.Conflicts) != want {
				return fmt.Errorf("%s has %d conflicts, want %d", of.Name, len(of.Status.Conflicts), want)
			}
			return nil
		}
	}
	other := b.store("books", func(o *v1alpha1.DataStore) { o.Spec.Postgres.Database = "chat" })
	b.until("the first sees the second", conflicts(s, 1))
	b.until("the second sees the first", conflicts(other, 1))
	b.until("a problem", func() error { return b.shows(s, v1alpha1.ConditionReady, "False PlanProblem") })
	// The manager writes its finalizer meanwhile.
	move := func(table v1alpha1.Identifier) {
		b.until("the table is another", func() error {
			b.read(other)
			other.Spec.Datasets[0].Table.Name = table
			return b.cluster.Update(b.Context(), other)
		})
	}
	move("ledger")
	b.until("it is another table", conflicts(s, 0))
	move("messages")
	b.until("and the same again", conflicts(s, 1))
	b.must(b.env.Client.Delete(b.Context(), other))
	b.until("it is gone", conflicts(s, 0))
}
