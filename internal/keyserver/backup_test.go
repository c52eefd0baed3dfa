package keyserver

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// drill is an installation of its own with a tenant and a bot.
type drill struct {
	*world
	kek    sealing.Key
	bot    *v1alpha1.BotDeployment
	secret string
}

func newDrill(t *testing.T) *drill {
	t.Helper()
	kek := newKEK()
	w := newWorldAs(t, testEnv.As(t, "admin", "system:masters"), testEnv.Namespace(t, "drill", nil).Name, kek)
	w.must(w.server.keys.CheckKEK(t.Context()))
	w.tenantKeys()
	bot, secret := w.newBot("support")
	w.storeAndRecord(bot)
	return &drill{world: w, kek: kek, bot: bot, secret: secret}
}

func (d *drill) list() []corev1.Secret {
	d.Helper()
	var list corev1.SecretList
	d.must(testEnv.Client.List(d.Context(), &list, client.InNamespace(d.opts.KeysNamespace)))
	return list.Items
}

func (d *drill) backup() keystore.Backup {
	d.Helper()
	made, err := keystore.NewBackup(d.list(), d.clock.Now())
	d.must(err)
	file, err := made.Encode()
	d.must(err)
	if found := d.canaries.found(string(file)); len(found) > 0 {
		d.Errorf("the backup holds %v", found)
	}
	read, err := keystore.ReadBackup(file)
	d.must(err)
	d.must(read.Verify(sealing.Ring{d.kek}))
	return read
}

func (d *drill) live() keystore.Live {
	var tenant v1alpha1.Tenant
	d.must(testEnv.Client.Get(d.Context(), client.ObjectKeyFromObject(d.tenant), &tenant))
	var bot v1alpha1.BotDeployment
	d.must(testEnv.Client.Get(d.Context(), client.ObjectKeyFromObject(d.bot), &bot))
	return keystore.Live{Secrets: d.list(), Tenants: map[string]keystore.LiveTenant{tenant.Name: {UID: string(tenant.UID), Generation: tenant.Status.KeysGeneration}},
		Objects: []keystore.LiveObject{{ObjectRef: refTo(sealing.KindBotDeployment, &bot), Generation: bot.Status.CredentialsGeneration}}}
}

func (d *drill) write(r keystore.Restoration) {
	d.Helper()
	if len(r.Problems) > 0 {
		d.Fatalf("problems: %v", r.Problems)
	}
	for _, s := range r.Create {
		d.must(testEnv.Client.Create(d.Context(), s))
	}
	for _, s := range r.Replace {
		d.must(testEnv.Client.Update(d.Context(), s))
	}
	d.restart()
}

// opens says that the bot's pod gets its token.
func (d *drill) opens() {
	d.Helper()
	set := d.storeAndRecord(d.bot).Secret
	if set == "" {
		d.Fatalf("nothing is stored: %+v", d.store(d.bot).Items)
	}
	pod := d.startPod(d.bot, set)
	items, refusal := d.unseal(d.podToken(pod), string(pod.UID))
	d.granted(refusal)
	if string(items["telegram"].Value) != d.secret {
		d.Error("the pod got another value")
	}
}

func TestBackupAndRestore(t *testing.T) {
	d := newDrill(t)
	b := d.backup()
	items, err := b.List()
	d.must(err)
	if len(items) != 4 || b.KEK != d.kek.KID() || b.Realm != testRealm {
		t.Errorf("holds %+v", items)
	}
	// Everything is lost.
	for _, s := range d.list() {
		d.must(testEnv.Client.Delete(t.Context(), &s))
	}
	d.restart()
	plan, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	d.write(plan)
	d.opens()
	// Once more changes nothing.
	again, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(again.Create)+len(again.Replace)+len(again.Problems) > 0 || len(again.Kept) != 4 {
		t.Errorf("a second time: %+v", again)
	}
}

