package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestFilesFromEverywhere: what a file says is taken from a file, a folder, folders below, a glob, a URL, standard
// input and a kustomization alike.
func TestFilesFromEverywhere(t *testing.T) {
	makeWorld(t)
	c := newCaller(t)
	policy := read(t, "testdata/policy-enforce.yaml")
	want := c.ok("", "plan", "platform/chat", "-f", "testdata/policy-enforce.yaml").out
	if want == c.ok("", "plan", "platform/chat").out {
		t.Fatal("the file changes nothing: the test shows nothing")
	}
	folder := t.TempDir()
	below := filepath.Join(folder, "below")
	for path, content := range map[string]string{
		filepath.Join(folder, "other.yaml"): "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n", filepath.Join(folder, "README.md"): "no: manifest: at all",
		filepath.Join(below, "policy.yml"): policy, filepath.Join(below, "kustomization.yaml"): "resources: [policy.yml]\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(policy, "\n", "\n  ")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/policy.yaml" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(policy))
	}))
	t.Cleanup(web.Close)
	for name, tc := range map[string]struct {
		stdin string
		args  []string
	}{
		"standard input":          {policy, []string{"-f", "-"}},
		"a List":                  {list, []string{"-f", "-"}},
		"a folder":                {"", []string{"-f", below + "/policy.yml"}},
		"folders below":           {"", []string{"-R", "-f", folder}},
		"a glob":                  {"", []string{"-f", below + "/pol*.yml"}},
		"a URL":                   {"", []string{"-f", web.URL + "/policy.yaml"}},
		"a kustomization":         {"", []string{"-k", below}},
		"a file beside another's": {"", []string{"-f", folder + "/other.yaml", "-f", "testdata/policy-enforce.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"plan", "platform/chat"}, tc.args...)
			if name == "folders below" {
				if err := os.Remove(filepath.Join(below, "kustomization.yaml")); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := os.WriteFile(filepath.Join(below, "kustomization.yaml"), []byte("resources: [policy.yml]\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}()
			}
			if got := c.ok(tc.stdin, args...).out; got != want {
				t.Errorf("another plan:\n%s", got)
			}
		})
	}
	broken := filepath.Join(folder, "broken.yaml")
	if err := os.WriteFile(broken, []byte("a: 1\nb: *"+canary[:4]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no such file":                {[]string{"-f", "/nowhere/" + canary}, "-f: read the file (its name is not repeated here): no such file or directory"},
		"an empty folder":             {[]string{"-f", t.TempDir()}, "-f: the folder holds no .yaml, .yml or .json file (-R looks into the folders below it)"},
		"a file of a folder":          {[]string{"-f", folder}, "-f: broken.yaml: the file is not YAML"},
		"a URL that is not there":     {[]string{"-f", web.URL + "/" + canary}, "-f: the URL (not repeated here) answers with HTTP status 404"},
		"an object without a kind":    {[]string{"-f", write(t, "bare.yaml", "metadata: {name: x}\n")}, "-f: an object cannot be read (nothing of it is repeated here): each needs apiVersion, kind and metadata.name"},
		"a folder without one":        {[]string{"-k", folder}, "-k: the folder cannot be built; `kubectl kustomize` on it says why"},
		"both":                        {[]string{"-k", below, "-f", broken}, "-f and -k cannot both be given"},
		"-R alone":                    {[]string{"-R"}, "-R needs -f with a folder"},
		"a field that does not exist": {[]string{"-f", write(t, "field.yaml", strings.Replace(policy, "mode:", "mood:", 1))}, `unknown field "spec.mood"`},
		"a value that is refused":     {[]string{"-f", write(t, "value.yaml", strings.Replace(policy, "days: 60", "days: 60, years: 1", 1))}, "-f: the API server would not take DataRetentionPolicy published-promise: spec.rules[0].retainFor: Invalid value: write it in exactly one unit (hours, days, weeks, months or years), for example days: 90"},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.fails("", append([]string{"plan", "platform/chat"}, tc.args...), tc.says)
			if strings.Contains(o.errOut, canary) || strings.Contains(o.errOut, canary[:4]+" ") {
				t.Errorf("it repeats what was given: %s", o.errOut)
			}
		})
	}
}

