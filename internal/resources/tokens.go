package resources

import (
	"fmt"
	"regexp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// TokenShape is what credentials of well-known issuers look like. It is what foreign text is searched for, too.
const TokenShape = foreign.TokenShape

var tokenShape = regexp.MustCompile(TokenShape)

// Plaintext names the elements of a bot's spec that hold what looks like a credential, as a person finds them, and never what they hold.
func Plaintext(bot *v1alpha1.BotDeployment) []string {
	var found []string
	for _, variable := range bot.Spec.Env {
		if tokenShape.MatchString(variable.Value) {
			found = append(found, fmt.Sprintf("spec.env[%s].value", variable.Name))
		}
	}
	for i, arg := range bot.Spec.Args {
		if tokenShape.MatchString(arg) {
			found = append(found, fmt.Sprintf("spec.args[%d]", i))
		}
	}
	for i, word := range bot.Spec.Command {
		if tokenShape.MatchString(word) {
			found = append(found, fmt.Sprintf("spec.command[%d]", i))
		}
	}
	return found
}
