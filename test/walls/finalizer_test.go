package walls

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// sealedBot has credentials, and so keys to destroy.
func sealedBot(ns, name string, finalizers ...string) *lethev1.BotDeployment {
	bot := goingBot(ns, name, finalizers...)
	bot.Spec.Credentials = []lethev1.Credential{{Name: "token", Sealed: "seal.v1.a.b.c.d.e"}}
	return bot
}

func keptBot(ns, name, policy string) *lethev1.BotDeployment {
	bot := goingBot(ns, name)
	bot.Spec.Storage = &lethev1.BotStorage{Size: resource.MustParse("1Gi"), MountPath: "/data", ReclaimPolicy: policy}
	return bot
}

// TestKubernetesPutsTheFinalizerOnNewBots: on those that need it and do not have it, in namespaces of tenants, and on
// nothing else. Others' stay, in their order.
func TestKubernetesPutsTheFinalizerOnNewBots(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	operator, adopter, most := as("ann", groupOperate), as("gitops", groupMost, groupAdopt), as("eve", groupMost)
	const keys, hold = lethev1.FinalizerKeys, "example.com/hold"
	unnamed := sealedBot(tenantNS, "")
	unnamed.GenerateName = "b-"
	lies := sealedBot(tenantNS, "lies")
	now := metav1.Now()
	lies.DeletionTimestamp = &now
	var eight, wide []string
	for i := range 8 {
		eight = append(eight, fmt.Sprintf("example.com/%d", i))
	}
	for i := range 7 { // of 291 bytes each: with Lethe's they would be more than 2048
		wide = append(wide, fmt.Sprintf("%s/%060d", strings.Repeat("a", 230), i))
	}
	for name, tc := range map[string]struct {
		as   identity
		bot  *lethev1.BotDeployment
		want []string
	}{
		"credentials":                       {operator, sealedBot(tenantNS, "x"), []string{keys}},
		"a volume that goes with it":        {operator, keptBot(tenantNS, "x", "Delete"), []string{keys}},
		"a name of the server's":            {operator, unnamed, []string{keys}},
		"a time of deletion in the body":    {operator, lies, []string{keys}},
		"it is there":                       {operator, sealedBot(tenantNS, "x", keys), []string{keys}},
		"beside another":                    {adopter, sealedBot(tenantNS, "x", hold), []string{hold, keys}},
		"both are there":                    {adopter, sealedBot(tenantNS, "x", keys, hold), []string{keys, hold}},
		"nothing to undo":                   {operator, goingBot(tenantNS, "x"), nil},
		"a volume that stays":               {operator, keptBot(tenantNS, "x", "Retain"), nil},
		"a volume of which nothing is said": {operator, keptBot(tenantNS, "x", ""), nil},
		"a namespace of no Tenant":          {most, sealedBot(otherNS, "x"), nil},
		"as many as an object may have":     {adopter, sealedBot(tenantNS, "x", eight...), eight},
		"as long as an object may have":     {adopter, sealedBot(tenantNS, "x", wide...), wide},
	} {
		t.Run(name, func(t *testing.T) {
			bot := tc.bot.DeepCopy()
			if err := tc.as.Create(t.Context(), bot, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(bot.Finalizers, tc.want) {
				t.Errorf("finalizers %v, want %v", bot.Finalizers, tc.want)
			}
			if bot.DeletionTimestamp != nil {
				t.Error("a new bot is on its way out")
			}
		})
	}
}

// TestTheFinalizerIsPutThereOnceOnly: a bot that the manager, or a hand that may, took it off is not given it again
// by a change. Nobody owns it as a field.
func TestTheFinalizerIsPutThereOnceOnly(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	bot := sealedBot(tenantNS, "once")
	mustCreate(t, bot)
	for _, entry := range bot.ManagedFields {
		if entry.FieldsV1 != nil && strings.Contains(entry.FieldsV1.GetRawString(), "f:finalizers") {
			t.Errorf("%s owns the finalizers, and takes ours off when it applies without them", entry.Manager)
		}
	}
	if err := admin.Patch(t.Context(), bot, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
	if err := as("ann", groupOperate).Patch(t.Context(), bot, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"image":"bot:2"}}`))); err != nil {
		t.Fatal(err)
	}
	if len(bot.Finalizers) > 0 {
		t.Errorf("a change put it back: %v", bot.Finalizers)
	}
}

// TestKubectlHasNothingToSayOfTheFinalizer: kubectl itself, both ways of applying: there is never a difference to
// see, and nothing changes again and again. (The second server-side apply of an object of any custom kind makes one
// version more, which says the same, also where no policy is.)
func TestKubectlHasNothingToSayOfTheFinalizer(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	folder := t.TempDir()
	config := filepath.Join(folder, "kubeconfig")
	if err := os.WriteFile(config, server.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{"client-side": nil, "server-side": {"--server-side", "--field-manager=gitops"}} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(folder, name+".yaml")
			manifest := fmt.Sprintf("apiVersion: lethe.dev/v1alpha1\nkind: BotDeployment\nmetadata: {namespace: %s, name: %s}\n"+
				"spec: {image: 'bot:1', credentials: [{name: token, sealed: seal.v1.a.b.c.d.e}]}\n", tenantNS, name)
			if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			kubectl := func(verb string) string {
				t.Helper()
				args := append([]string{"--kubeconfig", config, verb, "-f", file}, flags...)
				out, err := exec.CommandContext(t.Context(), filepath.Join(server.Assets, "kubectl"), args...).CombinedOutput()
				if err != nil { // diff ends with 1 where there is a difference
					t.Fatalf("kubectl %v: %v\n%s", args, err, out)
				}
				return string(out)
			}
			bot := sealedBot(tenantNS, name)
			versions := map[string]bool{}
			for round := range 4 {
				kubectl("apply")
				if out := kubectl("diff"); out != "" {
					t.Errorf("there is a difference:\n%s", out)
				}
				if err := admin.Get(t.Context(), client.ObjectKeyFromObject(bot), bot); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(bot.Finalizers, []string{lethev1.FinalizerKeys}) {
					t.Errorf("finalizers %v", bot.Finalizers)
				}
				if round > 0 {
					versions[bot.ResourceVersion] = true
				}
			}
			if len(versions) != 1 {
				t.Errorf("applying the same three times more made %d versions", len(versions))
			}
		})
	}
}
