package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
)

// secrets are put together here, so that no scanner takes them for real ones, with the part that must never be shown.
var secrets = map[string][2]string{
	"Telegram":        {"987654321:" + strings.Repeat("AAx-Y", 7), strings.Repeat("AAx-Y", 7)},
	"Telegram in URL": {"https://api.telegram.org/bot987654321:" + strings.Repeat("AAx-Y", 7) + "/getMe", strings.Repeat("AAx-Y", 7)},
	"JWT":             {"eyJ" + strings.Repeat("hbGci", 4) + ".eyJ" + strings.Repeat("zdWIi", 4) + "." + strings.Repeat("Sfl-K", 8), strings.Repeat("Sfl-K", 8)},
	"AWS":             {"AKIA" + strings.Repeat("IOSF", 4), strings.Repeat("IOSF", 4)},
	"GitHub":          {"ghp_" + strings.Repeat("a1B2c3", 6), strings.Repeat("a1B2c3", 6)},
	"a longer one":    {"glpat-" + strings.Repeat("aB-c_1", 9), strings.Repeat("aB-c_1", 2)},
	"PEM":             {"-----BEGIN PRIVATE KEY-----\nhunter2MIIE\n-----END PRIVATE KEY-----", "hunter2"},
	"half a PEM":      {"-----BEGIN RSA PRIVATE KEY-----\nhunter2MIIE", "hunter2"},
	"URL":             {"postgres://app:hunter2@db.example:5432/app?sslmode=require", "hunter2"},
	"a URL's odd one": {"postgres://app:$hunter2@db.example/app", "hunter2"},
	"DSN":             {"host=db user=app password=hunter2 dbname=app", "hunter2"},
	"DSN in quotes":   {"host=db password='hunter2 and more hunter2' dbname=app", "hunter2"},
	"JSON":            {`{"user":"app","password":"hunter2","x":1}`, "hunter2"},
	"JSON in JSON":    {`"{\"password\":\"hunter2\"}"`, "hunter2"},
	"a query":         {"https://example.com/?api_key=hunter2&x=1", "hunter2"},
	"a header":        {"Authorization: Bearer hunter2hunter2hunter2", "hunter2"},
	"through nothing": {"post\u200bgres://app:hun\x1bter2@db.ex\u202eample/app", "hunter2"},
}

func TestSecretsAreNotShown(t *testing.T) {
	for name, s := range secrets {
		for where, text := range map[string]string{"alone": s[0], "in words": "refused (" + s[0] + "): it is wrong"} {
			if got := Text(text); strings.Contains(got, s[1]) {
				t.Errorf("%s %s: %q", name, where, got)
			}
			var b bytes.Buffer
			if _, err := io.WriteString(NewWriter(&b), text); err != nil || strings.Contains(b.String(), s[1]) {
				t.Errorf("%s %s: %q %v", name, where, b.String(), err)
			}
		}
		// However long the text before and after it is, and wherever it is cut.
		for n := range 40 {
			long := strings.Repeat("word ", 200) + strings.Repeat("x", n) + " " + s[0] + " " + strings.Repeat("word ", 3000)
			if got := Text(long); strings.Contains(got, s[1]) || len(got) > MaxText {
				t.Errorf("%s in a long text: %d bytes, %q", name, len(got), got[900:])
			}
		}
	}
	for _, words := range []string{
		"set password_encryption = 'scram-sha-256'", "the token: not given", "secret acme-a/support-cred-0123456789 is there", "SHA256:" + strings.Repeat("0a", 32),
		"the password is not accepted (SQLSTATE 28P01)", "a sealed value seal.v1.0123456789abcdef.xw.e30.AAAA.BBBB", "postgres://app@db.example/app", "https://10.0.0.1:8443/v1/tenant",
		"CronJob acme-a/chat at 2026-11-25T19:00:00+01:00", "credential telegram-token: the value is older",
	} {
		if got := Text(words); got != words {
			t.Errorf("%q became %q", words, got)
		}
	}
}

// TestCleaningEndsAtOnce: what was cleaned is clean, whatever it was made of.
func TestCleaningEndsAtOnce(t *testing.T) {
	var parts []string
	for _, s := range secrets {
		parts = append(parts, s[0], s[0][:len(s[0])/2])
	}
	parts = append(parts, "password=", "token='", "://a:", "@", "…", "[redacted]", " ", "\n", "\x1b[2J", "\u202e", "-END PRIVATE KEY-", strings.Repeat("x", 300), "\"", "\\")
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 30).Draw(t, "parts"), "")
		once := Line(text, 400)
		isFit(t, once, 400)
		if again := Line(once, 400); len(again) > len(once) {
			t.Errorf("%q\ngrew to\n%q", once, again)
		}
	})
}

// planted is what every foreign channel says in these tests.
const planted = "hunter\x1b[31m\u202e\nlevel=ERROR postgres://app:hunter2@db/app \u2066\x00\u009b2J"

type valuer struct{ v any }

func (v valuer) LogValue() slog.Value { return slog.AnyValue(v.v) }

type named string

func (n named) String() string { return string(n) }

