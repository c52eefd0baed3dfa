package keyserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// pass lets time go by and sweeps.
func (w *world) pass(after time.Duration) {
	w.Helper()
	w.clock.SetTime(w.clock.Now().Add(after))
	w.must(w.server.sweepOrphans(w.Context()))
}

func (w *world) keyGone(name string) bool {
	w.Helper()
	return w.secretGone(w.opts.KeysNamespace, name)
}

// orphanScene is a tenant with a bot that has a channel, and a store; and what may never be touched.
type orphanScene struct {
	*world
	bot      *v1alpha1.BotDeployment
	botSet   string
	holder   string // of the bot's channel
	chat     *v1alpha1.DataStore
	storeSet string
	others   []string // Secrets of the keys' namespace that stay
}

func newOrphanScene(t *testing.T) *orphanScene {
	t.Helper()
	s := &orphanScene{world: newRotationWorld(t)}
	s.stage()
	// Another tenant, whose bot is being deleted: the manager's to revoke.
	mine, ns := s.tenant, s.ns
	s.tenant, s.ns = s.newTenant(v1alpha1.TenantCustomer)
	s.identify()
	s.tenantKeys()
	lives, _ := s.newBot("lives")
	going, _ := s.newBot("going", func(b *v1alpha1.BotDeployment) { b.Finalizers = []string{"example.com/hold"} })
	s.storeAndRecord(lives)
	s.storeAndRecord(going)
	s.must(testEnv.Client.Delete(t.Context(), going))
	s.others = []string{keystore.TenantSecretName(s.tenant.Name), keystore.ObjectSecretName(string(lives.UID)), keystore.ObjectSecretName(string(going.UID)), keystore.CanaryName, keystore.UIDsName}
	s.tenant, s.ns = mine, ns
	return s
}

// stage gives the scene's tenant its bot and its store.
func (s *orphanScene) stage() {
	s.Helper()
	s.identify()
	s.tenantKeys()
	s.bot, _ = s.newBot("support", telegram)
	s.botSet = s.storeAndRecord(s.bot).Secret
	s.chat = s.newStore("chat", "")
	var resp keyapi.CredentialsResponse
	s.granted(s.call(keyapi.PathCredentials, s.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, s.chat)}, &resp))
	s.storeSet = resp.Secret
	var holders corev1.SecretList
	s.must(testEnv.Client.List(s.Context(), &holders, client.InNamespace(s.opts.KeysNamespace), client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel}))
	s.holder = ""
	for _, h := range holders.Items {
		var held keystore.ChannelHolderDoc
		if _, err := keystore.ReadDocument(&h, keystore.FormatChannelHolder, &held); err == nil && held.UID == string(s.bot.UID) {
			s.holder = h.Name
		}
	}
	if s.botSet == "" || s.storeSet == "" || s.holder == "" {
		s.Fatalf("the scene is not as it should be: %q %q %q", s.botSet, s.storeSet, s.holder)
	}
}

// another gives the scene another tenant with a bot and a store. What may never be touched stays the same.
func (s *orphanScene) another() {
	s.Helper()
	s.tenant, s.ns = s.newTenant(v1alpha1.TenantCustomer)
	s.stage()
}

func (s *orphanScene) counted(kind string) float64 {
	var m dto.Metric
	s.must(s.opts.Metrics.orphans.WithLabelValues(kind).Write(&m))
	return m.GetCounter().GetValue()
}

func (s *orphanScene) untouched() {
	s.Helper()
	for _, name := range s.others {
		if s.keyGone(name) {
			s.Errorf("%s is gone", name)
		}
	}
}

