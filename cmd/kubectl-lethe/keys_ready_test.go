package main

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/test/env"
)

var oneGi = resource.MustParse("1Gi")

// seconds is what "at once" may take on a busy machine; nothing that is asked by the hour or by the minute comes true
// in it.
const seconds = 20 * time.Second

// pass has the manager go over a bot, and ask the keyserver about it.
func (i *installation) pass(bot *v1alpha1.BotDeployment, n int) {
	i.t.Helper()
	i.must(testEnv.Client.Get(i.t.Context(), client.ObjectKeyFromObject(bot), bot))
	i.clock.SetTime(i.clock.Now().Add(15 * time.Second)) // the keyserver believes for ten what it read of a Tenant
	before := bot.DeepCopy()
	bot.Spec.Env = []v1alpha1.EnvVar{{Name: "PASS", Value: fmt.Sprint(n)}}
	i.must(testEnv.Client.Patch(i.t.Context(), bot, client.MergeFrom(before)))
}

// rotated waits until a Tenant's keys were written once more.
func (i *installation) rotated(tenant *v1alpha1.Tenant, generation int64) {
	i.t.Helper()
	for deadline := time.After(seconds); tenant.Status.KeysGeneration <= generation; {
		select {
		case <-deadline:
			i.t.Fatalf("the keys of %s were not rotated", tenant.Name)
		case <-time.After(50 * time.Millisecond):
			i.must(testEnv.Client.Get(i.t.Context(), client.ObjectKeyFromObject(tenant), tenant))
		}
	}
}

// TestKeysReadyIsFalseWhileKeysDiffer: a Tenant's keys are lost, or an earlier copy is put in their place. Its
// condition says so as soon as any of its bots is gone over, and, when nothing moves at all, with the keyserver's
// next look; nobody can seal meanwhile. When the keys are back, so is the condition.
func TestKeysReadyIsFalseWhileKeysDiffer(t *testing.T) {
	i := newInstallation(t)
	i.run([]string{"helm", "install", "lethe", "charts/lethe", "--namespace", env.SystemNamespace, "-f", "values.yaml"})
	acme := i.newCustomer("acme")
	seal := []string{"seal", "--bot", "acme-bots/support", "--credential", "telegram-token", "--version", "3"}
	i.c.ok(canary, seal...)
	i.run([]string{"kubectl", "lethe", "keys", "backup", "lethe-keys.json"})
	secret := &corev1.Secret{}
	read := func() {
		t.Helper()
		i.must(testEnv.Client.Get(t.Context(), clientKey(env.KeysNamespace, "tenant-acme"), secret))
	}
	lose := func() {
		t.Helper()
		read()
		i.must(testEnv.Client.Delete(t.Context(), secret))
	}
	restore := func() {
		t.Helper()
		i.run([]string{"kubectl", "lethe", "keys", "restore", "lethe-keys.json", "--kek-file", "kek"})
	}

	t.Run("a bot's pass", func(t *testing.T) {
		lose()
		i.pass(acme.bot, 1)
		i.becomesWithin(seconds, acme.tenant, "KeysReady=False/"+v1alpha1.ReasonKeyMissing)
		i.c.fails(canary, seal, "KeysReady is False (KeyMissing)")
		restore()
		i.pass(acme.bot, 2)
		i.becomesWithin(seconds, acme.tenant, "KeysReady=True")
		i.c.ok(canary, seal...)
	})
	t.Run("an earlier copy", func(t *testing.T) {
		read()
		earlier := secret.DeepCopy()
		i.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(acme.tenant), acme.tenant))
		generation := acme.tenant.Status.KeysGeneration
		i.c.ok("", "keys", "rotate", string(keystore.LayerSealing), "--tenant", "acme")
		i.rotated(acme.tenant, generation)
		read()
		present := secret.DeepCopy()
		secret.Data = earlier.Data
		i.must(testEnv.Client.Update(t.Context(), secret))
		i.pass(acme.bot, 3)
		i.becomesWithin(seconds, acme.tenant, "KeysReady=False/"+v1alpha1.ReasonKeysRolledBack)
		i.c.fails(canary, seal, "KeysReady is False (KeysRolledBack)")
		secret.Data = present.Data
		i.must(testEnv.Client.Update(t.Context(), secret))
		i.pass(acme.bot, 4)
		i.becomesWithin(seconds, acme.tenant, "KeysReady=True")
	})
	t.Run("nothing moves but the keyserver's clock", func(t *testing.T) {
		i.run([]string{"kubectl", "lethe", "keys", "backup", "later.json"})
		lose()
		i.clock.SetTime(i.clock.Now().Add(6 * time.Minute))
		i.becomesWithin(seconds, acme.tenant, "KeysReady=False/"+v1alpha1.ReasonKeyMissing)
		i.c.fails(canary, seal, "KeysReady is False (KeyMissing)")
		i.run([]string{"kubectl", "lethe", "keys", "restore", "later.json", "--kek-file", "kek"})
		i.clock.SetTime(i.clock.Now().Add(6 * time.Minute))
		i.becomesWithin(seconds, acme.tenant, "KeysReady=True")
		i.c.ok(canary, seal...)
	})
	t.Run("the keyserver's restart", func(t *testing.T) {
		lose()
		i.startKeyserver()
		i.becomesWithin(seconds, acme.tenant, "KeysReady=False/"+v1alpha1.ReasonKeyMissing)
	})
}
