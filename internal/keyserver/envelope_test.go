package keyserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// mutations are all the JSON texts that differ from one in exactly one place: each text, number and truth changed, each
// member and each entry taken away, each list's order turned, and each member that the Go type has and this document
// left out put in.
func mutations(t *testing.T, typ reflect.Type, document []byte) map[string][]byte {
	t.Helper()
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	var walk func(path string, typ reflect.Type, v any, put func(any))
	emit := func(path string) {
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = b
	}
	try := func(path string, old, changed any, put func(any)) {
		put(changed)
		emit(path)
		put(old)
	}
	walk = func(path string, typ reflect.Type, v any, put func(any)) {
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch v := v.(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				member, is := v[name], reflect.TypeFor[any]()
				if typ.Kind() == reflect.Map {
					is = typ.Elem()
				} else if f, ok := fieldOf(typ, name); ok {
					is = f.Type
				}
				walk(path+"."+name, is, member, func(n any) { v[name] = n })
				delete(v, name)
				emit(path + "." + name + " (left out)")
				v[name] = member
			}
			if typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]() {
				for i := range typ.NumField() {
					name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
					if _, there := v[name]; !there {
						v[name] = invented(typ.Field(i).Type)
						emit(path + "." + name + " (put in)")
						delete(v, name)
					}
				}
			}
		case []any:
			for i := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), typ.Elem(), v[i], func(n any) { v[i] = n })
				try(fmt.Sprintf("%s[%d] (taken away)", path, i), v, slices.Delete(slices.Clone(v), i, i+1), put)
				try(fmt.Sprintf("%s[%d] (twice)", path, i), v, append(slices.Clone(v), v[i]), put)
			}
		case string:
			try(path, v, v+"x", put)
			if v != "" {
				flipped := "A" + v[1:]
				if flipped == v {
					flipped = "B" + v[1:]
				}
				try(path+" (first letter)", v, flipped, put)
			}
		case float64:
			try(path, v, v+1, put)
			try(path+" (less)", v, v-1, put)
		case bool:
			try(path, v, !v, put)
		}
	}
	walk("", typ, value, func(any) {})
	return out
}

func fieldOf(typ reflect.Type, name string) (reflect.StructField, bool) {
	if typ.Kind() == reflect.Struct {
		for i := range typ.NumField() {
			if tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); tag == name {
				return typ.Field(i), true
			}
		}
	}
	return reflect.StructField{}, false
}

// invented is a value that a member of a type could have.
func invented(typ reflect.Type) any {
	switch typ.Kind() {
	case reflect.String:
		return "invented"
	case reflect.Slice:
		return []any{invented(typ.Elem())}
	case reflect.Map:
		return map[string]any{"invented": invented(typ.Elem())}
	case reflect.Pointer:
		return invented(typ.Elem())
	case reflect.Struct:
		if typ == reflect.TypeFor[time.Time]() {
			return "2026-01-01T00:00:00Z"
		}
		out := map[string]any{}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			out[name] = invented(typ.Field(i).Type)
		}
		return out
	}
	return 7
}

