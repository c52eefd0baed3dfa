package walls

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

func goingBot(ns, name string, finalizers ...string) *lethev1.BotDeployment {
	return &lethev1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Finalizers: finalizers},
		Spec: lethev1.BotDeploymentSpec{Image: "bot:1"}}
}

func removeWith(o client.Object, options ...client.DeleteOption) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Delete(ctx, o.DeepCopyObject().(client.Object), append(options, client.DryRunAll)...)
	}
}

// orphanDependents is how old clients say Orphan.
type orphanDependents struct{}

func (orphanDependents) ApplyToDelete(o *client.DeleteOptions) {
	yes := true
	o.Raw = &metav1.DeleteOptions{OrphanDependents: &yes} //nolint:staticcheck // old clients still say it so
}

// TestNothingIsOrphaned: who deletes a bot, a store or a Tenant takes what runs for it along, whoever it is and
// however it is said: by an option of the request, by the old one, on a collection, and by a finalizer that was put
// on before.
func TestNothingIsOrphaned(t *testing.T) {
	orphan := client.PropagationPolicy(metav1.DeletePropagationOrphan)
	background, foreground := client.PropagationPolicy(metav1.DeletePropagationBackground), client.PropagationPolicy(metav1.DeletePropagationForeground)
	operator, most := as("ann", groupOperate), as("eve", groupMost)
	bot, outside := goingBot(tenantNS, "orphaned"), goingBot(otherNS, "orphaned")
	idle := makeTenant("orphaned")
	for _, o := range []client.Object{bot, outside, idle} {
		mustCreate(t, o)
	}
	attempts := []attempt{
		{name: "as kubectl does it, by Operate", as: operator, try: remove(bot)},
		{name: "in the background, by Operate", as: operator, try: removeWith(bot, background)},
		{name: "in the foreground, by Operate", as: operator, try: removeWith(bot, foreground)},
		{name: "a Tenant in the background", as: most, try: removeWith(idle, background)},
		{name: "a collection", as: admin, try: func(ctx context.Context, c identity) error {
			return c.DeleteAllOf(ctx, &lethev1.BotDeployment{}, client.InNamespace(tenantNS), client.DryRunAll)
		}},
		{name: "an orphaned collection", as: admin, denied: true, try: func(ctx context.Context, c identity) error {
			return c.DeleteAllOf(ctx, &lethev1.BotDeployment{}, client.InNamespace(tenantNS), client.DryRunAll, orphan)
		}},
	}
	for who, c := range map[string]identity{"Operate": operator, "every right in the namespace": most, "the administrator": admin} {
		attempts = append(attempts,
			attempt{name: "orphaned by " + who, as: c, denied: true, try: removeWith(bot, orphan)},
			attempt{name: "orphaned the old way by " + who, as: c, denied: true, try: removeWith(bot, orphanDependents{})},
			attempt{name: "the finalizer orphan by " + who, as: c, denied: true, try: patchOf(bot, `{"metadata":{"finalizers":["orphan"]}}`)})
	}
	for kind, o := range map[string]client.Object{"a Tenant": idle, "a bot outside of tenants": outside} {
		attempts = append(attempts,
			attempt{name: kind + " orphaned", as: most, denied: true, try: removeWith(o, orphan)},
			attempt{name: "the finalizer orphan on " + kind, as: most, denied: true, try: patchOf(o, `{"metadata":{"finalizers":["orphan"]}}`)})
	}
	attempts = append(attempts,
		attempt{name: "made with the finalizer orphan", as: most, denied: true, try: create(goingBot(otherNS, "x", "orphan"))})
	climb(t, "lethe-no-orphans", attempts)
}

// TestFinalizersOnBotsNeedARightOnTheTenant: a finalizer of a tenant's user would hold up more than the bot.
func TestFinalizersOnBotsNeedARightOnTheTenant(t *testing.T) {
	operator, most, adopter, manager := as("ann", groupOperate), as("eve", groupMost), as("gitops", groupMost, groupAdopt), as(managerUser, groupMost)
	kept, free := goingBot(tenantNS, "kept", lethev1.FinalizerKeys), goingBot(tenantNS, "free")
	held := goingBot(tenantNS, "held", "example.com/hold")
	for _, o := range []client.Object{kept, free, held} {
		mustCreate(t, o)
	}
	hold, ours, none := `{"metadata":{"finalizers":["example.com/hold"]}}`, `{"metadata":{"finalizers":["lethe.dev/keys"]}}`, `{"metadata":{"finalizers":null}}`
	climb(t, "lethe-finalizers", []attempt{
		{name: "a change of the spec", as: operator, try: patchOf(kept, `{"spec":{"image":"bot:2"}}`)},
		{name: "its own one by the manager", as: manager, try: patchOf(free, ours)},
		{name: "its own one taken off by the manager", as: manager, try: patchOf(kept, none)},
		{name: "another one by an adopter", as: adopter, try: patchOf(free, hold)},
		{name: "Lethe's own one taken off by an adopter", as: adopter, try: patchOf(kept, none)},
		{name: "one that somebody else put there, taken off", as: operator, try: patchOf(held, none)},
		{name: "a bot outside of tenants", as: most, try: create(goingBot(otherNS, "x", "example.com/hold"))},

		{name: "made with one", as: operator, denied: true, try: create(goingBot(tenantNS, "x", "example.com/hold"))},
		{name: "put on", as: operator, denied: true, try: patchOf(free, hold)},
		{name: "put on beside Lethe's", as: operator, denied: true, try: patchOf(kept, `{"metadata":{"finalizers":["lethe.dev/keys","example.com/hold"]}}`)},
		{name: "put on with every right in the namespace", as: most, denied: true, try: patchOf(free, hold)},
		{name: "Lethe's own one taken off", as: operator, denied: true, try: patchOf(kept, none)},
		{name: "the one of foreground deletion by hand", as: operator, denied: true, try: patchOf(free, `{"metadata":{"finalizers":["foregroundDeletion"]}}`)},
	})
}
