package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// documented are the commands of the block of docs/install.md that follows a marker.
func documented(t *testing.T, marker string) [][]string {
	t.Helper()
	_, rest, found := strings.Cut(read(t, filepath.Join(testEnv.Root, "docs", "install.md")), marker)
	if !found {
		t.Fatalf("docs/install.md has no %s", marker)
	}
	_, rest, _ = strings.Cut(rest, "```sh\n")
	block, _, _ := strings.Cut(rest, "```")
	var out [][]string
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, words)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no command follows %s", marker)
	}
	return out
}

// disaster is a drill with a bot and a store that are sealed, whose whole cluster is lost.
type disaster struct {
	*drill
	c      *caller
	store  *v1alpha1.DataStore
	before v1alpha1.TenantStatus
	first  v1alpha1.SealedValue // the bot's, of version 1
}

func newDisaster(t *testing.T, name, namespace string) *disaster {
	t.Helper()
	d := &disaster{drill: newDrillIn(t, name, namespace), c: newCaller(t)}
	d.c.terminal, d.c.now = true, time.Now
	t.Cleanup(func() {
		all := &corev1.Secret{}
		if err := testEnv.Client.DeleteAllOf(context.WithoutCancel(t.Context()), all, client.InNamespace(namespace)); err != nil {
			t.Error(err)
		}
	})
	d.expect("make keys", d.makeKeys(), "")
	d.expect("the first value", d.stores("1"), v1alpha1.ReasonStored)
	d.first = d.bot.Spec.Credentials[0].Sealed
	d.expect("the second value", d.stores("2"), v1alpha1.ReasonStored)
	sealed := d.newCallerOfSeal().ok("secret-of-the-store", "seal", "--store", name+"/orders", "--host", "db.example.org", "--database", "orders", "--username", "lethe")
	d.store = &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "orders"}, Spec: v1alpha1.DataStoreSpec{
		Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{Host: "db.example.org", Port: 5432,
			Database: "orders", Username: "lethe", Password: v1alpha1.SealedValue(strings.TrimSpace(sealed.out))},
		Datasets: []v1alpha1.Dataset{{Name: "orders", DataClass: "Conversations", Table: v1alpha1.Table{Name: "orders", Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}}}}}
	create(t, d.store)
	d.expect("the store's", d.credentialOf(sealing.KindDataStore, d.store), v1alpha1.ReasonStored)
	d.before = d.tenant().Status
	return d
}

func (d *disaster) newCallerOfSeal() *caller { return newCaller(d.t) }

// credentialOf is what the keyserver says about the only credential of an object.
func (d *drill) credentialOf(kind string, o client.Object) string {
	d.t.Helper()
	var answer keyapi.CredentialsResponse
	if reason := d.ask(keyapi.PathCredentials, keyapi.CredentialsRequest{Object: refOf(kind, o)}, &answer); reason != "" {
		return reason
	}
	if len(answer.Items) != 1 {
		d.t.Fatalf("the keyserver speaks of %d credentials", len(answer.Items))
	}
	return answer.Items[0].Reason
}

// loseCluster leaves nothing but what Git, the backup and the folder of the KEK hold. (Namespaces stay empty: nothing
// here removes them.)
func (d *disaster) loseCluster() {
	d.t.Helper()
	for _, o := range []client.Object{d.bot, d.store, d.tenant()} {
		if err := testEnv.Client.Delete(d.t.Context(), o); err != nil {
			d.t.Fatal(err)
		}
	}
	var sets corev1.SecretList
	if err := testEnv.Client.List(d.t.Context(), &sets, client.InNamespace(d.name)); err != nil {
		d.t.Fatal(err)
	}
	for i := range sets.Items {
		if err := testEnv.AsCluster(d.t).Delete(d.t.Context(), &sets.Items[i]); err != nil {
			d.t.Fatal(err)
		}
	}
	d.loseKeys()
}

