package keyserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// newRotationWorld has a keys' namespace and a KEK of its own.
func newRotationWorld(t *testing.T) *world {
	t.Helper()
	w := newWorldAs(t, testEnv.AsCluster(t), testEnv.Namespace(t, "keys", nil).Name, newKEK())
	w.must(w.server.Maintain(t.Context()))
	w.tenantKeys()
	return w
}

// ask changes the ConfigMap as the program does.
func (w *world) ask(change func(*corev1.ConfigMap) error) {
	w.Helper()
	cm := &corev1.ConfigMap{}
	err := testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: keystore.RotationName}, cm)
	if client.IgnoreNotFound(err) != nil {
		w.Fatal(err)
	}
	missing := err != nil
	if missing {
		cm = keystore.NewRotation(w.opts.KeysNamespace)
	}
	w.must(change(cm))
	if missing {
		w.must(testEnv.Client.Create(w.Context(), cm))
		return
	}
	w.must(testEnv.Client.Update(w.Context(), cm))
}

// askFor asks for a layer, some seconds after everything that is there was made.
func (w *world) askFor(layer keystore.Layer, tenant string) {
	w.Helper()
	w.later(2 * time.Second)
	w.ask(func(cm *corev1.ConfigMap) error { return keystore.AskRotation(cm, layer, tenant, w.clock.Now()) })
}

func (w *world) later(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

// settle has passes run until nothing is left but what people have to do.
func (w *world) settle(servers ...*Server) keystore.RotationStatus {
	w.Helper()
	if len(servers) == 0 {
		servers = []*Server{w.server}
	}
	for range 12 {
		for _, s := range servers {
			w.must(s.Rotate(w.Context()))
		}
		st := w.rotation()
		if st.Left[keystore.LayerKEK]+st.Left[keystore.LayerTenant]+st.Left[keystore.LayerData]+len(st.Problems) == 0 && !servers[0].rotation.waits {
			return st
		}
		w.later(lateWrites)
	}
	w.Fatalf("not over: %+v\n%s", w.rotation(), w.log.String())
	return keystore.RotationStatus{}
}

func (w *world) rotation() keystore.RotationStatus {
	w.Helper()
	cm := &corev1.ConfigMap{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: keystore.RotationStatusName}, cm))
	st, err := keystore.ReadRotationStatus(cm)
	w.must(err)
	return st
}

// replica is another process with other key-encryption keys, the first of which wraps when it is asked for.
func (w *world) replica(kek sealing.Key, previous ...sealing.Key) *Server {
	w.Helper()
	o := w.opts
	o.KEK, o.KEKPrevious = kek, previous
	metrics, err := NewMetrics(prometheus.NewRegistry())
	w.must(err)
	o.Metrics = metrics
	s, err := New(o)
	w.must(err)
	return s
}

func (w *world) tenantDocument() keystore.TenantDoc {
	w.Helper()
	var doc keystore.TenantDoc
	_, err := keystore.ReadDocument(w.getSecret(w.opts.KeysNamespace, keystore.TenantSecretName(w.tenant.Name)), keystore.FormatTenant, &doc)
	w.must(err)
	return doc
}

func (w *world) objectDocument(bot *v1alpha1.BotDeployment) keystore.ObjectDoc {
	w.Helper()
	var doc keystore.ObjectDoc
	_, err := keystore.ReadDocument(w.getSecret(w.opts.KeysNamespace, keystore.ObjectSecretName(string(bot.UID))), keystore.FormatObject, &doc)
	w.must(err)
	return doc
}

// encrypted are the names of the encrypted Secrets of the tenant's namespace.
func (w *world) encrypted() []string {
	w.Helper()
	var list corev1.SecretList
	w.must(testEnv.Client.List(w.Context(), &list, client.InNamespace(w.ns)))
	var out []string
	for _, s := range list.Items {
		if s.Type == v1alpha1.SecretTypeEncrypted {
			out = append(out, s.Name)
		}
	}
	return out
}

// runner is a bot that runs: a pod asks for its credentials again and again.
type runner struct {
	bot    *v1alpha1.BotDeployment
	secret string
	set    string
	pod    *corev1.Pod
	token  string
}

