package keyserver

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// memo remembers values for a short time. It bounds its size by forgetting everything when it is full.
type memo[V any] struct {
	clock clock.PassiveClock
	ttl   time.Duration

	mu    sync.Mutex
	items map[string]memoItem[V]
}

type memoItem[V any] struct {
	value V
	until time.Time
}

const memoSize = 20000

func newMemo[V any](c clock.PassiveClock, ttl time.Duration) *memo[V] {
	return &memo[V]{clock: c, ttl: ttl, items: map[string]memoItem[V]{}}
}

func (m *memo[V]) get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.items[key]
	if !ok || !m.clock.Now().Before(item.until) {
		var none V
		return none, false
	}
	return item.value, true
}

func (m *memo[V]) put(key string, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.items) >= memoSize {
		clear(m.items)
	}
	m.items[key] = memoItem[V]{value, m.clock.Now().Add(m.ttl)}
}

// forget forgets one value.
func (m *memo[V]) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.items, key)
}

// flush forgets everything.
func (m *memo[V]) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.items)
}

// sweep forgets what is out of date, so that a key does not stay in memory because nobody asked for it again.
func (m *memo[V]) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	for k, item := range m.items {
		if !now.Before(item.until) {
			delete(m.items, k)
		}
	}
}

func (m *memo[V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items)
}
