package controllers

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// States that the gauges count by.
const (
	stateReady       = "ready"
	stateProgressing = "progressing"
	stateStalled     = "stalled"
)

var (
	botsDesc    = prometheus.NewDesc("lethe_bots", "BotDeployments by state: ready, progressing, stalled.", []string{"state"}, nil)
	tenantsDesc = prometheus.NewDesc("lethe_tenants", "Tenants by state: ready, progressing, stalled.", []string{"state"}, nil)
)

// stateCollector counts the cache when it is asked. Its labels do not grow with the number of objects.
type stateCollector struct{ cache client.Reader }

func (c stateCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- botsDesc
	descs <- tenantsDesc
}

func (c stateCollector) Collect(metrics chan<- prometheus.Metric) {
	c.count(metrics, botsDesc, &v1alpha1.BotDeploymentList{}, func(list client.ObjectList, add func([]metav1.Condition)) {
		if bots, ok := list.(*v1alpha1.BotDeploymentList); ok {
			for i := range bots.Items {
				add(bots.Items[i].Status.Conditions)
			}
		}
	})
	c.count(metrics, tenantsDesc, &v1alpha1.TenantList{}, func(list client.ObjectList, add func([]metav1.Condition)) {
		if tenants, ok := list.(*v1alpha1.TenantList); ok {
			for i := range tenants.Items {
				add(tenants.Items[i].Status.Conditions)
			}
		}
	})
}

func (c stateCollector) count(metrics chan<- prometheus.Metric, desc *prometheus.Desc, list client.ObjectList,
	each func(client.ObjectList, func([]metav1.Condition)),
) {
	if err := c.cache.List(context.Background(), list, client.UnsafeDisableDeepCopy); err != nil {
		metrics <- prometheus.NewInvalidMetric(desc, fmt.Errorf("list: %w", err))
		return
	}
	counts := map[string]float64{stateReady: 0, stateProgressing: 0, stateStalled: 0}
	each(list, func(conditions []metav1.Condition) { counts[stateOf(conditions)]++ })
	for state, count := range counts {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, count, state)
	}
}

func stateOf(conditions []metav1.Condition) string {
	switch {
	case meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled):
		return stateStalled
	case meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady):
		return stateReady
	default:
		return stateProgressing
	}
}
