package controllers

import (
	"context"
	"fmt"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
)

// TestNoBotWithoutAUIDRange: nothing runs before it is known as whom.
func TestNoBotWithoutAUIDRange(t *testing.T) {
	w := newWorld(t)
	tenant := makeTenant("unranged", "unranged-a")
	bot := makeBot("unranged-a", "b")
	w.keys.set(func(k *keyserverDouble) { k.fixed = &protocol.UIDRange{} }) // a keyserver that is older than the manager
	w.create(tenant)
	w.becomes(tenant, "KeysReady=False/"+v1alpha1.ReasonNoUIDRange)
	w.create(bot)
	w.becomes(bot, "Ready=False/"+v1alpha1.ReasonTenantNotReady)
	w.calm()
	if err := w.get(setOf(bot)); err == nil {
		t.Error("a StatefulSet was made for a bot that has no user id")
	}
	for _, none := range []protocol.UIDRange{{First: 65531, Size: 3}, {First: 0, Size: 1000}, {First: 2_147_483_000, Size: 1000}} {
		w.keys.set(func(k *keyserverDouble) { k.fixed = &none })
		edit(w, tenant, func(t *v1alpha1.Tenant) { t.Labels = map[string]string{"try": fmt.Sprint(none.First)} })
		w.becomes(tenant, "KeysReady=False/"+v1alpha1.ReasonNoUIDRange)
	}
	w.keys.set(func(k *keyserverDouble) { k.fixed = nil })
	w.restart()
	w.becomes(tenant, "Ready=True")
	w.becomes(bot, "Ready=True")
	set := setOf(bot)
	if err := w.get(set); err != nil {
		t.Fatal(err)
	}
	security := set.Spec.Template.Spec.SecurityContext
	if err := w.get(tenant); err != nil || *security.RunAsUser != tenant.Status.UIDRange.First || *security.FSGroup != tenant.Status.UIDRange.First {
		t.Errorf("the bot runs as %d, the range is %+v, %v", *security.RunAsUser, tenant.Status.UIDRange, err)
	}
}

// TestUIDRangeIsTheKeyservers: what a status says does not change who a tenant's bots are.
func TestUIDRangeIsTheKeyservers(t *testing.T) {
	w, tenant := withTenant(t, "ranged")
	bot := makeBot("ranged-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	recorded := *tenant.Status.UIDRange
	for _, forged := range []*v1alpha1.UIDRange{nil, {First: recorded.First + 500_000, Size: 1000}} {
		if err := w.get(tenant); err != nil {
			t.Fatal(err)
		}
		tenant.Status.UIDRange = forged
		if err := w.cluster.Status().Update(context.Background(), tenant); err != nil {
			t.Fatal(err)
		}
		w.eventually("the recorded range", func() error {
			if err := w.get(tenant); err != nil {
				return err
			}
			if tenant.Status.UIDRange == nil || *tenant.Status.UIDRange != recorded {
				return fmt.Errorf("%+v", tenant.Status.UIDRange)
			}
			return w.isNow(bot, "Ready=True")
		})
	}
	w.oneEvent(tenant, v1alpha1.ReasonUIDRangeRestored)
	// Between the forged status and the restored one the bot may have been written once by the former.
	w.eventually("the bot as it was", func() error {
		set := setOf(bot)
		if err := w.get(set); err != nil || *set.Spec.Template.Spec.SecurityContext.RunAsUser != recorded.First {
			return fmt.Errorf("the bot runs as %v, %w", set.Spec.Template.Spec.SecurityContext, err)
		}
		return nil
	})
}

// TestOverlappingUIDRanges: a keyserver whose record was rolled back could give a range twice.
func TestOverlappingUIDRanges(t *testing.T) {
	w, first := withTenant(t, "overlap")
	second := makeTenant("overlaps", "overlaps-a")
	running, fresh, late := makeBot("overlap-a", "running"), makeBot("overlaps-a", "fresh"), makeBot("overlap-a", "late")
	w.create(running)
	w.becomes(running, "Ready=True")
	w.keys.set(func(k *keyserverDouble) {
		k.fixed = &protocol.UIDRange{First: first.Status.UIDRange.First + 999, Size: 1000}
	})
	w.create(second)
	w.becomes(second, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.create(fresh, late)
	w.becomes(fresh, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.becomes(late, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.becomes(first, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	for _, bot := range []*v1alpha1.BotDeployment{fresh, late} {
		if err := w.get(setOf(bot)); err == nil {
			t.Errorf("bot %s was started", bot.Name)
		}
	}
	// What runs can still be stopped.
	edit(w, running, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.eventually("the running bot has no pod", func() error {
		set := setOf(running)
		if err := w.get(set); err != nil {
			return err
		}
		if *set.Spec.Replicas != 0 {
			return fmt.Errorf("%d replicas", *set.Spec.Replicas)
		}
		return nil
	})
	w.keys.set(func(k *keyserverDouble) { k.fixed = nil })
	w.delete(fresh)
	w.gone(fresh)
	w.becomes(second, "InUse=False")
	w.delete(second)
	w.gone(second)
	w.becomes(first, "Ready=True")
	w.becomes(late, "Ready=True")
}