func (w *world) newRunner(name string) *runner {
	w.Helper()
	r := &runner{}
	r.bot, r.secret = w.newBot(name)
	r.set = w.storeAndRecord(r.bot).Secret
	r.pod = w.startPod(r.bot, r.set)
	r.token = w.podToken(r.pod)
	return r
}

// goesOn says that a pod gets its credential, and that the manager is told the same set as ever: a rotation restarts
// nothing.
func (w *world) goesOn(r *runner, when string) {
	w.Helper()
	items, refusal := w.unseal(r.token, string(r.pod.UID))
	if refusal != nil || string(items["telegram"].Value) != r.secret {
		w.Fatalf("%s: the pod does not get its credential: %+v\n%s", when, refusal, w.log.String())
	}
	resp := w.store(r.bot)
	if resp.Secret != r.set || resp.Items[0].Reason != v1alpha1.ReasonStored {
		w.Fatalf("%s: the set is %q by now (%+v), and was %q: the bot would restart", when, resp.Secret, resp.Items, r.set)
	}
}

func TestDataKeysRotateWithoutARestart(t *testing.T) {
	w := newRotationWorld(t)
	r := w.newRunner("support")
	before := w.objectDocument(r.bot)
	w.askFor(keystore.LayerData, w.tenant.Name)
	w.settle()
	after := w.objectDocument(r.bot)
	if len(after.Keys) != 1 || after.Keys[0].KID == before.Keys[0].KID || len(after.Moving) > 0 {
		t.Errorf("the document holds %+v, before %+v", after, before)
	}
	if left := w.encrypted(); len(left) != 1 || left[0] == r.set || left[0] != after.Secrets[r.set] {
		t.Errorf("the namespace holds %v", left)
	}
	w.goesOn(r, "afterwards")
	// Once more, and then a new value: names go on, and nothing is left over.
	w.askFor(keystore.LayerData, "")
	w.settle()
	w.goesOn(r, "after the second time")
	if left := w.encrypted(); len(left) != 1 {
		t.Errorf("the namespace holds %v", left)
	}
	w.update(r.bot, func(bot *v1alpha1.BotDeployment) {
		bot.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, bot.Name, "telegram", 2), w.secret())
	})
	if next := w.store(r.bot); next.Secret == r.set || next.Items[0].Version != 2 {
		t.Errorf("a new value: %+v", next)
	}
	// Nothing is due: nothing is written.
	w.writes.reset(0, false)
	w.restart()
	w.must(w.server.Rotate(t.Context()))
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes with nothing to do: %v", n, seen)
	}
}

// TestAPlainValueKeepsItsSet: what a secretKeyRef names is told apart by a key that a new data key does not change.
func TestAPlainValueKeepsItsSet(t *testing.T) {
	w := newRotationWorld(t)
	plain := &corev1.Secret{Data: map[string][]byte{"token": []byte(w.secret())}}
	plain.Namespace, plain.Name, plain.Annotations = w.ns, "plain", map[string]string{"lethe.dev/credential-for": "plain"}
	w.must(testEnv.Client.Create(t.Context(), plain))
	bot, _ := w.newBot("plain", func(bot *v1alpha1.BotDeployment) {
		bot.Spec.Credentials[0].Sealed = ""
		bot.Spec.Credentials[0].SecretKeyRef = &v1alpha1.SecretKeyRef{Name: "plain", Key: "token"}
	})
	set := w.storeAndRecord(bot).Secret
	w.askFor(keystore.LayerData, "")
	w.askFor(keystore.LayerTenant, "")
	w.settle()
	if resp := w.store(bot); set == "" || resp.Secret != set {
		t.Errorf("the set is %q by now, and was %q: %+v", resp.Secret, set, resp.Items)
	}
}

