package doors

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// ErrBusy says that too many wait already.
var ErrBusy = errors.New("too many requests at a time")

// QueueLimits of a Queue.
type QueueLimits struct {
	// Places is how many are worked on at a time, PerName how many of one name.
	Places, PerName int
	// Waiting is how many may wait, WaitingPerName how many of one name.
	Waiting, WaitingPerName int
	// Pace is how many are let in in a second, PacePerName how many of one name. Whoever is too early waits.
	Pace, PacePerName Pace
}

// Pace is a rate with a burst: a token bucket. The zero one has no bound.
type Pace struct {
	PerSecond float64
	Burst     int
}

func (p Pace) limiter() *rate.Limiter {
	if p.PerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(p.PerSecond), p.Burst)
}

// untilToken is how long a limiter's next token takes; 0 when there is one, or no bound.
func untilToken(l *rate.Limiter, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	// A nanosecond more, so that rounding does not end one short.
	return time.Duration(missing/float64(l.Limit())*float64(time.Second)) + 1
}

// Queue lets requests in to work, names taking turns: however many of one name wait, another name's first one waits for
// one turn of each. It is bounded, and when it is full the name with the longest line gives up its last one.
type Queue struct {
	limits QueueLimits
	clock  clock.WithDelayedExecution

	mu      sync.Mutex
	pace    *rate.Limiter
	timer   clock.Timer // for the next token; nil when nobody waits for one
	inside  int
	waiting int
	names   map[string]*line
	turns   []*line // of those with somebody waiting, the next one first
	purged  time.Time
}

// line is one name's.
type line struct {
	name    string
	pace    *rate.Limiter
	inside  int
	waiting []*ticket
}

// ticket of one that waits. Its channel gets nil to come in, ErrBusy to go away.
type ticket struct{ called chan error }

// NewQueue makes an empty one.
func NewQueue(l QueueLimits, c clock.WithDelayedExecution) *Queue {
	return &Queue{limits: l, clock: c, pace: l.Pace.limiter(), names: map[string]*line{}, purged: c.Now()}
}

// Enter waits for the name's turn. leave must be called when the work is done.
func (q *Queue) Enter(ctx context.Context, name string) (leave func(), err error) {
	q.mu.Lock()
	now := q.clock.Now()
	q.purge(now)
	l := q.names[name]
	if l == nil {
		l = &line{name: name, pace: q.limits.PacePerName.limiter()}
		q.names[name] = l
	}
	// Whoever waits for a token of all is before who comes now.
	if len(l.waiting) == 0 && (q.pace == nil || len(q.turns) == 0) && q.inside < q.limits.Places && q.untilTurn(l, now) == 0 {
		q.come(l, now)
		q.mu.Unlock()
		return q.leaver(l), nil
	}
	t, err := q.wait(l)
	if err == nil {
		q.call()
	}
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

// never is the time until a turn that only another one's leaving brings.
const never = time.Duration(1<<63 - 1)

// untilTurn is how long the next one of a name must wait for tokens, never where its name has its places.
func (q *Queue) untilTurn(l *line, now time.Time) time.Duration {
	if l.inside >= q.limits.PerName {
		return never
	}
	return max(untilToken(q.pace, now), untilToken(l.pace, now))
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

func (q *Queue) come(l *line, now time.Time) {
	l.inside++
	q.inside++
	for _, pace := range []*rate.Limiter{q.pace, l.pace} {
		if pace != nil {
			pace.AllowN(now, 1)
		}
	}
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

// call lets in whoever's turn it is, and comes back when the next token is there.
func (q *Queue) call() {
	now := q.clock.Now()
	next := never
	for q.inside < q.limits.Places {
		next = never
		i := slices.IndexFunc(q.turns, func(l *line) bool {
			until := q.untilTurn(l, now)
			next = min(next, until)
			return until == 0
		})
		if i < 0 {
			break
		}
		l := q.turns[i]
		t := l.waiting[0]
		// Whoever had a turn is behind all others.
		q.turns = append(slices.Delete(q.turns, i, i+1), l)
		q.take(l, 0)
		q.come(l, now)
		t.called <- nil
		next = never
	}
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	if next != never {
		// Not under the lock of a clock that is stepped by hand.
		q.timer = q.clock.AfterFunc(next, func() { go q.tick() })
	}
}

func (q *Queue) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.call()
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

// forget drops an empty line; one whose pace was used is kept until purge, or leaving and coming again would renew it.
func (q *Queue) forget(l *line) {
	if l.inside == 0 && len(l.waiting) == 0 && l.pace == nil {
		delete(q.names, l.name)
	}
}

// purge drops, now and then, the empty lines whose pace is whole again.
func (q *Queue) purge(now time.Time) {
	if now.Sub(q.purged) < time.Minute {
		return
	}
	q.purged = now
	for name, l := range q.names {
		if l.inside == 0 && len(l.waiting) == 0 && (l.pace == nil || l.pace.TokensAt(now) >= float64(l.pace.Burst())) {
			delete(q.names, name)
		}
	}
}
