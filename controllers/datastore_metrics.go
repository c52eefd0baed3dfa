package controllers

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/report"
)

// Metrics of stores. Their labels are names of our own objects: as many series as there are rules that govern stores, and
// they go with the store.
var (
	ruleLabels  = []string{"namespace", "store", "policy", "rule"}
	storeLabels = []string{"namespace", "store"}

	oldestOverdueSeconds = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lethe_oldest_overdue_seconds", Help: "How long the worst row has been overdue, as last measured; 0 when none is.",
	}, ruleLabels)
	overdueRows = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lethe_overdue_rows", Help: "Rows past window and slack and still there, as last measured.",
	}, ruleLabels)
	unknownAgeRows = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lethe_unknown_age_rows", Help: "Rows without an age that can be believed, as last measured.",
	}, ruleLabels)
	deletedRows = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lethe_deleted_rows_total", Help: "Rows that sweeps reported as deleted.",
	}, ruleLabels)
	measuredTimestamp = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lethe_measured_timestamp_seconds", Help: "When the store was last measured, in Unix seconds; alert when it is older than two hours.",
	}, storeLabels)
	approvalPending = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "lethe_approval_pending", Help: "1 when rules of the store would delete what spec.approvedPlan does not cover.",
	}, storeLabels)

	shown = shownRules{of: map[[2]string]map[[2]string]bool{}}
)

func init() {
	metrics.Registry.MustRegister(oldestOverdueSeconds, overdueRows, unknownAgeRows, deletedRows, measuredTimestamp, approvalPending)
}

// shownRules remembers which rules of a store have series, so that those of a rule that governs it no more go away.
type shownRules struct {
	mu sync.Mutex
	of map[[2]string]map[[2]string]bool // namespace, store -> policy, rule
}

func (s *shownRules) replace(namespace, store string, now map[[2]string]bool) (gone [][2]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for rule := range s.of[[2]string{namespace, store}] {
		if !now[rule] {
			gone = append(gone, rule)
		}
	}
	if len(now) == 0 {
		delete(s.of, [2]string{namespace, store})
	} else {
		s.of[[2]string{namespace, store}] = now
	}
	return gone
}

// showStoreMetrics sets the gauges of a store from its status. Datasets under one rule are added up.
func showStoreMetrics(store *v1alpha1.DataStore, awaitingApproval bool) {
	type sums struct{ oldest, overdue, unknown float64 }
	rules := map[[2]string]*sums{}
	now := map[[2]string]bool{}
	for _, m := range store.Status.Rules {
		key := [2]string{m.Policy, m.Rule}
		if rules[key] == nil {
			rules[key] = &sums{}
			now[key] = true
		}
		rules[key].oldest = max(rules[key].oldest, float64(m.OldestOverdueSeconds))
		rules[key].overdue += float64(m.Overdue)
		rules[key].unknown += float64(m.UnknownAge)
	}
	for key, v := range rules {
		oldestOverdueSeconds.WithLabelValues(store.Namespace, store.Name, key[0], key[1]).Set(v.oldest)
		overdueRows.WithLabelValues(store.Namespace, store.Name, key[0], key[1]).Set(v.overdue)
		unknownAgeRows.WithLabelValues(store.Namespace, store.Name, key[0], key[1]).Set(v.unknown)
	}
	for _, key := range shown.replace(store.Namespace, store.Name, now) {
		labels := prometheus.Labels{"namespace": store.Namespace, "store": store.Name, "policy": key[0], "rule": key[1]}
		for _, vec := range []*prometheus.GaugeVec{oldestOverdueSeconds, overdueRows, unknownAgeRows} {
			vec.Delete(labels)
		}
		deletedRows.Delete(labels)
	}
	if at := store.Status.MeasuredAt; at != nil {
		measuredTimestamp.WithLabelValues(store.Namespace, store.Name).Set(float64(at.Unix()))
	}
	pending := 0.0
	if awaitingApproval {
		pending = 1
	}
	approvalPending.WithLabelValues(store.Namespace, store.Name).Set(pending)
}

// countDeleted adds what a sweep reported, under the names of the rules that the store's status has. What a report names beside those, of an earlier plan or
// out of a pod that was broken into, counts without a name: it would be a series of the pod's choice.
func countDeleted(store *v1alpha1.DataStore, r report.Report) {
	for _, l := range r.Lines {
		if l.Deleted <= 0 {
			continue
		}
		if !slices.ContainsFunc(store.Status.Rules, func(m v1alpha1.RuleMeasurement) bool { return m.Policy == l.Policy && m.Rule == l.Rule }) {
			l.Policy, l.Rule = "", ""
		}
		deletedRows.WithLabelValues(store.Namespace, store.Name, l.Policy, l.Rule).Add(float64(l.Deleted))
	}
}

// forgetStoreMetrics removes every series of a store.
func forgetStoreMetrics(namespace, store string) {
	labels := prometheus.Labels{"namespace": namespace, "store": store}
	for _, vec := range []*prometheus.GaugeVec{oldestOverdueSeconds, overdueRows, unknownAgeRows, measuredTimestamp, approvalPending} {
		vec.DeletePartialMatch(labels)
	}
	deletedRows.DeletePartialMatch(labels)
	shown.replace(namespace, store, nil)
}
