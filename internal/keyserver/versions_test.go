package keyserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// deleteBot is what happens at a bot's deletion: the object goes, and its keys with it.
func (w *world) deleteBot(bot *v1alpha1.BotDeployment) {
	w.Helper()
	w.must(testEnv.Client.Delete(w.Context(), bot))
	w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil))
}

func (w *world) setSealed(bot *v1alpha1.BotDeployment, value v1alpha1.SealedValue) keyapi.CredentialResult {
	w.Helper()
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = value })
	return w.storeAndRecord(bot).Items[0]
}

// TestAVersionIsOneValue: two values sealed with one version, and going back and forth between them by commits.
func TestAVersionIsOneValue(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	at := func(version uint32) v1alpha1.SealedValue {
		return w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", version), w.secret())
	}
	first := bot.Spec.Credentials[0].Sealed
	set := w.storeAndRecord(bot).Secret
	if got := w.setSealed(bot, at(1)); got.Reason != v1alpha1.ReasonVersionReused || !strings.Contains(got.Message, "kubectl lethe seal --bot "+w.ns+"/support --credential telegram --version 2") {
		t.Errorf("another value of the same version: %+v", got)
	}
	if resp := w.store(bot); resp.Secret != set {
		t.Error("the value in use does not go on being used")
	}
	if got := w.setSealed(bot, first); got.Reason != v1alpha1.ReasonStored {
		t.Errorf("the same value again: %+v", got)
	}
	second := at(2)
	if got := w.setSealed(bot, second); got.Reason != v1alpha1.ReasonStored || got.Version != 2 {
		t.Errorf("a newer one: %+v", got)
	}
	if got := w.setSealed(bot, first); got.Reason != v1alpha1.ReasonRolledBack || got.Version != 2 {
		t.Errorf("the first again: %+v", got)
	}
	if got := w.setSealed(bot, at(2)); got.Reason != v1alpha1.ReasonVersionReused {
		t.Errorf("another of version 2: %+v", got)
	}
	if got := w.setSealed(bot, second); got.Reason != v1alpha1.ReasonStored {
		t.Errorf("the second again: %+v", got)
	}
}

// TestABotMadeAgainDoesNotBeginAnew: what a commit can do, deleting a bot and making it again with an older value.
func TestABotMadeAgainDoesNotBeginAnew(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	first := bot.Spec.Credentials[0].Sealed
	w.storeAndRecord(bot)
	present := w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 4), w.secret())
	w.setSealed(bot, present)
	again := func(value v1alpha1.SealedValue) keyapi.CredentialsResponse {
		w.deleteBot(bot)
		bot = &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "support"}, Spec: bot.Spec}
		bot.Spec.Credentials[0].Sealed = value
		w.must(testEnv.Client.Create(w.Context(), bot))
		return w.storeAndRecord(bot)
	}
	resp := again(first)
	if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonRolledBack || !strings.Contains(resp.Items[0].Message, "--version 5") {
		t.Errorf("with the older value: %+v", resp)
	}
	// It never stored anything; what is remembered stays.
	resp = again(w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 4), w.secret()))
	if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonVersionReused {
		t.Errorf("with another value of the version: %+v", resp)
	}
	if resp = again(present); resp.Secret == "" || resp.Items[0].Reason != v1alpha1.ReasonStored {
		t.Errorf("with the value that it had: %+v", resp)
	}
	// Another bot is another place.
	other, _ := w.newBot("other")
	if w.storeAndRecord(other).Secret == "" {
		t.Error("another bot is held to it")
	}
}

// TestNamesOfCredentialsDoNotRunOut: 300 names over a bot's life leave it usable, bounded, and none of them forgotten.
func TestNamesOfCredentialsDoNotRunOut(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	const perTurn, turns = 15, 20
	for turn := range turns {
		w.update(bot, func(b *v1alpha1.BotDeployment) {
			b.Spec.Credentials = b.Spec.Credentials[:1]
			for i := range perTurn {
				name := fmt.Sprintf("c%d-%d", turn, i)
				b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: name, Sealed: w.seal(w.place(sealing.KindBotDeployment, "support", name, 7), w.secret())})
			}
		})
		w.clock.SetTime(w.clock.Now().Add(time.Minute))
		if w.storeAndRecord(bot).Secret == "" {
			t.Fatalf("nothing is stored in turn %d: %+v", turn, w.store(bot).Items)
		}
	}
	var doc keystore.ObjectDoc
	if _, err := keystore.ReadDocument(w.getSecret("lethe-keys", keystore.ObjectSecretName(string(bot.UID))), keystore.FormatObject, &doc); err != nil || len(doc.Credentials) > keystore.MaxUnusedCredentials+perTurn+1 {
		t.Errorf("the document has %d names, %v", len(doc.Credentials), err)
	}
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = []v1alpha1.Credential{b.Spec.Credentials[0], {Name: "c0-0", Sealed: w.seal(w.place(sealing.KindBotDeployment, "support", "c0-0", 6), w.secret())}}
	})
	if got := w.store(bot); got.Items[1].Reason != v1alpha1.ReasonRolledBack {
		t.Errorf("the first name of all was forgotten: %+v", got.Items[1])
	}
}

