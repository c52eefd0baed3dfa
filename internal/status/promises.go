package status

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

// storeCompliant says whether everything that was promised of the store is kept.
func storeCompliant(o StoreObserved) metav1.Condition {
	if v := unmeasured(o); v != nil {
		return *v
	}
	return judge(o, "")
}

// Promises says of each policy that governs a dataset of the store how the store keeps it, by the spec that the
// policy has in the plan, and how many there are: a status has room for some of them only. None: there is no plan.
func Promises(o StoreObserved) (named []v1alpha1.StorePromise, all int32) {
	if o.Result == nil || o.Refusal != nil {
		return nil, 0
	}
	policies := governing(o.Result)
	for _, policy := range policies[:min(len(policies), maxPromises)] {
		named = append(named, v1alpha1.StorePromise{Policy: policy, Generation: o.Result.Generations[policy], State: promise(o, policy)})
	}
	return named, count(len(policies))
}

// governing are the policies that have a rule for a dataset of the store, sorted.
func governing(r *plan.Result) []string {
	governing := map[string]bool{}
	for _, d := range r.Plan.Datasets {
		for _, rule := range d.Rules {
			governing[rule.Policy] = true
		}
	}
	var out []string
	for _, policy := range r.Governed {
		if governing[policy] {
			out = append(out, policy)
		}
	}
	return out
}

// promisesOverLimit says of how many policies a status has no room for a promise; empty: of none. Such a policy
// counts the store as one that does not show that it keeps it.
func promisesOverLimit(o StoreObserved) string {
	all := len(governing(o.Result))
	if all <= maxPromises {
		return ""
	}
	return fmt.Sprintf("%d of %d policies cannot be shown to be kept, since status.promises holds %d entries; let fewer policies govern the store, or split the datasets over several DataStores",
		all-maxPromises, all, maxPromises)
}

// promise of one policy. What another policy's rows are does not count against it, nor do tables and datasets that no
// rule governs.
func promise(o StoreObserved, policy string) v1alpha1.PromiseState {
	if unmeasured(o) != nil {
		return v1alpha1.PromiseNotVerified
	}
	switch judge(o, policy).Status {
	case metav1.ConditionTrue:
		return v1alpha1.PromiseKept
	case metav1.ConditionFalse:
		return v1alpha1.PromiseOverdue
	default:
		return v1alpha1.PromiseNotVerified
	}
}

const messagePlanChanged = "the rules have changed since the last measurement; the next one is under way"

// unmeasured is why there is no measurement of the store as it is now; nil when there is one.
func unmeasured(o StoreObserved) *metav1.Condition {
	s := o.Measured
	var v metav1.Condition
	switch {
	case allUngoverned(o.Result.Plan):
		v = unknown(v1alpha1.ReasonUngoverned, "no rule governs this store, so nothing is promised about it: let a DataRetentionPolicy select it")
	case s.LastSweep == nil || s.MeasuredAt == nil && s.LastSweep.Attempt == 0:
		v = unknown(v1alpha1.ReasonNotMeasured, "no sweep has ended yet")
	case s.LastSweep.PlanDigest != o.PlanDigest:
		v = unknown(v1alpha1.ReasonPlanChanged, messagePlanChanged)
	case s.LastSweep.Outcome == v1alpha1.SweepLost:
		v = unknown(orElse(s.LastSweep.Reason, v1alpha1.ReasonReportLost), "%s", s.LastSweep.Message)
	case s.LastSweep.Attempt > 0:
		v = unknown(orElse(s.LastSweep.Reason, v1alpha1.ReasonSweepFailed), "the last sweep measured nothing: %s", s.LastSweep.Message)
	case s.LastSweep.Reason == v1alpha1.ReasonIdentityChanged:
		// What was measured is not what the promise was approved for: an empty copy would look compliant.
		v = unknown(v1alpha1.ReasonIdentityChanged, "another database than the approved one was measured: %s", s.LastSweep.Message)
	case s.MeasuredPlanDigest != o.PlanDigest:
		v = unknown(v1alpha1.ReasonPlanChanged, messagePlanChanged)
	case !o.Now.Before(s.MeasuredAt.Add(o.StaleAfter)):
		v = unknown(v1alpha1.ReasonStale, "the last measurement is older than two sweep intervals; look at the store's Jobs")
	default:
		return nil
	}
	return &v
}