// applyGit makes again what was described, with new UIDs and without a status, and plays the manager for it.
func (d *disaster) applyGit() {
	d.t.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: d.name}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: d.name}}}}
	d.bot = &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.name, Name: d.bot.Name}, Spec: d.bot.Spec}
	d.store = &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: d.name, Name: d.store.Name}, Spec: d.store.Spec}
	create(d.t, tenant, d.bot, d.store)
	tenant.Status.Namespaces = d.before.Namespaces
	if err := testEnv.Client.Status().Update(d.t.Context(), tenant); err != nil {
		d.t.Fatal(err)
	}
	var answer keyapi.TenantResponse
	d.expect("the keys", d.ask(keyapi.PathTenant, keyapi.TenantRequest{Tenant: refOf("Tenant", tenant)}, &answer), "")
}

// isWhole says that what was sealed before opens, that no version went back, and that keys and user ids are the same.
func (d *disaster) isWhole() {
	d.t.Helper()
	var answer keyapi.TenantResponse
	d.expect("the keys", d.ask(keyapi.PathTenant, keyapi.TenantRequest{Tenant: refOf("Tenant", d.tenant())}, &answer), "")
	st := d.tenant().Status
	if !slices.Equal(st.SealingKeys, d.before.SealingKeys) {
		d.t.Errorf("the keys to seal to are %+v, were %+v", st.SealingKeys, d.before.SealingKeys)
	}
	if st.UIDRange == nil || *st.UIDRange != *d.before.UIDRange {
		d.t.Errorf("the user ids are %+v, were %+v", st.UIDRange, d.before.UIDRange)
	}
	d.expect("the bot's value", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonStored)
	d.expect("the store's value", d.credentialOf(sealing.KindDataStore, d.store), v1alpha1.ReasonStored)
	second := d.bot.Spec.Credentials[0].Sealed
	d.putInto(d.first)
	d.expect("the bot's first value", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonRolledBack)
	d.putInto(second)
	d.expect("the bot's value again", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonStored)
}

func (d *disaster) putInto(sealed v1alpha1.SealedValue) {
	d.t.Helper()
	d.bot.Spec.Credentials[0].Sealed = sealed
	if err := testEnv.Client.Update(d.t.Context(), d.bot); err != nil {
		d.t.Fatal(err)
	}
}

// run does what a documented command says; what is not a command of ours is played.
func (d *disaster) run(command []string) outcome {
	d.t.Helper()
	switch {
	case len(command) > 2 && command[0] == "kubectl" && command[1] == "lethe":
		return d.c.ok(d.namespace+"\n", command[2:]...)
	case command[0] == "helm" && command[1] == "install", slices.Contains(command, "restart") && slices.Contains(command, "deployment/lethe-keyserver"):
		d.restart()
	case command[0] == "kubectl" && command[1] == "apply" && slices.Contains(command, "tenants/"):
		d.applyGit() // all of it: the namespaces are there
	case command[0] == "kubectl" && (command[1] == "wait" || slices.Contains(command, "bots/")):
	default:
		d.t.Fatalf("docs/install.md says %q, which is no part of the drill", command)
	}
	return outcome{}
}

// inFolder has the commands' files where the commands expect them, and makes the backup as documented.
func (d *disaster) inFolder() {
	d.t.Helper()
	d.t.Chdir(d.t.TempDir())
	if err := os.WriteFile("kek", []byte(read(d.t, d.kekFile)), 0o600); err != nil {
		d.t.Fatal(err)
	}
	for _, command := range documented(d.t, "## Back up the keys") {
		d.run(command)
	}
}

// deleteOnPurpose makes a Tenant with keys and has them destroyed as at its deletion. It returns the names of the keys.
func (d *disaster) deleteOnPurpose(name string) []string {
	d.t.Helper()
	makeTenant(d.t, name, nil)
	other := *d.drill
	other.name = name
	other.setKeys(nil)
	d.expect("make keys", other.makeKeys(), "")
	tenant := other.tenant()
	if err := testEnv.Client.Delete(d.t.Context(), tenant); err != nil {
		d.t.Fatal(err)
	}
	var nothing struct{}
	d.expect("revoke", d.ask(keyapi.PathRevoke, keyapi.RevokeRequest{Object: refOf("Tenant", tenant)}, &nothing), "")
	return kidsOf(tenant)
}

