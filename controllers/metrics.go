package controllers

import (
	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/controllers/orphans"
	"github.com/lethe-dev/lethe/internal/dnscheck"
)

// All metrics of the manager but those of its doors and of the libraries are made here and in metrics_*.go;
// docs/metrics.md lists them. What is said of objects is read out of the cache when somebody asks: a series is there
// from the first moment in which the object is seen, speaks of what stands in its status, and goes with it. Nothing
// of it is remembered, so nothing is lost or left over by a restart.
//
// Only the manager that leads shows them. The caches of the others are filled too, but late by as much as they like,
// and each series would be there as often as there are replicas.

// Counters and gauges of what happens in a manager, beside what the cache holds.
var (
	pausesTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "lethe_changes_paused_total", Help: "How often changes to a Tenant's bots and stores were paused, since more was written than its budget.",
	})
	pausedNow = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lethe_changes_paused_tenants", Help: "Tenants whose bots and stores cannot be changed at the moment, since more was written than their budget.",
	})
)

var leaderDesc = prometheus.NewDesc("lethe_manager_leader",
	"1 for the manager that leads, and shows the metrics about objects; 0 for one that waits to.", nil, nil)

// fleet is what the manager that leads shows.
type fleet struct {
	leads <-chan struct{} // closed once this manager leads; one that leads no more has ended
	parts []prometheus.Collector
}

func newFleet(mgr ctrl.Manager, deleted *datastore.DeletedRows, others ...prometheus.Collector) fleet {
	return fleet{leads: mgr.Elected(), parts: fleetParts(mgr.GetCache(), deleted, others...)}
}

func fleetParts(cache client.Reader, deleted *datastore.DeletedRows, others ...prometheus.Collector) []prometheus.Collector {
	return append([]prometheus.Collector{ObjectCollector{cache, deleted}, pausesTotal, pausedNow, orphans.Removed, orphans.Left, dnscheck.Answers}, others...)
}

// Describe is for Prometheus.
func (f fleet) Describe(descs chan<- *prometheus.Desc) {
	descs <- leaderDesc
	for _, part := range f.parts {
		part.Describe(descs)
	}
}

// Collect is for Prometheus.
func (f fleet) Collect(metrics chan<- prometheus.Metric) {
	select {
	case <-f.leads:
	default:
		metrics <- prometheus.MustNewConstMetric(leaderDesc, prometheus.GaugeValue, 0)
		return
	}
	metrics <- prometheus.MustNewConstMetric(leaderDesc, prometheus.GaugeValue, 1)
	for _, part := range f.parts {
		part.Collect(metrics)
	}
}
