package telegram

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// User of Telegram: a person or a bot.
type User struct {
	ID            int64  `json:"id"`
	IsBot         bool   `json:"is_bot"`
	FirstName     string `json:"first_name"`
	Username      string `json:"username,omitempty"`
	LanguageCode  string `json:"language_code,omitempty"`
	CanJoinGroups bool   `json:"can_join_groups,omitempty"`
}

// Chat that messages are in. A private chat has the user's id.
type Chat struct {
	ID        int64  `json:"id"`
	Type      string `json:"type"`
	FirstName string `json:"first_name,omitempty"`
}

// Message in a chat. Date is Unix seconds.
type Message struct {
	ID             int64    `json:"message_id"`
	From           *User    `json:"from,omitempty"`
	Chat           Chat     `json:"chat"`
	Date           int64    `json:"date"`
	Text           string   `json:"text"`
	ReplyToMessage *Message `json:"reply_to_message,omitempty"`
}

// Update is what getUpdates hands out.
type Update struct {
	ID      int64    `json:"update_id"`
	Message *Message `json:"message,omitempty"`
}

// apiError is an answer with ok false.
type apiError struct {
	code        int
	description string
}

var (
	errUnauthorized = &apiError{http.StatusUnauthorized, "Unauthorized"}
	errNotFound     = &apiError{http.StatusNotFound, "Not Found"}
	errNoMethod     = &apiError{http.StatusNotFound, "Not Found: method not found"}
	errConflict     = &apiError{http.StatusConflict, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"}
	errWebhook      = &apiError{http.StatusConflict, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"}
)

func badRequest(what string) *apiError {
	return &apiError{http.StatusBadRequest, "Bad Request: " + what}
}

// envelope is the form of every answer.
type envelope struct {
	OK          bool   `json:"ok"`
	Result      any    `json:"result,omitempty"`
	ErrorCode   int    `json:"error_code,omitempty"`
	Description string `json:"description,omitempty"`
}

func answer(w http.ResponseWriter, result any, note string) {
	writeJSON(w, http.StatusOK, envelope{OK: true, Result: result, Description: note})
}

func answerError(w http.ResponseWriter, e *apiError) {
	writeJSON(w, e.code, envelope{ErrorCode: e.code, Description: e.description})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "cannot encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A caller that went away is no failure of ours.
	_, _ = w.Write(b)
}

// maxBody bounds a request: the stand-in takes text, no files.
const maxBody = 1 << 20

// params are a call's parameters, from the query and the body together. Values that are not strings in JSON keep
// their JSON form, as they have in a form.
type params map[string]string

// readParams reads them as Telegram does: query, application/x-www-form-urlencoded, multipart/form-data,
// application/json. Names are case-insensitive nowhere: they are taken as they are.
func readParams(r *http.Request) (params, *apiError) {
	p := params{}
	p.merge(r.URL.Query())
	if r.Method == http.MethodGet {
		return p, nil
	}
	if r.Method != http.MethodPost {
		return nil, &apiError{http.StatusMethodNotAllowed, "Method Not Allowed"}
	}
	body := http.MaxBytesReader(nil, r.Body, maxBody)
	kind, attributes, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind, err = "", nil // no type or a wrong one: no parameters in the body
	}
	switch kind {
	case "application/json":
		err = p.readJSON(body)
	case "application/x-www-form-urlencoded":
		err = p.readForm(body)
	case "multipart/form-data":
		err = p.readMultipart(body, attributes["boundary"])
	}
	if err == nil {
		// To the end, also past a multipart's last delimiter: net/http notices that a caller has left only once the
		// body was read.
		_, err = io.Copy(io.Discard, body)
	}
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "Request Entity Too Large"}
	}
	if err != nil {
		return nil, badRequest("can't parse the request's body")
	}
	return p, nil
}

func (p params) merge(v url.Values) {
	for k, vs := range v {
		if len(vs) > 0 {
			p[k] = vs[0]
		}
	}
}

func (p params) readForm(body io.Reader) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read form: %w", err)
	}
	v, err := url.ParseQuery(string(b))
	if err != nil {
		return fmt.Errorf("parse form: %w", err)
	}
	p.merge(v)
	return nil
}

func (p params) readJSON(body io.Reader) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return fmt.Errorf("parse JSON: %w", err)
	}
	for k, raw := range fields {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			p[k] = s
			continue
		}
		p[k] = string(raw)
	}
	return nil
}

// readMultipart also takes a body without any part: clients send one for methods without parameters, closing
// delimiter left out.
func (p params) readMultipart(body io.Reader, boundary string) error {
	mr := multipart.NewReader(body, boundary)
	for n := 0; ; n++ {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read part %d: %w", n, err)
		}
		v, err := io.ReadAll(part)
		if err != nil {
			return fmt.Errorf("read part %d: %w", n, err)
		}
		p[part.FormName()] = string(v)
	}
}

// number reads an integer between bounds; one outside them is moved to the nearest, as Telegram does. Text that is
// no number counts as left out.
func (p params) number(name string, unset, least, most int64) int64 {
	n, err := strconv.ParseInt(p[name], 10, 64)
	if err != nil {
		return unset
	}
	return min(max(n, least), most)
}

// peer is the caller's address without its port.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
