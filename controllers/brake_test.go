package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/test/operator"
)

const (
	// testBudget is what a tenant may write in these tests, testSlack what it gets in until its mark is where
	// admission looks.
	testBudget = 1 << 20
	testSlack  = 2 << 20
	// groupOperators have the role Operate, groupWriters another role with every right on our kinds.
	groupOperators = "brake:operators"
	groupWriters   = "brake:writers"
)

// changesWorld is a world with a small budget and a clock that stands still.
func changesWorld(t *testing.T) (*operator.World, *clocktesting.FakePassiveClock) {
	t.Helper()
	w := operator.NewWorld(t)
	w.Stop()
	now := clocktesting.NewFakePassiveClock(time.Now())
	w.Budget, w.Clock = testBudget, now
	w.Start(&operator.Wire{})
	return w, now
}

// operated is a Tenant with one bot in each namespace, whose people may change them.
func operated(w *operator.World, name string, namespaces ...string) *v1alpha1.Tenant {
	w.T.Helper()
	tenant := operator.MakeTenant(name, namespaces...)
	tenant.Spec.Access = []v1alpha1.TenantAccess{{Group: groupOperators, Role: v1alpha1.AccessOperate}}
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	for _, namespace := range namespaces {
		bot := operator.MakeBot(namespace, "bot")
		w.Create(bot)
		w.Becomes(bot, "Ready=True")
		every := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "writers"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"*"}, Verbs: []string{"*"}}}}
		bound := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "writers"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "writers"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: groupWriters}}}
		w.Create(every, bound)
	}
	return tenant
}

func isPaused(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "'lethe-changes-paused'") && strings.Contains(err.Error(), "changes are paused until 20")
}

// counted waits until the manager has been shown a revision of a bot: how much more is let in until then is a matter
// of how loaded the machine is.
func counted(w *operator.World, version string) {
	w.T.Helper()
	number, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		w.T.Error(err)
		return
	}
	err = wait.PollUntilContextTimeout(w.T.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return w.Changes.SeenBots() >= number, nil
	})
	if err != nil {
		w.T.Errorf("revision %s of a bot is not counted: %v", version, err)
	}
}

// attackUntilPaused writes with a few hands at once until a write is refused because changes are paused, and says how
// many bytes were let in. Each hand goes on when the manager has seen what it wrote.
func attackUntilPaused(w *operator.World, write func(hand, n int) (client.Object, error)) (accepted int64) {
	w.T.Helper()
	const hands, most = 4, 10_000
	var total, writes atomic.Int64
	var seen sync.Map // a write that changes nothing is no revision
	var ended atomic.Bool
	var all sync.WaitGroup
	for hand := range hands {
		all.Go(func() {
			for n := 0; !ended.Load(); n++ {
				object, err := write(hand, n)
				switch {
				case isPaused(err):
					ended.Store(true)
				case apierrors.IsConflict(err), apierrors.IsNotFound(err), apierrors.IsAlreadyExists(err):
				case err != nil:
					w.T.Errorf("write %d: %v", n, err)
					ended.Store(true)
				default:
					content, err := json.Marshal(object)
					if err != nil {
						w.T.Error(err)
					}
					if _, again := seen.LoadOrStore(object.GetResourceVersion(), true); !again {
						total.Add(int64(len(content)))
						counted(w, object.GetResourceVersion())
					}
				}
				if writes.Add(1) > most {
					w.T.Errorf("%d writes and %d bytes, and nothing is paused", most, total.Load())
					ended.Store(true)
				}
			}
		})
	}
	all.Wait()
	return total.Load()
}

func marks(w *operator.World, namespaces ...string) (marks []string) {
	w.T.Helper()
	for _, name := range namespaces {
		namespace := &corev1.Namespace{}
		if err := w.Admin.Get(w.T.Context(), client.ObjectKey{Name: name}, namespace); err != nil {
			w.T.Fatal(err)
		}
		marks = append(marks, namespace.Annotations[v1alpha1.AnnotationChangesPaused])
	}
	return marks
}

