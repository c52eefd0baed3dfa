package keyserver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// elsewhere is the same installation, seen from another tenant.
func (w *world) elsewhere() *world {
	w.Helper()
	other := *w
	other.tenant, other.ns = w.newTenant(v1alpha1.TenantCustomer)
	other.tenantKeys()
	return &other
}

// token of a bot of Telegram, with another secret part each time.
func (w *world) telegramToken(id int64) string {
	w.Helper()
	_, part, _ := strings.Cut(w.secret(), ":")
	return w.canaries.add(fmt.Sprintf("%d:%s", id, part))
}

// polling makes a bot with a token of its own choice.
func (w *world) polling(name, token string) *v1alpha1.BotDeployment {
	w.Helper()
	bot, _ := w.newBot(name, telegram, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, name, "telegram", 1), token)
	})
	return bot
}

// reseal puts another token into a bot.
func (w *world) reseal(bot *v1alpha1.BotDeployment, version uint32, token string) {
	w.Helper()
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, bot.Name, "telegram", version), token)
	})
}

// takes asks for the bot's credentials and wants that reason for its token.
func (w *world) takes(bot *v1alpha1.BotDeployment, reason string) keyapi.CredentialsResponse {
	w.Helper()
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(bot), bot))
	resp := w.storeAndRecord(bot)
	if len(resp.Items) != 1 || resp.Items[0].Reason != reason {
		w.Fatalf("bot %s: %+v, want %s", bot.Name, resp.Items, reason)
	}
	return resp
}

// newID is of a bot of Telegram that no other test has.
func newID() int64 { return time.Now().UnixNano() }

func TestAChannelHasOneHolder(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	id := newID()
	first := w.polling("first", w.telegramToken(id))
	w.takes(first, v1alpha1.ReasonStored)

	other := w.elsewhere()
	second := other.polling("second", other.telegramToken(id))
	resp := other.takes(second, v1alpha1.ReasonChannelTaken)
	for _, word := range []string{w.tenant.Name, w.ns, first.Name} {
		if strings.Contains(resp.Items[0].Message, word) {
			t.Errorf("the message tells another tenant of %q: %s", word, resp.Items[0].Message)
		}
	}
	if resp.Secret != "" || !strings.Contains(resp.Items[0].Message, "@BotFather") {
		t.Errorf("answered %+v", resp)
	}
	// Its own tenant learns which one it is, and the log, which is the platform's, in any case.
	third := w.polling("third", w.telegramToken(id))
	if m := w.takes(third, v1alpha1.ReasonChannelTaken).Items[0].Message; !strings.Contains(m, w.ns+"/first") {
		t.Errorf("says %q", m)
	}
	if !strings.Contains(w.log.String(), w.ns+"/first") {
		t.Error("the log does not name the holder")
	}

	// Another secret part is the same bot; a repeat writes nothing.
	w.reseal(first, 2, w.telegramToken(id))
	w.takes(first, v1alpha1.ReasonStored)
	other.takes(second, v1alpha1.ReasonChannelTaken)
	w.writes.reset(0, false)
	w.takes(first, v1alpha1.ReasonStored)
	w.restart()
	w.takes(first, v1alpha1.ReasonStored)
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("a repeat wrote %v", seen)
	}
}

// TestAChannelIsFreed goes through all ways in which a holder stops needing its channel. Before it, and while a pod is
// left, nobody else gets it.
func TestAChannelIsFreed(t *testing.T) {
	for name, end := range map[string]func(w *world, bot *v1alpha1.BotDeployment){
		"the bot is suspended": func(w *world, bot *v1alpha1.BotDeployment) {
			w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		},
		"its Tenant is suspended": func(w *world, _ *v1alpha1.BotDeployment) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
			w.tenant.Spec.State = v1alpha1.TenantSuspended
			w.must(testEnv.Client.Update(w.Context(), w.tenant))
		},
		"the bot is gone": func(w *world, bot *v1alpha1.BotDeployment) { w.must(testEnv.Client.Delete(w.Context(), bot)) },
		"the bot is on its way out": func(w *world, bot *v1alpha1.BotDeployment) {
			w.update(bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = []string{"example.com/held"} })
			w.must(testEnv.Client.Delete(w.Context(), bot))
			w.Cleanup(func() {
				bot.Finalizers = nil
				_ = testEnv.Client.Update(context.WithoutCancel(w.Context()), bot) // nobody waits for it
			})
		},
		"the bot has no such channel any more": func(w *world, bot *v1alpha1.BotDeployment) {
			w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Channels = nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.tenantKeys()
			id := newID()
			bot := w.polling("first", w.telegramToken(id))
			w.storeAndRecord(bot)
			pod := w.startPod(bot, bot.Status.CredentialsSecret)
			other := w.elsewhere()
			second := other.polling("second", other.telegramToken(id))
			other.takes(second, v1alpha1.ReasonChannelTaken)
			end(w, bot)
			other.takes(second, v1alpha1.ReasonChannelTaken)
			w.must(w.cluster.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
			other.takes(second, v1alpha1.ReasonStored)
		})
	}
	t.Run("the bot got another token", func(t *testing.T) {
		w := newWorld(t)
		w.tenantKeys()
		id := newID()
		bot := w.polling("first", w.telegramToken(id))
		w.takes(bot, v1alpha1.ReasonStored)
		other := w.elsewhere()
		second := other.polling("second", other.telegramToken(id))
		other.takes(second, v1alpha1.ReasonChannelTaken)
		w.reseal(bot, 2, w.telegramToken(newID()))
		other.takes(second, v1alpha1.ReasonChannelTaken) // not stored yet
		w.takes(bot, v1alpha1.ReasonStored)
		other.takes(second, v1alpha1.ReasonStored)
	})
}

