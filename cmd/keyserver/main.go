// Command keyserver owns the keys: see package keyserver.
//
// Exit codes: 0 stopped by a signal, 1 failed while running, 2 wrong flags or no key-encryption key.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/version"
)

const (
	exitFailed = 1
	exitUsage  = 2

	// gcPercent is Go's GOGC unless the environment says otherwise, as the manager's: the keyserver keeps little and
	// rests most of the time.
	gcPercent = 40

	maintainEvery = time.Minute
	stopWithin    = 20 * time.Second

	// leastMemory is what the limits of the doors are added up to: docs/design/0006-doors.md.
	leastMemory = 256 << 20
)

type options struct {
	settings      resources.Settings
	previous      []string
	keysNamespace string
	realm         string
	kekFile       string
	kekPrevious   []string
	kekGrade      string
	listen        string
	metrics       string
	health        string
	memoryLimit   int64
	verbosity     int
}

func main() {
	log := logTo(os.Stderr, slog.LevelInfo)
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		log.Error("Not started", "cause", err)
		os.Exit(exitUsage)
	}
	level := slog.LevelInfo
	if o.verbosity > 0 {
		level = slog.LevelDebug
	}
	log = logTo(os.Stderr, level)
	kek, previous, err := loadKEKs(o)
	if err != nil {
		log.Error("Not started", "cause", err)
		os.Exit(exitUsage)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if o.memoryLimit > 0 {
		debug.SetMemoryLimit(o.memoryLimit / 4 * 3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, log, o, kek, previous); err != nil {
		log.Error("Failed", "cause", err)
		os.Exit(exitFailed)
	}
	log.Info("Stopped")
}

// logTo makes the one log of the process, and has every library log there: what others say is cleaned on the way.
func logTo(w io.Writer, level slog.Level) *slog.Logger {
	log := foreign.NewLogger(w, level)
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	return log
}

// loadKEKs reads the key-encryption keys: the one of --kek-file, and those of before.
func loadKEKs(o options) (kek sealing.Key, previous []sealing.Key, err error) {
	if kek, err = keystore.LoadKEK(o.kekFile); err != nil {
		return kek, nil, err
	}
	for _, file := range o.kekPrevious {
		key, err := keystore.LoadKEK(file)
		if err != nil {
			return kek, nil, fmt.Errorf("--kek-file-previous: %w", err)
		}
		previous = append(previous, key)
	}
	return kek, previous, nil
}

// run builds the server and serves until the context ends.
func run(ctx context.Context, log *slog.Logger, o options, kek sealing.Key, previous []sealing.Key) error {
	registry, metrics, doorMetrics, err := newRegistry()
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	kube, err := newClient(config)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	server, err := keyserver.New(keyserver.Options{Client: kube, Watch: kube, KEK: kek, KEKPrevious: previous, KEKGrade: o.kekGrade, Realm: o.realm, KeysNamespace: o.keysNamespace,
		Hosts: hosts(o.settings), Settings: o.settings, PreviousImages: o.previous, Clock: clock.RealClock{}, Random: rand.Reader, Log: log, Metrics: metrics})
	if err != nil {
		return err
	}
	d, err := listen(ctx, o, doorMetrics)
	if err != nil {
		return err
	}
	log.Info("Started", "version", version.String(), "realm", o.realm, "kek", kek.KID(), "kekGrade", o.kekGrade)
	return serve(ctx, log, d, server, registry)
}

// newRegistry holds everything that the program exports: docs/metrics.md lists it.
func newRegistry() (*prometheus.Registry, *keyserver.Metrics, *doors.Metrics, error) {
	registry := prometheus.NewRegistry()
	metrics, err := keyserver.NewMetrics(registry)
	if err != nil {
		return nil, nil, nil, err
	}
	doorMetrics, err := doors.NewMetrics("lethe_keyserver", registry)
	if err != nil {
		return nil, nil, nil, err
	}
	return registry, metrics, doorMetrics, errors.Join(registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("keyserver", flag.ContinueOnError)
	flags.SetOutput(foreign.NewWriter(os.Stderr))
	o.settings.AddFlags(flags)
	flags.Func("previous-image", "an earlier image of Lethe by its digest (REPOSITORY@sha256:...), whose pods still get credentials; may be repeated",
		func(image string) error { o.previous = append(o.previous, image); return nil })
	flags.StringVar(&o.keysNamespace, "keys-namespace", "lethe-keys", "namespace that holds the wrapped keys")
	flags.StringVar(&o.realm, "realm", "", "name that is bound into every sealed value and every key; never change it (required)")
	flags.StringVar(&o.kekFile, "kek-file", "", "file with the key-encryption key: 32 random bytes in base64 (required)")
	flags.Func("kek-file-previous", "file with a key-encryption key of before: it opens and wraps nothing new; may be given several times", func(path string) error {
		if path == "" {
			return errors.New("the file's name is empty")
		}
		o.kekPrevious = append(o.kekPrevious, path)
		return nil
	})
	flags.StringVar(&o.kekGrade, "kek-grade", keyserver.GradeProduction,
		"Production, or Evaluation where that file comes from a Secret of the same cluster: a copy of etcd then opens everything")
	flags.StringVar(&o.listen, "listen", ":8443", "address to answer on, TLS")
	flags.StringVar(&o.metrics, "metrics-bind-address", ":8080", "address of the metrics, plain HTTP; 0 for none")
	flags.StringVar(&o.health, "health-probe-bind-address", ":8081", "address of /healthz and /readyz, plain HTTP")
	flags.Int64Var(&o.memoryLimit, "memory-limit", 0, "bytes that the container may have; three quarters of them are for Go, the rest is the kernel's for connections; 0 for no limit")
	flags.IntVar(&o.verbosity, "v", 0, "1 for debug messages")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	problems := []error{o.settings.Validate()}
	if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.realm == "" || len(o.realm) > 63 {
		problems = append(problems, errors.New("--realm of 1 to 63 characters is required"))
	}
	if o.kekFile == "" {
		problems = append(problems, errors.New("--kek-file is required: without a key-encryption key nothing is started, and none is ever made up"))
	}
	if o.memoryLimit < 0 || (o.memoryLimit > 0 && o.memoryLimit < leastMemory) {
		problems = append(problems, fmt.Errorf("--memory-limit %d is less than %d bytes, which the connections that are let in can take", o.memoryLimit, leastMemory))
	}
	if o.verbosity < 0 || o.verbosity > 1 {
		problems = append(problems, fmt.Errorf("--v %d is neither 0 nor 1: there is no more to say", o.verbosity))
	}
	if o.kekGrade != keyserver.GradeProduction && o.kekGrade != keyserver.GradeEvaluation {
		problems = append(problems, fmt.Errorf("--kek-grade %q is neither Production nor Evaluation", o.kekGrade))
	}
	return o, errors.Join(problems...)
}

// newClient reads live: it has no cache, and what it watches the keyserver holds against what it lists. The API
// server's own priority and fairness bounds it, not a limit of ours.
func newClient(config *rest.Config) (client.WithWatch, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.UserAgent = "lethe-keyserver/" + version.String()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// hosts are the names that pods and the manager may call the server by.
func hosts(s resources.Settings) []string {
	service := "lethe-keyserver." + s.Namespace + ".svc"
	names := []string{service, service + ".cluster.local"}
	if u, err := url.Parse(s.KeyserverURL); err == nil && u.Hostname() != "" && u.Hostname() != service {
		names = append(names, u.Hostname())
	}
	return names
}

// entrances are the addresses that the program answers on.
type entrances struct {
	calls, health, metrics net.Listener // metrics may be nil
}

func listen(ctx context.Context, o options, m *doors.Metrics) (entrances, error) {
	var d entrances
	for _, door := range []struct {
		what, address string
		limits        doors.Limits
		into          *net.Listener
	}{
		{"calls", o.listen, keyserver.CallLimits, &d.calls},
		{"probes", o.health, doors.ObserverLimits, &d.health},
		{"metrics", o.metrics, doors.ObserverLimits, &d.metrics},
	} {
		if door.what == "metrics" && door.address == "0" {
			continue
		}
		l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", door.address)
		if err != nil {
			return d, fmt.Errorf("listen for %s: %w", door.what, err)
		}
		*door.into = doors.Listen(l, door.what, door.limits, clock.RealClock{}, m)
	}
	return d, nil
}

// serve answers until the context ends, and then ends what it is answering.
func serve(ctx context.Context, log *slog.Logger, d entrances, server *keyserver.Server, registry *prometheus.Registry) error {
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	health.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := server.Ready(r.Context()); err != nil {
			http.Error(w, foreign.Text(foreign.Err(err)), http.StatusServiceUnavailable)
		}
	})
	calls := doors.NewServer(server.Handler(), keyserver.CallRules, server.Authority().TLSConfig(), log)
	probes := doors.NewServer(health, doors.ObserverRules("/healthz", "/readyz"), nil, log)
	servers := []*http.Server{calls, probes}
	starts := []func() error{func() error { return calls.ServeTLS(d.calls, "", "") }, func() error { return probes.Serve(d.health) }}
	if d.metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		metrics := doors.NewServer(mux, doors.ObserverRules("/metrics"), nil, log)
		servers = append(servers, metrics)
		starts = append(starts, func() error { return metrics.Serve(d.metrics) })
	}
	ended := make(chan error, len(starts))
	for _, start := range starts {
		go func() { ended <- start() }()
	}
	go maintain(ctx, log, server)
	go rotate(ctx, log, server)
	go server.WatchTenants(ctx)
	running := len(starts)
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-ended:
		running--
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	for _, s := range servers {
		failed = errors.Join(failed, s.Shutdown(stopping))
	}
	for ; running > 0; running-- {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// maintain keeps keys and certificates in order. Until the first time has succeeded it tries every few seconds: there
// is no certificate before.
func maintain(ctx context.Context, log *slog.Logger, server *keyserver.Server) {
	const tryAgain = 3 * time.Second
	for {
		wait := maintainEvery
		if err := server.Maintain(ctx); err != nil && ctx.Err() == nil {
			log.Error("Not maintained", "cause", err)
			if server.Ready(ctx) != nil {
				wait = tryAgain
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// rotate looks every few seconds whether keys are to be rotated. Replicas do not look at the same time: then they do
// each other's work less often.
func rotate(ctx context.Context, log *slog.Logger, server *keyserver.Server) {
	const every = 10 * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait.Jitter(every, 1)):
		}
		if err := server.Rotate(ctx); err != nil && ctx.Err() == nil {
			log.Error("Keys were not looked at", "cause", err)
		}
	}
}
