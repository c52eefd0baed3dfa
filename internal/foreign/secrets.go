package foreign

import "regexp"

// The shapes of credentials of well-known issuers, without the words around them.
const (
	telegramShape = `(bot)?\d{6,12}:[-\w]{35}`
	issuedShape   = `eyJ[-\w]{9,}\.eyJ[-\w]+\.|A[KS]IA[0-9A-Z]{16}`
	prefixedShape = `gh[opsur]_\w{36}|github_pat_\w{22}|glpat-[-\w]{20}|xox[a-z]-\w{9}|[rs]k_live_\w{16}|sk-[-\w]{40}|AIza[-\w]{35}`
	secretWords   = `(?:ssl)?password|passwd|pwd|passphrase|secret|token|api[-_]?key|client[-_]secret`
	pemShape      = `-BEGIN [A-Z ]*PRIVATE KEY-`
)

// TokenShape is what credentials of well-known issuers look like: tokens of Telegram, JWTs, AWS, GitHub, GitLab,
// Slack, Stripe, OpenAI and Anthropic, Google; a private key in PEM; a password in a URL, unless it begins as a
// placeholder does. The admission policies lethe-…-plaintext warn by the same expression (TestOneShapeOfTokens),
// which is short because the API server charges by its length.
const TokenShape = `\b(` + telegramShape + `([^-\w]|$)|` + issuedShape + `\b|` + prefixedShape + `)|` + pemShape + `|://[^/?#@\s:]*:[^/?#@\s$<{*][^/?#@\s]*@`

// What is taken out of foreign text: whole tokens, whatever length they have, passwords in URLs and in connection
// strings, and what a header authorizes with. Wider than TokenShape: too little shown is no harm here.
var (
	tokens  = regexp.MustCompile(`\b(?:` + telegramShape + `|` + issuedShape + `|` + prefixedShape + `)[-\w.~+/=]*`)
	keys    = regexp.MustCompile(`(?s)-+BEGIN [A-Z ]*PRIVATE KEY.*?(?:END [A-Z ]*PRIVATE KEY-+|$)`)
	inURLs  = regexp.MustCompile(`(://[^/?#@\s:]*:)[^/\s@…][^/\s@]*(@)`)
	quoted  = regexp.MustCompile(`(?i)\b(` + secretWords + `)(\\?["']?\s?[=:]\s?\\?["'])[^"'\\…][^"'\\]*`)
	bare    = regexp.MustCompile(`(?i)\b(` + secretWords + `)=[^\s"'&;,\\…][^\s"'&;,]*`)
	bearers = regexp.MustCompile(`(?i)\b(bearer|basic) [-\w.~+/]{16,}=*`)
)

// hidden stands for a whole secret, and an ellipsis for a password within something else.
const hidden = "[redacted]"

func redact(text string) string {
	text = keys.ReplaceAllString(text, hidden)
	text = inURLs.ReplaceAllString(text, "${1}…${2}")
	text = tokens.ReplaceAllString(text, hidden)
	text = bearers.ReplaceAllString(text, "${1} …")
	text = quoted.ReplaceAllString(text, "${1}${2}…")
	return bare.ReplaceAllString(text, "${1}=…")
}
