//go:build unix

// Probe is the program in the pods of the node test: it writes a file that a container takes its environment from, and
// answers questions about what a pod sees.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch command := strings.Join(args, " "); {
	case len(args) == 3 && args[0] == "write":
		return write(args[1], args[2])
	case len(args) == 3 && args[0] == "sidecar":
		if err := write(args[1], args[2]); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	case command == "serve":
		return serve(ctx)
	case len(args) == 2 && args[0] == "has":
		_, err := os.Stat(args[1])
		return err
	case command == "hello":
		fmt.Println("hello from a job")
		return nil
	default:
		return fmt.Errorf("no command %q", command)
	}
}

// write makes the file complete before it has its name: a startup probe looks for it.
func write(path, content string) error {
	temp := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(temp, []byte(content+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func serve(ctx context.Context) error {
	mux := http.NewServeMux()
	answer := func(pattern string, f func(*http.Request, string) (string, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			text, err := f(r, r.URL.Query().Get("q"))
			if err != nil {
				text = "error: " + err.Error()
			}
			_, _ = io.WriteString(w, text)
		})
	}
	answer("/ok", func(*http.Request, string) (string, error) { return "ok", nil })
	answer("/env", func(_ *http.Request, name string) (string, error) { return os.Getenv(name), nil })
	answer("/file", func(_ *http.Request, path string) (string, error) {
		data, err := os.ReadFile(path)
		return string(data), err
	})
	answer("/write", func(_ *http.Request, path string) (string, error) {
		return "written", os.WriteFile(path, []byte("kept"), 0o600)
	})
	answer("/lookup", func(r *http.Request, name string) (string, error) {
		addrs, err := net.DefaultResolver.LookupHost(r.Context(), name)
		return strings.Join(addrs, " "), err
	})
	answer("/get", func(r *http.Request, url string) (string, error) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	})
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.Print("serving")
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