// TestTheAPIServerCompletesFiles: defaults are the API server's, nothing is written, and who may not write an object
// is told so.
func TestTheAPIServerCompletesFiles(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	bare := write(t, "store.yaml", strings.ReplaceAll(strings.Replace(read(t, "testdata/store-world.yaml"), "name: chat\n", "name: fresh\n", 1), "data: chat", "data: fresh"))
	o := c.ok("", "explain", "platform/fresh", "-f", bare)
	for _, want := range []string{"at db.example.org:5432", "at most 20% of a table"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("the API server's default is missing: %q:\n%s", want, o.out)
		}
	}
	var none v1alpha1.DataStore
	if err := testEnv.Client.Get(t.Context(), clientKey("platform", "fresh"), &none); err == nil {
		t.Error("looking at a file made the object")
	}
	before := store.ResourceVersion
	c.ok("", "explain", "platform/chat", "-f", "testdata/policy-enforce.yaml", "-f", "testdata/store-world.yaml")
	if err := testEnv.Client.Get(t.Context(), clientKey("platform", "chat"), store); err != nil || store.ResourceVersion != before {
		t.Errorf("looking at a file changed the object (%v)", err)
	}
	// What approve wrote stays, as it does when a manifest without it is applied.
	c.ok("", "approve", "platform/chat", "--yes")
	if o := c.ok("", "plan", "platform/chat", "-f", write(t, "world.yaml", strings.Replace(read(t, "testdata/store-world.yaml"), "  storeSelector:", "  mode: Enforce\n  storeSelector:", 1)), "-o", "json"); strings.Contains(o.out, `"awaitingApproval"`) {
		t.Errorf("a file without approvedPlan takes the approval away:\n%s", o.out)
	}

	create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader-of-lethe"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.Group}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}, {APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "list"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader-of-lethe"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reader-of-lethe"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "reader"}}})
	c.as = "reader"
	c.ok("", "explain", "platform/chat")
	c.fails("", []string{"explain", "platform/chat", "-f", "testdata/policy-enforce.yaml"}, "by a dry run that writes nothing", "you may not write it")
}

// TestSealTakesManifestsFromEverywhere: the place is read from a folder or from standard input, and the value then
// from a file.
func TestSealTakesManifestsFromEverywhere(t *testing.T) {
	const ns = "seal-files"
	priv := makeTenant(t, ns, nil)
	c := newCaller(t)
	manifest := strings.ReplaceAll(read(t, "testdata/bot.yaml"), "namespace: sealed-a", "namespace: "+ns)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "bot.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	value := write(t, "value", canary)
	opens(t, priv, placeOfBot(ns, 1), c.ok(canary, "seal", "-f", folder, "--credential", "telegram-token").out, canary)
	opens(t, priv, placeOfBot(ns, 1), c.ok(manifest, "seal", "-f", "-", "--credential", "telegram-token", "--from-file", value).out, canary)
	if o := c.ok(manifest, "seal", "-f", "-", "--credential", "telegram-token", "--from-file", value, "-o", "yaml"); !strings.Contains(o.out, "sealed: seal.v1.") || !strings.Contains(o.out, "#") {
		t.Errorf("the manifest of standard input, with its comments:\n%s", o.out)
	}
	c.fails(manifest, []string{"seal", "-f", "-", "--credential", "telegram-token"}, "-f - takes the manifest from standard input: give the value with --from-file")
	c.fails(canary, []string{"seal", "-f", folder, "--credential", "telegram-token", "-o", "yaml"}, "-o yaml needs one -f, a file or - for standard input")
}

// TestSealForANameThatTheBotDoesNotHave: a misspelt name is found before the value is sealed to it, in a manifest and
// in the cluster.
func TestSealForANameThatTheBotDoesNotHave(t *testing.T) {
	const ns = "seal-names"
	makeTenant(t, ns, nil)
	c := newCaller(t)
	sealed := v1alpha1.SealedValue(strings.TrimSpace(c.ok(canary, "seal", "--bot", ns+"/support", "--credential", "telegram-token").out))
	create(t, &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "support"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1",
		Credentials: []v1alpha1.Credential{{Name: "telegram-token", Sealed: sealed}}}})
	manifest := write(t, "bot.yaml", strings.ReplaceAll(read(t, "testdata/bot.yaml"), "namespace: sealed-a", "namespace: "+ns))
	for _, place := range [][]string{{"--bot", ns + "/support"}, {"-f", manifest}} {
		args := append([]string{"seal", "--credential", "telegarm-token"}, place...)
		c.fails(canary, args, "BotDeployment support has no credential telegarm-token, but one that is called telegram-token: is that the one?", "--new-credential")
		c.ok(canary, append(args, "--new-credential")...)
		if o := c.ok(canary, append([]string{"seal", "--credential", "webhook-secret"}, place...)...); !strings.Contains(o.errOut, "has no credential webhook-secret yet (it has telegram-token") {
			t.Errorf("nothing says that the bot has no such credential:\n%s", o.errOut)
		}
	}
}
