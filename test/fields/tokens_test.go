package fields

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// warned is a client that keeps what the API server warns of, as kubectl shows it.
type warned struct {
	client.Client
	mu   sync.Mutex
	said []string
}

func (w *warned) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// dryRun sends an object that is taken and returns the warnings.
func (w *warned) dryRun(t *testing.T, o client.Object) []string {
	t.Helper()
	if _, err := w.tryDryRun(t, o); err != nil {
		t.Fatalf("%s is refused: %v", o.GetName(), err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said
}

// tryDryRun sends an object and returns the warnings, and why it is refused.
func (w *warned) tryDryRun(t *testing.T, o client.Object) (string, error) {
	t.Helper()
	w.mu.Lock()
	w.said = nil
	w.mu.Unlock()
	err := w.Create(t.Context(), o, client.DryRunAll)
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.said, "\n"), err
}

func newWarned(t *testing.T) *warned {
	t.Helper()
	w := &warned{}
	config := rest.CopyConfig(cluster.Config)
	config.WarningHandler = w
	var err error
	if w.Client, err = client.New(config, client.Options{Scheme: cluster.Scheme}); err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return len(w.dryRun(t, with(t, kinds()["BotDeployment"], "env[].value", "AKIA"+strings.Repeat("A1", 8)))) > 0, nil
	})
	if err != nil {
		t.Fatalf("the policy on plain text does not warn: %v", err)
	}
	return w
}

func repeat(s string, n int) string { return strings.Repeat(s, n/len(s)+1)[:n] }

// tokens in the shapes that their issuers give them, put together here so that no scanner takes them for real ones.
func tokens() map[string]string {
	jwt := "eyJ" + repeat("hbGciOiJIUzI1NiJ9", 17) + ".eyJ" + repeat("zdWIiOiIxMjM0In0", 16) + "." + repeat("Sfl-K_", 43)
	return map[string]string{
		"Telegram":               "987654321:" + "AAE" + repeat("x-Y_9", 32),
		"Telegram in a URL":      "https://api.telegram.org/bot" + "1234567890:" + "AAF" + repeat("z_", 32) + "/getMe",
		"JWT":                    jwt,
		"JWT in a header":        "Authorization: Bearer " + jwt,
		"AWS key id":             "AKIA" + repeat("IOSFODNN7", 16),
		"AWS session":            "ASIA" + repeat("Q3EGRX", 16),
		"GitHub classic":         "ghp_" + repeat("a1B2c3", 36),
		"GitHub app":             "ghs_" + repeat("a1B2c3", 36),
		"GitHub fine-grained":    "github_pat_" + repeat("11ABCDE", 22) + "_" + repeat("xYz9", 59),
		"GitLab":                 "glpat-" + repeat("aB-c_1", 20),
		"Slack bot":              "xoxb-" + "123456789012-1234567890123-" + repeat("aBc", 24),
		"Slack user":             "xoxp-" + "123456789012-123456789012-" + repeat("aBc", 24),
		"Stripe":                 "sk_live_" + repeat("4eC39H", 24),
		"Stripe restricted":      "rk_live_" + repeat("4eC39H", 24),
		"OpenAI":                 "sk-" + repeat("aB3", 20) + "T3BlbkFJ" + repeat("xY9", 20),
		"OpenAI project":         "sk-proj-" + repeat("aB-3_x", 120),
		"Anthropic":              "sk-ant-api03-" + repeat("aB-3_x", 93),
		"Google":                 "AIza" + repeat("SyD-9t_R", 35),
		"PEM":                    "-----BEGIN PRIVATE KEY-----\nMIIE" + repeat("abc", 60) + "\n-----END PRIVATE KEY-----\n",
		"PEM of RSA":             "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
		"PEM of OpenSSH":         "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl",
		"a database's URL":       "postgresql://app:" + marker + "@db.example:5432/app?sslmode=require",
		"a broker's URL":         "amqps://:" + marker + "@mq.example/",
		"in the midst of a text": "--connect=redis://default:" + marker + "@cache.example:6379 --verbose",
	}
}

