// Command program misbehaves as it is told: the bots of the end-to-end tests whose states have to tell why.
//
//	program end CODE AFTER   ends with an exit code after a while
//	program fill FILE        writes 8 MiB into a file and lives on
//	program eat              takes memory until the kernel ends it
//	program find WHAT...     ends unless it finds what it is told, then lives until it is ended: PATH=SHA256 a file with that content that
//	                         cannot be written, PATH=absent none, PATH=writable a directory with room for 80 MiB, NAME:VALUE a variable
//	program alive            says whether a program that had found everything runs
//	program serve            answers /live always, /never never, and /ready unless the file /tmp/away is there
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
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
	case len(args) == 2 && args[0] == "fill":
		return fill(args[1])
	case len(args) == 1 && args[0] == "eat":
		return 2, fmt.Errorf("ate %d MiB", len(eat()))
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) > 1 && args[0] == "find":
		return find(args[1:])
	case len(args) == 1 && args[0] == "alive":
		_, err := os.Stat(filepath.Join(os.Getenv("HOME"), "alive"))
		return map[bool]int{true: 0, false: 1}[err == nil], err
	default:
		return 2, errors.New("usage: program end CODE AFTER | fill FILE | eat | serve | find WHAT... | alive")
	}
}

func fill(file string) (int, error) {
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		return 2, fmt.Errorf("fill a file: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return 0, nil
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

// find looks for what an image of anybody's needs. Of what it reads nothing is said.
func find(all []string) (int, error) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	for _, one := range all {
		if err := found(one); err != nil {
			return 3, err
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return 3, fmt.Errorf("find the home: %w", err)
	}
	for _, dir := range []string{filepath.Join(home, ".cache", "program"), os.TempDir()} {
		if err := writable(dir); err != nil {
			return 3, err
		}
	}
	if err := os.WriteFile(filepath.Join(home, "alive"), nil, 0o600); err != nil {
		return 3, fmt.Errorf("say that all is there: %w", err)
	}
	<-ended
	return 0, nil
}

func found(one string) error {
	if name, want, ok := strings.Cut(one, ":"); ok {
		sum := sha256.Sum256([]byte(os.Getenv(name)))
		if os.Getenv(name) != want && hex.EncodeToString(sum[:]) != want {
			return fmt.Errorf("variable %s is another one", name)
		}
		return nil
	}
	path, want, _ := strings.Cut(one, "=")
	content, err := os.ReadFile(path)
	sum := sha256.Sum256(content)
	switch {
	case want == "writable":
		return writable(path)
	case want == "absent" && errors.Is(err, os.ErrNotExist):
		return nil
	case want == "absent":
		return fmt.Errorf("%s is there", path)
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case hex.EncodeToString(sum[:]) != want:
		return fmt.Errorf("%s holds %d bytes of something else", path, len(content))
	}
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		return errors.Join(fmt.Errorf("%s can be written", path), f.Close())
	}
	return nil
}

// writable puts 80 MiB into a directory, which it makes, and takes them out again.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	f, err := os.CreateTemp(dir, "large-*")
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	piece := make([]byte, 1<<20)
	for range 80 {
		if _, err = f.Write(piece); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("write 80 MiB: %w", err)
	}
	return nil
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