// TestDrillAsDocumented: a cluster is lost, and another one is empty; the commands of docs/install.md, word by word,
// bring everything back but the keys of a Tenant that was deleted on purpose. helm renders the chart, kubectl applies
// Git, and the real manager and keyserver do the rest.
func TestDrillAsDocumented(t *testing.T) {
	i := newInstallation(t)
	drill := documented(t, "<!-- drill -->")
	i.run(drill[0])
	acme := i.newCustomer("acme")
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "acme-bots", Name: "orders"}, Spec: v1alpha1.DataStoreSpec{
		Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{Host: "db.example.org", Port: 5432, Database: "orders", Username: "lethe",
			Password: i.sealed("secret-of-the-store", "--store", "acme-bots/orders", "--host", "db.example.org", "--database", "orders", "--username", "lethe")},
		Datasets: []v1alpha1.Dataset{{Name: "orders", DataClass: "Conversations", Table: v1alpha1.Table{Name: "orders", Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}}}}}
	i.git("bots/acme-orders.yaml", store, "DataStore")
	purpose := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "purpose"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "purpose-bots"}}}}
	i.git("purpose.yaml", purpose, "Tenant")
	i.run([]string{"kubectl", "apply", "-f", "purpose.yaml"})
	i.apply()
	i.becomes(store, "CredentialsReady=True")
	i.becomes(purpose, "Ready=True")
	gone := kidsOf(purpose)
	i.run([]string{"kubectl", "delete", "tenant", "purpose", "--timeout=60s"})
	claim := &corev1.PersistentVolumeClaim{}
	i.must(testEnv.Client.Get(t.Context(), clientKey("acme-bots", "support-data"), claim))
	i.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(acme.tenant), acme.tenant))
	before := acme.tenant.DeepCopy()
	for _, command := range documented(t, "## Back up the keys") {
		i.run(command)
	}
	// What the storage keeps: the claim as it was, with whose it was, and the volume behind it.
	kept := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, Labels: claim.Labels, Annotations: claim.Annotations}, Spec: claim.Spec}
	kept.Spec.VolumeName = "the-volume-with-the-data"
	i.git("claims/support-data.yaml", kept, "PersistentVolumeClaim")

	i.newCluster()
	acme.bot.ObjectMeta = metav1.ObjectMeta{Namespace: "acme-bots", Name: "support"}
	acme.bot.Spec.Storage.Claim = &v1alpha1.BotClaim{Existing: "support-data"}
	i.git("bots/acme-support.yaml", acme.bot, "BotDeployment")
	var told string
	for _, command := range append(drill, documented(t, "<!-- drill-volumes -->")...) {
		told += i.run(command).errOut
	}
	if !strings.Contains(told, "Tenant purpose had been deleted") || !strings.Contains(told, "--tenant purpose") {
		t.Errorf("the restore does not say what stays away:\n%s", told)
	}
	i.becomes(acme.tenant, "Ready=True")
	i.becomesWithin(2*time.Minute, acme.bot, "Ready=True")
	i.becomes(store, "CredentialsReady=True")
	st := acme.tenant.Status
	if acme.tenant.UID == before.UID || !slices.Equal(st.SealingKeys, before.Status.SealingKeys) {
		t.Errorf("the keys to seal to are %+v, were %+v", st.SealingKeys, before.Status.SealingKeys)
	}
	if st.UIDRange == nil || *st.UIDRange != *before.Status.UIDRange {
		t.Errorf("the user ids are %+v, were %+v: the files on the volume are somebody else's", st.UIDRange, before.Status.UIDRange)
	}

	// The bot has its data: it runs, as the same user, with the claim of that volume and no other.
	set := &appsv1.StatefulSet{}
	i.must(testEnv.Client.Get(t.Context(), clientKey("acme-bots", resources.BotName("support")), set))
	mounted := slices.ContainsFunc(set.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == "support-data"
	})
	i.must(testEnv.Client.Get(t.Context(), clientKey("acme-bots", "support-data"), claim))
	if !mounted || claim.Spec.VolumeName != "the-volume-with-the-data" || claim.Annotations[v1alpha1.AnnotationTenantUID] != string(acme.tenant.UID) {
		t.Errorf("mounted: %t, the claim: %+v, of volume %q", mounted, claim.Annotations, claim.Spec.VolumeName)
	}

	// No version went back.
	acme.bot.ObjectMeta = metav1.ObjectMeta{Namespace: "acme-bots", Name: "support"}
	acme.bot.Spec.Credentials[0].Sealed = acme.first
	i.git("bots/acme-support.yaml", acme.bot, "BotDeployment")
	i.apply()
	i.becomes(acme.bot, "CredentialsReady=True/"+v1alpha1.ReasonRolledBack)

	i.run([]string{"kubectl", "apply", "-f", "purpose.yaml"})
	i.becomes(purpose, "KeysReady=True")
	if again := kidsOf(purpose); len(again) != 1 || slices.Contains(gone, again[0]) {
		t.Errorf("a Tenant that was deleted on purpose has its keys back: %v", again)
	}
	if once := i.run(drill[1]); !strings.Contains(once.errOut, "Nothing is missing") {
		t.Errorf("restored twice:\n%s", once.errOut)
	}
	i.becomes(acme.tenant, "KeysReady=True")
}

