package datastore_test

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
	"github.com/lethe-dev/lethe/controllers"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	policycontroller "github.com/lethe-dev/lethe/controllers/retentionpolicy"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/operator"
)

// manage runs the reconcilers of stores and policies in a manager with its cache and watches, until stop or the test
// ends.
func manage(b *operator.StoreBench) (stop func()) {
	b.Helper()
	config := b.Env.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager)
	options, err := controllers.ManagerOptions(config, 10, nil)
	b.Must(err)
	options.Scheme, options.Metrics = b.Env.Scheme, metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = new(true)
	mgr, err := ctrl.NewManager(config, options)
	b.Must(err)
	writer := kube.Writer{Client: reconcile.WholeOnly{Client: mgr.GetClient()}, Live: mgr.GetAPIReader(), Strip: func(o client.Object) { bulk.Strip(o) }}
	stores := &storecontroller.Reconciler{Writer: writer, Keys: b.Keys, Settings: operator.TestSettings(), Recorder: b.Events, Clock: b.Clock, Orphans: operator.Unheard{}, Deleted: b.Deleted}
	policies := &policycontroller.Reconciler{Writer: writer, Recorder: b.Events, Clock: b.Clock}
	b.Must(stores.SetupWithManager(mgr, controller.Options{}))
	b.Must(policies.SetupWithManager(mgr, controller.Options{}))
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

// shows says what is missing until a condition is as wanted.
func shows(b *operator.StoreBench, o client.Object, kind, want string) error {
	if err := b.Env.Client.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
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
func next(b *operator.StoreBench, s *v1alpha1.DataStore) *batchv1.Job {
	b.Helper()
	var found *batchv1.Job
	b.Until("a Job", func() error {
		b.Read(s)
		var mine []batchv1.Job
		for _, j := range b.Active() {
			if j.Labels[v1alpha1.LabelStore] == s.Name && s.Status.Plan.Hash != "" && resources.PlanHashOf(j.Spec.Template.Spec) == s.Status.Plan.Hash {
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
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	stop := manage(b)
	s := b.Store("chat", nil)
	b.Until("ungoverned", func() error { return shows(b, s, "Compliant", "Unknown Ungoverned") })
	b.Finish(next(b, s), b.Told(next(b, s), nil))

	p := b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	job := next(b, s)
	if !strings.Contains(b.Plan(job).Datasets[0].Rules[0].Policy, p.Name) {
		t.Fatalf("the plan does not know the policy: %+v", b.Plan(job).Datasets[0])
	}
	b.Finish(job, b.Told(job, nil))
	b.Until("ready", func() error { return shows(b, s, "Ready", "True Audit") })
	b.Until("the policy is kept", func() error { return shows(b, p, "Ready", "True Ready") })

	t.Run("a Job of the CronJob is read, too", func(t *testing.T) {
		var cron batchv1.CronJob
		b.Must(b.Env.Client.Get(t.Context(), client.ObjectKey{Namespace: b.Namespace, Name: "chat-sweep"}, &cron))
		hourly := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: "chat-sweep-1", Labels: cron.Spec.JobTemplate.Labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}},
			Spec: *cron.Spec.JobTemplate.Spec.DeepCopy(),
		}
		b.Must(b.Cluster.Create(t.Context(), hourly))
		b.Clock.SetTime(time.Now().Add(time.Minute))
		b.Finish(hourly, b.Told(hourly, nil))
		b.Until("read", func() error {
			b.Read(s)
			if s.Status.LastSweep.JobUID != string(hourly.UID) {
				return fmt.Errorf("last sweep %+v", s.Status.LastSweep)
			}
			return nil
		})
	})
	t.Run("another window is swept without anybody asking", func(t *testing.T) {
		operator.Amend(b, p, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules[0].RetainFor = operator.Period(60) })
		b.Until("planned", func() error { return shows(b, s, "Compliant", "Unknown PlanChanged") })
		job := next(b, s)
		b.Clock.SetTime(time.Now().Add(2 * time.Minute))
		b.Finish(job, b.Told(job, nil))
		b.Until("ready", func() error { return shows(b, s, "Ready", "True Audit") })
	})
	t.Run("a deleted CronJob comes back", func(t *testing.T) {
		cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: "chat-sweep"}}
		b.Read(cron)
		uid := cron.UID
		b.Must(b.Cluster.Delete(t.Context(), cron))
		b.Until("it is back", func() error {
			if err := b.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(cron), cron); err != nil {
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
		operator.Amend(b, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: b.Tenant}}, func(x *v1alpha1.Tenant) {
			x.Spec.RetentionOverrides = []v1alpha1.RetentionOverride{{DataClass: "Conversations", RetainFor: operator.Period(30)}}
		})
		b.Until("planned", func() error {
			if b.Read(s); s.Status.Plan.Hash == before {
				return fmt.Errorf("the plan is the same")
			}
			return nil
		})
		job := next(b, s)
		b.Clock.SetTime(time.Now().Add(3 * time.Minute))
		b.Finish(job, b.Told(job, nil))
		b.Until("ready", func() error { return shows(b, s, "Ready", "True Audit") })
		b.Until("the policy is kept", func() error { return shows(b, p, "Ready", "True Ready") })
	})
	t.Run("a restart writes nothing", func(t *testing.T) {
		stop()
		since := time.Now()
		again := manage(b)
		// Another object that the manager must have seen to write about: then it has seen the others, too.
		witness := b.Policy("witness", operator.Audit, operator.Rule("Files", operator.Period(1)))
		b.Until("the manager works", func() error { return shows(b, witness, "Compliant", "Unknown NotVerified") })
		// The witness selects the store and governs no dataset of it: the store's plan is the same.
		for _, w := range b.Writes(since) {
			if !strings.Contains(w, witness.Name) {
				t.Errorf("wrote %s", w)
			}
		}
		again()
	})
	t.Run("a policy that goes takes its rule along, and a store that goes its keys", func(t *testing.T) {
		manage(b)
		b.Must(b.Env.Client.Delete(t.Context(), p))
		b.Until("ungoverned", func() error { return shows(b, s, "Compliant", "Unknown Ungoverned") })
		b.Must(b.Env.Client.Delete(t.Context(), s))
		b.Until("gone", func() error {
			err := b.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s)
			if err == nil {
				return fmt.Errorf("it is still there")
			}
			return client.IgnoreNotFound(err)
		})
	})
}

