package keyclient

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const podUIDForTests = "5d1f6d2e-0000-4000-8000-000000000001"

func tokenFor(uid string) string {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"kubernetes.io":{"pod":{"name":"p","uid":"` + uid + `"}}}`))
	return "e30." + claims + ".sig"
}

// server is a keyserver that answers as it is told.
type server struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)
	caFile string
	token  string
	seen   []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen = append(s.seen, r.Header.Get("Authorization"))
		s.answer(w, r)
	}))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	s.caFile, s.token = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	write(t, s.caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	write(t, s.token, tokenFor(podUIDForTests)+"\n")
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) client(t *testing.T) *Client {
	t.Helper()
	c, err := New(Options{URL: s.URL, CAFile: s.caFile, TokenFile: s.token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCalls(t *testing.T) {
	s := newServer(t)
	ref := keyapi.ObjectRef{Kind: "Tenant", Name: "acme", UID: "u"}
	var got keyapi.TenantRequest
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Method != http.MethodPost || r.URL.Path != keyapi.PathTenant {
			t.Errorf("got %s %s: %v", r.Method, r.URL.Path, err)
		}
		_, _ = w.Write([]byte(`{"kekGrade":"Production","more":1}`))
	}
	resp, err := s.client(t).Tenant(t.Context(), ref)
	if err != nil || resp.KEKGrade != "Production" {
		t.Errorf("answered %+v, %v", resp, err)
	}
	if diff := cmp.Diff(ref, got.Tenant); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Bearer " + tokenFor(podUIDForTests)}, s.seen); diff != "" {
		t.Error(diff)
	}
}

func TestUnsealAndLease(t *testing.T) {
	s := newServer(t)
	bundle := keyapi.SecretBundle{Items: []keyapi.SecretItem{{Name: "telegram", Value: []byte("4711:canary")}}}
	plain, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	uid := podUIDForTests
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		var req struct{ PublicKey string }
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		sealed := ""
		if req.PublicKey != "" {
			pub, err := sealing.ParsePublicKey(sealing.Suite, req.PublicKey)
			if err != nil {
				t.Error(err)
				return
			}
			if sealed, err = sealing.SealReply(pub, r.URL.Path, uid, plain); err != nil {
				t.Error(err)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sealed": sealed, "seconds": 30, "expires": time.Unix(1, 0)})
	}
	c := s.client(t)
	got, err := c.Unseal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bundle, got); diff != "" {
		t.Error(diff)
	}
	lease, err := c.Lease(t.Context(), keyapi.LeaseRequest{PlanHash: "hash"}, true)
	if err != nil || lease.For != 30*time.Second || len(lease.Items) != 1 {
		t.Errorf("lease for %s with %d items: %v", lease.For, len(lease.Items), err)
	}
	if lease, err = c.Lease(t.Context(), keyapi.LeaseRequest{PlanHash: "hash"}, false); err != nil || lease.Items != nil {
		t.Errorf("renewed with %d items: %v", len(lease.Items), err)
	}
	if err := c.Release(t.Context(), "hash"); err != nil {
		t.Error(err)
	}
	// An answer that was made for another pod does not open.
	uid = "5d1f6d2e-0000-4000-8000-000000000002"
	if _, err := c.Unseal(t.Context()); !errors.Is(err, sealing.ErrDoesNotOpen) {
		t.Errorf("another pod's answer: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	s := newServer(t)
	for name, tc := range map[string]struct {
		status    int
		body      string
		reason    string
		says      string
		retryable bool
		after     time.Duration
	}{
		"for good":            {409, `{"reason":"KeyMissing","message":"gone"}`, "KeyMissing", "gone", false, 7 * time.Second},
		"for now":             {409, `{"reason":"InUse","message":"wait","retryAfterSeconds":2}`, "InUse", "wait", true, 2 * time.Second},
		"a proxy in between":  {502, `<html>canary</html>`, "", "status 502", true, 7 * time.Second},
		"rubbish with 200":    {200, `canary`, "", "not readable", true, 7 * time.Second},
		"a redirect, refused": {302, ``, "", "status 302", true, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s.answer = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", s.URL+"/elsewhere")
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			}
			_, err := s.client(t).Credentials(t.Context(), keyapi.ObjectRef{})
			if err == nil || ReasonOf(err) != tc.reason || IsRetryable(err) != tc.retryable || RetryAfter(err, 7*time.Second) != tc.after || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("reason %q, retryable %v, after %s: %v", ReasonOf(err), IsRetryable(err), RetryAfter(err, 7*time.Second), err)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Error("the error repeats the answer")
			}
		})
	}
}

func TestTrustsTheBundleOnly(t *testing.T) {
	s := newServer(t)
	s.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }
	c := s.client(t)
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(s.caFile)
	if err != nil {
		t.Fatal(err)
	}
	// A file that was replaced is read again, without a new client: first one without a certificate, then ours again.
	write(t, s.caFile, "none")
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err == nil || !IsRetryable(err) {
		t.Errorf("an empty bundle: %v", err)
	}
	write(t, s.caFile, string(good))
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err != nil {
		t.Error(err)
	}
	s.Config.SetKeepAlivesEnabled(false)
	write(t, s.caFile, otherCA)
	before := len(s.seen)
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err == nil || !IsRetryable(err) {
		t.Errorf("another authority: %v", err)
	}
	if len(s.seen) != before {
		t.Error("the token was sent to a server that is not trusted")
	}
	// The token too is read for each call.
	write(t, s.caFile, string(good))
	write(t, s.token, "second")
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err != nil || s.seen[len(s.seen)-1] != "Bearer second" {
		t.Errorf("sent %q: %v", s.seen[len(s.seen)-1], err)
	}
	write(t, s.token, " \n")
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err == nil {
		t.Error("asked without a token")
	}
}

// TestAnswersAreBounded: whoever answers in the keyserver's place fills no memory of ours, with a head or with a body.
func TestAnswersAreBounded(t *testing.T) {
	s := newServer(t)
	for name, answer := range map[string]func(http.ResponseWriter){
		"a head": func(w http.ResponseWriter) { w.Header().Set("X", strings.Repeat("x", 2*maxHead)) },
		"a body": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"kekGrade":"` + strings.Repeat("x", maxAnswer))) },
	} {
		s.answer = func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 1 {
				t.Errorf("it speaks %s", r.Proto)
			}
			answer(w)
		}
		if _, err := s.client(t).Tenant(t.Context(), keyapi.ObjectRef{}); err == nil || strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokensThatAreNoPods(t *testing.T) {
	for name, token := range map[string]string{"two parts": "a.b", "no base64": "a.!.c", "no pod": "a.e30.c", "no JSON": "a.eHl6.c"} {
		if _, err := podUID(token); err == nil || IsRetryable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"plain HTTP":    {URL: "http://k:1", CAFile: "c", TokenFile: "t"},
		"no host":       {URL: "https://", CAFile: "c", TokenFile: "t"},
		"no CA":         {URL: "https://k:1", TokenFile: "t"},
		"no token file": {URL: "https://k:1", CAFile: "c"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCAFromElsewhere(t *testing.T) {
	s := newServer(t)
	s.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }
	fail := true
	c, err := New(Options{URL: s.URL, TokenFile: s.token, CA: func(context.Context) ([]byte, error) {
		if fail {
			return nil, errors.New("not yet")
		}
		return os.ReadFile(s.caFile)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err == nil || !IsRetryable(err) {
		t.Errorf("without a bundle: %v", err)
	}
	fail = false
	if err := c.Revoke(t.Context(), keyapi.ObjectRef{}); err != nil {
		t.Error(err)
	}
}
