// Package operator runs the manager with all its reconcilers on a real API server, beside a keyserver that behaves:
// what the tests of the controllers share.
package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
)

var TestEnv *env.Env

// Main runs a package's tests against an API server of their own, in which the classes, annotations and finalizers
// stand that tests need.
func Main(m *testing.M) {
	log := logr.Discard() // crashes are wanted here, and loud; LETHE_TEST_LOG=1 lets them be heard
	if os.Getenv("LETHE_TEST_LOG") != "" {
		log = logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	}
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	code := env.Main(m, func(e *env.Env) {
		TestEnv = e
		for _, class := range []client.Object{ // that richTenant names
			&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc"},
			&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "customers"}, Value: 1000},
		} {
			if err := e.Client.Create(context.Background(), class); err != nil {
				fmt.Fprintln(os.Stderr, "make the classes of tests:", err)
				os.Exit(1)
			}
		}
		if err := allowBotAnnotations(e.Client); err != nil {
			fmt.Fprintln(os.Stderr, "allow the annotations of tests:", err)
			os.Exit(1)
		}
		if err := e.InstallBotFinalizer(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	})
	if panics := counted("controller_runtime_reconcile_panics_total", ""); panics > 0 {
		fmt.Fprintln(os.Stderr, "reconcilers panicked, and controller-runtime recovered:", panics)
		code = 1
	}
	os.Exit(code)
}

// ManagerUser is who the manager is to the API server: tests run with the rights and behind the walls that are shipped.
const ManagerUser = "system:serviceaccount:lethe-system:lethe-manager"

const TestImage = "registry.example/lethe:v1"

// botAnnotations are allowed to bots by the manager's settings, and by the wall that looks at what it makes of them.
var botAnnotations = []string{"example.com/*"}

// allowBotAnnotations does to the wall what the chart does with pods.botAnnotations.
func allowBotAnnotations(c client.Client) error {
	var wall admissionv1.ValidatingAdmissionPolicy
	if err := c.Get(context.Background(), client.ObjectKey{Name: "lethe-manager-objects"}, &wall); err != nil {
		return fmt.Errorf("read the wall: %w", err)
	}
	i := slices.IndexFunc(wall.Spec.Variables, func(v admissionv1.Variable) bool { return v.Name == "botAnnotations" })
	if i < 0 {
		return errors.New("the wall has no list of them")
	}
	list, err := json.Marshal(botAnnotations)
	if err != nil {
		return fmt.Errorf("write them down: %w", err)
	}
	wall.Spec.Variables[i].Expression = string(list)
	if err := c.Update(context.Background(), &wall); err != nil {
		return fmt.Errorf("change the wall: %w", err)
	}
	return nil
}

// TestSettings are those of every world.
func TestSettings() resources.Settings {
	s := resources.DefaultSettings()
	s.Image = TestImage
	s.ImagePullSecrets = []string{"installation-registry"}
	s.BotAnnotations = botAnnotations
	return s
}

// World is a cluster with a running manager, a keyserver that behaves, and a hand that plays Kubernetes' own
// controllers.
type World struct {
	T       *testing.T
	Admin   client.Client
	Cluster client.Client
	Keys    *KeyserverDouble
	KCM     *kcm.Controllers
	Settle  time.Duration
	Grace   time.Duration      // for what is applied together
	Resync  time.Duration      // 0: controller-runtime's own, hours
	Pace    time.Duration      // of passes over one object
	Clock   clock.PassiveClock // nil: the real one
	Every   time.Duration      // between two orphan sweeps; 0: a quarter of an hour
	Budget  int64              // of bytes that a tenant may write
	Image   string             // of Lethe; empty: testImage
	Retired []string           // images of Lethe
	Dns     *dnscheck.Check    // nil: nobody looks
	Rollout rollout.Limits
	// Addresses are those of the keyserver's Service.
	Addresses string

	Wire    *Wire
	Changes *controllers.Changes // what the manager counts
	Stop    func()
}

// orphansSoon is what garbage collection is given.
const orphansSoon = 300 * time.Millisecond

// ResyncEvery is a full resync so often that tests can wait for ten.
const ResyncEvery = 300 * time.Millisecond

// NewWorld starts a manager. Everything that the test leaves behind is removed at its end.
func NewWorld(t *testing.T) *World {
	t.Helper()
	w := &World{T: t, Admin: TestEnv.Client, Cluster: TestEnv.AsCluster(t), Settle: 300 * time.Millisecond, Grace: time.Millisecond, Addresses: "10.96.0.7\n", Pace: time.Millisecond, Budget: 32 << 20, Rollout: rollout.Defaults()}
	w.Rollout.Lasts = 300 * time.Millisecond
	w.Keys = newKeyserverDouble(TestEnv.AsServiceAccount(t, env.SystemNamespace, resources.ServiceAccountKeyserver), TestEnv.Client)
	w.KCM = &kcm.Controllers{Client: w.Cluster, Reader: TestEnv.Cache(t)}
	w.PublishCA("first")
	t.Cleanup(w.clean)
	w.Start(&Wire{})
	return w
}