// marked waits until every namespace has the same mark, and returns it.
func marked(w *operator.World, namespaces ...string) (mark string) {
	w.T.Helper()
	w.Eventually("a mark on "+strings.Join(namespaces, ", "), func() error {
		marks := marks(w, namespaces...)
		for _, m := range marks {
			if m == "" || m != marks[0] {
				return fmt.Errorf("marks: %q", marks)
			}
		}
		mark = marks[0]
		return nil
	})
	return mark
}

func unmarked(w *operator.World, namespaces ...string) {
	w.T.Helper()
	w.Eventually("no mark on "+strings.Join(namespaces, ", "), func() error {
		for _, m := range marks(w, namespaces...) {
			if m != "" {
				return fmt.Errorf("marked until %s", m)
			}
		}
		return nil
	})
}

func patchText(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }

func note(n int, size int) client.Patch {
	return patchText(fmt.Sprintf(`{"metadata":{"annotations":{"example.com/note":%q}}}`, fmt.Sprintf("%08d", n)+strings.Repeat("x", size)))
}

// TestChangesArePaused: whoever writes, and however, gets no more in within the window than the budget and what is on
// its way when the mark is set; another tenant is not touched, what Lethe and Kubernetes do goes on, and it ends by
// itself.
func TestChangesArePaused(t *testing.T) {
	w, now := changesWorld(t)
	victim := operated(w, "brake-victim", "brake-victim-a")
	attacks := map[string]struct {
		group string
		write func(ctx context.Context, c client.Client, namespace string, hand, n int) (client.Object, error)
	}{
		"spec": {groupOperators, func(ctx context.Context, c client.Client, ns string, hand, n int) (client.Object, error) {
			bot := operator.MakeBot(ns, "bot")
			return bot, c.Patch(ctx, bot, patchText(fmt.Sprintf(`{"spec":{"args":[%q,%q]}}`, fmt.Sprint(hand, n), strings.Repeat("x", 1000))))
		}},
		"annotations": {groupOperators, func(ctx context.Context, c client.Client, ns string, hand, n int) (client.Object, error) {
			bot := operator.MakeBot(ns, "bot")
			return bot, c.Patch(ctx, bot, note(hand*100_000+n, 60_000))
		}},
		"field managers": {groupOperators, func(ctx context.Context, c client.Client, ns string, hand, n int) (client.Object, error) {
			bot := operator.MakeBot(ns, "bot")
			bot.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BotDeployment"}
			bot.Labels = map[string]string{fmt.Sprintf("example.com/l%d", n%30): "x"}
			for i := range 60 {
				bot.Spec.Env = append(bot.Spec.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("E%0100d", i), Value: "x"})
			}
			//nolint:staticcheck // the object is applied as it is
			return bot, c.Patch(ctx, bot, client.Apply, client.ForceOwnership, client.FieldOwner(fmt.Sprint("manager-", hand)))
		}},
		"made and deleted": {groupOperators, func(ctx context.Context, c client.Client, ns string, hand, n int) (client.Object, error) {
			bot := operator.MakeBot(ns, fmt.Sprintf("loop-%d", hand))
			bot.Annotations = map[string]string{"example.com/note": strings.Repeat("x", 60_000)}
			err := c.Create(ctx, bot)
			if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota") {
				return nil, apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("botdeployments").GroupResource(), bot.Name, err)
			}
			if err == nil || apierrors.IsAlreadyExists(err) {
				err = errors.Join(err, client.IgnoreNotFound(c.Delete(ctx, operator.MakeBot(ns, bot.Name))))
			}
			return bot, err
		}},
		"status, by another role": {groupWriters, func(ctx context.Context, c client.Client, ns string, hand, n int) (client.Object, error) {
			bot := operator.MakeBot(ns, "bot")
			if n == 0 {
				if err := c.Patch(ctx, bot, note(0, 60_000)); err != nil {
					return bot, err
				}
			}
			return bot, c.Status().Patch(ctx, bot, patchText(fmt.Sprintf(`{"status":{"observedGeneration":%d}}`, 4*n+hand)))
		}},
	}
	tenants := map[string]*v1alpha1.Tenant{} // made before the clock moves
	for name := range attacks {
		tenants[name] = operated(w, fmt.Sprintf("brake-%d", len(tenants)), fmt.Sprintf("brake-%d-a", len(tenants)), fmt.Sprintf("brake-%d-b", len(tenants)))
	}
	for name, attack := range attacks {
		tenant := tenants[name]
		a, b := tenant.Name+"-a", tenant.Name+"-b"
		eve := operator.TestEnv.As(t, "eve", attack.group)
		began := time.Now()
		accepted := attackUntilPaused(w, func(hand, n int) (client.Object, error) {
			return attack.write(t.Context(), eve, a, hand, n)
		})
		t.Logf("%s: %d bytes let in, in %s", name, accepted, time.Since(began).Round(time.Millisecond))
		if accepted > testBudget+testSlack {
			t.Errorf("%s: %d bytes were let in, want at most %d", name, accepted, testBudget+testSlack)
		}
		marked(w, a, b)
		w.Becomes(tenant, "ChangesPaused=True/BudgetExceeded")
		w.OneEvent(tenant, "BudgetExceeded")

		now.SetTime(now.Now().Add(controllers.ChangesWindow + time.Minute))
		unmarked(w, a, b)
		w.Becomes(tenant, "ChangesPaused=False/WithinBudget")
		bot := operator.MakeBot(a, "bot")
		if err := eve.Patch(t.Context(), bot, note(0, 10)); err != nil {
			t.Errorf("%s, after its time: %v", name, err)
		}
	}
	w.Becomes(victim, "ChangesPaused=False/WithinBudget")
	w.HasEvents(victim, "BudgetExceeded", 0)
}

