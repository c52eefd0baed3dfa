// Package fair is a controller's work queue in which tenants take turns. Whoever has ten thousand objects waiting, and
// whoever has one, is served as often as the other; nobody holds every worker; and an object that changes without end
// is looked at no more often than its pace allows.
//
// It takes the place of controller-runtime's priority queue and keeps its contract: an item is in the queue once, it
// is not handed out again before Done, the higher of two priorities and the earlier of two times win.
package fair

import (
	"container/heap"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
)

// Burst is how many passes over one object may follow each other at once before its pace holds it back.
const Burst = 20

// Options of a queue.
type Options[T comparable] struct {
	// FlowOf names the flow of an item: who takes turns with whom. It is called without a lock held, on every add.
	FlowOf func(T) string
	// Workers that take from the queue. A flow that others might join never holds them all.
	Workers int
	// Pace is the time between two passes over one object in the long run. Zero is none.
	Pace time.Duration
	// RateLimiter says how long a failed item waits.
	RateLimiter workqueue.TypedRateLimiter[T]
	// Clock. Defaults to the real one.
	Clock clock.WithDelayedExecution
}

// Queue serves flows in turns.
type Queue[T comparable] struct {
	options Options[T]

	mutex   sync.Mutex
	changed *sync.Cond
	closed  bool
	// items are all that are known and not being worked on, and those that were added again meanwhile.
	items   map[T]*item[T]
	waiting waitingHeap[T]
	flows   map[string]*flow[T]
	// working says whose flow an item is of that a worker has.
	working map[T]string
	// turn counts what was handed out, and added what was added: the order among equals.
	turn, added uint64
	// alarm wakes the workers when the first waiting item is due.
	alarm   clock.Timer
	alarmAt time.Time
	pace    pacer[T]
}

var _ priorityqueue.PriorityQueue[int] = (*Queue[int])(nil)

// New makes a queue.
func New[T comparable](o Options[T]) *Queue[T] {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.RateLimiter == nil {
		o.RateLimiter = workqueue.NewTypedItemExponentialFailureRateLimiter[T](5*time.Millisecond, 1000*time.Second)
	}
	q := &Queue[T]{options: o, items: map[T]*item[T]{}, flows: map[string]*flow[T]{}, working: map[T]string{}}
	q.pace = pacer[T]{every: o.Pace, next: map[T]time.Time{}}
	q.changed = sync.NewCond(&q.mutex)
	return q
}

// AddWithOpts adds items, or brings forward those that are there.
func (q *Queue[T]) AddWithOpts(o priorityqueue.AddOpts, items ...T) {
	for _, key := range items {
		flow := q.options.FlowOf(key)
		q.mutex.Lock()
		if !q.closed {
			q.add(o, key, flow)
		}
		q.mutex.Unlock()
	}
}

func (q *Queue[T]) add(o priorityqueue.AddOpts, key T, flowName string) {
	now := q.options.Clock.Now()
	after := o.After
	if o.RateLimited {
		if limited := q.options.RateLimiter.When(key); after == 0 || limited < after {
			after = limited
		}
	}
	due := q.pace.earliest(key, now)
	if at := now.Add(after); after > 0 && at.After(due) {
		due = at
	}
	priority := 0
	if o.Priority != nil {
		priority = *o.Priority
	}
	known, ok := q.items[key]
	if !ok {
		known = &item[T]{key: key, flow: flowName, priority: priority, number: q.count(), due: due}
		q.items[key] = known
		q.place(known, now)
		return
	}
	q.remove(known)
	known.flow = flowName
	if priority > known.priority {
		known.priority, known.number = priority, q.count()
	}
	if due.Before(known.due) {
		known.due = due
	}
	q.place(known, now)
}

func (q *Queue[T]) count() uint64 {
	q.added++
	return q.added
}

// place puts an item where it belongs: aside while a worker has it, among those that wait for their time, or into its
// flow.
func (q *Queue[T]) place(i *item[T], now time.Time) {
	_, held := q.working[i.key]
	switch {
	case i.due.After(now):
		i.state = waits
		heap.Push(&q.waiting, i)
		q.arm(now)
	case held:
		i.state = aside
		i.markReady(now)
	default:
		i.state = ready
		i.markReady(now)
		heap.Push(&q.flow(i.flow).ready, i)
		q.changed.Signal()
	}
}

func (q *Queue[T]) remove(i *item[T]) {
	switch i.state {
	case waits:
		heap.Remove(&q.waiting, i.index)
	case ready:
		f := q.flows[i.flow]
		heap.Remove(&f.ready, i.index)
		q.forgetFlow(f)
	case aside:
	}
}

// flow finds a flow, or lets it join at the end of the line.
func (q *Queue[T]) flow(name string) *flow[T] {
	f, ok := q.flows[name]
	if !ok {
		f = &flow[T]{name: name, served: q.turn}
		q.flows[name] = f
	}
	return f
}

func (q *Queue[T]) forgetFlow(f *flow[T]) {
	if f.ready.Len() == 0 && f.working == 0 {
		delete(q.flows, f.name)
	}
}

