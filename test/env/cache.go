package env

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// shared is the cache of all tests of a process.
type shared struct {
	mutex  sync.Mutex
	cache  cache.Cache
	cancel context.CancelFunc
	ended  chan error
}

// Cache reads from memory what the API server has told of all objects of a kind, and begins to listen when it is
// first asked for one. It may be behind. What it hands out is its own: whoever changes it copies it before. All tests
// of a process share it.
func (e *Env) Cache(t testing.TB) client.Reader {
	t.Helper()
	e.shared.mutex.Lock()
	defer e.shared.mutex.Unlock()
	if e.shared.cache != nil {
		return e.shared.cache
	}
	uncopied := true
	config := e.ConfigFor("system:kube-controller-manager", "system:masters")
	c, err := cache.New(config, cache.Options{Scheme: e.Scheme, DefaultUnsafeDisableDeepCopy: &uncopied})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	e.shared.cache, e.shared.cancel, e.shared.ended = c, cancel, ended
	return c
}

func (s *shared) stop() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.cache == nil {
		return nil
	}
	s.cancel()
	if err := <-s.ended; err != nil {
		return fmt.Errorf("end the cache: %w", err)
	}
	return nil
}
