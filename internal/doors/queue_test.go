package doors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// enterAll lets n of a name ask, and returns when all of them are inside or wait.
func enterAll(ctx context.Context, q *Queue, name string, n int, come func(leave func(), err error)) {
	inside, waiting := q.Load()
	for range n {
		go func() { come(q.Enter(ctx, name)) }()
	}
	for want := inside + waiting + n; ; runtime.Gosched() {
		if inside, waiting = q.Load(); inside+waiting >= want {
			return
		}
	}
}

// TestNamesTakeTurns: one name's crowd waits, and another's first one is the next.
func TestNamesTakeTurns(t *testing.T) {
	q := NewQueue(QueueLimits{Places: 1, PerName: 1, Waiting: 100, WaitingPerName: 50})
	var mu sync.Mutex
	var order []string
	leaves := make(chan func(), 100)
	come := func(name string) func(func(), error) {
		return func(leave func(), err error) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			leaves <- leave
		}
	}
	enterAll(t.Context(), q, "crowd", 40, come("crowd"))
	enterAll(t.Context(), q, "victim", 3, come("victim"))
	for range 43 {
		(<-leaves)()
	}
	last := 0
	for i, name := range order {
		if name == "victim" {
			last = i
		}
	}
	if len(order) != 43 || last > 12 {
		t.Errorf("the victim's last one was number %d of %d", last, len(order))
	}
	if inside, waiting := q.Load(); inside != 0 || waiting != 0 || len(q.names) != 0 || len(q.turns) != 0 {
		t.Errorf("%d, %d, %d names and %d turns are left", inside, waiting, len(q.names), len(q.turns))
	}
}

// TestAFullQueueTakesFromTheLongestLine: who comes to a full queue with a short line of its own is let wait, and the longest line loses its last.
func TestAFullQueueTakesFromTheLongestLine(t *testing.T) {
	q := NewQueue(QueueLimits{Places: 1, PerName: 1, Waiting: 6, WaitingPerName: 6})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 20)
	come := func(_ func(), err error) { results <- err }
	leave, err := q.Enter(ctx, "crowd")
	if err != nil {
		t.Fatal(err)
	}
	enterAll(ctx, q, "crowd", 6, come)
	if _, err := q.Enter(ctx, "crowd"); !errors.Is(err, ErrBusy) {
		t.Fatalf("one more of the crowd: %v", err)
	}
	victim := make(chan error, 1)
	go func() {
		_, err := q.Enter(ctx, "victim")
		victim <- err
	}()
	if err := <-results; !errors.Is(err, ErrBusy) {
		t.Fatalf("the last of the crowd was told %v", err)
	}
	leave()
	if err := <-results; err != nil {
		t.Fatalf("whose turn it was: %v", err)
	}
	// The one that is inside never leaves: the victim waits until its time is up, and was not turned away.
	cancel()
	if err := <-victim; !errors.Is(err, context.Canceled) {
		t.Errorf("the victim was told %v", err)
	}
}

// TestWhoGivesUpPassesThePlaceOn: many give up while many leave, and no place is lost or made.
func TestWhoGivesUpPassesThePlaceOn(t *testing.T) {
	q := NewQueue(QueueLimits{Places: 3, PerName: 2, Waiting: 64, WaitingPerName: 16})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				go func() { runtime.Gosched(); cancel() }()
			}
			leave, err := q.Enter(ctx, fmt.Sprint(i%7))
			if err != nil {
				return
			}
			if inside, _ := q.Load(); inside > 3 {
				t.Errorf("%d are inside", inside)
			}
			runtime.Gosched()
			leave()
			leave()
		})
	}
	all.Wait()
	if inside, waiting := q.Load(); inside != 0 || waiting != 0 || len(q.names) != 0 {
		t.Errorf("%d inside, %d waiting and %d names are left", inside, waiting, len(q.names))
	}
}