// layers asks for one layer each and says what a process needs for it.
func layersOf(w *world) map[keystore.Layer]func() *Server {
	fresh := newKEK()
	simple := func(layer keystore.Layer) func() *Server {
		return func() *Server { w.restart(); return w.server }
	}
	return map[keystore.Layer]func() *Server{
		keystore.LayerSealing: simple(keystore.LayerSealing), keystore.LayerData: simple(keystore.LayerData), keystore.LayerTenant: simple(keystore.LayerTenant),
		keystore.LayerKEK: func() *Server {
			w.opts.KEK, w.opts.KEKPrevious = fresh, []sealing.Key{w.opts.KEK}
			if w.opts.KEKPrevious[0].KID() == fresh.KID() {
				w.opts.KEKPrevious = w.before
			}
			w.before = w.opts.KEKPrevious
			w.restart()
			return w.server
		},
	}
}

// TestRotationSurvivesACrashAtEveryWrite: for each layer the process dies before and after each write. In every state
// that this leaves a pod gets its credential, and the next process ends what was begun, with nothing left over.
func TestRotationSurvivesACrashAtEveryWrite(t *testing.T) {
	for _, layer := range keystore.Layers() {
		for failAt := 1; ; failAt++ {
			crashes := 0
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, write %d, landed %t", layer, failAt, after), func(t *testing.T) {
					if w := crashedRotation(t, layer, failAt, after); w {
						crashes++
					}
				})
			}
			if crashes == 0 || t.Failed() {
				break
			}
			if failAt > 20 {
				t.Fatalf("%s: more than twenty writes", layer)
			}
		}
	}
}

// crashedRotation says whether there was such a write.
func crashedRotation(t *testing.T, layer keystore.Layer, failAt int, after bool) bool {
	w := newRotationWorld(t)
	r := w.newRunner("support")
	process := layersOf(w)[layer]
	process()
	w.askFor(layer, map[bool]string{true: "", false: w.tenant.Name}[layer == keystore.LayerKEK])
	w.writes.reset(failAt, after)
	for range 4 {
		_ = w.server.Rotate(t.Context()) // it dies in there, or is over
		w.later(lateWrites)
	}
	n, seen := w.writes.writes()
	if n < failAt {
		return false
	}
	w.writes.reset(0, false)
	process()
	w.goesOn(r, fmt.Sprintf("after the crash at %v", seen))
	st := w.settle()
	if st.Left[layer] > 0 && layer != keystore.LayerSealing {
		t.Errorf("left: %+v", st.Left)
	}
	w.goesOn(r, "afterwards")
	w.rotated(r, layer)
	if left := w.encrypted(); len(left) != 1 {
		t.Errorf("the namespace holds %v", left)
	}
	w.writes.reset(0, false)
	process()
	w.must(w.server.Maintain(t.Context()))
	w.must(w.server.Rotate(t.Context()))
	if n, seen := w.writes.writes(); n != 0 {
		t.Errorf("%d writes with nothing to do: %v", n, seen)
	}
	return true
}

// rotated says that there is one new key of a layer, and none too many.
func (w *world) rotated(r *runner, layer keystore.Layer) {
	w.Helper()
	tenant, object := w.tenantDocument(), w.objectDocument(r.bot)
	asked := w.clock.Now().Add(-time.Hour) // all of the test is younger
	switch layer {
	case keystore.LayerSealing:
		if len(tenant.Seal) != 2 || tenant.Seal[0].State != keystore.StateActive || tenant.Seal[1].State != keystore.StateRetired {
			w.Errorf("sealing keys: %+v", tenant.Seal)
		}
		w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
		if keys := w.tenant.Status.SealingKeys; len(keys) != 2 || keys[0].KID != tenant.Seal[0].KID || keys[1].State != v1alpha1.SealingKeyRetired {
			w.Errorf("the status shows %+v", keys)
		}
	case keystore.LayerTenant:
		parent, err := sealing.WrappingKID(object.Keys[0].Key)
		if len(tenant.Keys) != 1 || err != nil || parent != tenant.Keys[0].KID || tenant.Keys[0].Since.Before(asked) {
			w.Errorf("the tenant's keys: %+v, the object's under %s", tenant.Keys, parent)
		}
	case keystore.LayerData:
		if len(object.Keys) != 1 || len(object.Secrets) != 1 || len(object.Moving) != 0 {
			w.Errorf("the object's document: %+v", object)
		}
	case keystore.LayerKEK:
		for _, s := range w.keySecrets() {
			if keystore.FormatOf(&s) != keystore.FormatObject && keystore.FormatOf(&s) != keystore.FormatTenant && keystore.FormatOf(&s) != keystore.FormatCanary && !keystore.UnderKEK(&s, w.opts.KEK.KID()) {
				w.Errorf("%s is not under the new key", s.Name)
			}
		}
	}
}

