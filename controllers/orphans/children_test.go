package orphans_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

const nobody = types.UID("0e0e0e0e-0000-4000-8000-000000000000")

// orphansOfEachKind are children of a bot, a store and a Tenant that do not exist, without an owner reference.
func orphansOfEachKind(namespace string) map[string]client.Object {
	s := operator.TestSettings()
	tenant := operator.MakeTenant("long-gone", namespace)
	bot, store := operator.MakeBot(namespace, "lost"), &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "lost"}}
	store.Spec.Postgres = &v1alpha1.PostgresStore{Host: "db.example", Port: 5432, Database: "d", Username: "u"}
	tenant.UID, bot.UID, store.UID = nobody, nobody, nobody
	hash := "0123456789abcdef"
	pod := func(name, account string, t corev1.PodTemplateSpec) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
		p.Namespace, p.Name, p.Spec.PriorityClassName, p.Spec.ServiceAccountName = namespace, name, "", account
		user := int64(1000)
		p.Spec.SecurityContext.RunAsUser = &user
		return p
	}
	left := map[string]client.Object{
		"a bot's StatefulSet":       resources.BotStatefulSet(s, bot, tenant, "lost-cred-0123456789"),
		"a bot's NetworkPolicy":     resources.BotNetworkPolicy(s, bot, tenant),
		"a bot's ServiceAccount":    resources.BotServiceAccount(bot),
		"a bot's pod":               pod("lost-bot-0", "b-bot", resources.BotPodTemplate(s, bot, tenant, "lost-cred-0123456789")),
		"a store's ServiceAccount":  resources.SweeperServiceAccount(store),
		"a store's NetworkPolicy":   resources.SweeperNetworkPolicy(s, store, tenant),
		"a store's plan":            resources.PlanConfigMap(store, hash, []byte("{}")),
		"a store's CronJob":         resources.SweepCronJob(s, store, tenant, hash),
		"a store's Job out of turn": resources.CatchUpJob(s, store, tenant, hash, "lost-catchup-0123456789"),
		"a sweep's pod":             pod("lost-sweep-0", "b-sweeper", resources.SweepPodTemplate(s, store, tenant, hash)),
	}
	for _, o := range left {
		o.SetOwnerReferences(nil)
	}
	return left
}

// accountOfSweeps is there for pods to be made under.
func accountOfSweeps(w *operator.World, namespace string) {
	w.T.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b-sweeper"}}
	if err := w.Cluster.Create(context.Background(), account); err != nil {
		w.T.Fatal(err)
	}
}

// ours are the versions of everything but quotas, in which the API server counts whatever comes and goes, and but
// Tenants and bots, whose statuses say for as long as it is there that a policy of nobody's stands in the namespace.
func ours(w *operator.World) map[string]string {
	w.T.Helper()
	versions := w.Versions()
	maps.DeleteFunc(versions, func(name, _ string) bool {
		return strings.Contains(name, "ResourceQuota") || strings.HasPrefix(name, "*v1alpha1.Tenant ") || strings.HasPrefix(name, "*v1alpha1.BotDeployment ")
	})
	return versions
}

// TestOrphansOfEachKind: each kind of child is found and removed alone, and nothing of a bot that lives is touched.
func TestOrphansOfEachKind(t *testing.T) {
	w, tenant := operator.WithTenant(t, "kinds")
	bot := operator.MakeBot("kinds-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	accountOfSweeps(w, "kinds-a")
	w.Calm()
	living := ours(w)
	for name, o := range orphansOfEachKind("kinds-a") {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			w.Stop()
			if err := w.Cluster.Create(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			w.Start(&operator.Wire{})
			w.Gone(o)
			w.Stop()
			if got := ours(w); fmt.Sprint(got) != fmt.Sprint(living) {
				t.Errorf("versions moved: %s", cmp.Diff(living, got))
			}
		})
	}
}

// TestOrphanSweepDiesAtEveryWrite: whoever comes next finishes.
func TestOrphanSweepDiesAtEveryWrite(t *testing.T) {
	w, tenant := operator.WithTenant(t, "dies")
	bot := operator.MakeBot("dies-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	accountOfSweeps(w, "dies-a")
	w.Calm()
	living := ours(w)
	all := len(orphansOfEachKind("dies-a"))
	for number := 1; number <= all; number++ {
		for _, landed := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, landed: %v", number, landed), func(t *testing.T) {
				w := w.In(t)
				w.Stop()
				left := orphansOfEachKind("dies-a")
				for _, o := range left {
					if err := w.Cluster.Create(context.Background(), o); err != nil {
						t.Fatal(err)
					}
				}
				cut := &operator.Wire{CutAt: int64(number), After: landed}
				w.Start(cut)
				w.Soon("the wire is cut", func() error {
					if !cut.IsDead() {
						return fmt.Errorf("%d writes", cut.Writes.Load())
					}
					return nil
				})
				w.Restart()
				for _, o := range left {
					w.Gone(o)
				}
				w.Stop()
				if got := ours(w); fmt.Sprint(got) != fmt.Sprint(living) {
					t.Errorf("versions moved: %s", cmp.Diff(living, got))
				}
			})
		}
	}
}

