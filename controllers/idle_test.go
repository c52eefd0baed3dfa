package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
)

const (
	manyBots = 40
	// idleBots are there while nothing may be written.
	idleBots = 200
)

// TestWritesPerBot counts what it costs to bring bots up: one create for each child and one status, as the API server's audit log tells it. Where
// Kubernetes does not put the finalizer on them, the manager does.
func TestWritesPerBot(t *testing.T) {
	t.Run("the finalizer by Kubernetes", func(t *testing.T) { writesPerBot(t, "budget", 0) })
	t.Run("the finalizer by the manager", func(t *testing.T) {
		testEnv.WithoutBotFinalizer(t)
		writesPerBot(t, "budget-old", manyBots)
	})
}

func writesPerBot(t *testing.T, name string, finalizers int) {
	w := newWorld(t)
	tenant, namespace := withBots(makeTenant(name, name+"-a")), name+"-a"
	w.settle = 20_000_000_000 // as in production: longer than a bot takes to come up
	w.restart()
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	w.create(makeBot(namespace, "first")) // so that the Tenant is in use already
	w.becomes(tenant, "InUse=True")
	w.becomes(makeBot(namespace, "first"), "Ready=True")

	before := time.Now()
	asked, begin := w.keys.callsTo(resources.KindBotDeployment), passes(t, "botdeployment")
	bots := w.createBots(namespace, manyBots)
	w.eventually("all Ready", func() error {
		for _, bot := range bots {
			if err := w.isNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return nil
	})

	writes, err := testEnv.Writes(before, managerUser)
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
		if !hasFinalizer(bot) {
			t.Errorf("%s has no finalizer", bot.Name)
		}
	}
	if n := passes(t, "botdeployment") - begin; n > 4*manyBots {
		t.Errorf("%d passes over %d bots, want at most 4 for each", n, manyBots)
	} else {
		t.Logf("%d passes over %d bots", n, manyBots)
	}
	if n := w.keys.callsTo(resources.KindBotDeployment) - asked; n != manyBots {
		t.Errorf("the keyserver was asked %d times, want once for each of %d bots", n, manyBots)
	}
}

// TestIdle: nothing is written when nothing has changed, over resyncs and over a restart, as the API server's audit log tells
// it, and the keyserver is left alone.
func TestIdle(t *testing.T) {
	w := newWorld(t)
	tenant := richTenant("idle", "idle-a", "idle-b")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bots := append(w.createBots("idle-a", idleBots), richBot("idle-b", "rich"), makeBot("idle-b", "stopped"))
	bots[len(bots)-1].Spec.OperatingMode = v1alpha1.ModeSuspended
	w.create(richConfig(bots[len(bots)-2]), bots[len(bots)-2], bots[len(bots)-1])
	w.eventually("all Ready", func() error {
		for _, bot := range bots {
			if err := w.isNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return w.isNow(tenant, "InUse=True")
	})
	w.calm()
	versions := w.versions()
	asked := w.keys.callsTo(resources.KindBotDeployment)

	w.stop()
	w.resync, w.every = resyncEvery, resyncEvery // and an orphan sweep with each
	// Time stands still: what the keyserver is asked by the hour, each bot at its own minute, falls due for none.
	w.clock = clocktesting.NewFakePassiveClock(time.Now())
	restarted := time.Now()
	w.start(&wire{})
	begin, beginTenants := passes(t, "botdeployment"), passes(t, "tenant")
	w.eventually("a restart and ten resyncs", func() error {
		if done, want := passes(t, "botdeployment")-begin, 11*len(bots); done < want {
			return fmt.Errorf("%d of %d passes over bots", done, want)
		}
		if done := passes(t, "tenant") - beginTenants; done < 11 {
			return fmt.Errorf("%d of 11 passes over the Tenant", done)
		}
		return nil
	})
	if written := w.wire.written(); len(written) > 0 {
		t.Errorf("a restart and ten resyncs wrote:\n%s", strings.Join(written, "\n"))
	}
	// The manager watches no ConfigMaps of other people's: the one that a file of the rich bot lies in is read at the start, and every five minutes.
	if n := w.wire.reads.Load(); n != 1 {
		t.Errorf("a restart and ten resyncs read %d objects past the cache, want the one ConfigMap of a bot's files", n)
	}
	audited, err := testEnv.Writes(restarted, "system:serviceaccount:"+env.SystemNamespace+":")
	if err != nil || len(audited) > 0 {
		t.Errorf("the audit log tells of %v, %v", audited, err)
	}
	if after := w.versions(); fmt.Sprint(after) != fmt.Sprint(versions) {
		t.Errorf("versions moved from %v to %v", versions, after)
	}
	if n := w.keys.callsTo(resources.KindBotDeployment) - asked; n > 0 {
		t.Errorf("the keyserver was asked %d times about bots that had not changed", n)
	}
}

func (w *world) createBots(namespace string, n int) []*v1alpha1.BotDeployment {
	w.t.Helper()
	var bots []*v1alpha1.BotDeployment
	for i := range n {
		bots = append(bots, makeBot(namespace, fmt.Sprintf("bot-%03d", i)))
		w.create(bots[i])
	}
	return bots
}

// versions of everything that the manager could have written.
func (w *world) versions() map[string]string {
	w.t.Helper()
	versions := map[string]string{}
	for _, list := range append(kcm.ChildLists(), kcm.OwnLists()...) {
		err := w.kcm.Each(list, func(o client.Object) error {
			versions[fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())] = o.GetResourceVersion()
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return versions
}

// kindOfWrite shortens "PATCH /apis/lethe.dev/v1alpha1/namespaces/a/botdeployments/b/status" to "PATCH botdeployments/status".
func kindOfWrite(write string) string {
	verb, path, _ := strings.Cut(write, " ")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, part := range parts {
		if part == "namespaces" && i+2 < len(parts) {
			parts = parts[i+2:]
			break
		}
	}
	kind := parts[0]
	if parts[len(parts)-1] == "status" {
		kind += "/status"
	}
	return verb + " " + kind
}