// arm sets the alarm to the first waiting item.
func (q *Queue[T]) arm(now time.Time) {
	if q.waiting.Len() == 0 || q.closed {
		return
	}
	first := q.waiting[0].due
	if q.alarm != nil && !q.alarmAt.After(first) && q.alarmAt.After(now) {
		return
	}
	if q.alarm != nil {
		q.alarm.Stop()
	}
	q.alarmAt = first
	// In a goroutine of its own: a clock may call this while it is being asked for the time.
	q.alarm = q.options.Clock.AfterFunc(first.Sub(now), func() { go q.ring() })
}

func (q *Queue[T]) ring() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.promote(q.options.Clock.Now())
}

// promote moves what is due into the flows.
func (q *Queue[T]) promote(now time.Time) {
	for q.waiting.Len() > 0 && !q.waiting[0].due.After(now) {
		i := q.waiting[0]
		heap.Remove(&q.waiting, 0)
		i.number = q.count() // among equals it counts when an item became ready
		q.place(i, now)
	}
	q.arm(now)
}

// GetWithPriority hands out the next item, and waits until there is one.
func (q *Queue[T]) GetWithPriority() (T, int, bool) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for {
		if q.closed {
			var none T
			return none, 0, true
		}
		if key, priority, ok := q.take(); ok {
			return key, priority, false
		}
		q.changed.Wait()
	}
}

// take hands out the next item, if there is one.
func (q *Queue[T]) take() (key T, priority int, ok bool) {
	now := q.options.Clock.Now()
	q.promote(now)
	f := q.nextFlow()
	if f == nil {
		return key, 0, false
	}
	i := f.ready[0]
	heap.Remove(&f.ready, 0)
	q.turn++
	f.served = q.turn
	f.working++
	q.working[i.key] = f.name
	delete(q.items, i.key)
	q.pace.begin(i.key, now)
	return i.key, i.priority, true
}

// nextFlow is whose turn it is. Every other turn goes to the flow that was served longest ago, whatever it has
// waiting; the turns between go by priority first, so that what somebody does now need not wait for everybody's
// backlog.
func (q *Queue[T]) nextFlow() *flow[T] {
	free := q.options.Workers - len(q.working)
	urgent := q.turn%2 == 0
	var next *flow[T]
	for _, f := range q.flows {
		// Each flow leaves as many workers free as it holds itself: one that joins finds some.
		if f.ready.Len() == 0 || (f.working > 0 && f.working >= free) {
			continue
		}
		if next == nil || f.before(next, urgent) {
			next = f
		}
	}
	return next
}

// Done says that a worker has finished with an item.
func (q *Queue[T]) Done(key T) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	name, ok := q.working[key]
	if !ok {
		return
	}
	delete(q.working, key)
	f := q.flows[name]
	f.working--
	q.forgetFlow(f)
	if again, ok := q.items[key]; ok && again.state == aside {
		now := q.options.Clock.Now()
		again.due = q.pace.earliest(key, now)
		q.place(again, now)
	}
	q.changed.Broadcast() // another flow may have become free to take more
}

// Add adds an item.
func (q *Queue[T]) Add(key T) { q.AddWithOpts(priorityqueue.AddOpts{}, key) }

// AddAfter adds an item that is due later.
func (q *Queue[T]) AddAfter(key T, after time.Duration) {
	q.AddWithOpts(priorityqueue.AddOpts{After: after}, key)
}

// AddRateLimited adds an item that has failed.
func (q *Queue[T]) AddRateLimited(key T) {
	q.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, key)
}

// Get is GetWithPriority without the priority.
func (q *Queue[T]) Get() (T, bool) {
	key, _, shutdown := q.GetWithPriority()
	return key, shutdown
}

// Forget forgets that an item has failed.
func (q *Queue[T]) Forget(key T) { q.options.RateLimiter.Forget(key) }

// NumRequeues is how often an item has failed.
func (q *Queue[T]) NumRequeues(key T) int { return q.options.RateLimiter.NumRequeues(key) }

// ShutDown lets every worker go.
func (q *Queue[T]) ShutDown() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.closed = true
	if q.alarm != nil {
		q.alarm.Stop()
	}
	q.changed.Broadcast()
}

// ShutDownWithDrain is ShutDown: controller-runtime waits for its workers itself.
func (q *Queue[T]) ShutDownWithDrain() { q.ShutDown() }

// ShuttingDown says whether ShutDown was called.
func (q *Queue[T]) ShuttingDown() bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	return q.closed
}

// Len is how many items could be worked on now.
func (q *Queue[T]) Len() int { return q.State().Depth }

// State is what a queue tells of itself.
type State struct {
	// Depth is how many items could be worked on now, and Flows of how many flows they are.
	Depth, Flows int
	// Longest is how long the one that waits longest has been ready.
	Longest time.Duration
}

// State looks at the queue.
func (q *Queue[T]) State() State {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	now := q.options.Clock.Now()
	q.promote(now)
	var s State
	for _, f := range q.flows {
		if f.ready.Len() > 0 {
			s.Flows++
		}
		s.Depth += f.ready.Len()
		for _, i := range f.ready {
			s.Longest = max(s.Longest, now.Sub(i.readyAt))
		}
	}
	return s
}