// TestDrillInTheWrongOrder: Git was applied first, and the keyserver has made new keys.
func TestDrillInTheWrongOrder(t *testing.T) {
	d := newDisaster(t, "drill-wrong", "lethe-keys")
	d.inFolder()
	d.loseCluster()
	d.restart()
	d.applyGit()
	d.expect("the bot's value", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonUnknownKey)

	// A value that is sealed to the new key keeps it.
	restore := documented(t, "<!-- drill-adopt -->")[0][2:]
	d.c.fails("", slices.DeleteFunc(slices.Clone(restore), func(s string) bool { return s == "--adopt" }), "nothing was written", "has other keys by now", "--adopt")
	old := d.bot.Spec.Credentials[0].Sealed
	d.putInto(v1alpha1.SealedValue(strings.TrimSpace(newCaller(t).ok(canary, "seal", "--bot", d.name+"/support", "--credential", "telegram-token", "--version", "3").out)))
	d.c.fails(d.namespace+"\n", restore, "nothing was written", "BotDeployment drill-wrong/support is sealed to them")
	d.expect("the new value", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonStored)
	d.putInto(old)
	d.c.fails(d.namespace+"\n", restore, "nothing was written", "a sealed value of BotDeployment drill-wrong/support is stored")
	for _, s := range d.secrets() {
		if s.Name == "object-"+string(d.bot.UID) {
			if err := testEnv.Client.Delete(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
		}
	}

	for _, command := range documented(t, "<!-- drill-adopt -->") {
		d.run(command)
	}
	d.isWhole()
	if again := d.c.ok("", restore...); !strings.Contains(again.errOut, "Nothing is missing") {
		t.Errorf("restored twice:\n%s", again.errOut)
	}
}

// dying lets some writes through, and no more.
type dying struct {
	client.Client
	left int
}

var errDead = errors.New("dead")

func (c *dying) spend() error {
	if c.left == 0 {
		return errDead
	}
	c.left--
	return nil
}

func (c *dying) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.Client.Create(ctx, o, opts...)
}

func (c *dying) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.Client.Update(ctx, o, opts...)
}

func (c *dying) Status() client.SubResourceWriter {
	if c.spend() != nil {
		return deadStatus{c.Client.Status()}
	}
	return c.Client.Status()
}

type deadStatus struct{ client.SubResourceWriter }

func (deadStatus) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return errDead
}

// TestRestoreSurvivesACrash: wherever the program dies while it writes, it is run again and everything is right.
func TestRestoreSurvivesACrash(t *testing.T) {
	for name, adopt := range map[string]bool{"drill-crash": false, "drill-crash-adopt": true} {
		t.Run(name, func(t *testing.T) {
			d := newDisaster(t, name, "lethe-keys")
			d.inFolder()
			writes := 0
			for d.diesAt(writes, adopt) {
				writes++
			}
			if writes < 3 {
				t.Errorf("a restore wrote %d times", writes)
			}
		})
	}
}

