package main

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestRestart: the bot's spec says when it was asked for, under a name that Flux leaves alone, and nothing else is
// changed.
func TestRestart(t *testing.T) {
	const ns = "restart-a"
	makeTenant(t, ns, nil)
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "answers"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1"}}
	rests := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "rests"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1", OperatingMode: v1alpha1.ModeSuspended}}
	create(t, bot, rests)
	c := newCaller(t)
	if o := c.ok("", "restart", ns+"/answers"); !strings.Contains(o.errOut, "gets a new pod; `kubectl lethe status bot "+ns+"/answers` says when it is ready") {
		t.Errorf("told: %s", o.errOut)
	}
	before := bot.Spec
	if err := testEnv.Client.Get(t.Context(), clientKey(ns, "answers"), bot); err != nil {
		t.Fatal(err)
	}
	if !bot.Spec.RestartedAt.Time.Equal(day0) || bot.Spec.Image != before.Image {
		t.Errorf("spec: %+v", bot.Spec)
	}
	named := false
	for _, m := range bot.ManagedFields {
		named = named || m.Manager == string(restartOwner)
	}
	if !named {
		t.Errorf("nobody is named %s: %+v", restartOwner, bot.ManagedFields)
	}
	if o := c.ok("", "restart", "-n", ns, "answers", "-o", "name"); o.out != "botdeployment.lethe.dev/answers\n" {
		t.Errorf("by name: %q", o.out)
	}
	c.fails("", []string{"restart"}, "name the bots to restart")
	c.fails("", []string{"restart", canary}, "the bot: say namespace/name")
	c.fails("", []string{"restart", ns + "/nobody"}, "there is no BotDeployment "+ns+"/nobody")
	c.fails("", []string{"restart", ns + "/rests"}, "is suspended, so there is nothing to restart")
	c.as = "nobody"
	c.fails("", []string{"restart", ns + "/answers"}, "forbidden")
}
