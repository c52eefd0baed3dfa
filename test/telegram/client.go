package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ErrNoReply says that the bot sent nothing in the time it had.
var ErrNoReply = errors.New("the bot has not answered")

// Client speaks to the control side of a stand-in that runs elsewhere.
type Client struct {
	// URL of the control listener, for example http://127.0.0.1:8082.
	URL string
	// Token of the control side.
	Token string
	// HTTP client to use. Defaults to http.DefaultClient.
	HTTP *http.Client `json:"-"`
}

// AddBot makes a bot exist, or gives it a new token. It returns the bot's id.
func (c *Client) AddBot(ctx context.Context, token, username string) (int64, error) {
	var out idResponse
	err := c.do(ctx, http.MethodPost, pathBots, nil, addBotRequest{Token: token, Username: username}, &out)
	return out.ID, err
}

// RemoveBot makes a bot's token worthless.
func (c *Client) RemoveBot(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodDelete, pathBots, url.Values{"bot": {strconv.FormatInt(id, 10)}}, nil, nil)
}

// UserSays sends a private message from a user to a bot and returns the message's id.
func (c *Client) UserSays(ctx context.Context, id, user int64, text string) (int64, error) {
	var out idResponse
	err := c.do(ctx, http.MethodPost, pathMessages, nil, messageRequest{Bot: id, User: user, Text: text}, &out)
	return out.ID, err
}

// AwaitReply waits until the bot has sent something to a chat after the message with the given id. It gives up with
// ErrNoReply after the wait, or with the context.
func (c *Client) AwaitReply(ctx context.Context, id, chat, after int64, wait time.Duration) (Message, error) {
	deadline := time.Now().Add(wait)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return Message{}, ErrNoReply
		}
		// Short questions in a row, so that no client's own timeout ends one.
		seconds := int64(min(left, 20*time.Second)/time.Second) + 1
		q := url.Values{
			"bot": {strconv.FormatInt(id, 10)}, "chat": {strconv.FormatInt(chat, 10)},
			"after": {strconv.FormatInt(after, 10)}, "seconds": {strconv.FormatInt(seconds, 10)},
		}
		var m Message
		err := c.do(ctx, http.MethodGet, pathReplies, q, nil, &m)
		if !errors.Is(err, errNoContent) {
			return m, err
		}
	}
}

// Stats returns what was counted for a bot.
func (c *Client) Stats(ctx context.Context, id int64) (Stats, error) {
	var st Stats
	err := c.do(ctx, http.MethodGet, pathStats, url.Values{"bot": {strconv.FormatInt(id, 10)}}, nil, &st)
	return st, err
}

var errNoContent = errors.New("no content")

func (c *Client) do(ctx context.Context, method, path string, q url.Values, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	target := c.URL + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, &body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the stand-in: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // everything that matters was read
	switch {
	case resp.StatusCode == http.StatusNoContent && out != nil:
		return errNoContent
	case resp.StatusCode == http.StatusNoContent:
		return nil
	case resp.StatusCode != http.StatusOK:
		var problem struct {
			Error string `json:"error"`
		}
		if json.NewDecoder(resp.Body).Decode(&problem) != nil {
			problem.Error = "no reason given"
		}
		return fmt.Errorf("the stand-in answered %d: %s", resp.StatusCode, problem.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the stand-in's answer: %w", err)
	}
	return nil
}