// harmless are texts that bots have and that only look a little like a token.
var harmless = []string{
	"", "en", "--polling", "https://api.telegram.org", "https://db.example:5432/path@v1", "https://r.example/@scope/pkg", "mailto:ops@example.com", "postgres://app@db.example/app",
	"postgres://app:$(PASSWORD)@db.example/app", "postgres://app:${PASSWORD}@db.example/app", "https://user:<password>@host.example", "/var/run/lethe/credentials/telegram-token",
	"12:30", "123456789", "123456789:short", "2026-11-25T19:00:00+01:00", "sha256:" + strings.Repeat("0a", 32), "123456:" + strings.Repeat("0a", 32), "task-with-a-name-of-more-than-forty-characters-in-it",
	"sk-SK", "sk-learn", "eyJust a text", "xoxo", "glpat-", "AIza", "AKIA", "ghp_", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "-----BEGIN PUBLIC KEY-----\nMIIB",
	"550e8400-e29b-41d4-a716-446655440000", "10.0.0.1:8080,10.0.0.2:8080", "fe80::1", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB", "pk_test_" + repeat("4eC39H", 24), "seal.v1.a.b.c.d.e",
	"postgres://db.example:5432/app?user=a@b", "key=value,other=1", strings.Repeat("a", 1000), strings.Repeat("1", 1000),
}

// TestTokensAreWarnedOf: a credential in plain text is warned of where it stands and never repeated; what is harmless
// is not warned of. The bot's condition goes by the same expression.
func TestTokensAreWarnedOf(t *testing.T) {
	w := newWarned(t)
	places := map[string]string{"env[].value": "spec.env[A].value", "args[]": "spec.args[0]", "command[]": "spec.command[0]"}
	for name, token := range tokens() {
		for path, place := range places {
			o := with(t, kinds()["BotDeployment"], path, token)
			said := strings.Join(w.dryRun(t, o), "\n")
			if !strings.Contains(said, place+" looks like a credential") || !strings.Contains(said, "kubectl lethe seal") {
				t.Errorf("%s in %s: the warning is %q", name, path, said)
			}
			if strings.Contains(said, token) || strings.Contains(said, marker) {
				t.Errorf("%s in %s: the warning repeats it: %s", name, path, said)
			}
			if found := resources.Plaintext(typedBot(t, o)); len(found) != 1 || found[0] != place {
				t.Errorf("%s in %s: the bot's condition would name %v", name, path, found)
			}
		}
	}
	for _, text := range harmless {
		for path := range places {
			o := with(t, kinds()["BotDeployment"], path, text)
			if said := w.dryRun(t, o); len(said) > 0 {
				t.Errorf("%.80q in %s: %v", text, path, said)
			}
			if found := resources.Plaintext(typedBot(t, o)); len(found) > 0 {
				t.Errorf("%.80q in %s: the bot's condition would name %v", text, path, found)
			}
		}
	}
}

