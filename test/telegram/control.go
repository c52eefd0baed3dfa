package telegram

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Paths of the control side. Every request carries "Authorization: Bearer <control token>".
const (
	pathBots     = "/control/v1/bots"     // POST {token, username} → {id}; DELETE ?bot=
	pathMessages = "/control/v1/messages" // POST {bot, user, text} → {id}
	pathReplies  = "/control/v1/replies"  // GET ?bot=&chat=&after=&seconds= → Message, 204 when none came
	pathStats    = "/control/v1/stats"    // GET ?bot= → Stats
)

type addBotRequest struct {
	Token    string `json:"token"`
	Username string `json:"username"`
}

type messageRequest struct {
	Bot  int64  `json:"bot"`
	User int64  `json:"user"`
	Text string `json:"text"`
}

type idResponse struct {
	ID int64 `json:"id"`
}

// Control returns the handler by which a test or a demo speaks as the users and as BotFather. It is meant for a
// listener of its own: what the bots can reach should not be able to make bots. An empty token refuses everyone.
func (s *Server) Control(token string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathBots, func(w http.ResponseWriter, r *http.Request) {
		var in addBotRequest
		if !readControl(w, r, &in) {
			return
		}
		id, err := s.AddBot(in.Token, in.Username)
		if err != nil {
			controlError(w, http.StatusBadRequest, err)
			return
		}
		writeJSON(w, http.StatusOK, idResponse{ID: id})
	})
	mux.HandleFunc("DELETE "+pathBots, func(w http.ResponseWriter, r *http.Request) {
		s.RemoveBot(queryNumber(r, "bot"))
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+pathMessages, func(w http.ResponseWriter, r *http.Request) {
		var in messageRequest
		if !readControl(w, r, &in) {
			return
		}
		id, err := s.UserSays(in.Bot, in.User, in.Text)
		if err != nil {
			controlError(w, http.StatusBadRequest, err)
			return
		}
		writeJSON(w, http.StatusOK, idResponse{ID: id})
	})
	mux.HandleFunc("GET "+pathReplies, s.controlReplies)
	mux.HandleFunc("GET "+pathStats, func(w http.ResponseWriter, r *http.Request) {
		st, err := s.StatsOf(queryNumber(r, "bot"))
		if err != nil {
			controlError(w, http.StatusNotFound, err)
			return
		}
		writeJSON(w, http.StatusOK, st)
	})
	return requireToken(token, mux)
}

func (s *Server) controlReplies(w http.ResponseWriter, r *http.Request) {
	wait := time.Duration(min(max(queryNumber(r, "seconds"), 0), 60)) * time.Second
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	m, err := s.AwaitReply(ctx, queryNumber(r, "bot"), queryNumber(r, "chat"), queryNumber(r, "after"))
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		w.WriteHeader(http.StatusNoContent)
	case err != nil:
		controlError(w, http.StatusNotFound, err)
	default:
		writeJSON(w, http.StatusOK, m)
	}
}

// requireToken compares hashes, so that neither length nor content of the token shows in the time it takes.
func requireToken(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if token == "" || !ok || subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
			controlError(w, http.StatusUnauthorized, errors.New("the control side wants its own bearer token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readControl decodes a request strictly; it says whether it could. The decoder's own error may quote the body, which
// may hold a token, so it is not passed on.
func readControl(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if d.Decode(into) != nil {
		controlError(w, http.StatusBadRequest, errors.New("the body is not the JSON object that this path takes"))
		return false
	}
	return true
}

func controlError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, map[string]string{"error": err.Error()})
}

func queryNumber(r *http.Request, name string) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