// TestAChannelIsTakenAgain: a bot that comes back finds its channel where nobody took it meanwhile, and is refused,
// pod and all, where somebody did.
func TestAChannelIsTakenAgain(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	id := newID()
	bot := w.polling("first", w.telegramToken(id))
	w.storeAndRecord(bot)
	suspend := func(mode v1alpha1.OperatingMode) {
		w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = mode })
	}
	suspend(v1alpha1.ModeSuspended)
	w.takes(bot, v1alpha1.ReasonStored)
	suspend(v1alpha1.ModeRunning)
	w.takes(bot, v1alpha1.ReasonStored)
	suspend(v1alpha1.ModeSuspended)
	other := w.elsewhere()
	second := other.polling("second", other.telegramToken(id))
	other.takes(second, v1alpha1.ReasonStored)
	suspend(v1alpha1.ModeRunning)
	pod := w.startPod(bot, bot.Status.CredentialsSecret)
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonChannelTaken)
	if strings.Contains(refusal.Message, other.tenant.Name) {
		t.Errorf("the refusal names another tenant: %s", refusal.Message)
	}
	if resp := w.takes(bot, v1alpha1.ReasonChannelTaken); resp.Secret != "" {
		t.Error("a bot whose channel is taken gets credentials")
	}
	w.must(testEnv.Client.Delete(t.Context(), second))
	_, refusal = w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	w.takes(bot, v1alpha1.ReasonStored)
}

// TestATokenOfATakenChannel: the bot goes on with the token that it had, of the channel that it holds.
func TestATokenOfATakenChannel(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	mine, theirs := newID(), newID()
	bot := w.polling("first", w.telegramToken(mine))
	before := w.takes(bot, v1alpha1.ReasonStored)
	other := w.elsewhere()
	second := other.polling("second", other.telegramToken(theirs))
	other.takes(second, v1alpha1.ReasonStored)
	w.reseal(bot, 2, w.telegramToken(theirs))
	resp := w.takes(bot, v1alpha1.ReasonChannelTaken)
	if resp.Secret != before.Secret || !strings.Contains(resp.Items[0].Message, "goes on being used") {
		t.Errorf("answered %+v, before %+v", resp, before)
	}
	third := other.polling("third", other.telegramToken(mine))
	other.takes(third, v1alpha1.ReasonChannelTaken)
}

func TestAValueWithoutIdentity(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	token := w.canaries.add("no-token-of-telegram-at-all")
	for _, name := range []string{"first", "second"} {
		resp := w.takes(w.polling(name, token), v1alpha1.ReasonStored)
		if resp.Secret == "" || !strings.Contains(resp.Items[0].Message, "shape of a Telegram token") {
			t.Errorf("answered %+v", resp)
		}
	}
}

