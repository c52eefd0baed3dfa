package keyserver

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

func (w *world) askTenant(into *keyapi.TenantResponse) *keyapi.Error {
	w.Helper()
	if into == nil {
		into = &keyapi.TenantResponse{}
	}
	return w.call(keyapi.PathTenant, w.manager, keyapi.TenantRequest{Tenant: refTo("Tenant", w.tenant)}, into)
}

func TestTenantKeysAreMadeOnce(t *testing.T) {
	w := newWorld(t)
	// Four at a time, as two replicas with two workers would.
	answers := make([]keyapi.TenantResponse, 4)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if e := w.askTenant(&answers[i]); e != nil {
				t.Errorf("refused: %s", e.Message)
			}
		}()
	}
	wg.Wait()
	for _, a := range answers {
		if len(a.SealingKeys) != 1 || a.SealingKeys[0].KID != answers[0].SealingKeys[0].KID || a.KEKGrade != GradeProduction || a.SealingKeys[0].Realm != testRealm {
			t.Errorf("answered %+v, before %+v", a, answers[0])
		}
	}
	w.restart()
	w.writes.reset(0, false)
	if again := w.tenantKeys(); again.SealingKeys[0].KID != answers[0].SealingKeys[0].KID {
		t.Error("other keys in a new process")
	}
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("a repeat made %d writes: %v", n, seen)
	}
	pub, err := sealing.ParsePublicKey(answers[0].SealingKeys[0].Suite, answers[0].SealingKeys[0].Public)
	if err != nil || pub.KID() != answers[0].SealingKeys[0].KID {
		t.Errorf("the public key is not readable: %v", err)
	}
}

func TestTenantKeysAreNeverMadeAgain(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.store(bot)
	name := keystore.TenantSecretName(w.tenant.Name)
	backup := w.getSecret("lethe-keys", name)
	w.must(testEnv.Client.Delete(w.Context(), backup))
	w.restart()
	refusal := w.askTenant(nil)
	w.wantRefusal(refusal, v1alpha1.ReasonKeyMissing)
	if !strings.Contains(refusal.Message, "kubectl lethe keys restore") || refusal.RetryAfter != 0 {
		t.Errorf("says %q", refusal.Message)
	}
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKeyMissing)
	// Also when the status was lost: an object's key still tells.
	w.tenant.Status.SealingKeys, w.tenant.Status.KeysGeneration = nil, 0
	w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKeyMissing)
	if !w.secretGone("lethe-keys", name) {
		t.Fatal("keys were made in their place")
	}
	// The backup brings everything back.
	w.must(testEnv.Client.Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "lethe-keys", Name: name, Labels: backup.Labels}, Type: backup.Type, Data: backup.Data}))
	w.granted(w.askTenant(nil))
	if w.store(bot).Secret == "" {
		t.Error("the restored keys do not open")
	}
}

func TestTenantKeysThatOnlyTheStatusKnowsOf(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	name := keystore.TenantSecretName(w.tenant.Name)
	w.must(testEnv.Client.Delete(t.Context(), w.getSecret("lethe-keys", name)))
	w.restart()
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKeyMissing)
	if !w.secretGone("lethe-keys", name) {
		t.Error("keys were made in their place")
	}
}

func TestTenantsThatAreNot(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	ref := refTo("Tenant", w.tenant)
	for name, change := range map[string]func(*keyapi.ObjectRef){
		"another UID":  func(r *keyapi.ObjectRef) { r.UID = "5d1f6d2e-0000-4000-8000-000000000001" },
		"another name": func(r *keyapi.ObjectRef) { r.Name += "x" },
	} {
		r := ref
		change(&r)
		if got := w.call(keyapi.PathTenant, w.manager, keyapi.TenantRequest{Tenant: r}, nil); got == nil || got.Reason != v1alpha1.ReasonNotFound {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := w.call(keyapi.PathTenant, w.manager, keyapi.TenantRequest{}, nil); got == nil || got.Reason != v1alpha1.ReasonBadRequest {
		t.Errorf("nothing: %+v", got)
	}
}

func TestKeysOfAnEarlierTenantAreRefused(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	before := w.getSecret("lethe-keys", keystore.TenantSecretName(w.tenant.Name)).UID
	w.must(testEnv.Client.Delete(w.Context(), w.tenant))
	again := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: w.tenant.Name}, Spec: w.tenant.Spec}
	w.must(testEnv.Client.Create(w.Context(), again))
	w.tenant = again
	refusal := w.askTenant(nil)
	w.wantRefusal(refusal, v1alpha1.ReasonKeyMissing)
	if !strings.Contains(refusal.Message, "earlier Tenant") || !strings.Contains(refusal.Message, "--adopt") {
		t.Errorf("says %q", refusal.Message)
	}
	if w.getSecret("lethe-keys", keystore.TenantSecretName(again.Name)).UID != before {
		t.Error("the earlier keys were replaced")
	}
}

