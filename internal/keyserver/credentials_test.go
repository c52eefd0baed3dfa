package keyserver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

func (w *world) getSecret(ns, name string) *corev1.Secret {
	w.Helper()
	s := &corev1.Secret{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: ns, Name: name}, s))
	return s
}

func (w *world) secretGone(ns, name string) bool {
	w.Helper()
	return apierrors.IsNotFound(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: ns, Name: name}, &corev1.Secret{}))
}

func TestCredentialsAreStoredOnce(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.writes.reset(0, false)
	resp := w.store(bot)
	if n, seen := w.writes.writes(); n != 2 {
		t.Errorf("%d writes for a new bot, want its key and its Secret: %v", n, seen)
	}
	if len(resp.Items) != 1 || resp.Items[0].Reason != v1alpha1.ReasonStored || resp.Items[0].Version != 1 || resp.Items[0].Plaintext {
		t.Errorf("items %+v", resp.Items)
	}
	secret := w.getSecret(w.ns, resp.Secret)
	owner := metav1.GetControllerOf(secret)
	if secret.Type != v1alpha1.SecretTypeEncrypted || secret.Immutable == nil || !*secret.Immutable || owner == nil || owner.UID != bot.UID || owner.Kind != "BotDeployment" {
		t.Errorf("the Secret is of type %s, immutable %v, owned by %v", secret.Type, secret.Immutable, owner)
	}
	if !strings.HasPrefix(secret.Name, "support-cred-") || len(secret.Data) != 1 || !strings.HasPrefix(string(secret.Data["telegram"]), "enc.v1.") {
		t.Errorf("the Secret %s holds %d values", secret.Name, len(secret.Data))
	}
	// Before and after its status is known, and in a new process.
	for _, step := range []func(){func() {}, func() { w.storeAndRecord(bot) }, w.restart} {
		step()
		w.writes.reset(0, false)
		if again := w.store(bot); again.Secret != resp.Secret {
			t.Errorf("stored again as %s", again.Secret)
		}
	}
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("a repeat made %d writes: %v", n, seen)
	}
	key := w.getSecret("lethe-keys", keystore.ObjectSecretName(string(bot.UID)))
	if key.Type != v1alpha1.SecretTypeWrappedKey || key.Labels[keystore.LabelVelero] != "true" || key.Labels[v1alpha1.LabelTenant] != w.tenant.Name {
		t.Errorf("the key's Secret is of type %s with labels %v", key.Type, key.Labels)
	}
	for _, s := range []*corev1.Secret{secret, key, w.getSecret("lethe-keys", keystore.TenantSecretName(w.tenant.Name))} {
		if found := w.canaries.found(dump(t, s)); len(found) > 0 {
			t.Errorf("Secret %s holds %v", s.Name, found)
		}
	}
}

// dump is an object as etcd would hold it, with the data of Secrets also decoded.
func dump(t *testing.T, s *corev1.Secret) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out := string(b)
	for _, v := range s.Data {
		out += string(v)
	}
	return out
}

func TestCredentialsRepairTheirSecret(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	name := w.storeAndRecord(bot).Secret
	w.must(w.cluster.Delete(w.Context(), w.getSecret(w.ns, name)))
	if again := w.store(bot); again.Secret != name {
		t.Errorf("stored again as %s", again.Secret)
	}
	if w.secretGone(w.ns, name) {
		t.Error("the Secret was not made again")
	}
}

func TestCredentialsInTheWrongPlace(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	own := w.place(sealing.KindBotDeployment, "support", "telegram", 1)
	for name, tc := range map[string]struct {
		change func(*sealing.Place)
		want   string
		says   string
	}{
		"another tenant":    {func(p *sealing.Place) { p.Tenant = "globex" }, v1alpha1.ReasonWrongPlace, "sealed for tenant globex"},
		"another namespace": {func(p *sealing.Place) { p.Namespace = "globex-bots" }, v1alpha1.ReasonWrongPlace, "sealed for namespace globex-bots"},
		"another bot":       {func(p *sealing.Place) { p.Name = "sales" }, v1alpha1.ReasonWrongPlace, "sealed for name sales"},
		"another key":       {func(p *sealing.Place) { p.Key = "openai" }, v1alpha1.ReasonWrongPlace, "sealed for key openai"},
		"another kind": {func(p *sealing.Place) {
			p.Kind, p.Destination = sealing.KindDataStore, sealing.Destination{Type: "Postgres", Host: "h", Port: 1}
		}, v1alpha1.ReasonWrongPlace, "sealed for kind DataStore"},
		"another realm": {func(p *sealing.Place) { p.Realm = "prod" }, v1alpha1.ReasonDoesNotOpen, "realm"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			place := own
			tc.change(&place)
			bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = w.seal(place, w.secret()) })
			defer func() { w.must(testEnv.Client.Delete(w.Context(), bot)) }()
			resp := w.store(bot)
			if resp.Secret != "" || resp.Items[0].Reason != tc.want || !strings.Contains(resp.Items[0].Message, tc.says) {
				t.Errorf("answered %+v", resp)
			}
			if !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) {
				t.Error("a key was made for nothing")
			}
		})
	}
	t.Run("another tenant's key", func(t *testing.T) {
		other := newWorld(t)
		other.tenantKeys()
		w := w.in(t)
		bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = other.seal(own, w.secret()) })
		if resp := w.store(bot); resp.Items[0].Reason != v1alpha1.ReasonUnknownKey {
			t.Errorf("answered %+v", resp)
		}
	})
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	c := *w
	c.T = t
	return &c
}