func TestMutationsReachEveryField(t *testing.T) {
	b, err := json.Marshal(keystore.ObjectDoc{Realm: "r", Keys: []keystore.KeyDoc{{KID: "a", Key: "b"}}, Credentials: map[string]keystore.CredentialDoc{"telegram": {Highest: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	got := mutations(t, reflect.TypeFor[keystore.ObjectDoc](), b)
	for _, want := range []string{".realm", ".realm (left out)", ".keys[0].kid", ".keys[0].key", ".keys[0] (taken away)", ".keys[0].state (put in)",
		".credentials.telegram.highest", ".credentials.telegram.highest (less)", ".credentials.telegram.source (put in)", ".sets (put in)", ".current (put in)"} {
		if _, ok := got[want]; !ok {
			t.Errorf("no mutation %s among %v", want, slices.Sorted(maps.Keys(got)))
		}
	}
}

// forge puts a document into an envelope as somebody would who may write the keys' namespace and has no key.
func (w *world) forge(secret *corev1.Secret, change func(*keystore.Envelope)) {
	w.Helper()
	var e keystore.Envelope
	w.must(json.Unmarshal(secret.Data[keystore.DocumentKey], &e))
	change(&e)
	b, err := json.Marshal(e)
	w.must(err)
	now := w.getSecret(secret.Namespace, secret.Name)
	now.Data[keystore.DocumentKey] = b
	w.must(testEnv.Client.Update(w.Context(), now))
	w.server.keys.ForgetAll()
	_ = w.server.keys.CheckKEK(w.Context()) // who asks is told what it found
}

// TestEveryFieldOfADocumentIsAuthenticated: whoever may write lethe-keys, and has no key, changes nothing of any
// document without being found out: not a field, not the envelope, not the Secret that it lies in, not one document
// for another.
func TestEveryFieldOfADocumentIsAuthenticated(t *testing.T) {
	d := newDrill(t)
	d.must(d.server.authority.Maintain(t.Context()))
	other, _ := d.newBot("other")
	d.store(other)
	credentials := func() *keyapi.Error {
		return d.call(keyapi.PathCredentials, d.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, d.bot)}, nil)
	}
	for _, tc := range []struct {
		name, secret string
		typ          reflect.Type
		ask          func() *keyapi.Error
		another      string // a Secret of the same format, or of another
	}{
		{"tenant", keystore.TenantSecretName(d.tenant.Name), reflect.TypeFor[keystore.TenantDoc](), func() *keyapi.Error { return d.askTenant(nil) }, keystore.CanaryName},
		{"object", keystore.ObjectSecretName(string(d.bot.UID)), reflect.TypeFor[keystore.ObjectDoc](), credentials, keystore.ObjectSecretName(string(other.UID))},
		{"canary", keystore.CanaryName, reflect.TypeFor[keystore.CanaryDoc](), func() *keyapi.Error { return d.askTenant(nil) }, keystore.CAName},
		{"authority", keystore.CAName, reflect.TypeFor[keystore.CADoc](), func() *keyapi.Error {
			if err := d.server.authority.Maintain(t.Context()); err != nil {
				return &keyapi.Error{Reason: v1alpha1.ReasonKeysAltered, Message: err.Error()}
			}
			return nil
		}, keystore.CanaryName},
		{"user ids", keystore.UIDsName, reflect.TypeFor[keystore.UIDsDoc](), func() *keyapi.Error {
			_, err := d.server.keys.AllocateUIDs(t.Context())
			if err != nil {
				return &keyapi.Error{Reason: v1alpha1.ReasonKeysAltered, Message: err.Error()}
			}
			return nil
		}, keystore.CanaryName},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := d.in(t)
			genuine := w.getSecret(d.opts.KeysNamespace, tc.secret)
			var e keystore.Envelope
			w.must(json.Unmarshal(genuine.Data[keystore.DocumentKey], &e))
			w.granted(tc.ask())
			refused := func(what string, change func(*keystore.Envelope)) {
				w.forge(genuine, change)
				if got := tc.ask(); got == nil {
					t.Errorf("%s: was accepted", what)
				}
			}
			all := mutations(t, tc.typ, e.Document)
			for what, document := range all {
				refused("document"+what, func(e *keystore.Envelope) { e.Document = document })
			}
			if len(all) < 4 {
				t.Errorf("only %d ways to change it", len(all))
			}
			refused("spaces in it", func(e *keystore.Envelope) {
				// Marshal would take plain spaces out again.
				e.Document = []byte(strings.Replace(string(e.Document), `"realm"`, "\"\\u0072ealm\"", 1))
			})
			for what, change := range map[string]func(*keystore.Envelope){
				"generation + 1": func(e *keystore.Envelope) { e.Generation++ }, "generation - 1": func(e *keystore.Envelope) { e.Generation-- },
				"no generation": func(e *keystore.Envelope) { e.Generation = 0 }, "format": func(e *keystore.Envelope) { e.Format = strings.Replace(e.Format, "/v2", "/v1", 1) },
				"no MAC": func(e *keystore.Envelope) { e.MAC = "" }, "a shorter MAC": func(e *keystore.Envelope) { e.MAC = e.MAC[:len(e.MAC)-4] },
				"another key's name": func(e *keystore.Envelope) { e.MAC = macOf("0123456789abcdef", e.MAC) },
				"no document":        func(e *keystore.Envelope) { e.Document = []byte("null") },
			} {
				refused(what, change)
			}
			another := w.getSecret(d.opts.KeysNamespace, tc.another)
			refused("another document", func(e *keystore.Envelope) { w.must(json.Unmarshal(another.Data[keystore.DocumentKey], e)) })
			w.forge(genuine, func(*keystore.Envelope) {})
			w.granted(tc.ask())
		})
	}
}

