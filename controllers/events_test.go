package controllers

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/hostile"
)

// TestForeignWordsInEvents: an Event's note is one clean line that the API server takes.
func TestForeignWordsInEvents(t *testing.T) {
	fake := events.NewFakeRecorder(1)
	fitRecorder{fake}.Eventf(&v1alpha1.Tenant{}, nil, corev1.EventTypeWarning, "Held", "Delete", "%s keeps %v: "+strings.Repeat("x", 2000), hostile.Words(), errors.New(hostile.Words()))
	note := <-fake.Events
	hostile.Check(t, "an Event", note)
	hostile.Reached(t, "an Event", note)
	if len(note) > foreign.MaxText+len("Warning Held ") || strings.Contains(note, "\n") {
		t.Errorf("%d bytes: %q", len(note), note)
	}
}

// TestReportsNameNoSeries: a sweeper that was broken into makes no series of its choice.
func TestReportsNameNoSeries(t *testing.T) {
	store := &v1alpha1.DataStore{}
	store.Namespace, store.Name = "series-a", "chat"
	store.Status.Rules = []v1alpha1.RuleMeasurement{{Dataset: "messages", Policy: "p", Rule: "r"}}
	t.Cleanup(func() { deletedRows.forget(store.Namespace, store.Name) })
	countDeleted(store, report.Report{Lines: []report.Line{{Policy: "p", Rule: "r", Deleted: 3}, {Policy: hostile.Words(), Rule: "\xff", Deleted: 4}, {Policy: "p", Rule: "other", Deleted: 5},
		{Policy: "p", Rule: "r", Deleted: -7}}})
	rows := map[string]float64{}
	for _, series := range gathered(t, collectorFunc(func(into chan<- prometheus.Metric) { showStore(into, store) })) {
		if series.name == "lethe_store_deleted_rows_total" {
			rows[series.labels["policy"]+"/"+series.labels["rule"]] += series.value
		}
	}
	if len(rows) != 2 || rows["p/r"] != 3 || rows["/"] != 9 {
		t.Errorf("%v, want the rule's 3 rows and 9 without a name", rows)
	}
}