func TestTwoClaimAtOnce(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	id := newID()
	var bots []*v1alpha1.BotDeployment
	for i := range 4 {
		bots = append(bots, w.polling(fmt.Sprintf("bot-%d", i), w.telegramToken(id)))
	}
	holders := func() (stored int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, bot := range bots {
			wg.Go(func() {
				var resp keyapi.CredentialsResponse
				req := keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}
				for e := w.call(keyapi.PathCredentials, w.manager, req, &resp); e != nil; e = w.call(keyapi.PathCredentials, w.manager, req, &resp) {
					if e.RetryAfter == 0 {
						t.Errorf("refused: %s", e.Message)
						return
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if resp.Items[0].Reason == v1alpha1.ReasonStored {
					stored++
				}
			})
		}
		wg.Wait()
		return stored
	}
	if n := holders(); n != 1 {
		t.Errorf("%d bots hold the channel", n)
	}
	if n := holders(); n != 1 {
		t.Errorf("%d bots hold the channel the second time", n)
	}
}

func TestAClaimSurvivesACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		w := newWorld(t)
		w.tenantKeys()
		id := newID()
		bot := w.polling("first", w.telegramToken(id))
		other := w.elsewhere()
		second := other.polling("second", other.telegramToken(id))
		crashes := 0
		for at := 1; at <= 4; at++ {
			w.writes.reset(at, after)
			if w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil) != nil {
				crashes++
			}
			w.writes.reset(0, false)
			w.restart()
		}
		if crashes == 0 {
			t.Error("there was no write to die at")
		}
		other.http = w.http
		w.takes(bot, v1alpha1.ReasonStored)
		other.takes(second, v1alpha1.ReasonChannelTaken)
	}
}

// TestAHolderThatIsNotBelieved: whoever writes the keys' namespace can free a channel, and that is all.
func TestAHolderThatIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot := w.polling("first", w.telegramToken(newID()))
	w.takes(bot, v1alpha1.ReasonStored)
	var list corev1.SecretList
	w.must(testEnv.Client.List(t.Context(), &list, client.InNamespace("lethe-keys"), client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel, v1alpha1.LabelTenant: w.tenant.Name}))
	if len(list.Items) != 1 {
		t.Fatalf("%d documents of holders", len(list.Items))
	}
	secret := &list.Items[0]
	if text := string(secret.Data[keystore.DocumentKey]); strings.Contains(text, "telegram") || len(w.canaries.found(text)) > 0 {
		t.Error("the document tells of the token")
	}
	for _, change := range []struct{ old, now string }{{`"name":"first"`, `"name":"other"`}, {string(bot.UID), "5d1f6d2e-0000-4000-8000-000000000001"}, {"{", "["}} {
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret))
		text := string(secret.Data[keystore.DocumentKey])
		if !strings.Contains(text, change.old) {
			t.Fatalf("%q does not stand in the document", change.old)
		}
		secret.Data[keystore.DocumentKey] = []byte(strings.Replace(text, change.old, change.now, 1))
		w.must(testEnv.Client.Update(t.Context(), secret))
		w.takes(bot, v1alpha1.ReasonStored)
	}
	third := w.polling("third", w.telegramToken(newID()))
	w.takes(third, v1alpha1.ReasonStored)
}

func TestHoldersThatAreGoneAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	stays := w.polling("stays", w.telegramToken(newID()))
	w.takes(stays, v1alpha1.ReasonStored)
	goes := w.polling("goes", w.telegramToken(newID()))
	w.storeAndRecord(goes)
	pod := w.startPod(goes, goes.Status.CredentialsSecret)
	w.must(testEnv.Client.Delete(t.Context(), goes))
	holders := func() int {
		w.clock.SetTime(w.clock.Now().Add(channelsEvery))
		w.must(w.server.maintainChannels(t.Context()))
		var list corev1.SecretList
		w.must(testEnv.Client.List(t.Context(), &list, client.InNamespace("lethe-keys"), client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel, v1alpha1.LabelTenant: w.tenant.Name}))
		return len(list.Items)
	}
	if n := holders(); n != 2 {
		t.Errorf("%d holders while the pod is there", n)
	}
	w.must(w.cluster.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	if n := holders(); n != 1 {
		t.Errorf("%d holders", n)
	}
	w.takes(stays, v1alpha1.ReasonStored)
}

// TestAChannelGoesWithItsBotsKeys: revoking gives it up at once, and nobody else's.
func TestAChannelGoesWithItsBotsKeys(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	id := newID()
	stays := w.polling("stays", w.telegramToken(newID()))
	w.takes(stays, v1alpha1.ReasonStored)
	goes := w.polling("goes", w.telegramToken(id))
	w.takes(goes, v1alpha1.ReasonStored)
	w.must(testEnv.Client.Delete(t.Context(), goes))
	w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, goes)}, nil))
	var list corev1.SecretList
	w.must(testEnv.Client.List(t.Context(), &list, client.InNamespace("lethe-keys"), client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel, v1alpha1.LabelTenant: w.tenant.Name}))
	if len(list.Items) != 1 {
		t.Errorf("%d holders are left", len(list.Items))
	}
	w.takes(stays, v1alpha1.ReasonStored)
}
