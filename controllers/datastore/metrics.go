package datastore

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/status"
)

var (
	storeLabels = []string{"namespace", "store"}
	ruleLabels  = []string{"namespace", "store", "policy", "rule"}

	measuredDesc   = prometheus.NewDesc("lethe_store_measured", "1 once a sweep has measured the store; 0 until then.", storeLabels, nil)
	measuredAtDesc = prometheus.NewDesc("lethe_store_measured_timestamp_seconds",
		"When the store was last measured, in Unix seconds; 0 until it was.", storeLabels, nil)
	approvalDesc = prometheus.NewDesc("lethe_store_approval_pending",
		"1 while rules that enforce would delete what spec.approvedPlan does not cover: nothing of it goes until it is approved.", storeLabels, nil)
	brakedDesc = prometheus.NewDesc("lethe_store_braked_datasets",
		"Datasets of which the last sweep deleted nothing until a person lets it: more would have gone than spec.brake allows, or rows that were gone came back.", storeLabels, nil)
	refusedDesc = prometheus.NewDesc("lethe_store_report_refused",
		"1 while the last sweep's report is not believed: it is another one than the keyserver took, or an earlier one.", storeLabels, nil)
	uncoveredDesc = prometheus.NewDesc("lethe_store_uncovered_tables",
		"Tables that are neither a dataset nor exempt, as last measured; not there until the store was measured.", storeLabels, nil)

	overdueDesc = prometheus.NewDesc("lethe_store_overdue_rows",
		"Rows past window and slack and still there, as last measured.", ruleLabels, nil)
	oldestOverdueDesc = prometheus.NewDesc("lethe_store_oldest_overdue_seconds",
		"How long the worst row has been overdue, as last measured; 0 when none is.", ruleLabels, nil)
	worstOverdueDesc = prometheus.NewDesc("lethe_store_worst_overdue_seconds",
		"The longest that a row was ever seen to be overdue, before a sweep or after it, since the rule has its window.", ruleLabels, nil)
	unknownAgeDesc = prometheus.NewDesc("lethe_store_unknown_age_rows",
		"Rows without an age that can be believed, as last measured.", ruleLabels, nil)
	unknownTenantDesc = prometheus.NewDesc("lethe_store_unknown_tenant_late_rows",
		"Rows that name no known tenant and are past the shortest window that a tenant has, as last measured.", ruleLabels, nil)
	DeletedDesc = prometheus.NewDesc("lethe_store_deleted_rows_total",
		"Rows that sweeps reported as deleted since this manager leads. Rows of a rule that governs the store no more have no policy and no rule.", ruleLabels, nil)

	StoreDescs = []*prometheus.Desc{measuredDesc, measuredAtDesc, approvalDesc, brakedDesc, refusedDesc, uncoveredDesc, overdueDesc, oldestOverdueDesc, worstOverdueDesc,
		unknownAgeDesc, unknownTenantDesc}
)

type (
	storeKey struct{ namespace, name string }
	ruleKey  struct{ policy, rule string }
)