// pausedTenant is a Tenant whose changes are paused.
func pausedTenant(w *operator.World, name string, namespaces ...string) (*v1alpha1.Tenant, string) {
	w.T.Helper()
	tenant := operated(w, name, namespaces...)
	eve := operator.TestEnv.As(w.T, "eve", groupOperators)
	attackUntilPaused(w, func(hand, n int) (client.Object, error) {
		bot := operator.MakeBot(namespaces[0], "bot")
		return bot, eve.Patch(w.T.Context(), bot, note(hand*100_000+n, 60_000))
	})
	return tenant, marked(w, namespaces...)
}

// TestWhatGoesOnInAPause: what ends something stays possible, once; what would be one more copy is refused, also by an
// administrator; what Lethe and Kubernetes write goes on.
func TestWhatGoesOnInAPause(t *testing.T) {
	w, _ := changesWorld(t)
	tenant := operated(w, "brake-on", "brake-on-a", "brake-on-b")
	ctx, eve := t.Context(), operator.TestEnv.As(t, "eve", groupOperators)
	const ns = "brake-on-a"
	for _, name := range []string{"stops", "goes", "held", "started"} {
		bot := operator.MakeBot(ns, name)
		if name == "held" {
			bot.Finalizers = []string{"example.com/mine"}
		}
		w.Create(bot)
		w.Becomes(bot, "Ready=True")
	}
	attackUntilPaused(w, func(hand, n int) (client.Object, error) {
		bot := operator.MakeBot(ns, "bot")
		return bot, eve.Patch(ctx, bot, note(hand*100_000+n, 60_000))
	})
	marked(w, ns, "brake-on-b")
	w.Becomes(tenant, "ChangesPaused=True")

	refused := func(what string, err error) {
		t.Helper()
		if !isPaused(err) {
			t.Errorf("%s: want it refused, got: %v", what, err)
		}
	}
	passes := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a new bot in the other namespace", eve.Create(ctx, operator.MakeBot("brake-on-b", "new")))
	refused("a change by an administrator", w.Admin.Patch(ctx, operator.MakeBot(ns, "bot"), note(1, 1)))
	refused("a finalizer, by an administrator", w.Admin.Patch(ctx, operator.MakeBot(ns, "goes"), patchText(`{"metadata":{"finalizers":["lethe.dev/keys","example.com/more"]}}`)))
	passes("applying what is there", eve.Patch(ctx, operator.MakeBot(ns, "goes"), patchText(`{"spec":{"operatingMode":"Running"}}`)))
	suspend, resume := patchText(`{"spec":{"operatingMode":"Suspended"}}`), patchText(`{"spec":{"operatingMode":"Running"}}`)
	passes("suspending", eve.Patch(ctx, operator.MakeBot(ns, "stops"), suspend))
	refused("starting again", eve.Patch(ctx, operator.MakeBot(ns, "stops"), resume))
	refused("a change of what is suspended", eve.Patch(ctx, operator.MakeBot(ns, "stops"), patchText(`{"spec":{"operatingMode":"Suspended","args":["x"]}}`)))
	// The manager and Kubernetes go on: the pod ends, and the status says so.
	w.Eventually("the bot stops", func() error { return w.IsNow(operator.MakeBot(ns, "stops"), "Reconciling=False") })
	w.HasReplicas(operator.MakeBot(ns, "stops"), 0)

	passes("deleting", eve.Delete(ctx, operator.MakeBot(ns, "goes")))
	w.Eventually("it is gone", func() error { return w.IsGone(operator.MakeBot(ns, "goes")) })

	held := operator.MakeBot(ns, "held")
	passes("deleting what a finalizer holds", eve.Delete(ctx, held, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	passes("deleting it again", eve.Delete(ctx, operator.MakeBot(ns, "held"), client.PropagationPolicy(metav1.DeletePropagationBackground)))
	refused("deleting it in another way", eve.Delete(ctx, operator.MakeBot(ns, "held"), client.PropagationPolicy(metav1.DeletePropagationForeground)))
	refused("a note on what is being deleted", eve.Patch(ctx, operator.MakeBot(ns, "held"), note(1, 1)))
	w.Eventually("only its own finalizer holds it", func() error {
		live := operator.MakeBot(ns, "held")
		if err := w.Admin.Get(ctx, client.ObjectKeyFromObject(live), live); err != nil {
			return err
		}
		if len(live.Finalizers) != 1 || live.Finalizers[0] != "example.com/mine" {
			return fmt.Errorf("its finalizers are %v", live.Finalizers)
		}
		return nil
	})
	passes("letting it go", eve.Patch(ctx, operator.MakeBot(ns, "held"), patchText(`{"metadata":{"finalizers":null}}`)))
	w.Eventually("it is gone", func() error { return w.IsGone(operator.MakeBot(ns, "held")) })
}

// TestAPauseOutlivesTheManager: a manager that begins in the middle of a pause neither forgets nor prolongs it, marks
// the namespaces that the one before it did not come to, and ends what should have ended meanwhile.
func TestAPauseOutlivesTheManager(t *testing.T) {
	w, now := changesWorld(t)
	const a, b = "brake-life-a", "brake-life-b"
	tenant, mark := pausedTenant(w, "brake-life", a, b)
	until, err := time.Parse(time.RFC3339, mark)
	if err != nil || !until.After(now.Now()) || until.After(now.Now().Add(controllers.ChangesWindow+30*time.Second)) {
		t.Fatalf("marked until %q, now %s: %v", mark, now.Now(), err)
	}
	w.Restart()
	w.Calm()
	if got := marked(w, a, b); got != mark {
		t.Errorf("after a restart it is paused until %s, was %s", got, mark)
	}
	for _, name := range []string{a, b} { // it died between the two
		w.Stop()
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := w.Admin.Patch(t.Context(), namespace, patchText(`{"metadata":{"annotations":{"lethe.dev/changes-paused-until":null}}}`)); err != nil {
			t.Fatal(err)
		}
		w.Start(&operator.Wire{})
		if got := marked(w, a, b); got != mark {
			t.Errorf("%s is paused until %s, was %s", name, got, mark)
		}
	}
	w.Stop()
	now.SetTime(until)
	w.Start(&operator.Wire{})
	unmarked(w, a, b)
	w.Becomes(tenant, "ChangesPaused=False")
	if err := w.Admin.Patch(t.Context(), operator.MakeBot(a, "bot"), note(0, 10)); err != nil {
		t.Error(err)
	}
}

// TestEndingAPauseByHand: who may update the Tenant takes the mark off one namespace; the others follow, and the
// count begins anew, until it is exceeded again.
func TestEndingAPauseByHand(t *testing.T) {
	w, _ := changesWorld(t)
	const a, b = "brake-hand-a", "brake-hand-b"
	tenant, _ := pausedTenant(w, "brake-hand", a, b)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b}}
	if err := w.Admin.Patch(t.Context(), namespace, patchText(`{"metadata":{"annotations":{"lethe.dev/changes-paused-until":null}}}`)); err != nil {
		t.Fatal(err)
	}
	unmarked(w, a, b)
	w.Becomes(tenant, "ChangesPaused=False")
	eve := operator.TestEnv.As(t, "eve", groupOperators)
	if err := eve.Patch(t.Context(), operator.MakeBot(a, "bot"), note(0, 10)); err != nil {
		t.Error(err)
	}
	attackUntilPaused(w, func(hand, n int) (client.Object, error) {
		bot := operator.MakeBot(b, "bot")
		return bot, eve.Patch(t.Context(), bot, note(hand*100_000+n, 60_000))
	})
	marked(w, a, b)
}

