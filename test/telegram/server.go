// Package telegram is a stand-in for the Telegram Bot API that speaks its wire format: GET and POST of
// /bot<token>/<method>, parameters in the query, as a form, as multipart or as JSON, answers as
// {"ok":true,"result":…} or {"ok":false,"error_code":…,"description":…} with the same number as HTTP status.
//
// It knows what a bot that polls needs: getMe, getUpdates, sendMessage, setMyCommands, setWebhook, deleteWebhook and
// getWebhookInfo. Where Telegram's own server has a rule that a bot can notice, the stand-in has it too: an update is
// handed out until a later offset confirms it, a second getUpdates ends the first with 409, a webhook excludes
// polling, a chat exists only once its user has written.
//
// Tokens are kept as hashes and are never logged.
package telegram

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// tokenForm is the shape of a token: the bot's id and at least thirty characters of secret.
// Telegram answers 404 to a path whose token cannot be one, and 401 to one that is nobody's.
var tokenForm = regexp.MustCompile(`^([0-9]{1,16}):[A-Za-z0-9_-]{30,64}$`)

// ErrNotAToken says that a string cannot be a bot's token.
var ErrNotAToken = errors.New("not a bot token: want <digits>:<at least 30 letters, digits, - or _>")

// ErrUnknownBot says that no bot of that id was added.
var ErrUnknownBot = errors.New("no such bot")

// Event is what the stand-in tells about one request. It never holds a token or a message's text.
type Event struct {
	BotID  int64  // 0 when the token was refused
	Method string // as the path says it
	Status int
	Peer   string // the caller's address without the port
}

// Options of a Server. The zero value is usable.
type Options struct {
	// Now tells the time that messages are stamped with. Defaults to time.Now.
	Now func() time.Time
	// Observe is told of every answered request of the Bot API. Defaults to nothing.
	Observe func(Event)
	// MaxPoll bounds a long poll, whatever the caller asks for. Defaults to 50 seconds, as Telegram does.
	MaxPoll time.Duration
}

// Server is the stand-in. Its ServeHTTP is the Bot API; Control returns the other side.
type Server struct {
	now     func() time.Time
	observe func(Event)
	maxPoll time.Duration

	mu   sync.Mutex
	bots map[int64]*bot
}

