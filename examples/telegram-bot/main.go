// Command telegram-bot is a small bot for Telegram, written the way Lethe runs bots best: it fetches its updates by
// long polling, reads its token from a file, never repeats it, says on /healthz whether polling works, and ends
// cleanly on SIGTERM.
//
// It is configured by the environment, as Lethe sets it for a channel of type Telegram:
//
//	TELEGRAM_BOT_TOKEN_FILE  path of the file that holds the token (required)
//	TELEGRAM_API_URL         Bot API server; defaults to https://api.telegram.org
//	LISTEN                   address of /healthz; defaults to :8080
//	GREETING                 what /start answers; defaults to "Hello."
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	tg "github.com/go-telegram/bot"
)

const (
	// pollTime is how long one getUpdates may wait; Telegram allows 50 seconds.
	pollTime = 50 * time.Second
	// answerTime bounds the sending of one answer, also after SIGTERM.
	answerTime = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := configure(os.Getenv)
	if err == nil {
		err = run(ctx, cfg, os.Stderr, nil)
	}
	if err != nil {
		// run scrubs what it returns, and configure never holds the token in an error.
		fmt.Fprintln(os.Stderr, "telegram-bot:", err)
		os.Exit(1)
	}
}

// config is what the environment says.
type config struct {
	token    string
	apiURL   string
	listen   string
	greeting string
}

func configure(getenv func(string) string) (config, error) {
	cfg := config{
		apiURL:   or(getenv("TELEGRAM_API_URL"), "https://api.telegram.org"),
		listen:   or(getenv("LISTEN"), ":8080"),
		greeting: or(getenv("GREETING"), "Hello."),
	}
	u, err := url.Parse(cfg.apiURL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return config{}, errors.New("TELEGRAM_API_URL: want a URL such as https://api.telegram.org")
	}
	cfg.apiURL = strings.TrimRight(cfg.apiURL, "/")
	path := getenv("TELEGRAM_BOT_TOKEN_FILE")
	if path == "" {
		return config{}, errors.New("TELEGRAM_BOT_TOKEN_FILE is not set: it names the file that holds the bot's token")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return config{}, fmt.Errorf("read the token's file: %w", err)
	}
	cfg.token = strings.TrimSpace(string(raw))
	if id, secret, ok := strings.Cut(cfg.token, ":"); !ok || id == "" || len(secret) < 16 || strings.ContainsAny(cfg.token, "/?# \t\r\n") {
		return config{}, fmt.Errorf("%s holds no bot token: want <digits>:<letters and digits>", path)
	}
	return cfg, nil
}

func or(s, unset string) string {
	if s == "" {
		return unset
	}
	return s
}

// run is the bot until the context ends. listening is told the address of /healthz, when it is not nil.
func run(ctx context.Context, cfg config, out io.Writer, listening func(net.Addr)) error {
	hide := scrubber(cfg.token)
	logs := hide.writer(out)
	logger := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{ReplaceAttr: hide.attr}))
	// Libraries that log for themselves go through the same sieve.
	log.SetOutput(logs)

	health := newPollHealth(time.Now, pollTime+30*time.Second)
	client := &http.Client{
		Timeout: pollTime + 15*time.Second,
		// The token is in the path: it must not follow a redirection to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}

	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		return fmt.Errorf("listen for /healthz: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", health)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends with Close, below; should it end before, the probes fail and say so
	}()
	defer func() {
		// Probes in flight matter to nobody once the bot ends.
		_ = server.Close()
		<-served
	}()
	if listening != nil {
		listening(l.Addr())
	}

	b, err := tg.New(cfg.token,
		tg.WithServerURL(cfg.apiURL),
		tg.WithSkipGetMe(), // connect does it, and tries again when the network is not there yet
		tg.WithHTTPClient(pollTime, health.watch(client)),
		tg.WithAllowedUpdates(tg.AllowedUpdates{"message"}),
		// One update at a time, and none taken ahead: the next getUpdates confirms only what was taken from it.
		tg.WithUpdatesChannelCap(0), tg.WithNotAsyncHandlers(),
		tg.WithDefaultHandler(answerer{greeting: cfg.greeting, log: logger}.handle),
		tg.WithErrorsHandler(func(err error) { logger.Error("Telegram", "error", err) }),
	)
	if err != nil {
		return hide.err(fmt.Errorf("make the client: %w", err))
	}
	name, err := connect(ctx, b, cfg, client, logger)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return hide.err(err)
	}
	health.polled(true)
	logger.Info("Polling", "bot", name)
	b.Start(ctx)
	logger.Info("Ended")
	return nil
}
