package fair

import "time"

// state says where an item is.
type state int

const (
	// waits until it is due.
	waits state = iota
	// ready in its flow.
	ready
	// aside, because a worker has it.
	aside
)

type item[T comparable] struct {
	key      T
	flow     string
	priority int
	number   uint64
	due      time.Time
	// readyAt is when it could first have been worked on.
	readyAt time.Time
	state   state
	index   int // in the heap that holds it
}

func (i *item[T]) markReady(now time.Time) {
	if i.readyAt.IsZero() {
		i.readyAt = now
	}
}

// flow is what belongs to one tenant.
type flow[T comparable] struct {
	name    string
	ready   readyHeap[T]
	working int
	served  uint64 // the turn in which it was last served
}

// before says whether a flow comes before another in a turn.
func (f *flow[T]) before(other *flow[T], urgent bool) bool {
	a, b := f.ready[0], other.ready[0]
	switch {
	case urgent && a.priority != b.priority:
		return a.priority > b.priority
	case f.served != other.served:
		return f.served < other.served
	default:
		return a.number < b.number // both have only just joined
	}
}

// readyHeap has the item of the highest priority first, and among equals the oldest.
type readyHeap[T comparable] []*item[T]

func (h readyHeap[T]) Len() int { return len(h) }

func (h readyHeap[T]) Less(i, j int) bool {
	if h[i].priority != h[j].priority {
		return h[i].priority > h[j].priority
	}
	return h[i].number < h[j].number
}

func (h readyHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *readyHeap[T]) Push(x any) {
	if i, ok := x.(*item[T]); ok {
		i.index = len(*h)
		*h = append(*h, i)
	}
}

// Pop is for container/heap.
func (h *readyHeap[T]) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// waitingHeap has the item that is due first first.
type waitingHeap[T comparable] []*item[T]

func (h waitingHeap[T]) Len() int { return len(h) }

func (h waitingHeap[T]) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].number < h[j].number
}

func (h waitingHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *waitingHeap[T]) Push(x any) {
	if i, ok := x.(*item[T]); ok {
		i.index = len(*h)
		*h = append(*h, i)
	}
}

// Pop is for container/heap.
func (h *waitingHeap[T]) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// pacer holds back objects that are worked on again and again. It remembers only those of the recent past.
type pacer[T comparable] struct {
	every time.Duration
	// next is when an object would be due if its passes had been spread evenly.
	next  map[T]time.Time
	limit int
}

// earliest is when a pass over an object may begin.
func (p *pacer[T]) earliest(key T, now time.Time) time.Time {
	if next, ok := p.next[key]; ok {
		if at := next.Add(-Burst * p.every); at.After(now) {
			return at
		}
	}
	return now
}

// begin counts a pass.
func (p *pacer[T]) begin(key T, now time.Time) {
	if p.every <= 0 {
		return
	}
	next := p.next[key]
	if next.Before(now) {
		next = now
	}
	p.next[key] = next.Add(p.every)
	if len(p.next) < p.limit {
		return
	}
	for old, at := range p.next {
		if !at.After(now) {
			delete(p.next, old)
		}
	}
	p.limit = max(1024, 2*len(p.next))
}
