package bot

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/rollout"
)

var (
	rolloutBotsDesc = prometheus.NewDesc("lethe_rollout_bots",
		"Bots by how a change of Lethe's own stands with them: rolling (restarted, and not ready again yet), proving (ready again, not for a minute yet), failed (were ready before, and fail since), waiting.", []string{"state"}, nil)
	rolloutStoppedDesc = prometheus.NewDesc("lethe_rollout_stopped",
		"1 while no more bots are restarted because of Lethe, since as many as --rollout-stop-after that were ready fail with it.", nil, nil)
	rolloutStoppedTenantsDesc = prometheus.NewDesc("lethe_rollout_stopped_tenants",
		"Tenants none of whose bots are restarted because of Lethe or of the Tenant any more, since as many as --rollout-stop-after of their own that were ready fail with it.", nil, nil)
)

// RolloutCollector reads the cache when it is asked.
type RolloutCollector struct {
	Cache  client.Reader
	Limits rollout.Limits
	Clock  clock.PassiveClock
}

// Describe is for Prometheus.
func (c RolloutCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- rolloutBotsDesc
	descs <- rolloutStoppedDesc
	descs <- rolloutStoppedTenantsDesc
}

// Collect is for Prometheus.
func (c RolloutCollector) Collect(metrics chan<- prometheus.Metric) {
	ctx := context.Background()
	var bots v1alpha1.BotDeploymentList
	fleet, err := fleetOf(ctx, c.Cache, c.Limits, c.Clock.Now(), nil)
	if err := errors.Join(err, c.Cache.List(ctx, &bots, client.UnsafeDisableDeepCopy)); err != nil {
		metrics <- prometheus.NewInvalidMetric(rolloutBotsDesc, err)
		return
	}
	waiting := 0
	for i := range bots.Items {
		w := meta.FindStatusCondition(bots.Items[i].Status.Conditions, v1alpha1.ConditionWorkloadReady)
		if w != nil && (w.Reason == v1alpha1.ReasonUpdateWaits || w.Reason == v1alpha1.ReasonUpdateStopped) {
			waiting++
		}
	}
	state := rollout.Compute(fleet, rollout.Proven{}, c.Limits)
	for word, n := range map[string]int{"rolling": state.Rolling, "proving": state.Proving, "failed": state.Failed, "waiting": waiting} {
		metrics <- prometheus.MustNewConstMetric(rolloutBotsDesc, prometheus.GaugeValue, float64(n), word)
	}
	stopped := 0.0
	if state.Stopped {
		stopped = 1
	}
	metrics <- prometheus.MustNewConstMetric(rolloutStoppedDesc, prometheus.GaugeValue, stopped)
	metrics <- prometheus.MustNewConstMetric(rolloutStoppedTenantsDesc, prometheus.GaugeValue, float64(len(state.StoppedTenants())))
}
