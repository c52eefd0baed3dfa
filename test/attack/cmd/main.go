//go:build linux

// Command attacker is the broken-into bot of `make bench-attack`: it does nothing until the bench says go, and then
// does to the keyserver all that test/attack can, until the bench says that it is over. `attacker rest` is a bot that
// does nothing, `attacker take ADDRESS` one that takes all that the kernel counts, and `attacker need [ADDRESS]`
// whoever must still get some of that.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/lethe-dev/lethe/test/attack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "rest":
		<-ctx.Done()
		return nil
	case len(args) == 2 && args[0] == "attack":
		return attackWhenTold(ctx, args[1])
	case len(args) == 2 && args[0] == "take":
		return take(ctx, args[1])
	case len(args) == 1 && args[0] == "hoard":
		return hoard()
	case len(args) > 0 && args[0] == "need":
		return need(ctx, args[1:])
	default:
		return errors.New("usage: attacker rest | attack URL-OF-THE-ORDERS | take ADDRESS | need [ADDRESS]")
	}
}

// attackWhenTold follows orders until it is ended.
func attackWhenTold(ctx context.Context, url string) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var stop func()
	var stats *attack.Stats
	for {
		// Orders that cannot be fetched leave all as it is.
		if orders, err := ask(ctx, url, stats); err == nil {
			switch {
			case orders.Attack && stop == nil:
				stats = &attack.Stats{}
				stop = begin(ctx, orders, stats)
			case !orders.Attack && stop != nil:
				stop()
				stop = nil
			}
		}
		select {
		case <-ctx.Done():
			if stop != nil {
				stop()
			}
			return nil
		case <-tick.C:
		}
	}
}

// begin attacks every address in every way; what it returns ends that.
func begin(ctx context.Context, o attack.Orders, stats *attack.Stats) func() {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, address := range o.Addresses {
		for _, kind := range append([]attack.Kind{attack.Calls}, attack.Kinds...) {
			all.Go(func() {
				attack.Run(ctx, attack.Options{
					Kind: kind, Address: address, Path: o.Path, Token: o.Token, Body: o.Body, Connections: o.Connections, Pause: 100 * time.Millisecond,
				}, stats)
			})
		}
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// ask says how it goes, and gets the orders.
func ask(ctx context.Context, url string, stats *attack.Stats) (attack.Orders, error) {
	var orders attack.Orders
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	host, err := os.Hostname()
	if err != nil {
		return orders, fmt.Errorf("find the pod's name: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return orders, fmt.Errorf("ask for orders: %w", err)
	}
	query := request.URL.Query()
	query.Set("pod", host)
	if stats != nil {
		query.Set("dialled", fmt.Sprint(stats.Dialled.Load()))
		query.Set("answered", fmt.Sprint(stats.Answered.Load()))
	}
	request.URL.RawQuery = query.Encode()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return orders, fmt.Errorf("ask for orders: %w", err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&orders); err != nil {
		return orders, fmt.Errorf("read the orders: %w", err)
	}
	return orders, nil
}
