package keyserver

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// deleteTenant is what happens at a Tenant's deletion.
func (w *world) deleteTenant() {
	w.Helper()
	w.must(testEnv.Client.Delete(w.Context(), w.tenant))
	w.granted(w.call(protocol.PathRevoke, w.manager, protocol.RevokeRequest{Object: refTo("Tenant", w.tenant)}, nil))
}

// tenantAgain makes a Tenant of the same name, with the namespaces that the one before had taken.
func (w *world) tenantAgain(change ...func(*v1alpha1.Tenant)) {
	w.Helper()
	before := w.tenant
	w.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: before.Name}, Spec: *before.Spec.DeepCopy()}
	for _, f := range change {
		f(w.tenant)
	}
	w.must(testEnv.Client.Create(w.Context(), w.tenant))
	w.tenant.Status.Namespaces = before.Status.Namespaces
	w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
	w.restart()
}

// TestADeletedTenantsKeysWaitForTheSameTenantOnly: at once nothing opens; within the grace the same Tenant has its sealed values
// opened again, under new data keys and with the versions that it had; nobody else does, and after the grace nobody at all.
func TestADeletedTenantsKeysWaitForTheSameTenantOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*v1alpha1.Tenant)
		after   time.Duration
		revived bool
	}{
		"the same":          {func(*v1alpha1.Tenant) {}, Grace - time.Minute, true},
		"after the grace":   {func(*v1alpha1.Tenant) {}, Grace, false},
		"asks for new keys": {func(n *v1alpha1.Tenant) { n.Annotations = map[string]string{v1alpha1.AnnotationKeys: v1alpha1.KeysNew} }, 0, false},
		"another external identifier": {func(n *v1alpha1.Tenant) {
			n.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: n.Name}}
		}, 0, false},
		"one namespace more": {func(n *v1alpha1.Tenant) {
			n.Spec.Namespaces = append(n.Spec.Namespaces, v1alpha1.TenantNamespace{Name: "more-" + n.Name})
		}, 0, false},
		"another namespace altogether": {func(n *v1alpha1.Tenant) { n.Spec.Namespaces[0].Name = "other-" + n.Name }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.tenantKeys()
			bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 2), w.secret())
			})
			older := w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 1), w.secret())
			set := w.storeAndRecord(bot).Secret
			w.deleteTenant()
			if !w.secretGone("lethe-keys", tenantSecretName(w.tenant.Name)) || !w.secretGone("lethe-keys", objectSecretName(string(bot.UID))) || !w.secretGone(w.ns, set) {
				t.Error("a tenant's key, a data key or an encrypted Secret is left")
			}
			earlier := pendingSecretName(string(w.tenant.UID))
			if w.secretGone("lethe-keys", earlier) {
				t.Fatal("the sealing keys do not wait")
			}
			w.clock.SetTime(w.clock.Now().Add(tc.after))
			w.must(w.server.endGrace(t.Context()))
			if over := tc.after >= Grace; w.secretGone("lethe-keys", earlier) != over {
				t.Errorf("after %s: gone is %t", tc.after, !over)
			}
			w.tenantAgain(tc.change)
			second := w.tenantKeys()
			if same := second.SealingKeys[0].KID == first.SealingKeys[0].KID; same != tc.revived {
				t.Fatalf("has the earlier keys: %t", same)
			}
			if !tc.revived {
				if second.UIDRange == first.UIDRange {
					t.Error("has the earlier user ids")
				}
				return
			}
			if second.UIDRange != first.UIDRange {
				t.Error("has other user ids")
			}
			if !w.secretGone("lethe-keys", earlier) {
				t.Error("the keys still wait")
			}
			// A bot that outlived its Tenant, and one that is made again with an older value.
			if got := w.storeAndRecord(bot); got.Secret == "" || got.Secret == set || got.Items[0].Reason != protocol.ReasonStored {
				t.Errorf("the bot: %+v", got)
			}
			w.deleteBot(bot)
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "support"}, Spec: bot.Spec}
			again.Spec.Credentials[0].Sealed = older
			w.must(testEnv.Client.Create(t.Context(), again))
			if got := w.store(again); got.Items[0].Reason != protocol.ReasonRolledBack {
				t.Errorf("an older value: %+v", got)
			}
		})
	}
}

// TestDeletingATenantSurvivesACrash: wherever the keyserver dies, nothing opens in the end and the keys wait once.
func TestDeletingATenantSurvivesACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			w := newWorld(t)
			first := w.tenantKeys()
			bot, _ := w.newBot(fmt.Sprintf("bot-%t-%d", after, at))
			set := w.storeAndRecord(bot).Secret
			w.must(testEnv.Client.Delete(t.Context(), w.tenant))
			req := protocol.RevokeRequest{Object: refTo("Tenant", w.tenant)}
			w.writes.reset(at, after)
			crashed := w.call(protocol.PathRevoke, w.manager, req, nil) != nil
			w.writes.reset(0, false)
			w.restart()
			w.granted(w.call(protocol.PathRevoke, w.manager, req, nil))
			if !w.secretGone("lethe-keys", tenantSecretName(w.tenant.Name)) || !w.secretGone("lethe-keys", objectSecretName(string(bot.UID))) || !w.secretGone(w.ns, set) {
				t.Errorf("dead at write %d (landed: %t): something is left", at, after)
			}
			w.tenantAgain()
			w.writes.reset(at, after)
			_ = w.askTenant(nil)
			w.writes.reset(0, false)
			w.restart()
			if got := w.tenantKeys(); got.SealingKeys[0].KID != first.SealingKeys[0].KID {
				t.Errorf("dead at write %d (landed: %t): the keys did not come back", at, after)
			}
			w.must(w.server.endGrace(t.Context()))
			if !w.secretGone("lethe-keys", pendingSecretName(req.Object.UID)) {
				t.Error("keys wait although they are a Tenant's again")
			}
			if !crashed {
				break
			}
		}
	}
}