// TestKeysWithoutAnOwnerGo: each kind of owner alone is gone without anybody having revoked its keys. They stay for
// the first look and for five minutes more, and then go as they would have in a deletion; whatever lives keeps its own.
func TestKeysWithoutAnOwnerGo(t *testing.T) {
	remove := func(s *orphanScene, o client.Object) { s.must(testEnv.Client.Delete(s.Context(), o)) }
	for name, tc := range map[string]struct {
		kind                string
		lose                func(*orphanScene)
		tenant, bot, holder bool // are gone afterwards
		store               bool
		then                func(*orphanScene)
	}{
		"a bot": {kind: sealing.KindBotDeployment, bot: true, holder: true, lose: func(s *orphanScene) { remove(s, s.bot) }, then: func(s *orphanScene) {
			_, doc, err := s.server.keys.Versions(s.Context(), string(s.tenant.UID))
			if err != nil || len(doc.Entries) != 1 || doc.Entries[0].UID != string(s.bot.UID) || doc.Entries[0].Highest != 1 {
				s.Errorf("its versions are not remembered: %+v, %v", doc.Entries, err)
			}
		}},
		"a bot, made again under its name": {kind: sealing.KindBotDeployment, bot: true, lose: func(s *orphanScene) {
			remove(s, s.bot)
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: s.bot.Name}, Spec: s.bot.Spec}
			s.must(testEnv.Client.Create(s.Context(), again))
			s.storeAndRecord(again)
			s.others = append(s.others, keystore.ObjectSecretName(string(again.UID)))
		}, holder: false},
		"a store": {kind: sealing.KindDataStore, store: true, lose: func(s *orphanScene) { remove(s, s.chat) }},
		"a Tenant": {kind: "Tenant", tenant: true, bot: true, store: true, holder: true, lose: func(s *orphanScene) { remove(s, s.tenant) }, then: func(s *orphanScene) {
			if s.keyGone(keystore.PendingSecretName(string(s.tenant.UID))) {
				s.Error("its sealing keys do not wait")
			}
			before := s.tenant.Status.SealingKeys[0].KID
			s.tenantAgain()
			if got := s.tenantKeys(); got.SealingKeys[0].KID != before {
				s.Error("the same Tenant does not get them")
			}
		}},
		"a Tenant, made again under its name": {kind: "Tenant", tenant: true, bot: true, store: true, holder: true, lose: func(s *orphanScene) {
			remove(s, s.tenant)
			before := s.tenant
			s.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: before.Name}, Spec: before.Spec, Status: v1alpha1.TenantStatus{SealingKeys: before.Status.SealingKeys}}
			s.must(testEnv.Client.Create(s.Context(), s.tenant))
			if refused := s.askTenant(nil); refused == nil || !strings.Contains(refused.Message, "an earlier Tenant") {
				s.Errorf("before the sweep: %+v", refused)
			}
			s.tenant.Status.SealingKeys = before.Status.SealingKeys
		}, then: func(s *orphanScene) {
			before := s.tenant.Status.SealingKeys[0].KID
			if got := s.tenantKeys(); got.SealingKeys[0].KID != before {
				s.Error("the same Tenant does not get the keys that waited")
			}
		}},
		"a Tenant, made again to be another": {kind: "Tenant", tenant: true, bot: true, store: true, holder: true, lose: func(s *orphanScene) {
			remove(s, s.tenant)
			kid := s.tenant.Status.SealingKeys
			s.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: s.tenant.Name, Annotations: map[string]string{v1alpha1.AnnotationKeys: v1alpha1.KeysNew}}, Spec: s.tenant.Spec}
			s.must(testEnv.Client.Create(s.Context(), s.tenant))
			s.tenant.Status.SealingKeys = kid
		}, then: func(s *orphanScene) {
			before := s.tenant.Status.SealingKeys[0].KID
			if got := s.tenantKeys(); got.SealingKeys[0].KID == before {
				s.Error("another Tenant got the keys that wait")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newOrphanScene(t)
			tenantDocument := keystore.TenantSecretName(s.tenant.Name)
			s.pass(0)
			tc.lose(s)
			check := func(when string, over bool) {
				t.Helper()
				for what, is := range map[string][2]bool{
					"the tenant's keys":       {s.keyGone(tenantDocument), tc.tenant},
					"the bot's keys":          {s.keyGone(keystore.ObjectSecretName(string(s.bot.UID))), tc.bot},
					"the bot's credentials":   {s.secretGone(s.ns, s.botSet), tc.bot},
					"the bot's channel":       {s.keyGone(s.holder), tc.holder},
					"the store's keys":        {s.keyGone(keystore.ObjectSecretName(string(s.chat.UID))), tc.store},
					"the store's credentials": {s.secretGone(s.ns, s.storeSet), tc.store},
				} {
					if want := over && is[1]; is[0] != want {
						t.Errorf("%s: %s: gone is %t", when, what, is[0])
					}
				}
			}
			s.pass(orphansEvery)
			check("seen once", false)
			s.pass(orphansEvery - time.Second)
			check("within five minutes", false)
			s.pass(time.Second)
			check("seen twice", true)
			if got := s.counted(tc.kind); got != 1 {
				t.Errorf("counted %v", got)
			}
			if !strings.Contains(s.log.String(), "nobody had revoked") {
				t.Error("the log says nothing")
			}
			s.untouched()
			if tc.then != nil {
				tc.then(s)
			}
			s.untouched()
			// Nothing is left to do.
			s.writes.reset(0, false)
			s.pass(orphansEvery)
			s.pass(orphansEvery)
			if n, seen := s.writes.writes(); n > 0 {
				t.Errorf("a sweep with nothing to do writes: %v", seen)
			}
		})
	}
}

