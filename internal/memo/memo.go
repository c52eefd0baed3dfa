// Package memo remembers values for a short time.
package memo

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Memo remembers values for a short time. It bounds its size by forgetting everything when it is full.
type Memo[V any] struct {
	clock clock.PassiveClock
	ttl   time.Duration

	mu    sync.Mutex
	items map[string]item[V]
}

type item[V any] struct {
	value V
	until time.Time
}

// size is how many values are remembered at most.
const size = 20000

// New makes one that remembers each value for ttl.
func New[V any](c clock.PassiveClock, ttl time.Duration) *Memo[V] {
	return &Memo[V]{clock: c, ttl: ttl, items: map[string]item[V]{}}
}

// Get returns a value that is not out of date.
func (m *Memo[V]) Get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.items[key]
	if !ok || !m.clock.Now().Before(found.until) {
		var none V
		return none, false
	}
	return found.value, true
}

// Put remembers a value.
func (m *Memo[V]) Put(key string, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.items) >= size {
		clear(m.items)
	}
	m.items[key] = item[V]{value, m.clock.Now().Add(m.ttl)}
}

// Forget forgets one value.
func (m *Memo[V]) Forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.items, key)
}

// Flush forgets everything.
func (m *Memo[V]) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.items)
}

// Sweep forgets what is out of date, so that a key does not stay in memory because nobody asked for it again.
func (m *Memo[V]) Sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	for k, kept := range m.items {
		if !now.Before(kept.until) {
			delete(m.items, k)
		}
	}
}

// Len is how many values are remembered, those out of date too while Sweep has not come.
func (m *Memo[V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items)
}
