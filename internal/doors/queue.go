package doors

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrBusy says that too many wait already.
var ErrBusy = errors.New("too many requests at a time")

// QueueLimits of a Queue.
type QueueLimits struct {
	// Places is how many are worked on at a time, PerName how many of one name.
	Places, PerName int
	// Waiting is how many may wait, WaitingPerName how many of one name.
	Waiting, WaitingPerName int
}

// Queue lets requests in to work, names taking turns: however many of one name wait, another name's first one waits for
// one turn of each. It is bounded, and when it is full the name with the longest line gives up its last one.
type Queue struct {
	limits QueueLimits

	mu      sync.Mutex
	inside  int
	waiting int
	names   map[string]*line
	turns   []*line // of those with somebody waiting, the next one first
}

// line is one name's.
type line struct {
	name    string
	inside  int
	waiting []*ticket
}

// ticket of one that waits. Its channel gets nil to come in, ErrBusy to go away.
type ticket struct{ called chan error }

// NewQueue makes an empty one.
func NewQueue(l QueueLimits) *Queue { return &Queue{limits: l, names: map[string]*line{}} }

// Enter waits for the name's turn. leave must be called when the work is done.
func (q *Queue) Enter(ctx context.Context, name string) (leave func(), err error) {
	q.mu.Lock()
	l := q.names[name]
	if l == nil {
		l = &line{name: name}
		q.names[name] = l
	}
	if len(l.waiting) == 0 && l.inside < q.limits.PerName && q.inside < q.limits.Places {
		q.come(l)
		q.mu.Unlock()
		return q.leaver(l), nil
	}
	t, err := q.wait(l)
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case err = <-t.called:
	case <-ctx.Done():
		err = q.giveUp(l, t, ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	return q.leaver(l), nil
}

// Load is how many are worked on and how many wait.
func (q *Queue) Load() (inside, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inside, q.waiting
}

func (q *Queue) leaver(l *line) func() {
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		l.inside--
		q.inside--
		q.forget(l)
		q.call()
	})
}

func (q *Queue) come(l *line) {
	l.inside++
	q.inside++
}

// wait puts a ticket at the end of the name's line.
func (q *Queue) wait(l *line) (*ticket, error) {
	if len(l.waiting) >= q.limits.WaitingPerName {
		return nil, ErrBusy
	}
	if q.waiting >= q.limits.Waiting {
		longest := slices.MaxFunc(q.turns, func(a, b *line) int { return len(a.waiting) - len(b.waiting) })
		if len(longest.waiting) <= len(l.waiting)+1 {
			q.forget(l)
			return nil, ErrBusy
		}
		last := longest.waiting[len(longest.waiting)-1]
		q.take(longest, len(longest.waiting)-1)
		last.called <- ErrBusy
	}
	t := &ticket{called: make(chan error, 1)}
	if len(l.waiting) == 0 {
		q.turns = append(q.turns, l)
	}
	l.waiting = append(l.waiting, t)
	q.waiting++
	return t, nil
}

// take removes a ticket from a line.
func (q *Queue) take(l *line, i int) {
	l.waiting = slices.Delete(l.waiting, i, i+1)
	q.waiting--
	if len(l.waiting) == 0 {
		q.turns = slices.DeleteFunc(q.turns, func(o *line) bool { return o == l })
	}
}

// call lets in whoever's turn it is.
func (q *Queue) call() {
	for q.inside < q.limits.Places {
		i := slices.IndexFunc(q.turns, func(l *line) bool { return l.inside < q.limits.PerName })
		if i < 0 {
			return
		}
		l := q.turns[i]
		t := l.waiting[0]
		// Whoever had a turn is behind all others.
		q.turns = append(slices.Delete(q.turns, i, i+1), l)
		q.take(l, 0)
		q.come(l)
		t.called <- nil
	}
}

// giveUp ends the waiting of one whose time is up. One that was called at the same moment passes its place on.
func (q *Queue) giveUp(l *line, t *ticket, cause error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(l.waiting, t); i >= 0 {
		q.take(l, i)
	} else if err := <-t.called; err == nil {
		l.inside--
		q.inside--
		defer q.call()
	}
	q.forget(l)
	return cause
}

func (q *Queue) forget(l *line) {
	if l.inside == 0 && len(l.waiting) == 0 {
		delete(q.names, l.name)
	}
}
