package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/test/hostile"
	"github.com/lethe-dev/lethe/test/telegram"
)

const (
	token  = "4242:AAExampleExampleExampleExample_Exampl"
	secret = "AAExampleExampleExampleExample_Exampl"
	wrong  = "4242:AAWrongWrongWrongWrongWrongWrong_Wron"
)

// buffer is a bytes.Buffer that two goroutines may use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// env writes the token to a file and returns the environment that Lethe would set.
func env(t *testing.T, token, api string) func(string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o440); err != nil {
		t.Fatal(err)
	}
	m := map[string]string{"TELEGRAM_BOT_TOKEN_FILE": path, "TELEGRAM_API_URL": api, "LISTEN": "127.0.0.1:0", "GREETING": "Welcome at acme."}
	return func(k string) string { return m[k] }
}

// running is a bot in this process.
type running struct {
	health string
	stop   func() error
	logs   *buffer
}

func begin(t *testing.T, getenv func(string) string) *running {
	t.Helper()
	cfg, err := configure(getenv)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{logs: &buffer{}}
	address := make(chan net.Addr, 1)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, r.logs, func(a net.Addr) { address <- a }) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the bot does not end")
		}
	})
	t.Cleanup(func() {
		_ = r.stop() // the test that cares about the error has asked for it
		if t.Failed() {
			t.Log(r.logs.String())
		}
	})
	select {
	case a := <-address:
		r.health = "http://" + a.String() + "/healthz"
	case err := <-ended:
		t.Fatalf("the bot ended at once: %v", err)
	}
	return r
}

func (r *running) status(t *testing.T) int {
	t.Helper()
	resp, err := http.Get(r.health)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, resp.Body); errors.Join(err, resp.Body.Close()) != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// standIn is the Bot API with a switch that makes it refuse every poll.
func standIn(t *testing.T) (*telegram.Server, string, func(refuse bool)) {
	t.Helper()
	s := telegram.New(telegram.Options{MaxPoll: 200 * time.Millisecond})
	if _, err := s.AddBot(token, "acme_bot"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	refusing := false
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		no := refusing
		mu.Unlock()
		if no {
			http.Error(w, `{"ok":false,"error_code":502,"description":"Bad Gateway"}`, http.StatusBadGateway)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	return s, h.URL, func(no bool) { mu.Lock(); defer mu.Unlock(); refusing = no }
}

func TestItAnswersAndEndsCleanly(t *testing.T) {
	s, api, _ := standIn(t)
	r := begin(t, env(t, token+"\n", api))
	until(t, "it is ready", func() bool { return r.status(t) == 200 })
	for said, want := range map[string]string{
		"/start": "Welcome at acme.", "how are you?": "You said: how are you?",
		strings.Repeat("ä", 4096): "You said: " + strings.Repeat("ä", 4085) + "…",
	} {
		id, err := s.UserSays(4242, 77, said)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		m, err := s.AwaitReply(ctx, 4242, 77, id)
		cancel()
		if err != nil || m.Text != want {
			t.Fatalf("answer %.40q %v", m.Text, err)
		}
	}
	if err := r.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	until(t, "no poll is left behind", func() bool { st, err := s.StatsOf(4242); return err == nil && !st.Waiting })
	if st, err := s.StatsOf(4242); err != nil || st.Conflicts != 0 {
		t.Errorf("%+v %v", st, err)
	}
	if logs := r.logs.String(); strings.Contains(logs, "how are you") || strings.Contains(logs, secret) {
		t.Errorf("the log says too much:\n%s", logs)
	}
}

func TestReadinessFollowsPolling(t *testing.T) {
	_, api, refuse := standIn(t)
	r := begin(t, env(t, token, api))
	until(t, "it is ready", func() bool { return r.status(t) == 200 })
	refuse(true)
	until(t, "it is not ready once polls fail", func() bool { return r.status(t) == 503 })
	refuse(false)
	until(t, "it is ready again", func() bool { return r.status(t) == 200 })
}

func TestItWaitsForANetworkThatIsNotThereYet(t *testing.T) {
	_, api, refuse := standIn(t)
	refuse(true)
	r := begin(t, env(t, token, api))
	until(t, "it says that it cannot poll", func() bool { return strings.Contains(r.logs.String(), "Cannot poll yet") })
	if r.status(t) != 503 {
		t.Error("ready without having polled")
	}
	refuse(false)
	until(t, "it is ready", func() bool { return r.status(t) == 200 })
}

func TestAPollThatIsLongAgoIsNotHealth(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	h := newPollHealth(func() time.Time { return now }, time.Minute)
	if h.ok() {
		t.Error("healthy before any poll")
	}
	h.polled(true)
	if now = now.Add(time.Minute); !h.ok() {
		t.Error("unhealthy within the time")
	}
	if now = now.Add(time.Second); h.ok() {
		t.Error("healthy after the time")
	}
}

func TestTheTokenIsInNoErrorAndNoLog(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close() // its address refuses connections
	for name, tc := range map[string]struct{ token, api string }{
		"a wrong token":          {wrong, ""},
		"nobody listens":         {token, closed.URL},
		"an address of nonsense": {token, "http://127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.api == "" {
				_, tc.api, _ = standIn(t)
			}
			cfg, err := configure(env(t, tc.token, tc.api))
			if err != nil {
				t.Fatal(err)
			}
			var logs buffer
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			err = run(ctx, cfg, &logs, nil)
			if tc.token == wrong && err == nil {
				t.Error("a wrong token is no error")
			}
			said := fmt.Sprint(err) + logs.String()
			if strings.Contains(said, strings.SplitN(tc.token, ":", 2)[1]) {
				t.Errorf("the token is in %q", said)
			}
		})
	}
}

