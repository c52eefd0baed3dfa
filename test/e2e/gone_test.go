package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/stage"
)

// goneBot is one bot of the scene, with the number by which the stand-in knows it.
type goneBot struct {
	*v1alpha1.BotDeployment
	id  int64
	pod types.UID // the one that was there before
}

// goneIsGone: while no manager runs, bots go in all the ways that leave something behind. Garbage collection and the
// StatefulSet controller are Kubernetes' own. A pod that is started anew for such a bot gets no credential, and a
// minute after a manager leads again nothing runs without a bot that lives and is not suspended. The control is a bot
// that lives through it all: its new pod gets its credential although no manager runs, and the manager leaves it alone.
func goneIsGone(t *testing.T, w *world) {
	const two = "e2e-gone-two"
	tenant := w.tenant(t, "e2e-gone", func(s *v1alpha1.TenantSpec) {
		s.Namespaces = append(s.Namespaces, v1alpha1.TenantNamespace{Name: two})
	})
	names := []string{"lives", "orphaned", "adrift", "stripped", "suspended", "dropped"}
	bots := map[string]*goneBot{}
	for i, name := range names {
		token, id := w.newToken(t, 20+i)
		bot := w.newBot(t, tenant, name, token)
		if name == "dropped" {
			bot.Namespace = two
			bot.Spec.Credentials[0].Sealed = w.seal(t, tenant, two, name, "telegram-token", 1, token)
			bot.Spec.Credentials[1].Sealed = w.seal(t, tenant, two, name, "telegram-ca", 1, w.telegram.CA)
		}
		w.create(t, bot)
		bots[name] = &goneBot{BotDeployment: bot, id: id}
	}
	for _, bot := range bots {
		w.awaitReady(t, bot.BotDeployment, 2*time.Minute)
		bot.pod = w.podOf(t, bot).UID
	}
	orphan := client.PropagationPolicy(metav1.DeletePropagationOrphan)
	out, err := w.Kubectl(t.Context(), "", "delete", "botdeployment", "orphaned", "-n", tenant.Name, "--cascade=orphan", "--wait=false")
	if err == nil || !strings.Contains(err.Error()+out, "lethe-no-orphans") {
		t.Errorf("the cluster's administrator orphans a bot's pods: %s %v", out, err)
	}

	w.scaleManager(t, 0)
	w.withoutNoOrphans(t, bots["orphaned"].BotDeployment, func() {
		for _, name := range []string{"orphaned", "adrift", "dropped"} {
			if err := w.client.Delete(t.Context(), bots[name].DeepCopy(), orphan); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"orphaned", "adrift", "dropped"} {
			until(t, time.Minute, "see the StatefulSet of "+name+" orphaned", func(ctx context.Context) (string, error) {
				set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: bots[name].Namespace, Name: name + "-bot"}}
				err := w.client.Get(ctx, client.ObjectKeyFromObject(set), set)
				if len(set.OwnerReferences) > 0 {
					return "it has its owner", err
				}
				return "", err
			})
		}
	})
	if err := w.client.Delete(t.Context(), bots["stripped"].DeepCopy()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"adrift", "stripped", "dropped"} {
		w.strip(t, bots[name].BotDeployment)
		w.gone(t, bots[name].DeepCopy(), time.Minute)
	}
	change(t, w.client, bots["suspended"].BotDeployment, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	change(t, w.client, tenant, func(o *v1alpha1.Tenant) { o.Spec.Namespaces = o.Spec.Namespaces[:1] })

	// Every pod that is still there is made anew by its StatefulSet.
	anew := []string{"lives", "orphaned", "adrift", "suspended", "dropped"}
	for _, name := range anew {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: bots[name].Namespace, Name: resources.BotPodName(name)}}
		if err := w.client.Delete(t.Context(), pod, client.Preconditions{UID: &bots[name].pod}); err != nil {
			t.Fatalf("the pod of %s is not there any more before a manager came: %v", name, err)
		}
	}
	for _, name := range anew[1:] {
		until(t, 90*time.Second, "see the new pod of "+name+" refused", func(context.Context) (string, error) { return w.refusedAnew(t, bots[name]), nil })
		if st, err := w.telegram.Control.Stats(t.Context(), bots[name].id); err != nil || st.Waiting {
			t.Errorf("the bot %s still polls: %+v %v", name, st, err)
		}
	}
	lives := bots["lives"]
	until(t, time.Minute, "see the new pod of the bot that lives", func(context.Context) (string, error) {
		if pod := w.podOf(t, lives); pod == nil || pod.UID == lives.pod || !isReady(pod) {
			return "it is not ready", nil
		}
		return "", nil
	})
	lives.pod = w.podOf(t, lives).UID
	w.chat(t, lives.id, "does it go on without a manager?")

	if what, err := w.runsBeside(t.Context(), lives, tenant.Name, two); err != nil || what == "" {
		t.Errorf("nothing was left behind, so nothing is shown (%v)", err)
	}
	scaled := time.Now()
	w.scale(t, 2)
	leads := w.leads(t, scaled)
	until(t, time.Minute-time.Since(leads), "see nothing run without a bot that lives, a minute after a manager leads", func(ctx context.Context) (string, error) {
		return w.runsBeside(ctx, lives, tenant.Name, two)
	})
	t.Logf("nothing but the bot that lives runs %s after the manager leads, which came %s after it was asked for",
		time.Since(leads).Round(time.Second), leads.Sub(scaled).Round(time.Second))
	w.gone(t, bots["orphaned"].DeepCopy(), time.Minute)
	until(t, time.Minute, "see the namespace let go", func(ctx context.Context) (string, error) {
		var bindings rbacv1.RoleBindingList
		err := w.client.List(ctx, &bindings, client.InNamespace(two))
		return strings.Repeat("RoleBindings are left ", min(len(bindings.Items), 1)), err
	})
	if err := w.AwaitInstalled(t.Context()); err != nil {
		t.Error(err)
	}
	w.chat(t, lives.id, "and with one?")
	if pod := w.podOf(t, lives); pod == nil || pod.UID != lives.pod {
		t.Error("the manager made the pod of the bot that lives anew")
	}
}

