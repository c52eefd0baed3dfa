// Package hostile is whoever Lethe's programs hear and did not write: an API server or a keyserver whose every word
// carries a secret, orders to a terminal, and lines that look like Lethe's own. A test plants its words and looks at
// what a program shows.
package hostile

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	password = "hunter2-correct-horse"
	forged   = "FORGED"
	// Mark stands in front of what is planted, and shows that a channel was reached.
	Mark = "planted-words"
)

// token has the shape of one of Telegram's; put together here, so that no scanner takes it for a real one.
var token = strings.Repeat("hW-7x", 7)

// Words are what is planted: a connection string with a password, tokens, orders to a terminal, a change of writing
// direction, and lines of their own.
func Words() string {
	return Mark + " \x1b[2J\x1b]0;title\x07 postgres://app:" + password + "@db.example/app and 987654321:" + token + " and password=" + password +
		"\n" + forged + `{"level":"INFO","msg":"all is well"}` + "\r\n" + forged + "   acme   compliant\t0 \u202egnp.exe\u2066 \u009b2J\u2028" + forged + " \x00\x7f end"
}

// Check fails on whatever of the planted words must not be shown: secrets, what a terminal would obey, and lines that
// somebody else began.
func Check(t testing.TB, what, shown string) {
	t.Helper()
	for _, secret := range []string{password, token} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s shows a secret:\n%.3000q", what, shown)
		}
	}
	for line := range strings.Lines(shown) {
		if strings.HasPrefix(strings.TrimSuffix(line, "\n"), forged) {
			t.Errorf("%s has a line of somebody else's: %q", what, line)
		}
		for _, r := range strings.TrimSuffix(line, "\n") {
			if r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Errorf("%s has %U: %.500q", what, r, line)
				break
			}
		}
	}
}

// Reached fails unless planted words came as far as that at all.
func Reached(t testing.TB, what, shown string) {
	t.Helper()
	if !strings.Contains(shown, Mark) {
		t.Errorf("nothing of the planted words came as far as %s: the test shows nothing\n%s", what, shown)
	}
}

// Refuse answers as an API server that refuses, in planted words: one that has looked at a field, and one that has not.
func Refuse(w http.ResponseWriter, code int) {
	status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Message: Words(),
		Reason: metav1.StatusReasonForbidden}
	if code == http.StatusUnprocessableEntity {
		status.Reason = metav1.StatusReasonInvalid
		status.Details = &metav1.StatusDetails{Kind: "Thing", Name: Mark, Causes: []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid, Field: "spec",
			Message: Words()}}}
	}
	Answer(w, code, status)
}

// Answer sends JSON.
func Answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // whoever asked and went away gets nothing
}

// API is an API server that knows Lethe's kinds, a few of Kubernetes' own, and answers what is asked by the paths in
// answers (a prefix of "METHOD /path"), and everything else with a refusal.
func API(t testing.TB, answers map[string]any) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Warning", `299 - "planted-words postgres://app:`+password+`@db.example/app"`)
		if discover(w, r.URL.Path) {
			return
		}
		best := ""
		for path := range answers {
			if strings.HasPrefix(r.Method+" "+r.URL.Path, path) && len(path) > len(best) {
				best = path
			}
		}
		if best != "" {
			Answer(w, http.StatusOK, answers[best])
			return
		}
		Refuse(w, []int{http.StatusForbidden, http.StatusUnprocessableEntity}[len(r.URL.Path)%2])
	}))
	t.Cleanup(server.Close)
	return server
}

// discover answers what clients ask before anything else.
func discover(w http.ResponseWriter, path string) bool {
	lethe := metav1.GroupVersionForDiscovery{GroupVersion: "lethe.dev/v1alpha1", Version: "v1alpha1"}
	resource := func(name, kind string, namespaced bool) metav1.APIResource {
		return metav1.APIResource{Name: name, Kind: kind, Namespaced: namespaced, Verbs: metav1.Verbs{"get", "list", "watch", "create", "update", "patch", "delete"}}
	}
	switch path {
	case "/api":
		Answer(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "/apis":
		Answer(w, http.StatusOK, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{
			{Name: "lethe.dev", Versions: []metav1.GroupVersionForDiscovery{lethe}, PreferredVersion: lethe}}})
	case "/apis/lethe.dev":
		Answer(w, http.StatusOK, metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: "lethe.dev",
			Versions: []metav1.GroupVersionForDiscovery{lethe}, PreferredVersion: lethe})
	case "/api/v1":
		Answer(w, http.StatusOK, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1",
			APIResources: []metav1.APIResource{resource("namespaces", "Namespace", false), resource("secrets", "Secret", true), resource("configmaps", "ConfigMap", true)}})
	case "/apis/lethe.dev/v1alpha1":
		Answer(w, http.StatusOK, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: lethe.GroupVersion,
			APIResources: []metav1.APIResource{resource("tenants", "Tenant", false), resource("botdeployments", "BotDeployment", true),
				resource("datastores", "DataStore", true), resource("dataretentionpolicies", "DataRetentionPolicy", false)}})
	default:
		return false
	}
	return true
}

// Kubeconfig is a file that leads to a server.
func Kubeconfig(t testing.TB, url string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: url}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Process is a program that runs.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	shown *output
}

// processVariable tells a test's program to be the one that it tests.
const processVariable = "LETHE_TEST_PROCESS"

// IsProcess says whether this is the program itself and not its tests: TestMain calls main then.
func IsProcess() bool { return os.Getenv(processVariable) != "" }

// Start runs the program of a package whose TestMain asks IsProcess, as it is shipped.
func Start(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0], args...), shown: &output{}}
	p.cmd.Env = append(append(os.Environ(), processVariable+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.shown, p.shown
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// Shown is what it has said until now.
func (p *Process) Shown() string { return p.shown.String() }

// Until waits until the program has shown all of that.
func (p *Process) Until(words ...string) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, word := range words {
		for !strings.Contains(p.Shown(), word) {
			if time.Now().After(deadline) {
				p.t.Fatalf("%q is never shown:\n%s", word, p.Shown())
			}
			<-tick.C
		}
	}
}

// Stop ends it as a kubelet does, and returns its exit code.
func (p *Process) Stop() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	return p.Wait()
}

// Kill ends it where it stands.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.Wait()
}

// Wait waits for its end and returns its exit code.
func (p *Process) Wait() int {
	_ = p.cmd.Wait() // the exit code says it
	return p.cmd.ProcessState.ExitCode()
}

type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
