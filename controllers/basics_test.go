package controllers

import (
	"testing"

	"github.com/lethe-dev/lethe/internal/resources"
)

func TestFromManifestsToRunningBot(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("acme", "acme-bots")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("acme-bots", "helper")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.becomes(tenant, "InUse=True")
	if bot.Status.Tenant != "acme" || bot.Status.CredentialsSecret == "" {
		t.Errorf("status %+v", bot.Status)
	}
	if n := w.keys.callsTo(resources.KindBotDeployment); n != 1 {
		t.Errorf("the keyserver was asked %d times about the bot", n)
	}
	t.Log(w.wire.written())
	w.calm()
}