// Start runs a manager whose requests go over a wire that may be cut.
func (w *World) Start(cut *Wire) {
	w.T.Helper()
	cut.keys = w.Keys
	cfg := rest.CopyConfig(TestEnv.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager))
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return cut.over(next) })
	now := w.Clock
	if now == nil {
		now = clock.RealClock{}
	}
	changes := controllers.NewChanges(w.Budget, now)
	w.Changes = changes
	options, err := controllers.ManagerOptions(cfg, 10, changes)
	if err != nil {
		w.T.Fatal(err)
	}
	again := true
	options.Scheme = TestEnv.Scheme
	if w.Resync > 0 {
		options.Cache.SyncPeriod = &w.Resync
	}
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = &again
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		w.T.Fatal(err)
	}
	settings := TestSettings()
	if w.Image != "" {
		settings.Image = w.Image
	}
	settings.RetiredImages = w.Retired
	if w.Dns != nil {
		w.Dns.Live, w.Dns.Bots = mgr.GetAPIReader(), mgr.GetClient()
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := controllers.Setup(ctx, mgr, controllers.Options{Settings: settings, Keys: w.Keys, KeysNamespace: env.KeysNamespace, StatusGracePeriod: w.Settle, Grace: w.Grace, Clock: w.Clock, Pace: w.Pace,
		Changes: changes, OrphansEvery: w.Every, OrphansAfter: orphansSoon, DNS: w.Dns, Rollout: w.Rollout}); err != nil {
		w.T.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var once sync.Once
	w.Wire = cut
	w.Stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil && !cut.IsDead() {
				w.T.Errorf("the manager ended with: %v", err)
			}
		})
	}
	w.T.Cleanup(w.Stop)
}

// Restart is a new process: nothing in memory outlives it.
func (w *World) Restart() {
	w.T.Helper()
	w.Stop()
	w.Start(&Wire{})
}

// Wire counts a manager's writes, and can be cut at one of them: before it is sent, or after it has landed.
type Wire struct {
	CutAt  int64 // the number of the write; 0: never
	After  bool
	Before string           // or before the first write of this kind
	keys   *KeyserverDouble // whose calls lie between the writes

	Writes atomic.Int64
	Reads  atomic.Int64 // of single objects, past the cache
	dead   atomic.Bool
	turn   sync.Mutex
	mutex  sync.Mutex
	log    []string
	kinds  []string
}

// namesOne tells a read of one child or bot from a list.
var namesOne = regexp.MustCompile(`/(botdeployments|statefulsets|cronjobs|configmaps|serviceaccounts|networkpolicies)/[^/]+$`)

type wireTripper struct {
	w    *Wire
	next http.RoundTripper
}

func (w *Wire) over(next http.RoundTripper) http.RoundTripper { return wireTripper{w, next} }

// IsDead says whether it was cut.
func (w *Wire) IsDead() bool { return w.dead.Load() }

// Written are the writes that went over it.
func (w *Wire) Written() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return append([]string(nil), w.log...)
}

// Kinds of all writes, in their order.
func (w *Wire) Kinds() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return slices.Clone(w.kinds)
}

// KindOf a write: what is written, and what the keyserver was asked since the one before.
func (w *Wire) KindOf(number int64) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.kinds[number-1]
}

// note writes down a write, and says whether it is the one to die at.
func (w *Wire) note(write string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	number := w.Writes.Add(1)
	kind := kindOfWrite(write) + w.keys.askedSince()
	w.log, w.kinds = append(w.log, write), append(w.kinds, kind)
	if w.Before != "" {
		return kind == w.Before
	}
	return number == w.CutAt
}

func (t wireTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	w := t.w
	if w.dead.Load() {
		return nil, fmt.Errorf("the wire is cut")
	}
	if r.Method == http.MethodGet && namesOne.MatchString(r.URL.Path) {
		w.Reads.Add(1)
	}
	if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/events") || strings.Contains(r.URL.Path, "/leases") {
		return t.next.RoundTrip(r)
	}
	if w.After {
		// One write after the other: none is on its way any more when the process dies.
		w.turn.Lock()
		defer w.turn.Unlock()
		if w.dead.Load() {
			return nil, fmt.Errorf("the wire is cut")
		}
	}
	if !w.note(r.Method + " " + r.URL.Path) {
		return t.next.RoundTrip(r)
	}
	if w.After {
		answer, err := t.next.RoundTrip(r)
		if err == nil {
			_ = answer.Body.Close()
		}
	}
	w.dead.Store(true)
	return nil, fmt.Errorf("the wire was cut")
}

// Eventually plays Kubernetes' controllers until a condition holds. The condition's error says what is still missing.
func (w *World) Eventually(what string, condition func() error) {
	w.T.Helper()
	w.poll(25*time.Millisecond, what, func() error {
		w.KCM.Tick(w.T)
		return condition()
	})
}

// Soon waits for what the manager does alone.
func (w *World) Soon(what string, condition func() error) {
	w.T.Helper()
	w.poll(3*time.Millisecond, what, condition)
}

// Patience is how long a test waits for what must happen: the race detector, a busy machine, and tests with a prior
// claim to its processors (hack/test.sh) make everything many times slower.
const Patience = 5 * time.Minute

func (w *World) poll(every time.Duration, what string, condition func() error) {
	w.T.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("%s: %v\nwrites: %s", what, err, strings.Join(w.Wire.Written(), "\n  "))
		}
		<-tick.C
	}
}

// Calm waits until the manager has written nothing for a while.
func (w *World) Calm() {
	w.T.Helper()
	last, since := w.Wire.Writes.Load(), time.Now()
	w.Eventually("calm", func() error {
		if now := w.Wire.Writes.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 3*w.Settle {
			return fmt.Errorf("the last write was %s ago", time.Since(since))
		}
		return nil
	})
}

// Passes is how often a controller has reconciled, in this process.
func Passes(t *testing.T, controller string) int {
	t.Helper()
	return counted("controller_runtime_reconcile_total", controller)
}

// counted is a counter of controller-runtime, of one controller or of all.
func counted(name, controller string) int {
	families, err := metrics.Registry.Gather()
	if err != nil {
		return -1
	}
	total := 0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "controller" && (controller == "" || label.GetValue() == controller) {
					total += int(metric.GetCounter().GetValue())
				}
			}
		}
	}
	return total
}
