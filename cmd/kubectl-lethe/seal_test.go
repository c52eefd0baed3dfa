package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const canary = "8123:AAF-canary-of-a-token"

func placeOfBot(namespace string, version uint32) sealing.Place {
	return sealing.Place{Realm: testRealm, Tenant: namespace, Namespace: namespace, Kind: sealing.KindBotDeployment,
		Name: "support", Key: "telegram-token", Version: version}
}

func opens(t *testing.T, priv sealing.PrivateKey, place sealing.Place, sealed, want string) {
	t.Helper()
	got, err := sealing.Open(priv, place, strings.TrimSpace(sealed))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if string(got) != want {
		t.Errorf("it holds %d bytes, want %d", len(got), len(want))
	}
}

func TestSealForABot(t *testing.T) {
	const ns = "seal-bot"
	priv := makeTenant(t, ns, nil)
	c := newCaller(t)
	args := []string{"seal", "--bot", ns + "/support", "--credential", "telegram-token"}

	o := c.ok(canary+"\n", args...)
	opens(t, priv, placeOfBot(ns, 1), o.out, canary)
	if strings.Count(o.out, "\n") != 1 {
		t.Errorf("standard output holds more than the sealed value:\n%s", o.out)
	}
	key := tenantKey{public: priv.Public()}
	if !strings.Contains(o.errOut, key.fingerprint()) || !strings.Contains(o.errOut, "seal-bot/support") {
		t.Errorf("standard error names neither key nor place:\n%s", o.errOut)
	}
	if strings.Contains(o.errOut, canary) {
		t.Error("standard error holds the value")
	}

	opens(t, priv, placeOfBot(ns, 1), c.ok(canary+"\r\n", args...).out, canary)
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary+"\n", append(args, "--exact")...).out, canary+"\n")
	opens(t, priv, placeOfBot(ns, 3), c.ok(canary, append(args, "--version", "3")...).out, canary)
	opens(t, priv, placeOfBot(ns, 1), c.ok("", append(args, "--from-file", write(t, "token", canary+"\n"))...).out, canary)
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary, "seal", "-n", ns, "--bot", "support", "--credential", "telegram-token").out, canary)
	c.terminal = true
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary, args...).out, canary)
}

func TestSealWithoutACluster(t *testing.T) {
	const ns = "seal-offline"
	priv := makeTenant(t, ns, nil)
	c := newCaller(t)
	o := c.ok("", "keys", "public", ns)
	golden(t, "tenant-key.yaml", o.out)
	if other := c.ok("", "keys", "public", "-n", ns); other.out != o.out {
		t.Error("the key by namespace is another one")
	}
	file := write(t, "tenant-key.yaml", o.out)

	c.kubeconfig = write(t, "none", "")
	args := []string{"seal", "--key-file", file, "--bot", ns + "/support", "--credential", "telegram-token"}
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary, args...).out, canary)

	altered := strings.Replace(o.out, "public: ", "public: A", 1)
	c.fails(canary, append(args, "--key-file", write(t, "altered", altered)), "sealing key")
	another, err := sealing.GeneratePrivateKey(random(77))
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.Replace(o.out, priv.Public().String(), another.Public().String(), 1)
	c.fails(canary, append(args, "--key-file", write(t, "swapped", swapped)), "altered, do not seal to it")
	c.fails(canary, append(args, "--key-file", write(t, "junk", "{a: 1}")), "--key-file: not a key file")
}

