package fair

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

// Items are named tenant/object.
func tenantOf(item string) string {
	tenant, _, _ := strings.Cut(item, "/")
	return tenant
}

func newTestQueue(workers int, pace time.Duration) (*Queue[string], *clocktesting.FakeClock) {
	now := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return New(Options[string]{FlowOf: tenantOf, Workers: workers, Pace: pace, Clock: now}), now
}

// next is the item that a worker would get, or nothing when it would have to wait.
func (q *Queue[T]) next() (T, bool) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	key, _, ok := q.take()
	return key, ok
}

// served is the order in which one worker after the other gets through what waits.
func served(t *testing.T, q *Queue[string]) []string {
	t.Helper()
	var order []string
	for {
		key, ok := q.next()
		if !ok {
			return order
		}
		order = append(order, key)
		q.Done(key)
	}
}

func priority(p int) priorityqueue.AddOpts { return priorityqueue.AddOpts{Priority: &p} }

func place(order []string, key string) int {
	for i, k := range order {
		if k == key {
			return i
		}
	}
	return len(order)
}

// A tenant that joins when another's backlog is there already is served with the next turns.
func TestWhoJoinsAfterTheBacklog(t *testing.T) {
	for name, backlog := range map[string]int{"changed objects": 0, "a restart's": handler.LowPriority} {
		q, _ := newTestQueue(10, 0)
		for i := range 1000 {
			q.AddWithOpts(priority(backlog), fmt.Sprintf("greedy/%d", i))
		}
		for range 7 {
			key, _ := q.next()
			q.Done(key)
		}
		q.AddWithOpts(priority(backlog), "victim/bot")
		if at := place(served(t, q), "victim/bot"); at > 1 {
			t.Errorf("%s: the newcomer was served after %d others", name, at)
		}
	}
}

// After a restart everything is there at once, in any order. Nobody waits for more than one turn of each of the others.
func TestRestartInAnyOrder(t *testing.T) {
	const victims = 20
	for seed := range uint64(20) {
		q, _ := newTestQueue(10, 0)
		var all []string
		for i := range 2000 {
			all = append(all, fmt.Sprintf("greedy/%d", i))
		}
		for i := range victims {
			all = append(all, fmt.Sprintf("victim-%d/bot", i))
		}
		random := rand.New(rand.NewPCG(seed, 1))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, key := range all {
			q.AddWithOpts(priority(handler.LowPriority), key)
		}
		order := served(t, q)
		for i := range victims {
			if at := place(order, fmt.Sprintf("victim-%d/bot", i)); at > victims+1 {
				t.Errorf("seed %d: victim %d was served after %d others", seed, i, at)
			}
		}
		if len(order) != len(all) {
			t.Errorf("seed %d: %d of %d were served", seed, len(order), len(all))
		}
	}
}

// Whoever changes things without end, at the highest priority, leaves every other turn to the rest.
func TestUrgentDoesNotStarve(t *testing.T) {
	q, _ := newTestQueue(10, 0)
	for i := range 50 {
		q.AddWithOpts(priority(handler.LowPriority), fmt.Sprintf("tenant-%d/bot", i))
	}
	q.Add("greedy/0")
	greedy := 0
	for turns := 1; turns <= 110; turns++ {
		key, ok := q.next()
		if !ok {
			t.Fatal("nothing to do")
		}
		if tenantOf(key) == "greedy" {
			greedy++
			q.Add(fmt.Sprintf("greedy/%d", greedy))
		}
		q.Done(key)
	}
	if q.Len() != 1 || greedy > 60 {
		t.Errorf("%d of 110 turns went to one tenant, and %d items wait", greedy, q.Len())
	}
}

// What somebody does now does not wait for the backlog of a thousand tenants.
func TestUrgentComesSoon(t *testing.T) {
	q, _ := newTestQueue(10, 0)
	for i := range 1000 {
		q.AddWithOpts(priority(handler.LowPriority), fmt.Sprintf("tenant-%d/bot", i))
	}
	q.Add("new/bot")
	if at := place(served(t, q), "new/bot"); at > 1 {
		t.Errorf("served after %d others", at)
	}
}

// One tenant's slow passes never hold every worker, and two that act together neither.
func TestNobodyHoldsEveryWorker(t *testing.T) {
	for greedy := 1; greedy <= 4; greedy++ {
		q, _ := newTestQueue(10, 0)
		for i := range 100 {
			for g := range greedy {
				q.Add(fmt.Sprintf("greedy-%d/%d", g, i))
			}
		}
		held := map[string]int{}
		for {
			key, ok := q.next()
			if !ok {
				break
			}
			held[tenantOf(key)]++
		}
		taken := 0
		for tenant, n := range held {
			taken += n
			if n > 10/(greedy+1)+1 {
				t.Errorf("of %d greedy tenants, %s holds %d of 10 workers", greedy, tenant, n)
			}
		}
		if taken < 5 || taken > 9 {
			t.Errorf("%d greedy tenants hold %d of 10 workers", greedy, taken)
		}
		q.Add("victim/bot")
		if key, ok := q.next(); !ok || key != "victim/bot" {
			t.Errorf("with %d greedy tenants the newcomer got no worker", greedy)
		}
	}
}

// A single worker is no reason to stop.
func TestOneWorker(t *testing.T) {
	q, _ := newTestQueue(1, 0)
	q.Add("a/1")
	q.Add("a/2")
	if order := served(t, q); len(order) != 2 {
		t.Errorf("served %v", order)
	}
}

