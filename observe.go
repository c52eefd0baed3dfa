package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lethe-dev/lethe/internal/doors"
)

// observe opens the doors for probes and metrics.
func observe(ctx context.Context, mgr ctrl.Manager, o options) error {
	m, err := doors.NewMetrics("lethe_manager", metrics.Registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	alive := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	probes, figures := http.NewServeMux(), http.NewServeMux()
	probes.HandleFunc("GET /healthz", alive)
	probes.HandleFunc("GET /readyz", alive)
	figures.Handle("GET /metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	for _, door := range []struct {
		name, address string
		handler       http.Handler
		rules         doors.Rules
	}{
		{"probes", o.health, probes, doors.ObserverRules("/healthz", "/readyz")},
		{"metrics", o.metrics, figures, doors.ObserverRules("/metrics")},
	} {
		if door.address == "0" {
			continue
		}
		l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", door.address)
		if err != nil {
			return fmt.Errorf("listen for %s: %w", door.name, err)
		}
		err = mgr.Add(&manager.Server{Name: door.name, Listener: doors.Listen(l, door.name, doors.ObserverLimits, clock.RealClock{}, m),
			Server: doors.NewServer(door.handler, door.rules, nil, slog.New(logr.ToSlogHandler(mgr.GetLogger())))})
		if err != nil {
			return fmt.Errorf("add the server for %s: %w", door.name, err)
		}
	}
	return nil
}
