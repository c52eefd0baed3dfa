package resources

import (
	"os"
	"path/filepath"
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
	if n := strings.Count(string(text), ".matches("); n != 3 || strings.Count(string(text), ".matches(r'"+TokenShape+"')") != n {
		t.Errorf("config/admission/plaintext.yaml has %d expressions that are not all TokenShape", n)
	}
}

func TestPlaintextNamesPlacesAlone(t *testing.T) {
	token := "123456789:" + strings.Repeat("Ab-_9", 7)
	bot := &v1alpha1.BotDeployment{Spec: v1alpha1.BotDeploymentSpec{
		Command: []string{"/bot", token}, Args: []string{"--token=" + token, "--polling"},
		Env: []v1alpha1.EnvVar{{Name: "A", Value: "b"}, {Name: "TOKEN", Value: token}},
	}}
	if diff := cmp.Diff([]string{"spec.env[TOKEN].value", "spec.args[0]", "spec.command[1]"}, Plaintext(bot)); diff != "" {
		t.Error(diff)
	}
}
