// Command whatsapp runs the stand-in for WhatsApp's web server as a process of its own, for the end-to-end tests.
//
//	whatsapp LISTEN PASSWORD-FILE READY-FILE
//
// The proxy listens at LISTEN. The control side listens on loopback: POST /scan, with a pairing code, is the phone; POST /ask, with
// a text, is a friend, and answers what the bot answers; GET /stats counts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lethe-dev/lethe/test/programs/whatsapp"
)

// ready is what READY-FILE holds once everything listens.
type ready struct {
	Proxy   string `json:"proxy"`
	CA      string `json:"ca"`
	Root    string `json:"root"`
	Control string `json:"control"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "whatsapp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: whatsapp LISTEN PASSWORD-FILE READY-FILE")
	}
	password, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	s, err := whatsapp.Start(ctx, args[0], strings.TrimSpace(string(password)))
	if err != nil {
		return err
	}
	control, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b, err := json.Marshal(ready{Proxy: s.Proxy, CA: s.CA, Root: s.Root(), Control: "http://" + control.Addr().String()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[2]+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(args[2]+".new", args[2]); err != nil {
		return err
	}
	server := &http.Server{Handler: side(s), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(control); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func side(s *whatsapp.Running) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /scan", func(w http.ResponseWriter, r *http.Request) {
		code, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<12))
		if err == nil {
			err = s.Scan(string(code))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
		defer cancel()
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<12))
		if err == nil {
			var answer string
			if answer, err = s.Ask(ctx, string(text)); err == nil {
				_, _ = io.WriteString(w, answer) // whoever asked may have gone
				return
			}
		}
		http.Error(w, err.Error(), http.StatusConflict)
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Stats()) // whoever asked may have gone
	})
	return mux
}