func (w *world) keySecrets() []corev1.Secret {
	w.Helper()
	var list corev1.SecretList
	w.must(testEnv.Client.List(w.Context(), &list, client.InNamespace(w.opts.KeysNamespace)))
	return list.Items
}

// TestTwoReplicasRotateAtOnce: two processes rotate every layer at the same time, while bots come in and pods ask.
func TestTwoReplicasRotateAtOnce(t *testing.T) {
	w := newRotationWorld(t)
	var runners []*runner
	for i := range 12 {
		runners = append(runners, w.newRunner(fmt.Sprintf("bot-%d", i)))
	}
	fresh := newKEK()
	old := w.opts.KEK
	w.opts.KEK, w.opts.KEKPrevious = fresh, []sealing.Key{old}
	w.restart()
	other := w.replica(fresh, old)
	w.must(other.Maintain(t.Context()))
	for _, layer := range []keystore.Layer{keystore.LayerKEK, keystore.LayerTenant, keystore.LayerSealing, keystore.LayerData} {
		w.askFor(layer, "")
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, s := range []*Server{w.server, other} {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := s.Rotate(ctx); err != nil && ctx.Err() == nil && asRefusal(err).RetryAfter == 0 {
					t.Errorf("a pass: %v", err)
				}
				s.rotation.mu.Lock()
				s.rotation.version = "" // no wait between two passes
				s.rotation.mu.Unlock()
			}
		})
	}
	for i := range 8 {
		w.goesOn(runners[i], "meanwhile")
		runners = append(runners, w.newRunner(fmt.Sprintf("late-%d", i)))
	}
	stop()
	wg.Wait()
	st := w.settle(w.server, other)
	for _, s := range []*Server{w.server, other} {
		w.server = s
		for _, r := range runners {
			w.goesOn(r, "afterwards")
		}
	}
	if len(w.encrypted()) != len(runners) || st.Left[keystore.LayerData] > 0 {
		t.Errorf("%d encrypted Secrets of %d bots; left %v", len(w.encrypted()), len(runners), st.Left)
	}
	if doc := w.tenantDocument(); len(doc.Keys) != 1 || len(doc.Seal) != 2 {
		t.Errorf("one request each made %d keys of the tenant and %d sealing keys", len(doc.Keys), len(doc.Seal))
	}
}

// TestARememberedKeyIsReadAnew: a replica that remembers a tenant's keys meets what another one has made since.
func TestARememberedKeyIsReadAnew(t *testing.T) {
	w := newRotationWorld(t)
	r := w.newRunner("support")
	w.goesOn(r, "before") // the server remembers the tenant's keys from here on
	other := w.replica(w.opts.KEK)
	w.askFor(keystore.LayerTenant, "")
	w.askFor(keystore.LayerSealing, "")
	w.must(other.Rotate(t.Context()))
	w.goesOn(r, "with the tenant's key of another replica")
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	bot, secret := w.newBot("new")
	resp := w.store(bot)
	if resp.Items[0].Reason != v1alpha1.ReasonStored || secret == "" {
		t.Errorf("a value that is sealed to another replica's new key: %+v", resp.Items)
	}
}

