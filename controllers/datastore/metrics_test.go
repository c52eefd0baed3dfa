package datastore

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/hostile"
)

// TestReportsNameNoSeries: a sweeper that was broken into makes no series of its choice.
func TestReportsNameNoSeries(t *testing.T) {
	store := &v1alpha1.DataStore{}
	store.Namespace, store.Name = "series-a", "chat"
	store.Status.Datasets = []v1alpha1.DatasetMeasurement{{Name: "messages", Rules: []v1alpha1.RuleMeasurement{{Policy: "p", Rule: "r"}}}}
	deleted := &DeletedRows{}
	deleted.count(store, report.Report{Datasets: []report.Dataset{{Rules: []report.Rule{{Policy: "p", Rule: "r", Deleted: 3}, {Policy: hostile.Words(), Rule: "\xff", Deleted: 4}, {Policy: "p", Rule: "other", Deleted: 5},
		{Policy: "p", Rule: "r", Deleted: -7}}}}})
	rows := map[string]float64{}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(collectorFunc(func(into chan<- prometheus.Metric) { ShowStore(into, store, deleted) })); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range m.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if family.GetName() == "lethe_store_deleted_rows_total" {
				rows[labels["policy"]+"/"+labels["rule"]] += m.GetCounter().GetValue()
			}
		}
	}
	if len(rows) != 2 || rows["p/r"] != 3 || rows["/"] != 9 {
		t.Errorf("%v, want the rule's 3 rows and 9 without a name", rows)
	}
}

// collectorFunc describes nothing, and collects.
type collectorFunc func(chan<- prometheus.Metric)

func (c collectorFunc) Describe(chan<- *prometheus.Desc)         {}
func (c collectorFunc) Collect(metrics chan<- prometheus.Metric) { c(metrics) }
