package resources

import (
	"fmt"
	"regexp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TokenShape is what credentials of well-known issuers look like: tokens of Telegram, JWTs, AWS, GitHub, GitLab, Slack, Stripe, OpenAI and Anthropic,
// Google; a private key in PEM; a password in a URL, unless it begins as a placeholder does. Admission policy lethe-bot-plaintext warns by the same
// expression (TestOneShapeOfTokens), which is short because the API server charges by its length.
const TokenShape = `\b((bot)?\d{6,12}:[-\w]{35}([^-\w]|$)|eyJ[-\w]{9,}\.eyJ[-\w]+\.|A[KS]IA[0-9A-Z]{16}\b|gh[opsur]_\w{36}|github_pat_\w{22}|glpat-[-\w]{20}|` +
	`xox[a-z]-\w{9}|[rs]k_live_\w{16}|sk-[-\w]{40}|AIza[-\w]{35})|-BEGIN [A-Z ]*PRIVATE KEY-|://[^/?#@\s:]*:[^/?#@\s$<{*][^/?#@\s]*@`

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
