package steady_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/operator"
)

const (
	manyBots = 40
	// idleBots are there while nothing may be written.
	idleBots = 200
)

// TestWritesPerBot counts what it costs to bring bots up: one create for each child and one status, as the API
// server's audit log tells it. Where Kubernetes does not put the finalizer on them, the manager does.
func TestWritesPerBot(t *testing.T) {
	t.Run("the finalizer by Kubernetes", func(t *testing.T) { writesPerBot(t, "budget", 0) })
	t.Run("the finalizer by the manager", func(t *testing.T) {
		operator.TestEnv.WithoutBotFinalizer(t)
		writesPerBot(t, "budget-old", manyBots)
	})
}

func writesPerBot(t *testing.T, name string, finalizers int) {
	w := operator.NewWorld(t)
	tenant, namespace := operator.WithBots(operator.MakeTenant(name, name+"-a")), name+"-a"
	w.Settle = 20_000_000_000 // as in production: longer than a bot takes to come up
	w.Restart()
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Create(operator.MakeBot(namespace, "first")) // so that the Tenant is in use already
	w.Becomes(tenant, "InUse=True")
	w.Becomes(operator.MakeBot(namespace, "first"), "Ready=True")

	before := time.Now()
	asked, begin := w.Keys.CallsTo(resources.KindBotDeployment), operator.Passes(t, "botdeployment")
	bots := w.CreateBots(namespace, manyBots)
	w.Eventually("all Ready", func() error {
		for _, bot := range bots {
			if err := w.IsNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return nil
	})

	writes, err := operator.TestEnv.Writes(before, operator.ManagerUser)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, write := range writes {
		kinds[write.Verb+" "+write.Resource]++
	}
	want := map[string]int{
		"patch botdeployments/status": manyBots, "create networkpolicies": manyBots, "create serviceaccounts": manyBots, "create statefulsets": manyBots,
	}
	if finalizers > 0 {
		want["patch botdeployments"] = finalizers
	}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("bringing %d bots up took %v, want %v", manyBots, kinds, want)
	}
	for _, bot := range bots {
		if !reconcile.HasFinalizer(bot) {
			t.Errorf("%s has no finalizer", bot.Name)
		}
	}
	if n := operator.Passes(t, "botdeployment") - begin; n > 4*manyBots {
		t.Errorf("%d passes over %d bots, want at most 4 for each", n, manyBots)
	} else {
		t.Logf("%d passes over %d bots", n, manyBots)
	}
	if n := w.Keys.CallsTo(resources.KindBotDeployment) - asked; n != manyBots {
		t.Errorf("the keyserver was asked %d times, want once for each of %d bots", n, manyBots)
	}
}

// TestIdle: nothing is written when nothing has changed, over resyncs and over a restart, as the API server's audit
// log tells it, and the keyserver is left alone.
func TestIdle(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.RichTenant("idle", "idle-a", "idle-b")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bots := append(w.CreateBots("idle-a", idleBots), operator.RichBot("idle-b", "rich"), operator.MakeBot("idle-b", "stopped"))
	bots[len(bots)-1].Spec.OperatingMode = v1alpha1.ModeSuspended
	w.Create(operator.RichConfig(bots[len(bots)-2]), bots[len(bots)-2], bots[len(bots)-1])
	w.Eventually("all Ready", func() error {
		for _, bot := range bots {
			if err := w.IsNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return w.IsNow(tenant, "InUse=True")
	})
	w.Calm()
	versions := w.Versions()
	asked := w.Keys.CallsTo(resources.KindBotDeployment)

	w.Stop()
	w.Resync, w.Every = operator.ResyncEvery, operator.ResyncEvery // and an orphan sweep with each
	// Time stands still: what the keyserver is asked by the hour, each bot at its own minute, falls due for none.
	w.Clock = clocktesting.NewFakePassiveClock(time.Now())
	restarted := time.Now()
	w.Start(&operator.Wire{})
	begin, beginTenants := operator.Passes(t, "botdeployment"), operator.Passes(t, "tenant")
	w.Eventually("a restart and ten resyncs", func() error {
		if done, want := operator.Passes(t, "botdeployment")-begin, 11*len(bots); done < want {
			return fmt.Errorf("%d of %d passes over bots", done, want)
		}
		if done := operator.Passes(t, "tenant") - beginTenants; done < 11 {
			return fmt.Errorf("%d of 11 passes over the Tenant", done)
		}
		return nil
	})
	if written := w.Wire.Written(); len(written) > 0 {
		t.Errorf("a restart and ten resyncs wrote:\n%s", strings.Join(written, "\n"))
	}
	// The manager watches no ConfigMaps of other people's: the one that a file of the rich bot lies in is read at the
	// start, and every five minutes.
	if n := w.Wire.Reads.Load(); n != 1 {
		t.Errorf("a restart and ten resyncs read %d objects past the cache, want the one ConfigMap of a bot's files", n)
	}
	audited, err := operator.TestEnv.Writes(restarted, "system:serviceaccount:"+env.SystemNamespace+":")
	if err != nil || len(audited) > 0 {
		t.Errorf("the audit log tells of %v, %v", audited, err)
	}
	if after := w.Versions(); fmt.Sprint(after) != fmt.Sprint(versions) {
		t.Errorf("versions moved from %v to %v", versions, after)
	}
	if n := w.Keys.CallsTo(resources.KindBotDeployment) - asked; n > 0 {
		t.Errorf("the keyserver was asked %d times about bots that had not changed", n)
	}
}