// carriers are what a token is written in where it does not stand alone: paths, addresses, tags, lists, files.
var carriers = []string{"%s", "/%s", "/x/%s/getMe", "https://host.example/%s", "registry.example/bot:%s", "a %s b", "example.com/%s", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n%s"}

// noText are strings that nobody writes a credential into: sealed values, and what a command writes.
func noText(path string) bool {
	return strings.HasSuffix(path, ".sealed") || strings.HasSuffix(path, ".password") || strings.HasPrefix(path, "approvedPlan.")
}

// TestEveryTextIsLookedAt: whichever text of our kinds a token is written into, it is refused or warned of, and never
// repeated. The types are walked by reflection, so that a new field is not forgotten; the bot's condition names the
// same place as the warning.
func TestEveryTextIsLookedAt(t *testing.T) {
	w := newWarned(t)
	warned := map[string]int{}
	for name, k := range kinds() {
		for _, f := range leaves(k.spec, "") {
			if noText(f.path) || f.kind != reflect.String && f.kind != reflect.Map {
				continue
			}
			if tried(t, w, name, k, f) {
				warned[name]++
			}
		}
	}
	if warned["BotDeployment"] < 15 || warned["Tenant"] < 3 || warned["DataStore"] < 2 {
		t.Errorf("fields that take a token, with a warning: %v", warned)
	}
}

// tried writes tokens into a field, one after the other, until one is taken.
func tried(t *testing.T, w *warned, name string, k kind, f leaf) bool {
	t.Helper()
	all := tokens()
	for _, which := range []string{"Telegram", "AWS key id", "GitHub classic", "PEM", "a database's URL"} {
		for _, carrier := range carriers {
			text := fmt.Sprintf(carrier, all[which])
			values := []any{text}
			if f.kind == reflect.Map {
				values = []any{map[string]any{"example.com/a": text}, map[string]any{text: "1"}, map[string]any{text: "b"}}
			}
			for _, value := range values {
				o := with(t, k, f.path, value)
				said, err := w.tryDryRun(t, o)
				if strings.Contains(said, all[which]) {
					t.Errorf("%s %s: the warning repeats the %s: %s", name, f.path, which, said)
				}
				if err != nil {
					continue
				}
				if !strings.Contains(said, "looks like a credential") {
					t.Errorf("%s %s takes the %s as %s without a word", name, f.path, which, carrier)
				}
				if name != "BotDeployment" {
					return true
				}
				places := resources.Plaintext(typedBot(t, o))
				if len(places) == 0 {
					t.Errorf("%s %s: the bot's condition does not name the %s", name, f.path, which)
				}
				for _, place := range places {
					if !strings.Contains(said, place) {
						t.Errorf("%s %s: the condition names %s, and the warning is %s", name, f.path, place, said)
					}
				}
				return true
			}
		}
	}
	return false
}

// TestTheGreatestBotIsWarnedOf: as many values as the schema takes, and nearly as large together as policy
// lethe-object-size lets them be, are looked at to the last, and a warning too long to name all says so.
func TestTheGreatestBotIsWarnedOf(t *testing.T) {
	w := newWarned(t)
	greatest := func(last string) *unstructured.Unstructured {
		o := kinds()["BotDeployment"].build(t)
		var env []any
		for i := range 64 {
			env = append(env, map[string]any{"name": fmt.Sprintf("%s%02d", repeat("N", 126), i), "value": repeat("1:-a", 300)})
		}
		list := func(n int) (all []any) {
			for range n {
				all = append(all, repeat("1:-a", 200))
			}
			return all
		}
		args, command := list(64), list(32)
		env[63].(map[string]any)["value"], args[63], command[31] = repeat("1:-a", 299-len(last))+" "+last, repeat("1:-a", 199-len(last))+" "+last, repeat("1:-a", 199-len(last))+" "+last
		for field, value := range map[string]any{"env": env, "args": args, "command": command} {
			set(t, o.Object["spec"], field, value)
		}
		return o
	}
	said := strings.Join(w.dryRun(t, greatest("AKIA"+repeat("IOSFODNN7", 16))), "\n")
	for _, place := range []string{repeat("N", 126) + "63].value", "spec.args[63]", "spec.command[31]"} {
		if !strings.Contains(said, place) {
			t.Errorf("%s is not named: %.600s", place, said)
		}
	}
	if said := w.dryRun(t, greatest("nothing")); len(said) > 0 {
		t.Errorf("warned of nothing: %.600v", said)
	}
	all := greatest("nothing")
	for _, variable := range all.Object["spec"].(map[string]any)["env"].([]any) {
		variable.(map[string]any)["value"] = "AKIA" + repeat("IOSFODNN7", 16)
	}
	if said := strings.Join(w.dryRun(t, all), "\n"); !strings.Contains(said, "elements of the spec look like credentials") {
		t.Errorf("64 tokens under long names: %.600s", said)
	}
}

// TestTheGreatestStoreAndPolicyAreWarnedOf: a policy of admission whose cost is above what the API server grants is
// left out without a word, since it may not keep anybody from applying. So as many elements as the schema takes, each
// as long as it may be, are looked at to the last.
func TestTheGreatestStoreAndPolicyAreWarnedOf(t *testing.T) {
	w := newWarned(t)
	token := "AKIA" + repeat("IOSFODNN7", 16)
	name := func(prefix string, i int) string {
		return fmt.Sprintf("%s-%s-%03d", prefix, repeat("n", 58-len(prefix)), i)
	}
	column := func(prefix string, i int) string {
		return fmt.Sprintf("%s_%s_%03d", prefix, repeat("c1_", 58-len(prefix)), i)
	}
	words := func(last string, i, n int) string {
		if i < n-1 {
			last = "nothing"
		}
		return repeat("1:-a ", 255-len(last)) + " " + last
	}
	store := func(last string) *unstructured.Unstructured {
		o := kinds()["DataStore"].build(t)
		var datasets, exempt, relations []any
		for i := range 512 {
			datasets = append(datasets, map[string]any{
				"name": name("d", i), "dataClass": repeat("C1a", 63),
				"table": map[string]any{
					"schema": column("s", i), "name": column("t", i), "tenantColumn": column("a", i), "key": []any{column("k", 1), column("k", 2), column("k", 3), column("k", 4)},
					"ageColumn": map[string]any{"name": column("c", i), "type": "Timestamp", "timeZone": "America/Argentina/ComodRivadavia"},
				},
				"floor": map[string]any{"retainFor": map[string]any{"days": int64(30)}, "legalBasis": words(last, i, 512)},
			})
		}
		for i := range 128 {
			exempt = append(exempt, map[string]any{"schema": column("s", i), "table": column("e", i), "reason": words(last, i, 128)})
			relations = append(relations, map[string]any{
				"schema": column("s", i), "table": column("r", i), "column": column("c", i), "references": name("d", i), "referencesColumn": column("k", i),
				"state": "Declared", "reason": words(last, i, 128),
			})
		}
		for field, value := range map[string]any{"datasets": datasets, "exempt": exempt, "relations": relations} {
			set(t, o.Object["spec"], field, value)
		}
		return o
	}
	policy := func(last string) *unstructured.Unstructured {
		o := kinds()["DataRetentionPolicy"].build(t)
		var rules []any
		for i := range 32 {
			var overrides []any
			for k := range 1024 / 32 {
				overrides = append(overrides, map[string]any{"tenant": name("t", k), "retainFor": map[string]any{"days": int64(7)}})
			}
			class := fmt.Sprintf("C%02d%s", i, repeat("C1a", 59))
			if i == 31 && last != "nothing" {
				class = last
			}
			rules = append(rules, map[string]any{"name": name("r", i), "dataClass": class, "retainFor": map[string]any{"days": int64(30)}, "tenantOverrides": overrides})
		}
		set(t, o.Object["spec"], "rules", rules)
		return o
	}
	for _, tc := range []struct {
		object func(last string) *unstructured.Unstructured
		places []string
	}{
		{store, []string{"spec.datasets[" + name("d", 511) + "].floor.legalBasis", "spec.exempt[127].reason", "spec.relations[127].reason"}},
		{policy, []string{"spec.rules[" + name("r", 31) + "].dataClass"}},
	} {
		said := strings.Join(w.dryRun(t, tc.object(token)), "\n")
		for _, place := range tc.places {
			if !strings.Contains(said, place) {
				t.Errorf("%s is not named: %.600q", place, said)
			}
		}
		if strings.Contains(said, token) {
			t.Errorf("the warning repeats the token: %.600s", said)
		}
		if said := w.dryRun(t, tc.object("nothing")); len(said) > 0 {
			t.Errorf("warned of nothing: %.600v", said)
		}
	}
}

func TestSamplesAreNotWarnedOf(t *testing.T) {
	w := newWarned(t)
	seen := 0
	for _, folder := range []string{"config/samples", "examples/quickstart", "examples/programs"} {
		files, err := filepath.Glob(filepath.Join(cluster.Root, folder, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for text := range strings.SplitSeq("\n"+string(content), "\n---") {
				o := &unstructured.Unstructured{}
				if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil || o.GetKind() != "BotDeployment" {
					continue
				}
				seen++
				o.SetNamespace("default")
				if said := w.dryRun(t, o); len(said) > 0 {
					t.Errorf("%s: %v", file, said)
				}
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d bots in the samples", seen)
	}
}

func typedBot(t *testing.T, o *unstructured.Unstructured) *v1alpha1.BotDeployment {
	t.Helper()
	b, err := yaml.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	bot := &v1alpha1.BotDeployment{}
	if err := yaml.Unmarshal(b, bot); err != nil {
		t.Fatal(err)
	}
	return bot
}