// judge says what the measurements of one policy's rules show, or those of all.
func judge(o StoreObserved, policy string) metav1.Condition {
	s := o.Measured
	var late, missing, unaged, untold []string
	for _, d := range o.Result.Plan.Datasets {
		for _, r := range d.Rules {
			if policy != "" && r.Policy != policy {
				continue
			}
			name := ruleName(d, r)
			of, m := measurementOf(s.Datasets, d.Name, r)
			switch {
			case isCut(s, m):
			case m == nil:
				missing = append(missing, name)
			case m.Overdue > 0:
				late = append(late, fmt.Sprintf("%s: %s%d row(s)%s%s", name, atLeast(m.Capped), m.Overdue, keptBy(m), colon(said(of, m))))
			case of.ProblemOf(m).Reason != "":
				missing = append(missing, name+colon(said(of, m)))
			case of.UnknownAge > 0:
				unaged = append(unaged, fmt.Sprintf("%s: %s%d row(s)", name, atLeast(of.Capped), of.UnknownAge))
			case m.UnknownTenantLate > 0:
				untold = append(untold, fmt.Sprintf("%s: %s%d row(s)", name, atLeast(m.Capped), m.UnknownTenantLate))
			}
		}
	}
	cut, all := cutOf(o, policy)
	switch {
	case len(late) > 0:
		beside := ""
		if len(cut) > 0 {
			beside = "; beside that " + overLimit(len(cut), all)
		}
		return no(v1alpha1.ReasonOverdue, "past window and slack, and still there: %s%s%s", list(late), auditHint(o.Result), beside)
	case len(cut) > 0:
		return unknown(v1alpha1.ReasonLimitReached, "%s: %s", overLimit(len(cut), all), list(cut))
	case len(missing) > 0:
		return unknown(v1alpha1.ReasonNotMeasured, "not measured, not to be deleted from, or not to be kept as promised: %s", list(missing))
	case len(unaged) > 0:
		return unknown(v1alpha1.ReasonUnknownAge, "rows without an age that can be believed are never deleted; correct them in the store: %s", list(unaged))
	case len(untold) > 0:
		return unknown(v1alpha1.ReasonUnknownTenant, "rows that name no known tenant are older than the shortest window that a tenant has, and may be that tenant's; correct the rows, or spec.externalIDs of the Tenant that is meant: %s", list(untold))
	case len(o.Result.Unidentified) > 0 && unknownTenants(s, policy) > 0:
		return unknown(v1alpha1.ReasonUnknownTenant, "rows of tenants that are not known may be rows of %s, which have shorter windows and no externalIDs of the store's type", list(o.Result.Unidentified))
	default:
		return yes(v1alpha1.ReasonCompliant, "measured, and nothing is overdue")
	}
}

// isCut says whether the status had no room for a measurement, which is then absent.
func isCut(s v1alpha1.DataStoreStatus, m *v1alpha1.RuleMeasurement) bool {
	return m == nil && s.Omitted != nil && s.Omitted.Rules > 0
}

// cutOf are the measurements that had no room, of so many.
func cutOf(o StoreObserved, policy string) (cut []string, all int) {
	for _, d := range o.Result.Plan.Datasets {
		for _, r := range d.Rules {
			if policy != "" && r.Policy != policy {
				continue
			}
			all++
			if _, m := measurementOf(o.Measured.Datasets, d.Name, r); isCut(o.Measured, m) {
				cut = append(cut, ruleName(d, r))
			}
		}
	}
	return cut, all
}

func overLimit(cut, all int) string {
	return fmt.Sprintf("%d of %d measurements are unknown, since status.datasets holds %d bytes and %d rules each; split the datasets over several DataStores, or let fewer rules govern them",
		cut, all, maxDatasetBytes, maxRules)
}

// limitReached says whether measurements of the store as it is now had no room, whatever else is said of it.
func limitReached(o StoreObserved) bool {
	if unmeasured(o) != nil {
		return false
	}
	cut, _ := cutOf(o, "")
	return len(cut) > 0
}

// limit is the step's verdict: Compliant says it, or says it beside what is late.
func limit(compliant metav1.Condition) metav1.Condition {
	if compliant.Reason == v1alpha1.ReasonLimitReached {
		return compliant
	}
	return no(v1alpha1.ReasonLimitReached, "%s", see(v1alpha1.ConditionCompliant))
}

func ruleName(d plan.Dataset, r plan.Rule) string {
	return fmt.Sprintf("%s (%s/%s)", d.Name, r.Policy, r.Rule)
}

// measurementOf a rule under the window that it has now, and the dataset that it is of; nil when there is none.
func measurementOf(datasets []v1alpha1.DatasetMeasurement, dataset string, r plan.Rule) (*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) {
	s := v1alpha1.DataStoreStatus{Datasets: datasets}
	d, m := s.Measurement(dataset, r.Policy, r.Rule)
	if m == nil || m.Window != r.RetainFor.String() {
		return d, nil
	}
	return d, m
}

// unknownTenants counts rows of unknown tenants in the datasets that a policy governs, or in all that any does.
func unknownTenants(s v1alpha1.DataStoreStatus, policy string) int64 {
	var n int64
	for i := range s.Datasets {
		d := &s.Datasets[i]
		if slices.ContainsFunc(d.Rules, func(m v1alpha1.RuleMeasurement) bool { return policy == "" || m.Policy == policy }) {
			n += d.UnknownTenant
		}
	}
	return n
}
