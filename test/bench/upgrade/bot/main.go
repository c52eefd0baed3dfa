// Command bot is what the bots of the bench run: it asks once at its start whether it may run, ends when it may not,
// and rests.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := ask(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bot:", err)
		os.Exit(1)
	}
	<-ctx.Done()
}

func ask(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: bot URL")
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
		if err != nil {
			return fmt.Errorf("ask whether to run: %w", err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = answer.Body.Close() // nothing is read
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("told not to run: %s", answer.Status)
			}
			return nil
		}
		select { // the wall may be a moment late
		case <-ctx.Done():
			return fmt.Errorf("ask whether to run: %w", err)
		case <-time.After(time.Second):
		}
	}
}
