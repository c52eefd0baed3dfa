package controllers

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/resources"
)

// States that lethe_objects counts by.
const (
	stateReady       = "ready"
	stateProgressing = "progressing"
	stateStalled     = "stalled"
)

// conditionTypes are those that each kind has. One that a status does not show yet is Unknown.
var conditionTypes = map[string][]string{
	resources.KindTenant: {v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionNamespacesReady,
		v1alpha1.ConditionIsolationReady, v1alpha1.ConditionKeysReady, v1alpha1.ConditionInUse, v1alpha1.ConditionChangesPaused},
	resources.KindBotDeployment: {v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionIsolationReady,
		v1alpha1.ConditionCredentialsReady, v1alpha1.ConditionWorkloadReady},
	resources.KindDataStore: {v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionCredentialsReady,
		v1alpha1.ConditionReachable, v1alpha1.ConditionCoverageComplete, v1alpha1.ConditionApproved, v1alpha1.ConditionCompliant},
	resources.KindDataRetentionPolicy: {v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionCompliant},
}

var (
	objectsDesc   = prometheus.NewDesc("lethe_objects", "Objects by kind and state: ready, progressing, stalled.", []string{"kind", "state"}, nil)
	conditionDesc = prometheus.NewDesc("lethe_status_condition",
		"Conditions of Lethe's objects: 1 for the status (true, false, unknown) that a condition has, 0 for the other two. One that is not there yet is unknown; Reconciling and Stalled, which are there only while they are true, are false then.",
		[]string{"kind", "namespace", "name", "condition", "status"}, nil)
	policyStoresDesc = prometheus.NewDesc("lethe_policy_stores", "Stores that a DataRetentionPolicy selects.", []string{"policy"}, nil)
	policyKeptDesc   = prometheus.NewDesc("lethe_policy_compliant_stores", "Stores that a DataRetentionPolicy selects and that were measured to keep it.", []string{"policy"}, nil)
)

// ObjectCollector reads the cache when it is asked. Labels are names of Lethe's own objects, and words that are few
// and fixed: three series for each condition of each object, some for each store, and some for each rule that governs
// a store.
type ObjectCollector struct {
	Cache client.Reader
	// Deleted has what sweeps reported since this manager leads.
	Deleted *datastore.DeletedRows
}

// Describe is for Prometheus.
func (c ObjectCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range append([]*prometheus.Desc{objectsDesc, conditionDesc, policyStoresDesc, policyKeptDesc, datastore.DeletedDesc}, datastore.StoreDescs...) {
		descs <- desc
	}
}

// Collect is for Prometheus.
func (c ObjectCollector) Collect(metrics chan<- prometheus.Metric) {
	var tenants v1alpha1.TenantList
	var bots v1alpha1.BotDeploymentList
	var stores v1alpha1.DataStoreList
	var policies v1alpha1.DataRetentionPolicyList
	ctx := context.Background()
	var errs []error
	for _, list := range []client.ObjectList{&tenants, &bots, &stores, &policies} {
		errs = append(errs, c.Cache.List(ctx, list, client.UnsafeDisableDeepCopy))
	}
	if err := errors.Join(errs...); err != nil {
		// A scrape that fails is a manager that is away: half an answer would look like objects that are gone.
		metrics <- prometheus.NewInvalidMetric(objectsDesc, fmt.Errorf("list: %w", err))
		return
	}
	counts := map[string]map[string]float64{}
	for kind := range conditionTypes {
		counts[kind] = map[string]float64{stateReady: 0, stateProgressing: 0, stateStalled: 0}
	}
	show := func(kind string, object metav1.Object, conditions []metav1.Condition) {
		counts[kind][stateOf(conditions)]++
		showConditions(metrics, kind, object, conditions)
	}
	for i := range tenants.Items {
		show(resources.KindTenant, &tenants.Items[i], tenants.Items[i].Status.Conditions)
	}
	for i := range bots.Items {
		show(resources.KindBotDeployment, &bots.Items[i], bots.Items[i].Status.Conditions)
	}
	for i := range policies.Items {
		p := &policies.Items[i]
		show(resources.KindDataRetentionPolicy, p, p.Status.Conditions)
		metrics <- prometheus.MustNewConstMetric(policyStoresDesc, prometheus.GaugeValue, float64(p.Status.Matched), p.Name)
		metrics <- prometheus.MustNewConstMetric(policyKeptDesc, prometheus.GaugeValue, float64(p.Status.Compliant), p.Name)
	}
	for i := range stores.Items {
		s := &stores.Items[i]
		show(resources.KindDataStore, s, s.Status.Conditions)
		datastore.ShowStore(metrics, s, c.Deleted)
	}
	for kind, states := range counts {
		for state, count := range states {
			metrics <- prometheus.MustNewConstMetric(objectsDesc, prometheus.GaugeValue, count, kind, state)
		}
	}
}

