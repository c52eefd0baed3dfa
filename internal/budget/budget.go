// Package budget counts what each tenant writes into etcd, within a window that slides. It holds no clock, and forgets
// whoever has written nothing for as long as the window is.
package budget

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Slots is how many parts a window is counted in. A byte counts for a window and at most one part more.
const Slots = 30

// kept parts cover a whole window whenever in a part it is looked at.
const kept = Slots + 1

// Meter counts bytes by whose they are.
type Meter struct {
	slot time.Duration

	mutex sync.Mutex
	known map[string]*account
	swept int64
}

// account holds what was written in each part of the window that ends with the newest.
type account struct {
	newest int64
	slots  [kept]int64
	total  int64
}

// New makes a meter with a window of that length.
func New(window time.Duration) *Meter {
	return &Meter{slot: window / Slots, known: map[string]*account{}}
}

// Add counts, and says what was written within the window by now.
func (m *Meter) Add(who string, bytes int64, now time.Time) int64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	n := m.number(now)
	m.sweep(n)
	a := m.known[who]
	if a == nil {
		a = &account{newest: n}
		m.known[who] = a
	}
	a.advance(n)
	a.slots[index(a.newest)] += bytes
	a.total += bytes
	return a.total
}

// Total is what was written within the window.
func (m *Meter) Total(who string, now time.Time) int64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	a := m.known[who]
	if a == nil {
		return 0
	}
	a.advance(m.number(now))
	return a.total
}

// Over names those that have written more than they may.
func (m *Meter) Over(limit int64, now time.Time) []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var over []string
	n := m.number(now)
	for who, a := range m.known {
		a.advance(n)
		if a.total > 0 && a.total > limit {
			over = append(over, who)
		}
	}
	return over
}

// Below is when no more than so many bytes will lie within the window, if nothing is written until then.
func (m *Meter) Below(who string, bytes int64, now time.Time) time.Time {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	a := m.known[who]
	if a == nil {
		return now
	}
	a.advance(m.number(now))
	left := a.total
	for n := a.newest - Slots; left > bytes && n <= a.newest; n++ {
		left -= a.slots[index(n)]
		if left <= bytes {
			return time.Unix(0, (n+kept)*int64(m.slot)).UTC()
		}
	}
	return now
}

// Forget begins anew for one.
func (m *Meter) Forget(who string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.known, who)
}

// Len is how many are remembered.
func (m *Meter) Len() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.known)
}

func (m *Meter) number(now time.Time) int64 { return now.UnixNano() / int64(m.slot) }

func index(number int64) int64 { return ((number % kept) + kept) % kept }

// sweep forgets, once for each part of the window, those whose window is empty.
func (m *Meter) sweep(n int64) {
	if n <= m.swept {
		return
	}
	m.swept = n
	for who, a := range m.known {
		if a.advance(n); a.total == 0 {
			delete(m.known, who)
		}
	}
}

// advance moves the window on. A clock that was set back counts on where it was.
func (a *account) advance(n int64) {
	if n-a.newest >= kept {
		*a = account{newest: n}
		return
	}
	for a.newest < n {
		a.newest++
		i := index(a.newest)
		a.total -= a.slots[i]
		a.slots[i] = 0
	}
}

// SizeOf is how many bytes an object takes in etcd, which keeps objects of our kinds as this JSON.
func SizeOf(object any) (int64, error) {
	var c counter
	if err := json.NewEncoder(&c).Encode(object); err != nil {
		return 0, fmt.Errorf("measure %T: %w", object, err)
	}
	return int64(c), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
