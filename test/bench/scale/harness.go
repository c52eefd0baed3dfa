package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	runtimego "runtime"
	"runtime/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/ports"
)

// harnessCommand runs the manager's controllers with three things that the manager has no flag for: a short time
// between two resyncs, profiles, and a page that costs nothing to look at.
const harnessCommand = "harness"

func harness(ctx context.Context, args []string) error {
	var settings resources.Settings
	flags := flag.NewFlagSet(harnessCommand, flag.ContinueOnError)
	settings.AddFlags(flags)
	tokenFile := flags.String("token-file", "", "")
	keysNamespace := flags.String("keys-namespace", keysNamespace, "")
	workers := flags.Int("workers", 10, "")
	metricsAddress := flags.String("metrics-bind-address", "", "")
	health := flags.String("health-probe-bind-address", "", "")
	resync := flags.Duration("resync", 10*time.Hour, "")
	passes := flags.String("passes-bind-address", "", "")
	profiles := flags.String("profiles", "", "folder for a CPU profile of the whole life and a heap profile of its end")
	flags.Bool("leader-elect", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *profiles != "" {
		stop, err := profileLife(*profiles)
		if err != nil {
			return err
		}
		defer stop()
	}
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	cfg.QPS, cfg.UserAgent = -1, "lethe-manager/harness"
	limit, err := controllers.ParseChangesBudget(controllers.DefaultChangesBudget)
	if err != nil {
		return fmt.Errorf("read the budget: %w", err)
	}
	changes := controllers.NewChanges(limit, clock.RealClock{})
	o, err := controllers.ManagerOptions(cfg, *workers, changes)
	if err != nil {
		return err
	}
	o.Scheme = runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(o.Scheme), v1alpha1.AddToScheme(o.Scheme)); err != nil {
		return fmt.Errorf("register kinds: %w", err)
	}
	o.Cache.SyncPeriod = resync
	o.HealthProbeBindAddress = *health
	o.Metrics = metricsserver.Options{BindAddress: *metricsAddress}
	served, err := passesOf(metrics.Registry)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *passes)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: served, ReadHeaderTimeout: time.Minute}
	defer func() { _ = server.Close() }()
	go func() { _ = server.Serve(listener) }()
	mgr, err := ctrl.NewManager(cfg, o)
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	keys, err := keyclient.New(keyclient.Options{URL: settings.KeyserverURL, TokenFile: *tokenFile,
		CA: func(ctx context.Context) ([]byte, error) {
			bundle := &corev1.ConfigMap{}
			err := mgr.GetClient().Get(ctx, client.ObjectKey{Namespace: settings.Namespace, Name: resources.CABundleName}, bundle)
			return []byte(bundle.Data[resources.CABundleKey]), err
		}})
	if err != nil {
		return err
	}
	if err := controllers.Setup(ctx, mgr, controllers.Options{Settings: settings, Keys: keys, KeysNamespace: *keysNamespace, Changes: changes, Metrics: metrics.Registry}); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add a health check: %w", err)
	}
	return mgr.Start(ctx)
}

// passesOf serves, of all that a registry has, how many passes there were and how many there are now. The collectors
// are asked for as those that are registered already.
func passesOf(registry prometheus.Registerer) (http.Handler, error) {
	few := prometheus.NewRegistry()
	for _, like := range []prometheus.Collector{
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "controller_runtime_reconcile_total", Help: "Total number of reconciliations per controller"}, []string{"controller", "result"}),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "controller_runtime_active_workers", Help: "Number of currently used workers per controller"}, []string{"controller"}),
	} {
		var there prometheus.AlreadyRegisteredError
		if err := registry.Register(like); !errors.As(err, &there) {
			return nil, fmt.Errorf("find how much the controllers have done: %w", cmp.Or(err, errNoSuchMetric))
		}
		if err := few.Register(there.ExistingCollector); err != nil {
			return nil, fmt.Errorf("show how much the controllers have done: %w", err)
		}
	}
	return promhttp.HandlerFor(few, promhttp.HandlerOpts{DisableCompression: true}), nil
}

var errNoSuchMetric = errors.New("controller-runtime has no such metric any more")

// profileLife profiles this process until the returned function is called.
func profileLife(folder string) (stop func(), err error) {
	cpu, err := os.Create(filepath.Join(folder, fmt.Sprintf("manager-%d.cpu.pprof", os.Getpid())))
	if err != nil {
		return nil, fmt.Errorf("make a profile: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, fmt.Errorf("make a profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		heap, err := os.Create(filepath.Join(folder, fmt.Sprintf("manager-%d.heap.pprof", os.Getpid())))
		if err == nil {
			runtimego.GC()
			err = errors.Join(pprof.WriteHeapProfile(heap), heap.Close(), cpu.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "scale: profile:", err)
		}
	}, nil
}

// startHarness runs this program as the manager.
func (b *bench) startHarness(ctx context.Context, p *program, resync time.Duration) error {
	passes, err := ports.Address()
	if err != nil {
		return err
	}
	p.passes = "http://" + passes
	args := []string{harnessCommand, "--token-file=" + filepath.Join(b.work, "token"), "--passes-bind-address=" + passes, fmt.Sprintf("--workers=%d", b.workers), "--resync=" + resync.String()}
	if b.profile != "" {
		args = append(args, "--profiles="+b.profile)
	}
	return b.start(ctx, p, managerAccount, args...)
}

// profileAPIServer takes a CPU profile of the API server, when a folder was given for it.
func (b *bench) profileAPIServer(ctx context.Context, name string) (done func()) {
	if b.profile == "" {
		return func() {}
	}
	ended := make(chan error, 1)
	go func() {
		body, err := b.raw.Get().AbsPath("/debug/pprof/profile").Param("seconds", "20").DoRaw(ctx)
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profile, name+"-apiserver.cpu.pprof"), body, 0o644)
		}
		ended <- err
	}()
	return func() {
		if err := <-ended; err != nil {
			b.step("no profile: %v", err)
		}
	}
}
