package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/test/programs/whatsapp"
)

// hosted is one bot with its home and its volume.
type hosted struct {
	t      *testing.T
	config string
}

func host(t *testing.T, proxy string) *hosted {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", filepath.Join(dir, "home"))
	b, err := json.Marshal(config{Store: filepath.Join(dir, "whatsapp.db"), Proxy: proxy, Listen: free(t)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return &hosted{t, path}
}

// free is an address where nobody listens now, with a port that no outgoing connection of this machine gets: those come from 32768 on.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 30000+rand.IntN(2768)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// start runs the bot until the function that it returns is called.
func (h *hosted) start() (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- command(ctx, []string{"run", h.config}, nil) }()
	return func() {
		h.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("the bot ended with %v", err)
		}
	}
}

func (h *hosted) says(what string) string {
	h.t.Helper()
	var out bytes.Buffer
	if err := command(h.t.Context(), []string{what, h.config}, &out); err != nil {
		return strings.TrimSpace(err.Error())
	}
	return strings.TrimSpace(out.String())
}

func is(want string) func(string) bool { return func(said string) bool { return said == want } }

func isCode(said string) bool { return strings.Count(said, ",") >= 3 }

// until asks until the answer is what is wanted.
func (h *hosted) until(what string, want func(string) bool) string {
	h.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	said := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if said = h.says(what); want(said) {
			return said
		}
	}
	h.t.Fatalf("%s: %q for 30 seconds", what, said)
	return ""
}

func standIn(t *testing.T) *whatsapp.Running {
	t.Helper()
	s, err := whatsapp.Start(t.Context(), "127.0.0.1:0", "a-password")
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(s.CA), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", ca)
	t.Setenv("WHATSAPP_NOISE_ROOT", s.Root())
	return s
}

// asks is the friend.
func (h *hosted) asks(s *whatsapp.Running, text string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	if answer, err := s.Ask(ctx, text); err != nil || answer != "You said: "+text {
		h.t.Errorf("%q is answered by %q (%v)", text, answer, err)
	}
}

// TestItPairsAnswersAndKnowsItselfAgain: before it is paired it says so, its code is in its home and nowhere else, it answers what a friend writes, and
// out of its store it is the same device again, in the same session with that friend.
func TestItPairsAnswersAndKnowsItselfAgain(t *testing.T) {
	s := standIn(t)
	for _, password := range []string{"", "another"} {
		h := host(t, "http://bot:"+password+"@"+s.Proxy)
		before := s.Stats().TurnedAway
		stop := h.start()
		h.until("ready", is("not paired"))
		for deadline := time.Now().Add(30 * time.Second); s.Stats().TurnedAway == before && time.Now().Before(deadline); {
			h.until("ready", is("not paired"))
		}
		if said := h.says("pairing"); isCode(said) {
			t.Error("the proxy lets anybody through")
		}
		stop()
	}
	if st := s.Stats(); st.Hellos != 0 || st.TurnedAway == 0 {
		t.Errorf("without the proxy's password: %+v", st)
	}

	h := host(t, "http://bot:a-password@"+s.Proxy)
	stop := h.start()
	code := h.until("pairing", isCode)
	if said := h.says("ready"); said != "not paired" {
		t.Errorf("with a code that nobody has scanned it says %q", said)
	}
	if err := s.Scan(strings.Replace(code, ",", "x,", 1)); err == nil {
		t.Error("a code that nobody shows was taken")
	}
	if err := s.Scan(code); err != nil {
		t.Fatal(err)
	}
	h.until("ready", is("connected"))
	if said := h.says("pairing"); isCode(said) {
		t.Error("the code is still shown")
	}
	h.asks(s, "are you there?")
	h.asks(s, "still?")
	stop()
	if said := h.says("ready"); !strings.Contains(said, "refused") {
		t.Errorf("one that does not run says %q", said)
	}

	stop = h.start()
	h.until("ready", is("connected"))
	h.asks(s, "and now?")
	stop()
	st := s.Stats()
	if st.Paired != 1 || st.Logins != 2 || st.Strangers != 0 {
		t.Errorf("one pairing and a restart: %+v", st)
	}
	if st.Sent != 3 || st.Begun != 1 || st.Opened != 3 || st.Answered != 3 {
		t.Errorf("three messages in one session: %+v", st)
	}
}

func TestWhatItsConfigurationHoldsIsNotRepeated(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"proxy": "http://bot:a-password@`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"run", path}, {"run", path + "x"}, {"dance", path}} {
		err := command(t.Context(), args, nil)
		if err == nil || strings.Contains(err.Error(), "a-password") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