func TestPlaintextNeverComesBack(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	// The API server refuses what does not look sealed, without repeating it.
	plain := w.secret()
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "plain"}, Spec: v1alpha1.BotDeploymentSpec{Image: "i:1",
		Credentials: []v1alpha1.Credential{{Name: "telegram", Sealed: v1alpha1.SealedValue(plain)}}}}
	if err := testEnv.Client.Create(w.Context(), bot); err == nil || len(w.canaries.found(err.Error())) > 0 {
		t.Errorf("created, or the value came back: %v", err != nil)
	}
	// What does look so gets as far as the keyserver.
	secret := strings.ReplaceAll(w.secret(), ":", "-")
	w.canaries.add(secret)
	looks, _ := w.newBot("looks", func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = v1alpha1.SealedValue("seal.v1.a.b.c.d." + secret)
	})
	resp := w.store(looks)
	if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonMalformed || !strings.Contains(resp.Items[0].Message, "kubectl lethe seal") {
		t.Errorf("answered %+v", resp)
	}
}

func TestRolledBackKeepsTheNewer(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	at := func(version uint32, secret string) v1alpha1.SealedValue {
		return w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", version), secret)
	}
	old := at(2, w.secret())
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = old })
	w.storeAndRecord(bot)
	newSecret := w.secret()
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = at(3, newSecret) })
	current := w.storeAndRecord(bot).Secret

	// A git revert.
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = old })
	w.writes.reset(0, false)
	resp := w.store(bot)
	if resp.Secret != current || resp.Items[0].Reason != v1alpha1.ReasonRolledBack || resp.Items[0].Version != 3 || !strings.Contains(resp.Items[0].Message, "version 2 is older than version 3") {
		t.Errorf("answered %+v, in use is %s", resp, current)
	}
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes: %v", n, seen)
	}
	// The pod still gets the newer one, also out of a set that is made anew beside another credential.
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "openai",
			Sealed: w.seal(w.place(sealing.KindBotDeployment, "support", "openai", 1), w.secret())})
	})
	resp = w.storeAndRecord(bot)
	if resp.Secret == current || resp.Secret == "" {
		t.Fatalf("answered %+v", resp)
	}
	pod := w.startPod(bot, resp.Secret)
	items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	if string(items["telegram"].Value) != newSecret || len(items) != 2 {
		t.Error("the pod did not get the newer value")
	}
	// The old value, sealed again with a higher version, is a wish.
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = at(4, w.secret()) })
	if resp = w.store(bot); resp.Items[0].Reason != v1alpha1.ReasonStored || resp.Items[0].Version != 4 {
		t.Errorf("answered %+v", resp)
	}
}

func TestRolledBackAfterTheCredentialWasRemoved(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	extra := func(version uint32) v1alpha1.Credential {
		return v1alpha1.Credential{Name: "openai", Sealed: w.seal(w.place(sealing.KindBotDeployment, "support", "openai", version), w.secret())}
	}
	first := extra(1)
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials = append(b.Spec.Credentials, extra(5)) })
	w.storeAndRecord(bot)
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials = b.Spec.Credentials[:1] })
	w.storeAndRecord(bot)
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials = append(b.Spec.Credentials, first) })
	resp := w.store(bot)
	if resp.Secret != "" || resp.Items[1].Reason != v1alpha1.ReasonRolledBack || !strings.Contains(resp.Items[1].Message, "--version 6") {
		t.Errorf("answered %+v", resp)
	}
}

