package controllers

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

	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
)

var testEnv *env.Env

func TestMain(m *testing.M) {
	log := logr.Discard() // crashes are wanted here, and loud; LETHE_TEST_LOG=1 lets them be heard
	if os.Getenv("LETHE_TEST_LOG") != "" {
		log = logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	}
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	code := env.Main(m, func(e *env.Env) {
		testEnv = e
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

// managerUser is who the manager is to the API server: tests run with the rights and behind the walls that are shipped.
const managerUser = "system:serviceaccount:lethe-system:lethe-manager"

const testImage = "registry.example/lethe:v1"

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

func testSettings() resources.Settings {
	s := resources.DefaultSettings()
	s.Image = testImage
	s.ImagePullSecrets = []string{"installation-registry"}
	s.BotAnnotations = botAnnotations
	return s
}

// world is a cluster with a running manager, a keyserver that behaves, and a hand that plays Kubernetes' own controllers.
type world struct {
	t       *testing.T
	admin   client.Client
	cluster client.Client
	keys    *keyserverDouble
	kcm     *kcm.Controllers
	settle  time.Duration
	grace   time.Duration      // for what is applied together
	resync  time.Duration      // 0: controller-runtime's own, hours
	pace    time.Duration      // of passes over one object
	clock   clock.PassiveClock // nil: the real one
	every   time.Duration      // between two orphan sweeps; 0: a quarter of an hour
	budget  int64              // of bytes that a tenant may write
	image   string             // of Lethe; empty: testImage
	retired []string           // images of Lethe
	dns     *DNSCheck          // nil: nobody looks
	rollout rollout.Limits
	// addresses are those of the keyserver's Service.
	addresses string

	wire    *wire
	changes *Changes // what the manager counts
	stop    func()
}

// orphansSoon is what garbage collection is given.
const orphansSoon = 300 * time.Millisecond

// resyncEvery is a full resync so often that tests can wait for ten.
const resyncEvery = 300 * time.Millisecond

// newWorld starts a manager. Everything that the test leaves behind is removed at its end.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, admin: testEnv.Client, cluster: testEnv.AsCluster(t), settle: 300 * time.Millisecond, grace: time.Millisecond, addresses: "10.96.0.7\n", pace: time.Millisecond, budget: 32 << 20, rollout: rollout.Defaults()}
	w.rollout.Lasts = 300 * time.Millisecond
	w.keys = newKeyserverDouble(testEnv.AsServiceAccount(t, env.SystemNamespace, resources.ServiceAccountKeyserver), testEnv.Client)
	w.kcm = &kcm.Controllers{Client: w.cluster, Reader: testEnv.Cache(t)}
	w.publishCA("first")
	t.Cleanup(w.clean)
	w.start(&wire{})
	return w
}

// start runs a manager whose requests go over a wire that may be cut.
func (w *world) start(cut *wire) {
	w.t.Helper()
	cut.keys = w.keys
	cfg := rest.CopyConfig(testEnv.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager))
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return cut.over(next) })
	now := w.clock
	if now == nil {
		now = clock.RealClock{}
	}
	changes := NewChanges(w.budget, now)
	w.changes = changes
	options, err := ManagerOptions(cfg, 10, changes)
	if err != nil {
		w.t.Fatal(err)
	}
	again := true
	options.Scheme = testEnv.Scheme
	if w.resync > 0 {
		options.Cache.SyncPeriod = &w.resync
	}
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = &again
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		w.t.Fatal(err)
	}
	settings := testSettings()
	if w.image != "" {
		settings.Image = w.image
	}
	settings.RetiredImages = w.retired
	if w.dns != nil {
		w.dns.Live, w.dns.Bots = mgr.GetAPIReader(), mgr.GetClient()
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := Setup(ctx, mgr, Options{Settings: settings, Keys: w.keys, KeysNamespace: env.KeysNamespace, Settle: w.settle, Grace: w.grace, Clock: w.clock, Pace: w.pace,
		Changes: changes, OrphansEvery: w.every, OrphansAfter: orphansSoon, DNS: w.dns, Rollout: w.rollout}); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var once sync.Once
	w.wire = cut
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil && !cut.isDead() {
				w.t.Errorf("the manager ended with: %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

// restart is a new process: nothing in memory outlives it.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start(&wire{})
}

// wire counts a manager's writes, and can be cut at one of them: before it is sent, or after it has landed.
type wire struct {
	cutAt  int64 // the number of the write; 0: never
	after  bool
	before string           // or before the first write of this kind
	keys   *keyserverDouble // whose calls lie between the writes

	writes atomic.Int64
	reads  atomic.Int64 // of single objects, past the cache
	dead   atomic.Bool
	mutex  sync.Mutex
	log    []string
	kinds  []string
}

// namesOne tells a read of one child or bot from a list.
var namesOne = regexp.MustCompile(`/(botdeployments|statefulsets|cronjobs|configmaps|serviceaccounts|networkpolicies)/[^/]+$`)

type wireTripper struct {
	w    *wire
	next http.RoundTripper
}

func (w *wire) over(next http.RoundTripper) http.RoundTripper { return wireTripper{w, next} }

func (w *wire) isDead() bool { return w.dead.Load() }

func (w *wire) written() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return append([]string(nil), w.log...)
}

// kindOf a write: what is written, and what the keyserver was asked since the one before.
func (w *wire) kindOf(number int64) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.kinds[number-1]
}

// note writes down a write, and says whether it is the one to die at.
func (w *wire) note(write string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	number := w.writes.Add(1)
	kind := kindOfWrite(write) + w.keys.askedSince()
	w.log, w.kinds = append(w.log, write), append(w.kinds, kind)
	if w.before != "" {
		return kind == w.before
	}
	return number == w.cutAt
}

func (t wireTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	w := t.w
	if w.dead.Load() {
		return nil, fmt.Errorf("the wire is cut")
	}
	if r.Method == http.MethodGet && namesOne.MatchString(r.URL.Path) {
		w.reads.Add(1)
	}
	if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/events") || strings.Contains(r.URL.Path, "/leases") {
		return t.next.RoundTrip(r)
	}
	if !w.note(r.Method + " " + r.URL.Path) {
		return t.next.RoundTrip(r)
	}
	if w.after {
		answer, err := t.next.RoundTrip(r)
		if err == nil {
			_ = answer.Body.Close()
		}
	}
	w.dead.Store(true)
	return nil, fmt.Errorf("the wire was cut")
}

// eventually plays Kubernetes' controllers until a condition holds. The condition's error says what is still missing.
func (w *world) eventually(what string, condition func() error) {
	w.t.Helper()
	w.poll(25*time.Millisecond, what, func() error {
		w.kcm.Tick(w.t)
		return condition()
	})
}

// soon waits for what the manager does alone.
func (w *world) soon(what string, condition func() error) {
	w.t.Helper()
	w.poll(3*time.Millisecond, what, condition)
}

// patience is how long a test waits for what must happen: the race detector and a busy machine make everything many times slower.
const patience = 2 * time.Minute

func (w *world) poll(every time.Duration, what string, condition func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %v\nwrites: %s", what, err, strings.Join(w.wire.written(), "\n  "))
		}
		<-tick.C
	}
}

// calm waits until the manager has written nothing for a while.
func (w *world) calm() {
	w.t.Helper()
	last, since := w.wire.writes.Load(), time.Now()
	w.eventually("calm", func() error {
		if now := w.wire.writes.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 3*w.settle {
			return fmt.Errorf("the last write was %s ago", time.Since(since))
		}
		return nil
	})
}

// passes is how often a controller has reconciled, in this process.
func passes(t *testing.T, controller string) int {
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