func TestSealForAStoreBindsTheDestination(t *testing.T) {
	const ns = "sealed-a"
	priv := makeTenant(t, ns, nil)
	c := newCaller(t)
	place := sealing.Place{Realm: testRealm, Tenant: ns, Namespace: ns, Kind: sealing.KindDataStore, Name: "chat", Key: sealing.PasswordKey, Version: 1,
		Destination: sealing.Destination{Type: "Postgres", Host: "db.example.org", Port: 5432, Database: "chat", Username: "lethe"}}

	opens(t, priv, place, c.ok(canary, "seal", "-f", "testdata/datastore.yaml").out, canary)
	flags := []string{"seal", "--store", ns + "/chat", "--host", "db.example.org", "--database", "chat", "--username", "lethe"}
	opens(t, priv, place, c.ok(canary, flags...).out, canary)

	moved := write(t, "moved.yaml", strings.Replace(read(t, "testdata/datastore.yaml"), "db.example.org", "elsewhere.example.org", 1))
	if _, err := sealing.Open(priv, place, strings.TrimSpace(c.ok(canary, "seal", "-f", moved).out)); err == nil {
		t.Error("a value sealed for another host opens")
	}
	ca := write(t, "ca.pem", read(t, "../../test/pg/certificates.go")) // no PEM in it: the digest of no certificate
	withCA := place
	withCA.Destination.CASHA256 = sealing.DestinationOf(&v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{CABundle: "x"}}).CASHA256
	opens(t, priv, withCA, c.ok(canary, append(flags, "--ca-file", ca)...).out, canary)

	c.fails(canary, []string{"seal", "--store", ns + "/chat"}, "destination", "-f", "--host")
	c.fails(canary, []string{"seal", "--store", ns + "/chat", "--host", "h"}, "--host, --database and --username are needed together")
	c.fails(canary, []string{"seal", "-f", "testdata/datastore.yaml", "--host", "h"}, "-f names the destination")
}

func TestSealAgainNeedsAHigherVersion(t *testing.T) {
	const ns = "seal-again"
	priv := makeTenant(t, ns, nil)
	c := newCaller(t)
	args := []string{"seal", "--bot", ns + "/support", "--credential", "telegram-token"}
	sealed := strings.TrimSpace(c.ok(canary, append(args, "--version", "4")...).out)
	create(t, &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "support"}, Spec: v1alpha1.BotDeploymentSpec{
		Image: "example.org/bot:1", Credentials: []v1alpha1.Credential{{Name: "telegram-token", Sealed: v1alpha1.SealedValue(sealed)}}}})

	c.fails(canary, args, "version 4 in the cluster", "--version 5")
	c.fails(canary, append(args, "--version", "4"), "--version 4", "--version 5")
	opens(t, priv, placeOfBot(ns, 5), c.ok(canary, append(args, "--version", "5")...).out, canary)

	manifest := write(t, "bot.yaml", strings.NewReplacer(`sealed: ""`, "sealed: "+sealed, "sealed-a", ns).Replace(read(t, "testdata/bot.yaml")))
	c.fails(canary, []string{"seal", "-f", manifest, "--credential", "telegram-token"}, "version 4 in the manifest")
}

func TestSealIntoAManifest(t *testing.T) {
	const ns = "sealed-a"
	priv := makeTenant(t, ns+"-bots", func(tenant *v1alpha1.Tenant) { tenant.Name = ns + "-bots" })
	c := newCaller(t)
	for name, file := range map[string]string{"bot": "testdata/bot.yaml", "datastore": "testdata/datastore.yaml"} {
		manifest := write(t, "m.yaml", strings.ReplaceAll(read(t, file), "namespace: "+ns, "namespace: "+ns+"-bots"))
		args := []string{"seal", "-f", manifest, "-o", "yaml"}
		place := placeOfBot(ns+"-bots", 1)
		if name == "bot" {
			args = append(args, "--credential", "telegram-token")
		} else {
			place = sealing.Place{Realm: testRealm, Tenant: ns + "-bots", Namespace: ns + "-bots", Kind: sealing.KindDataStore, Name: "chat", Key: "password",
				Destination: sealing.Destination{Type: "Postgres", Host: "db.example.org", Port: 5432, Database: "chat", Username: "lethe"}}
		}
		out := c.ok(canary, args...).out
		start := strings.Index(out, "seal.v1.")
		if start < 0 {
			t.Fatalf("%s: no sealed value in it:\n%s", name, out)
		}
		sealed, _, _ := strings.Cut(out[start:], "\n")
		opens(t, priv, place, sealed, canary)
		golden(t, name+".sealed.yaml", strings.Replace(out, sealed, "SEALED", 1))
	}
	manifest := write(t, "m.yaml", strings.ReplaceAll(read(t, "testdata/bot.yaml"), "namespace: "+ns, "namespace: "+ns+"-bots"))
	c.fails(canary, []string{"seal", "-f", manifest, "-o", "yaml", "--credential", "model-key"}, "secretKeyRef", "take it away")
	if out := c.ok(canary, "seal", "-f", manifest, "-o", "yaml", "--credential", "new-key").out; !strings.Contains(out, "- name: new-key\n") {
		t.Errorf("a credential that is not in the manifest was not added:\n%s", out)
	}
}

