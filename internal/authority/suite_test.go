package authority

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
)

var testEnv *env.Env

func TestMain(m *testing.M) { os.Exit(env.Main(m, func(e *env.Env) { testEnv = e })) }

// pki is an authority with keys and a bundle of its own, so that its clock can run on.
type pki struct {
	*testing.T
	clock     *clocktesting.FakePassiveClock
	writes    *writeHook
	namespace string // of keys, bundle and Service
	kek       sealing.Key
	keys      *keystore.Store
	authority *Authority
	ends      map[string]time.Time
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	kek, err := sealing.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &pki{T: t, clock: clocktesting.NewFakePassiveClock(time.Now()), writes: &writeHook{Client: testEnv.As(t, "admin", "system:masters")},
		namespace: testEnv.Namespace(t, "pki", nil).Name, kek: kek}
	w.restart()
	return w
}

// restart is a new process: nothing is left in memory.
func (w *pki) restart() {
	w.Helper()
	var err error
	w.keys, err = keystore.New(keystore.Options{Client: w.writes, KEK: w.kek, Realm: "test", KeysNamespace: w.namespace, Clock: w.clock, Random: rand.Reader,
		Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	w.ends = map[string]time.Time{}
	w.authority = New(Options{Keys: w.keys, Hosts: []string{serviceHost, "127.0.0.1"}, Namespace: w.namespace,
		Ends: func(certificate string, at time.Time) { w.ends[certificate] = at }})
}

func (w *pki) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// maintain is what the keyserver does every minute.
func (w *pki) maintain() error {
	if err := w.keys.CheckKEK(w.Context()); err != nil {
		return err
	}
	return w.authority.Maintain(w.Context())
}

// pass lets time go by.
func (w *pki) pass(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

func (w *pki) bundle() (*corev1.ConfigMap, string) {
	w.Helper()
	cm := &corev1.ConfigMap{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: resources.CABundleName}, cm))
	return cm, cm.Data[resources.CABundleKey]
}

// handshake is a client that trusts a bundle, by the test's clock.
func (w *pki) handshake(bundle, host string) (*x509.Certificate, error) {
	w.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(bundle)) {
		w.Fatal("the bundle holds no certificate")
	}
	server, other := net.Pipe()
	defer server.Close()
	defer other.Close()
	serverConfig := w.authority.TLSConfig()
	serverConfig.Time = w.clock.Now
	go func() { _ = tls.Server(server, serverConfig).HandshakeContext(w.Context()) }()
	conn := tls.Client(other, &tls.Config{RootCAs: pool, ServerName: host, Time: w.clock.Now})
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if conn.ConnectionState().Version != tls.VersionTLS13 {
		w.Errorf("speaks TLS %x", conn.ConnectionState().Version)
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// secrets are the names of what lies in the keys' namespace.
func (w *pki) secrets() []string {
	w.Helper()
	var list corev1.SecretList
	w.must(testEnv.Client.List(w.Context(), &list, client.InNamespace(w.namespace)))
	var out []string
	for _, s := range list.Items {
		out = append(out, s.Name)
	}
	return out
}

// writeHook counts writes and can make one fail, before or after it lands; after that the process is dead and writes
// no more.
type writeHook struct {
	client.Client
	mu     sync.Mutex
	count  int
	failAt int // 1 is the next write; 0 never
	after  bool
	seen   []string
}

var errCrash = errors.New("the process died here")

func (h *writeHook) reset(failAt int, after bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count, h.failAt, h.after, h.seen = 0, failAt, after, nil
}

func (h *writeHook) writes() (int, []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, h.seen
}

func (h *writeHook) do(what string, obj client.Object, write func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.seen = append(h.seen, what+" "+obj.GetName())
	if h.failAt == 0 || h.count < h.failAt {
		return write()
	}
	if h.after && h.count == h.failAt {
		if err := write(); err != nil {
			return err
		}
	}
	return errCrash
}

func (h *writeHook) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	return h.do("create", obj, func() error { return h.Client.Create(ctx, obj, opts...) })
}

func (h *writeHook) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return h.do("update", obj, func() error { return h.Client.Update(ctx, obj, opts...) })
}
