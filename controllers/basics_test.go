package controllers_test

import (
	"testing"

	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

func TestFromManifestsToRunningBot(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("acme", "acme-bots")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("acme-bots", "helper")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	if bot.Status.Tenant != "acme" || bot.Status.CredentialsSecret == "" {
		t.Errorf("status %+v", bot.Status)
	}
	if n := w.Keys.CallsTo(resources.KindBotDeployment); n != 1 {
		t.Errorf("the keyserver was asked %d times about the bot", n)
	}
	t.Log(w.Wire.Written())
	w.Calm()
}