// TestVersionsAreRememberedThroughACrash: wherever the keyserver dies while a bot's keys are destroyed.
func TestVersionsAreRememberedThroughACrash(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			name := fmt.Sprintf("bot-%t-%d", after, at)
			bot, _ := w.newBot(name)
			first := bot.Spec.Credentials[0].Sealed
			w.storeAndRecord(bot)
			w.setSealed(bot, w.seal(w.place(sealing.KindBotDeployment, name, "telegram", 3), w.secret()))
			w.must(testEnv.Client.Delete(t.Context(), bot))
			req := keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, bot)}
			w.writes.reset(at, after)
			crashed := w.call(keyapi.PathRevoke, w.manager, req, nil) != nil
			w.writes.reset(0, false)
			w.restart()
			w.granted(w.call(keyapi.PathRevoke, w.manager, req, nil))
			if !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) {
				t.Error("the key is still there")
			}
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name}, Spec: bot.Spec}
			again.Spec.Credentials[0].Sealed = first
			w.must(testEnv.Client.Create(t.Context(), again))
			if got := w.store(again).Items[0]; got.Reason != v1alpha1.ReasonRolledBack {
				t.Errorf("%s: %+v", name, got)
			}
			if !crashed {
				if at < 3 {
					t.Errorf("only %d writes", at-1)
				}
				break
			}
		}
	}
}

// TestManyCredentialsPushOutNoOtherBots: sixteen bots with all the credentials that they can have, thrown away, leave
// what is remembered of others.
func TestManyCredentialsPushOutNoOtherBots(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	older := bot.Spec.Credentials[0].Sealed
	w.storeAndRecord(bot)
	w.setSealed(bot, w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 2), w.secret()))
	w.deleteBot(bot)
	var thrown []keystore.VersionEntry
	for b := range 16 {
		for c := range 64 {
			thrown = append(thrown, keystore.VersionEntry{Kind: sealing.KindBotDeployment, Namespace: w.ns, Name: fmt.Sprintf("x%d", b), UID: "u", Credential: fmt.Sprintf("c%d", c), Highest: 1})
		}
	}
	w.must(w.server.keys.RememberVersions(t.Context(), w.tenant.Name, string(w.tenant.UID), thrown))
	again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "support"}, Spec: bot.Spec}
	again.Spec.Credentials[0].Sealed = older
	w.must(testEnv.Client.Create(t.Context(), again))
	if got := w.store(again).Items[0]; got.Reason != v1alpha1.ReasonRolledBack {
		t.Errorf("an older value of a bot that is made again: %+v", got)
	}
}

// TestAnEarlierListOfVersions: what the threat model says of whoever writes lethe-keys: an earlier copy of the list
// is believed, and what went since begins anew. What the objects' own documents say is not touched by it.
func TestAnEarlierListOfVersions(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	gone := func(name string) *v1alpha1.BotDeployment {
		bot, _ := w.newBot(name)
		w.storeAndRecord(bot)
		w.setSealed(bot, w.seal(w.place(sealing.KindBotDeployment, name, "telegram", 2), w.secret()))
		return bot
	}
	again := func(name string) string {
		bot, _ := w.newBot(name) // its value is of version 1
		return w.store(bot).Items[0].Reason
	}
	first, second := gone("first"), gone("second")
	w.deleteBot(first)
	early := w.getSecret("lethe-keys", keystore.VersionsSecretName(string(w.tenant.UID)))
	w.deleteBot(second)
	now := w.getSecret("lethe-keys", early.Name)
	now.Data = early.Data
	w.must(testEnv.Client.Update(t.Context(), now))
	w.restart()
	if got := again("first"); got != v1alpha1.ReasonRolledBack {
		t.Errorf("one that the earlier list has: %s", got)
	}
	if got := again("second"); got != v1alpha1.ReasonStored {
		t.Errorf("one that went since: %s", got)
	}
}