func macOf(kid, mac string) string {
	parts := strings.SplitN(mac, ".", 4)
	parts[2] = kid
	return strings.Join(parts, ".")
}

// in is the same drill for a subtest.
func (d *drill) in(t *testing.T) *world {
	t.Helper()
	return d.world.in(t)
}

// TestAnEarlierCopyOfADocumentIsRefused: every copy is authentic. The live object says how new it has to be.
func TestAnEarlierCopyOfADocumentIsRefused(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	name := keystore.ObjectSecretName(string(bot.UID))
	early := w.getSecret("lethe-keys", name)
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, "support", "telegram", 5), w.secret())
	})
	present := w.storeAndRecord(bot)
	if present.Generation < 2 {
		t.Fatalf("generation %d after a second write", present.Generation)
	}
	pod := w.startPod(bot, present.Secret)
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)

	now := w.getSecret("lethe-keys", name)
	newest := now.DeepCopy()
	now.Data = early.Data
	w.must(testEnv.Client.Update(w.Context(), now))
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKeysRolledBack)
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonKeysRolledBack)

	// Without any document it is not begun anew either, although the set's name is no longer in the status.
	w.must(testEnv.Client.Delete(w.Context(), now))
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(bot), bot))
	bot.Status.CredentialsSecret = ""
	w.must(testEnv.Client.Status().Update(w.Context(), bot))
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKeyMissing)

	w.must(testEnv.Client.Create(w.Context(), keystore.KeySecret("lethe-keys", name, w.tenant.Name, newest.Data[keystore.DocumentKey])))
	w.store(bot)
}

// TestAnEarlierCopyOfTheTenantsKeysIsRefused, and one replica sees what another has written.
func TestAnEarlierCopyOfTheTenantsKeysIsRefused(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	name := keystore.TenantSecretName(w.tenant.Name)
	early := w.getSecret("lethe-keys", name)
	keys, err := keystore.OpenTenantDocument(early, w.server.keys.KEKs())
	w.must(err)
	// Another replica writes it once more.
	_, generation, err := w.server.keys.UpdateDocument(t.Context(), early, keystore.FormatTenant, keys.Keys, keys.Doc)
	w.must(err)
	if resp := w.tenantKeys(); resp.Generation != generation || generation != 2 {
		t.Errorf("answered generation %d, written %d", resp.Generation, generation)
	}
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	now := w.getSecret("lethe-keys", name)
	now.Data = early.Data
	w.must(testEnv.Client.Update(w.Context(), now))
	w.restart()
	w.wantRefusal(w.askTenant(nil), v1alpha1.ReasonKeysRolledBack)
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil), v1alpha1.ReasonKeysRolledBack)
}