// showConditions shows each condition that the kind has, and any other that its status holds: only the manager writes
// it.
func showConditions(metrics chan<- prometheus.Metric, kind string, object metav1.Object, conditions []metav1.Condition) {
	states := map[string]metav1.ConditionStatus{}
	for _, condition := range conditionTypes[kind] {
		states[condition] = metav1.ConditionUnknown
		if (condition == v1alpha1.ConditionReconciling || condition == v1alpha1.ConditionStalled) && len(conditions) > 0 {
			states[condition] = metav1.ConditionFalse // these two are there only while they are True
		}
	}
	for _, c := range conditions {
		states[c.Type] = c.Status
	}
	series := make([]conditionSeries, 0, len(states)*len(statusPairs))
	ofKind, name, namespace := kindPairs[kind], labelPair("name", object.GetName()), labelPair("namespace", object.GetNamespace())
	for condition, state := range states {
		ofCondition, ok := conditionPairs[condition]
		if !ok {
			ofCondition = labelPair("condition", condition)
		}
		for status, word := range statusPairs {
			value := &gaugeZero
			if state == status {
				value = &gaugeOne
			}
			series = append(series, conditionSeries{[...]*dto.LabelPair{ofCondition, ofKind, name, namespace, word}, value})
			metrics <- &series[len(series)-1]
		}
	}
}

// conditionSeries is one of the three series of a condition of an object. A scrape has all series of all objects in
// memory at once, so that what is the same in them is there once: with those of the library a scrape of two thousand
// objects takes as much memory as the manager has beside it.
type conditionSeries struct {
	labels [5]*dto.LabelPair // in the order of their names, as the library wants it
	value  *dto.Gauge
}

var (
	statusPairs = map[metav1.ConditionStatus]*dto.LabelPair{
		metav1.ConditionTrue: labelPair("status", "true"), metav1.ConditionFalse: labelPair("status", "false"), metav1.ConditionUnknown: labelPair("status", "unknown"),
	}
	kindPairs, conditionPairs = knownPairs()
	gaugeZero, gaugeOne       = dto.Gauge{Value: new(0.0)}, dto.Gauge{Value: new(1.0)}
)

func knownPairs() (kinds, conditions map[string]*dto.LabelPair) {
	kinds, conditions = map[string]*dto.LabelPair{}, map[string]*dto.LabelPair{}
	for kind, types := range conditionTypes {
		kinds[kind] = labelPair("kind", kind)
		for _, condition := range types {
			conditions[condition] = labelPair("condition", condition)
		}
	}
	return kinds, conditions
}

func labelPair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// Desc is for Prometheus.
func (s *conditionSeries) Desc() *prometheus.Desc { return conditionDesc }

// Write is for Prometheus, which only reads what it is given.
func (s *conditionSeries) Write(metric *dto.Metric) error {
	metric.Label, metric.Gauge = s.labels[:], s.value
	return nil
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
