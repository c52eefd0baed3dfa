package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tg "github.com/go-telegram/bot"
	"github.com/go-telegram/bot/models"
)

const (
	testToken  = "4242:AAExampleExampleExampleExample_Exampl"
	otherToken = "4242:AAWrongWrongWrongWrongWrongWrong_Wron"
	botID      = 4242
	chatID     = 77
)

// world is a stand-in on loopback with one bot, and what was observed of it.
type world struct {
	*Server
	url    string
	events func() []Event
}

func start(t *testing.T) *world {
	t.Helper()
	var mu sync.Mutex
	var seen []Event
	s := New(Options{
		Now:     func() time.Time { return time.Unix(1_700_000_000, 0) },
		Observe: func(e Event) { mu.Lock(); defer mu.Unlock(); seen = append(seen, e) },
	})
	if _, err := s.AddBot(testToken, "acme_bot"); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	return &world{Server: s, url: h.URL, events: func() []Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]Event(nil), seen...)
	}}
}

// client runs the real library against the stand-in: it polls and answers until the test ends or cancel is called.
func (w *world) client(t *testing.T, token string, handle tg.HandlerFunc) (errs chan error, cancel func()) {
	t.Helper()
	errs = make(chan error, 64)
	b, err := tg.New(token, tg.WithServerURL(w.url), tg.WithDefaultHandler(handle),
		tg.WithErrorsHandler(func(err error) {
			select {
			case errs <- err:
			default:
			}
		}))
	if err != nil {
		t.Fatalf("the library does not take the stand-in for Telegram: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Start(ctx) }()
	var once sync.Once
	cancel = func() { once.Do(func() { stop(); <-done }) }
	t.Cleanup(cancel)
	return errs, cancel
}

func echo(ctx context.Context, b *tg.Bot, u *models.Update) {
	if u.Message == nil {
		return
	}
	// The test sees a failed answer by its absence.
	_, _ = b.SendMessage(ctx, &tg.SendMessageParams{
		ChatID: u.Message.Chat.ID, Text: "echo: " + u.Message.Text,
		ReplyParameters: &models.ReplyParameters{MessageID: u.Message.ID},
	})
}

func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until polls a condition with a bound.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := wait(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) stats(t *testing.T) Stats {
	t.Helper()
	st, err := w.StatsOf(botID)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestTheRealLibraryPollsAndAnswers(t *testing.T) {
	w := start(t)
	errs, _ := w.client(t, testToken, echo)
	for _, text := range []string{"hello", "hällo & <b>", "again"} {
		id, err := w.UserSays(botID, chatID, text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.AwaitReply(wait(t), botID, chatID, id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Text != "echo: "+text || m.ReplyToMessage == nil || m.ReplyToMessage.ID != id || !m.From.IsBot {
			t.Fatalf("answer %+v", m)
		}
	}
	until(t, "the last update is confirmed by the next poll", func() bool { return w.stats(t).Pending == 0 })
	if st := w.stats(t); st.Conflicts != 0 || st.Sent != 3 || len(st.Peers) != 1 || !st.Waiting {
		t.Errorf("stats %+v", st)
	}
	select {
	case err := <-errs:
		t.Errorf("the library reported %v", err)
	default:
	}
}

func TestAWrongTokenIsRefusedAsTelegramDoes(t *testing.T) {
	w := start(t)
	_, err := tg.New(otherToken, tg.WithServerURL(w.url))
	if !errors.Is(err, tg.ErrorUnauthorized) {
		t.Errorf("a token that is nobody's: %v", err)
	}
	_, err = tg.New("not-a-token", tg.WithServerURL(w.url))
	if !errors.Is(err, tg.ErrorNotFound) {
		t.Errorf("a path that holds no token: %v", err)
	}
	for _, e := range w.events() {
		if s := fmt.Sprintf("%+v", e); strings.Contains(s, "AAWrong") || strings.Contains(s, "not-a-token") {
			t.Errorf("an event tells a token: %s", s)
		}
	}
}

func TestARevokedTokenStopsWorking(t *testing.T) {
	w := start(t)
	if _, err := w.AddBot("4242:AAFreshFreshFreshFreshFreshFresh_Fres", "acme_bot"); err != nil {
		t.Fatal(err)
	}
	if _, err := tg.New(testToken, tg.WithServerURL(w.url)); !errors.Is(err, tg.ErrorUnauthorized) {
		t.Errorf("the old token: %v", err)
	}
	w.RemoveBot(botID)
	if _, err := w.UserSays(botID, chatID, "anyone there?"); !errors.Is(err, ErrUnknownBot) {
		t.Errorf("a removed bot: %v", err)
	}
}

func TestASecondConsumerIsAConflict(t *testing.T) {
	w := start(t)
	first, stopFirst := w.client(t, testToken, echo)
	until(t, "the first polls", func() bool { return w.stats(t).Waiting })
	second, _ := w.client(t, testToken, echo)
	var err error
	select {
	case err = <-first:
	case err = <-second:
	case <-wait(t).Done():
		t.Fatal("two consumers, and neither was told")
	}
	want := "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
	if !errors.Is(err, tg.ErrorConflict) || !strings.Contains(err.Error(), want) {
		t.Fatalf("the conflict reads %v", err)
	}
	if st := w.stats(t); st.Conflicts == 0 {
		t.Errorf("stats %+v", st)
	}
	// The one that stays gets the next message once the other has gone.
	stopFirst()
	id, err := w.UserSays(botID, chatID, "who is there?")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AwaitReply(wait(t), botID, chatID, id); err != nil {
		t.Fatal(err)
	}
}

func TestConsumersOneAfterTheOtherAreNoConflict(t *testing.T) {
	w := start(t)
	for range 5 {
		_, stop := w.client(t, testToken, echo)
		until(t, "it polls", func() bool { return w.stats(t).Waiting })
		stop()
		until(t, "the poll of a client that left is forgotten", func() bool { return !w.stats(t).Waiting })
	}
	if st := w.stats(t); st.Conflicts != 0 || st.Polls != 5 {
		t.Errorf("stats %+v", st)
	}
}

// post calls a method and returns status and body.
func (w *world) post(t *testing.T, method, contentType, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(wait(t), http.MethodPost, w.url+"/bot"+testToken+"/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	return do(t, req)
}

func (w *world) get(t *testing.T, method string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(wait(t), http.MethodGet, w.url+"/bot"+testToken+"/"+method, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, map[string]any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%d %q: %v", resp.StatusCode, b, err)
	}
	return resp.StatusCode, out
}

func ids(t *testing.T, answer map[string]any) []int {
	t.Helper()
	got := []int{}
	list, ok := answer["result"].([]any)
	if !ok {
		t.Fatalf("no list of updates in %v", answer)
	}
	for _, u := range list {
		got = append(got, int(u.(map[string]any)["update_id"].(float64))-731_000_000)
	}
	return got
}

func TestUpdatesStayUntilALaterOffsetConfirmsThem(t *testing.T) {
	w := start(t)
	for i := range 5 {
		if _, err := w.UserSays(botID, chatID, fmt.Sprint("message ", i)); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct{ query, want string }{
		{"getUpdates", "[1 2 3 4 5]"},
		{"getUpdates", "[1 2 3 4 5]"},   // nothing confirmed
		{"getUpdates?limit=2", "[1 2]"}, // a limit confirms nothing
		{"GETUPDATES?limit=-4", "[1]"},  // out of bounds: moved to the nearest
		{"getUpdates?offset=731000003", "[3 4 5]"},
		{"getUpdates?offset=1", "[3 4 5]"}, // what was confirmed does not come back
		{"getUpdates?offset=-1", "[5]"},    // the last one, and all before it are forgotten
		{"getUpdates", "[5]"},
		{"getUpdates?offset=731000006", "[]"},
	}
	for _, step := range steps {
		code, a := w.get(t, step.query)
		if got := fmt.Sprint(ids(t, a)); code != 200 || got != step.want {
			t.Fatalf("%s: %d %s, want %s", step.query, code, got, step.want)
		}
	}
}

func TestAllowedUpdatesKeepsOtherKindsOut(t *testing.T) {
	w := start(t)
	w.get(t, `getUpdates?allowed_updates=["callback_query"]`)
	if _, err := w.UserSays(botID, chatID, "dropped"); err != nil {
		t.Fatal(err)
	}
	w.get(t, `getUpdates?allowed_updates=["message"]`)
	if _, err := w.UserSays(botID, chatID, "kept"); err != nil {
		t.Fatal(err)
	}
	if _, a := w.get(t, "getUpdates"); len(ids(t, a)) != 1 {
		t.Errorf("updates %v", a)
	}
}

func TestALongPollWaitsAndEndsEmpty(t *testing.T) {
	w := start(t)
	began := time.Now()
	if code, a := w.get(t, "getUpdates?timeout=1"); code != 200 || len(ids(t, a)) != 0 {
		t.Fatalf("%d %v", code, a)
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("a poll of one second was answered after %s", took)
	}
}

func TestEveryFormOfParametersIsRead(t *testing.T) {
	w := start(t)
	if _, err := w.UserSays(botID, chatID, "hello"); err != nil {
		t.Fatal(err)
	}
	multi := "--x\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n77\r\n--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nhi\r\n--x--\r\n"
	for name, send := range map[string]func() (int, map[string]any){
		"query": func() (int, map[string]any) { return w.get(t, "sendMessage?chat_id=77&text=hi") },
		"form": func() (int, map[string]any) {
			return w.post(t, "sendMessage", "application/x-www-form-urlencoded", "chat_id=77&text=hi")
		},
		"JSON": func() (int, map[string]any) {
			return w.post(t, "sendMessage", "application/json", `{"chat_id":77,"text":"hi"}`)
		},
		"JSON with a text": func() (int, map[string]any) {
			return w.post(t, "sendMessage", "application/json", `{"chat_id":"77","text":"hi"}`)
		},
		"multipart": func() (int, map[string]any) {
			return w.post(t, "sendMessage", "multipart/form-data; boundary=x", multi)
		},
	} {
		code, a := send()
		if code != 200 || a["ok"] != true || a["result"].(map[string]any)["text"] != "hi" {
			t.Errorf("%s: %d %v", name, code, a)
		}
	}
	if code, a := w.post(t, "getUpdates?limit=1", "", ""); code != 200 || len(ids(t, a)) != 1 {
		t.Errorf("a POST without a body: %d %v", code, a)
	}
	if code, a := w.post(t, "getMe", "multipart/form-data; boundary=x", ""); code != 200 || a["result"].(map[string]any)["is_bot"] != true {
		t.Errorf("getMe without a body: %d %v", code, a)
	}
}

func TestErrorsReadAsTelegrams(t *testing.T) {
	w := start(t)
	if _, err := w.UserSays(botID, chatID, "hello"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		method string
		code   int
		want   string
	}{
		{"noSuchMethod", 404, "Not Found: method not found"},
		{"sendMessage", 400, "Bad Request: chat_id is empty"},
		{"sendMessage?chat_id=77", 400, "Bad Request: message text is empty"},
		{"sendMessage?chat_id=78&text=hi", 400, "Bad Request: chat not found"},
		{"sendMessage?chat_id=77&text=" + strings.Repeat("a", 4097), 400, "Bad Request: message is too long"},
		{`sendMessage?chat_id=77&text=hi&reply_parameters={"message_id":99}`, 400, "Bad Request: message to be replied not found"},
		{"setMyCommands", 400, "Bad Request: can't parse commands JSON object"},
		{`setMyCommands?commands=[{"command":"/","description":"hm"}]`, 400, "Bad Request: command and its description must be non-empty"},
		{`setMyCommands?commands=[{"command":"` + strings.Repeat("a", 33) + `","description":"hm"}]`, 400,
			"Bad Request: command length must not exceed 32, that of its description 256"},
		{"setWebhook?url=http://example.org/", 400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook"},
	} {
		code, a := w.get(t, tc.method)
		if code != tc.code || a["ok"] != false || a["error_code"] != float64(tc.code) || a["description"] != tc.want {
			t.Errorf("%.40s: %d %v", tc.method, code, a)
		}
	}
	if code, a := w.post(t, "sendMessage", "application/json", "{"); code != 400 || a["ok"] != false {
		t.Errorf("half a document: %d %v", code, a)
	}
	if code, _ := w.post(t, "sendMessage", "application/json", strings.Repeat(" ", maxBody+1)); code != 413 {
		t.Errorf("a body over the bound: %d", code)
	}
}

func TestCommandsAreTakenAsBotsSendThem(t *testing.T) {
	w := start(t)
	b, err := tg.New(testToken, tg.WithServerURL(w.url))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := b.SetMyCommands(wait(t), &tg.SetMyCommandsParams{Commands: []models.BotCommand{{Command: "list", Description: "what there is"}}}); err != nil || !ok {
		t.Error(ok, err)
	}
	// Another library's form: a string in JSON, and a slash that Telegram takes off.
	if code, a := w.post(t, "setMyCommands", "application/json", `{"commands":"[{\"command\":\"/list\",\"description\":\"what there is\"}]"}`); code != 200 || a["result"] != true {
		t.Errorf("%d %v", code, a)
	}
}

func TestAWebhookExcludesPolling(t *testing.T) {
	w := start(t)
	b, err := tg.New(testToken, tg.WithServerURL(w.url))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.UserSays(botID, chatID, "hello"); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.SetWebhook(wait(t), &tg.SetWebhookParams{URL: "https://example.org/hook"}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if code, a := w.get(t, "getUpdates"); code != 409 || !strings.Contains(fmt.Sprint(a["description"]), "use deleteWebhook") {
		t.Errorf("polling beside a webhook: %d %v", code, a)
	}
	info, err := b.GetWebhookInfo(wait(t))
	if err != nil || info.URL != "https://example.org/hook" || info.PendingUpdateCount != 1 {
		t.Errorf("%+v %v", info, err)
	}
	if ok, err := b.DeleteWebhook(wait(t), &tg.DeleteWebhookParams{DropPendingUpdates: true}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if code, a := w.get(t, "getUpdates"); code != 200 || len(ids(t, a)) != 0 {
		t.Errorf("after the webhook: %d %v", code, a)
	}
}

func TestTheControlSideWantsItsOwnToken(t *testing.T) {
	w := start(t)
	control := httptest.NewServer(w.Control("control-token"))
	t.Cleanup(control.Close)
	ctx := wait(t)

	for _, wrong := range []string{"", testToken, "control-toke"} {
		c := Client{URL: control.URL, Token: wrong}
		if _, err := c.Stats(ctx, botID); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("a wrong control token: %v", err)
		}
	}
	closed := httptest.NewServer(w.Control(""))
	t.Cleanup(closed.Close)
	if _, err := (&Client{URL: closed.URL}).Stats(ctx, botID); err == nil {
		t.Error("a control side without a token lets everyone in")
	}

	c := Client{URL: control.URL, Token: "control-token"}
	id, err := c.AddBot(ctx, "5555:AAExampleExampleExampleExample_Exampl", "globex_bot")
	if err != nil || id != 5555 {
		t.Fatal(id, err)
	}
	if _, err := c.AddBot(ctx, "5555", "globex_bot"); err == nil {
		t.Error("half a token was taken")
	}
	w.client(t, "5555:AAExampleExampleExampleExample_Exampl", echo)
	said, err := c.UserSays(ctx, id, chatID, "hello")
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.AwaitReply(ctx, id, chatID, said, 10*time.Second)
	if err != nil || m.Text != "echo: hello" {
		t.Fatalf("%+v %v", m, err)
	}
	if _, err := c.AwaitReply(ctx, id, chatID, m.ID, 10*time.Millisecond); !errors.Is(err, ErrNoReply) {
		t.Errorf("waiting for what nobody says: %v", err)
	}
	if st, err := c.Stats(ctx, id); err != nil || st.Sent != 1 {
		t.Errorf("%+v %v", st, err)
	}
	if err := c.RemoveBot(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stats(ctx, id); err == nil {
		t.Error("a removed bot still counts")
	}
	if _, err := c.UserSays(ctx, botID, chatID, strings.Repeat("a", 4097)); err == nil {
		t.Error("a message over Telegram's bound was taken")
	}
}

func TestTheControlSideDoesNotRepeatABrokenRequest(t *testing.T) {
	w := start(t)
	control := httptest.NewServer(w.Control("control-token"))
	t.Cleanup(control.Close)
	req, err := http.NewRequestWithContext(wait(t), http.MethodPost, control.URL+pathBots, bytes.NewReader([]byte(`{"tokn":"`+testToken+`"}`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer control-token")
	if code, a := do(t, req); code != 400 || strings.Contains(fmt.Sprint(a), "AAExample") {
		t.Errorf("%d %v", code, a)
	}
}