func TestTenantKeysSurviveACrash(t *testing.T) {
	w := newWorld(t)
	for _, after := range []bool{false, true} {
		w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
		w.writes.reset(1, after)
		w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonInternal)
		w.writes.reset(0, false)
		w.restart()
		var first, second keyapi.TenantResponse
		w.granted(w.askTenant(&first))
		w.granted(w.askTenant(&second))
		if first.SealingKeys[0].KID != second.SealingKeys[0].KID {
			t.Error("two keys")
		}
	}
}

func TestRevokingATenant(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	other := newWorld(t)
	other.tenantKeys()
	req := keyapi.RevokeRequest{Object: refTo("Tenant", w.tenant)}
	w.wantRefusal(w.call(keyapi.PathRevoke, w.manager, req, nil), v1alpha1.ReasonForbidden)
	w.must(testEnv.Client.Delete(w.Context(), w.tenant))
	for range 2 {
		w.granted(w.call(keyapi.PathRevoke, w.manager, req, nil))
	}
	if !w.secretGone("lethe-keys", keystore.TenantSecretName(w.tenant.Name)) || !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) {
		t.Error("keys are left over")
	}
	if other.secretGone("lethe-keys", keystore.TenantSecretName(other.tenant.Name)) {
		t.Error("another tenant's keys are gone")
	}
	// Nothing is remembered of them.
	refusal := w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil)
	w.wantRefusal(refusal, v1alpha1.ReasonNoTenant)
}

func TestRevokeSurvivesACrash(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	for _, after := range []bool{false, true} {
		store := w.newStore(fmt.Sprintf("chat-%t", after), "")
		req := keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, store)}
		w.granted(w.call(keyapi.PathCredentials, w.manager, req, nil))
		w.must(testEnv.Client.Delete(w.Context(), store))
		crashes := 0
		for at := 1; at <= 2; at++ {
			w.writes.reset(at, after)
			if w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest(req), nil) != nil {
				crashes++
			}
			w.writes.reset(0, false)
			w.restart()
		}
		if crashes == 0 {
			t.Error("there was no write to die at")
		}
		w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest(req), nil))
		if !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(store.UID))) {
			t.Error("the key is still there")
		}
	}
}

func TestWrongKEKMakesNothing(t *testing.T) {
	keys := testEnv.Namespace(t, "keys", nil).Name
	admin := testEnv.As(t, "admin", "system:masters")
	right, wrong := newKEK(), newKEK()
	w := newWorldAs(t, admin, keys, right)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.store(bot)
	before := w.keyNames(keys)

	w.opts.KEK = wrong
	w.restart()
	refusal := w.askTenant(nil)
	w.wantRefusal(refusal, v1alpha1.ReasonKEKUnavailable)
	if refusal.RetryAfter == 0 || !strings.Contains(refusal.Message, right.KID()) || !strings.Contains(refusal.Message, wrong.KID()) {
		t.Errorf("says %q", refusal.Message)
	}
	if err := w.server.Ready(t.Context()); err == nil {
		t.Error("is ready with the wrong KEK")
	}
	if err := w.server.Maintain(t.Context()); err == nil {
		t.Error("maintains keys with the wrong KEK")
	}
	mine := w.tenant
	w.tenant, _ = w.newTenant(v1alpha1.TenantCustomer)
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKEKUnavailable)
	w.tenant = mine
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKEKUnavailable)

	// Not even when the canary is lost: the other keys tell.
	w.must(admin.Delete(t.Context(), w.getSecret(keys, keystore.CanaryName)))
	w.restart()
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKEKUnavailable)
	if got := w.keyNames(keys); len(got) != len(before)-1 {
		t.Errorf("there are %v, before %v", got, before)
	}
	// Another realm is another installation.
	w.opts.KEK, w.opts.Realm = right, "other"
	w.restart()
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKEKUnavailable)

	w.opts.Realm = testRealm
	w.restart()
	w.granted(w.askTenant(nil))
	if got := w.keyNames(keys); len(got) != len(before) {
		t.Errorf("there are %v, before %v", got, before)
	}
}

func (w *world) keyNames(ns string) []string {
	w.Helper()
	var list corev1.SecretList
	w.must(testEnv.Client.List(w.Context(), &list, client.InNamespace(ns)))
	var out []string
	for _, s := range list.Items {
		out = append(out, s.Name)
	}
	return out
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Options){
		"no KEK": func(o *Options) { o.KEK = sealing.Key{} }, "no grade": func(o *Options) { o.KEKGrade = "" }, "no realm": func(o *Options) { o.Realm = "" },
		"a long realm": func(o *Options) { o.Realm = strings.Repeat("r", 64) }, "no client": func(o *Options) { o.Client = nil }, "no hosts": func(o *Options) { o.Hosts = nil },
		"no image": func(o *Options) { o.Settings.Image = "" },
	} {
		o := w.opts
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
