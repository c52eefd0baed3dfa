package resources

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestOneShapeOfTokens: the admission policy warns of what the bot's condition names.
func TestOneShapeOfTokens(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "admission", "plaintext.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), ".matches("); n < 14 || strings.Count(string(text), ".matches(r'"+TokenShape+"')") != n {
		t.Errorf("config/admission/plaintext.yaml has %d expressions that are not all TokenShape", n)
	}
}

func TestPlaintextNamesPlacesAlone(t *testing.T) {
	token := "123456789:" + strings.Repeat("Ab-_9", 7)
	bot := &v1alpha1.BotDeployment{Spec: v1alpha1.BotDeploymentSpec{
		Image: "registry.example/bot:v1", Command: []string{"/bot", token}, Args: []string{"--token=" + token, "--polling"},
		Env:            []v1alpha1.EnvVar{{Name: "A", Value: "b"}, {Name: "TOKEN", Value: token}, {Name: "AKIAIOSFODNN7IOSFODN", Value: token}},
		Files:          []v1alpha1.BotFile{{Path: "/etc/bot.conf", Content: "token: " + token}, {Path: "/bot" + token, Content: "x"}},
		PodAnnotations: map[string]string{"example.com/a": token, "example.com/b": "c", token: "d"},
		Probes:         &v1alpha1.Probes{Liveness: &v1alpha1.Probe{Command: []string{"/check", token}}, Readiness: &v1alpha1.Probe{Path: "/bot" + token + "/getMe"}},
		Credentials:    []v1alpha1.Credential{{Name: "a", Sealed: v1alpha1.SealedValue(token), EnvName: "B"}},
		Helpers:        []v1alpha1.BotHelper{{Name: "h", Env: []v1alpha1.EnvVar{{Name: "C", Value: token}}, Args: []string{token}, Credentials: []string{token}}},
	}}
	want := []string{"spec.podAnnotations[example.com/a]", "a name in spec.podAnnotations", "spec.command[1]", "spec.args[0]", "spec.env[TOKEN].value", "a name in spec.env", "spec.env[2].value",
		"spec.probes.liveness.command[1]", "spec.probes.readiness.path", "spec.files[/etc/bot.conf].content", "a path in spec.files", "spec.helpers[h].args[0]", "spec.helpers[h].env[C].value",
		"spec.helpers[h].credentials[0]"}
	found := Plaintext(bot)
	slices.Sort(found)
	slices.Sort(want)
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}