func TestSealWithTheRightsOfTheCaller(t *testing.T) {
	const ns = "seal-rights"
	priv := makeTenant(t, ns, nil)
	create(t,
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "seal-rights"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}},
			{APIGroups: []string{v1alpha1.Group}, Resources: []string{"tenants"}, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "seal-rights"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "seal-rights"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "carol"}}})
	c := newCaller(t)
	c.as = "carol"
	args := []string{"seal", "--bot", ns + "/support", "--credential", "telegram-token"}
	o := c.ok(canary, args...)
	opens(t, priv, placeOfBot(ns, 1), o.out, canary)
	if !strings.Contains(o.errOut, "you may not read") {
		t.Errorf("nothing says that the version in use is not known:\n%s", o.errOut)
	}
	c.as = "mallory"
	c.fails(canary, args, "--key-file")
	// Who has the role Operate reads neither Tenants nor namespaces; the key is where the role may read it.
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), client.ObjectKey{Name: ns}, &tenant); err != nil {
		t.Fatal(err)
	}
	create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "operate"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: resources.RoleTenantOperate},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "ann"}}})
	c.as = "ann"
	c.fails(canary, args, "--key-file")
	shown := resources.TenantSealingKey(&tenant, ns, tenant.Status.SealingKeys[0])
	if err := testEnv.As(t, "system:serviceaccount:lethe-system:lethe-manager", "system:masters").Create(t.Context(), shown); err != nil {
		t.Fatal(err)
	}
	o = c.ok(canary, args...)
	opens(t, priv, placeOfBot(ns, 1), o.out, canary)
	if !strings.Contains(o.errOut, "ConfigMap lethe-sealing-key") {
		t.Errorf("nothing says where the key is from:\n%s", o.errOut)
	}
	file := filepath.Join(t.TempDir(), "key.yaml")
	if err := os.WriteFile(file, []byte(c.ok("", "keys", "public", "-n", ns).out), 0o600); err != nil {
		t.Fatal(err)
	}
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary, append(args, "--key-file", file)...).out, canary)
}

