package telegram

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// methods that the stand-in knows, in lower case: Telegram does not mind the case of a method.
var methods = map[string]bool{
	"getme": true, "getupdates": true, "sendmessage": true, "setwebhook": true, "deletewebhook": true,
	"getwebhookinfo": true, "setmycommands": true,
}

// call runs one method. It returns the result and the description that goes with it, or the error to answer.
func (s *Server) call(b *bot, method string, r *http.Request) (result any, note string, fail *apiError) {
	if !methods[method] {
		return nil, "", errNoMethod
	}
	p, fail := readParams(r)
	if fail != nil {
		return nil, "", fail
	}
	switch method {
	case "getme":
		s.mu.Lock()
		defer s.mu.Unlock()
		return b.user, "", nil
	case "getupdates":
		result, fail = s.getUpdates(b, p, r)
		return result, "", fail
	case "sendmessage":
		result, fail = s.sendMessage(b, p)
		return result, "", fail
	case "setmycommands":
		return setMyCommands(p)
	case "setwebhook":
		return s.setWebhook(b, p)
	case "deletewebhook":
		return s.deleteWebhook(b, p)
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		return map[string]any{
			"url": b.webhook, "has_custom_certificate": false, "pending_update_count": len(b.updates),
		}, "", nil
	}
}

// getUpdates confirms what lies before the offset, ends another poll that waits, and answers as soon as there is an
// update or the time is over.
func (s *Server) getUpdates(b *bot, p params, r *http.Request) (any, *apiError) {
	offset := p.number("offset", 0, math.MinInt64, math.MaxInt64)
	limit := int(p.number("limit", 100, 1, 100))
	wait := time.Duration(p.number("timeout", 0, 0, 3600)) * time.Second

	s.mu.Lock()
	if b.webhook != "" {
		s.mu.Unlock()
		return nil, errWebhook
	}
	b.stats.Polls++
	if from := peer(r); !slices.Contains(b.stats.Peers, from) && len(b.stats.Peers) < 64 {
		b.stats.Peers = append(b.stats.Peers, from)
	}
	if b.endPoll() {
		b.stats.Conflicts++
	}
	if list, ok := p["allowed_updates"]; ok {
		var allowed []string
		if json.Unmarshal([]byte(list), &allowed) == nil {
			b.allowed = allowed
		}
	}
	b.confirm(offset)
	mine := &poll{taken: make(chan struct{})}
	b.poll = mine
	s.mu.Unlock()

	timer := time.NewTimer(min(wait, s.maxPoll))
	defer timer.Stop()
	for over := false; ; {
		s.mu.Lock()
		if b.poll != mine {
			s.mu.Unlock()
			return nil, errConflict
		}
		if len(b.updates) > 0 || over {
			b.poll = nil
			batch := slices.Clone(b.updates[:min(limit, len(b.updates))])
			s.mu.Unlock()
			if batch == nil {
				batch = []Update{}
			}
			return batch, nil
		}
		changed := b.changed
		s.mu.Unlock()

		select {
		case <-changed:
		case <-mine.taken:
		case <-timer.C:
			over = true
		case <-r.Context().Done():
			// The caller has gone: nobody holds the place any more.
			s.mu.Lock()
			if b.poll == mine {
				b.poll = nil
			}
			s.mu.Unlock()
			return []Update{}, nil
		}
	}
}

// confirm forgets the updates before an offset. A negative one keeps that many from the end.
func (b *bot) confirm(offset int64) {
	if offset < 0 {
		keep := min(-offset, int64(len(b.updates)))
		if offset == math.MinInt64 {
			keep = int64(len(b.updates))
		}
		b.updates = b.updates[int64(len(b.updates))-keep:]
		return
	}
	b.updates = slices.DeleteFunc(b.updates, func(u Update) bool { return u.ID < offset })
}

func (s *Server) sendMessage(b *bot, p params) (any, *apiError) {
	text := p["text"]
	switch {
	case p["chat_id"] == "":
		return nil, badRequest("chat_id is empty")
	case text == "":
		return nil, badRequest("message text is empty")
	case utf8.RuneCountInString(text) > 4096:
		return nil, badRequest("message is too long")
	}
	chatID, err := strconv.ParseInt(p["chat_id"], 10, 64)
	if err != nil {
		return nil, badRequest("chat not found")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chat, ok := b.chats[chatID]
	if !ok {
		return nil, badRequest("chat not found")
	}
	user := b.user
	m := Message{From: &user, Chat: chat, Date: s.now().Unix(), Text: text}
	if raw, ok := p["reply_parameters"]; ok {
		var reply struct {
			MessageID int64 `json:"message_id"`
		}
		if json.Unmarshal([]byte(raw), &reply) != nil {
			return nil, badRequest("can't parse reply parameters JSON object")
		}
		i := slices.IndexFunc(b.messages, func(m Message) bool { return m.ID == reply.MessageID && m.Chat.ID == chatID })
		if i < 0 {
			return nil, badRequest("message to be replied not found")
		}
		to := b.messages[i]
		to.ReplyToMessage = nil // Telegram does not nest replies either
		m.ReplyToMessage = &to
	}
	m = b.addMessage(m)
	b.stats.Sent++
	b.wake()
	return m, nil
}

// setMyCommands checks a bot's list of commands, which many bots send before they poll. Nobody asks for it, so it is
// not kept.
func setMyCommands(p params) (any, string, *apiError) {
	var commands []struct {
		Command     string `json:"command"`
		Description string `json:"description"`
	}
	if json.Unmarshal([]byte(p["commands"]), &commands) != nil {
		return nil, "", badRequest("can't parse commands JSON object")
	}
	for _, c := range commands {
		name := strings.TrimPrefix(c.Command, "/")
		switch {
		case name == "" || c.Description == "":
			return nil, "", badRequest("command and its description must be non-empty")
		case utf8.RuneCountInString(name) > 32 || utf8.RuneCountInString(c.Description) > 256:
			return nil, "", badRequest("command length must not exceed 32, that of its description 256")
		}
	}
	return true, "", nil
}

func (s *Server) setWebhook(b *bot, p params) (any, string, *apiError) {
	if p["url"] == "" {
		return s.deleteWebhook(b, p)
	}
	u, err := url.Parse(p["url"])
	if err != nil || u.Host == "" {
		return nil, "", badRequest("bad webhook: invalid webhook URL specified")
	}
	if u.Scheme != "https" {
		return nil, "", badRequest("bad webhook: An HTTPS URL must be provided for webhook")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.endPoll()
	b.dropPending(p)
	b.webhook = u.String()
	return true, "Webhook was set", nil
}

func (s *Server) deleteWebhook(b *bot, p params) (any, string, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.dropPending(p)
	if b.webhook == "" {
		return true, "Webhook is already deleted", nil
	}
	b.webhook = ""
	return true, "Webhook was deleted", nil
}

func (b *bot) dropPending(p params) {
	if drop, err := strconv.ParseBool(p["drop_pending_updates"]); err == nil && drop {
		b.updates = nil
	}
}
