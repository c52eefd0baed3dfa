package controllers

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/internal/status"
)

var (
	rolloutBotsDesc = prometheus.NewDesc("lethe_rollout_bots",
		"Bots by how a change of Lethe's own stands with them: rolling (restarted, and not ready again yet), failed (were ready before, and fail since), waiting.", []string{"state"}, nil)
	rolloutStoppedDesc = prometheus.NewDesc("lethe_rollout_stopped",
		"1 while no more bots are restarted because of Lethe, since as many as --rollout-stop-after that were ready fail with it.", nil, nil)
)

// rolloutCollector reads the cache when it is asked.
type rolloutCollector struct {
	cache  client.Reader
	limits rollout.Limits
}

// Describe is for Prometheus.
func (c rolloutCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- rolloutBotsDesc
	descs <- rolloutStoppedDesc
}

// Collect is for Prometheus.
func (c rolloutCollector) Collect(metrics chan<- prometheus.Metric) {
	ctx := context.Background()
	var bots v1alpha1.BotDeploymentList
	fleet, err := fleetOf(ctx, c.cache, nil)
	if err := errors.Join(err, c.cache.List(ctx, &bots, client.UnsafeDisableDeepCopy)); err != nil {
		metrics <- prometheus.NewInvalidMetric(rolloutBotsDesc, err)
		return
	}
	waiting := 0
	for i := range bots.Items {
		w := meta.FindStatusCondition(bots.Items[i].Status.Conditions, v1alpha1.ConditionWorkloadReady)
		if w != nil && (w.Reason == status.ReasonUpdateWaits || w.Reason == status.ReasonUpdateStopped) {
			waiting++
		}
	}
	state := rollout.Compute(fleet, c.limits)
	for word, n := range map[string]int{"rolling": state.Rolling, "failed": state.Failed, "waiting": waiting} {
		metrics <- prometheus.MustNewConstMetric(rolloutBotsDesc, prometheus.GaugeValue, float64(n), word)
	}
	stopped := 0.0
	if state.Stopped {
		stopped = 1
	}
	metrics <- prometheus.MustNewConstMetric(rolloutStoppedDesc, prometheus.GaugeValue, stopped)
}