func TestRestoreAdoptsTenantsMadeAgain(t *testing.T) {
	d := newDrill(t)
	b := d.backup()
	// Another cluster: Tenant and bot come out of Git under their names, with new UIDs and no status.
	for _, s := range d.list() {
		if s.Name != keystore.CanaryName {
			d.must(testEnv.Client.Delete(t.Context(), &s))
		}
	}
	status := d.tenant.Status
	d.must(testEnv.Client.Delete(t.Context(), d.tenant))
	d.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: d.tenant.Name}, Spec: d.tenant.Spec}
	d.must(testEnv.Client.Create(t.Context(), d.tenant))
	d.tenant.Status.Namespaces = status.Namespaces
	d.must(testEnv.Client.Status().Update(t.Context(), d.tenant))
	d.must(testEnv.Client.Delete(t.Context(), d.bot))
	d.bot = &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.ns, Name: d.bot.Name}, Spec: d.bot.Spec}
	d.must(testEnv.Client.Create(t.Context(), d.bot))

	plan, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0], "--adopt") {
		t.Fatalf("without adopting: %+v", plan)
	}
	plan, err = b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{KEK: sealing.Ring{d.kek}, Adopt: true}, rand.Reader)
	d.must(err)
	d.write(plan)
	d.tenantKeys()
	d.opens()
	// How far the versions got is not lost.
	d.update(d.bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = d.seal0(2)
	})
	d.storeAndRecord(d.bot)
	again, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{KEK: sealing.Ring{d.kek}, Adopt: true}, rand.Reader)
	d.must(err)
	if len(again.Create)+len(again.Replace)+len(again.Problems) > 0 {
		t.Errorf("a second time: %+v", again)
	}
}

// seal0 seals with the tenant's key as the keyserver says it.
func (d *drill) seal0(version uint32) v1alpha1.SealedValue {
	d.Helper()
	d.tenantKeys()
	return d.seal(d.place(sealing.KindBotDeployment, d.bot.Name, "telegram", version), d.world.secret())
}

func TestRestoreReplacesTheKeysOfAnEarlierTenant(t *testing.T) {
	d := newDrill(t)
	b := d.backup()
	d.must(testEnv.Client.Delete(t.Context(), d.tenant))
	status := d.tenant.Status
	d.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: d.tenant.Name}, Spec: d.tenant.Spec}
	d.must(testEnv.Client.Create(t.Context(), d.tenant))
	d.tenant.Status.Namespaces = status.Namespaces
	d.must(testEnv.Client.Status().Update(t.Context(), d.tenant))
	d.restart()
	d.wantRefusal(d.askTenant(nil), v1alpha1.ReasonKeyMissing)
	plan, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{KEK: sealing.Ring{d.kek}, Adopt: true}, rand.Reader)
	d.must(err)
	if len(plan.Replace) != 2 || len(plan.Create) != 0 {
		t.Fatalf("would write %+v", plan)
	}
	d.write(plan)
	d.tenantKeys()
	d.opens()
}

func TestRestoreRefuses(t *testing.T) {
	d := newDrill(t)
	b := d.backup()
	other := newDrill(t)
	// Into keys of another installation.
	plan, err := b.Restore(other.opts.KeysNamespace, keystore.Live{Secrets: other.list()}, keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(plan.Problems) == 0 || !strings.Contains(plan.Problems[0], other.kek.KID()) {
		t.Errorf("into another installation: %+v", plan)
	}
	// Over keys that were made anew.
	d.must(testEnv.Client.Delete(t.Context(), d.getSecret(d.opts.KeysNamespace, keystore.ObjectSecretName(string(d.bot.UID)))))
	d.must(testEnv.Client.Delete(t.Context(), d.getSecret(d.opts.KeysNamespace, keystore.TenantSecretName(d.tenant.Name))))
	d.tenant.Status.SealingKeys, d.tenant.Status.KeysGeneration = nil, 0
	d.must(testEnv.Client.Status().Update(t.Context(), d.tenant))
	d.restart()
	d.granted(d.askTenant(nil))
	plan, err = b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0], "has other keys by now") {
		t.Errorf("over new keys: %+v", plan)
	}
	if _, err := b.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{KEK: sealing.Ring{other.kek}, Adopt: true}, rand.Reader); err == nil {
		t.Error("adopts with another KEK")
	}
	if err := b.Verify(sealing.Ring{other.kek}); err == nil {
		t.Error("opens with another KEK")
	}
}

func TestReadBackupRefuses(t *testing.T) {
	d := newDrill(t)
	file, err := d.backup().Encode()
	d.must(err)
	for name, text := range map[string][]byte{
		"nothing": nil, "cut": file[:len(file)/2], "altered": bytes.Replace(file, []byte(d.tenant.Name), []byte("t0"), 1),
		"another format": bytes.Replace(file, []byte("keys-backup/v2"), []byte("keys-backup/v9"), 1), "no backup": []byte(`{"format":"x"}`),
	} {
		if _, err := keystore.ReadBackup(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := keystore.NewBackup(nil, d.clock.Now()); err == nil {
		t.Error("a backup of nothing")
	}
	broken := d.list()
	broken[0].Data[keystore.DocumentKey] = []byte("{")
	if _, err := keystore.NewBackup(broken, d.clock.Now()); err == nil {
		t.Error("a backup with a hole")
	}
}