func TestRetiredSealingKeysAreDestroyedByPeople(t *testing.T) {
	w := newRotationWorld(t)
	r := w.newRunner("support")
	old := w.tenant.Status.SealingKeys[0].KID
	destroy := func(force bool) keystore.RotationStatus {
		w.Helper()
		w.later(2 * time.Second)
		w.ask(func(cm *corev1.ConfigMap) error {
			return keystore.AskDestruction(cm, old, keystore.DestroyRequest{Tenant: w.tenant.Name, At: w.clock.Now(), Force: force})
		})
		w.must(w.server.Rotate(t.Context()))
		return w.rotation()
	}
	if st := destroy(true); !strings.Contains(st.Refused[old], "key to seal to") || len(w.tenantDocument().Seal) != 1 {
		t.Errorf("the present key: %+v", st)
	}
	w.askFor(keystore.LayerSealing, w.tenant.Name)
	if st := w.settle(); st.Left[keystore.LayerSealing] != 1 {
		t.Errorf("%d values on retired keys, want 1", st.Left[keystore.LayerSealing])
	}
	if st := destroy(false); !strings.Contains(st.Refused[old], "1 values of live objects") || len(w.tenantDocument().Seal) != 2 {
		t.Errorf("a key that is needed: %+v", st)
	}
	// Sealed again, the request of before is too old to come true by itself.
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	earlier := r.bot.Spec.Credentials[0].Sealed
	r.secret = w.secret()
	w.update(r.bot, func(bot *v1alpha1.BotDeployment) {
		bot.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, bot.Name, "telegram", 2), r.secret)
	})
	w.storeAndRecord(r.bot)
	w.later(recount + keystore.DestroyWithin)
	w.must(w.server.Rotate(t.Context()))
	if len(w.tenantDocument().Seal) != 2 {
		t.Error("a request that was refused came true on another day")
	}
	w.writes.reset(0, false)
	if st := destroy(false); st.Refused[old] != "" || len(w.tenantDocument().Seal) != 1 {
		t.Errorf("a key that nothing needs: %+v", st)
	}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	if keys := w.tenant.Status.SealingKeys; len(keys) != 1 || keys[0].KID == old {
		t.Errorf("the status shows %+v", keys)
	}
	// What was sealed to it opens no more, on any replica, and says why.
	w.later(2 * keystore.KeyMemory)
	w.update(r.bot, func(bot *v1alpha1.BotDeployment) { bot.Spec.Credentials[0].Sealed = earlier })
	if resp := w.store(r.bot); resp.Items[0].Reason != v1alpha1.ReasonUnknownKey || !strings.Contains(resp.Items[0].Message, "was destroyed on") {
		t.Errorf("a value that is sealed to it: %+v", resp.Items)
	}
	w.granted(w.askTenant(nil))
}

func TestForceDestroysASealingKeyThatIsNeeded(t *testing.T) {
	w := newRotationWorld(t)
	w.newRunner("support")
	old := w.tenant.Status.SealingKeys[0].KID
	w.askFor(keystore.LayerSealing, "")
	w.settle()
	w.later(2 * time.Second)
	w.ask(func(cm *corev1.ConfigMap) error {
		return keystore.AskDestruction(cm, old, keystore.DestroyRequest{Tenant: w.tenant.Name, At: w.clock.Now(), Force: true})
	})
	w.must(w.server.Rotate(t.Context()))
	if doc := w.tenantDocument(); len(doc.Seal) != 1 || len(doc.Destroyed) != 1 || doc.Destroyed[0].KID != old {
		t.Errorf("the document holds %+v", doc)
	}
}

// TestRotationWithTheRightsOfTheChart: the keyserver's own identity may do all of it.
func TestRotationWithTheRightsOfTheChart(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	r := w.newRunner("support")
	w.askFor(keystore.LayerData, w.tenant.Name)
	w.askFor(keystore.LayerSealing, w.tenant.Name)
	w.askFor(keystore.LayerTenant, w.tenant.Name)
	for range 3 {
		w.must(w.server.Rotate(t.Context()))
		w.later(lateWrites)
	}
	if tenant, object := w.tenantDocument(), w.objectDocument(r.bot); len(tenant.Keys) != 1 || len(tenant.Seal) != 2 || len(object.Secrets) != 1 || len(object.Moving) != 0 {
		t.Errorf("tenant %+v, object %+v; problems %v", tenant, object, w.rotation().Problems)
	}
	w.goesOn(r, "afterwards")
	if slices.ContainsFunc(w.rotation().Problems, func(p string) bool { return strings.Contains(p, "lacks a right") }) {
		t.Errorf("problems: %v", w.rotation().Problems)
	}
}
