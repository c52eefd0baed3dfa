package bot_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestFinalizerAtBirth: a bot has the finalizer before any manager has seen it, and the manager writes none; where
// Kubernetes does not do that, the manager writes it once. Both bots go, and their keys with them, also one that was
// deleted before a manager saw it.
func TestFinalizerAtBirth(t *testing.T) {
	for name, byKubernetes := range map[string]bool{"birth": true, "birth-old": false} {
		t.Run(name, func(t *testing.T) {
			if !byKubernetes {
				operator.TestEnv.WithoutBotFinalizer(t)
			}
			w, _ := operator.WithTenant(t, name)
			w.Stop()
			bot, early := operator.MakeBot(name+"-a", "b"), operator.MakeBot(name+"-a", "early")
			before := time.Now()
			w.Create(bot, early)
			for _, b := range []*v1alpha1.BotDeployment{bot, early} {
				if reconcile.HasFinalizer(b) != byKubernetes {
					t.Fatalf("%s is made with the finalizers %v", b.Name, b.Finalizers)
				}
			}
			w.Delete(early)
			w.Restart()
			w.Becomes(bot, "Ready=True")
			if !slices.Equal(bot.Finalizers, []string{v1alpha1.FinalizerKeys}) {
				t.Errorf("a bot that is ready has the finalizers %v", bot.Finalizers)
			}
			w.Gone(early)
			if byKubernetes && !w.Keys.IsRevoked(early.UID) {
				t.Error("the keys of a bot that was deleted before a manager saw it were not asked about")
			}
			patches := map[string]int{}
			writes, err := operator.TestEnv.Writes(before, operator.ManagerUser)
			if err != nil {
				t.Fatal(err)
			}
			for _, write := range writes {
				// How often it writes the status depends on how long the pod takes: TestWritesPerBot counts that.
				if write.Object == bot.Namespace+"/"+bot.Name && write.Resource != "botdeployments/status" {
					patches[write.Verb+" "+write.Resource]++
				}
			}
			want := map[string]int{}
			if !byKubernetes {
				want["patch botdeployments"] = 1
			}
			if fmt.Sprint(patches) != fmt.Sprint(want) {
				t.Errorf("the manager wrote the bot by %v, want %v", patches, want)
			}

			w.Delete(bot)
			w.Gone(bot)
			if !w.Keys.IsRevoked(bot.UID) {
				t.Error("the keys were not revoked")
			}
		})
	}
}

// TestABotOfNobodysTenantGoes: a namespace has the label of a Tenant that does not exist. A bot that is made there
// has the finalizer, and nothing holds up its end.
func TestABotOfNobodysTenantGoes(t *testing.T) {
	w := operator.NewWorld(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "nobodys-birth", Labels: map[string]string{v1alpha1.LabelTenant: "no-such-tenant"}}}
	w.Create(namespace)
	bot := operator.MakeKeeper(namespace.Name, "b", "Delete")
	w.Create(bot)
	if !reconcile.HasFinalizer(bot) {
		t.Fatalf("it is made with the finalizers %v", bot.Finalizers)
	}
	w.Eventually("it says whose it is not", func() error {
		if err := w.Get(bot); err != nil {
			return err
		}
		if bot.Status.ObservedGeneration != bot.Generation {
			return errors.New("nobody has looked")
		}
		return nil
	})
	w.Delete(bot)
	w.Gone(bot)
}

// TestApplyingAgainLeavesTheFinalizer: whoever applies a bot says nothing of the finalizer, and owns nothing of it:
// applying again changes nothing, with a manager and without.
func TestApplyingAgainLeavesTheFinalizer(t *testing.T) {
	w, tenant := operator.WithTenant(t, "again")
	apply := func() *v1alpha1.BotDeployment {
		t.Helper()
		bot := operator.MakeBot(tenant.Name+"-a", "b")
		bot.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BotDeployment"}
		if err := w.Admin.Patch(t.Context(), bot, client.Apply, client.FieldOwner("gitops"), client.ForceOwnership); err != nil { //nolint:staticcheck // as tools do
			t.Fatal(err)
		}
		return bot
	}
	bot := apply()
	if !reconcile.HasFinalizer(bot) {
		t.Fatalf("it is made with the finalizers %v", bot.Finalizers)
	}
	w.Becomes(bot, "Ready=True")
	for range 3 {
		again := apply()
		if again.ResourceVersion != bot.ResourceVersion || !reconcile.HasFinalizer(again) {
			t.Fatalf("applying again made version %s of %s, with the finalizers %v", again.ResourceVersion, bot.ResourceVersion, again.Finalizers)
		}
	}
}