func TestMistakeKeepsTheValueInUse(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	name := w.storeAndRecord(bot).Secret
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "sales", "telegram", 2), w.secret())
	})
	resp := w.store(bot)
	if resp.Secret != name || resp.Items[0].Reason != v1alpha1.ReasonWrongPlace || !strings.Contains(resp.Items[0].Message, "goes on being used") {
		t.Errorf("answered %+v", resp)
	}
}

func TestSecretKeyRef(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = []v1alpha1.Credential{{Name: "telegram", SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "plain", Key: "token"}, Delivery: v1alpha1.DeliveryEnv, EnvName: "TOKEN"}}
	})
	resp := w.store(bot)
	if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonSecretMissing {
		t.Errorf("without the Secret: %+v", resp)
	}
	first := w.secret()
	plain := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "plain"}, StringData: map[string]string{"token": first}}
	w.must(testEnv.Client.Create(w.Context(), plain))
	// Who may write bots and no Secrets must not come by one that was put there for something else.
	for _, names := range []string{"", "other", "support2,upport", "support/x"} {
		plain.Annotations = map[string]string{v1alpha1.AnnotationCredentialFor: names}
		w.must(testEnv.Client.Update(w.Context(), plain))
		for _, key := range []string{"token", "no-such-key"} {
			w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].SecretKeyRef.Key = key })
			resp = w.store(bot)
			if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonSecretNotShared ||
				!strings.Contains(resp.Items[0].Message, "kubectl annotate secret -n "+w.ns+" plain lethe.dev/credential-for=support") {
				t.Errorf("shared with %q, key %s: %+v", names, key, resp)
			}
		}
	}
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].SecretKeyRef.Key = "token" })
	for _, names := range []string{"*", "other, support"} {
		plain.Annotations = map[string]string{v1alpha1.AnnotationCredentialFor: names}
		w.must(testEnv.Client.Update(w.Context(), plain))
		if resp = w.store(bot); resp.Items[0].Reason != v1alpha1.ReasonStored {
			t.Errorf("shared with %q: %+v", names, resp)
		}
	}
	resp = w.storeAndRecord(bot)
	if resp.Secret == "" || resp.Items[0].Reason != v1alpha1.ReasonStored || !resp.Items[0].Plaintext {
		t.Fatalf("answered %+v", resp)
	}
	pod := w.startPod(bot, resp.Secret)
	items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	if item := items["telegram"]; string(item.Value) != first || item.EnvName != "TOKEN" {
		t.Error("the pod got something else")
	}
	// Another label on the Secret is no other value.
	plain.Labels = map[string]string{"team": "a"}
	w.must(testEnv.Client.Update(w.Context(), plain))
	w.writes.reset(0, false)
	if again := w.store(bot); again.Secret != resp.Secret {
		t.Errorf("stored again as %s", again.Secret)
	}
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes: %v", n, seen)
	}
	plain.Data["token"] = []byte(w.secret())
	w.must(testEnv.Client.Update(w.Context(), plain))
	changed := w.store(bot)
	if changed.Secret == resp.Secret || changed.Secret == "" {
		t.Errorf("a new value was stored as %s", changed.Secret)
	}
	// Deleting the Secret keeps the value in use, and says so.
	w.must(testEnv.Client.Delete(w.Context(), plain))
	gone := w.store(bot)
	if gone.Secret != changed.Secret || gone.Items[0].Reason != v1alpha1.ReasonSecretMissing {
		t.Errorf("without the Secret again: %+v", gone)
	}
	for name, value := range map[string]string{"empty": "", "too large": strings.Repeat("x", sealing.MaxPlaintext+1)} {
		again := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "plain", Annotations: map[string]string{v1alpha1.AnnotationCredentialFor: "*"}}, Data: map[string][]byte{"token": []byte(value)}}
		w.must(testEnv.Client.Create(w.Context(), again))
		if resp := w.store(bot); resp.Items[0].Reason != v1alpha1.ReasonMalformed {
			t.Errorf("%s: %+v", name, resp)
		}
		w.must(testEnv.Client.Delete(w.Context(), again))
	}
}

func TestForeignSecretIsRefused(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	name := w.storeAndRecord(bot).Secret
	w.must(w.cluster.Delete(w.Context(), w.getSecret(w.ns, name)))
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name}, StringData: map[string]string{"mine": "yes"}}
	w.must(testEnv.Client.Create(w.Context(), foreign))
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonForeignSecret)
	if got := w.getSecret(w.ns, name); string(got.Data["mine"]) != "yes" || len(got.Data) != 1 {
		t.Error("the foreign Secret was changed")
	}
}