// podOf is a bot's pod, or nil.
func (w *world) podOf(t *testing.T, bot *goneBot) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	err := w.client.Get(t.Context(), client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotPodName(bot.Name)}, pod)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// refusedAnew is empty when a bot's pod was made anew and the keyserver has refused it.
func (w *world) refusedAnew(t *testing.T, bot *goneBot) string {
	t.Helper()
	pod := w.podOf(t, bot)
	if pod == nil || pod.UID == bot.pod {
		return "there is no new pod"
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil {
			t.Fatalf("the new pod of %s runs: %+v", bot.Name, pod.Status)
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		for _, s := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			if s == nil {
				continue
			}
			if s.ExitCode == 0 {
				t.Fatalf("the new pod of %s has its credential: %+v", bot.Name, pod.Status)
			}
			if strings.Contains(s.Message, "the keyserver refused (") {
				return ""
			}
			return fmt.Sprintf("it ended with %d: %s", s.ExitCode, s.Message)
		}
	}
	return "it was not refused yet"
}

// runsBeside says what of Lethe's runs, or could make a pod, in these namespaces beside one bot.
func (w *world) runsBeside(ctx context.Context, lives *goneBot, namespaces ...string) (string, error) {
	for _, namespace := range namespaces {
		var pods corev1.PodList
		var sets appsv1.StatefulSetList
		for _, list := range []client.ObjectList{&pods, &sets} {
			if err := w.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
				return "", err
			}
		}
		for _, p := range pods.Items {
			if p.UID != lives.pod {
				return "pod " + namespace + "/" + p.Name, nil
			}
		}
		for _, s := range sets.Items {
			if ptr.Deref(s.Spec.Replicas, 1) > 0 && s.Name != lives.Name+"-bot" {
				return "StatefulSet " + namespace + "/" + s.Name, nil
			}
		}
	}
	return "", nil
}

// scale asks for so many managers.
func (w *world) scale(t *testing.T, replicas int32) {
	t.Helper()
	manager := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: stage.SystemNamespace, Name: "lethe-manager"}}
	change(t, w.client, manager, func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas })
}

// scaleManager does so, and waits until none is there.
func (w *world) scaleManager(t *testing.T, replicas int32) {
	t.Helper()
	w.scale(t, replicas)
	until(t, time.Minute, "see no manager", func(ctx context.Context) (string, error) {
		var pods corev1.PodList
		err := w.client.List(ctx, &pods, client.InNamespace(stage.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/component": "manager"})
		return strings.Repeat("a manager is there ", min(len(pods.Items), 1)), err
	})
}

// leads waits until a manager has the lease, and says since when.
func (w *world) leads(t *testing.T, after time.Time) time.Time {
	t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: stage.SystemNamespace, Name: "lethe-manager"}}
	until(t, 2*time.Minute, "see a manager lead", func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(lease), lease)
		if ptr.Deref(lease.Spec.HolderIdentity, "") == "" || lease.Spec.AcquireTime == nil || lease.Spec.AcquireTime.Time.Before(after) {
			return "none has the lease", err
		}
		return "", err
	})
	return lease.Spec.AcquireTime.Time
}

// strip takes an object's finalizers off, as somebody does who will not wait.
func (w *world) strip(t *testing.T, o client.Object) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	if err := w.client.Patch(t.Context(), o, patch); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
}

// withoutNoOrphans does something while the policy against orphaning is not in force, as after an attempt to be rid
// of it.
func (w *world) withoutNoOrphans(t *testing.T, bot *v1alpha1.BotDeployment, do func()) {
	t.Helper()
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "lethe-no-orphans"}, binding); err != nil {
		t.Fatal(err)
	}
	tried := func(refused bool) {
		t.Helper()
		until(t, time.Minute, fmt.Sprintf("see orphaning refused: %v", refused), func(ctx context.Context) (string, error) {
			err := w.client.Delete(ctx, bot.DeepCopy(), client.DryRunAll, client.PropagationPolicy(metav1.DeletePropagationOrphan))
			if err != nil && !apierrors.IsForbidden(err) {
				return "", err
			}
			if (err != nil) != refused {
				return fmt.Sprint("the answer is ", err), nil
			}
			return "", nil
		})
	}
	tried(true)
	if err := w.client.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	tried(false)
	do()
	binding.ResourceVersion, binding.UID = "", ""
	w.create(t, binding)
}