// TestTheFormatBeforeIsRefusedAloud: nothing of it is misread, and the message says what to do.
func TestTheFormatBeforeIsRefusedAloud(t *testing.T) {
	w := newWorld(t)
	old := keystore.KeySecret("lethe-keys", keystore.TenantSecretName(w.tenant.Name), w.tenant.Name,
		[]byte(`{"format":"lethe.dev/tenant-keys/v1","realm":"test","tenant":"`+w.tenant.Name+`","uid":"`+string(w.tenant.UID)+`","key":"wrap.v1.0.0.A","seal":[]}`))
	w.must(testEnv.Client.Create(t.Context(), old))
	refusal := w.askTenant(nil)
	w.wantRefusal(refusal, v1alpha1.ReasonKeyMissing)
	if !strings.Contains(refusal.Message, "tenant-keys/v1") || !strings.Contains(refusal.Message, "seal every credential again") {
		t.Errorf("says %q", refusal.Message)
	}
	if _, err := keystore.NewBackup([]corev1.Secret{*old}, w.clock.Now()); err == nil || !strings.Contains(err.Error(), "seal every credential again") {
		t.Errorf("a backup of it: %v", err)
	}
	if _, err := keystore.ReadBackup([]byte(`{"format":"lethe.dev/keys-backup/v1","secrets":[]}`)); err == nil || !strings.Contains(err.Error(), "seal every credential again") {
		t.Errorf("an earlier backup: %v", err)
	}
}

// digestOf is the digest that a forger would put into the file.
func digestOf(b keystore.Backup) string {
	h := sha256.New()
	for _, s := range b.Secrets {
		for _, part := range []string{s.Name, string(s.Document)} {
			fmt.Fprintf(h, "%d:%s,", len(part), part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestBackupIsVerifiedToTheLastField: a file whose digest was made to fit is found out by the key.
func TestBackupIsVerifiedToTheLastField(t *testing.T) {
	d := newDrill(t)
	d.must(d.server.authority.Maintain(t.Context()))
	genuine := d.backup()
	if digestOf(genuine) != genuine.Digest {
		t.Fatal("the digest of an unchanged file is not what the file says")
	}
	types := map[string]reflect.Type{keystore.FormatTenant: reflect.TypeFor[keystore.TenantDoc](), keystore.FormatObject: reflect.TypeFor[keystore.ObjectDoc](),
		keystore.FormatCA: reflect.TypeFor[keystore.CADoc](), keystore.FormatCanary: reflect.TypeFor[keystore.CanaryDoc](), keystore.FormatUIDs: reflect.TypeFor[keystore.UIDsDoc]()}
	for i, s := range genuine.Secrets {
		var e keystore.Envelope
		d.must(json.Unmarshal(s.Document, &e))
		for what, document := range mutations(t, types[e.Format], e.Document) {
			forged := genuine
			forged.Secrets = slices.Clone(genuine.Secrets)
			changed := e
			changed.Document = document
			b, err := json.Marshal(changed)
			d.must(err)
			forged.Secrets[i].Document = b
			forged.Digest = digestOf(forged)
			if err := forged.Verify(sealing.Ring{d.kek}); err == nil {
				t.Errorf("%s%s: verified", s.Name, what)
			}
		}
		renamed := genuine
		renamed.Secrets = slices.Clone(genuine.Secrets)
		renamed.Secrets[i].Name += "x"
		if err := renamed.Verify(sealing.Ring{d.kek}); err == nil {
			t.Errorf("%s under another name: verified", s.Name)
		}
	}
}

// TestRestoringAnOlderCopy needs the key, says what is lost, and works then.
func TestRestoringAnOlderCopy(t *testing.T) {
	d := newDrill(t)
	old := d.backup()
	d.update(d.bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = d.seal(d.place(sealing.KindBotDeployment, d.bot.Name, "telegram", 2), d.world.secret())
	})
	d.storeAndRecord(d.bot)
	d.must(testEnv.Client.Delete(t.Context(), d.getSecret(d.opts.KeysNamespace, keystore.ObjectSecretName(string(d.bot.UID)))))
	plan, err := old.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0], "--kek-file") {
		t.Fatalf("without the key: %+v", plan.Problems)
	}
	plan, err = old.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{KEK: sealing.Ring{d.kek}}, nil)
	d.must(err)
	if len(plan.Older) != 1 {
		t.Errorf("does not say that it is older: %+v", plan)
	}
	d.write(plan)
	if got := d.storeAndRecord(d.bot); got.Items[0].Reason != v1alpha1.ReasonStored {
		t.Errorf("answered %+v", got)
	}
}