func TestOldSetsGoWhenNothingRefersToThem(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	first := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, first)
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 2), w.secret())
	})
	second := w.storeAndRecord(bot).Secret
	if w.secretGone(w.ns, first) {
		t.Fatal("the template still refers to the first set, and it is gone")
	}
	// The template moves on; the present revision and the pod have not.
	sts := &appsv1.StatefulSet{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.ns, Name: resources.BotName("support")}, sts))
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"template": sts.Spec.Template}})
	w.must(err)
	revision := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "support-bot-1"}, Revision: 1}
	revision.Data.Raw = raw
	w.must(w.cluster.Create(w.Context(), revision))
	sts.Spec.Template.Annotations[v1alpha1.AnnotationCredentials] = second
	w.must(w.cluster.Update(w.Context(), sts))
	w.store(bot)
	if w.secretGone(w.ns, first) {
		t.Fatal("a pod still has the first set, and it is gone")
	}
	w.must(w.cluster.Delete(w.Context(), pod))
	w.store(bot)
	if w.secretGone(w.ns, first) {
		t.Fatal("the controller has not seen the new template, and the first set is gone")
	}
	sts.Status = appsv1.StatefulSetStatus{ObservedGeneration: sts.Generation, CurrentRevision: "support-bot-1", UpdateRevision: "support-bot-2", Replicas: 1}
	w.must(w.cluster.Status().Update(w.Context(), sts))
	w.store(bot)
	if w.secretGone(w.ns, first) {
		t.Fatal("the present revision still refers to the first set, and it is gone")
	}
	sts.Status.CurrentRevision = "support-bot-2"
	w.must(w.cluster.Status().Update(w.Context(), sts))
	w.store(bot)
	if !w.secretGone(w.ns, first) || w.secretGone(w.ns, second) {
		t.Errorf("first gone: %v, second gone: %v", w.secretGone(w.ns, first), w.secretGone(w.ns, second))
	}
	w.writes.reset(0, false)
	w.store(bot)
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes afterwards: %v", n, seen)
	}
}

func TestStorePasswordIsBoundToItsDestination(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	ca := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString([]byte("der")) + "\n-----END CERTIFICATE-----\n"
	store := w.newStore("chat", ca)
	var resp keyapi.CredentialsResponse
	req := keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, store)}
	w.granted(w.call(keyapi.PathCredentials, w.manager, req, &resp))
	if resp.Secret == "" || len(resp.Items) != 1 || resp.Items[0].Name != "password" {
		t.Fatalf("answered %+v", resp)
	}
	for name, change := range map[string]func(*v1alpha1.PostgresStore){
		"host":     func(p *v1alpha1.PostgresStore) { p.Host = "evil.example" },
		"port":     func(p *v1alpha1.PostgresStore) { p.Port = 5433 },
		"database": func(p *v1alpha1.PostgresStore) { p.Database = "other" },
		"username": func(p *v1alpha1.PostgresStore) { p.Username = "postgres" },
		"caBundle": func(p *v1alpha1.PostgresStore) { p.CABundle = ca + ca },
	} {
		w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(store), store))
		was := *store.Spec.Postgres
		change(store.Spec.Postgres)
		w.must(testEnv.Client.Update(w.Context(), store))
		w.granted(w.call(keyapi.PathCredentials, w.manager, req, &resp))
		if resp.Items[0].Reason != v1alpha1.ReasonWrongPlace || !strings.Contains(resp.Items[0].Message, "destination") {
			t.Errorf("another %s: %+v", name, resp)
		}
		*store.Spec.Postgres = was
		w.must(testEnv.Client.Update(w.Context(), store))
	}
}

// newStore makes a store whose password is sealed to its destination.
func (w *world) newStore(name, ca string, change ...func(*v1alpha1.DataStoreSpec)) *v1alpha1.DataStore {
	w.Helper()
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name}, Spec: v1alpha1.DataStoreSpec{
		Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
		Postgres: &v1alpha1.PostgresStore{Host: "db.example", Port: 5432, Database: "chat", Username: "sweeper", CABundle: ca},
		Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations", Table: v1alpha1.Table{Schema: "public", Name: "messages",
			Key: []v1alpha1.Identifier{"id"}, AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}}}}}
	for _, f := range change {
		f(&store.Spec)
	}
	place := w.place(sealing.KindDataStore, name, sealing.PasswordKey, 1)
	place.Destination = sealing.DestinationOf(&store.Spec)
	store.Spec.Postgres.Password = w.seal(place, w.secret())
	w.must(testEnv.Client.Create(w.Context(), store))
	return store
}