// New returns a server without bots.
func New(o Options) *Server {
	s := &Server{now: o.Now, observe: o.Observe, maxPoll: o.MaxPoll, bots: map[int64]*bot{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.observe == nil {
		s.observe = func(Event) {}
	}
	if s.maxPoll <= 0 {
		s.maxPoll = 50 * time.Second
	}
	return s
}

// bot is one bot's side of the world. Everything in it is guarded by Server.mu.
type bot struct {
	token [sha256.Size]byte
	user  User

	updates    []Update // not confirmed yet, by id
	nextUpdate int64
	allowed    []string // update types; empty: all that we make

	messages    []Message // of all chats, by id: users' and the bot's
	nextMessage int64
	chats       map[int64]Chat
	changed     chan struct{} // closed and replaced when something new is there to wait for

	webhook string
	poll    *poll
	stats   Stats
}

// poll is a getUpdates that has not been answered.
type poll struct {
	taken chan struct{} // closed when another getUpdates takes its place
}

// Stats counts what happened to one bot.
type Stats struct {
	// Polls is how many getUpdates were received with a right token.
	Polls int64 `json:"polls"`
	// Conflicts is how many getUpdates ended another one that was still waiting.
	Conflicts int64 `json:"conflicts"`
	// Waiting says whether a getUpdates waits now.
	Waiting bool `json:"waiting"`
	// Peers are the distinct addresses that polled, in the order in which they first did.
	Peers []string `json:"peers"`
	// Sent is how many messages the bot sent.
	Sent int64 `json:"sent"`
	// Pending is how many updates are not confirmed.
	Pending int `json:"pending"`
}

// AddBot makes a bot exist. Adding one again under the same id replaces its token and keeps the rest, as BotFather's
// /revoke does. The id is the number at the token's beginning.
func (s *Server) AddBot(token, username string) (int64, error) {
	m := tokenForm.FindStringSubmatch(token)
	if m == nil {
		return 0, ErrNotAToken
	}
	id, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, ErrNotAToken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bots[id]
	if b == nil {
		// Telegram's ids do not begin at 1 either: a bot must not take a small offset for an id.
		b = &bot{nextUpdate: 731_000_001, nextMessage: 1, chats: map[int64]Chat{}, changed: make(chan struct{})}
		s.bots[id] = b
	}
	b.token = sha256.Sum256([]byte(token))
	b.user = User{ID: id, IsBot: true, FirstName: username, Username: username, CanJoinGroups: true}
	return id, nil
}

// RemoveBot makes a bot's token worthless; a poll that waits is answered 401 when it asks again.
func (s *Server) RemoveBot(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.bots[id]; b != nil {
		b.endPoll()
		delete(s.bots, id)
	}
}

// UserSays puts a private message from a user to a bot in the bot's queue and returns the message's id.
func (s *Server) UserSays(id, userID int64, text string) (int64, error) {
	if text == "" || utf8.RuneCountInString(text) > 4096 {
		return 0, fmt.Errorf("a message has 1 to 4096 characters")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bots[id]
	if b == nil {
		return 0, ErrUnknownBot
	}
	name := "User " + strconv.FormatInt(userID, 10)
	chat := Chat{ID: userID, Type: "private", FirstName: name}
	b.chats[userID] = chat
	m := b.addMessage(Message{
		From: &User{ID: userID, FirstName: name, LanguageCode: "en"}, Chat: chat,
		Date: s.now().Unix(), Text: text,
	})
	if len(b.allowed) == 0 || slices.Contains(b.allowed, "message") {
		b.updates = append(b.updates, Update{ID: b.nextUpdate, Message: &m})
		b.nextUpdate++
	}
	b.wake()
	return m.ID, nil
}

// AwaitReply waits until the bot has sent a message to a chat after the message with the given id, and returns it.
// The wait ends with the context.
func (s *Server) AwaitReply(ctx context.Context, id, chatID, after int64) (Message, error) {
	for {
		s.mu.Lock()
		b := s.bots[id]
		if b == nil {
			s.mu.Unlock()
			return Message{}, ErrUnknownBot
		}
		for _, m := range b.messages {
			if m.ID > after && m.Chat.ID == chatID && m.From != nil && m.From.ID == id {
				s.mu.Unlock()
				return m, nil
			}
		}
		changed := b.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return Message{}, fmt.Errorf("wait for the bot's answer: %w", ctx.Err())
		case <-changed:
		}
	}
}

// StatsOf returns what was counted for a bot.
func (s *Server) StatsOf(id int64) (Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bots[id]
	if b == nil {
		return Stats{}, ErrUnknownBot
	}
	st := b.stats
	st.Peers = slices.Clone(st.Peers)
	st.Waiting = b.poll != nil
	st.Pending = len(b.updates)
	return st, nil
}

// wake lets everyone who waits look again.
func (b *bot) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *bot) addMessage(m Message) Message {
	m.ID = b.nextMessage
	b.nextMessage++
	b.messages = append(b.messages, m)
	return m
}

// endPoll lets another request take the place of the one that waits; it says whether there was one.
func (b *bot) endPoll() bool {
	if b.poll == nil {
		return false
	}
	close(b.poll.taken)
	b.poll = nil
	return true
}

// lookup returns the bot whose token this is, or the answer that Telegram gives instead.
func (s *Server) lookup(token string) (*bot, int64, *apiError) {
	m := tokenForm.FindStringSubmatch(token)
	if m == nil {
		return nil, 0, errNotFound
	}
	id, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return nil, 0, errNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bots[id]
	if b == nil || b.token != sha256.Sum256([]byte(token)) {
		return nil, 0, errUnauthorized
	}
	return b, id, nil
}

// ServeHTTP is the Bot API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/bot")
	token, method, found := strings.Cut(rest, "/")
	if !ok || !found || strings.Contains(method, "/") {
		answerError(w, errNotFound)
		return
	}
	ev := Event{Method: method, Peer: peer(r)}
	b, id, fail := s.lookup(token)
	ev.BotID = id
	if fail == nil {
		var result any
		var note string
		result, note, fail = s.call(b, strings.ToLower(method), r)
		if fail == nil {
			ev.Status = http.StatusOK
			answer(w, result, note)
		}
	}
	if fail != nil {
		ev.Status = fail.code
		answerError(w, fail)
	}
	if !methods[strings.ToLower(method)] {
		ev.Method = "unknown" // the path is the caller's, and may hold anything
	}
	s.observe(ev)
}