// TestSweepingKeysSurvivesACrash: wherever the keyserver dies, the next one finds what is left, and a Tenant's keys
// wait once.
func TestSweepingKeysSurvivesACrash(t *testing.T) {
	for kind, lose := range map[string]func(*orphanScene) client.Object{
		"a bot":    func(s *orphanScene) client.Object { return s.bot },
		"a store":  func(s *orphanScene) client.Object { return s.chat },
		"a Tenant": func(s *orphanScene) client.Object { return s.tenant },
	} {
		t.Run(kind, func(t *testing.T) {
			s := newOrphanScene(t)
			for _, after := range []bool{false, true} {
				for at := 1; ; at++ {
					s.another()
					gone := lose(s)
					s.must(testEnv.Client.Delete(t.Context(), gone))
					s.pass(orphansEvery)
					s.writes.reset(at, after)
					s.clock.SetTime(s.clock.Now().Add(orphansEvery))
					err := s.server.sweepOrphans(t.Context())
					s.writes.reset(0, false)
					s.restart()
					s.pass(0)
					s.pass(orphansEvery)
					left := map[string]bool{}
					if gone == s.tenant {
						left["its key"] = s.keyGone(keystore.TenantSecretName(s.tenant.Name))
						left["what is remembered"] = s.keyGone(keystore.VersionsSecretName(string(s.tenant.UID)))
						if s.keyGone(keystore.PendingSecretName(string(s.tenant.UID))) {
							t.Errorf("dead at write %d (landed: %t): no sealing key waits", at, after)
						}
					}
					if gone != client.Object(s.chat) {
						left["the bot's key"], left["the bot's credentials"] = s.keyGone(keystore.ObjectSecretName(string(s.bot.UID))), s.secretGone(s.ns, s.botSet)
						left["the channel"] = s.keyGone(s.holder)
					}
					if gone != client.Object(s.bot) {
						left["the store's key"], left["the store's credentials"] = s.keyGone(keystore.ObjectSecretName(string(s.chat.UID))), s.secretGone(s.ns, s.storeSet)
					}
					for what, away := range left {
						if !away {
							t.Errorf("dead at write %d (landed: %t): %s is left", at, after, what)
						}
					}
					s.untouched()
					if err == nil {
						if at == 1 {
							t.Error("it wrote nothing")
						}
						break
					}
				}
			}
		})
	}
}