// TestCredentialsSurviveACrash lets the process die before and after each of its writes, in creating and in changing,
// and then asks again: it converges on the same, with nothing twice and nothing left over.
func TestCredentialsSurviveACrash(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			name := fmt.Sprintf("bot-%v-%d", after, at)
			bot, _ := w.newBot(name)
			w.writes.reset(at, after)
			crashed := w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil) != nil
			w.writes.reset(0, false)
			w.restart()
			first := w.storeAndRecord(bot).Secret
			w.wantSets(bot, first)

			secret := w.secret()
			w.update(bot, func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, name, "telegram", 2), secret)
			})
			w.writes.reset(at, after)
			crashed = w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil) != nil || crashed
			w.writes.reset(0, false)
			w.restart()
			second := w.storeAndRecord(bot).Secret
			if second == first {
				t.Error("the new value was not stored")
			}
			w.wantSets(bot, second)
			pod := w.startPod(bot, second)
			items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
			w.granted(refusal)
			if string(items["telegram"].Value) != secret {
				t.Error("the pod got another value")
			}
			if !crashed && at > 1 {
				break
			}
			if at > 20 {
				t.Fatal("there is no end of writes")
			}
		}
	}
}

// wantSets says that exactly one encrypted Secret of a bot is there.
func (w *world) wantSets(bot *v1alpha1.BotDeployment, want string) {
	w.Helper()
	var list corev1.SecretList
	w.must(testEnv.Client.List(w.Context(), &list, client.InNamespace(w.ns), client.MatchingLabels{v1alpha1.LabelBot: bot.Name}))
	if len(list.Items) != 1 || list.Items[0].Name != want {
		w.Errorf("%d encrypted Secrets, want %s alone", len(list.Items), want)
	}
}

func TestRolledBackDuringACrash(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	secret := w.secret()
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 2), secret)
	})
	w.storeAndRecord(bot)
	// A revert beside a new credential makes a new set with the old value in it; the process dies with the set recorded
	// and its Secret not there. The old value must be found in the set before.
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 1), w.secret())
		b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "openai",
			Sealed: w.seal(w.place(sealing.KindBotDeployment, "support", "openai", 1), w.secret())})
	})
	w.writes.reset(1, true)
	if w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil) == nil {
		t.Fatal("there was no write to die at")
	}
	w.writes.reset(0, false)
	w.restart()
	set := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, set)
	items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	if string(items["telegram"].Value) != secret {
		t.Error("the pod got another value")
	}
}

func TestLostDataKeyIsNotMadeAgain(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	w.must(testEnv.Client.Delete(w.Context(), w.getSecret("lethe-keys", keystore.ObjectSecretName(string(bot.UID)))))
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKeyMissing)
	if !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) {
		t.Error("a key was made in its place")
	}
}

func TestObjectsThatAreNotTheTenants(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	ask := func(ref keyapi.ObjectRef) *keyapi.Error {
		return w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: ref}, nil)
	}
	ref := refTo(sealing.KindBotDeployment, bot)
	for name, tc := range map[string]struct {
		change func(*keyapi.ObjectRef)
		want   string
	}{
		"another UID":  {func(r *keyapi.ObjectRef) { r.UID = "5d1f6d2e-0000-4000-8000-000000000001" }, v1alpha1.ReasonNotFound},
		"another name": {func(r *keyapi.ObjectRef) { r.Name = "sales" }, v1alpha1.ReasonNotFound},
		"another kind": {func(r *keyapi.ObjectRef) { r.Kind = "Secret" }, v1alpha1.ReasonBadRequest},
		"no UID":       {func(r *keyapi.ObjectRef) { r.UID = "" }, v1alpha1.ReasonBadRequest},
	} {
		r := ref
		tc.change(&r)
		if got := ask(r); got == nil || got.Reason != tc.want {
			t.Errorf("%s: %+v, want %s", name, got, tc.want)
		}
	}
	// A namespace that carries the label and was not taken, and one that is made again under the same name.
	w.tenant.Status.Namespaces[0].UID = "5d1f6d2e-0000-4000-8000-000000000009"
	w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
	w.clock.SetTime(w.clock.Now().Add(tenantMemory))
	w.wantRefusal(ask(ref), v1alpha1.ReasonNoTenant)
}