// TestANamespaceOfNobodysTenantIsLeft: walls and rights of a Tenant that is gone go last, once nothing runs and no
// bot is there.
func TestANamespaceOfNobodysTenantIsLeft(t *testing.T) {
	w, tenant := operator.WithTenant(t, "left")
	bot := operator.MakeBot("left-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Stop()
	orphan(w, "left-a", tenant)
	forgetUse(w, tenant)
	w.Delete(tenant)
	takeFinalizersOff(w, tenant)
	w.Gone(tenant)
	w.Start(&operator.Wire{})
	w.Eventually("stopped", func() error { return runs(w, "left-a") })
	w.Calm()
	door := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "left-a", Name: resources.PolicyDefaultDeny}}
	if err := w.Get(door); err != nil {
		t.Errorf("the namespace was left although a bot is in it: %v", err)
	}
	w.Delete(bot)
	w.Gone(bot)
	w.Eventually("left", func() error { return isEmptyButSecrets(w, "left-a") })
}

// TestNothingSweepsForAStoreThatIsGone: neither a CronJob nor a Job outlives a store, is held by somebody's
// finalizer, or outlives the namespace's being a tenant's.
func TestNothingSweepsForAStoreThatIsGone(t *testing.T) {
	for name, tc := range map[string]struct {
		how func(b *operator.StoreBench, s *v1alpha1.DataStore)
		say string
	}{
		"deleted and held": {how: func(b *operator.StoreBench, s *v1alpha1.DataStore) {
			operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Finalizers = append(s.Finalizers, "example.com/hold") })
			b.Must(b.Cluster.Delete(b.Context(), s))
		}, say: "example.com/hold"},
		"deleted, held, its children without owner": {how: func(b *operator.StoreBench, s *v1alpha1.DataStore) {
			cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: resources.SweepName(s.Name)}}
			operator.Amend(b, cron, func(c *batchv1.CronJob) { c.OwnerReferences = nil })
			operator.Amend(b, b.Job(), func(j *batchv1.Job) { j.OwnerReferences = nil })
			operator.Amend(b, s, func(s *v1alpha1.DataStore) { s.Finalizers = append(s.Finalizers, "example.com/hold") })
			b.Must(b.Cluster.Delete(b.Context(), s))
		}, say: "example.com/hold"},
		"its namespace's label taken away": {how: func(b *operator.StoreBench, _ *v1alpha1.DataStore) {
			operator.Amend(b, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.Namespace}}, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
		}, say: "belongs to no Tenant"},
		"its Tenant being deleted": {how: func(b *operator.StoreBench, _ *v1alpha1.DataStore) {
			tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: b.Tenant}}
			operator.Amend(b, tenant, func(t *v1alpha1.Tenant) { t.Finalizers = []string{v1alpha1.FinalizerKeys} })
			b.Must(b.Cluster.Delete(b.Context(), tenant))
			b.Cleanup(func() {
				b.Must(b.Cluster.Patch(context.Background(), tenant, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))))
			})
		}, say: "is being deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
			b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
			s := b.Store("chat", nil)
			b.Settle(s)
			if len(b.Active()) != 1 {
				t.Fatal("nothing sweeps to begin with")
			}
			tc.how(b, s)
			for range 3 { // its own passes, and one on what they have changed
				if _, err := b.Pass(s); err != nil {
					t.Fatal(err)
				}
			}
			cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: resources.SweepName(s.Name)}}
			if err := b.Env.Client.Get(b.Context(), client.ObjectKeyFromObject(cron), cron); !apierrors.IsNotFound(err) {
				t.Errorf("the CronJob: %v", err)
			}
			for _, job := range b.Active() {
				if job.DeletionTimestamp == nil {
					t.Errorf("Job %s sweeps on", job.Name)
				}
			}
			b.Read(s)
			b.Says(s, "Ready", tc.say)
		})
	}
}
