// Command program misbehaves as it is told: the bots of the end-to-end tests whose states have to tell why.
//
//	program end CODE AFTER   ends with an exit code after a while
//	program eat              takes memory until the kernel ends it
//	program serve            answers /live always, /never never, and /ready unless the file /tmp/away is there
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	switch {
	case len(args) == 3 && args[0] == "end":
		return end(args[1], args[2])
	case len(args) == 1 && args[0] == "eat":
		return 2, fmt.Errorf("ate %d MiB", len(eat()))
	case len(args) == 1 && args[0] == "serve":
		return serve()
	default:
		return 2, errors.New("usage: program end CODE AFTER | eat | serve")
	}
}

func end(code, after string) (int, error) {
	number, err := strconv.Atoi(code)
	if err != nil {
		return 2, fmt.Errorf("read the exit code: %w", err)
	}
	wait, err := time.ParseDuration(after)
	if err != nil {
		return 2, fmt.Errorf("read when to end: %w", err)
	}
	<-time.After(wait)
	return number, nil
}

// eat takes a GiB, and uses it.
func eat() [][]byte {
	var all [][]byte
	for range 1024 {
		piece := make([]byte, 1<<20)
		for i := range piece {
			piece[i] = byte(i)
		}
		all = append(all, piece)
	}
	return all
}

func serve() (int, error) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/live", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/never", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat("/tmp/away"); err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	failed := make(chan error, 1)
	go func() {
		server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
		failed <- server.ListenAndServe()
	}()
	select {
	case <-ended:
		return 0, nil
	case err := <-failed:
		return 1, fmt.Errorf("listen: %w", err)
	}
}
