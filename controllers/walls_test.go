package controllers

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestEgressCeiling: whoever may write bots opens no more than the Tenant's ceiling lets through, and is told which element
// asks for more; when the ceiling moves the policy follows.
func TestEgressCeiling(t *testing.T) {
	w, tenant := withTenant(t, "ceiling")
	bot := makeBot("ceiling-a", "b")
	bot.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "9.0.0.0/8", Ports: []v1alpha1.EgressPort{{Port: 443}}}, {CIDR: "8.0.0.0/8", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
	w.create(bot)
	w.becomes(bot, "Ready=True")
	edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.EgressCeiling = &v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{{CIDR: "9.1.0.0/16", Ports: []v1alpha1.EgressPortRange{{Port: 1, EndPort: 1000}}}}}
	})
	w.becomes(bot, "Stalled=True/"+ReasonEgressBeyondCeiling)
	w.becomes(bot, "IsolationReady=False/"+ReasonEgressBeyondCeiling)
	c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionIsolationReady)
	if !strings.HasPrefix(c.Message, "spec.channels[main], spec.egress[0], spec.egress[1] ") {
		t.Errorf("says %q", c.Message)
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ceiling-a", Name: resources.BotName("b")}}
	if err := w.get(policy); err != nil || len(policy.Spec.Egress) != 2 || policy.Spec.Egress[0].To[0].IPBlock.CIDR != "9.1.0.0/16" {
		t.Errorf("opens %+v, %v", policy.Spec.Egress, err)
	}
	w.oneEvent(bot, ReasonEgressBeyondCeiling)
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.EgressCeiling = nil })
	w.becomes(bot, "Ready=True")
}

// TestBotWithoutEgressIsToldWhereTheKeyserverIs: it has no DNS. Where nobody knows an address, it says so instead of a pod that
// waits for ever.
func TestBotWithoutEgressIsToldWhereTheKeyserverIs(t *testing.T) {
	w, _ := withTenant(t, "silent")
	w.addresses = ""
	w.publishCA("headless")
	bot := makeBot("silent-a", "b")
	bot.Spec.Channels = nil
	w.eventually("no address", func() error {
		cm := resources.TenantCABundle(&v1alpha1.Tenant{}, "silent-a", "", "")
		if err := w.get(cm); err != nil || cm.Data[resources.AddressesKey] != "" {
			return fmt.Errorf("%v %v", cm.Data, err)
		}
		return nil
	})
	w.create(bot)
	w.becomes(bot, "CredentialsReady=False/"+ReasonKeyserverAddressUnknown)
	if err := w.get(setOf(bot)); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("a pod was made that could never start: %v", err)
	}
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.becomes(bot, "WorkloadReady=False/Suspended")
	w.addresses = "10.96.0.8\n"
	w.publishCA("with an address")
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.eventually("ready", func() error {
		if err := w.isNow(bot, "Ready=True"); err != nil {
			return err
		}
		return w.admin.Get(context.Background(), client.ObjectKeyFromObject(setOf(bot)), &appsv1.StatefulSet{})
	})
}
