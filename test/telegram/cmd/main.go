// Command telegram runs the stand-in for the Telegram Bot API as a process of its own, for the demo and the
// end-to-end tests. The Bot API and the control side have a listener each, so that only the first need be reachable
// for bots.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lethe-dev/lethe/test/telegram"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Error("Stopped", "error", err)
		os.Exit(1)
	}
}

// Ready is what the file of --ready-file holds once both listeners answer.
type Ready struct {
	API     string `json:"api"`     // URL of the Bot API, over TLS
	CA      string `json:"ca"`      // the authority of its certificate, in PEM
	Control string `json:"control"` // URL of the control side
	PID     int    `json:"pid"`
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	fs := flag.NewFlagSet("telegram", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:0", "address of the Bot API")
	controlListen := fs.String("control-listen", "127.0.0.1:0", "address of the control side")
	tokenFile := fs.String("control-token-file", "", "file with the bearer token of the control side (required)")
	readyFile := fs.String("ready-file", "", "file to write the two URLs to, as JSON, once both answer; -: standard output")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *tokenFile == "" {
		return errors.New("--control-token-file is required: without it anyone who reaches the control side could speak as anyone")
	}
	raw, err := os.ReadFile(*tokenFile)
	if err != nil {
		return fmt.Errorf("read control token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return fmt.Errorf("the control token in %s is empty", *tokenFile)
	}

	server := telegram.New(telegram.Options{Observe: func(e telegram.Event) {
		// A poll that ends well is the ordinary state of things, and there are many.
		if e.Method == "getUpdates" && e.Status == http.StatusOK {
			return
		}
		log.Info("Answered", "bot", e.BotID, "method", e.Method, "status", e.Status, "peer", e.Peer)
	}})
	api, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen for the Bot API: %w", err)
	}
	control, err := net.Listen("tcp", *controlListen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for the control side: %w", err), api.Close())
	}
	own, authority, err := certificate(api.Addr(), time.Now())
	if err != nil {
		return errors.Join(err, api.Close(), control.Close())
	}
	api = tls.NewListener(api, &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12})
	ready := Ready{API: "https://" + api.Addr().String(), CA: authority, Control: "http://" + control.Addr().String(), PID: os.Getpid()}
	log.Info("Listening", "api", ready.API, "control", ready.Control)

	servers := []*http.Server{
		{Handler: server, ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet()},
		{Handler: server.Control(token), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet()},
	}
	failed := make(chan error, len(servers))
	for i, l := range []net.Listener{api, control} {
		go func() { failed <- servers[i].Serve(l) }()
	}
	if *readyFile != "" {
		if err := writeReady(*readyFile, ready, os.Stdout); err != nil {
			return err
		}
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	for _, s := range servers {
		// Polls that wait would hold a graceful end up for their whole time.
		err = errors.Join(err, s.Close())
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// writeReady replaces the file in one step, so that a reader never sees half of it.
func writeReady(path string, r Ready, stdout io.Writer) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	if path == "-" {
		_, err := stdout.Write(append(b, '\n'))
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}
