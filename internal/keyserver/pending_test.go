package keyserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// deleteTenant is what happens at a Tenant's deletion.
func (w *world) deleteTenant() {
	w.Helper()
	w.must(testEnv.Client.Delete(w.Context(), w.tenant))
	w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo("Tenant", w.tenant)}, nil))
}

// identify gives the Tenant an external identifier, by which it is the same customer when it comes back.
func (w *world) identify() {
	w.Helper()
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	w.tenant.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: w.tenant.Name}}
	w.must(testEnv.Client.Update(w.Context(), w.tenant))
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

// TestADeletedTenantsKeysWaitForTheSameTenantOnly: at once nothing opens; within the grace the same Tenant has its
// sealed values opened again, under new data keys and with the versions that it had; nobody else does, and after the
// grace nobody at all.
func TestADeletedTenantsKeysWaitForTheSameTenantOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*v1alpha1.Tenant)
		after   time.Duration
		revived bool
	}{
		"the same":          {func(*v1alpha1.Tenant) {}, keystore.Grace - time.Minute, true},
		"after the grace":   {func(*v1alpha1.Tenant) {}, keystore.Grace, false},
		"asks for new keys": {func(n *v1alpha1.Tenant) { n.Annotations = map[string]string{v1alpha1.AnnotationKeys: v1alpha1.KeysNew} }, 0, false},
		"another external identifier": {func(n *v1alpha1.Tenant) {
			n.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "other"}}
		}, 0, false},
		"no external identifier": {func(n *v1alpha1.Tenant) { n.Spec.ExternalIDs = nil }, 0, false},
		"one namespace more": {func(n *v1alpha1.Tenant) {
			n.Spec.Namespaces = append(n.Spec.Namespaces, v1alpha1.TenantNamespace{Name: "more-" + n.Name})
		}, 0, false},
		"another namespace altogether": {func(n *v1alpha1.Tenant) { n.Spec.Namespaces[0].Name = "other-" + n.Name }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.identify()
			first := w.tenantKeys()
			bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 2), w.secret())
			})
			older := w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 1), w.secret())
			set := w.storeAndRecord(bot).Secret
			w.deleteTenant()
			if !w.secretGone("lethe-keys", keystore.TenantSecretName(w.tenant.Name)) || !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) || !w.secretGone(w.ns, set) {
				t.Error("a tenant's key, a data key or an encrypted Secret is left")
			}
			earlier := keystore.PendingSecretName(string(w.tenant.UID))
			if w.secretGone("lethe-keys", earlier) {
				t.Fatal("the sealing keys do not wait")
			}
			w.clock.SetTime(w.clock.Now().Add(tc.after))
			w.must(w.server.endGrace(t.Context()))
			if over := tc.after >= keystore.Grace; w.secretGone("lethe-keys", earlier) != over {
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
			if got := w.storeAndRecord(bot); got.Secret == "" || got.Secret == set || got.Items[0].Reason != v1alpha1.ReasonStored {
				t.Errorf("the bot: %+v", got)
			}
			w.deleteBot(bot)
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "support"}, Spec: bot.Spec}
			again.Spec.Credentials[0].Sealed = older
			w.must(testEnv.Client.Create(t.Context(), again))
			if got := w.store(again); got.Items[0].Reason != v1alpha1.ReasonRolledBack {
				t.Errorf("an older value: %+v", got)
			}
		})
	}
}