// Each call has a secret in a place where it does not belong, or fails with one at hand.
func TestErrorsHoldNoValue(t *testing.T) {
	const ns = "seal-errors"
	makeTenant(t, ns, nil)
	bare := "seal-bare"
	create(t, testEnvNamespace(bare))
	const ending = "seal-ending"
	makeTenant(t, ending, func(tenant *v1alpha1.Tenant) { tenant.Finalizers = []string{"example.com/hold"} })
	var going v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), clientKey("", ending), &going); err != nil {
		t.Fatal(err)
	}
	if err := testEnv.Client.Delete(t.Context(), &going); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		patch := []byte(`{"metadata":{"finalizers":null}}`)
		if err := testEnv.Client.Patch(context.Background(), &going, client.RawPatch(types.MergePatchType, patch)); err != nil {
			t.Error(err)
		}
	})
	bot := []string{"seal", "--bot", ns + "/support", "--credential", "telegram-token"}
	plaintext := write(t, "plain.yaml", strings.Replace(read(t, "testdata/bot.yaml"), `sealed: ""`, "sealed: {"+canary+": 1}", 1))
	broken := write(t, "broken.yaml", "a: *"+strings.ReplaceAll(canary, ":", "")+"\n")
	for name, tc := range map[string]struct {
		args  []string
		stdin string
		says  string
	}{
		"the value as an argument":          {append(bot, canary), "", "takes no argument"},
		"the value as a flag's name":        {append(bot, "--"+canary), "", "flag"},
		"the value behind a flag's name":    {append(bot, "--value="+canary), "", "no flag --value"},
		"the value behind a letter":         {append(bot, "-p"+canary), "", "unknown flag"},
		"the value as a version":            {append(bot, "--version", canary), "", "--version: not a valid uint32"},
		"the value as a file":               {append(bot, "--from-file", canary), "", "--from-file"},
		"the value as a bot":                {[]string{"seal", "--bot", canary, "--credential", "t"}, "", "--bot: say namespace/name"},
		"the value as a credential's name":  {[]string{"seal", "--bot", ns + "/support", "--credential", canary + "!"}, canary, "name"},
		"the value as a command":            {[]string{canary}, "", "no such command"},
		"the value as a command of a group": {[]string{"keys", canary}, "", "no such command"},
		"plaintext in the manifest":         {[]string{"seal", "-f", plaintext, "--credential", "telegram-token"}, canary, "sealed"},
		"a manifest that is not YAML":       {[]string{"seal", "-f", broken, "--credential", "telegram-token"}, canary, "not YAML"},
		"too long":                          {bot, canary + strings.Repeat("x", sealing.MaxPlaintext), "1 to 65536 bytes"},
		"too long, from a file":             {append(bot, "--from-file", write(t, "long", canary+strings.Repeat("x", 200000))), "", "1 to 65536 bytes"},
		"empty":                             {bot, "\n", "empty"},
		"a namespace without a tenant":      {[]string{"seal", "--bot", bare + "/support", "--credential", "t"}, canary, "belongs to no Tenant"},
		"a Tenant that is being deleted":    {[]string{"seal", "--bot", ending + "/support", "--credential", "t"}, canary, "Tenant " + ending + " is being deleted"},
		"a namespace that does not exist":   {[]string{"seal", "--bot", "nowhere/support", "--credential", "t"}, canary, "namespace nowhere"},
		"no credential":                     {[]string{"seal", "--bot", ns + "/support"}, canary, "--credential is needed"},
		"version 0":                         {append(bot, "--version", "0"), canary, "--version"},
		"bot and store":                     {append(bot, "--store", "a/b"), canary, "cannot both"},
		"nothing to seal for":               {[]string{"seal"}, canary, "--bot with --credential, --store, or -f"},
		"a destination of a bot":            {append(bot, "--host", "h"), canary, "no destination"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newCaller(t).fails(tc.stdin, tc.args, tc.says)
			for _, part := range []string{canary, "AAF-canary", "canary-of"} {
				if strings.Contains(o.out+o.errOut, part) {
					t.Errorf("the output holds the value:\n%s%s", o.out, o.errOut)
				}
			}
		})
	}
}

func TestSealRefusesATenantWithoutAKey(t *testing.T) {
	const ns = "seal-keyless"
	makeTenant(t, ns, nil)
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), clientKey("", ns), &tenant); err != nil {
		t.Fatal(err)
	}
	tenant.Status.SealingKeys = nil
	tenant.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionKeysReady, Status: metav1.ConditionFalse, Reason: "KEKUnavailable",
		Message: "the keyserver has no key-encryption key", LastTransitionTime: metav1.NewTime(day0)}}
	if err := testEnv.Client.Status().Update(t.Context(), &tenant); err != nil {
		t.Fatal(err)
	}
	newCaller(t).fails(canary, []string{"seal", "--bot", ns + "/support", "--credential", "telegram-token"},
		"Tenant seal-keyless", "KeysReady is False", "the keyserver has no key-encryption key")
}

func TestKEKGenerate(t *testing.T) {
	c := newCaller(t)
	path := t.TempDir() + "/kek"
	o := c.ok("", "keys", "generate-kek", path)
	text := read(t, path)
	key, err := sealing.ParseKEK([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(o.errOut, key.KID()) {
		t.Errorf("the key's name is not told:\n%s", o.errOut)
	}
	if strings.Contains(o.out+o.errOut, strings.TrimSpace(text)) {
		t.Error("the key is shown")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	c.fails("", []string{"keys", "generate-kek", path}, "never written over")
	if read(t, path) != text {
		t.Error("the file was written over")
	}
}
