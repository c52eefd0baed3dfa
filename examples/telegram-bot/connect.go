package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	tg "github.com/go-telegram/bot"
)

// connect asks who the bot is and polls once without waiting. It tries again while Telegram cannot be reached, or
// while another instance still polls, and gives up on a token that Telegram does not know.
func connect(ctx context.Context, b *tg.Bot, cfg config, client *http.Client, log *slog.Logger) (name string, err error) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		name, err = tryConnect(ctx, b, cfg, client)
		if err == nil || errors.Is(err, tg.ErrorUnauthorized) || errors.Is(err, tg.ErrorNotFound) {
			return name, err
		}
		log.Warn("Cannot poll yet", "error", err, "retryIn", pause)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return "", ctx.Err()
		case <-t.C:
		}
	}
}

func tryConnect(ctx context.Context, b *tg.Bot, cfg config, client *http.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	me, err := b.GetMe(ctx)
	if err != nil {
		return "", fmt.Errorf("ask who the bot is: %w", err)
	}
	// Without an offset nothing is confirmed: what waits is fetched again by the first real poll.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.apiURL+"/bot"+cfg.token+"/getUpdates?limit=1&timeout=0", nil)
	if err != nil {
		return "", fmt.Errorf("make the first poll: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("poll once: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing is read from it
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("poll once: Telegram answered %d", resp.StatusCode)
	}
	return me.Username, nil
}