// readHook answers reads of some objects in the API server's place.
type readHook struct {
	client.Client
	answer func(client.Object, client.ObjectKey) error
}

func (h *readHook) Get(ctx context.Context, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	if err := h.answer(into, key); err != nil {
		return err
	}
	return h.Client.Get(ctx, key, into, opts...)
}

// TestKeysStayWhileNobodyCanSay: what could not be asked for, what does not open, and what is needed to know that
// keys are missing.
func TestKeysStayWhileNobodyCanSay(t *testing.T) {
	of := func(resource string) schema.GroupResource {
		return schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: resource}
	}
	refused := func(answer func(name string) error) func(*orphanScene) {
		return func(s *orphanScene) {
			s.writes.Client = &readHook{s.writes.Client, func(o client.Object, key client.ObjectKey) error {
				switch o.(type) {
				case *v1alpha1.BotDeployment, *v1alpha1.DataStore, *v1alpha1.Tenant:
					return answer(key.Name)
				}
				return nil
			}}
		}
	}
	for name, tc := range map[string]struct {
		before func(*orphanScene)
		keep   func(*orphanScene) []string
	}{
		"forbidden": {before: refused(func(name string) error { return apierrors.NewForbidden(of("tenants"), name, nil) })},
		"a timeout": {before: refused(func(string) error { return apierrors.NewTimeoutError("later", 1) })},
		"a version that is not served": {before: refused(func(name string) error {
			return apierrors.NewGenericServerResponse(http.StatusNotFound, "get", of("tenants"), name, "404 page not found", 0, true)
		})},
		"another key-encryption key": {before: func(s *orphanScene) {
			s.opts.KEK = newKEK()
			s.restart()
		}},
		"the Tenant's keys are missing": {before: func(s *orphanScene) {
			s.must(testEnv.Client.Delete(s.Context(), s.getSecret(s.opts.KeysNamespace, keystore.TenantSecretName(s.tenant.Name))))
			s.must(testEnv.Client.Delete(s.Context(), s.bot))
		}, keep: func(s *orphanScene) []string { return []string{keystore.ObjectSecretName(string(s.bot.UID))} }},
		"the bot's keys do not open": {before: func(s *orphanScene) {
			s.must(testEnv.Client.Delete(s.Context(), s.bot))
			s.alter(keystore.ObjectSecretName(string(s.bot.UID)))
		}, keep: func(s *orphanScene) []string { return []string{keystore.ObjectSecretName(string(s.bot.UID))} }},
		"the Tenant's keys do not open": {before: func(s *orphanScene) {
			s.must(testEnv.Client.Delete(s.Context(), s.tenant))
			s.alter(keystore.TenantSecretName(s.tenant.Name))
		}, keep: func(s *orphanScene) []string {
			return []string{keystore.TenantSecretName(s.tenant.Name), keystore.ObjectSecretName(string(s.bot.UID)), keystore.ObjectSecretName(string(s.chat.UID))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newOrphanScene(t)
			keep := append([]string{}, s.others...)
			if tc.keep == nil {
				// Everything is gone, and nobody may believe it.
				s.must(testEnv.Client.Delete(t.Context(), s.bot))
				s.must(testEnv.Client.Delete(t.Context(), s.chat))
				s.must(testEnv.Client.Delete(t.Context(), s.tenant))
				keep = append(keep, keystore.TenantSecretName(s.tenant.Name), keystore.ObjectSecretName(string(s.bot.UID)), keystore.ObjectSecretName(string(s.chat.UID)))
			}
			tc.before(s)
			if tc.keep != nil {
				keep = append(keep, tc.keep(s)...)
			}
			said := error(nil)
			for range 4 {
				s.clock.SetTime(s.clock.Now().Add(orphansEvery))
				said = s.server.sweepOrphans(t.Context())
			}
			if said == nil {
				t.Error("the sweep says nothing")
			}
			for _, document := range keep {
				if s.keyGone(document) {
					t.Errorf("%s is gone", document)
				}
			}
		})
	}
}