// TestForeignWordsInTheBotsLog: what stands in for Telegram says what it likes, and a user writes it.
func TestForeignWordsInTheBotsLog(t *testing.T) {
	s, _, _ := standIn(t)
	failing := map[string]int{"getMe": http.StatusBadGateway}
	var mu sync.Mutex
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		code := failing[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		mu.Unlock()
		if code != 0 {
			hostile.Answer(w, code, map[string]any{"ok": false, "error_code": code, "description": hostile.Words()})
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	answer := func(method string, code int) {
		mu.Lock()
		defer mu.Unlock()
		clear(failing)
		failing[method] = code
	}
	r := begin(t, env(t, token, h.URL))
	until(t, "it cannot ask who it is", func() bool { return strings.Contains(r.logs.String(), "Cannot poll yet") })
	answer("sendMessage", http.StatusBadRequest)
	until(t, "it is ready", func() bool { return r.status(t) == 200 })
	if _, err := s.UserSays(4242, 77, hostile.Words()); err != nil {
		t.Fatal(err)
	}
	until(t, "an answer is refused", func() bool { return strings.Contains(r.logs.String(), "Answer not sent") })
	answer("getUpdates", http.StatusConflict)
	until(t, "a poll is refused", func() bool { return strings.Contains(r.logs.String(), "msg=Telegram") })
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	hostile.Check(t, "the log", r.logs.String())
	hostile.Reached(t, "the log", r.logs.String())

	answer("getMe", http.StatusUnauthorized)
	cfg, err := configure(env(t, token, h.URL))
	if err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), cfg, io.Discard, nil)
	if err == nil {
		t.Fatal("a token that is refused is no error")
	}
	hostile.Check(t, "the last words", "telegram-bot: "+err.Error()+"\n")
}

func TestScrubbingHidesEveryForm(t *testing.T) {
	s := scrubber("42:a+b/c_secret_secret")
	var out bytes.Buffer
	fmt.Fprint(s.writer(&out), "GET /bot42:a+b/c_secret_secret/getMe a%2Bb%2Fc_secret_secret a+b%2Fc_secret_secret")
	if strings.Contains(out.String(), "secret_secret") || !strings.Contains(out.String(), "/bot<token>/getMe") {
		t.Errorf("%q", out.String())
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		want string
	}{
		"no file named":  {map[string]string{}, "TELEGRAM_BOT_TOKEN_FILE is not set"},
		"no such file":   {map[string]string{"TELEGRAM_BOT_TOKEN_FILE": filepath.Join(t.TempDir(), "none")}, "read the token's file"},
		"not a URL":      {map[string]string{"TELEGRAM_API_URL": "telegram"}, "TELEGRAM_API_URL: want a URL"},
		"another scheme": {map[string]string{"TELEGRAM_API_URL": "file:///etc"}, "TELEGRAM_API_URL: want a URL"},
	} {
		if _, err := configure(func(k string) string { return tc.env[k] }); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := configure(env(t, "hunter2-hunter2-hunter2", "https://api.telegram.org")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a file that holds something else: %v", err)
	}
}
