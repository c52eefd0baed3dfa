package doors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
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
	q := NewQueue(QueueLimits{Places: 1, PerName: 1, Waiting: 100, WaitingPerName: 50}, clock.RealClock{})
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

// TestAFullQueueTakesFromTheLongestLine: who comes to a full queue with a short line of its own is let wait, and the
// longest line loses its last.
func TestAFullQueueTakesFromTheLongestLine(t *testing.T) {
	q := NewQueue(QueueLimits{Places: 1, PerName: 1, Waiting: 6, WaitingPerName: 6}, clock.RealClock{})
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
	q := NewQueue(QueueLimits{Places: 3, PerName: 2, Waiting: 64, WaitingPerName: 16}, clock.RealClock{})
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

// entered is a queue's crowd: who came in, in their order.
type entered struct {
	mu    sync.Mutex
	names []string
}

func (e *entered) come(name string) func(func(), error) {
	return func(leave func(), err error) {
		if err != nil {
			return
		}
		e.mu.Lock()
		e.names = append(e.names, name)
		e.mu.Unlock()
		leave()
	}
}

// settled waits until nobody is inside and so many have come in, and returns them.
func (e *entered) settled(q *Queue, want int) []string {
	for ; ; runtime.Gosched() {
		inside, _ := q.Load()
		e.mu.Lock()
		names := slices.Clone(e.names)
		e.mu.Unlock()
		if inside == 0 && len(names) >= want {
			return names
		}
	}
}

// outside lets n of a name ask, and returns when those that can are through and the others wait.
func (e *entered) outside(t *testing.T, q *Queue, name string, n, through int) {
	t.Helper()
	_, before := q.Load()
	e.mu.Lock()
	had := len(e.names)
	e.mu.Unlock()
	for range n {
		go func() { e.come(name)(q.Enter(t.Context(), name)) }()
	}
	for ; ; runtime.Gosched() {
		e.mu.Lock()
		came := len(e.names) - had
		e.mu.Unlock()
		if inside, waiting := q.Load(); inside == 0 && came == through && waiting == before+n-through {
			return
		}
	}
}

// TestPaceOfAll: after the burst one comes in for each token, and names take turns for them.
func TestPaceOfAll(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	q := NewQueue(QueueLimits{Places: 100, PerName: 100, Waiting: 100, WaitingPerName: 100, Pace: Pace{PerSecond: 10, Burst: 5}}, c)
	var e entered
	e.outside(t, q, "crowd", 30, 5)
	e.outside(t, q, "victim", 1, 0)
	for i := range 3 {
		c.Step(101 * time.Millisecond)
		if got := e.settled(q, 6+i); len(got) != 6+i {
			t.Fatalf("after %d tokens %d are in", i+1, len(got)-5)
		}
	}
	if got := slices.Index(e.settled(q, 8), "victim"); got < 5 || got > 6 {
		t.Errorf("the victim was number %d of %v", got, e.names)
	}
	c.Step(time.Hour)
	// Five tokens are all that an hour saves.
	if got := e.settled(q, 13); len(got) != 13 {
		t.Errorf("after an hour %d are in", len(got))
	}
	for i := range 18 {
		c.Step(101 * time.Millisecond)
		e.settled(q, 14+i)
	}
	if got := e.settled(q, 31); len(got) != 31 || c.HasWaiters() {
		t.Errorf("%d are in, and the queue still waits for a token: %v", len(got), c.HasWaiters())
	}
}

// TestPaceOfAName: a name that is too fast waits, others do not, and leaving and coming again renews nothing.
func TestPaceOfAName(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	q := NewQueue(QueueLimits{Places: 4, PerName: 2, Waiting: 100, WaitingPerName: 100, PacePerName: Pace{PerSecond: 1, Burst: 3}}, c)
	var e entered
	for range 3 {
		e.outside(t, q, "crowd", 1, 1)
	}
	e.outside(t, q, "crowd", 2, 0)
	e.outside(t, q, "victim", 3, 3)
	c.Step(1001 * time.Millisecond)
	if got := e.settled(q, 7); len(got) != 7 || got[6] != "crowd" {
		t.Errorf("after a second: %v", got)
	}
	c.Step(1001 * time.Millisecond)
	e.settled(q, 8)
	// What is whole again is forgotten: names come and go.
	c.Step(2 * time.Minute)
	e.outside(t, q, "another", 1, 1)
	if len(q.names) != 1 {
		t.Errorf("%d names are remembered", len(q.names))
	}
}

// TestWhoWaitsForATokenMayGiveUp: the next one gets it.
func TestWhoWaitsForATokenMayGiveUp(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	q := NewQueue(QueueLimits{Places: 4, PerName: 2, Waiting: 2, WaitingPerName: 2, Pace: Pace{PerSecond: 1, Burst: 1}}, c)
	var e entered
	e.outside(t, q, "first", 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := q.Enter(ctx, "impatient")
		gone <- err
	}()
	for waiting := 0; waiting == 0; runtime.Gosched() {
		_, waiting = q.Load()
	}
	e.outside(t, q, "second", 1, 0)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	c.Step(1001 * time.Millisecond)
	if got := e.settled(q, 2); got[1] != "second" {
		t.Errorf("came in: %v", got)
	}
}