// A store that is made, changed or deleted wakes the others of its database: both say that they are of one table, and
// neither any more once they are not.
func TestAStoreWakesItsNeighbours(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	manage(b)
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	s := b.Store("chat", nil)
	next(b, s)
	conflicts := func(of *v1alpha1.DataStore, want int) func() error {
		return func() error {
			if b.Read(of); len(of.Status.Conflicts) != want {
				return fmt.Errorf("%s has %d conflicts, want %d", of.Name, len(of.Status.Conflicts), want)
			}
			return nil
		}
	}
	other := b.Store("books", func(o *v1alpha1.DataStore) { o.Spec.Postgres.Database = "chat" })
	b.Until("the first sees the second", conflicts(s, 1))
	b.Until("the second sees the first", conflicts(other, 1))
	b.Until("a problem", func() error { return shows(b, s, v1alpha1.ConditionReady, "False PlanProblem") })
	// The manager writes its finalizer meanwhile.
	move := func(table v1alpha1.Identifier) {
		b.Until("the table is another", func() error {
			b.Read(other)
			other.Spec.Datasets[0].Table.Name = table
			return b.Cluster.Update(b.Context(), other)
		})
	}
	move("ledger")
	b.Until("it is another table", conflicts(s, 0))
	move("messages")
	b.Until("and the same again", conflicts(s, 1))
	b.Must(b.Env.Client.Delete(b.Context(), other))
	b.Until("it is gone", conflicts(s, 0))
}