// alter turns one byte of a document's authentication.
func (w *world) alter(name string) {
	w.Helper()
	secret := w.getSecret(w.opts.KeysNamespace, name)
	text := string(secret.Data[keystore.DocumentKey])
	at := strings.Index(text, `"generation":`) + len(`"generation":`)
	secret.Data[keystore.DocumentKey] = []byte(text[:at] + "9" + text[at:])
	w.must(testEnv.Client.Update(w.Context(), secret))
}

// TestTwoKeyserversSweep: both at once, each with its own memory, in the rights that they have in a cluster.
func TestTwoKeyserversSweep(t *testing.T) {
	w := newWorld(t)
	w.identify()
	w.tenantKeys()
	bot, _ := w.newBot("support")
	set := w.storeAndRecord(bot).Secret
	first := w.tenant
	w.must(testEnv.Client.Delete(t.Context(), first))
	other, err := New(w.opts)
	w.must(err)
	for range 4 {
		w.clock.SetTime(w.clock.Now().Add(orphansEvery))
		var both sync.WaitGroup
		for _, s := range []*Server{w.server, other} {
			both.Go(func() {
				if err := s.sweepOrphans(t.Context()); err != nil {
					t.Log(err) // the other was first, or another test's leavings
				}
			})
		}
		both.Wait()
	}
	if !w.keyGone(keystore.TenantSecretName(first.Name)) || !w.keyGone(keystore.ObjectSecretName(string(bot.UID))) || !w.secretGone(w.ns, set) {
		t.Errorf("something is left\n%s", w.log.String())
	}
	if w.keyGone(keystore.PendingSecretName(string(first.UID))) {
		t.Error("no sealing key waits")
	}
	kid := first.Status.SealingKeys[0].KID
	w.tenantAgain()
	if got := w.tenantKeys(); got.SealingKeys[0].KID != kid {
		t.Error("the same Tenant does not get its keys")
	}
}

// TestSweepingKeysIsBounded: however much is without an owner, one pass does not destroy it all.
func TestSweepingKeysIsBounded(t *testing.T) {
	w := newRotationWorld(t)
	for i := range maxOrphans + 1 {
		tenant, uid := fmt.Sprintf("gone-%d", i), fmt.Sprintf("uid-%d", i)
		doc, err := keystore.NewDocument(w.opts.KeysNamespace, keystore.VersionsSecretName(uid), tenant, keystore.FormatVersions, 1, w.server.keys.KEKs(), keystore.VersionsDoc{Realm: testRealm, Tenant: tenant, TenantUID: uid})
		w.must(err)
		w.must(testEnv.Client.Create(t.Context(), doc))
	}
	left := func() (n int) {
		for i := range maxOrphans + 1 {
			if !w.keyGone(keystore.VersionsSecretName(fmt.Sprintf("uid-%d", i))) {
				n++
			}
		}
		return n
	}
	w.pass(orphansEvery)
	w.pass(orphansEvery)
	if n := left(); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
	w.pass(orphansEvery)
	if n := left(); n != 0 {
		t.Errorf("%d are left in the end", n)
	}
}

// TestMaintainSweepsKeys: it is not only there, it is called.
func TestMaintainSweepsKeys(t *testing.T) {
	w := newRotationWorld(t)
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	w.must(testEnv.Client.Delete(t.Context(), bot))
	for range 3 {
		w.clock.SetTime(w.clock.Now().Add(orphansEvery))
		w.must(w.server.Maintain(t.Context()))
	}
	if !w.keyGone(keystore.ObjectSecretName(string(bot.UID))) {
		t.Error("the keys of a bot that is gone are left")
	}
}