// TestTheLogIsClean: there is no kind of value through which foreign text gets into a program's log as it is.
func TestTheLogIsClean(t *testing.T) {
	var b bytes.Buffer
	logger := NewLogger(&b, slog.LevelDebug)
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "X"}, "x", field.ErrorList{field.Invalid(field.NewPath("spec"), "hunter2", "is bad")})
	logger.Info(planted)
	logger.With("a", planted).WithGroup("g"+planted).Error("m", planted, 1, "b", named(planted), "c", []string{planted}, "d", map[string]any{planted: planted},
		"e", struct{ A, B string }{planted, planted}, "f", []byte(planted), slog.Group("h", "i", planted, slog.Group("j", "k", valuer{valuer{planted}})),
		"l", valuer{slog.GroupValue(slog.String("m", planted))}, "n", errors.New(planted), "o", fmt.Errorf("write: %w", errors.Join(errors.New(planted), invalid)),
		"p", json.RawMessage(`"postgres://app:hunter2@db/app"`), "q", func() {}, "r", valuer{errors.New(planted)}, "s", (*refused)(nil), "t", nil, "u", &planted2)
	l := logr.FromSlogHandler(logger.Handler()).WithName(planted).WithValues("v", planted)
	l.Error(errors.New(planted), planted, "w", planted)
	l.V(4).Info(planted)
	log.New(slogWriter{logger}, "", 0).Print(planted)
	slog.NewLogLogger(logger.Handler(), slog.LevelInfo).Print(planted)
	entries := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(entries) != 6 {
		t.Errorf("%d lines:\n%s", len(entries), &b)
	}
	for _, entry := range entries {
		var tree any
		if err := json.Unmarshal([]byte(entry), &tree); err != nil {
			t.Errorf("%v: %s", err, entry)
		}
		walk(t, tree)
	}
	for _, want := range []string{`"t":null`, `"s":null`, `write: hunter[31m`, `spec: invalid value: is bad`, `"time":"2`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is missing in\n%s", want, &b)
		}
	}
}

var planted2 = planted

type refused struct{}

func (*refused) Error() string { return "" }

type slogWriter struct{ l *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) { w.l.Info(string(p)); return len(p), nil }

func walk(t *testing.T, tree any) {
	t.Helper()
	switch node := tree.(type) {
	case string:
		isFit(t, node, MaxLogged)
		if strings.Contains(node, "hunter2") {
			t.Errorf("a secret: %q", node)
		}
	case []any:
		for _, child := range node {
			walk(t, child)
		}
	case map[string]any:
		for key, child := range node {
			walk(t, key)
			walk(t, child)
		}
	}
}

func TestTheLogSaysWhatWasMeant(t *testing.T) {
	var b bytes.Buffer
	NewLogger(&b, slog.LevelInfo).With("x", 1).Info("Started", "took", 2*time.Second, "ok", true, "f", 1.5, "n", uint64(7), "list", []int{1, 2}, "when", time.Unix(0, 0).UTC(),
		slog.Group("g", "a", "b"))
	for _, want := range []string{`"msg":"Started"`, `"level":"INFO"`, `"x":1`, `"took":2000000000`, `"ok":true`, `"f":1.5`, `"n":7`, `"list":[1,2]`, `"when":"1970-01-01T00:00:00Z"`, `"g":{"a":"b"}`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is missing in %s", want, &b)
		}
	}
	NewLogger(&b, slog.LevelInfo).Debug("hidden words")
	if strings.Contains(b.String(), "hidden words") {
		t.Error("the level does not count")
	}
}

func TestTheWriterKeepsLinesAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		var b bytes.Buffer
		w := NewWriter(&b)
		for rest := []byte(text); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if wrote, err := w.Write(rest[:n]); err != nil || wrote != n {
				t.Fatalf("%d, %v", wrote, err)
			}
			rest = rest[n:]
		}
		if !utf8.Valid(b.Bytes()) || strings.Count(b.String(), "\n") != strings.Count(text, "\n") {
			t.Errorf("%q became %q", text, b.String())
		}
		for _, r := range b.String() {
			if r != '\n' && r != '\t' && (!unicode.IsGraphic(r) || unicode.In(r, unicode.C, unicode.Zl, unicode.Zp)) {
				t.Errorf("%U is left", r)
			}
		}
	})
	var b bytes.Buffer
	if _, err := io.WriteString(NewWriter(&b), "a  b\tc ü ✓\n\x1b[31mred\x1b[0m \u202eevil\r\n"); err != nil || b.String() != "a  b\tc ü ✓\n[31mred[0m evil\n" {
		t.Errorf("%q %v", b.String(), err)
	}
}

// TestEveryProgramLogsHere: nobody in the programs makes a log of another kind, and each of them makes one of this
// kind, or none.
func TestEveryProgramLogsHere(t *testing.T) {
	others := regexp.MustCompile(`slog\.New(JSON|Text)Handler|slog\.Default\(|zap\.New|klog\.(Info|Warning|Error|Fatal)|\blog\.(Print|Fatal|Panic|New\()|slog\.(Info|Warn|Error|Debug)\(`)
	uses := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err == nil && entry.IsDir() && slices.Contains([]string{"test", "hack", "examples", ".git", filepath.Join("internal", "foreign")}, rel) {
			return fs.SkipDir
		}
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		if found := others.FindString(string(content)); found != "" {
			t.Errorf("%s: %s", rel, found)
		}
		if strings.Contains(string(content), "package main") {
			uses[filepath.Dir(rel)] += string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for program, how := range map[string]string{".": "foreign.NewLogger(", "cmd/keyserver": "foreign.NewLogger(", "cmd/sweeper": "foreign.NewLogger(", "cmd/unseal": "foreign.Text(",
		"cmd/kubectl-lethe": "foreign.NewWriter("} {
		if !strings.Contains(uses[filepath.FromSlash(program)], how) {
			t.Errorf("%s does not use %s", program, how)
		}
		delete(uses, filepath.FromSlash(program))
	}
	for program := range uses {
		t.Errorf("%s is a program that no test plants words in", program)
	}
}
