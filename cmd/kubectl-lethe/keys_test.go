package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
)

// drill is an installation with a real keyserver, a tenant and a bot, whose keys are lost and brought back.
type drill struct {
	t         *testing.T
	kekFile   string
	namespace string // of the keys
	name      string // of the tenant and its namespace
	bot       *v1alpha1.BotDeployment
	server    *httptest.Server
	token     string
	keys      *keyserver.Server
	previous  []string // files of key-encryption keys of before
}

func newDrill(t *testing.T, name string) *drill {
	t.Helper()
	return newDrillIn(t, name, testEnv.Namespace(t, "keys", nil).Name)
}

// newDrillIn is one whose keys lie in a namespace that is there already, and is empty.
func newDrillIn(t *testing.T, name, namespace string) *drill {
	t.Helper()
	d := &drill{t: t, kekFile: filepath.Join(t.TempDir(), "kek"), namespace: namespace, name: name}
	_, err := generateKEK(rand.Reader, d.kekFile)
	if err != nil {
		t.Fatal(err)
	}
	makeTenant(t, name, nil)
	d.setKeys(nil) // here the keyserver makes them
	if d.token, err = testEnv.Token(t.Context(), env.SystemNamespace, resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil); err != nil {
		t.Fatal(err)
	}
	d.restart()
	return d
}

// setKeys writes the Tenant's status, as the manager would.
func (d *drill) setKeys(keys []v1alpha1.SealingKey) {
	d.t.Helper()
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(d.t.Context(), clientKey("", d.name), &tenant); err != nil {
		d.t.Fatal(err)
	}
	tenant.Status.SealingKeys = keys
	if err := testEnv.Client.Status().Update(d.t.Context(), &tenant); err != nil {
		d.t.Fatal(err)
	}
}

// restart begins a keyserver that remembers nothing.
func (d *drill) restart() {
	d.t.Helper()
	kek, err := keystore.LoadKEK(d.kekFile)
	if err != nil {
		d.t.Fatal(err)
	}
	var previous []sealing.Key
	for _, file := range d.previous {
		key, err := keystore.LoadKEK(file)
		if err != nil {
			d.t.Fatal(err)
		}
		previous = append(previous, key)
	}
	metrics, err := keyserver.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		d.t.Fatal(err)
	}
	settings := resources.DefaultSettings()
	settings.Image = "lethe:test"
	s, err := keyserver.New(keyserver.Options{Client: testEnv.AsCluster(d.t), KEK: kek, KEKPrevious: previous, KEKGrade: keyserver.GradeProduction, Realm: testRealm,
		KeysNamespace: d.namespace, Hosts: []string{"localhost"}, Settings: settings, Clock: clock.RealClock{}, Random: rand.Reader,
		Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	if err != nil {
		d.t.Fatal(err)
	}
	d.keys = s
	d.server = httptest.NewServer(s.Handler())
	d.t.Cleanup(d.server.Close)
}

// ask posts to the keyserver as the manager. The reason is empty when it said yes.
func (d *drill) ask(path string, question, answer any) (reason string) {
	d.t.Helper()
	body, err := json.Marshal(question)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.server.URL+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+d.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e keyapi.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			d.t.Fatal(err)
		}
		return e.Reason
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		d.t.Fatal(err)
	}
	return ""
}

// makeKeys has the tenant's keys made and writes them to its status, as the manager would.
func (d *drill) makeKeys() (reason string) {
	d.t.Helper()
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(d.t.Context(), clientKey("", d.name), &tenant); err != nil {
		d.t.Fatal(err)
	}
	var answer keyapi.TenantResponse
	if reason := d.ask(keyapi.PathTenant, keyapi.TenantRequest{Tenant: refOf("Tenant", &tenant)}, &answer); reason != "" {
		return reason
	}
	var keys []v1alpha1.SealingKey
	for _, k := range answer.SealingKeys {
		keys = append(keys, v1alpha1.SealingKey(k))
	}
	d.setKeys(keys)
	return ""
}

// stores seals a value with the program, puts it into the bot, and has the keyserver open it. It returns what the
// keyserver says about the credential.
func (d *drill) stores(version string) string {
	d.t.Helper()
	sealed := v1alpha1.SealedValue(strings.TrimSpace(newCaller(d.t).ok(canary, "seal", "--bot", d.name+"/support",
		"--credential", "telegram-token", "--version", version).out))
	if d.bot == nil {
		d.bot = &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.name, Name: "support"}, Spec: v1alpha1.BotDeploymentSpec{
			Image: "example.org/bot:1", Credentials: []v1alpha1.Credential{{Name: "telegram-token", Sealed: sealed}}}}
		create(d.t, d.bot)
	} else {
		d.bot.Spec.Credentials[0].Sealed = sealed
		if err := testEnv.Client.Update(d.t.Context(), d.bot); err != nil {
			d.t.Fatal(err)
		}
	}
	var answer keyapi.CredentialsResponse
	if reason := d.ask(keyapi.PathCredentials, keyapi.CredentialsRequest{Object: refOf(sealing.KindBotDeployment, d.bot)}, &answer); reason != "" {
		return reason
	}
	if len(answer.Items) != 1 {
		d.t.Fatalf("the keyserver speaks of %d credentials", len(answer.Items))
	}
	d.bot.Status.CredentialsSecret = answer.Secret
	if err := testEnv.Client.Status().Update(d.t.Context(), d.bot); err != nil {
		d.t.Fatal(err)
	}
	return answer.Items[0].Reason
}