// TestManyUpdatesOfOneTenant: while one tenant sends many more updates than it may, another's new bot comes up, and
// none of its writes is refused.
func TestManyUpdatesOfOneTenant(t *testing.T) {
	const updates, hands = 2_500, 16
	w, _ := changesWorld(t)
	w.Stop()
	w.Budget = testBudget / 4
	w.Start(&operator.Wire{})
	operated(w, "brake-greedy", "brake-greedy-a")
	victim := operated(w, "brake-small", "brake-small-a")
	eve, alice := operator.TestEnv.As(t, "eve", groupOperators), operator.TestEnv.As(t, "alice", groupOperators)
	var sent, refused, over atomic.Int64
	var all sync.WaitGroup
	for hand := range hands {
		all.Go(func() {
			for sent.Add(1) <= updates {
				bot := operator.MakeBot("brake-greedy-a", "bot")
				switch err := eve.Patch(t.Context(), bot, note(hand*100_000+int(sent.Load()), 1000)); {
				case isPaused(err):
					refused.Add(1)
				case err != nil && !apierrors.IsConflict(err):
					over.Add(1)
				}
			}
		})
	}
	w.Soon("the first of them", func() error {
		if sent.Load() < updates/10 {
			return fmt.Errorf("%d were sent", sent.Load())
		}
		return nil
	})
	from := time.Now()
	bot := operator.MakeBot("brake-small-a", "new")
	w.Eventually("create a bot", func() error {
		err := alice.Create(t.Context(), bot)
		if err != nil && !strings.Contains(err.Error(), "exceeded quota") {
			t.Fatal(err)
		}
		return err
	})
	w.Becomes(bot, "Ready=True")
	took, during := time.Since(from), sent.Load()
	if err := alice.Patch(t.Context(), bot, note(1, 1000)); err != nil {
		t.Errorf("the other tenant's change: %v", err)
	}
	all.Wait()
	t.Logf("ready after %s, when %d updates were sent; %d were refused", took.Round(time.Millisecond), during, refused.Load())
	if refused.Load() < updates/2 || over.Load() > 0 {
		t.Errorf("%d of %d updates were refused, %d failed otherwise", refused.Load(), updates, over.Load())
	}
	w.Becomes(victim, "ChangesPaused=False")
}
