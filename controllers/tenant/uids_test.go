package tenant_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestNoBotWithoutAUIDRange: nothing runs before it is known as whom.
func TestNoBotWithoutAUIDRange(t *testing.T) {
	w := operator.NewWorld(t)
	tenant := operator.MakeTenant("unranged", "unranged-a")
	bot := operator.MakeBot("unranged-a", "b")
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Fixed = &keyapi.UIDRange{} }) // a keyserver that is older than the manager
	w.Create(tenant)
	w.Becomes(tenant, "KeysReady=False/"+v1alpha1.ReasonNoUIDRange)
	w.Create(bot)
	w.Becomes(bot, "Ready=False/"+v1alpha1.ReasonTenantNotReady)
	w.Calm()
	if err := w.Get(operator.SetOf(bot)); err == nil {
		t.Error("a StatefulSet was made for a bot that has no user id")
	}
	for _, none := range []keyapi.UIDRange{{First: 65531, Size: 3}, {First: 0, Size: 1000}, {First: 2_147_483_000, Size: 1000}} {
		w.Keys.Set(func(k *operator.KeyserverDouble) { k.Fixed = &none })
		operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Labels = map[string]string{"try": fmt.Sprint(none.First)} })
		w.Becomes(tenant, "KeysReady=False/"+v1alpha1.ReasonNoUIDRange)
	}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Fixed = nil })
	w.Restart()
	w.Becomes(tenant, "Ready=True")
	w.Becomes(bot, "Ready=True")
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	security := set.Spec.Template.Spec.SecurityContext
	if err := w.Get(tenant); err != nil || *security.RunAsUser != tenant.Status.UIDRange.First || *security.FSGroup != tenant.Status.UIDRange.First {
		t.Errorf("the bot runs as %d, the range is %+v, %v", *security.RunAsUser, tenant.Status.UIDRange, err)
	}
}

// TestUIDRangeIsTheKeyservers: what a status says does not change who a tenant's bots are.
func TestUIDRangeIsTheKeyservers(t *testing.T) {
	w, tenant := operator.WithTenant(t, "ranged")
	bot := operator.MakeBot("ranged-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	recorded := *tenant.Status.UIDRange
	for _, forged := range []*v1alpha1.UIDRange{nil, {First: recorded.First + 500_000, Size: 1000}} {
		if err := w.Get(tenant); err != nil {
			t.Fatal(err)
		}
		tenant.Status.UIDRange = forged
		if err := w.Cluster.Status().Update(context.Background(), tenant); err != nil {
			t.Fatal(err)
		}
		w.Eventually("the recorded range", func() error {
			if err := w.Get(tenant); err != nil {
				return err
			}
			if tenant.Status.UIDRange == nil || *tenant.Status.UIDRange != recorded {
				return fmt.Errorf("%+v", tenant.Status.UIDRange)
			}
			return w.IsNow(bot, "Ready=True")
		})
	}
	w.OneEvent(tenant, v1alpha1.ReasonUIDRangeRestored)
	// Between the forged status and the restored one the bot may have been written once by the former.
	w.Eventually("the bot as it was", func() error {
		set := operator.SetOf(bot)
		if err := w.Get(set); err != nil || *set.Spec.Template.Spec.SecurityContext.RunAsUser != recorded.First {
			return fmt.Errorf("the bot runs as %v, %w", set.Spec.Template.Spec.SecurityContext, err)
		}
		return nil
	})
}

// TestOverlappingUIDRanges: a keyserver whose record was rolled back could give a range twice.
func TestOverlappingUIDRanges(t *testing.T) {
	w, first := operator.WithTenant(t, "overlap")
	second := operator.MakeTenant("overlaps", "overlaps-a")
	running, fresh, late := operator.MakeBot("overlap-a", "running"), operator.MakeBot("overlaps-a", "fresh"), operator.MakeBot("overlap-a", "late")
	w.Create(running)
	w.Becomes(running, "Ready=True")
	w.Keys.Set(func(k *operator.KeyserverDouble) {
		k.Fixed = &keyapi.UIDRange{First: first.Status.UIDRange.First + 999, Size: 1000}
	})
	w.Create(second)
	w.Becomes(second, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.Create(fresh, late)
	w.Becomes(fresh, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.Becomes(late, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	w.Becomes(first, "Stalled=True/"+v1alpha1.ReasonUIDRangeTaken)
	for _, bot := range []*v1alpha1.BotDeployment{fresh, late} {
		if err := w.Get(operator.SetOf(bot)); err == nil {
			t.Errorf("bot %s was started", bot.Name)
		}
	}
	// What runs can still be stopped.
	operator.Edit(w, running, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Eventually("the running bot has no pod", func() error {
		set := operator.SetOf(running)
		if err := w.Get(set); err != nil {
			return err
		}
		if *set.Spec.Replicas != 0 {
			return fmt.Errorf("%d replicas", *set.Spec.Replicas)
		}
		return nil
	})
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Fixed = nil })
	w.Delete(fresh)
	w.Gone(fresh)
	w.Becomes(second, "InUse=False")
	w.Delete(second)
	w.Gone(second)
	w.Becomes(first, "Ready=True")
	w.Becomes(late, "Ready=True")
}