func (d *drill) secrets() []corev1.Secret {
	d.t.Helper()
	var list corev1.SecretList
	if err := testEnv.Client.List(d.t.Context(), &list, client.InNamespace(d.namespace)); err != nil {
		d.t.Fatal(err)
	}
	return list.Items
}

func (d *drill) loseKeys() {
	d.t.Helper()
	for _, s := range d.secrets() {
		if err := testEnv.Client.Delete(d.t.Context(), &s); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *drill) expect(what, got, want string) {
	d.t.Helper()
	if got != want {
		d.t.Fatalf("%s: the keyserver says %q, want %q", what, got, want)
	}
}

func TestKeysLostAndRestored(t *testing.T) {
	d := newDrill(t, "drill-a")
	c := newCaller(t)
	d.expect("make keys", d.makeKeys(), "")
	d.expect("the first value", d.stores("1"), v1alpha1.ReasonStored)

	file := filepath.Join(t.TempDir(), "backup.json")
	o := c.ok("", "keys", "backup", file, "--keys-namespace", d.namespace)
	if !strings.Contains(o.errOut, "the keys of 1 tenant, 1 bot, 0 data stores") {
		t.Errorf("the backup tells something else:\n%s", o.errOut)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v", info.Mode())
	}
	if text := read(t, file); strings.Contains(text, canary) || strings.Contains(text, strings.TrimSpace(read(t, d.kekFile))) {
		t.Error("the backup holds a value or the key-encryption key")
	}
	c.fails("", []string{"keys", "backup", file, "--keys-namespace", d.namespace}, "never written over")

	before := len(d.secrets())
	d.loseKeys()
	d.restart()
	d.expect("a new value without keys", d.stores("2"), v1alpha1.ReasonKeyMissing)
	d.expect("new keys", d.makeKeys(), v1alpha1.ReasonKeyMissing)

	restore := []string{"keys", "restore", file, "--keys-namespace", d.namespace}
	c.fails("", restore, "nothing was written", "--yes")
	c.terminal = true
	c.fails("no\n", restore, "the answer was another")
	d.loseCanary() // the keyserver may have made one since; the backup brings its own
	if n := len(d.secrets()); n != 0 {
		t.Fatalf("%d Secrets were written", n)
	}
	c.ok(d.namespace+"\n", append(restore, "--kek-file", d.kekFile)...)
	if n := len(d.secrets()); n != before {
		t.Errorf("%d Secrets were restored, %d were lost", n, before)
	}
	d.restart()
	d.expect("the keys", d.makeKeys(), "")
	d.expect("a new value", d.stores("3"), v1alpha1.ReasonStored)
	c.terminal = false
	if again := c.ok("", restore...); !strings.Contains(again.errOut, "Nothing is missing") {
		t.Errorf("restored twice:\n%s", again.errOut)
	}
}

func (d *drill) loseCanary() {
	d.t.Helper()
	for _, s := range d.secrets() {
		if s.Name == "kek-canary" {
			if err := testEnv.Client.Delete(d.t.Context(), &s); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

func TestKeysVerifyAndRestoreRefuse(t *testing.T) {
	d := newDrill(t, "drill-b")
	d.expect("make keys", d.makeKeys(), "")
	d.expect("the first value", d.stores("1"), v1alpha1.ReasonStored)
	c := newCaller(t)
	file := filepath.Join(t.TempDir(), "backup.json")
	c.ok("", "keys", "backup", file, "--keys-namespace", d.namespace)

	out := c.ok("", "keys", "verify", file, "--kek-file", d.kekFile).out
	if !strings.Contains(out, "Tenant drill-b: sealing keys ") || !strings.Contains(out, "BotDeployment drill-b/support") {
		t.Errorf("verified something else:\n%s", out)
	}
	wrong := filepath.Join(t.TempDir(), "kek")
	if _, err := generateKEK(rand.Reader, wrong); err != nil {
		t.Fatal(err)
	}
	cut := write(t, "cut.json", strings.Replace(read(t, file), "wrap.v1.", "wrap.v1.0", 1))
	c.fails("", []string{"keys", "verify", file}, "--kek-file is needed")
	c.fails("", []string{"keys", "verify", file, "--kek-file", wrong}, "needs key-encryption key")
	c.fails("", []string{"keys", "verify", cut, "--kek-file", d.kekFile}, "changed or cut")
	c.fails("", []string{"keys", "verify", file, "--kek-file", file}, "--kek-file")
	c.fails("", []string{"keys", "restore", file, "--keys-namespace", d.namespace, "--yes", "--kek-file", wrong}, "needs key-encryption key")
	c.fails("", []string{"keys", "restore", file, "--adopt"}, "--adopt needs --kek-file")
	c.fails("", []string{"keys", "backup", filepath.Join(t.TempDir(), "empty"), "--keys-namespace", "default"}, "the keyserver has never run here")

	// Into keys under another key-encryption key.
	other := newDrill(t, "drill-c")
	other.expect("make keys", other.makeKeys(), "")
	before := len(other.secrets())
	c.fails("", []string{"keys", "restore", file, "--keys-namespace", other.namespace, "--yes"}, "nothing was written", "under key-encryption key")
	if n := len(other.secrets()); n != before {
		t.Errorf("%d Secrets were written", n-before)
	}
	// Without the right to read them.
	c.as = "nobody"
	c.fails("", []string{"keys", "backup", filepath.Join(t.TempDir(), "b"), "--keys-namespace", d.namespace}, "forbidden")
}
