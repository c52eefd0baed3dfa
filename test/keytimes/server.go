// Package keytimes is a store of another kind than PostgreSQL, and an engine for it, in the tests' own tree: it
// proves that a sweep needs nothing of PostgreSQL, and that an engine is added without a change outside its package.
// The store holds keys with times. It knows no transactions, no locks and no relations, tells how many keys it holds
// only roughly and late, hands out keys in no order and one of them twice, and what a role may not see it leaves out
// without a word.
package keytimes

import (
	"cmp"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"
)

// Entry is what a key holds.
type Entry struct {
	Tenant string
	At     time.Time // zero: it has none
	// Version changes with each write of the key.
	Version int64
}

// Server is a store. Its zero value is of no use: see NewServer.
type Server struct {
	ID, Name, Password string
	// Token is wanted beside the password: who logs in needs two secrets.
	Token string
	// Down says that it answers nobody.
	Down bool

	mu       sync.Mutex
	sets     map[string]map[string]Entry
	visible  string // prefix of the keys that the role may see; empty: all
	versions int64
	sizes    map[string]int // as it was told last
}

// NewServer makes a store with these empty sets of keys.
func NewServer(password string, sets ...string) *Server {
	s := &Server{ID: "4f2d", Name: "keys", Password: password, Token: tokenOf(password), sets: map[string]map[string]Entry{}, sizes: map[string]int{}}
	for _, name := range sets {
		s.sets[name] = map[string]Entry{}
	}
	return s
}

func tokenOf(password string) string { return "of-" + password }

var errWrongPassword = errors.New("WRONGPASS")

func (s *Server) login(password, token string) error {
	if password != s.Password || token != s.Token {
		return errWrongPassword
	}
	return nil
}

// Put writes a key, or writes it again.
func (s *Server) Put(set, key, tenant string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions++
	s.sets[set][key] = Entry{Tenant: tenant, At: at, Version: s.versions}
}

// Keys lists all keys of a set as an administrator sees them.
func (s *Server) Keys(set string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for key := range s.sets[set] {
		out = append(out, key)
	}
	return out
}

// Restrict lets the role see no keys but those with a prefix.
func (s *Server) Restrict(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visible = prefix
}

// rights is what the role may see: a prefix of keys.
func (s *Server) rights() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.visible
}

// names of all sets, sorted.
func (s *Server) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name := range s.sets {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// roughly is how many keys a set held when that was asked for the last time.
func (s *Server) roughly(set string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.sizes[set]
	s.sizes[set] = len(s.sets[set])
	return was
}

// scan hands out about n keys after a cursor, and the next cursor, 0 at the end. A key that is there all the time is
// handed out at least once.
func (s *Server) scan(set string, cursor uint32, n int) (keys []string, next uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type placed struct {
		at  uint32
		key string
	}
	var all []placed
	for key := range s.sets[set] {
		if at := place(key); at >= cursor && strings.HasPrefix(key, s.visible) {
			all = append(all, placed{at, key})
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.key, b.key))
	})
	for i, p := range all {
		if i >= n && p.at != all[i-1].at {
			return append(keys, keys[0]), p.at
		}
		keys = append(keys, p.key)
	}
	return keys, 0
}

// place of a key in the order of scanning. None has place 0.
func place(key string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // it never fails
	return h.Sum32() | 1
}

func (s *Server) get(set, key string) (Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.sets[set][key]
	return e, ok && strings.HasPrefix(key, s.visible)
}

// deleteIf takes a key away if nobody has written it since it was of this version.
func (s *Server) deleteIf(set, key string, version int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.sets[set][key]; !ok || e.Version != version {
		return false
	}
	delete(s.sets[set], key)
	return true
}