// Ten thousand changes of one object in ten seconds are a burst and then a pass for each second.
func TestManyChangesOfOneObject(t *testing.T) {
	q, now := newTestQueue(4, time.Second)
	passes := 0
	work := func() {
		for {
			key, ok := q.next()
			if !ok {
				return
			}
			passes++
			q.Done(key)
		}
	}
	for range 10_000 {
		q.Add("greedy/bot")
		work()
		now.Step(time.Millisecond)
	}
	if passes < Burst || passes > Burst+11 {
		t.Errorf("%d passes, want about %d", passes, Burst+10)
	}
	// The last change is not lost, and another object of the tenant is not held back. A pass of the first becomes due
	// at this very moment, and the timer's goroutine may have been there before us: then that is the first one's
	// turn, and it changes once more.
	q.Add("greedy/other")
	key, ok := q.next()
	if ok && key == "greedy/bot" {
		passes++
		q.Done(key)
		q.Add(key)
		key, ok = q.next()
	}
	if !ok || key != "greedy/other" {
		t.Error("another object was held back")
	} else {
		q.Done(key)
	}
	before := passes
	now.Step(2 * time.Second)
	if work(); passes != before+1 {
		t.Errorf("%d passes for the last change", passes-before)
	}
	now.Step(time.Hour)
	for i := range 2000 {
		q.Add(fmt.Sprintf("greedy/%d", i))
	}
	work()
	now.Step(time.Hour)
	for i := range 2000 {
		q.Add(fmt.Sprintf("greedy/%d", 3000+i))
	}
	work()
	if n := len(q.pace.next); n > 4000 {
		t.Errorf("the pace remembers %d objects", n)
	}
}

// The contract of the queue that this one takes the place of.
func TestContract(t *testing.T) {
	q, now := newTestQueue(4, 0)
	q.Add("a/1")
	q.Add("a/1")
	if key, ok := q.next(); !ok || key != "a/1" || q.Len() != 0 {
		t.Fatalf("got %q, %d left", key, q.Len())
	}
	q.Add("a/1")
	if key, ok := q.next(); ok {
		t.Fatalf("%q was handed out twice at a time", key)
	}
	q.Done("a/1")
	if key, ok := q.next(); !ok || key != "a/1" {
		t.Fatal("what was added while it was worked on is lost")
	}
	q.Done("a/1")
	q.Done("a/1") // harmless

	q.AddAfter("a/1", time.Minute)
	q.AddAfter("a/1", time.Hour)
	if _, ok := q.next(); ok || q.Len() != 0 {
		t.Fatal("handed out before its time")
	}
	now.Step(time.Minute)
	if q.Len() != 1 {
		t.Error("the earlier of two times does not count")
	}
	q.AddWithOpts(priority(-5), "a/2")
	q.AddWithOpts(priority(-7), "a/3")
	q.AddWithOpts(priority(3), "a/3")
	if order := served(t, q); fmt.Sprint(order) != "[a/3 a/1 a/2]" {
		t.Errorf("served %v", order)
	}

	q.AddRateLimited("a/4")
	if _, ok := q.next(); ok || q.NumRequeues("a/4") != 1 {
		t.Error("a failed item is not held back")
	}
	q.Forget("a/4")
	q.Add("a/4")
	if order := served(t, q); len(order) != 1 || q.NumRequeues("a/4") != 0 {
		t.Errorf("served %v", order)
	}

	// An item that has moved to another tenant goes on in that one's turns.
	owner := "a"
	q.options.FlowOf = func(string) string { return owner }
	q.Add("x/1")
	owner = "b"
	q.Add("x/1")
	if _, ok := q.flows["a"]; ok || q.flows["b"] == nil {
		t.Errorf("flows: %v", q.flows)
	}
	served(t, q)
	if len(q.flows)+len(q.items)+len(q.working) != 0 {
		t.Errorf("left behind: %v %v %v", q.flows, q.items, q.working)
	}
}

// Workers that wait are woken by an add, by time, by room, and by the end.
func TestWaitingWorkers(t *testing.T) {
	q, now := newTestQueue(2, 0)
	got := make(chan string)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for {
				key, shutdown := q.Get()
				if shutdown {
					return
				}
				got <- key
				q.Done(key)
			}
		})
	}
	q.Add("a/1")
	if key := <-got; key != "a/1" {
		t.Errorf("got %s", key)
	}
	q.AddAfter("a/2", time.Hour)
	q.AddAfter("a/3", time.Minute)
	now.Step(time.Minute)
	if key := <-got; key != "a/3" {
		t.Errorf("got %s", key)
	}
	now.Step(time.Hour)
	if key := <-got; key != "a/2" {
		t.Errorf("got %s", key)
	}
	for i := range 10 {
		q.Add(fmt.Sprintf("a/%d", i))
	}
	for range 10 {
		<-got
	}
	q.ShutDown()
	workers.Wait()
	q.Add("a/1")
	if !q.ShuttingDown() || len(q.items) != 0 {
		t.Error("a closed queue takes items")
	}
}

func TestState(t *testing.T) {
	q, now := newTestQueue(4, 0)
	q.Add("a/1")
	q.AddAfter("c/1", time.Hour)
	now.Step(time.Second)
	q.Add("b/1")
	q.Add("b/2")
	now.Step(time.Second)
	if s := q.State(); s != (State{Depth: 3, Flows: 2, Longest: 2 * time.Second}) {
		t.Errorf("state %+v", s)
	}
}