// TestANameIsNoIdentity: where neither Tenant has an external identifier, the next customer may have the name and the
// namespaces. It gets nothing of the former one unless it names a key of it; until its maker has said which, it gets
// no keys at all.
func TestANameIsNoIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		says    func(kid string) string
		change  func(*v1alpha1.Tenant)
		refused bool
		revived bool
	}{
		"says nothing":                 {says: func(string) string { return "" }, refused: true},
		"asks for new keys":            {says: func(string) string { return v1alpha1.KeysNew }},
		"names a key":                  {says: func(kid string) string { return kid }, revived: true},
		"names a key that nobody left": {says: func(string) string { return "0123456789abcdef" }, refused: true},
		"names a key, and has another identifier": {says: func(kid string) string { return kid }, refused: true, change: func(n *v1alpha1.Tenant) {
			n.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: n.Name}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.tenantKeys()
			kid := first.SealingKeys[0].KID
			w.deleteTenant()
			w.tenantAgain(func(n *v1alpha1.Tenant) {
				if says := tc.says(kid); says != "" {
					n.Annotations = map[string]string{v1alpha1.AnnotationKeys: says}
				}
				if tc.change != nil {
					tc.change(n)
				}
			})
			if tc.refused {
				refusal := w.askTenant(nil)
				w.wantRefusal(refusal, v1alpha1.ReasonKeysChoice)
				if !strings.Contains(refusal.Message, v1alpha1.AnnotationKeys) || !strings.Contains(refusal.Message, v1alpha1.KeysNew) {
					t.Errorf("the refusal does not say what to do: %s", refusal.Message)
				}
				if !w.secretGone("lethe-keys", keystore.TenantSecretName(w.tenant.Name)) {
					t.Error("keys were made all the same")
				}
				// Its maker chooses, and it goes on.
				w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
				w.tenant.Annotations = map[string]string{v1alpha1.AnnotationKeys: v1alpha1.KeysNew}
				w.must(testEnv.Client.Update(t.Context(), w.tenant))
			}
			second := w.tenantKeys()
			if same := second.SealingKeys[0].KID == kid; same != tc.revived {
				t.Errorf("has the former customer's keys: %t", same)
			}
			if same := second.UIDRange == first.UIDRange; same != tc.revived {
				t.Errorf("has the former customer's user ids: %t", same)
			}
		})
	}
}

// TestAForgottenDocumentThatIsWrittenBack: what the threat model says of it. Nothing live holds the generation of
// what waits, so that a writer of lethe-keys who kept a copy ends no grace, and lengthens none either.
func TestAForgottenDocumentThatIsWrittenBack(t *testing.T) {
	for name, tc := range map[string]struct {
		after time.Duration
		back  bool
	}{"within the grace": {keystore.Grace - time.Minute, true}, "after it": {keystore.Grace, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.identify()
			first := w.tenantKeys()
			w.deleteTenant()
			kept := w.getSecret("lethe-keys", keystore.PendingSecretName(string(w.tenant.UID)))
			w.must(testEnv.Client.Delete(t.Context(), kept.DeepCopy())) // as keys forget --now does
			w.clock.SetTime(w.clock.Now().Add(tc.after))
			w.must(testEnv.Client.Create(t.Context(), &corev1.Secret{Type: kept.Type, Data: kept.Data,
				ObjectMeta: metav1.ObjectMeta{Namespace: kept.Namespace, Name: kept.Name, Labels: kept.Labels}}))
			w.tenantAgain()
			if back := w.tenantKeys().SealingKeys[0].KID == first.SealingKeys[0].KID; back != tc.back {
				t.Errorf("the keys are back: %t", back)
			}
		})
	}
}

// TestDeletingATenantSurvivesACrash: wherever the keyserver dies, nothing opens in the end and the keys wait once.
func TestDeletingATenantSurvivesACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			w := newWorld(t)
			w.identify()
			first := w.tenantKeys()
			bot, _ := w.newBot(fmt.Sprintf("bot-%t-%d", after, at))
			set := w.storeAndRecord(bot).Secret
			w.must(testEnv.Client.Delete(t.Context(), w.tenant))
			req := keyapi.RevokeRequest{Object: refTo("Tenant", w.tenant)}
			w.writes.reset(at, after)
			crashed := w.call(keyapi.PathRevoke, w.manager, req, nil) != nil
			w.writes.reset(0, false)
			w.restart()
			w.granted(w.call(keyapi.PathRevoke, w.manager, req, nil))
			if !w.secretGone("lethe-keys", keystore.TenantSecretName(w.tenant.Name)) || !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) || !w.secretGone(w.ns, set) {
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
			if !w.secretGone("lethe-keys", keystore.PendingSecretName(req.Object.UID)) {
				t.Error("keys wait although they are a Tenant's again")
			}
			if !crashed {
				break
			}
		}
	}
}