// diesAt restores after a loss, dies after so many writes, and restores again. It says whether it has died.
func (d *disaster) diesAt(writes int, adopt bool) bool {
	d.t.Helper()
	marker := "<!-- drill -->"
	d.loseCluster()
	d.restart()
	if adopt {
		marker = "<!-- drill-adopt -->"
		d.applyGit()
		d.expect("the bot's value", d.credentialOf(sealing.KindBotDeployment, d.bot), v1alpha1.ReasonUnknownKey)
	}
	backup, kek, err := openBackup("lethe-keys.json", []string{"kek"})
	if err != nil {
		d.t.Fatal(err)
	}
	live, err := readLive(d.t.Context(), testEnv.Client, d.namespace)
	if err != nil {
		d.t.Fatal(err)
	}
	plan, err := backup.Restore(d.namespace, live, keystore.RestoreOptions{KEK: kek, Adopt: adopt, AllTenants: !adopt, Now: time.Now()}, random(3))
	if err != nil || len(plan.Problems) > 0 {
		d.t.Fatal(err, plan.Problems)
	}
	err = writeKeys(d.t.Context(), &dying{testEnv.Client, writes}, plan)
	if err != nil && !errors.Is(err, errDead) {
		d.t.Fatal(err)
	}
	died := err != nil
	if died && adopt && writes == len(plan.Create)+len(plan.Replace) {
		// Only the status is missing: the keyserver refuses a Tenant whose keys and status differ, and makes no others.
		var answer keyapi.TenantResponse
		d.expect("half restored", d.ask(keyapi.PathTenant, keyapi.TenantRequest{Tenant: refOf("Tenant", d.tenant())}, &answer), v1alpha1.ReasonKeyMissing)
	}
	for _, command := range documented(d.t, marker) {
		if command[0] == "kubectl" {
			d.run(command)
		}
	}
	d.isWhole()
	return died
}

// TestRestoreNamesTenantsThatAreGone: what is not named stays away.
func TestRestoreNamesTenantsThatAreGone(t *testing.T) {
	d := newDisaster(t, "drill-named", "lethe-keys")
	d.deleteOnPurpose("drill-unnamed")
	d.inFolder()
	d.loseCluster()
	restore := []string{"keys", "restore", "lethe-keys.json"}
	d.c.fails("", append(restore, "--all-tenants"), "need --kek-file")
	d.c.fails("", append(restore, "--tenant", "drill-named"), "need --kek-file")
	d.c.fails("", append(restore, "--tenant", "nobody", "--kek-file", "kek"), `no keys of a Tenant "nobody"`)

	without := d.c.ok(d.namespace+"\n", append(restore, "--kek-file", "kek")...)
	if !strings.Contains(without.errOut, "Tenant drill-named does not exist: name it with --tenant drill-named") {
		t.Errorf("it does not say what stays away:\n%s", without.errOut)
	}
	d.keysThatWait()
	d.c.ok(d.namespace+"\n", append(restore, "--kek-file", "kek", "--tenant", "drill-unnamed")...)
	d.keysThatWait("drill-unnamed")
	d.c.ok(d.namespace+"\n", append(restore, "--kek-file", "kek", "--tenant", "drill-named")...)
	d.keysThatWait("drill-named", "drill-unnamed")
	d.restart()
	d.applyGit()
	d.isWhole()
}

// keysThatWait says of which Tenants there are keys at all: those that wait.
func (d *disaster) keysThatWait(want ...string) {
	d.t.Helper()
	var got []string
	for _, s := range d.secrets() {
		switch {
		case strings.HasPrefix(s.Name, "pending-"):
			got = append(got, s.Labels[v1alpha1.LabelTenant])
		case s.Labels[v1alpha1.LabelTenant] != "":
			d.t.Errorf("Secret %s was written for a Tenant that does not exist", s.Name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		d.t.Errorf("the keys of %v wait, want %v", got, want)
	}
}

// TestSealRefusesADeadKey: the status names a key that nobody may be able to open.
func TestSealRefusesADeadKey(t *testing.T) {
	d := newDrill(t, "drill-dead")
	d.expect("make keys", d.makeKeys(), "")
	tenant := d.tenant()
	tenant.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionKeysReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonKeyMissing,
		Message: "the keys of Tenant drill-dead are gone", LastTransitionTime: metav1.NewTime(day0)}}
	if err := testEnv.Client.Status().Update(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t)
	c.fails(canary, []string{"seal", "--bot", "drill-dead/support", "--credential", "telegram-token"}, "KeysReady is False (KeyMissing)", "keys restore")
	c.fails("", []string{"keys", "public", "drill-dead"}, "KeysReady is False (KeyMissing)", "are gone")
}