// ShowStore shows what a store's status says. Datasets under one rule are added up; of times the worst counts. What
// was never measured has no counts: 0 would say that it is fine.
func ShowStore(metrics chan<- prometheus.Metric, store *v1alpha1.DataStore, deleted *DeletedRows) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{store.Namespace, store.Name}, labels...)...)
	}
	measured, at := 0.0, 0.0
	if store.Status.MeasuredAt != nil {
		measured, at = 1, float64(store.Status.MeasuredAt.Unix())
		gauge(uncoveredDesc, float64(store.Status.UncoveredCount))
	}
	gauge(measuredDesc, measured)
	gauge(measuredAtDesc, at)
	pending := 0.0
	if store.Status.Plan.Approval == v1alpha1.ApprovalPending {
		pending = 1
	}
	gauge(approvalDesc, pending)
	refused := 0.0
	if last := store.Status.LastSweep; last != nil && (last.Reason == v1alpha1.ReasonReportForged || last.Reason == v1alpha1.ReasonReportReplayed) {
		refused = 1
	}
	gauge(refusedDesc, refused)

	type sums struct {
		measured                                          bool
		overdue, oldest, worst, unknownAge, unknownTenant float64
	}
	rules, braked := map[ruleKey]*sums{}, map[string]bool{}
	for d, m := range store.Status.Lines {
		why, key := d.ProblemOf(m).Reason, ruleKey{m.Policy, m.Rule}
		if rules[key] == nil {
			rules[key] = &sums{}
		}
		s := rules[key]
		s.measured = s.measured || why != v1alpha1.ReasonLeftOut
		s.overdue += float64(m.Overdue)
		s.oldest = max(s.oldest, float64(m.OldestOverdueSeconds))
		s.worst = max(s.worst, float64(m.WorstOverdueSeconds))
		s.unknownAge += float64(d.UnknownAge)
		s.unknownTenant += float64(m.UnknownTenantLate)
		if plan.IsBraked(why) {
			braked[d.Name] = true
		}
	}
	gauge(brakedDesc, float64(len(braked)))
	for key, s := range rules {
		gauge(worstOverdueDesc, s.worst, key.policy, key.rule)
		if !s.measured {
			continue
		}
		gauge(overdueDesc, s.overdue, key.policy, key.rule)
		gauge(oldestOverdueDesc, s.oldest, key.policy, key.rule)
		gauge(unknownAgeDesc, s.unknownAge, key.policy, key.rule)
		gauge(unknownTenantDesc, s.unknownTenant, key.policy, key.rule)
	}
	for key, rows := range deleted.ofStore(store, rulesOf(store)) {
		metrics <- prometheus.MustNewConstMetric(DeletedDesc, prometheus.CounterValue, rows, store.Namespace, store.Name, key.policy, key.rule)
	}
}

func rulesOf(store *v1alpha1.DataStore) map[ruleKey]bool {
	rules := map[ruleKey]bool{}
	for _, m := range store.Status.Lines {
		rules[ruleKey{m.Policy, m.Rule}] = true
	}
	return rules
}

// DeletedRows counts rows by the rules of stores that exist. The rule without a name stands for rules that are gone.
type DeletedRows struct {
	mutex sync.Mutex
	of    map[storeKey]map[ruleKey]float64
}

func (c *DeletedRows) add(store *v1alpha1.DataStore, key ruleKey, rows float64) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	of := storeKey{store.Namespace, store.Name}
	if c.of == nil {
		c.of = map[storeKey]map[ruleKey]float64{}
	}
	if c.of[of] == nil {
		c.of[of] = map[ruleKey]float64{}
	}
	c.of[of][key] += rows
}

// ofStore returns the counts of the rules that govern a store, 0 where nothing was deleted yet, and adds those of
// others to the one without a name.
func (c *DeletedRows) ofStore(store *v1alpha1.DataStore, rules map[ruleKey]bool) map[ruleKey]float64 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	counts := c.of[storeKey{store.Namespace, store.Name}]
	shown := map[ruleKey]float64{}
	for key := range rules {
		shown[key] = counts[key]
	}
	for key, rows := range counts {
		if !rules[key] && key != (ruleKey{}) {
			delete(counts, key)
			counts[ruleKey{}] += rows
		}
	}
	if rows, others := counts[ruleKey{}]; others {
		shown[ruleKey{}] = rows
	}
	return shown
}

func (c *DeletedRows) forget(namespace, name string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.of, storeKey{namespace, name})
}

// count adds what a sweep reported, under the names of the rules that the store's status has. What a report names
// beside those, of an earlier plan or out of a pod that was broken into, counts without a name: it would be a series
// of the pod's choice.
func (c *DeletedRows) count(store *v1alpha1.DataStore, r report.Report) {
	named, rules := int64(0), rulesOf(store)
	for _, d := range r.Datasets {
		for _, m := range d.Rules {
			if m.Deleted <= 0 {
				continue
			}
			named += m.Deleted
			key := ruleKey{m.Policy, m.Rule}
			if !rules[key] {
				key = ruleKey{}
			}
			c.add(store, key, float64(m.Deleted))
		}
	}
	if rest := status.Deleted(r) - named; rest > 0 {
		c.add(store, ruleKey{}, float64(rest)) // of datasets whose measurement failed
	}
}
